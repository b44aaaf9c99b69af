"""Which trial is next: those that a sweep plans, or those of the settings that Optuna proposes."""

import collections
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from bie_jax.tuning.folder import SEARCH, SweepFolder
from bie_jax.tuning.sweep import TPE, Axis, Range, Sweep
from bie_jax.tuning.trials import Base, Setting, Trial, planned_settings, trials_of, values_of

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Proposals:
    """Settings that Optuna proposes. What it was told stands in a journal of JSON lines: reading it runs no code.

    Args:
        path: of the journal.
        sweep: whose axes.
        search: how many there shall be.
    """

    def __init__(self, path: Path, sweep: Sweep, search: TPE):
        self._sweep = sweep
        self._distributions = {name: distribution_of(axis) for name, axis in sweep.axes.items()}
        # After a kill, other draws than those that were made before it: as many as there are trials were made.
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        self._study = optuna.create_study(
            storage=storage,
            study_name="sweep",
            load_if_exists=True,
            direction="maximize" if sweep.metric.maximize else "minimize",
        )
        self._study.sampler = optuna.samplers.TPESampler(seed=search.seed + len(self._study.trials))

    @property
    def count(self) -> int:
        """Settings that were proposed so far."""
        return len(self._study.trials)

    def setting(self, number: int) -> Setting:
        """One of them."""
        params = self._study.trials[number].params
        return {name: _value_of(axis, params[name]) for name, axis in self._sweep.axes.items()}

    def ask(self) -> int:
        """The number of a new one."""
        return self._study.ask(self._distributions).number

    def tell(self, number: int, values: list[float]) -> None:
        """What came of a setting: the metric of its trials, none if all failed."""
        state = optuna.trial.TrialState
        if self._study.trials[number].state == state.RUNNING:
            if values:
                self._study.tell(number, float(np.mean(values)))
            else:
                self._study.tell(number, state=state.FAIL)


class TrialQueue:
    """The trials of a sweep, one after the other; what is finished is not done again.

    Args:
        base: what the sweep starts from.
        sweep: which settings there are.
        folder: of the sweep.
    """

    def __init__(self, base: Base, sweep: Sweep, folder: SweepFolder):
        self._base, self._sweep = base, sweep
        planned = planned_settings(sweep)
        self._proposals = None
        if isinstance(sweep.search, TPE):
            self._proposals = Proposals(folder.path / SEARCH, sweep, sweep.search)
        self._num_settings = sweep.search.num_settings if isinstance(sweep.search, TPE) else len(planned)
        self._waiting: collections.deque[tuple[int, Trial]] = collections.deque()
        self._open: dict[int, int] = {}  # trials of a setting that are not done
        self._values: dict[int, list[float]] = {}
        # What failed is tried again: memory may have been freed since.
        self._done = {
            trial.name: record for trial, record in folder.records() if record["state"] in ("finished", "stopped")
        }
        if self._proposals is not None:
            planned = [self._proposals.setting(number) for number in range(self._proposals.count)]
        for number, setting in enumerate(planned):
            self._enqueue(number, setting)

    @property
    def total(self) -> int:
        """Trials of the whole sweep."""
        return self._num_settings * self._sweep.trials_per_setting

    @property
    def left(self) -> int:
        """Trials that are still to be run, those of settings that are not proposed yet among them."""
        return self.total - len(self._done)

    def next(self) -> tuple[int, Trial] | None:
        """The next trial and its setting's number; None while there is none."""
        if not self._waiting and self._proposals is not None and self._proposals.count < self._num_settings:
            number = self._proposals.ask()
            self._enqueue(number, self._proposals.setting(number))
        return self._waiting.popleft() if self._waiting else None

    def tell(self, number: int, value: float | None) -> None:
        """A trial of a setting is done.

        Args:
            number: of the setting.
            value: of the metric; None if it failed.
        """
        self._open[number] -= 1
        if value is not None:
            self._values[number].append(value)
        self._close(number)

    def _enqueue(self, number: int, setting: Setting) -> None:
        trials = trials_of(self._base, self._sweep, setting)
        left = [trial for trial in trials if trial.name not in self._done]
        self._open[number] = len(left)
        known = (self._done[trial.name]["value"] for trial in trials if trial.name in self._done)
        self._values[number] = [value for value in known if value is not None]
        self._waiting.extend((number, trial) for trial in left)
        self._close(number)

    def _close(self, number: int) -> None:
        if self._proposals is not None and not self._open[number]:
            self._proposals.tell(number, self._values[number])


def distribution_of(axis: Axis) -> BaseDistribution:
    """An axis as Optuna has it: of what is no range, the number of the value."""
    if isinstance(axis, Range):
        if axis.whole:
            return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    return CategoricalDistribution(range(len(values_of(axis))))


def as_param(axis: Axis, value: Any) -> Any:
    """A value as Optuna has it."""
    return value if isinstance(axis, Range) else values_of(axis).index(value)


def _value_of(axis: Axis, param: Any) -> Any:
    return param if isinstance(axis, Range) else values_of(axis)[param]

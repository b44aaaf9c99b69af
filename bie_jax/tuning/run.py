"""`launch.py --sweep=FILE`: every trial a run of its own, on Ray Tune; then a ranking, and a page.

A Ray of this machine starts and stops with the command; RAY_ADDRESS names a cluster instead, which has to see the same
folders. What is finished stays when the command is typed again, and what was broken off goes on.
"""

import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from bie_jax.config.flags import arguments_of, config_of
from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.config.stored import flatten
from bie_jax.files.lock import locked
from bie_jax.training.writers.stop_signal import Interrupted
from bie_jax.tuning.check import check_all
from bie_jax.tuning.cluster import started_ray
from bie_jax.tuning.command import command_of, environment_of
from bie_jax.tuning.folder import RANKING_TEXT, State, SweepFolder
from bie_jax.tuning.process import TrialProcess
from bie_jax.tuning.progress import ProgressTable
from bie_jax.tuning.ranking import rank
from bie_jax.tuning.report.page import write_page
from bie_jax.tuning.search import TrialQueue
from bie_jax.tuning.sweep import Logged, Sweep, as_json, check_apart, load_sweep
from bie_jax.tuning.trials import Base, Trial
from bie_jax.tuning.values import value_of_run

# No statistics to Ray's makers, no files of its own about every trial, and none of its own tables beside ours.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
_MOST_EPOCHS = 10**9
_GIB = 2**30


def run_sweep(sweep_file: str, base: Base, workdir: Path, cache: str) -> Path:
    """Run what is left of a sweep, and write its ranking.

    Args:
        sweep_file: of `configs/sweeps/`.
        base: the configuration that it starts from.
        workdir: folder of the sweep.
        cache: folder of compiled programs, for all trials.

    Returns:
        The path of the page.

    Raises:
        ConfigError: for anything that can be refused, before the first trial starts; and if no trial gave a number.
        LockedError: if another process runs the sweep.
        Interrupted: after SIGTERM or Ctrl-C, once its trials have saved.
    """
    sweep = load_sweep(sweep_file)
    check_apart(sweep, base.overrides)
    check_all(base, sweep)
    given = config_of(arguments_of(base.file, base.overrides))
    described = {"config": as_json(flatten(given.to_dict())), **sweep.described()}
    with locked(workdir / ".lock"):
        folder = SweepFolder(workdir.absolute())
        folder.begin(described)
        queue = TrialQueue(base, sweep, folder)
        left = queue.left
        print(f"sweep: {queue.total} trials, {queue.total - left} are done; {sweep.at_once} at once")
        stopped_by = _run_trials(sweep, folder, queue, left, cache) if left else None
        ranking = rank(sweep, folder)
        page = write_page(sweep, folder, ranking, check_config(given))
    if stopped_by is not None:
        raise Interrupted(f"stopped; {folder.path} keeps what is done, and the same command goes on", stopped_by)
    if not any(row.values for row in ranking.rows):
        raise ConfigError(f"no trial gave a number of {sweep.metric}; {ranking.rows[0].why}")
    print((folder.path / RANKING_TEXT).read_text())
    return page


class _Planned(Searcher):
    """Our queue, as Ray Tune asks it.

    Attributes:
        given: the number of its setting and the trial, by the trial's name.
    """

    def __init__(self, sweep: Sweep, folder: SweepFolder, queue: TrialQueue, cache: str):
        super().__init__(metric="value", mode="max" if sweep.metric.maximize else "min")
        self._sweep, self._folder, self._queue, self._cache = sweep, folder, queue, cache
        self.given: dict[str, tuple[int, Trial]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        found = self._queue.next()
        if found is None:
            return None
        _, trial = found
        self.given[trial.name] = found
        metric, workdir = self._sweep.metric, self._folder.workdir(trial)
        return {  # nothing but text, which the trial's process reads without a module of ours
            "name": trial.name,
            "command": command_of(trial.arguments, workdir, self._cache),
            "cwd": os.getcwd(),  # paths are what they are to who typed them
            "environment": dict(environment_of(self._sweep.each, self._folder.path.name, trial.name)),
            "workdir": str(workdir),
            "log": str(self._folder.log(trial)),
            "metric": metric.name if isinstance(metric, Logged) else "val/loss",
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """`_Told` hears of it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the folder of the sweep is its memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Told(tune.Callback):
    """What Ray Tune says of its trials, for the table and the trials' records."""

    def __init__(self, sweep: Sweep, folder: SweepFolder, queue: TrialQueue, planned: _Planned, table: ProgressTable):
        self._sweep, self._folder, self._queue, self._planned, self._table = sweep, folder, queue, planned, table
        self._seconds_before = {trial.name: record["seconds"] for trial, record in folder.records()}
        self._began: dict[str, float] = {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._table.draw()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name = trial.config["name"]
        self._began[name] = time.monotonic()
        self._table.start(name)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._table.tell(trial.config["name"], result["epoch"], result["value"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        name = trial.config["name"]
        if "code" not in result:  # the scheduler stopped it
            self._note(name, "stopped", result.get("value"), f"stopped after epoch {result.get('epoch', 0):.3g}")
        elif result["code"]:
            self._note(name, "failed", None, result["said"])
        else:
            _, ours = self._planned.given[name]
            try:
                value = value_of_run(self._folder.workdir(ours), self._sweep.metric)
            except ConfigError as error:
                self._note(name, "failed", None, str(error))
            else:
                self._note(name, "finished", value, "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "Ray lost it").strip().splitlines()
        self._note(trial.config["name"], "failed", None, lines[-1][:300])

    def _note(self, name: str, state: State, value: float | None, why: str) -> None:
        number, ours = self._planned.given[name]
        seconds = time.monotonic() - self._began.get(name, time.monotonic()) + self._seconds_before.get(name, 0)
        self._folder.write(ours, number, state, value, why, seconds)
        self._queue.tell(number, value)
        self._table.end(name, state, value, why)


def _run_trials(sweep: Sweep, folder: SweepFolder, queue: TrialQueue, left: int, cache: str) -> int | None:
    """All that is left; returns the number of the signal that stopped it, None if none did."""
    os.environ.update(_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails stands in our table
    each = {"cpu": sweep.each.cores, "gpu": sweep.each.gpus, "memory": int(sweep.each.memory_gb * _GIB)}
    trainable = tune.with_resources(TrialProcess, {name: amount for name, amount in each.items() if amount})
    ray_files = folder.path / ".ray"  # of this call alone; no later one reads them
    planned = _Planned(sweep, folder, queue, cache)
    with (
        started_ray(sweep),
        ProgressTable(queue.total, left, str(sweep.metric)) as table,
        _sigterm_as_interrupt() as terminated,
    ):
        try:
            tuner = tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    metric="value",
                    mode="max" if sweep.metric.maximize else "min",
                    search_alg=planned,
                    scheduler=_scheduler(sweep),
                    num_samples=left,
                    max_concurrent_trials=sweep.at_once,
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=str(ray_files),
                    verbose=0,
                    # A trial is its own checkpoint.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    callbacks=[_Told(sweep, folder, queue, planned, table)],
                ),
            )
            tuner.fit()
        finally:
            shutil.rmtree(ray_files, ignore_errors=True)
    if table.num_ended == left:
        return None
    return signal.SIGTERM if terminated else signal.SIGINT


def _scheduler(sweep: Sweep) -> TrialScheduler:
    if sweep.halving is None:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epoch",
        max_t=_MOST_EPOCHS,
        grace_period=sweep.halving.first_epochs,
        reduction_factor=sweep.halving.factor,
    )


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[list[int]]:
    """SIGTERM stops Ray Tune as Ctrl-C does: trials save, and no new one starts; the list says that it came."""
    came: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        came.append(number)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)

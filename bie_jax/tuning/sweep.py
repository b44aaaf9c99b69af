"""What a sweep file says: which keys vary, how values are searched, how often each is repeated, and what decides.

A file of `configs/sweeps/` has a function `get_sweep`, which returns a `Sweep`. Nothing here has a default.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bie_jax.config.files import File
from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.scores.keys import BALANCED_ACCURACY, MACRO_F1, UNSEEN


@dataclasses.dataclass(frozen=True)
class Choice:
    """Values of the key that the axis is named after."""

    values: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Options:
    """Named settings of several keys at once; the key "config" stands for another configuration file."""

    settings: Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two ends, of the key that the axis is named after.

    Attributes:
        low: may occur.
        high: may occur.
        log: whether each decade is as likely as the next, else each interval of one length.
        whole: whether the numbers are whole.
    """

    low: float
    high: float
    log: bool
    whole: bool


Axis = Choice | Options | Range


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every combination; of axes without a `Range`."""


@dataclasses.dataclass(frozen=True)
class Random:
    """Settings drawn at random."""

    num_settings: int
    seed: int


@dataclasses.dataclass(frozen=True)
class TPE:
    """Settings proposed by what the ones before gave: tree-structured Parzen estimators (Bergstra et al. 2011), by
    Optuna."""

    num_settings: int
    seed: int


Search = Grid | Random | TPE


@dataclasses.dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving (ASHA, Li et al. 2018, arXiv 1810.05934), by Ray Tune.

    Attributes:
        first_epochs: after which a trial may be stopped for the first time.
        factor: one of so many goes on, there and after `factor` times as many epochs again.
    """

    first_epochs: int
    factor: int


@dataclasses.dataclass(frozen=True)
class Score:
    """A number of `scores.parquet`, by the columns that name it; "trained_encoder" and the image level are meant.

    Attributes:
        normalization: "raw" or "per_plate".
        split: "leave_plate_out", "stratified_k_fold", "unseen_by_encoder", "not_same_well" or "plate_identity"; not
            "held_out", which the choice is reported on.
        classifier: "logistic_regression", "random_forest" or "1_nearest_neighbors".
        metric: "macro_f1", "balanced_accuracy" or "accuracy".
        maximize: whether more is better.
    """

    normalization: str
    split: str
    classifier: str
    metric: str
    maximize: bool

    @property
    def pools_folds(self) -> bool:
        """Whether out-of-fold predictions of all folds are counted together; else the folds' numbers are averaged."""
        return self.split == UNSEEN and self.metric in (MACRO_F1, BALANCED_ACCURACY)

    def __str__(self) -> str:
        parts = (self.metric, self.classifier, self.split, self.normalization)
        return ", ".join(part.replace("_", " ").replace("f1", "F1") for part in parts)


@dataclasses.dataclass(frozen=True)
class Logged:
    """A number that validation writes to `metrics.jsonl`, at its best; "val/loss" is one of every method."""

    name: str
    maximize: bool

    @property
    def pools_folds(self) -> bool:
        """Losses of folds are averaged."""
        return False

    def __str__(self) -> str:
        return self.name


Metric = Score | Logged
# Keys that a sweep sets by fields of its own.
_SET_BY = {
    "train.seed": "seeds",
    "data.num_folds": "num_folds",
    "data.fold": "num_folds",
    "data.held_out": "held_out",
}


@dataclasses.dataclass(frozen=True)
class Share:
    """What one trial may take.

    Attributes:
        cores: of a CPU.
        gpus: may be a part of one, of whose memory XLA then reserves that part.
        memory_gb: that Ray sets aside; 0: it does not count memory.
    """

    cores: int
    gpus: float
    memory_gb: float


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Many runs of one configuration.

    Attributes:
        axes: what varies, by key of the configuration; of `Options` by any name.
        fixed: values for all trials, by key; the command line may change them.
        search: which combinations are tried.
        metric: what decides.
        seeds: of training; each setting is trained with each.
        num_folds: of `data.num_folds`, each setting is trained once for each; 0: none.
        held_out: what `data.held_out` is in turn, e.g. (("plate_1",), ("plate_2",)): nothing of it is seen by training
            or by the choice, and the chosen setting is reported on it. (): nothing is, and the report says so.
        halving: whether trials that fall behind are stopped; needs a `Logged` metric.
        at_once: trials side by side.
        each: what one of them may take.
    """

    axes: Mapping[str, Axis]
    fixed: Mapping[str, Any]
    search: Search
    metric: Metric
    seeds: Sequence[int]
    num_folds: int
    held_out: Sequence[tuple[str, ...]]
    halving: Halving | None
    at_once: int
    each: Share

    @property
    def units_per_setting(self) -> int:
        """Times that a setting is scored: each seed with each held-out part, its folds taken together."""
        return len(self.seeds) * max(1, len(self.held_out))

    @property
    def trials_per_setting(self) -> int:
        """Runs of a setting."""
        return self.units_per_setting * max(1, self.num_folds)

    def described(self) -> dict[str, Any]:
        """All that makes it this sweep, as JSON has it: not how many trials run at once, nor what they may take."""
        kept = [field.name for field in dataclasses.fields(self) if field.name not in ("at_once", "each")]
        return {name: as_json(getattr(self, name)) for name in kept}


def load_sweep(path: str) -> Sweep:
    """The sweep of a file.

    Raises:
        ConfigError: for what is no such file, where it fails, and for a sweep that cannot be.
    """
    file = File("sweep", path, path)
    sweep = file.call("get_sweep", [], Sweep)
    for problem in _problems(sweep):
        raise file.refusal(problem)
    return sweep


def _problems(sweep: Sweep) -> list[str]:
    """What is wrong with a sweep by itself, whatever the configuration."""
    problems = []
    if not sweep.axes:
        problems.append("axes is empty; name a key that varies, e.g. {'model.latent_dim': Choice((8, 32))}")
    for name, axis in sweep.axes.items():
        if isinstance(axis, Choice) and len(set(map(repr, axis.values))) < len(axis.values):
            problems.append(f"the axis {name} has a value twice")
        if (isinstance(axis, Choice) and not axis.values) or (isinstance(axis, Options) and not axis.settings):
            problems.append(f"the axis {name} has no values")
        if isinstance(axis, Range):
            finite = math.isfinite(axis.low) and math.isfinite(axis.high)
            if not finite or axis.low >= axis.high or (axis.log and axis.low <= 0):
                above = " above 0" if axis.log else ""
                problems.append(f"the axis {name} goes from {axis.low} to {axis.high}: low has to be under high{above}")
            if isinstance(sweep.search, Grid):
                problems.append(f"the axis {name} is a Range, of which a Grid knows no values; Random and TPE do")
    if not isinstance(sweep.search, Grid) and sweep.search.num_settings < 1:
        problems.append(f"search.num_settings={sweep.search.num_settings}: at least 1")
    if not sweep.seeds or len(set(sweep.seeds)) < len(sweep.seeds):
        problems.append(f"seeds={tuple(sweep.seeds)}: one or more, each once")
    if sweep.num_folds < 0 or sweep.num_folds == 1:
        problems.append(f"num_folds={sweep.num_folds}: 0, or from 2")
    if sweep.halving is not None:
        if not isinstance(sweep.metric, Logged):
            problems.append("halving looks at unfinished trials, and a Score is known at the end; use Logged")
        if len(sweep.held_out) > 1 or sweep.num_folds:
            problems.append(
                "halving compares trials with each other, and losses of other images are not comparable: with it "
                "num_folds is 0 and held_out has one part at most"
            )
        if sweep.halving.first_epochs < 1 or sweep.halving.factor < 2:
            problems.append(f"halving={sweep.halving}: first_epochs from 1, factor from 2")
    if sweep.at_once < 1:
        problems.append(f"at_once={sweep.at_once}: at least 1")
    if sweep.each.cores < 1 or sweep.each.gpus < 0 or sweep.each.memory_gb < 0:
        problems.append(f"each={sweep.each}: cores from 1, gpus and memory_gb from 0")
    for key in (*sweep.axes, *sweep.fixed):
        if key in _SET_BY:
            problems.append(f"{key} is what {_SET_BY[key]} of the sweep sets; leave it out")
    return problems


def check_apart(sweep: Sweep, overrides: Mapping[str, Any]) -> None:
    """Raise ConfigError for a key that varies and that the command line sets."""
    for name, axis in sweep.axes.items():
        keys = {key for setting in axis.settings.values() for key in setting} if isinstance(axis, Options) else {name}
        for key in sorted(keys & overrides.keys()):
            raise ConfigError(f"config.{key}={overrides[key]!r}: the sweep's axis {name} sets this key; leave it out")
    for key, by in _SET_BY.items():
        if key in overrides:
            raise ConfigError(f"config.{key}={overrides[key]!r}: {by} of the sweep sets this key; leave it out")


def as_json(value: Any) -> Any:
    """A value as JSON gives it back: lists for tuples, tables for dataclasses."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__} | fields
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    return value

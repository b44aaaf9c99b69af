"""The trials of a sweep: a setting of its axes, a seed, a fold, and what is held out; each is an ordinary run."""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from bie_jax.config.flags import arguments_of
from bie_jax.tuning.sweep import Axis, Choice, Grid, Options, Random, Range, Sweep

# What an axis is in a setting: the value of a `Choice` or a `Range`, the name of one of the `Options`.
Setting = dict[str, Any]

_LONGEST_NAME = 120  # of a folder
_MOST_DRAWS = 100  # for a setting that was not drawn before; a space may have fewer than are asked for


@dataclasses.dataclass(frozen=True)
class Base:
    """The configuration that a sweep starts from.

    Attributes:
        file: of it.
        overrides: what the command line changes, by key.
        tables: see `refuse_unread_values`.
    """

    file: str
    overrides: Mapping[str, Any]
    tables: Sequence[ConfigDict]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run.

    Attributes:
        setting: of the axes.
        seed: of training.
        fold: that is validated on; None: no folds.
        held_out: what nobody sees; (): nothing.
        arguments: of `launch.py`, without its workdir.
    """

    setting: Setting
    seed: int
    fold: int | None
    held_out: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        parts = [describe_setting(self.setting)]
        parts += [f"out={'+'.join(self.held_out)}"] if self.held_out else []
        parts += [f"fold={self.fold}"] if self.fold is not None else []
        name = re.sub(r"[^\w=.,+()-]+", "_", ",".join([*parts, f"seed={self.seed}"]))
        if len(name) <= _LONGEST_NAME:
            return name
        return f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def describe_setting(setting: Setting) -> str:
    """A setting in a line: "latent_dim=8,lr=0.001"; the last part of a key, or all of it where two would be one."""
    short = [name.rpartition(".")[2] for name in setting]
    names = [last if short.count(last) == 1 else name for name, last in zip(setting, short, strict=True)]
    return ",".join(f"{name}={written(value)}" for name, value in zip(names, setting.values(), strict=True))


def planned_settings(sweep: Sweep) -> list[Setting]:
    """All settings of a sweep that are known beforehand: none, of a search that proposes one after the other."""
    if isinstance(sweep.search, Grid):
        values = [values_of(axis) for axis in sweep.axes.values()]
        return [dict(zip(sweep.axes, combination, strict=True)) for combination in itertools.product(*values)]
    if isinstance(sweep.search, Random):
        rng, drawn = np.random.default_rng(sweep.search.seed), {}
        for _ in range(_MOST_DRAWS * sweep.search.num_settings):
            setting = {name: _drawn(axis, rng) for name, axis in sweep.axes.items()}
            drawn.setdefault(describe_setting(setting), setting)
            if len(drawn) == sweep.search.num_settings:
                break
        return list(drawn.values())
    return []


def values_of(axis: Axis) -> list[Any]:
    """What an axis can be, of a `Range` its ends."""
    if isinstance(axis, Choice):
        return list(axis.values)
    if isinstance(axis, Options):
        return list(axis.settings)
    ends = (axis.low, axis.high)
    return [int(end) for end in ends] if axis.whole else [float(end) for end in ends]


def trials_of(base: Base, sweep: Sweep, setting: Setting) -> list[Trial]:
    """A setting with every seed, fold and held-out part."""
    folds = list(range(sweep.num_folds)) or [None]
    return [
        Trial(setting, seed, fold, held_out, _arguments(base, sweep, setting, seed, fold, held_out))
        for seed, held_out, fold in itertools.product(sweep.seeds, sweep.held_out or ((),), folds)
    ]


def _arguments(
    base: Base, sweep: Sweep, setting: Setting, seed: int, fold: int | None, held_out: tuple[str, ...]
) -> tuple[str, ...]:
    file, values = base.file, {**sweep.fixed, **base.overrides}
    for key, value in _keys(sweep, setting):
        if key == "config":
            file = value
        else:
            values[key] = value
    values["train.seed"] = seed
    if fold is not None:
        values |= {"data.num_folds": sweep.num_folds, "data.fold": fold}
    if held_out:
        values["data.held_out"] = held_out
    return tuple(arguments_of(file, values))


def _keys(sweep: Sweep, setting: Setting) -> Iterator[tuple[str, Any]]:
    """What a setting says of single keys."""
    for name, value in setting.items():
        axis = sweep.axes[name]
        if isinstance(axis, Options):
            yield from axis.settings[value].items()
        else:
            yield name, value


def _drawn(axis: Axis, rng: np.random.Generator) -> Any:
    if not isinstance(axis, Range):
        values = values_of(axis)
        return values[int(rng.integers(len(values)))]
    # The ends of whole numbers lie half a number further out, so that they are as likely as those between.
    low, high = (axis.low - 0.5, axis.high + 0.5) if axis.whole else (axis.low, axis.high)
    value = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if axis.log else float(rng.uniform(low, high))
    return min(max(round(value), int(axis.low)), int(axis.high)) if axis.whole else value


def written(value: Any) -> str:
    """A value in a line and in the name of a folder."""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace(" ", "")

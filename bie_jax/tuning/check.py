"""What can be refused of a sweep is refused for all its trials, before the first one starts."""

import itertools

import numpy as np

from bie_jax.config.flags import config_of, refuse_unread_values
from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, ConfigError
from bie_jax.config.set_rules import check_run
from bie_jax.evaluation.scores.keys import (
    ACCURACY,
    BALANCED_ACCURACY,
    HELD_OUT,
    LOGISTIC_REGRESSION,
    MACRO_F1,
    NOT_SAME_WELL,
    PER_PLATE,
    PLATE_IDENTITY,
    RANDOM_FOREST,
    RAW,
    neighbors_of,
)
from bie_jax.evaluation.scores.plan import NEIGHBORS, plan_scores
from bie_jax.input.mixture import Mixture, open_mixture
from bie_jax.input.splits import sides_of
from bie_jax.tuning.sweep import TPE, Score, Sweep
from bie_jax.tuning.trials import Base, Setting, planned_settings, trials_of, values_of

_MOST_CHECKED = 500  # corners of what a search may propose


def check_all(base: Base, sweep: Sweep) -> None:
    """Hold every trial against the schema, the rules, its sets and the metric, before the first one starts.

    Of what a search proposes later, the corners are checked: every choice with both ends of every range.

    Raises:
        ConfigError: naming the trial and the key.
    """
    settings = planned_settings(sweep)
    if isinstance(sweep.search, TPE):
        corners = itertools.product(*(values_of(axis) for axis in sweep.axes.values()))
        settings = [dict(zip(sweep.axes, corner, strict=True)) for corner in itertools.islice(corners, _MOST_CHECKED)]
    names: dict[str, Setting] = {}
    for trial in (trial for setting in settings for trial in trials_of(base, sweep, setting)):
        if names.setdefault(trial.name, trial.setting) is not trial.setting:
            raise ConfigError(f"the sweep makes {trial.name} twice")
    mixtures: dict[str, Mixture] = {}
    for trial in (trial for setting in settings for trial in trials_of(base, sweep, setting)):
        try:
            config = config_of(trial.arguments)
            checked = check_config(config)
            refuse_unread_values(config, trial.arguments[0].partition("=")[2], base.tables)
            where = repr((checked.data.name, checked.data.data_dir, checked.data.mix_with, checked.data.kind))
            if where not in mixtures:
                mixtures[where] = open_mixture(checked.data)
            train_rows, val_rows = check_run(checked, mixtures[where])
            if isinstance(sweep.metric, Score):
                _check_scored(sweep.metric, checked, mixtures[where], train_rows[0], val_rows[0])
        except ConfigError as error:
            raise ConfigError(f"trial {trial.name}: {error}") from None


def _check_scored(
    metric: Score, config: Config, mixture: Mixture, train_rows: np.ndarray, val_rows: np.ndarray
) -> None:
    """Raise ConfigError for a score that no trial will write."""
    metadata = mixture.sets[0].metadata
    plan = plan_scores(metadata, sides_of(train_rows, val_rows, len(metadata)), config.eval)
    # What is held out is what the choice is reported on, and no choice sees it.
    classified = [split for split in plan.parts if split not in (NEIGHBORS, HELD_OUT)]
    possible = {
        "normalization": [RAW, PER_PLATE] if len(np.unique(plan.plates)) > 1 else [RAW],
        "split": classified + [NOT_SAME_WELL] * (NEIGHBORS in plan.parts) + [PLATE_IDENTITY] * bool(len(plan.controls)),
    }
    if metric.split == NOT_SAME_WELL:
        possible |= {"classifier": [neighbors_of(config.eval.knn_k)], "metric": [ACCURACY]}
    elif metric.split == PLATE_IDENTITY:
        possible |= {"classifier": [LOGISTIC_REGRESSION], "metric": [MACRO_F1]}
    else:
        possible |= {
            "classifier": [LOGISTIC_REGRESSION, RANDOM_FOREST],
            "metric": [MACRO_F1, BALANCED_ACCURACY],
        }
    for field, allowed in possible.items():
        value = getattr(metric, field)
        if value not in allowed:
            raise ConfigError(f"the metric's {field}={value!r} is none that it writes; there are {', '.join(allowed)}")

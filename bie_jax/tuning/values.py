"""What a finished trial is worth: its metric, its baselines under the same one, and its score on what was held out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.report.training_curves import read_metrics
from bie_jax.evaluation.scores.classification import scores_per_class
from bie_jax.evaluation.scores.keys import (
    BALANCED_ACCURACY,
    HELD_OUT,
    LOGISTIC_REGRESSION,
    MACRO_F1,
    MAJORITY,
    RANDOM,
    TRAINED,
    entry_key,
)
from bie_jax.files import integrity
from bie_jax.training import run_files
from bie_jax.training.writers.log import LOG
from bie_jax.tuning.sweep import Logged, Metric, Score


@dataclasses.dataclass(frozen=True)
class Unit:
    """A setting under one seed and one held-out part, its folds taken together.

    Attributes:
        value: of the metric.
        random_weights: the same of the untrained network; None for a logged metric.
        best_baseline: the best of all that needs no training; None for a logged metric.
        held_out: of what was held out, by the same classifier and normalization; of a metric that is no score of a
            classifier macro F1 of logistic regression, per plate where there are several. None where nothing was.
        confusion: of what was held out, with its classes; None where nothing was.
        epochs: until the run ended, of its folds the mean.
    """

    value: float
    random_weights: float | None
    best_baseline: float | None
    held_out: float | None
    confusion: tuple[np.ndarray, list[str]] | None
    epochs: float


def value_of_run(workdir: Path, metric: Metric) -> float:
    """The metric of one run.

    Raises:
        ConfigError: if the run did not write it.
    """
    if isinstance(metric, Logged):
        records = read_metrics(workdir / LOG)
        values = [record[metric.name] for record in records if metric.name in record]
        if not values:
            names = sorted({key for record in records for key in record if key.startswith("val/")})
            raise ConfigError(f"the metric {metric.name} was not logged; there are {', '.join(names) or 'none'}")
        return float(max(values) if metric.maximize else min(values))
    return _row(read_scores(workdir), metric, TRAINED)


def unit_of(workdirs: Sequence[Path], metric: Metric) -> Unit:
    """A setting under one seed and one held-out part.

    Args:
        workdirs: of its folds, or of the one run.
        metric: what decides.

    Raises:
        ConfigError: if a run did not write it.
    """
    epochs = float(np.mean([read_metrics(workdir / LOG)[-1]["epoch"] for workdir in workdirs]))
    scores = [read_scores(workdir) for workdir in workdirs]
    held = [_held_out(one, metric) for one in scores]
    known = [one for one in held if one is not None]
    confusion = _joined(known) if known else None
    held_out = None if confusion is None else _metric_of(confusion[0], _metric_name(metric))
    if isinstance(metric, Logged):
        value = float(np.mean([value_of_run(workdir, metric) for workdir in workdirs]))
        return Unit(value, None, None, held_out, confusion, epochs)

    def of(feature_set: str) -> float:
        if metric.pools_folds and len(scores) > 1:
            pooled = _joined([_confusion(one, metric, feature_set, metric.split) for one in scores])
            return _metric_of(pooled[0], metric.metric)
        return float(np.mean([_row(one, metric, feature_set) for one in scores]))

    others = {row["feature_set"] for row in scores[0]["rows"]} - {TRAINED, MAJORITY}
    baselines = [of(name) for name in sorted(others)]
    best = (max if metric.maximize else min)(baselines) if baselines else None
    return Unit(of(TRAINED), of(RANDOM), best, held_out, confusion, epochs)


def pooled_value(confusions: Sequence[tuple[np.ndarray, list[str]]], metric: Metric) -> float:
    """The metric of several held-out parts counted together."""
    return _metric_of(_joined(confusions)[0], _metric_name(metric))


def read_scores(workdir: Path) -> dict[str, Any]:
    """The scores of a run; raises DamagedFileError, or FileNotFoundError if it was not scored."""
    return integrity.read_json(workdir / run_files.SCORES, "run the trial's command with --stage=evaluate")


def _row(scores: dict[str, Any], metric: Score, feature_set: str) -> float:
    for row in scores["rows"]:
        if row["feature_set"] == feature_set and all(
            row[name] == getattr(metric, name) for name in ("normalization", "split", "classifier", "metric")
        ):
            return float(row["value"])
    raise ConfigError(f"the run has no score {metric} of {feature_set}")


def _metric_name(metric: Metric) -> str:
    """Of what is held out: what the metric is, if it is one of classification, else macro F1."""
    is_of_classes = isinstance(metric, Score) and metric.metric == BALANCED_ACCURACY
    return BALANCED_ACCURACY if is_of_classes else MACRO_F1


def _held_out(scores: dict[str, Any], metric: Metric) -> tuple[np.ndarray, list[str]] | None:
    if HELD_OUT not in scores["splits"]:
        return None
    classified = isinstance(metric, Score) and metric.classifier in scores["feature_sets"][TRAINED]["classifiers"]
    by = metric if classified else Score(_normalization(metric, scores), HELD_OUT, LOGISTIC_REGRESSION, MACRO_F1, True)
    return _confusion(scores, by, TRAINED, HELD_OUT)  # type: ignore[arg-type]


def _normalization(metric: Metric, scores: dict[str, Any]) -> str:
    return metric.normalization if isinstance(metric, Score) else list(scores["normalizations"])[-1]


def _confusion(scores: dict[str, Any], metric: Score, feature_set: str, split: str) -> tuple[np.ndarray, list[str]]:
    entry = scores["feature_sets"][entry_key(feature_set, metric.normalization)]
    found = entry["classifiers"][metric.classifier][split]
    return np.asarray(found["confusion"]), found["classes"]


def _joined(confusions: Sequence[tuple[np.ndarray, list[str]]]) -> tuple[np.ndarray, list[str]]:
    """The sum of confusion matrices, whose classes may differ."""
    classes = sorted({name for _, names in confusions for name in names})
    total = np.zeros((len(classes), len(classes)))
    for matrix, names in confusions:
        places = [classes.index(name) for name in names]
        total[np.ix_(places, places)] += matrix
    return total, classes


def _metric_of(confusion: np.ndarray, metric: str) -> float:
    _, recall, f1 = scores_per_class(confusion)
    return float((recall if metric == BALANCED_ACCURACY else f1).mean())

"""Linear and forest probes: how well a column of the metadata can be read off frozen features.

Every score comes from out-of-fold predictions pooled over the folds, so that each image is counted once and a fold that
lacks a class needs no special rule. All that is fitted (scaling, principal components, classifier) is fitted on the
training fold alone.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import TypedDict

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from bie_jax.evaluation.feature_set import Reduction
from bie_jax.evaluation.scores.folds import Fold
from bie_jax.evaluation.scores.interval import bootstrap_interval
from bie_jax.evaluation.scores.keys import BALANCED_ACCURACY, LOGISTIC_REGRESSION, MACRO_F1, RANDOM_FOREST
from bie_jax.evaluation.scores.preparation import build_preparation, check_features
from bie_jax.evaluation.scores.rows import Row


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Pooled out-of-fold predictions [N] of one classifier, and what went less than well while fitting it."""

    values: np.ndarray
    notes: tuple[str, ...]


class ClassScore(TypedDict):
    """How well one class is found; `support` is the number of its images."""

    precision: float
    recall: float
    f1: float
    support: int


class Classification(TypedDict):
    """The scores of one classifier on one split, as they stand in `scores.json`; see `classification_scores`."""

    macro_f1: float
    macro_f1_interval_95: list[float]
    macro_f1_of_draws: list[float]
    accuracy: float
    balanced_accuracy: float
    per_class: dict[str, ClassScore]
    classes: list[str]
    confusion: list[list[int]]


def classification_rows(classifiers: dict[str, dict[str, Classification]]) -> Iterator[Row]:
    """Macro F1 with its interval, and balanced accuracy, of each classifier on each split."""
    for classifier, splits in classifiers.items():
        for split, score in splits.items():
            n = sum(of_class["support"] for of_class in score["per_class"].values())
            low, high = score["macro_f1_interval_95"]
            yield Row(split, classifier, MACRO_F1, score["macro_f1"], n, low, high)
            yield Row(split, classifier, BALANCED_ACCURACY, score["balanced_accuracy"], n)


def build_classifiers(seed: int, trees: int) -> dict[str, LogisticRegression | RandomForestClassifier]:
    """The two probes. Classes weigh the same whatever their size, since macro F1 is what is reported."""
    return {
        LOGISTIC_REGRESSION: LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000),
        RANDOM_FOREST: RandomForestClassifier(trees, class_weight="balanced", n_jobs=-1, random_state=seed),
    }


def cross_validate(
    features: np.ndarray,
    labels: np.ndarray,
    folds: list[Fold],
    *,
    classifiers: tuple[str, ...] = (LOGISTIC_REGRESSION, RANDOM_FOREST),
    components: Reduction | None = None,
    seed: int = 0,
    trees: int = 100,
    on_fold: Callable[[], object] = lambda: None,
) -> dict[str, Predictions]:
    """Out-of-fold predictions of each classifier.

    Args:
        features: [N, D] float, finite.
        labels: [N] str.
        folds: no row is tested twice; one that is never tested is predicted as "".
        classifiers: names out of `build_classifiers`.
        components: see `build_preparation`; fitted on each training fold first.
        seed: of the forest and of the components.
        trees: of the forest.
        on_fold: called after each fold, for a progress bar.

    Returns:
        Predictions by name of the classifier.

    Raises:
        ValueError: non-finite features, shapes that disagree, or folds that test a row twice, or learn from it too.
    """
    check_features(features, labels)
    tested = np.concatenate([fold.test for fold in folds])
    if len(np.unique(tested)) < len(tested):
        raise ValueError(f"the folds test {len(tested)} rows, of which {len(np.unique(tested))} differ: one only once")
    if any(np.intersect1d(fold.train, fold.test).size for fold in folds):
        raise ValueError("a fold learns from rows that it tests")
    # scikit-learn's forest takes words such as "7" for numbers in one place and for words in another: give it numbers.
    classes, numbers = np.unique(labels, return_inverse=True)
    values = {name: np.full(len(labels), "", dtype=labels.dtype) for name in classifiers}
    notes: dict[str, list[str]] = {name: [] for name in classifiers}
    # The matrices are small: two BLAS threads that wait for each other on busy cores took 40x the time of one.
    with threadpool_limits(1, user_api="blas"):
        for fold in folds:
            preparation = build_preparation(len(fold.train), features.shape[1], components, seed)
            train = preparation.fit_transform(features[fold.train])
            test = preparation.transform(features[fold.test])
            for name in classifiers:
                model = build_classifiers(seed, trees)[name]
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", ConvergenceWarning)
                    model.fit(train, numbers[fold.train])
                for warning in caught:
                    if issubclass(warning.category, ConvergenceWarning):
                        # It goes into the scores and the report: an unfinished fit must not pass for a finished one.
                        notes[name].append(
                            f"{name} had not converged after its last iteration with {fold.name} held out."
                        )
                    else:
                        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
                values[name][fold.test] = classes[np.asarray(model.predict(test), dtype=np.int64)]
            on_fold()
    return {name: Predictions(values[name], tuple(notes[name])) for name in classifiers}


def majority_predictions(labels: np.ndarray, folds: list[Fold]) -> Predictions:
    """Predict the commonest class of each training fold (the alphabetically first one on a tie)."""
    values = np.empty(len(labels), dtype=labels.dtype)
    for fold in folds:
        names, counts = np.unique(labels[fold.train], return_counts=True)
        values[fold.test] = names[counts.argmax()]
    return Predictions(values, ())


def classification_scores(
    labels: np.ndarray, predictions: np.ndarray, clusters: np.ndarray, *, resamples: int, seed: int
) -> Classification:
    """All scores of one set of predictions, as plain Python for `scores.json`.

    Macro F1 is the unweighted mean of the classes' F1; balanced accuracy is the unweighted mean of their recall; the
    F1 of a class that is never predicted is 0. Of several draws of what was random (weights) every score is the mean,
    `macro_f1_of_draws` has each one's, and `confusion` their sum.

    Args:
        labels: [N] str.
        predictions: [N] str, or [S, N] of S draws; every predicted class occurs in `labels`.
        clusters: [N], the well of each image, for the interval.
        resamples: bootstrap samples.
        seed: of the bootstrap.
    """
    classes = np.unique(labels)
    confusions = np.stack([confusion_matrix(labels, draw, classes) for draw in np.atleast_2d(predictions)])
    of_draws = scores_per_class(confusions)
    precision, recall, f1 = (values.mean(axis=0) for values in of_draws)
    confusion = confusions.sum(axis=0)
    support = confusions[0].sum(axis=1)
    low, high = bootstrap_interval(labels, predictions, clusters, resamples, seed)
    return {
        "macro_f1": float(f1.mean()),
        "macro_f1_interval_95": [low, high],
        "macro_f1_of_draws": of_draws[2].mean(axis=1).tolist(),
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "balanced_accuracy": float(recall.mean()),
        "per_class": {
            str(name): {
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1[k]),
                "support": int(support[k]),
            }
            for k, name in enumerate(classes)
        },
        "classes": [str(name) for name in classes],
        "confusion": confusion.tolist(),
    }


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Counts [K, K] int64; rows are the true class, columns the predicted one, both in the order of `classes`.

    Raises:
        ValueError: a label or prediction outside `classes`.
    """
    unknown = np.setdiff1d(np.concatenate([labels, predictions]), classes)
    if len(unknown):
        raise ValueError(f"labels outside the classes {list(map(str, classes))}: {list(map(str, unknown))}")
    order = np.argsort(classes)
    rows = order[np.searchsorted(classes, labels, sorter=order)]
    columns = order[np.searchsorted(classes, predictions, sorter=order)]
    size = len(classes)
    return np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)


def scores_per_class(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 [..., K] of confusion matrices [..., K, K]; 0 where a denominator is 0."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    predicted = confusion.sum(axis=-2)
    support = confusion.sum(axis=-1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(predicted + support, 1)
    return precision, recall, f1

"""Linear and forest probes, nearest neighbors and plate identity: how good are frozen features, and at what.

Every score comes from out-of-fold predictions pooled over the folds, so that each image is counted once and a
fold that lacks a class needs no special rule. All that is fitted (scaling, principal components, classifier) is fitted
on the training fold alone. The grouped split holds out a whole plate at a time, because images of one plate share
its staining and its illumination (the leakage is described by Caicedo et al. 2018, arXiv 1804.02541, as "not same
batch").
"""

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bie_jax.evaluation.feature_set import Block

LOGISTIC_REGRESSION = "logistic_regression"
RANDOM_FOREST = "random_forest"
MAJORITY = "majority"
_NUMBERS_HELD = 10**7  # of resamples times wells, or classes, at a time: 80 MB
# Parts that wells are divided into for nearest neighbors: each is prepared by what is fitted to the others.
NEIGHBOUR_PARTS = 10


@dataclasses.dataclass(frozen=True)
class Fold:
    """One division of the images: `name` says what was held out; `train` and `test` are row numbers, [n] int."""

    name: str
    train: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Pooled out-of-fold predictions [N] of one classifier, and what went less than well while fitting it."""

    values: np.ndarray
    notes: tuple[str, ...]


def _counts(values: np.ndarray) -> dict[str, int]:
    names, counts = np.unique(values, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts)}


def _check_two_classes(labels: np.ndarray) -> None:
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"a classifier needs at least two classes, the labels hold {_counts(labels)}; "
            "choose another column with --config.eval.label=COLUMN"
        )


def stratified_folds(labels: np.ndarray, num_folds: int, seed: int) -> list[Fold]:
    """Shuffled folds that keep the share of every class.

    Args:
        labels: [N] str.
        num_folds: at least 2.
        seed: of the shuffle.

    Raises:
        ValueError: one class only, fewer than two folds, or a class with fewer images than folds (each is named).
    """
    _check_two_classes(labels)
    if num_folds < 2:
        raise ValueError(f"stratified k-fold needs at least 2 folds, got {num_folds}; set --config.eval.folds=5")
    rare = {name: count for name, count in _counts(labels).items() if count < num_folds}
    if rare:
        raise ValueError(
            f"{num_folds} stratified folds need at least {num_folds} images of every class; too few of {rare}. Leave "
            "those classes out, or set fewer --config.eval.folds"
        )
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    rows = splitter.split(np.zeros((len(labels), 1)), labels)
    return [Fold(f"fold {i}", train, test) for i, (train, test) in enumerate(rows)]


def leave_group_out_folds(labels: np.ndarray, groups: np.ndarray) -> list[Fold]:
    """One fold per group (plate): that group is the test fold, all others are the training fold.

    Args:
        labels: [N] str.
        groups: [N] str.

    Raises:
        ValueError: fewer than two groups, or a training fold that would hold one class only.
    """
    _check_two_classes(labels)
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(
            f"leaving one group out needs at least two groups, the images come from {list(map(str, names))}"
        )
    folds = []
    for name in names:
        held_out = groups == name
        if len(np.unique(labels[~held_out])) < 2:
            raise ValueError(
                f"leaving {name} out, the images that remain hold a single class {_counts(labels[~held_out])}: "
                "no classifier can be fitted; choose another --config.eval.group or --config.eval.label"
            )
        folds.append(Fold(str(name), np.flatnonzero(~held_out), np.flatnonzero(held_out)))
    return folds


def describe_gaps(labels: np.ndarray, folds: list[Fold]) -> list[str]:
    """Sentences on folds whose classes differ between training and test: those scores need to be read with care."""
    notes = []
    for fold in folds:
        unseen = np.setdiff1d(labels[fold.test], labels[fold.train])
        if len(unseen):
            count = int(np.isin(labels[fold.test], unseen).sum())
            notes.append(
                f"Held out {fold.name}: {', '.join(map(str, unseen))} occurs nowhere in the training fold, "
                f"so its {count} images are counted as wrong."
            )
        present = np.unique(labels[fold.test])
        if len(present) == 1:
            notes.append(f"Held out {fold.name}: it holds one class only ({present[0]}).")
    return notes


def build_preparation(num_train: int, num_features: int, components: int | tuple[Block, ...] | None, seed: int):
    """What is fitted on a training fold before the classifiers: [principal components, then] standardization.

    Args:
        num_train: images in the training fold.
        num_features: columns of the features.
        components: number of principal components, what becomes of each block of columns, or None for none; never more
            than the fold can support.
        seed: of randomized singular value decompositions.

    Raises:
        ValueError: if the blocks are not of all columns.
    """
    if components is None:
        return make_pipeline(StandardScaler())
    if isinstance(components, int):
        count = min(components, num_train - 1, num_features)
        pca = PCA(count, svd_solver="randomized", iterated_power=3, random_state=seed)  # type: ignore[reportArgumentType]
        return make_pipeline(pca, StandardScaler())
    ends = np.cumsum([block.columns for block in components])
    if ends[-1] != num_features:
        raise ValueError(f"there are {num_features} features, and blocks of {ends[-1]}")

    def prepared(block: Block):
        if block.components is None:
            return "passthrough"
        pca = PCA(min(block.components, num_train - 1, block.columns), random_state=seed)
        return make_pipeline(StandardScaler(), pca) if block.standardized else pca

    parts = [
        (f"columns to {end}", prepared(block), slice(int(end) - block.columns, int(end)))
        for block, end in zip(components, ends, strict=True)
    ]
    return make_pipeline(ColumnTransformer(parts), StandardScaler())


def build_classifiers(seed: int, trees: int) -> dict[str, LogisticRegression | RandomForestClassifier]:
    """The two probes. Classes weigh the same whatever their size, since macro F1 is what is reported."""
    return {
        LOGISTIC_REGRESSION: LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000),
        RANDOM_FOREST: RandomForestClassifier(trees, class_weight="balanced", n_jobs=2, random_state=seed),
    }


def _check_features(features: np.ndarray, labels: np.ndarray) -> None:
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(f"features must be [N, D] with N = {len(labels)} labels, got shape {features.shape}")
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(features)} rows hold a value that is not finite, the first is row "
            f"{int(bad.argmax())}"
        )


def cross_validate(
    features: np.ndarray,
    labels: np.ndarray,
    folds: list[Fold],
    *,
    classifiers: tuple[str, ...] = (LOGISTIC_REGRESSION, RANDOM_FOREST),
    components: int | tuple[Block, ...] | None = None,
    seed: int = 0,
    trees: int = 100,
    on_fold=lambda: None,
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
    _check_features(features, labels)
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


def _per_class(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 [..., K] of confusion matrices [..., K, K]; 0 where a denominator is 0."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    predicted = confusion.sum(axis=-2)
    support = confusion.sum(axis=-1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(predicted + support, 1)
    return precision, recall, f1


def bootstrap_interval(
    labels: np.ndarray,
    predictions: np.ndarray,
    clusters: np.ndarray,
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of macro F1 (of its mean, where there are several draws), from resampling whole wells.

    Images of one well are not independent draws of its treatment, so the well is the unit (cluster bootstrap; Field and
    Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x). Where every well holds one class, wells are drawn within each
    class, so that no resample loses a class. The classifiers are not fitted again: the interval covers the test images,
    not the training.

    Args:
        labels: [N] str.
        predictions: [N] str, or [S, N] of S draws of what was random; all are resampled alike.
        clusters: [N], the well (plate and well together) of each image.
        resamples: number of bootstrap samples, at least 1.
        seed: of the resampling.
        level: coverage asked for, in (0, 1).

    Returns:
        Lower and upper end.
    """
    if resamples < 1:
        raise ValueError(
            f"the bootstrap needs at least one resample, got {resamples}; set --config.eval.bootstrap=1000"
        )
    draws = np.atleast_2d(predictions)
    classes = np.unique(np.concatenate([labels, *draws]))
    wells, well_of_image = np.unique(clusters, return_inverse=True)
    truth = np.searchsorted(classes, labels)
    support = np.zeros((len(wells), len(classes)))
    np.add.at(support, (well_of_image, truth), 1)
    hits, predicted = (np.zeros((len(draws), *support.shape)) for _ in range(2))
    for draw, values in enumerate(draws):
        guess = np.searchsorted(classes, values)
        np.add.at(hits[draw], (well_of_image, truth), truth == guess)
        np.add.at(predicted[draw], (well_of_image, guess), 1)

    supported = support > 0  # [wells, K]
    one_class_each = bool((supported.sum(axis=1) == 1).all())
    strata = supported.argmax(axis=1) if one_class_each else np.zeros(len(wells), dtype=int)
    rng = np.random.default_rng(seed)
    macro = np.empty(resamples)
    block = max(1, _NUMBERS_HELD // (len(draws) * max(len(wells), len(classes))))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        weights = np.zeros((count, len(wells)))
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=count)
        drawn, guessed = weights @ support, weights @ predicted  # [count, K], [S, count, K]
        f1 = 2 * (weights @ hits) / np.maximum(drawn + guessed, 1)
        # A class that a resample neither holds nor predicts has no F1; it is left out of that resample's mean.
        macro[start : start + count] = (f1.sum(axis=-1) / (drawn + guessed > 0).sum(axis=-1)).mean(axis=0)
    low, high = np.quantile(macro, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def classification_scores(
    labels: np.ndarray, predictions: np.ndarray, clusters: np.ndarray, *, resamples: int, seed: int
) -> dict:
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
    of_draws = _per_class(confusions)
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


def not_same_well_knn(
    features: np.ndarray,
    labels: np.ndarray,
    wells: np.ndarray,
    k: int = 1,
    *,
    components: int | tuple[Block, ...] | None = None,
    seed: int = 0,
) -> dict:
    """Accuracy of the vote of the k nearest images that lie in another well, beside chance.

    Cosine similarity of features that were prepared (principal components, standardization) by what is fitted to other
    wells: to nine tenths of them, those of the image and some others left out. The same well is excluded because its
    images resemble each other whatever the treatment (not-same-well matching; Ljosa et al. 2013, doi
    10.1177/1087057113503553, excludes the same compound). A tie goes to the tied class with the nearest image.

    Args:
        features: [N, D] float, finite.
        labels: [N] str.
        wells: [N], plate and well together.
        k: neighbors that vote; fewer vote where fewer are allowed.
        components: see `build_preparation`.
        seed: of the components.

    Returns:
        `accuracy`; `chance`, the share of same-label images among the allowed ones; `images`, how many had a neighbor
        at all; `without_match`, images whose label occurs in no other well: they can only be wrong.

    Raises:
        ValueError: k < 1, or all images come from one well.
    """
    _check_features(features, labels)
    if k < 1:
        raise ValueError(f"the number of neighbors must be at least 1, got {k}; set --config.eval.knn_k=1")
    classes, class_of_image = np.unique(labels, return_inverse=True)
    names, well_of_image = np.unique(wells, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"not-same-well neighbors need at least two wells, all images come from {names[0]}")

    per_well = np.zeros((len(names), len(classes)))
    np.add.at(per_well, (well_of_image, class_of_image), 1)
    allowed = len(labels) - per_well.sum(axis=1)[well_of_image]
    same_label = (per_well.sum(axis=0) - per_well[well_of_image])[np.arange(len(labels)), class_of_image]

    # In float64: of a cosine near 1 single precision keeps no more than which images are within 1/50 of a degree.
    features = np.asarray(features, dtype=np.float64)
    correct = np.zeros(len(labels), dtype=bool)
    block = 1024  # rows of the similarity matrix held at a time: 1024 x N floats
    num_parts = min(NEIGHBOUR_PARTS, len(names))
    with threadpool_limits(1, user_api="blas"):
        for part in range(num_parts):
            asked = np.flatnonzero(well_of_image % num_parts == part)
            others = features[well_of_image % num_parts != part]
            preparation = build_preparation(len(others), features.shape[1], components, seed)
            unit = preparation.fit(others).transform(features)
            norm = np.linalg.norm(unit, axis=1, keepdims=True)
            unit = unit / np.where(norm == 0, 1, norm)
            for start in range(0, len(asked), block):
                rows = asked[start : start + block]
                similarity = unit[rows] @ unit.T  # [b, N]
                similarity[well_of_image[rows, None] == well_of_image[None, :]] = -np.inf
                nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
                counted = np.isfinite(np.take_along_axis(similarity, nearest, axis=1))
                for row, neighbors, valid in zip(rows, class_of_image[nearest], counted, strict=True):
                    votes = np.bincount(neighbors[valid], minlength=len(classes))
                    winner = next(c for c in neighbors if votes[c] == votes.max())
                    correct[row] = winner == class_of_image[row]
    return {
        "accuracy": float(correct.mean()),
        "chance": float((same_label / allowed).mean()),
        "k": int(k),
        "images": len(labels),
        "without_match": int((same_label == 0).sum()),
    }


def plate_identity(
    features: np.ndarray | Callable[[np.ndarray], np.ndarray],
    plates: np.ndarray,
    wells: np.ndarray,
    *,
    num_folds: int,
    seed: int,
    components: int | tuple[Block, ...] | None = None,
) -> dict:
    """How well logistic regression reads the plate off images of negative controls: lower is better.

    Controls are treated alike on every plate, so whatever tells their plates apart is batch effect. Where every plate
    has several control wells, whole wells are held out; with a single one the folds are drawn from images, and the
    score then also contains what is peculiar to that well.

    Args:
        features: [N, D] float, of control images only; or what gives them to the rows that a fold tests, for a
            normalization that must not see these: centerd on means that they are part of, controls look less like
            their own plate than chance.
        plates: [N] str.
        wells: [N] str, the well within its plate.
        num_folds: folds; fewer when a plate has fewer control wells.
        seed: of the folds.
        components: see `build_preparation`.

    Returns:
        `macro_f1`, `chance` (1 / plates: the expected accuracy and, for equal plates, macro F1 of a blind guess),
        `plates`, `images`, `split`, `notes`.

    Raises:
        ValueError: fewer than two plates, or a plate with too few control images (named).
    """
    names = np.unique(plates)
    if len(names) < 2:
        raise ValueError(f"plate identity needs controls from at least two plates, found {_counts(plates)}")
    positions = np.array([f"{plate}/{well}" for plate, well in zip(plates, wells)])
    wells_per_plate = {str(name): len(np.unique(positions[plates == name])) for name in names}
    fewest = min(wells_per_plate.values())
    if fewest > 1:
        num_folds = min(num_folds, fewest)
        splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
        rows = splitter.split(np.zeros((len(plates), 1)), plates, positions)
        folds = [Fold(f"fold {i}", train, test) for i, (train, test) in enumerate(rows)]
        split = f"{num_folds} folds of whole wells"
    else:
        folds = stratified_folds(plates, num_folds, seed)
        split = f"{num_folds} folds of images, because a plate has one control well only"
    values, notes = np.full(len(plates), "", dtype=plates.dtype), []
    for fold in folds:
        known = features(fold.test) if callable(features) else features
        found = cross_validate(
            known, plates, [fold], classifiers=(LOGISTIC_REGRESSION,), components=components, seed=seed
        )[LOGISTIC_REGRESSION]
        values[fold.test] = found.values[fold.test]
        notes += found.notes
    f1 = _per_class(confusion_matrix(plates, values, names))[2]
    return {
        "macro_f1": float(f1.mean()),
        "chance": 1 / len(names),
        "plates": len(names),
        "images": len(plates),
        "split": split,
        "notes": notes + describe_gaps(plates, folds),
    }

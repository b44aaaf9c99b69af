"""Every score of every set of features; takes arrays and a plan."""

import itertools
from typing import TypedDict

import numpy as np
from tqdm import tqdm

from bie_jax.config.schema import EvalConfig
from bie_jax.evaluation.feature_set import FeatureSet, Reduction
from bie_jax.evaluation.scores.centroids import Centroids, centroid_rows, mean_centroids, nearest_centroids
from bie_jax.evaluation.scores.classification import (
    Classification,
    classification_rows,
    classification_scores,
    cross_validate,
    majority_predictions,
)
from bie_jax.evaluation.scores.folds import Fold, describe_gaps, plan_folds
from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION, MAJORITY, RANDOM_FOREST, RAW, entry_key, left_out_group
from bie_jax.evaluation.scores.neighbors import (
    Neighbors,
    NeighborsOfDraws,
    mean_neighbors,
    neighbor_rows,
    not_same_well_knn,
)
from bie_jax.evaluation.scores.normalization import (
    DESCRIPTIONS,
    TITLES,
    lone_plates_note,
    normalizations,
    normalize,
)
from bie_jax.evaluation.scores.plan import NEIGHBORS, ScoringPlan
from bie_jax.evaluation.scores.plate_identity import (
    PlateIdentityOfDraws,
    mean_plate_identity,
    planned_plate_identity,
    plate_identity_rows,
)
from bie_jax.evaluation.scores.preparation import rotate_to_span
from bie_jax.evaluation.scores.rows import ScoreRow, score_row


class Entry(TypedDict):
    """All scores of one set of features under one normalization.

    `classifiers` holds each classifier's score of each split, `centroids` what stands for them where there are too many
    classes; `knn` and `plate_identity` are None where they could not
    be scored.
    """

    feature_set: str
    normalization: str
    title: str
    description: str
    dim: int
    draws: int
    classifiers: dict[str, dict[str, Classification]]
    centroids: dict[str, Centroids]
    knn: NeighborsOfDraws | None
    plate_identity: PlateIdentityOfDraws | None


class Split(TypedDict):
    """What a split is made of; `left_out` has the images of the classes that it cannot hold."""

    folds: int
    held_out: list[str]
    classes: int
    left_out: dict[str, int]


class FeatureScores(TypedDict):
    """What `score_features` finds, as it stands in `scores.json`."""

    label: str
    classes: dict[str, int]
    splits: dict[str, Split]
    interval_over: str
    normalizations: dict[str, str]
    feature_sets: dict[str, Entry]
    rows: list[ScoreRow]
    notes: list[str]


def score_features(feature_sets: list[FeatureSet], plan: ScoringPlan, settings: EvalConfig) -> FeatureScores:
    """All scores of all feature sets.

    Images without a label are left out of every score but plate identity, and their number is noted. Of several plates,
    every feature set is scored raw and standardized per plate.

    Args:
        feature_sets: each of N images.
        plan: of these images.
        settings: the `eval` group of a configuration: folds, neighbors, resamples, seed.

    Raises:
        ValueError: features that are not finite or not of these images.
    """
    folds = plan_folds(plan, settings)
    under = normalizations(plan.plates)
    notes = list(plan.notes)
    for split, parts in folds.items():
        if left_out_group(split):
            notes += describe_gaps(plan.labels, parts)
    notes += lone_plates_note(plan.plates)

    entries: dict[str, Entry] = {}
    fits = sum(len(parts) for parts in folds.values())
    steps = len(under) * sum(1 + len(feature_set.draws) * fits for feature_set in feature_sets)
    with tqdm(desc="scores", unit="fold", total=steps) as bar:
        for feature_set, normalization in itertools.product(feature_sets, under):
            entry, said = _score(feature_set, normalization, plan, folds, settings, bar)
            entries[entry_key(feature_set.key, normalization)] = entry
            title = feature_set.title if len(under) == 1 else f"{feature_set.title}, {TITLES[normalization]}"
            notes += [f"{title}{note}" for note in said]
            bar.update()
    if not plan.many_classes:
        entries[MAJORITY] = _score_majority(plan, folds, settings)

    names, counts = np.unique(plan.labels[plan.labeled], return_counts=True)
    return {
        "label": settings.label,
        "classes": {str(name): int(count) for name, count in zip(names, counts)},
        "splits": {split: _describe_split(plan, split, parts) for split, parts in folds.items()},
        "interval_over": plan.interval_over,
        "normalizations": {normalization: DESCRIPTIONS[normalization] for normalization in under},
        "feature_sets": entries,
        "rows": score_rows(entries),
        "notes": notes,
    }


def score_rows(entries: dict[str, Entry]) -> list[ScoreRow]:
    """One row for each number of `feature_sets`, by every kind of score."""
    return [
        score_row(entry["feature_set"], entry["normalization"], entry["draws"], row)
        for entry in entries.values()
        for row in itertools.chain(
            classification_rows(entry["classifiers"]),
            centroid_rows(entry["centroids"]),
            neighbor_rows(entry["knn"]),
            plate_identity_rows(entry["plate_identity"]),
        )
    ]


def _score(
    feature_set: FeatureSet,
    normalization: str,
    plan: ScoringPlan,
    folds: dict[str, list[Fold]],
    settings: EvalConfig,
    bar: tqdm,
) -> tuple[Entry, list[str]]:
    """The scores of one feature set under one normalization, and what went less than well, to stand behind its name."""
    components = feature_set.components
    draws = [normalize(draw, plan.plates, normalization) for draw in feature_set.draws]
    draws = [rotate_to_span(draw) if isinstance(components, int) else draw for draw in draws]
    notes: list[str] = []

    classifiers: dict[str, dict[str, Classification]] = {}
    centroids: dict[str, Centroids] = {}
    if folds and not plan.many_classes:
        classifiers = {LOGISTIC_REGRESSION: {}, RANDOM_FOREST: {}}
    for split, parts in folds.items():
        if plan.many_classes:
            of_draws = [
                nearest_centroids(draw, plan.labels, parts, components=components, seed=settings.seed) for draw in draws
            ]
            centroids[split] = mean_centroids(of_draws)
            bar.update(len(draws) * len(parts))
            continue
        predictions = [
            cross_validate(
                draw,
                plan.labels,
                parts,
                components=components,
                seed=settings.seed,
                trees=settings.trees,
                on_fold=bar.update,
            )
            for draw in draws
        ]
        for classifier, of_splits in classifiers.items():
            found = [prediction[classifier] for prediction in predictions]
            of_splits[split] = _classification(np.stack([one.values for one in found]), plan, parts, settings)
            notes += [f": {note}" for note in dict.fromkeys(note for one in found for note in one.notes)]

    neighbors = None
    if NEIGHBORS in plan.parts:
        neighbors = mean_neighbors([_neighbors(draw, components, plan, settings) for draw in draws])

    identity = None
    if len(plan.controls):
        try:
            identity = mean_plate_identity(
                [
                    planned_plate_identity(raw, draw, normalization, components, plan, settings)
                    for raw, draw in zip(feature_set.draws, draws)
                ]
            )
            notes += [f", plate identity: {note}" for note in identity["notes"]]
        except ValueError as error:
            # A plate of controls alone is no reason to withhold every other score; the report says what is missing.
            notes.append(f", plate identity is not scored: {error}.")

    entry: Entry = {
        "feature_set": feature_set.key,
        "normalization": normalization,
        "title": feature_set.title,
        "description": feature_set.description,
        "dim": feature_set.dim,
        "draws": len(draws),
        "classifiers": classifiers,
        "centroids": centroids,
        "knn": neighbors,
        "plate_identity": identity,
    }
    return entry, notes


def _score_majority(plan: ScoringPlan, folds: dict[str, list[Fold]], settings: EvalConfig) -> Entry:
    """The scores of no features at all."""
    splits = {
        split: _classification(majority_predictions(plan.labels, parts).values, plan, parts, settings)
        for split, parts in folds.items()
    }
    return {
        "feature_set": MAJORITY,
        "normalization": RAW,
        "title": "Majority class",
        "description": "Always the commonest class of the training fold.",
        "dim": 0,
        "draws": 1,
        "classifiers": {MAJORITY: splits} if splits else {},
        "centroids": {},
        "knn": None,
        "plate_identity": None,
    }


def _classification(
    predictions: np.ndarray, plan: ScoringPlan, folds: list[Fold], settings: EvalConfig
) -> Classification:
    """The scores of predictions [N], or [S, N], of the images that the folds test."""
    tested = np.sort(np.concatenate([fold.test for fold in folds]))
    return classification_scores(
        plan.labels[tested],
        predictions[..., tested],
        plan.resampled[tested],
        resamples=settings.bootstrap,
        seed=settings.seed,
    )


def _neighbors(
    features: np.ndarray, components: Reduction | None, plan: ScoringPlan, settings: EvalConfig
) -> Neighbors:
    rows = plan.parts[NEIGHBORS].rows
    return not_same_well_knn(
        features[rows],
        plan.labels[rows],
        plan.positions[rows],
        settings.knn_k,
        components=components,
        seed=settings.seed,
        most_asked=settings.most_queries,
    )


def _describe_split(plan: ScoringPlan, split: str, folds: list[Fold]) -> Split:
    part = plan.parts[split]
    return {
        "folds": len(folds),
        "held_out": [fold.name for fold in folds],
        "classes": len(np.unique(plan.labels[part.rows])),
        "left_out": part.left_out,
    }

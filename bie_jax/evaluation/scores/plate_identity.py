"""How well the plate can be read off controls, which were treated alike on all plates: lower is better."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from bie_jax.config.schema import EvalConfig
from bie_jax.evaluation.feature_set import Reduction
from bie_jax.evaluation.scores.classification import confusion_matrix, cross_validate, scores_per_class
from bie_jax.evaluation.scores.folds import Fold, count_values, describe_gaps, stratified_folds
from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION, MACRO_F1, PER_PLATE, PLATE_IDENTITY
from bie_jax.evaluation.scores.normalization import standardize_per_plate
from bie_jax.evaluation.scores.plan import ScoringPlan
from bie_jax.evaluation.scores.preparation import rotate_to_span
from bie_jax.evaluation.scores.rows import Row


class PlateIdentity(TypedDict):
    """What `plate_identity` finds."""

    macro_f1: float
    chance: float
    plates: int
    images: int
    split: str
    notes: list[str]


class PlateIdentityOfDraws(PlateIdentity):
    """The same of several draws of what was random (weights): `macro_f1` is the mean."""

    macro_f1_of_draws: list[float]


def plate_identity_rows(score: PlateIdentityOfDraws | None) -> Iterator[Row]:
    """The macro F1, where it was scored."""
    if score:
        yield Row(PLATE_IDENTITY, LOGISTIC_REGRESSION, MACRO_F1, score["macro_f1"], score["images"])


def mean_plate_identity(of_draws: Sequence[PlateIdentity]) -> PlateIdentityOfDraws:
    """The first draw's, with the mean macro F1 of all, and each one's."""
    values = [score["macro_f1"] for score in of_draws]
    return {**of_draws[0], "macro_f1": float(np.mean(values)), "macro_f1_of_draws": values}


def planned_plate_identity(
    raw: np.ndarray,
    normalized: np.ndarray,
    normalization: str,
    components: Reduction | None,
    plan: ScoringPlan,
    settings: EvalConfig,
) -> PlateIdentity:
    """`plate_identity` of the planned controls; the statistics of a plate leave out the controls that are tested.

    Args:
        raw: [N, D], all features as they were.
        normalized: [N, d], the same, normalized with all images.
        normalization: how.
        components: see `build_preparation`.
        plan: of the N images.
        settings: the `eval` group of a configuration: folds, seed.

    Raises:
        ValueError: also for a plate of controls alone, standardized per plate: what is centered on them has lost by
            construction what could be learned.
    """
    controls, plates = plan.controls, plan.plates
    features = normalized[controls]
    if normalization == PER_PLATE:
        bare = np.setdiff1d(plates[controls], np.delete(plates, controls))
        if len(bare):
            raise ValueError(f"{', '.join(map(str, bare))} holds controls alone, whose own mean centers them")
        features = functools.partial(_standardized_by_others, raw, plates, controls, isinstance(components, int))
    return plate_identity(
        features,
        plates[controls],
        plan.wells[controls],
        num_folds=settings.folds,
        seed=settings.seed,
        components=components,
    )


def _standardized_by_others(
    raw: np.ndarray, plates: np.ndarray, controls: np.ndarray, rotates: bool, tested: np.ndarray
) -> np.ndarray:
    """The controls' features [c, d], each plate by all its images but the tested ones of the controls."""
    fitted = np.ones(len(raw), dtype=bool)
    fitted[controls[tested]] = False
    values = standardize_per_plate(raw, plates, fitted)[controls]
    return rotate_to_span(values) if rotates else values


def plate_identity(
    features: np.ndarray | Callable[[np.ndarray], np.ndarray],
    plates: np.ndarray,
    wells: np.ndarray,
    *,
    num_folds: int,
    seed: int,
    components: Reduction | None = None,
) -> PlateIdentity:
    """How well logistic regression reads the plate off images of negative controls: lower is better.

    Controls are treated alike on every plate, so whatever tells their plates apart is batch effect. Where every plate
    has several control wells, whole wells are held out; with a single one the folds are drawn from images, and the
    score then also contains what is peculiar to that well.

    Args:
        features: [N, D] float, of control images only; or what gives them to the rows that a fold tests, for a
            normalization that must not see these: centered on means that they are part of, controls look less like
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
        raise ValueError(f"plate identity needs controls from at least two plates, found {count_values(plates)}")
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
    f1 = scores_per_class(confusion_matrix(plates, values, names))[2]
    return {
        "macro_f1": float(f1.mean()),
        "chance": 1 / len(names),
        "plates": len(names),
        "images": len(plates),
        "split": split,
        "notes": notes + describe_gaps(plates, folds),
    }

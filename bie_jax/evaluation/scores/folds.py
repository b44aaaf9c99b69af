"""Divisions of images into those that are learned from and those that are tested.

The grouped one holds out a whole plate at a time, because images of one plate share its staining and its illumination
(the leakage is described by Caicedo et al. 2018, arXiv 1804.02541, as "not same batch").
"""

import dataclasses

import numpy as np
from sklearn.model_selection import StratifiedKFold

from bie_jax.config.schema import EvalConfig
from bie_jax.evaluation.scores.keys import HELD_OUT, STRATIFIED, UNSEEN, left_out_group
from bie_jax.evaluation.scores.plan import ScoringPlan, listed
from bie_jax.input import columns


@dataclasses.dataclass(frozen=True)
class Fold:
    """One division of the images: `name` says what was held out; `train` and `test` are row numbers, [n] int."""

    name: str
    train: np.ndarray
    test: np.ndarray


def plan_folds(plan: ScoringPlan, settings: EvalConfig) -> dict[str, list[Fold]]:
    """The folds of every planned split that has any, as row numbers of the set."""
    folds: dict[str, list[Fold]] = {}
    for split, part in plan.parts.items():
        labels = plan.labels[part.rows]
        if split == STRATIFIED:
            folds[split] = _of_set(part.rows, stratified_folds(labels, settings.folds, settings.seed))
        elif split == UNSEEN:
            is_train = plan.sides[part.rows] == "train"
            folds[split] = [Fold("validation", part.rows[is_train], part.rows[~is_train])]
        elif split == HELD_OUT:
            is_held_out = plan.sides[part.rows] == columns.HELD_OUT
            folds[split] = [Fold("held out", part.rows[~is_held_out], part.rows[is_held_out])]
        elif left_out_group(split):
            folds[split] = _of_set(part.rows, leave_group_out_folds(labels, plan.groups[part.rows]))
    return folds


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
    rare = {name: count for name, count in count_values(labels).items() if count < num_folds}
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
                f"leaving {name} out, the images that remain hold a single class {count_values(labels[~held_out])}: "
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
                f"Held out {fold.name}: {listed(unseen.tolist())} occurs nowhere in the training fold, "
                f"so its {count} images are counted as wrong."
            )
        present = np.unique(labels[fold.test])
        if len(present) == 1:
            notes.append(f"Held out {fold.name}: it holds one class only ({present[0]}).")
    return notes


def count_values(values: np.ndarray) -> dict[str, int]:
    """How often each value occurs."""
    names, counts = np.unique(values, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts)}


def _of_set(rows: np.ndarray, folds: list[Fold]) -> list[Fold]:
    """Folds of some rows of a set as rows of the set."""
    return [Fold(fold.name, rows[fold.train], rows[fold.test]) for fold in folds]


def _check_two_classes(labels: np.ndarray) -> None:
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"a classifier needs at least two classes, the labels hold {count_values(labels)}; "
            "choose another column with --config.eval.label=COLUMN"
        )

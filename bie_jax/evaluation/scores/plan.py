"""What of a set can be scored, and why the rest cannot: known from its table alone, before the first step.

A class that a score cannot hold (fewer images than folds, one plate alone where plates are left out) is left out of
that score; the others are scored. Nothing here looks at features.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from bie_jax.config.schema import ConfigError, EvalConfig
from bie_jax.evaluation.scores.keys import HELD_OUT, STRATIFIED, UNSEEN, leave_out
from bie_jax.input import columns

NEIGHBORS = "neighbors"
LEAST_FOR_UMAP = 4  # images; a neighborhood needs three others
MOST_CLASSES = 100  # that classifiers are fitted to; of more, the nearest mean is asked
_NAMED = 8  # classes that a note names


@dataclasses.dataclass(frozen=True)
class Part:
    """What takes part in one score.

    Attributes:
        rows: [n] of the set, in order.
        left_out: class -> images, of the classes that this score cannot hold.
    """

    rows: np.ndarray
    left_out: dict[str, int]


@dataclasses.dataclass(frozen=True)
class ScoringPlan:
    """What will be scored.

    Attributes:
        labels, groups, plates, wells: [N] str; "" where there is none.
        sides: [N] "train", "val" or "held_out".
        positions: [N] str, plate and well together.
        labeled: [n] rows with a label.
        parts: by score: `STRATIFIED`, "leave_<group>_out", `UNSEEN`, `HELD_OUT` and `NEIGHBORS`, those that can be had;
            what is held out takes part in `HELD_OUT` alone.
        controls: [c] rows that plate identity is read from; none if it cannot be.
        umap: whether there are images enough for a map.
        interval_over: what intervals resample.
        notes: sentences on all that is left out or not as it should be.
    """

    labels: np.ndarray
    groups: np.ndarray
    plates: np.ndarray
    wells: np.ndarray
    positions: np.ndarray
    sides: np.ndarray
    labeled: np.ndarray
    parts: Mapping[str, Part]
    controls: np.ndarray
    umap: bool
    interval_over: Literal["wells", "images"]
    notes: tuple[str, ...]

    @functools.cached_property
    def many_classes(self) -> bool:
        """Whether there are too many classes for classifiers."""
        return len(np.unique(self.labels[self.labeled])) > MOST_CLASSES

    @functools.cached_property
    def resampled(self) -> np.ndarray:
        """[N] str, what intervals draw: the well of each image, or the image itself."""
        return self.positions if self.interval_over == "wells" else np.arange(len(self.labels)).astype("U")


def plan_scores(metadata: pd.DataFrame, sides: np.ndarray, settings: EvalConfig) -> ScoringPlan:
    """What of a set can be scored.

    Args:
        metadata: N rows with plate, well, the label column and the group column.
        sides: [N] "train" or "val", the side of the encoder's own training, or "held_out".
        settings: the `eval` group of a configuration.

    Raises:
        ConfigError: for a label or group column that is not there.
    """
    labels = column(metadata, settings.label, "label")
    plates, wells = column(metadata, "plate", "group"), column(metadata, "well", "group")
    positions = np.array([f"{plate}/{well}" for plate, well in zip(plates, wells)])
    # A well is one well of one plate: B02 of two plates is not one group.
    groups = positions if settings.group == "well" else column(metadata, settings.group, "group")
    labeled = np.flatnonzero(labels != "")
    seen = sides != columns.HELD_OUT
    notes = []
    if len(labeled) < len(labels):
        notes.append(f"{len(labels) - len(labeled)} images without a label take no part in the scores.")
    interval_over, interval_notes = _intervals(labels[labeled], positions[labeled])
    parts, part_notes = _parts(labels, groups, positions, sides, labeled, settings)
    controls, control_notes = _controls(np.where(seen, labels, ""), plates, positions, settings)
    umap = not settings.umap or min(len(labels), settings.max_report_points) >= LEAST_FOR_UMAP
    umap_notes = [] if umap else [f"UMAP is left out: it needs {LEAST_FOR_UMAP} images (config.eval.umap)."]
    return ScoringPlan(
        labels=labels,
        groups=groups,
        plates=plates,
        wells=wells,
        positions=positions,
        sides=sides,
        labeled=labeled,
        parts=parts,
        controls=controls,
        umap=settings.umap and umap,
        interval_over=interval_over,
        notes=(*notes, *(interval_notes if parts else ()), *part_notes, *control_notes, *umap_notes),
    )


def column(metadata: pd.DataFrame, name: str, key: str) -> np.ndarray:
    """A column as [N] str, "" where it is empty.

    Raises:
        ConfigError: if it is not there; `key` is who asks, `config.eval.<key>`.
    """
    if name not in metadata:
        raise ConfigError(
            f"config.eval.{key}={name!r} is not a column of the metadata; there are "
            f"{', '.join(map(str, metadata.columns))}"
        )
    # astype("U"), not object: sklearn and numpy sort and compare fixed-width strings without surprises.
    return metadata[name].fillna("").astype(str).to_numpy().astype("U")


def _intervals(labels: np.ndarray, positions: np.ndarray) -> tuple[Literal["wells", "images"], list[str]]:
    # Fewer than three wells in all are none: digits, or cells whose source names no plate. Then images are drawn.
    if len(np.unique(positions)) < 3:
        return "images", [
            "The set has fewer than three wells: intervals resample single images, and say nothing of what sets wells, "
            "plates or cultures apart."
        ]
    few = [name for name, count in _spread(labels, positions).items() if count < 3]
    note = f"Fewer than three wells of {listed(few)}: intervals that resample wells are too narrow there."
    return "wells", [note] if few else []


def _parts(
    labels: np.ndarray,
    groups: np.ndarray,
    positions: np.ndarray,
    sides: np.ndarray,
    labeled: np.ndarray,
    settings: EvalConfig,
) -> tuple[dict[str, Part], list[str]]:
    classes = np.unique(labels[labeled])
    if len(classes) < 2:
        # Plates without labels are a common case: the report's maps, curves and reconstructions are still worth having.
        held = "no label" if not len(classes) else f"a single label ({classes[0]})"
        return {}, [
            f"The column {settings.label} holds {held}: nothing to classify, so only plate identity is scored "
            "(config.eval.label)."
        ]
    group = settings.group
    everything = labeled
    many = [
        f"The column {settings.label} holds {len(classes)} labels: no classifier is fitted to more than "
        f"{MOST_CLASSES}; asked is whether the nearest mean of a label is the right one."
    ]
    labeled = labeled[sides[labeled] != columns.HELD_OUT]
    grouped = labeled[groups[labeled] != ""]
    parts: dict[str, Part] = {}
    notes: list[str] = many if len(classes) > MOST_CLASSES else []

    def add(name: str, title: str, rows: np.ndarray, kept: dict[str, int], least: int, needs: str) -> None:
        """`kept`: class -> how many there are of what a class needs `least` of."""
        counts = dict(zip(*np.unique(labels[rows], return_counts=True)))
        left_out = {key: int(counts[key]) for key, count in kept.items() if count < least}
        if len(kept) - len(left_out) < 2:
            notes.append(f"{title} is not scored: fewer than two classes have {needs}.")
            return
        if left_out:
            count = [f"{key} ({count} image{'s' * (count != 1)})" for key, count in left_out.items()]
            notes.append(f"{title} leaves out {listed(count)}: a class needs {needs}.")
        parts[name] = Part(rows[~np.isin(labels[rows], list(left_out))], left_out)

    folds = settings.folds
    add(
        STRATIFIED,
        f"Stratified {folds}-fold",
        labeled,
        _spread(labels[labeled], labeled),
        folds,
        f"{folds} images, one for each fold (config.eval.folds)",
    )
    if len(grouped) < len(labeled):
        unknown = len(labeled) - len(grouped)
        notes.append(f"{unknown} images without a {group} take no part where one {group} is left out.")
    if len(np.unique(groups[grouped])) < 2:
        names = np.unique(groups[grouped])
        held = f"All images come from {group} {names[0]}" if len(names) else f"No image has a {group}"
        notes.append(f"{held}: leaving one {group} out is impossible (config.eval.group).")
    else:
        add(
            leave_out(group),
            f"Leave-{group}-out",
            grouped,
            _spread(labels[grouped], groups[grouped]),
            2,
            f"images of two {group}s",
        )
    sides_of = _spread(labels[labeled], sides[labeled])
    add(
        UNSEEN,
        "What the encoder never saw",
        labeled,
        sides_of,
        2,
        "images on both sides of the run's own division into training and validation (config.data.split_by and "
        "stratify_by)",
    )
    if len(labeled) < len(everything):
        add(
            HELD_OUT,
            "What was held out",
            everything,
            _spread(labels[everything], (sides[everything] == columns.HELD_OUT).astype("U")),
            2,
            "images that are held out and images that are not (config.data.held_out)",
        )
    add(
        NEIGHBORS,
        f"{settings.knn_k}-NN, not same well,",
        labeled,
        _spread(labels[labeled], positions[labeled]),
        2,
        "images of two wells",
    )
    if NEIGHBORS in parts:
        own = positions[parts[NEIGHBORS].rows]
        fewest = len(own) - max(_spread(own, np.arange(len(own))).values())
        if fewest < settings.knn_k:
            notes.append(
                f"{settings.knn_k}-NN, not same well, asks more neighbors than there are: of an image with {fewest} in "
                f"other wells {fewest} vote (config.eval.knn_k)."
            )
    return parts, notes


def _controls(
    labels: np.ndarray, plates: np.ndarray, positions: np.ndarray, settings: EvalConfig
) -> tuple[np.ndarray, list[str]]:
    """Rows of the controls of those plates that can be held out in part: by wells if all have two, else by images."""
    none = np.array([], int)
    if not settings.probe_control:
        return none, []
    what = f"negative controls ({settings.label} = {settings.probe_control!r}, config.eval.probe_control)"
    rows = np.flatnonzero((labels == settings.probe_control) & (plates != ""))
    images, wells = _spread(plates[rows], rows), _spread(plates[rows], positions[rows])
    if len(images) < 2:
        return none, [f"Plate identity is not scored: {what} come from {len(images)} plates, two are needed."]
    enough = {plate for plate, count in images.items() if count >= settings.folds}
    kept = enough | {plate for plate, count in wells.items() if count > 1}
    if any(wells[plate] < 2 for plate in kept):
        kept = enough
    if len(kept) < 2:
        return none, [
            f"Plate identity is not scored: {what} of fewer than two plates come from two wells, or are "
            f"{settings.folds} images (config.eval.folds)."
        ]
    left_out = [f"{plate} ({count})" for plate, count in images.items() if plate not in kept]
    note = f"Plate identity leaves out plates with too few {what}: {listed(left_out)} images."
    return rows[np.isin(plates[rows], list(kept))], [note] if left_out else []


def _spread(names: np.ndarray, over: np.ndarray) -> dict[str, int]:
    """How many different values of `over` each name has."""
    pairs = pd.DataFrame({"name": names, "over": over}).drop_duplicates()
    return {str(name): int(count) for name, count in pairs.groupby("name").size().items()}


def listed(names: Sequence[object]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(str, names[:_NAMED])) + more

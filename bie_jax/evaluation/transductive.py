"""What an encoder saw of the images that it is scored on, in sentences that stand in the scores and in the report."""

from collections.abc import Iterable

import pandas as pd

from bie_jax.config.schema import Config
from bie_jax.evaluation.report.titles import split_title
from bie_jax.evaluation.scores import keys
from bie_jax.input.columns import HELD_OUT, TRAIN, VAL
from bie_jax.input.positives import teaching_column
from bie_jax.objectives.contrast import compared_treatment


def column_that_taught(config: Config) -> str | None:
    """The column whose equal values the encoder was taught to draw together; None: it saw no labels."""
    return teaching_column(config.data) or compared_treatment(config.objective.contrastive)


def transductive_note(metadata: pd.DataFrame, taught_by: str | None, splits: Iterable[str], stratified_by: str) -> str:
    """What the encoder saw while it was trained.

    Args:
        metadata: with `split`, "train", "val" or "held_out".
        taught_by: see `column_that_taught`.
        splits: those that were scored.
        stratified_by: the column that placed images on both sides of the division (`data.stratify_by`); "": none.
    """
    total = len(metadata)
    train, val, held_out = (int((metadata["split"] == side).sum()) for side in (TRAIN, VAL, HELD_OUT))
    how = (
        "without labels" if taught_by is None else f"with the column {taught_by}, whose equal values it draws together,"
    )
    seen = "unlabeled" if taught_by is None else "with it"
    unseen = (
        f"Those called {split_title(keys.UNSEEN)} are not: encoder and classifiers learned from the {train} images, "
        f"and the {val} are classified. "
        if keys.UNSEEN in splits
        else ""
    )
    kept_out = (
        f"{held_out} images are held out (config.data.held_out): encoder, stopping and all other scores know nothing "
        f"of them, and the scores called {split_title(keys.HELD_OUT)} are of them alone. "
        if held_out
        else ""
    )
    placed = (
        f"Which ones these are was decided with a look at the column {stratified_by}, so that its values are on both "
        "sides (config.data.stratify_by). "
        if stratified_by
        else ""
    )
    return (
        f"The encoder was trained {how} on {train} of these {total} images; the other {val} only "
        f"decided when to stop. {placed}{kept_out}"
        f"The folds of the classifiers cut across that division, so most test images were seen, {seen}, by the "
        "encoder: its scores are transductive. "
        f"{unseen}"
        "Random weights and hand-made features saw none of the images. Principal components and scales are fitted in "
        "each training fold alone, for nearest neighbors to other wells than the image's. Of all images, without "
        "labels, are the intensities that a set or a plate is normalized by, what is standardized per plate (of all "
        "images of a plate, one that is held out too), and the maps."
    )

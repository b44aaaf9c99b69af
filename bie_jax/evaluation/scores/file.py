"""`scores.json`: all scores of a run, beside what they are of."""

from pathlib import Path
from typing import Literal, TypedDict

import pandas as pd

from bie_jax.evaluation.scores.invariance import Invariance
from bie_jax.evaluation.scores.score import FeatureScores
from bie_jax.evaluation.treatments.score import TreatmentScores
from bie_jax.files import integrity
from bie_jax.files.integrity import MadeFrom
from bie_jax.input.image_set import ImageSet


class SetFacts(TypedDict):
    """What a set is, in numbers; `images` are examples, of shapes outlines."""

    name: str
    kind: Literal["images", "shapes"]
    simulated: bool
    description: str
    images: int
    plates: int
    wells: int
    channels: list[str]
    image_shape: list[int]
    pixel_size_um: float | None


class Scores(FeatureScores):
    """The content of `scores.json`.

    `treatments` is None where no column names them; `transductive` says what the encoder saw of the images, and
    `seconds` what scoring took until then; `invariances` are those of shapes.
    """

    set: SetFacts
    model: str
    made_from: MadeFrom
    treatments: TreatmentScores | None
    transductive: str
    invariances: list[Invariance]
    seconds: float | None


def describe_set(image_set: ImageSet, metadata: pd.DataFrame) -> SetFacts:
    """The facts of a set, counted in the table of its embeddings."""
    positions = metadata["plate"].astype(str) + "/" + metadata["well"].astype(str)
    return {
        "name": image_set.name,
        "kind": image_set.kind,
        "simulated": image_set.simulated,
        "description": image_set.description,
        "images": len(metadata),
        "plates": int(metadata["plate"].nunique()),
        "wells": int(positions.nunique()),
        "channels": list(image_set.channel_names),
        "image_shape": list(image_set.image_shape),
        "pixel_size_um": image_set.pixel_size_um,
    }


def write_scores(path: Path, scores: Scores) -> None:
    """Write `scores.json`, whole or not at all.

    Raises:
        DiskError: if there is no room or no right to write.
    """
    integrity.write_json(path, scores, scores["made_from"])

"""What a report is made of."""

import dataclasses
from pathlib import Path

import pandas as pd
from PIL import Image

from bie_jax.config.schema import Config
from bie_jax.evaluation.report.map import Projection
from bie_jax.evaluation.report.style import Picture
from bie_jax.evaluation.report.treatments.content import TreatmentContent
from bie_jax.evaluation.scores.file import Scores


@dataclasses.dataclass(frozen=True)
class Content:
    """A run as the report shows it.

    Attributes:
        workdir: where `metrics.jsonl`, and where there are any `reconstructions.npz` and `codebook.npz`, are read.
        config: of the run.
        scores: the content of `scores.json`.
        metadata: of the n images shown, with plate, well, site, the label column and `row`, their numbers in the set.
        projections: maps of the images shown.
        tiles: thumbnails of the images shown, squares of one size.
        pictures: of the section that shows what a decoder makes, where its kind of set has any.
        treatments: of the section on treatments; None where no column names them.
    """

    workdir: Path
    config: Config
    scores: Scores
    metadata: pd.DataFrame
    projections: list[Projection]
    tiles: list[Image.Image]
    pictures: list[Picture]
    treatments: TreatmentContent | None

    def __post_init__(self) -> None:
        lengths = {len(self.metadata), len(self.tiles), *(len(each.coordinates) for each in self.projections)}
        if len(lengths) != 1:
            raise ValueError(
                f"metadata, thumbnails and maps must show the same images, their lengths are {sorted(lengths)}"
            )

    def caption_of(self, row: int) -> str:
        """Where an image of the set comes from; of one that is not shown, its number is all that is known."""
        found = self.metadata[self.metadata["row"] == row]
        if found.empty:
            return f"Image {row}"
        values = found.iloc[0]
        where = f"Plate {values['plate']}, well {values['well']}, site {values['site']}"
        label = values[self.scores["label"]]
        return where if pd.isna(label) or str(label) == "" else f"{where}, {label}"

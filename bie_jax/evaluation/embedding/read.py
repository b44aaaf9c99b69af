"""What the embed stage has left of a set, verified against the set as it is now."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from bie_jax.config.schema import Config, ConfigError
from bie_jax.evaluation.embedding.write import files_beside
from bie_jax.files import integrity
from bie_jax.files.integrity import MadeFrom
from bie_jax.files.parquet import read_parquet
from bie_jax.input.covariates import known_numbers
from bie_jax.input.image_set import ImageSet, open_image_set
from bie_jax.input.pixels import check_finite_rows
from bie_jax.training import run_files


class EvaluationError(ConfigError):
    """Embeddings that cannot be scored on this set; the message says what does not fit."""


@dataclasses.dataclass(frozen=True)
class EmbeddedSet:
    """A set and its embeddings.

    Attributes:
        image_set: of N examples.
        metadata: N rows with plate, well, site, `split` and all other columns of the table.
        features: [N, D] float32, the table's: the embedding, and behind it what is appended.
        appended: [N, A], the numbers of `eval.append`.
        model: name of the method.
        made_from: what the table was made from.
    """

    image_set: ImageSet
    metadata: pd.DataFrame
    features: np.ndarray
    appended: np.ndarray
    model: str
    made_from: MadeFrom

    def part(self, rows: np.ndarray) -> "EmbeddedSet":
        """Some of the examples; all, as it is."""
        if len(rows) == len(self.metadata):
            return self
        return dataclasses.replace(
            self,
            image_set=self.image_set.part(rows),
            metadata=self.metadata.iloc[rows].reset_index(drop=True),
            features=self.features[rows],
            appended=self.appended[rows],
        )

    @property
    def embedding(self) -> np.ndarray:
        """[N, D - A], without what is appended."""
        return self.features[:, : self.features.shape[1] - self.appended.shape[1]]


def read_embedded_set(workdir: Path, config: Config) -> EmbeddedSet:
    """The set of a run and its embeddings; whatever the report shows beside them is verified, too.

    Raises:
        SetNotBuiltError: the set is not built.
        FileNotFoundError, DamagedFileError, StaleFileError: no embeddings, or of other images or another configuration.
        EvaluationError: no feature columns, or other images than the set's.
        NonFiniteRowsError: a row that holds NaN or infinity.
    """
    image_set = open_image_set(config.data.name, config.data.data_dir)
    run_files.check_same_set(workdir, image_set)
    made_from = run_files.origin_of_embeddings(workdir, config, image_set)
    metadata, features, model = read_embeddings(workdir / run_files.EMBEDDINGS, made_from)
    for name in files_beside(config):
        integrity.verify(workdir / name, run_files.EMBED_AGAIN, made_from)
    check_same_images(metadata, image_set)
    appended = known_numbers(image_set, config.eval.append)
    return EmbeddedSet(image_set, metadata, features, appended, model, made_from)


def read_embeddings(path: Path, made_from: MadeFrom | None = None) -> tuple[pd.DataFrame, np.ndarray, str]:
    """Metadata, features and model name out of `embeddings.parquet`.

    Args:
        path: of the file.
        made_from: what it would be made from now; None: whatever it was.

    Returns:
        Metadata with the prefix `Metadata_` taken off and plate, well and site in lower case; features [N, D] float32;
        the model's name.

    Raises:
        FileNotFoundError: no file.
        DamagedFileError: not what was written.
        StaleFileError: made from something else.
        EvaluationError: no feature columns.
        NonFiniteRowsError: a row that holds NaN or infinity.
    """
    integrity.verify(path, run_files.EMBED_AGAIN, made_from)
    table = read_parquet(path)
    prefix = "Metadata_"
    names = [str(name) for name in table.columns]
    metadata = table.loc[:, [name.startswith(prefix) for name in names]]
    short = [str(name).removeprefix(prefix) for name in metadata.columns]
    ours = {"Plate": "plate", "Well": "well", "Site": "site"}
    metadata = metadata.set_axis([ours.get(value, value) for value in short], axis="columns")
    features = table.loc[:, [not name.startswith(prefix) for name in names]]
    if not features.shape[1]:
        raise EvaluationError(
            f"{path} has no feature columns, only {list(table.columns)}; delete it and run --stage=embed"
        )
    model = str(features.columns[0]).rsplit("_", 1)[0]
    values = features.to_numpy(np.float32)
    check_finite_rows(values, str(path))
    return metadata, values, model


def check_same_images(metadata: pd.DataFrame, image_set: ImageSet) -> None:
    """Refuse embeddings whose rows are not the set's images in order: every score would be of the wrong image."""
    if len(metadata) != len(image_set):
        raise EvaluationError(
            f"embeddings.parquet has {len(metadata)} rows and the set {image_set.name} {len(image_set)} "
            f"{image_set.kind}; run --stage=embed again on the set as it is now"
        )
    for column in ("plate", "well", "site"):
        ours, theirs = (
            metadata[column].astype(str).to_numpy(),
            image_set.metadata[column].astype(str).to_numpy(),
        )
        if (ours != theirs).any():
            row = int((ours != theirs).argmax())
            raise EvaluationError(
                f"row {row} of embeddings.parquet has {column} {ours[row]!r}, image {row} of {image_set.name} has "
                f"{theirs[row]!r}; run --stage=embed again on the set as it is now"
            )

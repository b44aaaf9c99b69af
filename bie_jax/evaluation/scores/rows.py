"""All scores as rows of one table: what was scored, under which normalization, how, and on how many images."""

import io
from pathlib import Path
from typing import NamedTuple, TypedDict

import pandas as pd

from bie_jax.evaluation.scores.keys import IMAGE
from bie_jax.files import integrity
from bie_jax.files.integrity import MadeFrom


class Row(NamedTuple):
    """One number of one set of features, as a kind of score yields it.

    Attributes:
        split, classifier, metric: of the number; names as in `keys.py`.
        value: of the metric.
        n: images, wells or treatments tested.
        low, high: ends of the 95 % interval; None where there is none.
    """

    split: str
    classifier: str
    metric: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None


class ScoreRow(TypedDict):
    """The same beside what it is of, as it stands in `scores.json`.

    `draws`: seeds of which `value` is the mean; `level`: what one row of features was.
    """

    feature_set: str
    normalization: str
    draws: int
    level: str
    split: str
    classifier: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


def score_row(feature_set: str, normalization: str, draws: int, row: Row, level: str = IMAGE) -> ScoreRow:
    """A kind of score's row, said of what it is."""
    return {
        "feature_set": feature_set,
        "normalization": normalization,
        "draws": draws,
        "level": level,
        "split": row.split,
        "classifier": row.classifier,
        "metric": row.metric,
        "value": row.value,
        "low": row.low,
        "high": row.high,
        "n": row.n,
    }


def write_score_table(path: Path, rows: list[ScoreRow], made_from: MadeFrom) -> None:
    """Write the rows as Parquet, whole or not at all.

    Raises:
        DiskError: if there is no room or no right to write.
    """
    names = list(ScoreRow.__annotations__)
    table = pd.DataFrame(rows, columns=pd.Index(names)).astype({"value": float, "low": float, "high": float})
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    integrity.write_bytes(path, content.getvalue(), made_from)

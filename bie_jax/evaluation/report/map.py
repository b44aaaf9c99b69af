"""The map of the images: where each lies, what it looks like, and what it can be colored by."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bie_jax.evaluation.feature_set import FeatureSet
from bie_jax.evaluation.report.project import pca_projection, umap_projection
from bie_jax.evaluation.scores.keys import PUBLISHED, RANDOM, TRAINED

MOST_CATEGORIES = 120  # columns with more values than that are not offered as colors


@dataclasses.dataclass(frozen=True)
class Projection:
    """A map [n, 2] of the images shown, with the labels of its axes and a sentence on how it was made."""

    title: str
    x_label: str
    y_label: str
    coordinates: np.ndarray
    caption: str


def draw_maps(feature_sets: list[FeatureSet], shown: np.ndarray, seed: int, with_umap: bool) -> list[Projection]:
    """Maps of the trained embeddings, and principal components of the random weights, of a published encoder where
    there is one, and of one set of hand-made features to compare with.

    Principal components are fitted on all images; UMAP on the images shown alone, as its time grows with them.
    """
    by_key = {feature_set.key: feature_set for feature_set in feature_sets}
    trained = by_key[TRAINED].features
    projections = []
    if with_umap:
        tqdm.write("UMAP without labels")
        projections.append(
            Projection(
                "UMAP of the trained embeddings",
                "UMAP 1 (arbitrary units)",
                "UMAP 2 (arbitrary units)",
                umap_projection(trained[shown], seed),
                "UMAP of the standardized embeddings, fitted without labels on the images shown (15 neighbors, "
                "minimal distance 0.1).",
            )
        )
    published = [key for key in by_key if key == PUBLISHED]
    by_hand = [key for key, one in by_key.items() if one.components is None and key != PUBLISHED]
    for key in dict.fromkeys((TRAINED, RANDOM, *published, *by_hand[-1:])):
        coordinates, shares = pca_projection(by_key[key].draws[0])
        name = "the trained embeddings" if key == TRAINED else by_key[key].title.lower() + " features"
        projections.append(
            Projection(
                f"PCA of {name}",
                f"PC 1 ({shares[0]:.0%} of the variance)",
                f"PC 2 ({shares[1]:.0%} of the variance)",
                coordinates[shown],
                f"First two principal components of {name}, standardized, fitted without labels on all images.",
            )
        )
    return projections


def map_data(
    metadata: pd.DataFrame, projections: Sequence[Projection], label: str, control: str, atlas: dict[str, int]
) -> dict[str, Any]:
    """What the page's script draws the map from.

    Args:
        metadata: of the n images shown.
        projections: their maps.
        label: the label column.
        control: value of the label drawn in grey, or "".
        atlas: `columns` of the atlas of thumbnails, and the `side` of each, px.
    """
    return {
        "count": len(metadata),
        "columns": color_columns(metadata, label, control),
        "projections": [
            {
                "title": p.title,
                "xLabel": p.x_label,
                "yLabel": p.y_label,
                "caption": p.caption,
                "xy": np.round(p.coordinates.astype(float), 3).tolist(),
            }
            for p in projections
        ],
        "atlas": atlas,
        "label": label,
    }


def sampling_note(shown: int, total: int) -> str:
    """How many of the images are on the map."""
    if shown == total:
        return f"All {total} images are shown."
    return (
        f"{shown} of {total} images are shown, drawn at random without regard to labels "
        "(config.eval.max_report_points)."
    )


def color_columns(metadata: pd.DataFrame, label: str, control: str) -> list[dict]:
    """What points can be colored by: the label, plate, well, site, split, and further columns with few values.

    Args:
        metadata: of the images shown.
        label: the label column; it comes first.
        control: value of the label drawn in grey, or "".

    Returns:
        For each column its `name`, its `categories` and the `codes` [n] into them; `neutral` is the index of the
        controls or -1.
    """
    fixed = [name for name in dict.fromkeys((label, "plate", "well", "site", "split")) if name in metadata]
    columns = []
    for name in [*fixed, *(column for column in metadata.columns if column not in fixed)]:
        values = metadata[name]
        few = 2 <= values.nunique() <= MOST_CATEGORIES
        if name not in fixed and (not few or pd.api.types.is_float_dtype(values)):
            continue
        numeric = pd.api.types.is_numeric_dtype(values)
        names = sorted(values.dropna().unique()) if numeric else sorted(values.fillna("").astype(str).unique())
        text = values.fillna("").astype(str)
        categories = [str(value) for value in names]
        if numeric and bool((text == "").any()):
            categories.append("")
        neutral = categories.index(control) if name == label and control in categories else -1
        codes = pd.Categorical(text, categories=categories).codes.tolist()
        columns.append({"name": str(name), "categories": categories, "codes": codes, "neutral": neutral})
    return columns


def sample_points(count: int, limit: int, seed: int) -> np.ndarray:
    """Rows to show, sorted: all of them, or `limit` drawn without looking at labels."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))

"""The baselines of a set of images, and their thumbnails, in one pass over the pixels."""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image
from tqdm import tqdm

from bie_jax.evaluation.baselines.intensity import intensity_features
from bie_jax.evaluation.baselines.pixels import block_averaged_pixels
from bie_jax.evaluation.baselines.regions import region_features
from bie_jax.evaluation.baselines.texture import texture_features
from bie_jax.evaluation.feature_set import FeatureSet, HandMade
from bie_jax.evaluation.report import thumbnails
from bie_jax.input.image_set import ImageSet
from bie_jax.training.writers.composites import composite

PIXEL_PCA = "pixel_pca"
INTENSITY = "intensity"
CLASSICAL = "intensity_texture_regions"
PIXEL_COMPONENTS = 64
BATCH = 64  # images held at a time while features are computed


@dataclasses.dataclass(frozen=True)
class ClassicalFeatures:
    """What one pass over the pixels gives: features by kind, None if not asked for, and thumbnails of some images."""

    pixels: np.ndarray
    intensity: np.ndarray
    texture_and_regions: np.ndarray | None
    tiles: list


def image_features(image_set: ImageSet, shown: np.ndarray, classical: bool) -> HandMade:
    """Principal components of the pixels, intensity statistics and, if asked for, texture and region properties.

    Args:
        image_set: of images.
        shown: rows that get a thumbnail.
        classical: whether texture and region properties are among the baselines.
    """
    with tqdm(total=len(image_set), desc="baselines", unit="image") as bar:
        features = classical_features(
            image_set,
            image_set.channel_names,
            image_set.pixel_size_um,
            image_set.statistics["overall"],
            shown,
            classical,
            bar.update,
        )
    feature_sets = [
        FeatureSet(
            PIXEL_PCA,
            "Pixel PCA",
            f"{PIXEL_COMPONENTS} principal components of the block-averaged pixels, fitted in each training fold.",
            features.pixels,
            PIXEL_COMPONENTS,
        ),
        FeatureSet(INTENSITY, "Intensity", "12 statistics of each channel over the whole image.", features.intensity),
    ]
    if features.texture_and_regions is not None:
        feature_sets.append(
            FeatureSet(
                CLASSICAL,
                "Intensity, texture, regions",
                "Intensity statistics, grey-level co-occurrence texture, correlation of channels, and properties of "
                "segmented nuclei.",
                np.concatenate([features.intensity, features.texture_and_regions], axis=1),
            )
        )
    return HandMade(feature_sets, features.tiles)


def image_tiles(image_set: ImageSet, rows: np.ndarray, side: int) -> list[Image.Image]:
    """Thumbnails of some images, in the colors of all others and of at most `side` px."""
    overall = image_set.statistics["overall"]
    low, high = np.asarray(overall["percentiles"]["1"]), np.asarray(overall["percentiles"]["99.9"])
    pictures = (composite(image_set[int(row)][None], low, high)[0] for row in rows)
    return [thumbnails.shrink(picture, min(side, max(picture.shape[:2]))) for picture in pictures]


def classical_features(
    images: ImageSet | np.ndarray,
    channel_names: tuple[str, ...],
    pixel_size_um: float | None,
    overall: dict,
    shown: np.ndarray,
    texture_and_regions: bool,
    on_batch: Callable[[int], object] = lambda count: None,
) -> ClassicalFeatures:
    """Baselines and thumbnails in one pass, `BATCH` images at a time.

    Args:
        images: [N, H, W, C], or anything of that length whose items are [H, W, C].
        channel_names: C names.
        pixel_size_um: micrometers per pixel; None: unknown, lengths are then in pixels.
        overall: intensity statistics of the whole set, as in `statistics.json`.
        shown: rows that get a thumbnail.
        texture_and_regions: whether they are computed, which takes most of the time.
        on_batch: called with the number of images done, for a progress bar.
    """
    unit = 1.0 if pixel_size_um is None else pixel_size_um
    low, high = np.asarray(overall["percentiles"]["1"]), np.asarray(overall["percentiles"]["99.9"])
    pixels, intensity, rest, tiles = [], [], [], []
    wanted = set(shown.tolist())
    for start in range(0, len(images), BATCH):
        rows = range(start, min(start + BATCH, len(images)))
        batch = np.stack([images[i] for i in rows])
        pixels.append(block_averaged_pixels(batch, np.asarray(overall["std"])))
        intensity.append(intensity_features(batch, channel_names))
        if texture_and_regions:
            texture, regions = texture_features(batch, channel_names), region_features(batch, channel_names, unit)
            rest.append(np.concatenate([texture, regions], axis=1))
        side = thumbnails.tile_size(len(shown), max(batch.shape[1:3]))
        chosen = [i - start for i in rows if i in wanted]
        if chosen:
            tiles += [thumbnails.shrink(picture, side) for picture in composite(batch[chosen], low, high)]
        on_batch(len(rows))
    classical = np.concatenate(rest) if texture_and_regions else None
    return ClassicalFeatures(np.concatenate(pixels), np.concatenate(intensity), classical, tiles)

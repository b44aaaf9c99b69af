"""How many cells an image shows: on many benchmarks that alone does as well as a profile (doi
10.1038/s41467-026-68725-5)."""

import numpy as np
import scipy.ndimage
import skimage.feature
import skimage.segmentation
from tqdm import tqdm

from bie_jax.config.schema import EvalConfig
from bie_jax.evaluation.baselines.regions import SMALLEST_OBJECT_UM2, segment_nuclei
from bie_jax.evaluation.feature_set import FeatureSet
from bie_jax.evaluation.scores.keys import CELL_COUNT
from bie_jax.input.covariates import known_numbers
from bie_jax.input.image_set import ImageSet

_BATCH = 64  # images held at a time


def cell_counts(image_set: ImageSet, settings: EvalConfig) -> list[FeatureSet]:
    """The number of cells of each image as a set of features; none where the configuration names no way to count."""
    channel, column = settings.cell_count_channel, settings.cell_count_column
    if column:
        counts = known_numbers(image_set, (column,), "cell_count_column")
        return [FeatureSet(CELL_COUNT, "Cell count", f"One number an image: {column} of the set.", counts)]
    if not channel:
        return []
    index = image_set.channel_names.index(channel)
    um = 1.0 if image_set.pixel_size_um is None else image_set.pixel_size_um
    counts = []
    with tqdm(total=len(image_set), desc="cell count", unit="image") as bar:
        for start in range(0, len(image_set), _BATCH):
            rows = range(start, min(start + _BATCH, len(image_set)))
            counts.append(count_objects(np.stack([image_set[row][..., index] for row in rows]), um))
            bar.update(len(rows))
    described = f"One number an image: bright objects of {channel}, by Otsu's threshold and watershed."
    return [FeatureSet(CELL_COUNT, "Cell count", described, np.concatenate(counts))]


def count_objects(images: np.ndarray, pixel_size_um: float) -> np.ndarray:
    """Bright objects of one channel: Otsu's threshold, then touching ones parted by a watershed.

    The watershed runs over the distance to the background, smoothed by a Gaussian of 1 um, from its maxima, which stand
    apart by the radius of the smallest object at least (scikit-image). On pure noise Otsu's threshold finds specks;
    those below the smallest area do not count.

    Args:
        images: [N, H, W], one channel.
        pixel_size_um: micrometers per pixel; of unknown size 1, and the smallest object is then so many pixels.

    Returns:
        [N, 1] float64.
    """
    return np.array([[_count(image, pixel_size_um)] for image in images], dtype=np.float64)


def _count(image: np.ndarray, pixel_size_um: float) -> int:
    labels = segment_nuclei(image, pixel_size_um)
    if not labels.any():
        return 0
    distance = scipy.ndimage.gaussian_filter(
        np.asarray(scipy.ndimage.distance_transform_edt(labels)), 1.0 / pixel_size_um
    )
    radius_px = np.sqrt(SMALLEST_OBJECT_UM2 / np.pi) / pixel_size_um
    places = skimage.feature.peak_local_max(
        distance, min_distance=max(1, round(radius_px)), labels=labels, exclude_border=False
    )
    seeds = np.zeros(labels.shape, np.int32)
    seeds[tuple(places.T)] = np.arange(1, len(places) + 1)
    parted = skimage.segmentation.watershed(-distance, seeds, mask=labels > 0)
    smallest_px = max(4, SMALLEST_OBJECT_UM2 / pixel_size_um**2)
    return int((np.bincount(parted.ravel())[1:] >= smallest_px).sum())

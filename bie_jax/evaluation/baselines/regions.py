"""Properties of the segmented DNA channel's regions, as CellProfiler and scikit-image define them.

Finite for every finite image: each undefined case below has a stated value.
"""

from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import scipy.spatial
import skimage.filters

from bie_jax.evaluation.baselines.channels import check_channels, dna_channel

# A disc of 3 um across: smaller than any intact nucleus, larger than shot noise after smoothing.
SMALLEST_OBJECT_UM2 = 7.0
SHAPE_PROPERTIES = (
    "area_um2",
    "perimeter_um",
    "major_axis_um",
    "minor_axis_um",
    "eccentricity",
    "solidity",
    "form_factor",
)


def region_names(channel_names: Sequence[str]) -> list[str]:
    """Column names of `region_features`."""
    shapes = [f"region_{name}_{summary}" for name in SHAPE_PROPERTIES for summary in ("mean", "sd")]
    intensities = [
        f"region_{channel}_{summary}"
        for channel in channel_names
        for summary in ("object_mean", "object_mean_sd", "within_object_sd", "background")
    ]
    return ["region_count", "region_area_fraction", *shapes, *intensities]


def region_features(images: np.ndarray, channel_names: Sequence[str], pixel_size_um: float) -> np.ndarray:
    """Properties of the objects in the DNA channel, summarized per image.

    Count, covered fraction, mean and standard deviation over objects of each shape property, and for every channel the
    mean over objects of their mean intensity, its standard deviation over objects, the mean standard deviation inside
    an object, and the mean of the background. An image without objects has 0 in all but the background; an image
    without background has 0 there.

    Args:
        images: [N, H, W, C].
        channel_names: C names; `dna_channel` picks the one that is segmented.
        pixel_size_um: micrometers per pixel.

    Returns:
        [N, 16 + 4 C] float64, columns as `region_names`.
    """
    check_channels(images, channel_names)
    dna = dna_channel(channel_names)
    rows = []
    for image in images:
        labels = segment_nuclei(image[..., dna], pixel_size_um)
        count = int(labels.max())
        shapes = shape_properties(labels, pixel_size_um)
        flat = labels.ravel()
        area = np.bincount(flat, minlength=count + 1)
        row = [count, (flat > 0).mean()]
        for column in shapes.T:
            row += [column.mean(), column.std()] if count else [0.0, 0.0]
        for c in range(image.shape[-1]):
            values = image[..., c].ravel().astype(np.float64)
            mean = np.bincount(flat, weights=values, minlength=count + 1) / np.maximum(area, 1)
            deviation = (values - mean[flat]) ** 2
            sd = np.sqrt(np.bincount(flat, weights=deviation, minlength=count + 1) / np.maximum(area, 1))
            row += [mean[1:].mean(), mean[1:].std(), sd[1:].mean()] if count else [0.0, 0.0, 0.0]
            row.append(mean[0])
        rows.append(row)
    return np.array(rows, dtype=np.float64)


def segment_nuclei(channel: np.ndarray, pixel_size_um: float) -> np.ndarray:
    """Label image of bright objects: Gaussian smoothing (1 px), Otsu's threshold, holes filled, specks removed.

    Touching nuclei stay one object; objects that touch the border are kept. An empty field gives no object only when it
    is constant: on pure noise Otsu's threshold still finds specks, which the smallest area removes for the most part.

    Args:
        channel: [H, W].
        pixel_size_um: micrometers per pixel.

    Returns:
        [H, W] int32: 0 background, 1..n objects.
    """
    smooth = scipy.ndimage.gaussian_filter(channel.astype(np.float32), 1.0)
    if smooth.max() <= smooth.min():
        return np.zeros(channel.shape, np.int32)
    mask = scipy.ndimage.binary_fill_holes(smooth > skimage.filters.threshold_otsu(smooth))
    labels = np.zeros(channel.shape, np.int32)
    count = int(scipy.ndimage.label(mask, output=labels))  # type: ignore[reportArgumentType]  # a number, given output
    area = np.bincount(labels.ravel(), minlength=count + 1)
    keep = area >= max(4, SMALLEST_OBJECT_UM2 / pixel_size_um**2)
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return renumbered[labels]


def shape_properties(labels: np.ndarray, pixel_size_um: float) -> np.ndarray:
    """Size and shape of each object.

    Axes and eccentricity are those of the ellipse with the same second moments (scikit-image's definition, plus 1/12
    px^2 for the extent of a pixel, so that a single one has a length). The perimeter is Cauchy's estimate, pi / 4 times
    the number of pixel edges; form factor is 4 pi area / perimeter^2.

    Args:
        labels: [H, W] int, 0 background, 1..n objects, no number left out.
        pixel_size_um: micrometers per pixel.

    Returns:
        [n, 7] float64, columns as `SHAPE_PROPERTIES`.
    """
    count = int(labels.max())
    if count == 0:
        return np.zeros((0, len(SHAPE_PROPERTIES)))
    rows, columns = np.nonzero(labels)
    objects = labels[rows, columns] - 1

    def total(values):
        return np.bincount(objects, weights=values, minlength=count)

    area = total(np.ones(len(rows)))
    row_mean, column_mean = total(rows) / area, total(columns) / area
    dr, dc = rows - row_mean[objects], columns - column_mean[objects]
    rr, cc, rc = total(dr**2) / area + 1 / 12, total(dc**2) / area + 1 / 12, total(dr * dc) / area
    spread = np.sqrt((rr - cc) ** 2 / 4 + rc**2)
    large, small = (rr + cc) / 2 + spread, np.maximum((rr + cc) / 2 - spread, 0)

    padded = np.pad(labels, 1)
    edges = np.zeros(count + 1)
    for axis in (0, 1):
        before = np.take(padded, range(padded.shape[axis] - 1), axis=axis)
        after = np.take(padded, range(1, padded.shape[axis]), axis=axis)
        change = before != after
        edges += np.bincount(before[change], minlength=count + 1) + np.bincount(after[change], minlength=count + 1)
    perimeter = np.pi / 4 * edges[1:]

    order = np.argsort(objects, kind="stable")
    bounds = np.cumsum(area).astype(int)[:-1]
    hull = np.array([_hull_area(r, c) for r, c in zip(np.split(rows[order], bounds), np.split(columns[order], bounds))])
    um = pixel_size_um
    return np.stack(
        [
            area * um**2,
            perimeter * um,
            4 * np.sqrt(large) * um,
            4 * np.sqrt(small) * um,
            np.sqrt(np.clip(1 - small / large, 0, 1)),
            area / hull,
            4 * np.pi * area / perimeter**2,
        ],
        axis=1,
    )


def _hull_area(rows: np.ndarray, columns: np.ndarray) -> float:
    """Area in px^2 of the convex hull of the pixels' squares (their corners, so that one pixel has area 1)."""
    corners = np.concatenate([np.stack([rows + i, columns + j], axis=1) for i in (0, 1) for j in (0, 1)])
    return float(scipy.spatial.ConvexHull(corners).volume)  # in two dimensions qhull's "volume" is the area

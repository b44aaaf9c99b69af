"""Features that need no training, for every learned feature to be measured against.

Intensity statistics, Haralick texture (Haralick et al. 1973, doi 10.1109/TSMC.1973.4309314), region properties of the
segmented DNA channel as CellProfiler and scikit-image define them, and the block-averaged pixels whose principal
components are fitted inside each training fold (`probe.cross_validate`). All are deterministic, named, and finite for
every finite image: each undefined case below has a stated value.
"""

import collections.abc

import numpy as np
import scipy.ndimage
import scipy.spatial
import skimage.feature
import skimage.filters

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
TEXTURE_DISTANCES_PX = (
    1,
    3,
    6,
)  # one pixel for grain and noise, six for the size of organelles at usual sampling
TEXTURE_PROPERTIES = ("contrast", "homogeneity", "energy", "correlation")
GREY_LEVELS = 32
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


def dna_channel(channel_names: collections.abc.Sequence[str]) -> int:
    """Index of the channel that shows nuclei: the first one named after DNA or a DNA stain, else channel 0."""
    stains = ("dna", "dapi", "hoechst", "draq5", "nuclei", "nucleus")
    for index, name in enumerate(channel_names):
        if any(stain in name.lower() for stain in stains):
            return index
    return 0


def _check_images(images: np.ndarray, channel_names: collections.abc.Sequence[str]) -> None:
    if images.ndim != 4 or images.shape[-1] != len(channel_names):
        raise ValueError(
            f"images must be [N, H, W, C] with C = {len(channel_names)} ({', '.join(channel_names)}), got "
            f"{images.shape}"
        )


def intensity_names(channel_names: collections.abc.Sequence[str]) -> list[str]:
    """Column names of `intensity_features`, 12 per channel."""
    statistics = ["mean", "sd", "skewness", *(f"p{q}" for q in PERCENTILES)]
    return [f"intensity_{channel}_{statistic}" for channel in channel_names for statistic in statistics]


def _percentiles(pixels: np.ndarray) -> np.ndarray:
    """PERCENTILES of the last axis, as np.percentile gives them.

    One stable sort is a radix sort for 16 bits: 5x faster.
    """
    ordered = np.sort(pixels, axis=-1, kind="stable")
    position = np.array(PERCENTILES) / 100 * (pixels.shape[-1] - 1)
    below = np.floor(position).astype(int)
    above = np.minimum(below + 1, pixels.shape[-1] - 1)
    low, high = ordered[..., below].astype(np.float64), ordered[..., above].astype(np.float64)
    return np.moveaxis(low + (high - low) * (position - below), -1, 0)


def intensity_features(images: np.ndarray, channel_names: collections.abc.Sequence[str]) -> np.ndarray:
    """Mean, standard deviation, skewness and nine percentiles of each channel over the whole image.

    The skewness of a constant channel is 0.

    Args:
        images: [N, H, W, C], any real dtype.
        channel_names: C names.

    Returns:
        [N, 12 C] float64, columns as `intensity_names`; all but skewness in the image's own intensity units.
    """
    _check_images(images, channel_names)
    pixels = np.moveaxis(images, -1, 1).reshape(len(images), images.shape[-1], -1).astype(np.float64)  # [N, C, H W]
    mean = pixels.mean(axis=2)
    centerd = pixels - mean[..., None]
    squares = centerd * centerd
    variance = squares.mean(axis=2)
    third = (squares * centerd).mean(axis=2)
    skewness = np.where(variance > 0, third / np.where(variance > 0, variance, 1) ** 1.5, 0.0)
    percentiles = _percentiles(np.moveaxis(images, -1, 1).reshape(*mean.shape, -1))  # [9, N, C]
    columns = np.stack([mean, np.sqrt(variance), skewness, *percentiles], axis=-1)  # [N, C, 12]
    return columns.reshape(len(images), -1)


def texture_names(channel_names: collections.abc.Sequence[str]) -> list[str]:
    """Column names of `texture_features`: 12 per channel, then one per pair of channels."""
    haralick = [
        f"texture_{channel}_{quantity}_{distance}px"
        for channel in channel_names
        for quantity in TEXTURE_PROPERTIES
        for distance in TEXTURE_DISTANCES_PX
    ]
    pairs = [
        f"correlation_{first}_{second}" for i, first in enumerate(channel_names) for second in channel_names[i + 1 :]
    ]
    return haralick + pairs


def _grey_levels(channel: np.ndarray) -> np.ndarray:
    """Quantize [H, W] to GREY_LEVELS steps between its own 1st and 99th percentile: texture apart from brightness."""
    low, high = np.percentile(channel, (1, 99))
    if high <= low:
        return np.zeros(channel.shape, np.uint8)
    scaled = (channel.astype(np.float64) - low) / (high - low) * GREY_LEVELS
    return np.clip(scaled, 0, GREY_LEVELS - 1).astype(np.uint8)


def texture_features(images: np.ndarray, channel_names: collections.abc.Sequence[str]) -> np.ndarray:
    """Grey-level co-occurrence texture of each channel at three distances, and Pearson correlation between channels.

    Co-occurrence is symmetric, normalized and averaged over four directions. A constant channel has contrast 0,
    homogeneity, energy and correlation 1 (scikit-image's convention), and Pearson correlation 0 with every other
    channel.

    Args:
        images: [N, H, W, C].
        channel_names: C names.

    Returns:
        [N, 12 C + C (C - 1) / 2] float64, columns as `texture_names`.
    """
    _check_images(images, channel_names)
    angles = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
    count = images.shape[-1]
    first, second = np.triu_indices(count, k=1)
    rows = []
    for image in images:
        row = []
        for c in range(count):
            matrix = skimage.feature.graycomatrix(
                _grey_levels(image[..., c]),
                TEXTURE_DISTANCES_PX,
                angles,
                GREY_LEVELS,
                symmetric=True,
                normed=True,
            ).mean(axis=3, keepdims=True)
            row += [skimage.feature.graycoprops(matrix, quantity)[:, 0] for quantity in TEXTURE_PROPERTIES]
        centerd = image.reshape(-1, count).astype(np.float64)
        centerd -= centerd.mean(axis=0)
        norm = np.linalg.norm(centerd, axis=0)
        correlation = (centerd / np.where(norm > 0, norm, 1)).T @ (centerd / np.where(norm > 0, norm, 1))
        rows.append(np.concatenate([*row, correlation[first, second]]))
    return np.array(rows)


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


def _hull_area(rows: np.ndarray, columns: np.ndarray) -> float:
    """Area in px^2 of the convex hull of the pixels' squares (their corners, so that one pixel has area 1)."""
    corners = np.concatenate([np.stack([rows + i, columns + j], axis=1) for i in (0, 1) for j in (0, 1)])
    return float(scipy.spatial.ConvexHull(corners).volume)  # in two dimensions qhull's "volume" is the area


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


def region_names(channel_names: collections.abc.Sequence[str]) -> list[str]:
    """Column names of `region_features`."""
    shapes = [f"region_{name}_{summary}" for name in SHAPE_PROPERTIES for summary in ("mean", "sd")]
    intensities = [
        f"region_{channel}_{summary}"
        for channel in channel_names
        for summary in ("object_mean", "object_mean_sd", "within_object_sd", "background")
    ]
    return ["region_count", "region_area_fraction", *shapes, *intensities]


def region_features(
    images: np.ndarray, channel_names: collections.abc.Sequence[str], pixel_size_um: float
) -> np.ndarray:
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
    _check_images(images, channel_names)
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


def block_averaged_pixels(images: np.ndarray, channel_scale: np.ndarray, largest_side_px: int = 64) -> np.ndarray:
    """Pixels for PCA: the center, averaged over square blocks so that no side exceeds `largest_side_px`.

    The block is the smallest that does it (1 for images that are small enough), the same for rows and columns; what is
    left over at the borders is cropped evenly. Channels are divided by their standard deviation over the whole set,
    else the brightest dye would be the first component.

    Args:
        images: [N, H, W, C].
        channel_scale: [C], standard deviations; a channel with 0 is left as it is.
        largest_side_px: pixels.

    Returns:
        [N, h w C] float32.
    """
    height, width = images.shape[1:3]
    block = -(-max(height, width) // largest_side_px)
    rows, columns = height // block, width // block
    top, left = (height - rows * block) // 2, (width - columns * block) // 2
    center = images[:, top : top + rows * block, left : left + columns * block].astype(np.float32)
    blocks = center.reshape(len(images), rows, block, columns, block, -1).mean(axis=(2, 4))  # [N, h, w, C]
    scale = np.asarray(channel_scale, dtype=np.float32)
    return (blocks / np.where(scale > 0, scale, 1)).reshape(len(images), -1)


def rotate_to_span(features: np.ndarray) -> np.ndarray:
    """The same points in coordinates of their own span: at most N columns instead of D.

    A rotation (V sqrt(lambda), from X X^T = V lambda V^T): all inner products between images stay as they are, so
    principal components fitted on any part of the rows give the same scores, in a fraction of the time. It uses no
    label and fits nothing: what it leaves out is exactly zero for every image.

    Args:
        features: [N, D] float.

    Returns:
        [N, min(N, D)] float64; the features themselves where D <= N.
    """
    if features.shape[1] <= len(features):
        return features
    wide = features.astype(np.float64)  # in float32 the squares would cost the small components their digits
    values, vectors = np.linalg.eigh(wide @ wide.T)
    return vectors * np.sqrt(np.maximum(values, 0))

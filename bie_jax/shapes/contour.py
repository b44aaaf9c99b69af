"""Masks to outlines: the outer boundary of the largest component at half maximum, by marching squares.

Marching squares (Lorensen & Cline 1987, doi 10.1145/37401.37422, in two dimensions) puts a point between every two
neighboring pixels of which one is inside and the other is not, where the level is met on the line between their
centers. Here they are found for all masks of a stack at once, as pairs (pixel inside, side on which the outside is),
and each pair has one successor clockwise. Outlines are the cycles of that permutation; they are walked in steps that
double. Inside is 8-connected, as in `skimage.measure.label`: the outline is that of `skimage.measure.find_contours`
with `fully_connected="high"` on the padded mask.

Points are (row, column) in pixels, pixel centers at whole numbers, clockwise on the screen. The first point lies above
the leftmost pixel of the object's top row, whatever the object's shape: matrices of outlines that keep this start know
which way is up.
"""

import dataclasses

import numpy as np
import scipy.ndimage
import skimage.measure

from bie_jax.shapes.resample import check_resampling, resample_curve, resample_linear

# Masks are traced in parts of this many pixels, which bounds memory and keeps it in the caches.
_PIXELS_PER_PART = 2**18


@dataclasses.dataclass(frozen=True)
class ObjectMask:
    """One object of a label image.

    Attributes:
        label: its value in the label image.
        mask: [h, w] bool, the object alone in its bounding box.
        origin: (row, column) of the box's first pixel in the label image.
    """

    label: int
    mask: np.ndarray
    origin: tuple[int, int]


def mask_to_contour(mask: np.ndarray, num_points: int = 256, method: str = "linear") -> np.ndarray:
    """The outline of one mask; see `masks_to_contours`.

    Args:
        mask: [H, W].
        num_points: P.
        method: "linear", "spline" or "ray", see `resample_contour`.

    Returns:
        [P, 2] float64 (row, column), px.

    Raises:
        ValueError: as `masks_to_contours`.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask is [H, W], got {mask.shape}; several masks go to masks_to_contours")
    return masks_to_contours(mask[None], num_points, method)[0]


def masks_to_contours(masks: np.ndarray, num_points: int = 256, method: str = "linear") -> np.ndarray:
    """Outlines of masks: of each the outer boundary of its largest component, holes ignored.

    The level is half of a mask's maximum, below which, and around the image, is outside. A grey mask is interpolated
    between pixels. Largest is the component with the most pixels, and among equals the first from the top. An object
    that touches the border of the image ends half a pixel outside of it (at half maximum, for grey).

    Args:
        masks: [N, H, W] bool, integers or floats, background 0: 0/1, 0/255, off-white and grey. Values are not
            labels; for label images see `objects` and `label_image_to_contours`.
        num_points: P.
        method: "linear", "spline" or "ray", see `resample_contour`. "linear" is done for all masks together, the
            others one by one.

    Returns:
        [N, P, 2] float64 (row, column), px.

    Raises:
        ValueError: if masks are not [N, H, W] numbers or not finite, if one is empty, if there is no such method, or
            if `num_points` is below 3.
    """
    check_resampling(num_points, method)
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.dtype.kind not in "buif":
        raise ValueError(f"masks are [N, H, W] numbers, got {masks.shape} of {masks.dtype}")
    contours = np.empty((len(masks), num_points, 2))
    size = max(1, _PIXELS_PER_PART // ((masks.shape[1] + 2) * (masks.shape[2] + 2)))
    for begin in range(0, len(masks), size):
        part = slice(begin, begin + size)
        contours[part] = _resample(*_outlines_of_masks(masks[part], begin), num_points, method)
    return contours


def outer_boundary(mask: np.ndarray) -> np.ndarray:
    """The points of marching squares themselves, as many as there are.

    Args:
        mask: [H, W], as in `masks_to_contours`.

    Returns:
        [V, 2] float64 (row, column), px, V >= 4, without the first point again at the end. Points fall together only
        where a grey value is exactly at the level.

    Raises:
        ValueError: as `masks_to_contours`.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "buif":
        raise ValueError(f"a mask is [H, W] numbers, got {mask.shape} of {mask.dtype}")
    return _outlines_of_masks(mask[None], 0)[0]


def largest_object(mask: np.ndarray) -> ObjectMask:
    """The pixels that the outline of a mask is drawn around: its largest component above half of its maximum.

    Args:
        mask: [H, W], as in `masks_to_contours`.

    Returns:
        The component with the label 1; its holes are not part of it.

    Raises:
        ValueError: as `masks_to_contours`.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "buif":
        raise ValueError(f"a mask is [H, W] numbers, got {mask.shape} of {mask.dtype}")
    component = np.empty(mask.shape, np.int32)
    scipy.ndimage.label(_inside(mask[None], 0)[0][0], np.ones((3, 3)), output=component)
    first, pixels = _components(component)
    (start,) = _largest(first, pixels, np.zeros(len(first), int), 1)
    alone = component == component.ravel()[start]
    (box,) = scipy.ndimage.find_objects(alone.astype(np.uint8))
    return ObjectMask(1, alone[box], (box[0].start, box[1].start))


def objects(label_image: np.ndarray) -> list[ObjectMask]:
    """The objects of a label image, in the order of their labels.

    Args:
        label_image: [H, W] bool or integers at least 0; 0 is background, and equal values are one object, whether
            connected or not. Objects may touch.

    Returns:
        One `ObjectMask` for every value but 0 that occurs.

    Raises:
        ValueError: if the image is not [H, W] of whole numbers, or has a negative one.
    """
    label_image = _check_labels(label_image)
    values, number = np.unique(label_image, return_inverse=True)
    background = int(values.size > 0 and values[0] == 0)
    boxes = scipy.ndimage.find_objects((number + 1 - background).reshape(label_image.shape))
    return [
        ObjectMask(int(label), label_image[box] == label, (box[0].start, box[1].start))
        for label, box in zip(values[background:], boxes, strict=True)
    ]


def label_image_to_contours(
    label_image: np.ndarray, num_points: int = 256, method: str = "linear"
) -> tuple[np.ndarray, np.ndarray]:
    """Outlines of all objects of a label image at once.

    Equal to `mask_to_contour` of every object's mask, in the coordinates of the image. Where objects touch, their
    outlines run along the same points.

    Args:
        label_image: [H, W] as in `objects`.
        num_points: P.
        method: see `resample_contour`.

    Returns:
        Labels [N] of the image's dtype, ascending, and outlines [N, P, 2] float64 (row, column), px; N may be 0.

    Raises:
        ValueError: as `objects`; if there is no such method, or `num_points` is below 3.
    """
    check_resampling(num_points, method)
    padded = np.pad(_check_labels(label_image), 1)
    component = np.asarray(skimage.measure.label(padded, background=0, connectivity=2), np.int32)
    first, pixels = _components(component)
    labels, number = np.unique(padded.ravel()[first], return_inverse=True)
    if not len(labels):
        return labels, np.empty((0, num_points, 2))
    start = _largest(first, pixels, number, len(labels))
    points, lengths, _ = _trace(_only(component, start), start)
    return labels, _resample(points - 1, lengths, num_points, method)


def _check_labels(label_image: np.ndarray) -> np.ndarray:
    label_image = np.asarray(label_image)
    if label_image.ndim != 2 or label_image.dtype.kind not in "bui":
        raise ValueError(f"a label image is [H, W] whole numbers, got {label_image.shape} of {label_image.dtype}")
    if label_image.size and label_image.min() < 0:
        raise ValueError(
            f"a label image has the negative value {label_image.min()}; labels start at 1, 0 is background"
        )
    return label_image


def _resample(points: np.ndarray, lengths: np.ndarray, num_points: int, method: str) -> np.ndarray:
    if method == "linear":
        return resample_linear(points, lengths, num_points)
    outlines = np.split(points, np.cumsum(lengths)[:-1])
    return np.stack([resample_curve(outline, num_points, method) for outline in outlines])


def _outlines_of_masks(masks: np.ndarray, number_of_first: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [V, 2] of all outlines, one after the other, and how many of them each mask has [N]."""
    inside, maximum = _inside(masks, number_of_first)
    level = maximum / 2  # true division: 127.5 for 255, 0.5 for True
    # Only what lies around the objects, with the values next to them, which grey outlines are interpolated with.
    top, bottom = _extent(np.any(inside, axis=(0, 2)))
    left, right = _extent(np.any(inside, axis=(0, 1)))
    masks, inside = (np.pad(array[:, top:bottom, left:right], ((0, 0), (1, 1), (1, 1))) for array in (masks, inside))
    # A stack is one tall image: padding keeps its masks apart.
    num_masks, height, width = masks.shape
    component = np.empty((num_masks * height, width), np.int32)
    count = scipy.ndimage.label(inside.reshape(component.shape), np.ones((3, 3)), output=component)
    if count == num_masks:
        start = inside.reshape(num_masks, -1).argmax(axis=1) + height * width * np.arange(num_masks)
    else:
        first, pixels = _components(component)
        start = _largest(first, pixels, first // (height * width), num_masks)
        component = _only(component, start)
    points, lengths, (inner, outer) = _trace(component, start)
    if masks.dtype != bool:
        points = _interpolate(masks, level, inner, outer)
    points -= (1 - top, 1 - left)
    points[:, 0] -= np.repeat(float(height) * np.arange(num_masks), lengths)
    return points, lengths


def _inside(masks: np.ndarray, number_of_first: int) -> tuple[np.ndarray, np.ndarray]:
    """What is above half of each mask's maximum [N, H, W] bool, and the maxima [N]; raises as `masks_to_contours`."""
    if not masks.size:
        raise ValueError(f"masks are {masks.shape}, there is no pixel")
    if masks.dtype.kind == "f" and not np.isfinite(masks).all():
        raise ValueError("masks have values that are not finite")
    maximum = np.asarray(masks.max(axis=(1, 2)))
    if not (maximum > 0).all():
        empty = np.flatnonzero(maximum <= 0)
        raise ValueError(
            f"mask {number_of_first + empty[0]} is empty: no pixel is above 0, which is background (empty are "
            f"{len(empty)} of the masks {number_of_first} to {number_of_first + len(masks) - 1})"
        )
    return (masks if masks.dtype == bool else masks > _rounded_level(maximum)[:, None, None]), maximum


def _rounded_level(maximum: np.ndarray) -> np.ndarray:
    """Half of each maximum in the type of the masks; whole numbers are above it if they are above the half."""
    return maximum // 2 if maximum.dtype.kind in "ui" else maximum / 2


def _extent(occupied: np.ndarray) -> tuple[int, int]:
    """First and behind the last index of what is occupied [H], with one more on either side where there is one."""
    index = np.flatnonzero(occupied)
    return max(int(index[0]) - 1, 0), min(int(index[-1]) + 2, len(occupied))


def _only(component: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The components that contain the pixels `start` [n], numbered 1 to n in this order; 0 elsewhere."""
    kept = np.zeros(component.max() + 1, np.int32)
    kept[component.ravel()[start]] = 1 + np.arange(len(start))
    return kept[component]


def _components(component: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First flat pixel, row by row, and number of pixels of components 1, 2, ..."""
    flat = component.ravel()
    pixel = np.flatnonzero(flat)[::-1]
    label = flat[pixel]
    pixels = np.bincount(label)
    first = np.zeros(len(pixels), np.int64)
    first[label] = pixel  # of several assignments to one place the last one stays
    return first[1:], pixels[1:]


def _largest(first: np.ndarray, pixels: np.ndarray, group: np.ndarray, num_groups: int) -> np.ndarray:
    """Of each group's components the first pixel of the largest one, [num_groups]; every group has one."""
    order = np.lexsort((first, -pixels, group))
    return first[order[np.searchsorted(group[order], np.arange(num_groups))]]


def _trace(region: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Walk around regions, clockwise.

    Args:
        region: [rows, W] int, 0 outside; every region is 8-connected, and a frame of zeros surrounds the image.
        start: [n] flat index of the first pixel, row by row, of each region that is walked around.

    Returns:
        Points [V, 2] halfway between pixels, as (row, column) of the image, all outlines one after the other; the
        number of points of each [n]; and the flat indices of the pixels inside and outside of each point, each [V].
    """
    flat = region.ravel()
    width = region.shape[1]
    offset = (-width, 1, width, -1)  # the outside lies above, right, below, left; clockwise
    number = np.empty((4, flat.size), np.int32)  # of a pair; only where there is one
    within = flat[width:-width]  # without the frame's first and last row
    pairs, count = [], 0
    for side in range(4):
        across = flat[width + offset[side] : len(flat) - width + offset[side]]
        pixel = width + np.flatnonzero((within != across) & (within != 0))
        number[side, pixel] = np.arange(count, count + len(pixel))
        pairs.append(pixel)
        count += len(pixel)
    following = []
    for side, pixel in enumerate(pairs):
        own = flat[pixel]
        right = pixel + offset[(side + 1) % 4]  # ahead, on the side of the inside
        left = right + offset[side]
        turn_left, straight = flat[left] == own, flat[right] == own
        step = np.where(straight, number[side, right], number[(side + 1) % 4, pixel])
        following.append(np.where(turn_left, number[(side + 3) % 4, left], step))
    jump = np.concatenate(following)

    # Who is back stops walking: beside one long boundary a thousand short ones must not be walked as far.
    lengths = np.empty(len(start), np.int64)
    walked = []
    walking, order = np.arange(len(start)), number[0, start][:, None]
    while len(walking):
        ahead = jump[order]
        home = ahead == order[:, :1]
        back = home.any(axis=1)
        whole = np.concatenate([order[back], ahead[back]], axis=1)
        length = order.shape[1] + home[back].argmax(axis=1)
        lengths[walking[back]] = length
        walked.append((walking[back], whole[np.arange(whole.shape[1]) < length[:, None]]))
        walking, order = walking[~back], np.concatenate([order[~back], ahead[~back]], axis=1)
        jump = jump[jump]
    first = np.cumsum(lengths) - lengths
    path = np.empty(lengths.sum(), np.int32)
    for numbers, steps in walked:
        own = lengths[numbers]
        path[np.arange(len(steps)) + np.repeat(first[numbers] - (np.cumsum(own) - own), own)] = steps

    inner = np.concatenate(pairs)[path]
    outer = inner + np.repeat(offset, [len(pixel) for pixel in pairs])[path]
    points = np.stack([inner // width + outer // width, inner % width + outer % width], axis=1) / 2
    return points, lengths, (inner, outer)


def _interpolate(padded: np.ndarray, level: np.ndarray, inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Points [V, 2] of the tall image where the values between two pixels' centers meet the level of their mask."""
    _, height, width = padded.shape
    values = padded.reshape(-1)
    high, low = values[inner].astype(np.float64), values[outer].astype(np.float64)
    share = ((high - level[inner // (height * width)]) / (high - low))[:, None]
    here = np.stack([inner // width, inner % width], axis=1)
    there = np.stack([outer // width, outer % width], axis=1)
    return here + share * (there - here)

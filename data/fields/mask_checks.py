"""Whether an image is the kind of mask that it is said to be: one object, or numbered objects."""

import numpy as np
import skimage.measure

# A part of an object counts as a part from this share of the largest one on; smaller ones are specks.
_SPECK = 0.1


def problem_of_binary(mask: np.ndarray) -> str | None:
    """Why an image is no mask of one object; None if it is.

    Args:
        mask: [H, W] numbers, not all 0.
    """
    levels = np.unique(mask)
    if len(levels) > 2:
        shown = ", ".join(f"{level:g}" for level in levels[:6]) + (", ..." if len(levels) > 6 else "")
        return (
            f"has {len(levels)} levels ({shown}), a binary mask has two; if they number objects: --mask=labels, if it "
            "is grey and its object is what is above half of the maximum: --mask=grey"
        )
    inside = mask > mask.max() / 2
    if problem := problem_of_grey(mask):
        return problem
    areas = np.bincount(_parts(inside)[inside])[1:]
    if areas.max() * 2 < areas.sum():
        return (
            f"has {len(areas)} objects apart, and --mask=binary is for one in each image; number them "
            "(skimage.measure.label) and say --mask=labels, or --mask=grey takes the largest whatever there is"
        )
    return None


def problem_of_grey(mask: np.ndarray) -> str | None:
    """Why what is bright in an image is no object; None if it may be one. [H, W] numbers, not all 0."""
    inside = mask > mask.max() / 2
    if _corners(inside).all() and not inside.all():
        return "has a bright background: its four corners are bright and other parts dark; invert it, background is 0"
    return None


def problem_of_labels(labels: np.ndarray) -> str | None:
    """Why an image does not number its objects; None if it may, or is empty.

    Args:
        labels: [H, W] whole numbers from 0, 0 is background.
    """
    corners = _corners(labels)
    if corners[0] and (corners == corners[0]).all() and (labels != corners[0]).any():
        return f"has the number {corners[0]} in its four corners, as a background has; background is 0"
    inside = labels > 0
    _, first, areas = np.unique(_parts(labels)[inside], return_index=True, return_counts=True)
    numbers, of_part = np.unique(labels[inside][first], return_inverse=True)
    largest = np.zeros(len(numbers), int)
    np.maximum.at(largest, of_part, areas)
    large_parts = np.bincount(of_part[areas >= _SPECK * largest[of_part]], minlength=len(numbers))
    if len(numbers) == 1 and large_parts[0] > 1:
        return (
            f"has one number, {numbers[0]}, in {large_parts[0]} parts: a binary mask of several objects; number them, "
            "e.g. with skimage.measure.label"
        )
    several = int((large_parts > 1).sum())
    if 2 * several > len(numbers):
        return (
            f"has {len(numbers)} numbers, {several} of them in several parts, as intensities and classes of pixels are "
            "and numbered objects are not; number its objects, e.g. with skimage.measure.label"
        )
    return None


def _parts(image: np.ndarray) -> np.ndarray:
    """Numbers from 1 of the connected parts of one value, diagonals included; 0 where the image is 0."""
    return np.asarray(skimage.measure.label(image, connectivity=2))


def _corners(image: np.ndarray) -> np.ndarray:
    return image[[0, 0, -1, -1], [0, -1, 0, -1]]

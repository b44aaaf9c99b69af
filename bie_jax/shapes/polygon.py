"""Plain geometry of closed outlines [P, 2]: area, centroid, filling, and laying one outline over another.

Points are (row, column) in pixels, rows downwards, pixel centers at whole numbers; the last point is joined to the
first, which is not repeated.
"""

import numpy as np
import skimage.draw


def signed_area(points: np.ndarray) -> np.ndarray:
    """Area by the shoelace formula, positive where the outline runs clockwise on the screen.

    Args:
        points: [..., P, 2] (row, column).

    Returns:
        [...] float64, px^2.
    """
    points = np.asarray(points, np.float64)
    points = points - points[..., :1, :]  # far from the origin the products alone would lose digits
    return _cross(points).sum(axis=-1) / 2


def centroid(points: np.ndarray) -> np.ndarray:
    """Center of mass of the enclosed area; of the points themselves where they enclose none.

    Args:
        points: [..., P, 2].

    Returns:
        [..., 2] float64, px.
    """
    points = np.asarray(points, np.float64)
    origin = points.mean(axis=-2, keepdims=True)
    local = points - origin
    cross = _cross(local)[..., None]
    area = cross.sum(axis=-2) / 2
    moment = ((local + np.roll(local, -1, axis=-2)) * cross).sum(axis=-2) / 6
    # A line back and forth has an area of rounding alone; dividing by it would send the center anywhere.
    thin = np.abs(area) <= 1e-12 * np.square(local).sum(axis=(-2, -1))[..., None]
    return origin[..., 0, :] + np.where(thin, 0.0, moment / np.where(thin, 1.0, area))


def contour_to_mask(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centers lie inside of an outline, by the even-odd rule.

    Args:
        points: [P, 2] (row, column) px; parts outside of the image are cut off.
        shape: (H, W).

    Returns:
        [H, W] bool.

    Raises:
        ValueError: if points are not [P, 2].
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must be [P, 2], got {points.shape}")
    mask = np.zeros(shape, bool)
    rows, columns = skimage.draw.polygon(points[:, 0], points[:, 1], shape)
    mask[rows, columns] = True
    return mask


def align(points: np.ndarray, reference: np.ndarray, *, reflection: bool = True) -> np.ndarray:
    """Move points onto a reference, point by point, by the rotation and translation with the least squared distance.

    The orthogonal Procrustes problem (Schönemann 1966, doi 10.1007/BF02289451; Kabsch 1976,
    doi 10.1107/S0567739476001873 without reflection). Size is left as it is.

    Args:
        points: [..., P, 2].
        reference: [..., P, 2], point k belongs to point k.
        reflection: whether the points may be mirrored too; a distance matrix does not tell one hand from the other.

    Returns:
        [..., P, 2] float64.

    Raises:
        ValueError: if the shapes differ.
    """
    points, reference = np.asarray(points, np.float64), np.asarray(reference, np.float64)
    if points.shape != reference.shape or points.ndim < 2 or points.shape[-1] != 2:
        raise ValueError(f"points are {points.shape}, reference {reference.shape}; both must be the same [..., P, 2]")
    center = reference.mean(axis=-2, keepdims=True)
    local = points - points.mean(axis=-2, keepdims=True)
    u, _, vt = np.linalg.svd(np.swapaxes(local, -1, -2) @ (reference - center))
    if not reflection:
        u[..., -1] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return local @ (u @ vt) + center


def _cross(points: np.ndarray) -> np.ndarray:
    """column_k row_k+1 - column_k+1 row_k, [..., P]: twice the area of the triangle with the origin."""
    following = np.roll(points, -1, axis=-2)
    return points[..., 1] * following[..., 0] - following[..., 1] * points[..., 0]

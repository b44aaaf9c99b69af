"""Classical numbers for outlines, to measure learned embeddings against: none of them needs training.

All take outlines [N, P, 2] with points at equal steps of arc length, clockwise on the screen, as
`bie_jax.shapes.contour` makes them. Nothing depends on where an outline lies, how it is turned or mirrored or where it
starts, but for elliptic Fourier coefficients, which have a hand. All values are finite for all finite outlines: a
quotient of two lengths or areas that are both zero (a line, a single place) is 0.
"""

import typing

import numpy as np
import scipy.spatial

from bie_jax.shapes.polygon import centroid, signed_area

# Curvature is that of the outline after Gaussian smoothing by this share of its length: below, it is of the pixels.
CURVATURE_SMOOTHING = 0.015
# Outlines are worked on in parts of this many points, which bounds memory.
_POINTS_PER_PART = 2**18

SHAPE_PROPERTIES = (
    "circularity",
    "eccentricity",
    "axis_ratio",
    "inertia",
    "ellipticity",
    "solidity",
    "convexity",
    "hull_circularity",
    "rectangularity",
    "rectangle_aspect",
    "feret_max",
    "feret_min",
    "feret_ratio",
    "hull_offset",
    "boundary_offset",
    "deepest_bay",
    "mean_bay",
    "radius_mean",
    "radius_sd",
    "radius_skewness",
    "radius_kurtosis",
    "radius_min",
    "radius_max",
    "chord_sd",
    "chord_skewness",
    "moment_12",
    "moment_30",
    "moment_20_12",
    "moment_30_12",
    "twofold_asymmetry",
    "threefold_asymmetry",
    "bending_energy",
    "total_curvature",
    "concave_share",
    "concavities",
)
SIZE_PROPERTIES = (
    "area_px2",
    "perimeter_px",
    "equivalent_diameter_px",
    "major_axis_px",
    "minor_axis_px",
    "feret_max_px",
    "feret_min_px",
    "hull_area_px2",
    "hull_perimeter_px",
    "rms_chord_px",
)


class Features(typing.NamedTuple):
    """A table of features.

    Attributes:
        values: [N, F] float64.
        names: F column names.
    """

    values: np.ndarray
    names: tuple[str, ...]


def region_properties(contours: np.ndarray, *, size: bool = False) -> Features:
    """Region properties of outlines, free of pose and, unless asked for, of size.

    Lengths and areas are those of the polygon, and relative to the equivalent diameter d = 2 sqrt(A / pi) or to A:

    * circularity 4 pi A / L^2; eccentricity, minor / major axis of the ellipse with the same second moments; inertia,
      2 pi times the normalized polar moment (1 for a disc); ellipticity, A over the area of that ellipse;
    * solidity A / A_hull; convexity L_hull / L; circularity of the hull; rectangularity A over the area of the smallest
      enclosing rectangle, and that rectangle's short / long side; greatest and least Feret diameter, and their
      quotient; distance of the centroid from that of the hull and from the mean of the outline; greatest and mean
      distance of the outline from the boundary of its hull;
    * distance of the outline from the centroid: mean, standard deviation, skewness, kurtosis (3 for a normal
      distribution), least, greatest; distances between points, of at most 16 distances along the outline: sd over mean,
      skewness;
    * rotation invariants of the complex moments c_pq = integral of z^p conj(z)^q up to third order (Flusser 2000,
      doi 10.1016/S0031-3203(99)00127-2): |c_12|, |c_30|, Re c_20 c_12^2, Re c_30 c_12^3, each brought to the power that
      makes it one of first degree; the imaginary parts, whose signs tell the hand, are left out;
    * share of the outline's variance that a half turn, and a third of a turn, does not map onto itself;
    * curvature k after smoothing (`CURVATURE_SMOOTHING`): L / (4 pi^2) integral of k^2 (1 for a circle), integral of
      |k| over 2 pi (1 for convex ones), share of the length where k < 0, number of such stretches.

    Args:
        contours: [N, P, 2] px, P >= 3.
        size: append `SIZE_PROPERTIES`, in px and px^2.

    Returns:
        Columns `SHAPE_PROPERTIES`, then `SIZE_PROPERTIES` if asked for.

    Raises:
        ValueError: if contours are not [N, P, 2] with P >= 3, or not finite.
    """
    contours = _check(contours)
    names = SHAPE_PROPERTIES + (SIZE_PROPERTIES if size else ())
    values = np.empty((len(contours), len(names)))
    for part in _parts(contours):
        columns = _region_columns(contours[part])
        values[part] = np.stack([columns[name] for name in names], axis=1)
    return Features(values, names)


def elliptic_fourier(contours: np.ndarray, order: int = 10) -> Features:
    """Elliptic Fourier coefficients, normalized for position, size, rotation, start and direction.

    Those of `elliptic_coefficients`, with two signs settled that its normalization leaves to chance: a_1 is made 1, so
    that a_1, b_1, c_1 are 1, 0, 0 for every outline and are left out; and of the two ends of the first harmonic's major
    axis the one comes first that lies farther out, where sum a_n of the even harmonics is positive. A mirrored outline
    has other coefficients.

    Args:
        contours: [N, P, 2] px.
        order: harmonics.

    Returns:
        4 order - 3 columns: efd_d1, efd_a2, efd_b2, ...

    Raises:
        ValueError: as `elliptic_coefficients`.
    """
    coefficients = elliptic_coefficients(contours, order, normalize=True)
    coefficients *= np.where(coefficients[:, :1, :1] < 0, -1, 1)  # half a turn
    even = coefficients[:, 1::2]  # the other end first, and half a turn: odd harmonics stay
    even *= np.where(even[..., 0].sum(axis=1) < 0, -1, 1)[:, None, None]
    names = tuple(f"efd_{letter}{harmonic}" for harmonic in range(1, order + 1) for letter in "abcd")
    return Features(coefficients.reshape(len(coefficients), -1)[:, 3:], names[3:])


def elliptic_coefficients(contours: np.ndarray, order: int = 10, *, normalize: bool) -> np.ndarray:
    """Elliptic Fourier coefficients a_n, b_n, c_n, d_n (Kuhl & Giardina 1982, doi 10.1016/0146-664X(82)90034-X).

    Equal to `pyefd.elliptic_fourier_descriptors` of each outline, with its normalization: start and axes at the major
    axis of the first harmonic, counter-clockwise, major semi-axis 1. Which end of that axis comes first is not settled
    by it: an outline that is turned half way round may get the other sign in all even harmonics.

    Args:
        contours: [N, P, 2] px; points may repeat and need not be at equal steps.
        order: harmonics, at least 1.
        normalize: whether to normalize.

    Returns:
        [N, order, 4] float64, px if not normalized. Zeros for an outline without length.

    Raises:
        ValueError: if contours are not [N, P, 2] with P >= 3, or not finite, or order is below 1.
    """
    contours = _check(contours)
    if order < 1:
        raise ValueError(f"order is {order}, must be at least 1")
    coefficients = np.empty((len(contours), order, 4))
    for part in _parts(contours):
        coefficients[part] = _kuhl_giardina(contours[part], order)
    return _normalize_elliptic(coefficients) if normalize else coefficients


def fourier_magnitudes(contours: np.ndarray, count: int = 40) -> Features:
    """Magnitudes of the Fourier coefficients of the outline as complex numbers, but for those of position and size.

    z_n = column + i row; |F_k| for k = 2, -1, 3, -2, ..., over the root of the sum of all |F_k|^2, k != 0. F_0 is the
    position, and |F_1|, that of a circle, follows from the others nearly. Turning changes phases alone, and so does
    another start; a mirrored outline, walked clockwise again, has the same magnitudes.

    Args:
        contours: [N, P, 2] px.
        count: how many, at most P - 2.

    Returns:
        Columns fourier_2, fourier_-1, fourier_3, ...

    Raises:
        ValueError: if contours are not [N, P, 2] with P >= 3, or not finite, or there are not so many coefficients.
    """
    contours = _check(contours)
    if not 1 <= count <= contours.shape[1] - 2:
        raise ValueError(f"count is {count}, must be 1 to {contours.shape[1] - 2} with {contours.shape[1]} points")
    frequencies = [2 + index // 2 if index % 2 == 0 else -1 - index // 2 for index in range(count)]
    values = np.empty((len(contours), count))
    for part in _parts(contours):
        spectrum = np.abs(np.fft.fft(_complex(contours[part]), axis=1))
        energy = np.sqrt(np.square(spectrum[:, 1:]).sum(axis=1, keepdims=True))
        values[part] = _ratio(spectrum[:, frequencies], energy)
    return Features(values, tuple(f"fourier_{frequency}" for frequency in frequencies))


def _region_columns(contours: np.ndarray) -> dict[str, np.ndarray]:
    perimeter = np.linalg.norm(np.roll(contours, -1, axis=1) - contours, axis=2).sum(axis=1)
    area = np.abs(signed_area(contours))
    area = np.where(area <= 1e-12 * perimeter**2, 0, area)  # of a line rounding alone is left
    diameter = 2 * np.sqrt(area / np.pi)
    center = centroid(contours)
    hull = _hull_columns(contours, center)
    columns = {
        "circularity": _ratio(4 * np.pi * area, perimeter**2),
        "solidity": _ratio(area, hull["area"]),
        "convexity": _ratio(hull["perimeter"], perimeter),
        "hull_circularity": _ratio(4 * np.pi * hull["area"], hull["perimeter"] ** 2),
        "rectangularity": _ratio(area, hull["rectangle_area"]),
        "rectangle_aspect": hull["rectangle_aspect"],
        "feret_max": _ratio(hull["feret_max"], diameter),
        "feret_min": _ratio(hull["feret_min"], diameter),
        "feret_ratio": _ratio(hull["feret_min"], hull["feret_max"]),
        "hull_offset": _ratio(hull["offset"], diameter),
        "boundary_offset": _ratio(np.linalg.norm(contours.mean(axis=1) - center, axis=1), diameter),
        "deepest_bay": _ratio(hull["deepest_bay"], diameter),
        "mean_bay": _ratio(hull["mean_bay"], diameter),
    }

    radius = np.linalg.norm(contours - center[:, None], axis=2)
    mean, sd, skewness, kurtosis = _statistics(radius)
    columns |= {
        "radius_mean": _ratio(mean, diameter),
        "radius_sd": _ratio(sd, mean),
        "radius_skewness": skewness,
        "radius_kurtosis": kurtosis,
        "radius_min": _ratio(radius.min(axis=1), diameter),
        "radius_max": _ratio(radius.max(axis=1), diameter),
    }
    # Every k-th cyclic diagonal of the distance matrix, whole: a part of the points would depend on the start.
    half = contours.shape[1] // 2
    chords = [np.roll(contours, -k, axis=1) - contours for k in range(1, half + 1, -(-half // 16))]
    chords = np.concatenate([np.hypot(chord[..., 0], chord[..., 1]) for chord in chords], axis=1)
    mean, sd, skewness, _ = _statistics(chords)
    columns |= {"chord_sd": _ratio(sd, mean), "chord_skewness": skewness}

    z = _complex(contours - center[:, None])
    c11, c20 = np.real(_moment(z, z.conj())), _moment(z, z)
    c12, c30 = _moment(z, z.conj(), z.conj()), _moment(z, z, z)
    # Variances along the principal axes: (c11 +- |c20|) / 2 over the area.
    major, minor = (_ratio(np.maximum(c11 + sign * np.abs(c20), 0) / 2, area) for sign in (1, -1))
    columns |= {
        "eccentricity": np.sqrt(np.maximum(1 - _ratio(minor, major), 0) * (major > 0)),
        "axis_ratio": np.sqrt(_ratio(minor, major)),
        "inertia": _ratio(2 * np.pi * c11, area**2),
        "ellipticity": _ratio(area, 4 * np.pi * np.sqrt(major * minor)),
        "moment_12": np.cbrt(_ratio(np.abs(c12), area**2.5)),
        "moment_30": np.cbrt(_ratio(np.abs(c30), area**2.5)),
        "moment_20_12": _signed_power(_ratio(np.real(c20 * c12**2), area**7), 1 / 8),
        "moment_30_12": _signed_power(_ratio(np.real(c30 * c12**3), area**10), 1 / 12),
    }
    columns |= _curvature_columns(z) | _symmetry_columns(z)
    columns |= {
        "area_px2": area,
        "perimeter_px": perimeter,
        "equivalent_diameter_px": diameter,
        "major_axis_px": 4 * np.sqrt(major),
        "minor_axis_px": 4 * np.sqrt(minor),
        "feret_max_px": hull["feret_max"],
        "feret_min_px": hull["feret_min"],
        "hull_area_px2": hull["area"],
        "hull_perimeter_px": hull["perimeter"],
        "rms_chord_px": np.sqrt(2 * contours.var(axis=1).sum(axis=1)),
    }
    return columns


def _hull_columns(contours: np.ndarray, center: np.ndarray) -> dict[str, np.ndarray]:
    """What comes from the convex hull of each outline; lengths in px."""
    names = ("area", "perimeter", "feret_max", "feret_min", "rectangle_area", "rectangle_aspect", "offset")
    names = (*names, "deepest_bay", "mean_bay")
    local = contours - center[:, None]
    spread, axes = np.linalg.eigh(np.swapaxes(local, 1, 2) @ local)
    table = np.zeros((len(contours), len(names)))
    for row, points in enumerate(local):
        if spread[row, 0] > 1e-12 * spread[row, 1]:
            table[row] = _hull_of(points)
        else:  # Qhull refuses points on a line, thinner than 1 : 1e6; along it, the outline goes there and back
            length = np.ptp(points @ axes[row, :, 1])
            table[row, 1:3] = 2 * length, length
    return dict(zip(names, table.T, strict=True))


def _hull_of(points: np.ndarray) -> tuple[float, ...]:
    """The columns of one outline, its centroid at the origin."""
    hull = scipy.spatial.ConvexHull(points)
    corners, normals, offsets = hull.points[hull.vertices], hull.equations[:, :2], hull.equations[:, 2]
    tangents = normals[:, ::-1] * (-1.0, 1.0)
    width, extent = np.ptp(corners @ normals.T, axis=0), np.ptp(corners @ tangents.T, axis=0)
    rectangle = np.argmin(width * extent)
    short, long = sorted((width[rectangle], extent[rectangle]))
    apart = corners[:, None] - corners
    # Inside of a convex polygon the nearest boundary is the nearest edge's line.
    bay = np.maximum(-(points @ normals.T + offsets).max(axis=1), 0)
    following = np.roll(corners, -1, axis=0)
    cross = corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]
    offset = cross @ (corners + following) / (3 * cross.sum())
    area, perimeter = hull.volume, hull.area  # as qhull calls them in two dimensions
    return (
        area,
        perimeter,
        np.sqrt(np.square(apart).sum(axis=2).max()),
        width.min(),
        short * long,
        short / long,
        np.hypot(*offset),
        bay.max(),
        bay.mean(),
    )


def _curvature_columns(z: np.ndarray) -> dict[str, np.ndarray]:
    """Of the smoothed outline z(t), t in [0, 1): dz and ddz are its derivatives with respect to t."""
    num_points = z.shape[1]
    frequency = 2 * np.pi * np.fft.fftfreq(num_points, 1 / num_points)
    smooth = np.fft.fft(z, axis=1) * np.exp(-0.5 * np.square(frequency * CURVATURE_SMOOTHING))
    dz, ddz = np.fft.ifft(1j * frequency * smooth, axis=1), np.fft.ifft(-np.square(frequency) * smooth, axis=1)
    speed = np.abs(dz)
    length = speed.mean(axis=1)
    # Where a line turns back on itself the speed vanishes and the curvature is infinite; a hundredth of the mean speed
    # keeps it finite.
    speed = np.maximum(speed, 0.01 * length[:, None])
    turning = _ratio(np.imag(dz.conj() * ddz), speed**2)  # of the tangent, radian per t; curvature times speed
    # Rounding may leave straight stretches on either side of 0.
    concave = turning < -1e-6
    return {
        "bending_energy": _ratio((np.square(turning) * _ratio(1.0, speed)).mean(axis=1) * length, 4 * np.pi**2),
        "total_curvature": np.abs(turning).mean(axis=1) / (2 * np.pi),
        "concave_share": _ratio((speed * concave).mean(axis=1), speed.mean(axis=1)),
        "concavities": (concave & ~np.roll(concave, 1, axis=1)).sum(axis=1).astype(np.float64),
    }


def _symmetry_columns(z: np.ndarray) -> dict[str, np.ndarray]:
    """An outline that a rotation by 1 / m of a turn maps onto itself has the frequencies k = 1 modulo m only."""
    energy = np.square(np.abs(np.fft.fft(z, axis=1)))
    frequency = np.round(np.fft.fftfreq(z.shape[1], 1 / z.shape[1])).astype(int)
    total = energy[:, frequency != 0].sum(axis=1)
    return {
        f"{name}_asymmetry": _ratio(energy[:, (frequency != 0) & (frequency % fold != 1)].sum(axis=1), total)
        for name, fold in (("twofold", 2), ("threefold", 3))
    }


def _moment(*factors: np.ndarray) -> np.ndarray:
    """Integral over the enclosed area of a product of two or three functions that are linear in the position.

    Exact, over the triangles between the origin and each edge: with the values u at its two ends, and c twice the
    triangle's signed area, c / 24 (U V + sum u v), and c / 60 (U V W + 2 sum u v w), where capitals are sums over both
    ends. Positive for clockwise outlines.

    Args:
        *factors: [N, P] complex, the values at the points: the position itself, or its conjugate. The first one is the
            position.

    Returns:
        [N] complex.
    """
    following = [np.roll(factor, -1, axis=1) for factor in factors]
    position, next_position = factors[0], following[0]
    cross = np.imag(position.conj() * next_position)
    sums = np.prod([here + there for here, there in zip(factors, following, strict=True)], axis=0)
    ends = np.prod(factors, axis=0) + np.prod(following, axis=0)
    weight, share = {2: (24, 1), 3: (60, 2)}[len(factors)]
    return (cross * (sums + share * ends)).sum(axis=1) / weight


def _kuhl_giardina(contours: np.ndarray, order: int) -> np.ndarray:
    """[n, P, 2] -> [n, order, 4], not normalized."""
    step = np.roll(contours, -1, axis=1) - contours
    duration = np.linalg.norm(step, axis=2)
    slope = _ratio(step, duration[..., None])  # repeated points take no time
    time = np.concatenate([np.zeros((len(contours), 1)), np.cumsum(duration, axis=1)], axis=1)
    total = time[:, -1:]
    turn = np.exp(2j * np.pi * _ratio(time, total))
    power = np.ones_like(turn)
    coefficients = np.empty((len(contours), order, 4))
    for n in range(1, order + 1):
        power = power * turn
        change = np.diff(power, axis=1)
        sums = np.einsum("np,npc->nc", change, slope) * total / (2 * n**2 * np.pi**2)
        coefficients[:, n - 1] = np.stack([sums[:, 0].real, sums[:, 0].imag, sums[:, 1].real, sums[:, 1].imag], axis=1)
    return coefficients


def _normalize_elliptic(coefficients: np.ndarray) -> np.ndarray:
    harmonic = np.arange(1, coefficients.shape[1] + 1)
    a, b, c, d = coefficients[:, 0].T
    start = 0.5 * np.arctan2(2 * (a * b + c * d), a**2 - b**2 + c**2 - d**2)
    matrices = coefficients.reshape(*coefficients.shape[:2], 2, 2)
    matrices = matrices @ _rotation(harmonic * start[:, None])
    axis = np.arctan2(matrices[:, 0, 1, 0], matrices[:, 0, 0, 0])
    axis = np.where(axis < 0, axis + np.pi, axis)
    matrices = np.swapaxes(_rotation(axis), -1, -2)[:, None] @ matrices
    matrices[np.linalg.det(matrices[:, 0]) < 0, :, :, 1] *= -1
    return _ratio(matrices.reshape(coefficients.shape), np.abs(matrices[:, :1, :1, 0]))


def _rotation(angle: np.ndarray) -> np.ndarray:
    """[...] -> [..., 2, 2]."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)


def _statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation, skewness and kurtosis of rows; the last two are 0 where there is no deviation."""
    mean = values.mean(axis=1)
    centered = values - mean[:, None]
    squared = np.square(centered)  # products: powers are ten times slower
    variance = squared.mean(axis=1)
    # Rounding alone, as of the radii of a circle, has no skewness.
    variance = np.where(variance <= 1e-20 * np.square(mean), 0, variance)
    return (
        mean,
        np.sqrt(variance),
        _ratio((squared * centered).mean(axis=1), variance**1.5),
        _ratio(np.square(squared).mean(axis=1), np.square(variance)),
    )


def _ratio(numerator: typing.Any, denominator: typing.Any) -> np.ndarray:
    """0 where the denominator is 0."""
    defined = denominator != 0
    return np.where(defined, numerator / np.where(defined, denominator, 1), 0)


def _signed_power(values: np.ndarray, exponent: float) -> np.ndarray:
    return np.sign(values) * np.abs(values) ** exponent


def _complex(points: np.ndarray) -> np.ndarray:
    """Column + i row: an outline that is clockwise on the screen turns in the positive sense."""
    return points[..., 1] + 1j * points[..., 0]


def _parts(contours: np.ndarray) -> list[slice]:
    size = max(1, _POINTS_PER_PART // contours.shape[1])
    return [slice(begin, begin + size) for begin in range(0, len(contours), size)]


def _check(contours: np.ndarray) -> np.ndarray:
    contours = np.asarray(contours, np.float64)
    if contours.ndim != 3 or contours.shape[1] < 3 or contours.shape[2] != 2:
        raise ValueError(f"contours are [N, P, 2] with P >= 3, got {contours.shape}")
    if not np.isfinite(contours).all():
        raise ValueError("contours have coordinates that are not finite")
    return contours

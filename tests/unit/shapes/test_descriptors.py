import numpy as np
import pyefd
import pytest
import skimage.measure

from bie_jax.shapes import descriptors
from bie_jax.shapes.contour import masks_to_contours
from bie_jax.shapes.descriptors import (
    SHAPE_PROPERTIES,
    SIZE_PROPERTIES,
    elliptic_coefficients,
    elliptic_fourier,
    fourier_magnitudes,
    region_properties,
)
from bie_jax.shapes.distance_matrix import normalize_scale, pairwise_distances
from bie_jax.shapes.resample import resample_contour

ANGLE = 2 * np.pi * np.arange(256) / 256


def curve(radius: np.ndarray, angle: np.ndarray = ANGLE) -> np.ndarray:
    """[256, 2] of equal steps, from r(angle)."""
    return resample_contour(np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1), 256)


def one(points: np.ndarray) -> dict[str, float]:
    values, names = region_properties(points[None], size=True)
    return dict(zip(names, values[0], strict=True))


def rectangle(height: float, width: float) -> np.ndarray:
    return resample_contour(np.asarray([[0, 0], [0, width], [height, width], [height, 0]]), 256)


def with_other_poses(outlines: np.ndarray) -> dict[str, np.ndarray]:
    cosine, sine = np.cos(2.1), np.sin(2.1)
    return {
        "moved": outlines + np.asarray([300, -40]),
        "turned": outlines @ [[cosine, -sine], [sine, cosine]],
        "mirrored": np.concatenate([outlines[:, :1], outlines[:, :0:-1]], axis=1) * [1, -1],
        "started elsewhere": np.roll(outlines, 7, axis=1),
    }


def test_columns_have_names(outlines):
    assert len(SHAPE_PROPERTIES) >= 23
    for features, names in (
        (region_properties(outlines), SHAPE_PROPERTIES),
        (region_properties(outlines, size=True), SHAPE_PROPERTIES + SIZE_PROPERTIES),
    ):
        assert features.names == names
        assert features.values.shape == (len(outlines), len(names))
        assert features.values.dtype == np.float64
    assert elliptic_fourier(outlines, 2).names == ("efd_d1", "efd_a2", "efd_b2", "efd_c2", "efd_d2")
    assert fourier_magnitudes(outlines, 5).names == ("fourier_2", "fourier_-1", "fourier_3", "fourier_-2", "fourier_4")
    assert fourier_magnitudes(outlines).values.shape == (len(outlines), 40)


def test_region_properties_do_not_change_with_pose(outlines):
    expected = region_properties(outlines, size=True).values
    for name, other in with_other_poses(outlines).items():
        np.testing.assert_allclose(
            region_properties(other, size=True).values, expected, rtol=1e-7, atol=1e-7, err_msg=name
        )


def test_shape_properties_do_not_change_with_size(outlines):
    np.testing.assert_allclose(
        region_properties(outlines * 13).values, region_properties(outlines).values, rtol=1e-7, atol=1e-7
    )
    larger = one(outlines[0] * 3)
    for name, value in one(outlines[0]).items():
        if name in SIZE_PROPERTIES:
            assert larger[name] == pytest.approx(value * (9 if name.endswith("px2") else 3))


def test_a_circle_by_hand():
    found = one(10 * curve(np.ones(256)))
    ones = (
        "circularity axis_ratio inertia ellipticity solidity convexity hull_circularity feret_max feret_min feret_ratio"
    )
    for name in (*ones.split(), "bending_energy", "total_curvature"):
        assert found[name] == pytest.approx(1, abs=2e-3), name
    for name in (
        "hull_offset",
        "boundary_offset",
        "deepest_bay",
        "radius_sd",
        "moment_12",
        "twofold_asymmetry",
        "concavities",
    ):
        assert found[name] == pytest.approx(0, abs=1e-3), name
    assert found["rectangularity"] == pytest.approx(np.pi / 4, rel=1e-3)
    assert found["radius_mean"] == pytest.approx(0.5, rel=1e-3)
    assert found["area_px2"] == pytest.approx(100 * np.pi, rel=1e-3)
    assert found["perimeter_px"] == pytest.approx(20 * np.pi, rel=1e-3)
    assert found["major_axis_px"] == pytest.approx(20, rel=1e-3)
    assert found["rms_chord_px"] == pytest.approx(10 * np.sqrt(2), rel=1e-3)


def test_a_rectangle_by_hand():
    found = one(rectangle(20, 60))
    diameter = 2 * np.sqrt(1200 / np.pi)
    expected = {
        "circularity": 4 * np.pi * 1200 / 160**2,
        "axis_ratio": 1 / 3,
        "eccentricity": np.sqrt(8 / 9),
        "inertia": 2 * np.pi * (20**2 + 60**2) / 12 / 1200,
        "ellipticity": 3 / np.pi,
        "solidity": 1,
        "rectangularity": 1,
        "rectangle_aspect": 1 / 3,
        "feret_max": np.hypot(20, 60) / diameter,
        "feret_min": 20 / diameter,
        "major_axis_px": 60 * 2 / np.sqrt(3),
        "radius_min": 10 / diameter,
        "twofold_asymmetry": 0,
        "total_curvature": 1,
        "concave_share": 0,
        "concavities": 0,
        "area_px2": 1200,
        "hull_perimeter_px": 160,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name


def test_a_notch_by_hand():
    corners = [[0, 0], [0, 40], [40, 40], [40, 22], [10, 22], [10, 18], [40, 18], [40, 0]]
    found = one(resample_contour(np.asarray(corners), 2048))
    area = 1600 - 120
    assert found["solidity"] == pytest.approx(area / 1600, rel=1e-3)
    assert found["deepest_bay"] == pytest.approx(18 / (2 * np.sqrt(area / np.pi)), rel=1e-2)  # to the nearest side
    assert found["concavities"] == 1
    center = (1600 * 20 - 120 * 25) / area
    assert found["hull_offset"] == pytest.approx((20 - center) / (2 * np.sqrt(area / np.pi)), rel=1e-2)
    assert found["convexity"] == pytest.approx(160 / 220, rel=1e-3)


def test_symmetry_and_lobes():
    threefold, fivefold = one(curve(1 + 0.3 * np.cos(3 * ANGLE))), one(curve(1 + 0.3 * np.cos(5 * ANGLE)))
    assert threefold["threefold_asymmetry"] < 1e-3 < 0.01 < threefold["twofold_asymmetry"]
    assert threefold["concavities"] == 3
    assert fivefold["concavities"] == 5
    assert threefold["moment_30"] > 0.1 > 0.01 > threefold["moment_12"]


def test_moments_equal_those_of_pixels():
    angle = 2 * np.pi * np.arange(2000) / 2000
    radius = 70 * (1 + 0.3 * np.cos(angle + 1) + 0.2 * np.cos(2 * angle) + 0.15 * np.cos(3 * angle - 2))
    row, column = np.mgrid[:320, :320] - 160.0
    mask = np.hypot(row, column) <= np.interp(np.arctan2(row, column), angle - np.pi, np.roll(radius, 1000))
    found = one(masks_to_contours(mask[None], 1024)[0])
    pixels = skimage.measure.regionprops(mask.astype(int))[0]
    z = column[mask] + 1j * row[mask]
    z = z - z.mean()
    area = float(mask.sum())
    c20, c12, c30 = (z**2).sum(), (z * z.conj() ** 2).sum(), (z**3).sum()
    expected = {
        "area_px2": pixels.area,
        "eccentricity": pixels.eccentricity,
        "axis_ratio": pixels.axis_minor_length / pixels.axis_major_length,
        "solidity": pixels.solidity,
        "inertia": 2 * np.pi * (np.abs(z) ** 2).sum() / area**2,
        "moment_12": np.cbrt(np.abs(c12) / area**2.5),
        "moment_30": np.cbrt(np.abs(c30) / area**2.5),
        "moment_20_12": np.sign((c20 * c12**2).real) * np.abs((c20 * c12**2).real / area**7) ** (1 / 8),
        "moment_30_12": np.sign((c30 * c12**3).real) * np.abs((c30 * c12**3).real / area**10) ** (1 / 12),
        "feret_max_px": pixels.feret_diameter_max,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.02), name


def test_statistics_of_the_outline(outlines):
    found = region_properties(outlines, size=True)
    column = dict(zip(found.names, found.values.T, strict=True))
    d = pairwise_distances(outlines)
    np.testing.assert_allclose(column["rms_chord_px"], normalize_scale(d)[1])
    offsets = range(1, 25, 2)
    chords = np.stack([np.concatenate([np.diagonal(np.roll(one, -k, axis=1)) for k in offsets]) for one in d])
    np.testing.assert_allclose(column["chord_sd"], chords.std(axis=1) / chords.mean(axis=1), rtol=1e-6)
    centered = chords - chords.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        column["chord_skewness"], (centered**3).mean(axis=1) / chords.std(axis=1) ** 3, rtol=1e-6
    )


def test_rectangles_and_widths_equal_a_sweep_over_angles(outlines):
    found = region_properties(outlines, size=True)
    column = dict(zip(found.names, found.values.T, strict=True))
    angle = np.linspace(0, np.pi / 2, 3000)
    axes = np.stack([np.cos(angle), np.sin(angle)]), np.stack([-np.sin(angle), np.cos(angle)])
    first, second = (np.ptp(outlines @ axis, axis=1) for axis in axes)
    np.testing.assert_allclose(column["rectangularity"], column["area_px2"] / (first * second).min(axis=1), rtol=2e-3)
    widths = np.concatenate([first, second], axis=1)
    np.testing.assert_allclose(column["feret_min_px"], widths.min(axis=1), rtol=2e-3)
    np.testing.assert_allclose(column["feret_max_px"], widths.max(axis=1), rtol=1e-5)


@pytest.mark.filterwarnings("error")
def test_degenerate_outlines_have_finite_features():
    line = resample_contour(np.asarray([[0, 0], [3, 7], [0, 0]], float), 64)
    odd = resample_contour(np.asarray([[0, 0], [3, 7], [0, 0]], float), 65)[:64]
    place = np.ones((64, 2))
    eight = resample_contour(np.asarray([[0, 0], [4, 4], [0, 4], [4, 0]], float), 64)
    pixel = resample_contour(np.asarray([[1.5, 3], [2, 3.5], [2.5, 3], [2, 2.5]]), 64)
    contours = np.stack([line, odd, place, eight, pixel])
    for features in (
        region_properties(contours, size=True),
        elliptic_fourier(contours),
        fourier_magnitudes(contours),
    ):
        assert np.isfinite(features.values).all()
    assert one(line)["feret_max_px"] == pytest.approx(np.hypot(3, 7))
    assert max(one(line)["total_curvature"], one(line)["bending_energy"]) < 1
    assert one(line)["circularity"] == one(line)["feret_max"] == 0


def test_elliptic_coefficients_equal_pyefd(outlines):
    for normalize in (False, True):
        expected = [pyefd.elliptic_fourier_descriptors(points, 7, normalize=normalize) for points in outlines]
        np.testing.assert_allclose(elliptic_coefficients(outlines, 7, normalize=normalize), expected, atol=1e-9)
    # Points that repeat take no time.
    repeated = np.repeat(outlines, 2, axis=1)
    np.testing.assert_allclose(
        elliptic_coefficients(repeated, 7, normalize=True),
        elliptic_coefficients(outlines, 7, normalize=True),
        atol=1e-9,
    )


def test_elliptic_fourier_settles_two_signs(outlines):
    found = elliptic_fourier(outlines, 7).values
    pyefds = elliptic_coefficients(outlines, 7, normalize=True).reshape(-1, 28)
    np.testing.assert_allclose(np.abs(pyefds[:, :3]), np.broadcast_to([[1, 0, 0]], (len(outlines), 3)), atol=1e-9)
    np.testing.assert_allclose(np.abs(found), np.abs(pyefds[:, 3:]))
    harmonic = np.repeat(np.arange(1, 8), 4)[3:]
    assert (found[:, 0] > 0).all()
    letter = np.tile(np.arange(4), 7)[3:]
    assert (found[:, (letter == 0) & (harmonic % 2 == 0)].sum(axis=1) >= 0).all()


def test_elliptic_fourier_does_not_change_with_pose_and_size(outlines):
    expected = elliptic_fourier(outlines).values
    backwards = np.concatenate([outlines[:, :1], outlines[:, :0:-1]], axis=1)
    poses = with_other_poses(outlines)
    mirrored = poses.pop("mirrored")
    for name, other in (poses | {"larger": outlines * 7, "backwards": backwards}).items():
        np.testing.assert_allclose(elliptic_fourier(other).values, expected, atol=1e-9, err_msg=name)
    assert (np.abs(elliptic_fourier(mirrored).values - expected).max(axis=1) > 1e-3).all()


def test_fourier_magnitudes_of_a_sum(outlines):
    found = fourier_magnitudes(outlines, 6).values
    z = outlines[..., 1] + 1j * outlines[..., 0]
    spectrum = {k: abs((z * np.exp(-2j * np.pi * k * np.arange(48) / 48)).sum(axis=1)) for k in range(-24, 24)}
    energy = np.sqrt(sum(spectrum[k] ** 2 for k in spectrum if k != 0))
    np.testing.assert_allclose(
        found, np.stack([spectrum[k] / energy for k in (2, -1, 3, -2, 4, -3)], axis=1), rtol=1e-8
    )


def test_fourier_magnitudes_do_not_change_with_pose_and_size(outlines):
    expected = fourier_magnitudes(outlines).values
    for name, other in (with_other_poses(outlines) | {"larger": outlines * 5}).items():
        np.testing.assert_allclose(fourier_magnitudes(other).values, expected, atol=1e-10, err_msg=name)


def test_parts_do_not_show(outlines, monkeypatch):
    calls = (
        lambda: region_properties(outlines, size=True).values,
        lambda: elliptic_fourier(outlines).values,
        lambda: fourier_magnitudes(outlines).values,
    )
    expected = [call() for call in calls]
    monkeypatch.setattr(descriptors, "_POINTS_PER_PART", 48 * 7)
    for call, values in zip(calls, expected, strict=True):
        np.testing.assert_allclose(call(), values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: region_properties(np.ones((5, 2))), r"\[N, P, 2\] with P >= 3, got \(5, 2\)"),
        (lambda: elliptic_fourier(np.ones((1, 2, 5))), r"got \(1, 2, 5\)"),
        (lambda: fourier_magnitudes(np.full((1, 5, 2), np.inf)), "not finite"),
        (lambda: elliptic_coefficients(np.ones((1, 5, 2)), 0, normalize=False), "order is 0"),
        (lambda: fourier_magnitudes(np.ones((1, 30, 2)), 40), "count is 40, must be 1 to 28 with 30 points"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()

import numpy as np
import pytest
import skimage.draw

from bie_jax.shapes.polygon import align, centroid, contour_to_mask, signed_area

CLOCKWISE = np.asarray([[0, 0], [0, 4], [2, 4], [2, 0]], float)  # (row, column): right, down, left


def test_signed_area_of_a_rectangle():
    assert signed_area(CLOCKWISE) == 8
    assert signed_area(CLOCKWISE[::-1]) == -8
    np.testing.assert_array_equal(signed_area(np.stack([CLOCKWISE + 1e9, 2 * CLOCKWISE])), [8, 32])


def test_centroid_is_that_of_the_area():
    # An L of three unit squares; the mean of its corners is elsewhere.
    corners = np.asarray([[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [2, 0]], float)
    expected = np.mean([[0.5, 0.5], [1.5, 0.5], [1.5, 1.5]], axis=0)
    np.testing.assert_allclose(centroid(corners), expected)
    np.testing.assert_allclose(centroid(corners[::-1] + 1e6), expected + 1e6)


def test_centroid_of_a_line_is_that_of_its_points():
    there_and_back = np.asarray([[0, 0], [1, 1], [2.0, 2.0], [1, 1]])
    np.testing.assert_allclose(centroid(there_and_back), [1, 1])
    np.testing.assert_allclose(centroid(np.ones((5, 2))), [1, 1])


def test_filling_takes_pixels_whose_center_is_inside():
    expected = np.zeros((4, 6), bool)
    expected[1:3, 1:5] = True
    np.testing.assert_array_equal(contour_to_mask(CLOCKWISE + 0.5, (4, 6)), expected)
    np.testing.assert_array_equal(
        contour_to_mask(CLOCKWISE - [1.5, 0.5], (4, 6)), skimage.draw.polygon2mask((4, 6), CLOCKWISE - [1.5, 0.5])
    )
    with pytest.raises(ValueError, match=r"\[P, 2\], got \(2, 4\)"):
        contour_to_mask(CLOCKWISE.T, (4, 6))


@pytest.mark.parametrize("mirrored", [False, True])
def test_align_undoes_a_movement(mirrored):
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(3, 9, 2))
    turn = np.asarray([[np.cos(2), -np.sin(2)], [np.sin(2), np.cos(2)]]) @ np.diag([1, -1 if mirrored else 1])
    moved = reference @ turn + [30, -7]
    np.testing.assert_allclose(align(moved, reference), reference, atol=1e-12)
    undone = np.abs(align(moved, reference, reflection=False) - reference).max()
    assert undone > 0.1 if mirrored else undone < 1e-12


def test_align_is_the_best_rotation():
    rng = np.random.default_rng(1)
    points, reference = rng.normal(size=(2, 7, 2))

    def error(angle, mirror):
        turn = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [1, mirror]
        moved = (points - points.mean(0)) @ turn + reference.mean(0)
        return np.square(moved - reference).sum()

    angles = np.linspace(0, 2 * np.pi, 2000)
    for reflection, mirrors in ((True, (1, -1)), (False, (1,))):
        best = min(error(angle, mirror) for angle in angles for mirror in mirrors)
        found = np.square(align(points, reference, reflection=reflection) - reference).sum()
        assert best - 1e-4 < found <= best + 1e-12
    with pytest.raises(ValueError, match="same"):
        align(points, reference[:-1])

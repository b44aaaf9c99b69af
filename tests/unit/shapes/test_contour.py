import numpy as np
import pytest
import scipy.ndimage
import skimage.measure

from bie_jax.shapes import contour
from bie_jax.shapes.contour import (
    label_image_to_contours,
    largest_object,
    mask_to_contour,
    masks_to_contours,
    objects,
    outer_boundary,
)
from bie_jax.shapes.distance_matrix import pairwise_distances
from bie_jax.shapes.mds import classical_mds
from bie_jax.shapes.polygon import align, contour_to_mask, signed_area
from bie_jax.shapes.resample import resample_contour

EIGHT = np.ones((3, 3))


def largest_component(mask: np.ndarray) -> np.ndarray:
    component, _ = scipy.ndimage.label(mask > mask.max() / 2, EIGHT)
    return component == 1 + np.argmax(np.bincount(component.ravel())[1:])


def marching_squares(mask: np.ndarray) -> np.ndarray:
    """The outline by scikit-image, clockwise, from its first point in reading order."""
    level = float(mask.max()) / 2
    # The other components are taken out, and nothing else: grey outside of the object stays for the interpolation.
    alone = np.where((mask > level) & ~largest_component(mask), 0.0, mask)
    padded = np.pad(alone, 1)
    outlines = skimage.measure.find_contours(padded, level, fully_connected="high")
    outline = max((o[:-1] - 1 for o in outlines), key=lambda o: abs(signed_area(o)))
    if signed_area(outline) < 0:
        outline = outline[::-1]
    row, column = np.argwhere(largest_component(mask))[0]
    # Straight above the first pixel's center, less than a pixel away.
    start = np.argmin(100 * np.abs(outline[:, 1] - column) + np.abs(outline[:, 0] - (row - 0.5)))
    return np.roll(outline, -int(start), axis=0)


def without_repeats(points: np.ndarray) -> np.ndarray:
    return points[(np.abs(points - np.roll(points, -1, axis=0)) > 1e-12).any(axis=1)]


@pytest.mark.parametrize("kind", ["binary", "grey"])
def test_boundary_is_that_of_scikit_image(blobs, kind):
    for blob in blobs:
        mask = (blob > blob.max() / 2) if kind == "binary" else blob
        np.testing.assert_allclose(outer_boundary(mask), marching_squares(mask), atol=1e-12)


@pytest.mark.parametrize("kind", ["binary", "grey"])
def test_boundary_of_digits_is_that_of_scikit_image(digits, kind):
    for digit in digits:
        mask = digit > 127 if kind == "binary" else digit
        np.testing.assert_allclose(
            without_repeats(outer_boundary(mask)), without_repeats(marching_squares(mask)), atol=1e-12
        )


def test_a_single_pixel_by_hand():
    mask = np.zeros((5, 7), bool)
    mask[2, 3] = True
    np.testing.assert_array_equal(outer_boundary(mask), [[1.5, 3], [2, 3.5], [2.5, 3], [2, 2.5]])
    np.testing.assert_allclose(mask_to_contour(mask, 8)[::2], outer_boundary(mask))


def test_turns_by_hand():
    # Joined at a corner only: one object, walked through the corner on either side of it.
    mask = np.eye(2, dtype=bool)
    expected = [[-0.5, 0], [0, 0.5], [0.5, 1], [1, 1.5], [1.5, 1], [1, 0.5], [0.5, 0], [0, -0.5]]
    np.testing.assert_array_equal(outer_boundary(mask), expected)


@pytest.mark.parametrize("method", ["linear", "spline", "ray"])
def test_outlines_are_clockwise_and_start_at_the_top(blobs, method):
    found = masks_to_contours(blobs, 40, method)
    assert found.shape == (len(blobs), 40, 2)
    assert found.dtype == np.float64
    assert (signed_area(found) > 0).all()
    for blob, points in zip(blobs, found, strict=True):
        row, column = np.argwhere(largest_component(blob))[0]
        assert points[0, 1] == pytest.approx(column)
        assert row - 1 < points[0, 0] <= row


def test_start_does_not_depend_on_the_rest_of_the_image(blobs):
    mask = blobs[3] > blobs[3].max() / 2
    moved = np.zeros((70, 80), bool)
    moved[21 : 21 + 24, 13 : 13 + 31] = mask
    moved[60:62, 3:5] = True
    np.testing.assert_allclose(mask_to_contour(moved), mask_to_contour(mask) + np.asarray([21, 13]))


def test_half_maximum_whatever_the_unit(blobs):
    mask = blobs[0] > blobs[0].max() / 2
    expected = mask_to_contour(mask)
    for same in (mask.astype(np.uint8), mask * np.uint8(255), mask * np.int64(7), mask * 0.3, mask * np.float32(1e-9)):
        np.testing.assert_allclose(mask_to_contour(same), expected, atol=1e-12)
    rng = np.random.default_rng(0)
    off_white = np.where(mask, rng.integers(250, 256, mask.shape), rng.integers(0, 5, mask.shape)).astype(np.uint8)
    np.testing.assert_allclose(mask_to_contour(off_white), expected, atol=0.05)


def test_area_of_a_grey_disc():
    row, column = np.mgrid[:64, :64]
    distance = np.hypot(row - 31.3, column - 30.8)
    disc = np.clip(20.5 - distance, 0, 1) * 255
    for mask in (disc, disc.astype(np.uint8)):
        assert signed_area(outer_boundary(mask)) == pytest.approx(np.pi * 20**2, rel=1e-3)


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_border_contact(dtype):
    full = np.ones((3, 5), dtype)
    points = outer_boundary(full)
    np.testing.assert_array_equal(points.min(axis=0), [-0.5, -0.5])
    np.testing.assert_array_equal(points.max(axis=0), [2.5, 4.5])
    assert len(points) == 16  # one for every side of a pixel at the edge


def test_holes_are_ignored():
    mask = np.zeros((12, 12), bool)
    mask[1:11, 2:10] = True
    expected = outer_boundary(mask)
    mask[3:6, 4:7] = False
    mask[7:9, 4:8] = False
    mask[8, 6] = True  # an island in a hole
    np.testing.assert_array_equal(outer_boundary(mask), expected)


def test_the_component_with_the_most_pixels():
    mask = np.zeros((20, 30), bool)
    mask[1:12, 1:12] = True
    mask[2:11, 2:11] = False  # 40 pixels around a hole
    mask[5:12, 20:26] = True  # 42 pixels
    mask[15, 2:20] = True
    alone = np.zeros_like(mask)
    alone[5:12, 20:26] = True
    np.testing.assert_array_equal(outer_boundary(mask), outer_boundary(alone))


def test_of_equals_the_first():
    mask = np.zeros((9, 9), bool)
    mask[5:7, 0:2] = mask[1:3, 6:8] = True
    assert outer_boundary(mask)[0].tolist() == [0.5, 6]


@pytest.mark.parametrize("line", [np.s_[3, 1:8], np.s_[1:8, 3], (np.arange(1, 8), np.arange(1, 8))])
@pytest.mark.parametrize("method", ["linear", "spline", "ray"])
def test_a_line_is_one_object(line, method):
    mask = np.zeros((9, 9), np.uint8)
    mask[line] = 1
    points = mask_to_contour(mask, 64, method)
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(contour_to_mask(outer_boundary(mask), mask.shape), mask)


def test_filling_an_outline_gives_the_mask_without_holes(blobs):
    for blob in blobs:
        expected = scipy.ndimage.binary_fill_holes(largest_component(blob))
        np.testing.assert_array_equal(contour_to_mask(outer_boundary(blob > blob.max() / 2), blob.shape), expected)


def test_a_resampled_outline_still_fills_the_mask(blobs):
    for blob in blobs:
        expected = scipy.ndimage.binary_fill_holes(largest_component(blob))
        found = contour_to_mask(mask_to_contour(blob > blob.max() / 2, 256), blob.shape)
        assert (found & expected).sum() / (found | expected).sum() > 0.97


def round_trip_error(points: np.ndarray) -> float:
    back = align(classical_mds(pairwise_distances(points)), points)
    return np.abs(back - points).max() / np.ptp(points, axis=-2).max()


def test_round_trip_by_way_of_the_matrix(blobs):
    assert round_trip_error(masks_to_contours(blobs, 64)) < 1e-10


def test_round_trip_of_digits_and_cells(digits, cells):
    assert round_trip_error(masks_to_contours(digits[:40], 64)) < 1e-10
    assert round_trip_error(np.stack([resample_contour(points, 64) for points in cells[::16][:40]])) < 1e-10


def test_a_batch_is_its_masks_one_by_one(blobs, monkeypatch):
    masks = (blobs * 255).astype(np.uint8)
    for method in ("linear", "spline", "ray"):
        one_by_one = np.stack([mask_to_contour(mask, 33, method) for mask in masks])
        np.testing.assert_allclose(masks_to_contours(masks, 33, method), one_by_one, atol=1e-9)
    for pixels in (1, 7 * 26 * 33):
        monkeypatch.setattr(contour, "_PIXELS_PER_PART", pixels)
        np.testing.assert_allclose(
            masks_to_contours(masks, 33), np.stack([mask_to_contour(m, 33) for m in masks]), atol=1e-9
        )
    assert masks_to_contours(masks[:0], 33).shape == (0, 33, 2)


def label_image() -> np.ndarray:
    image = np.zeros((30, 40), np.uint16)
    image[0:6, 0:9] = 7
    image[0:6, 9:15] = 3  # touches 7
    image[6:9, 4:12] = 40_000  # touches both
    image[12:25, 5:20] = 2
    image[15:20, 8:12] = 5  # inside of 2
    image[27:29, 1:4] = 9
    image[20:29, 30:40] = 9  # the larger of two parts, at the border
    image[11, 30] = image[12, 31] = 12  # joined at a corner
    return image


def test_objects_of_a_label_image():
    image = label_image()
    found = objects(image)
    assert [one.label for one in found] == [2, 3, 5, 7, 9, 12, 40_000]
    for one in found:
        (row, column), (height, width) = one.origin, one.mask.shape
        placed = np.zeros(image.shape, bool)
        placed[row : row + height, column : column + width] = one.mask
        np.testing.assert_array_equal(placed, image == one.label)
        assert one.mask.any(axis=1)[[0, -1]].all()
    assert objects(np.zeros((4, 4), int)) == []
    assert [one.label for one in objects(np.eye(4, dtype=bool))] == [1]
    assert [one.label for one in objects(np.full((2, 3), 6))] == [6]


@pytest.mark.parametrize("method", ["linear", "spline"])
def test_all_outlines_of_a_label_image_at_once(method):
    image = label_image()
    labels, points = label_image_to_contours(image, 50, method)
    np.testing.assert_array_equal(labels, [2, 3, 5, 7, 9, 12, 40_000])
    assert labels.dtype == image.dtype
    for label, outline in zip(labels, points, strict=True):
        np.testing.assert_allclose(outline, mask_to_contour(image == label, 50, method), atol=1e-9)
    for one, outline in zip(objects(image), points, strict=True):
        np.testing.assert_allclose(outline, mask_to_contour(one.mask, 50, method) + one.origin, atol=1e-9)
    assert label_image_to_contours(image * 0, 50)[1].shape == (0, 50, 2)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.stack([np.ones((4, 4)), np.zeros((4, 4)), np.zeros((4, 4))]), "mask 1 is empty: .* 2 of the masks 0 to 2"),
        (-np.ones((1, 4, 4)), "mask 0 is empty"),
        (np.full((1, 4, 4), np.nan), "not finite"),
        (np.ones((2, 3, 4, 3)), r"\[N, H, W\] numbers, got \(2, 3, 4, 3\)"),
        (np.full((1, 2, 2), "a"), "numbers, got .* <U1"),
        (np.ones((1, 0, 4)), "no pixel"),
    ],
)
def test_refused_masks(masks, message):
    with pytest.raises(ValueError, match=message):
        masks_to_contours(masks)


def test_number_of_an_empty_mask_in_a_later_part(monkeypatch):
    monkeypatch.setattr(contour, "_PIXELS_PER_PART", 36)
    masks = np.ones((5, 4, 4), bool)
    masks[3] = False
    with pytest.raises(ValueError, match="mask 3 is empty"):
        masks_to_contours(masks)


def test_other_refusals():
    mask = np.ones((4, 4), bool)
    with pytest.raises(ValueError, match=r"a mask is \[H, W\], got \(4, 4, 3\)"):
        mask_to_contour(np.ones((4, 4, 3)))
    with pytest.raises(ValueError, match=r"\[H, W\] numbers, got \(1, 4, 4\)"):
        outer_boundary(mask[None])
    for call in (lambda **k: mask_to_contour(mask, **k), lambda **k: label_image_to_contours(mask, **k)):
        with pytest.raises(ValueError, match="num_points is 2"):
            call(num_points=2)
        with pytest.raises(ValueError, match="'cubic'"):
            call(method="cubic")
    for image, message in ((mask * 0.5, "whole numbers"), (mask[0], "whole numbers"), (mask * -3, "negative value -3")):
        for function in (objects, label_image_to_contours):
            with pytest.raises(ValueError, match=message):
                function(image)


def test_the_largest_object_against_scikit_image(blobs):
    for blob in blobs:
        found = largest_object(blob)
        parts = skimage.measure.regionprops(skimage.measure.label(blob > blob.max() / 2))
        largest = max(parts, key=lambda part: part.area)
        assert (found.label, found.origin) == (1, largest.bbox[:2])
        np.testing.assert_array_equal(found.mask, largest.image)


def test_of_equal_objects_the_first_from_the_top_is_the_largest():
    mask = np.zeros((9, 9), np.uint8)
    mask[5:7, 0:2] = mask[2:4, 6:8] = 3
    assert largest_object(mask).origin == (2, 6)


@pytest.mark.parametrize(
    ("mask", "message"),
    [(np.zeros((4, 5)), "mask 0 is empty"), (np.zeros((2, 4, 5)), r"a mask is \[H, W\] numbers, got \(2, 4, 5\)")],
)
def test_no_largest_object(mask, message):
    with pytest.raises(ValueError, match=message):
        largest_object(mask)

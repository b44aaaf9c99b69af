"""No value becomes another one: every type of numpy, at its limits."""

import numpy as np
import pytest

from bie_jax.input.pixels import NonFiniteRowsError, as_pixels, check_finite_rows


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "g", "?"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_values_stay(dtype, order):
    values = np.array([0, 1, 100, 2000], np.float64)
    if dtype[-1] == "1":
        values = values.clip(max=100)
    given = values.astype(np.dtype(dtype).newbyteorder(order))
    got = as_pixels(given)
    assert got.dtype in (np.uint8, np.uint16, np.float32)
    assert got.dtype.isnative
    np.testing.assert_array_equal(got.astype(np.float64), given.astype(np.float64))


def test_whole_numbers_to_the_limit_of_single_precision():
    exact = np.array([[-(2**24)], [2**24]])
    np.testing.assert_array_equal(as_pixels(exact), exact)
    assert as_pixels([[1, 2], [3, 4]]).dtype == np.float32
    np.testing.assert_array_equal(as_pixels(np.array([[-1]], np.int8)), [[-1]])


RAGGED = [np.zeros((4, 4)), np.zeros((5, 4))]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.array([[0], [2**32 + 5]]), r"images \[1\] hold int64 values that float32 does not, e.g. 4294967301"),
        (np.array([[0], [2**24 + 1]], np.uint32), r"images \[1\] hold uint32 values"),
        (np.array([[2**63]], np.uint64), r"images \[0\] hold uint64 values"),
        (np.array([[-(2**63)]]), r"images \[0\] hold int64 values"),
        (np.array([[1.0], [1e300]]), r"images \[1\] hold float64 values that float32 does not, e.g. 1e\+300"),
        (np.array([[np.nan], [1], [np.inf]]), r"images \[0, 2\] hold NaN or infinity"),
        (np.full((12, 1), np.inf, np.float16), r"images \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\] and 2 more hold NaN"),
        (np.zeros((1, 2), complex), "images of complex128: expected whole numbers or floats"),
        (np.array([["a"]]), "images of <U1"),
        (np.array([[b"a"]]), "images of |S1"),
        (np.array([[1], [None]], object), r"images of objects \(are all images of one size\?\)"),
        (np.array(["2020"], "M8[Y]"), "images of datetime64"),
        (np.array([3], "m8[s]"), "images of timedelta64"),
        (RAGGED, "images of several sizes are no array, embed those of one size together"),
        (np.ma.array([[1], [2]], mask=[[False], [True]]), r"images \[1\] hold masked values; fill them"),
        (np.nan, r"images \[0\] hold NaN"),
    ],
)
def test_what_would_become_something_else_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        as_pixels(images)


def test_a_mask_that_masks_nothing_is_no_fault():
    np.testing.assert_array_equal(as_pixels(np.ma.array([[7]], mask=[[False]])), [[7]])


def test_rows_are_named():
    features = np.zeros((20, 3))
    check_finite_rows(features, "features")
    features[3, 1], features[7, 2] = np.nan, -np.inf
    with pytest.raises(NonFiniteRowsError, match=r"features: 2 of 20 rows hold NaN or infinity, rows 3, 7; "):
        check_finite_rows(features, "features")
    with pytest.raises(NonFiniteRowsError, match=r"rows 3 \(image 3\), 7 \(image 7\)"):
        check_finite_rows(features, "features", [f"image {row}" for row in range(20)])
    with pytest.raises(NonFiniteRowsError, match=r"9 \(9\) and 10 more; "):
        check_finite_rows(np.full((20, 1), np.nan), "features", range(20))

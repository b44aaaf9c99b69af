"""Arrays that come from outside, in a type that the device has: no value becomes another one on the way.

A device here knows whole numbers of 32 bits and floats of single precision. What does not fit into them would wrap
round, overflow or lose a part without a word.
"""

from typing import Any

import numpy as np

MOST_EXACT = 2**24  # whole numbers up to here are exact in single precision


def as_pixels(images: Any) -> np.ndarray:
    """Images in uint8, uint16 or float32, with the values that were given.

    Args:
        images: an array [N, ...], or anything that numpy makes one of: bool, whole numbers up to 2^24, floats whose
            size single precision has (their last digits are rounded to it). Of any byte order.

    Returns:
        The same values; uint8 and uint16 as they are.

    Raises:
        ValueError: for another type (complex, text, objects, dates), images of several sizes, masked values, NaN or
            infinity, and values that float32 does not hold; the images at fault are numbered.
    """
    if np.ma.isMaskedArray(images) and np.ma.getmaskarray(images).any():
        where = _numbers(np.ma.getmaskarray(images))
        raise ValueError(f"images {where} hold masked values; fill them (images.filled(...)) or leave the images out")
    try:
        array = np.asarray(images)
    except ValueError as error:  # of a list of images of several sizes
        raise ValueError(f"images of several sizes are no array, embed those of one size together: {error}") from None
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    kind = array.dtype.kind
    if kind not in "buif":
        what = "objects (are all images of one size?)" if kind == "O" else f"{array.dtype}"
        raise ValueError(f"images of {what}: expected whole numbers or floats, camera counts")
    if array.dtype in (np.uint8, np.uint16):
        return array
    if kind == "b":
        return array.astype(np.uint8)
    if kind == "f":
        if (bad := ~np.isfinite(array)).any():
            raise ValueError(f"images {_numbers(bad)} hold NaN or infinity")
        with np.errstate(over="ignore"):  # looked at below
            single = array.astype(np.float32, copy=False)
        bad = ~np.isfinite(single)
    else:
        single = array.astype(np.float32)
        bad = (array > MOST_EXACT) | (array < -MOST_EXACT)
    if bad.any():
        raise ValueError(
            f"images {_numbers(bad)} hold {array.dtype} values that float32 does not, e.g. {array[bad].flat[0]}; "
            "are they camera counts?"
        )
    return single


def check_finite_rows(features: np.ndarray, what: str, names: Any = None) -> None:
    """Raise `NonFiniteRowsError` for NaN or infinity in features [N, D].

    Args:
        features: of any float type.
        what: they are, for the message.
        names: of the N rows, beside their numbers; None: these have none.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        named = [f"{row} ({names[row]})" if names is not None else str(row) for row in bad[:10]]
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise NonFiniteRowsError(
            f"{what}: {len(bad)} of {len(features)} rows hold NaN or infinity, rows {', '.join(named)}{more}; "
            "the images' values may be far from those of training, or the network's weights no numbers"
        )


class NonFiniteRowsError(FloatingPointError, ValueError):
    """Features that are no numbers; the message names their rows."""


def _numbers(bad: np.ndarray) -> str:
    """Numbers of the images with a bad value: [0, 3]."""
    found = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1)) if bad.ndim else np.array([0])
    return f"{found[:10].tolist()}" + (f" and {len(found) - 10} more" if len(found) > 10 else "")

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from data.errors import BadInputError
from data.fields.index import PROJECTED, Field, assemble, planes_read, project, to_stored


@dataclasses.dataclass(frozen=True)
class _Given:
    pixels: np.ndarray
    source: str = "given"

    def identity(self):
        return self.source

    def read(self):
        return self.pixels


STACK = np.random.default_rng(0).integers(0, 60000, (2, 3, 2, 5, 4)).astype(np.uint16)  # [channel, z, t, H, W]


def _field(leave_out=()):
    planes = {
        ("ab"[c], z, t): _Given(STACK[c, z, t]) for c, z, t in np.ndindex(2, 3, 2) if ("ab"[c], z, t) not in leave_out
    }
    return Field("P", "B02", 1, planes)


def _images(field, z, t, channels=("a", "b")):
    return list(assemble(field, channels, z, t))


def test_projections_in_closed_form():
    stack = STACK[0, :, 0]
    np.testing.assert_array_equal(project(stack, "max"), [[max(stack[:, i, j]) for j in range(4)] for i in range(5)])
    np.testing.assert_array_equal(project(stack, "mean"), np.rint(stack.astype(float).mean(axis=0)))
    # 1, 2, 2 have the mean 5/3: the nearest number is 2, and no sum passes the type's end.
    np.testing.assert_array_equal(project(np.full((3, 1, 1), [[[1]], [[2]], [[2]]], np.uint8), "mean"), 2)
    np.testing.assert_array_equal(project(np.full((3, 2, 2), 65535, np.uint16), "mean"), 65535)


def test_the_sharpest_plane_is_the_one_in_focus():
    sharp = np.random.default_rng(1).integers(0, 60000, (40, 40)).astype(float)
    blurred = [ndimage.gaussian_filter(sharp, sigma).astype(np.uint16) for sigma in (3, 0.1, 1, 5)]
    np.testing.assert_array_equal(project(np.stack(blurred), "focus"), blurred[1])


def test_planes_and_times_are_chosen_projected_or_kept_apart():
    ((image, kept),) = _images(_field(), 2, 1)
    np.testing.assert_array_equal(image, np.moveaxis(STACK[:, 2, 1], 0, -1))
    assert kept == {}
    each = _images(_field(), "each", "each")
    assert [kept for _, kept in each] == [{"z": z, "t": t} for t in range(2) for z in range(3)]
    np.testing.assert_array_equal(each[4][0], np.moveaxis(STACK[:, 1, 1], 0, -1))
    by_time = _images(_field(), "max", "each", channels=("b",))
    np.testing.assert_array_equal(by_time[1][0][..., 0], STACK[1, :, 1].max(axis=0))
    ((both, _),) = _images(_field(), "max", "max")
    np.testing.assert_array_equal(both, np.moveaxis(STACK.max(axis=(1, 2)), 0, -1))


def test_a_projection_takes_what_there_is_and_the_microscopes_own_only_then():
    field = _field(leave_out=[("a", 2, 0), *(("b", z, 0) for z in range(3))])
    own = np.full((5, 4), 7, np.uint16)
    field.planes.update({("a", PROJECTED, 0): _Given(own + 65000), ("b", PROJECTED, 0): _Given(own)})
    ((image, _),) = _images(field, "max", 0)
    np.testing.assert_array_equal(image[..., 0], STACK[0, :2, 0].max(axis=0))
    np.testing.assert_array_equal(image[..., 1], 7)


def test_what_is_missing_is_named():
    with pytest.raises(BadInputError, match=r"its plane is missing.*site 1, channel b, z 1, t 1"):
        _images(_field(leave_out=[("b", 1, 1)]), 1, "each")
    with pytest.raises(BadInputError, match="there is no time point 5"):
        _images(_field(), 0, 5)


@pytest.mark.parametrize(
    ("pixels", "dtype"),
    [
        (np.array([[True, False]]), np.uint8),
        (np.array([[300, 65535]], ">u2"), np.uint16),
        (np.array([[-5, 1 << 24]], np.int32), np.float32),
        (np.array([[0.5, -1e30]], np.float64), np.float32),
    ],
)
def test_values_are_stored_as_they_are(pixels, dtype):
    stored = to_stored(pixels, "file", "place")
    assert stored.dtype == dtype
    assert stored.dtype.isnative
    np.testing.assert_allclose(stored.astype(float), pixels.astype(float), rtol=1e-7)


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.array([[(1 << 24) + 1]], np.int64), "over 2^24"),
        (np.array([[np.nan, np.inf]]), "2 pixels are NaN or infinite"),
        (np.array([[1e300]]), "beyond float32"),
        (np.array([[1j]]), "pixels of type complex"),
    ],
)
def test_what_cannot_be_stored_is_refused(pixels, problem):
    with pytest.raises(BadInputError) as caught, np.errstate(over="ignore"):
        to_stored(pixels, "file.tif", "well B02")
    assert problem in str(caught.value)
    assert "file.tif" in str(caught.value)


@dataclasses.dataclass(frozen=True)
class _Counted(_Given):
    read_names: list[str] = dataclasses.field(default_factory=list)

    def read(self):
        self.read_names.append(self.source)
        return self.pixels


@pytest.mark.parametrize("t", [0, 1, "max", "each"])
@pytest.mark.parametrize("z", [1, "max", "focus", "each"])
@pytest.mark.parametrize("projected", [False, True])
def test_the_planes_that_are_said_to_be_read_are_read(z, t, projected):
    """The microscope's own projection is read only where there are no steps."""
    if z == "each" and t == "max":
        return
    names = []
    planes = {("ab"[c], z_, t_): _Counted(STACK[c, z_, t_], f"{c}{z_}{t_}", names) for c, z_, t_ in np.ndindex(2, 3, 2)}
    planes |= {("c", z_, t_): _Counted(STACK[0, 0, 0], "c", names) for z_, t_ in np.ndindex(3, 2)}
    if projected:
        planes |= {(c, PROJECTED, t_): _Counted(STACK[0, 0, t_], f"{c}p{t_}", names) for c in "ab" for t_ in range(2)}
        if z in ("max", "focus"):  # a channel with nothing but projections
            planes = {key: plane for key, plane in planes.items() if key[0] != "b" or key[1] == PROJECTED}
    field = Field("P", "B02", 1, planes)
    _images(field, z, t)
    assert sorted(names) == sorted(plane.source for plane in planes_read(field, ("a", "b"), z, t))

from pathlib import Path

import numpy as np
import pytest

from data.errors import BadInputError, BuildError
from data.fields import plate_light
from data.fields.crops import Whole
from data.fields.illumination import Illumination, estimate_function
from data.fields.index import Field, Index
from data.fields.maker import FieldMaker


def _smoothed(line, sigma):
    """A line of pixels, smoothed by a Gaussian; at its ends it goes on as it is. Mean 1."""
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    smooth = np.convolve(np.pad(line, radius, mode="edge"), kernel / kernel.sum(), mode="valid")
    return smooth / smooth.mean()


def test_the_function_is_of_all_fields_and_of_each_channel_alone():
    # A dim channel that is lit on the left, and a bright one that is lit at the top.
    field = np.zeros((40, 60, 2))
    field[:, :10, 0], field[:8, :, 1] = 10, 5000
    function = estimate_function([field])
    assert function.dtype == np.float32
    sigma = 0.1 * 40
    across, down = (_smoothed(line, sigma) for line in (field[0, :, 0], field[:, 0, 1]))
    np.testing.assert_allclose(function[..., 0], np.tile(across, (40, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(function[..., 1], np.tile(down[:, None], (1, 60)), rtol=1e-4, atol=1e-6)
    negative = field.max(axis=(0, 1)) - field
    np.testing.assert_allclose(estimate_function([field, negative]), 1, atol=1e-6)
    twice = estimate_function([field, field, negative])[..., 0]
    np.testing.assert_allclose(twice, np.tile(_smoothed(10 + field[0, :, 0], sigma), (40, 1)), rtol=1e-5)


def test_a_saturated_pixel_in_a_dark_corner_stays_within_its_type(tmp_path):
    np.save(tmp_path / "f.npy", np.full((2, 2, 1), 0.8, np.float32))
    light = Illumination({"P": tmp_path / "f.npy"})
    image = np.full((2, 2, 1), 65000, np.uint16)
    np.testing.assert_array_equal(light.correct(image, "P", "file"), 65535)
    corrected = light.correct(np.full((2, 2, 1), 7, np.uint16), "P", "file")
    assert corrected.dtype == np.uint16
    np.testing.assert_array_equal(corrected, 9)  # 8.75
    with pytest.raises(BadInputError, match="file: the image is"):
        light.correct(image[:1], "P", "file")


def test_what_has_no_illumination():
    with pytest.raises(BuildError, match="no field of the plate"):
        estimate_function([])
    with pytest.raises(BuildError, match="no common illumination"):
        estimate_function([np.ones((2, 2, 1)), np.ones((3, 2, 1))])
    np.testing.assert_array_equal(estimate_function([np.zeros((4, 4, 1))]), 1)


def test_a_plate_has_the_light_of_the_first_process_to_finish_it(tmp_path, monkeypatch):
    """Another one, on other processors, may have corrected fields by what it found, if only in the last bit."""

    def estimate(images):
        (tmp_path / "illumination-0000.npy").write_bytes(b"the other's")
        return np.ones((2, 2, 1))

    monkeypatch.setattr(plate_light, "estimate_function", estimate)
    index = Index(("a",), (Field("P", "B02", 1, {}), Field("Q", "B02", 1, {})), {}, None, ())
    maker = FieldMaker(("a",), "max", "each", Whole(), "", illumination=None)
    light = plate_light.estimate_illumination(index, maker, tmp_path, 1, False, {"P"}, ".part-1")
    assert {path.name for path in tmp_path.iterdir()} == {"illumination-0000.npy"}
    assert Path(light.functions["P"]).read_bytes() == b"the other's"
    assert light.files().keys() == {"illumination-0000.npy", "illumination-0001.npy"}

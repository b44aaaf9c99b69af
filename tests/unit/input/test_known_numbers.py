"""Numbers beside an embedding, against formulas and the set's own columns."""

import dataclasses

import numpy as np
import pytest

from bie_jax.config.schema import ConfigError
from bie_jax.input.covariates import check_known, known_numbers
from bie_jax.input.image_set import open_image_set
from bie_jax.shapes.descriptors import SIZE_PROPERTIES
from data.records.writer import Description, write_set

HALF_AXES = ((20, 10), (8, 8))


@dataclasses.dataclass(frozen=True)
class _Ellipse:
    def identity(self, part):
        return repr(part)

    def examples(self, part):
        angle = 2 * np.pi * np.arange(512) / 512
        outline = 50 + np.stack([np.sin(angle), np.cos(angle)], axis=1) * HALF_AXES[part]
        row = {
            "plate": "p",
            "well": "",
            "site": part + 1,
            "label": "ab"[part],
            "source": "",
            "perimeter_px": part + 1.0,
        }
        yield outline.astype(np.float32)[..., None], row


@pytest.fixture(scope="module")
def ellipses(tmp_path_factory):
    """Two outlines; of their lengths the set has one itself, and has it wrong."""
    folder = tmp_path_factory.mktemp("known_numbers")
    description = Description(
        name="ellipses",
        version="1.0.0",
        kind="shapes",
        channel_names=("outline",),
        pixel_size_um=None,
        image_shape=(512, 2, 1),
        dtype="float32",
        columns={"plate": str, "well": str, "site": int, "label": str, "source": str, "perimeter_px": float},
        text="ellipses",
        simulated=True,
    )
    write_set(description, range(2), _Ellipse(), folder)
    return open_image_set("ellipses", folder)


def test_lengths_of_ellipses_in_the_order_asked_for(ellipses):
    numbers = known_numbers(ellipses, ("minor_axis_px", "site", "area_px2", "feret_max_px", "major_axis_px"))
    assert numbers.dtype == np.float32
    np.testing.assert_allclose(numbers, [[20, 1, np.pi * 200, 40, 40], [16, 2, np.pi * 64, 16, 16]], rtol=1e-3)


def test_a_column_of_the_set_comes_first(ellipses):
    np.testing.assert_array_equal(known_numbers(ellipses, ("perimeter_px",)), [[1], [2]])


def test_nothing_asked_for(ellipses):
    assert known_numbers(ellipses, ()).shape == (2, 0)


def test_what_is_not_known_is_refused_with_what_is(ellipses):
    check_known(ellipses, SIZE_PROPERTIES)
    with pytest.raises(
        ConfigError, match=r"\('label',\): 'label' is no number known of 'ellipses'; .* site, perimeter"
    ):
        check_known(ellipses, ("label",))
    with pytest.raises(
        ConfigError, match=r"'area_px2' is no number known of 'ellipses'; there are site, perimeter_px$"
    ):
        known_numbers(dataclasses.replace(ellipses, kind="images"), ("area_px2",))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([np.nan, 1.0], r"'area_px' is nan in row 0 of 'ellipses', and in 1 rows no number"),
        ([1.0, 1e300], r"'area_px' is 1e\+300 in row 1"),
        ([2**24 + 1, 2**62], r"'area_px' is 16777217 in row 0"),
    ],
)
def test_a_number_that_is_none_in_single_precision_is_refused(ellipses, values, said):
    changed = dataclasses.replace(ellipses, metadata=ellipses.metadata.assign(area_px=values))
    with pytest.raises(ConfigError, match=said):
        check_known(changed, ("area_px",))
    check_known(changed, ("perimeter_px",))

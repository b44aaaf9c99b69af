import numpy as np
import pytest

from bie_jax.evaluation.report.reconstructions import _scale_bar


@pytest.mark.parametrize(
    ("width", "pixel", "label"), [(128, 0.65, "20 µm"), (48, 0.5, "5 µm"), (1000, 1.0, "200 µm"), (64, None, "10 px")]
)
def test_scale_bar_is_round_and_short(width, pixel, label):
    length_px, text = _scale_bar(width, pixel)
    assert text == label
    assert 0.1 * width <= length_px <= 0.3 * width
    np.testing.assert_allclose(length_px * (pixel or 1), float(text.split()[0]))

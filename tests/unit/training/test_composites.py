import numpy as np

from bie_jax.training.writers.composites import channel_colors, composite


def test_composite_joins_scaled_channels_in_their_colors():
    images = np.array([[[[100, 0], [300, 50], [500, 100]]]], np.uint16)  # [1, 1, 3, 2]
    got = composite(images, np.array([100, 0]), np.array([500, 100]))
    colors = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in channel_colors(2)]
    for x, scaled in enumerate((0.0, 0.5, 1.0)):
        first, second = (1 - scaled * np.array(color) / 255 for color in colors)
        expected = 255 * (1 - first * second)
        np.testing.assert_allclose(got[0, 0, x], expected, atol=1)
    blank = composite(images, np.array([7, 7]), np.array([7, 7]))
    assert (blank == 0).all()
    assert channel_colors(1) == ["#ffffff"]

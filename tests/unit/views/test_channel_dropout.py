import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.views.channel_dropout import random_channel_dropout


@pytest.mark.parametrize(("channels", "rate"), [(1, 0.9), (2, 0.5), (3, 0.9), (12, 0.3)])
def test_channels_are_left_out_with_their_probability_but_never_all(channels, rate):
    image = jnp.ones((2000, 2, 2, channels))
    seen = np.asarray(random_channel_dropout(jax.random.key(0), image, jnp.ones((2000, 1, 1, channels), bool), rate))
    np.testing.assert_array_equal(seen, np.broadcast_to(seen[:, :1, :1], seen.shape))  # whole channels
    left = seen[:, 0, 0] == 0
    assert not left.all(axis=1).any()
    np.testing.assert_allclose(left.mean(axis=0), rate - rate**channels / channels, atol=0.05)


def test_what_is_left_in_is_a_channel_that_is_there():
    there = jnp.asarray([[True, False, True, False]] * 500)[:, None, None, :]
    image = jnp.where(there, jnp.ones((500, 3, 3, 4)), 0)
    seen = np.asarray(random_channel_dropout(jax.random.key(0), image, there, 0.99))
    assert (seen.sum(axis=(1, 2, 3)) > 0).all()


def test_an_image_without_any_channel_stays_empty():
    seen = random_channel_dropout(jax.random.key(0), jnp.zeros((4, 2, 2, 3)), jnp.zeros((4, 1, 1, 3), bool), 0.5)
    np.testing.assert_array_equal(seen, 0)

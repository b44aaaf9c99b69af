"""A loss that is no number is found one step later, or before anything is written."""

import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.training.finite import LossWatch, NonFiniteLossError

SOURCES = np.array([f"image {row}" for row in range(6)], dtype=object)


def test_the_step_before_is_looked_at_and_named(tmp_path):
    watch = LossWatch(SOURCES, tmp_path)
    watch.follow(1, np.array([0, 1]), jnp.float32(2.0), saved_step=0)
    watch.follow(2, np.array([4, 2]), jnp.float32(np.nan), saved_step=0)
    with pytest.raises(
        NonFiniteLossError, match=r"loss of step 2 is nan; checkpoints up to step 1 .*: image 4, image 2$"
    ):
        watch.follow(3, np.array([3]), jnp.float32(1.0), saved_step=1)


@pytest.mark.parametrize("loss", [np.inf, -np.inf, np.nan])
def test_settling_looks_at_the_last_step(loss, tmp_path):
    watch = LossWatch(SOURCES, tmp_path)
    watch.settle(0)  # of nothing
    watch.follow(7, np.array([5]), jnp.float32(loss), saved_step=4)
    with pytest.raises(NonFiniteLossError, match=r"step 7 .* up to step 4 .*: image 5$"):
        watch.settle(4)


def test_a_sound_loss_is_settled_once(tmp_path):
    watch = LossWatch(SOURCES, tmp_path)
    watch.follow(1, np.array([0]), jnp.float32(1.0), saved_step=0)
    watch.settle(0)
    watch.settle(0)

import jax.numpy as jnp
import numpy as np

from bie_jax.models.quantizers.microbatches import accumulate


def test_accumulated_calls_are_one_update():
    pending = {"sums": jnp.zeros(2)}
    total, pending, due = accumulate(pending, {"sums": jnp.asarray([1.0, 2])}, jnp.int32(4), 2)
    assert not due
    total, pending, due = accumulate(pending, {"sums": jnp.asarray([10.0, 20])}, jnp.int32(5), 2)
    assert due
    np.testing.assert_array_equal(total["sums"], [11, 22])
    np.testing.assert_array_equal(pending["sums"], [0, 0])

import jax.numpy as jnp
import numpy as np

from bie_jax.models.quantizers.restart import plan_restart

RNG = np.random.default_rng(0)


def test_a_restart_takes_other_vectors_every_time_and_the_same_again():
    counts, vectors = jnp.asarray([[6.0, 0.0, 0.1, 5.9]]), jnp.asarray(RNG.normal(size=(40, 1, 2)), jnp.float32)
    counted = jnp.ones(40).at[20:].set(0)
    plans = [plan_restart(counts, vectors, counted, jnp.int32(updates), 0.05) for updates in (0, 1, 0)]
    for plan in plans:
        np.testing.assert_array_equal(plan.dead, [[False, True, True, False]])
        np.testing.assert_allclose(plan.even_share, [[3.0]])
        assert {tuple(v) for v in np.asarray(plan.vectors[0])} <= {tuple(v) for v in np.asarray(vectors[:20, 0])}
    np.testing.assert_array_equal(plans[0].vectors, plans[2].vectors)
    assert (np.asarray(plans[0].vectors) != np.asarray(plans[1].vectors)).any()


def test_without_vectors_no_code_is_dead():
    plan = plan_restart(jnp.asarray([[9.0, 0.0]]), jnp.ones((5, 1, 2)), jnp.zeros(5), jnp.int32(0), 0.05)
    assert not np.asarray(plan.dead).any()

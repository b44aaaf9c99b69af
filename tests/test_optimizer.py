import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.optimizer import build_optimizer, build_schedule
from configs import vqvae_idr0093


def _config(**changes):
    config = vqvae_idr0093.get_config().optimizer
    config.update(changes)
    return config


def test_schedule_at_its_corners():
    config = _config(lr=1e-3, min_lr=1e-4, warmup_init_lr=1e-6, warmup_epochs=5)
    schedule = build_schedule(config, steps_per_epoch=10, epochs=100)
    np.testing.assert_allclose(schedule(0), 1e-6, rtol=1e-5)
    np.testing.assert_allclose(schedule(25), (1e-6 + 1e-3) / 2, rtol=1e-5)
    np.testing.assert_allclose(schedule(50), 1e-3, rtol=1e-5)
    half_way = 50 + 950 / 2
    np.testing.assert_allclose(schedule(half_way), (1e-3 + 1e-4) / 2, rtol=1e-5)
    for cooldown_step in (1000, 1050, 1100):
        np.testing.assert_allclose(schedule(cooldown_step), 1e-4, rtol=1e-5)


def _lamb_by_loop(param, gradients, schedule, weight_decay, clip_norm):
    """Algorithm 2 of You et al. with a clip of the global norm before it; one tensor, float64."""
    m, v = np.zeros_like(param), np.zeros_like(param)
    for t, g in enumerate(gradients):
        g = g * min(1.0, clip_norm / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
        update = m_hat / (np.sqrt(v_hat) + 1e-6) + weight_decay * param
        trust = np.linalg.norm(param) / np.linalg.norm(update)
        param = param - float(schedule(t)) * trust * update
    return param


def test_lamb_step_by_step():
    rng = np.random.default_rng(0)
    param, gradients = rng.normal(size=(4, 3)), rng.normal(size=(8, 4, 3)) * 3
    config = _config(name="lamb", lr=0.1, min_lr=0.01, warmup_epochs=1, weight_decay=0.05)
    tx, schedule = build_optimizer(config, steps_per_epoch=2, epochs=4)
    ours = jnp.asarray(param, jnp.float32)
    state = tx.init(ours)
    for g in gradients:
        update, state = tx.update(jnp.asarray(g, jnp.float32), state, ours)
        ours = ours + update
    expected = _lamb_by_loop(param, gradients, schedule, 0.05, config.clip_norm)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["lamb", "adamw"])
@pytest.mark.parametrize("lr", [1e-3, 3e-4])
def test_the_learning_rate_that_acts_is_the_one_asked_for(name, lr):
    """The predecessor overwrote the user's value with a default."""
    config = _config(name=name, lr=lr, warmup_epochs=0, weight_decay=0.0)
    tx, _ = build_optimizer(config, steps_per_epoch=10, epochs=10)
    param = jnp.full((4,), 0.5)  # norm 1
    update, _ = tx.update(jnp.full((4,), 0.1), tx.init(param), param)
    # Adam's first step has size 1 in every entry: norm 2; LAMB scales it to the parameter's norm, 1.
    np.testing.assert_allclose(jnp.linalg.norm(update), {"adamw": 2 * lr, "lamb": lr}[name], rtol=1e-3)

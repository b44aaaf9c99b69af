import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.models import build_model
from bie_jax.objectives import vqvae
from configs import vqvae_idr0093


class _Constant(nn.Module):
    """Reconstructs 0 and commits by the image's mean: everything about it is known."""

    @nn.compact
    def __call__(self, image, *, train):
        commitment = image.mean(axis=(1, 2, 3))
        out = {"commitment": commitment, "perplexity": jnp.ones(()), "code_counts": jnp.asarray([[2.0, 0.0]])}
        return jnp.zeros_like(image), out


def test_terms_are_weighted_means_over_images():
    image = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(np.float32)
    weight = np.asarray([[1, 1], [1, 1], [1, 1], [0, 0]], np.float32)
    loss, aux = vqvae(_Constant(), {}, {}, jnp.asarray(image), jnp.asarray(weight), train=False)
    recon = np.mean([np.square(x).mean() for x in image[:3]])
    vq = np.mean([x.mean() for x in image[:3]])
    np.testing.assert_allclose(aux.metrics["recon"], recon, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["vq"], vq, rtol=1e-5)
    np.testing.assert_allclose(loss, recon + vq, rtol=1e-5)
    np.testing.assert_array_equal(aux.codes_seen, [[True, False]])


def test_images_count_alike_however_many_channels_they_have():
    image = np.random.default_rng(0).normal(size=(2, 3, 3, 2)).astype(np.float32)
    weight = jnp.asarray([[1.0, 1.0], [1.0, 0.0]])
    _, aux = vqvae(_Constant(), {}, {}, jnp.asarray(image), weight, train=False)
    expected = (np.square(image[0]).mean() + np.square(image[1, ..., 0]).mean()) / 2
    np.testing.assert_allclose(aux.metrics["recon"], expected, rtol=1e-5)


def test_loss_and_gradient_do_not_depend_on_the_batch_size():
    """The predecessor's loss was 87, 661 and 5047 for 1, 8 and 64 copies of an image (PEERS B1.6)."""
    model = build_model(vqvae_idr0093.get_config("tiny").model, 2)
    image = jax.random.normal(jax.random.key(0), (1, 16, 16, 2))
    variables = dict(model.init(jax.random.key(1), image, train=False))
    params = variables.pop("params")

    def value(params, n):
        return vqvae(model, params, variables, jnp.repeat(image, n, axis=0), jnp.ones((n, 2)), train=True)[0]

    one = jax.value_and_grad(value)(params, 1)
    for n in (8, 64):
        many = jax.value_and_grad(value)(params, n)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, many)


def test_state_moves_only_in_training():
    model = build_model(vqvae_idr0093.get_config("tiny").model, 1)
    image = jax.random.normal(jax.random.key(0), (4, 16, 16, 1))
    variables = dict(model.init(jax.random.key(1), image, train=False))
    params = variables.pop("params")
    _, evaluated = vqvae(model, params, variables, image, jnp.ones((4, 1)), train=False)
    jax.tree.map(np.testing.assert_array_equal, evaluated.model_state, variables)
    _, trained = vqvae(model, params, variables, image, jnp.ones((4, 1)), train=True)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), trained.model_state, variables)
    assert any(jax.tree.leaves(moved))

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.bottlenecks.dense import DenseBottleneck
from bie_jax.models.bottlenecks.gaussian import GaussianBottleneck
from bie_jax.models.bottlenecks.quantized import GridBottleneck, PooledBottleneck
from bie_jax.models.layers.spread import Spread
from bie_jax.models.quantizers.finite_scalar import FiniteScalarQuantizer
from bie_jax.models.quantizers.gradient import GradientVectorQuantizer
from bie_jax.models.quantizers.residual import ResidualQuantizer
from bie_jax.models.quantizers.vector import VectorQuantizer

pytestmark = pytest.mark.slow

QUANTIZERS = {
    "averages": VectorQuantizer(6, 3),
    "groups": VectorQuantizer(6, 3, num_groups=2),
    "gradient": GradientVectorQuantizer(6, 3, num_groups=2),
    "residual": ResidualQuantizer(VectorQuantizer(6, 3), 2),
    "fsq": FiniteScalarQuantizer((3, 4)),
}
FEATURES = np.random.default_rng(0).normal(size=(4, 3, 5, 8)).astype(np.float32)
KEY = jax.random.key(0)


@partial(jax.jit, static_argnums=0)
def _initialized(bottleneck, features):
    return bottleneck.init({"params": KEY, "noise": KEY}, features, train=True)


@partial(jax.jit, static_argnums=0)
def _run(bottleneck, variables, features, valid=None):
    return bottleneck.apply(variables, features, valid, train=False)


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("kind", ["grid", "pooled"])
def test_shapes_of_every_quantizer(kind, name):
    quantizer = QUANTIZERS[name]
    groups, num_codes, dim = quantizer.num_codebooks, quantizer.num_codes, quantizer.vector_dim
    bottleneck = GridBottleneck(quantizer) if kind == "grid" else PooledBottleneck(quantizer, "dense", 7)

    def run(features):
        variables = bottleneck.init(KEY, features, train=True)
        return bottleneck.apply(variables, features, jnp.ones(4, bool), train=False)

    z, out = jax.eval_shape(run, FEATURES)
    assert z.shape == (4, 3, 5, dim if kind == "grid" else 7)
    assert {name: value.shape for name, value in out.items()} == {
        "embedding": (4, groups * num_codes if kind == "grid" else dim),
        "codes": (4, 3, 5, groups) if kind == "grid" else (4, groups),
        "commitment": (4,),
        "perplexity": (),
        "code_counts": (groups, num_codes),
    }


@pytest.mark.parametrize("spread", ["dense", "broadcast"])
@pytest.mark.parametrize("latent_dim", [1, 3, 16, 128, 2048])
def test_any_latent_size(latent_dim, spread):
    for bottleneck in (
        DenseBottleneck(latent_dim, spread, 7),
        GaussianBottleneck(latent_dim, spread, 7),
        PooledBottleneck(VectorQuantizer(4, 1, num_groups=latent_dim), spread, 7),
    ):

        def run(features, bottleneck=bottleneck):
            variables = bottleneck.init({"params": KEY, "noise": KEY}, features, train=True)
            return bottleneck.apply(variables, features, train=False)

        z, out = jax.eval_shape(run, FEATURES)
        assert z.shape == (4, 3, 5, 7)
        assert out["embedding"].shape == (4, latent_dim)


def test_a_grid_is_quantized_and_embedded_by_the_usage_of_its_codes():
    """Formed in numpy: projection, distances, softmax, mean over positions, root."""
    bottleneck = GridBottleneck(QUANTIZERS["groups"])
    variables = _initialized(bottleneck, FEATURES)
    z, out = _run(bottleneck, variables, FEATURES)
    projection = variables["params"]["Conv_0"]
    z_e = FEATURES @ np.asarray(projection["kernel"])[0, 0] + np.asarray(projection["bias"])
    codebook = np.asarray(variables["codebook"]["quantizer"]["codebook"])
    distances = np.square(z_e.reshape(4, 3, 5, 2, 1, 3) - codebook).sum(-1)  # [B, h, w, G, K]
    shares = np.exp(-distances / 4)
    shares = (shares / shares.sum(-1, keepdims=True)).mean(axis=(1, 2))
    np.testing.assert_allclose(out["embedding"], np.sqrt(shares).reshape(4, 12), rtol=1e-4)
    np.testing.assert_allclose(np.square(out["embedding"]).sum(axis=1), 2, rtol=1e-5)  # a histogram per codebook
    np.testing.assert_array_equal(out["codes"], distances.argmin(-1))
    np.testing.assert_allclose(out["commitment"], 0.25 * distances.min(-1).sum(-1).mean((1, 2)), rtol=1e-4)
    nearest = np.stack([codebook[g][distances.argmin(-1)[..., g]] for g in range(2)], axis=-2)
    np.testing.assert_array_equal(z, nearest.reshape(4, 3, 5, 6))


def test_the_gradient_of_an_embedding_is_finite_where_shares_underflow():
    bottleneck = GridBottleneck(QUANTIZERS["averages"])
    variables = _initialized(bottleneck, FEATURES)
    far = variables["codebook"]["quantizer"]["codebook"].at[0, 0].set(1e4)
    variables["codebook"]["quantizer"]["codebook"] = far
    loss = jax.jit(jax.grad(lambda x: bottleneck.apply(variables, x, train=False)[1]["embedding"].sum()))
    gradient = np.asarray(loss(FEATURES))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 1e-3


def test_a_pooled_vector_is_projected_embedded_quantized_and_spread():
    bottleneck = PooledBottleneck(QUANTIZERS["groups"], "dense", 7)
    variables = _initialized(bottleneck, FEATURES)
    z, out = _run(bottleneck, variables, FEATURES)
    dense, spread = variables["params"]["project"], variables["params"]["to_map"]["Dense_0"]
    z_e = FEATURES.mean(axis=(1, 2)) @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    np.testing.assert_allclose(out["embedding"], z_e, rtol=1e-4, atol=1e-5)
    codebook = np.asarray(variables["codebook"]["quantizer"]["codebook"])
    distances = np.square(z_e.reshape(4, 2, 1, 3) - codebook).sum(-1)
    np.testing.assert_array_equal(out["codes"], distances.argmin(-1))
    np.testing.assert_allclose(out["commitment"], 0.25 * distances.min(-1).sum(-1), rtol=1e-4)
    z_q = np.concatenate([codebook[g][out["codes"][:, g]] for g in range(2)], axis=-1)
    expected = (z_q @ np.asarray(spread["kernel"]) + np.asarray(spread["bias"])).reshape(4, 3, 5, 7)
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["grid", "pooled"])
def test_examples_that_are_not_valid_do_not_teach_the_codebook(kind):
    quantizer = QUANTIZERS["groups"]
    bottleneck = GridBottleneck(quantizer) if kind == "grid" else PooledBottleneck(quantizer, "dense", 7)
    variables = _initialized(bottleneck, FEATURES)
    valid = np.asarray([1, 0, 1, 1], bool)

    @jax.jit
    def train(features):
        (_, out), state = bottleneck.apply(variables, features, valid, train=True, mutable=["codebook"])
        return out, state["codebook"]["quantizer"]["codebook"]

    (out, codebook), (_, expected) = train(FEATURES), train(np.where(valid[:, None, None, None], FEATURES, 7.0))
    np.testing.assert_array_equal(codebook, expected)
    assert (np.asarray(codebook) != np.asarray(variables["codebook"]["quantizer"]["codebook"])).any()
    assert out["commitment"][1] == 0
    np.testing.assert_array_equal(out["code_counts"].sum(axis=1), [3 * 15 if kind == "grid" else 3] * 2)


def test_a_posterior_is_sampled_in_training_and_embedded_by_its_mean():
    bottleneck = GaussianBottleneck(2, "dense", 7)
    features = np.repeat(FEATURES[:1], 20_000, axis=0)[:, :1, :1]
    variables = _initialized(bottleneck, features[:1])
    mean, logvar = (
        features[0, 0, 0] @ np.asarray(variables["params"][name]["kernel"])
        + np.asarray(variables["params"][name]["bias"])
        for name in ("mean", "logvar")
    )

    @jax.jit
    def sample(key):
        z, out = bottleneck.apply(variables, features, train=True, rngs={"noise": key})
        return z[:, 0, 0], out

    z, out = sample(jax.random.key(1))
    np.testing.assert_allclose(out["embedding"][0], mean, rtol=1e-5)
    np.testing.assert_allclose(out["mean"][7], mean, rtol=1e-5)
    np.testing.assert_allclose(out["logvar"][7], logvar, rtol=1e-5)
    spread = variables["params"]["to_map"]["Dense_0"]
    latent = (np.asarray(z) - np.asarray(spread["bias"])) @ np.linalg.pinv(np.asarray(spread["kernel"]))
    # 20,000 draws: standard errors are 0.7 % of sd for the mean, 0.5 % for the sd.
    np.testing.assert_allclose(latent.mean(axis=0), mean, atol=0.03 * np.exp(logvar / 2).max())
    np.testing.assert_allclose(latent.std(axis=0), np.exp(logvar / 2), rtol=0.03)
    assert np.abs(np.corrcoef(latent.T)[0, 1]) < 0.03
    assert (np.asarray(sample(jax.random.key(2))[0]) != np.asarray(z)).any()
    at_mean, _ = _run(bottleneck, variables, features)
    expected = mean @ np.asarray(spread["kernel"]) + np.asarray(spread["bias"])
    np.testing.assert_allclose(at_mean[7, 0, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_broadcast_is_a_1x1_convolution_of_the_vector_and_its_place():
    spread = Spread("broadcast", 7)
    z = FEATURES[:, 0, 0, :2]
    variables = jax.jit(lambda z: spread.init(KEY, z, 3, 5))(z)
    ours = jax.jit(lambda z: spread.apply(variables, z, 3, 5))(z)
    params = variables["params"]
    kernel = np.concatenate([params["vector"]["kernel"], params["place"]["kernel"]])
    for b, i, j in np.ndindex(4, 3, 5):
        place = [(-2 / 3, 0, 2 / 3)[i], (-0.8, -0.4, 0, 0.4, 0.8)[j]]
        expected = np.concatenate([z[b], place]) @ kernel + np.asarray(params["vector"]["bias"])
        np.testing.assert_allclose(ours[b, i, j], expected, rtol=1e-4, atol=1e-5)


def test_a_broadcast_takes_any_size_and_is_nowhere_constant():
    spread = Spread("broadcast", 7)
    variables = jax.jit(lambda: spread.init(KEY, jnp.ones((1, 1)), 2, 2))()
    for height, width in ((1, 1), (2, 2), (4, 9)):
        out = np.asarray(jax.jit(lambda v: spread.apply(v, jnp.ones((1, 1)), height, width))(variables))  # noqa: B023
        assert out.shape == (1, height, width, 7)
        assert len(np.unique(out.reshape(-1, 7).round(6), axis=0)) == height * width


def test_a_dense_map_is_not_constant():
    out = np.asarray(
        _run(bottleneck := DenseBottleneck(1, "dense", 7), _initialized(bottleneck, FEATURES), FEATURES)[0]
    )
    assert len(np.unique(out[0].reshape(-1, 7).round(6), axis=0)) == 15

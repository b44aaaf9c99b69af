"""Each CPU form beside its plain twin, and whole networks of either."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.models.decoders import resnet as decoders_resnet
from bie_jax.models.encoders import resnet as encoders_resnet
from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.kernels.convolution import cpu_convolution, plain_convolution, product_over_patches
from bie_jax.models.kernels.product import cpu_product, plain_product
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.objectives import build_model
from bie_jax.shapes.distance_matrix import normalized_distances
from bie_jax.training.state import initial_variables
from configs import base

SAME = ((1, 1), (1, 1))
CASES = {
    "3x3": ((9, 12), (3, 3), 1, SAME),
    "strided": ((9, 12), (3, 3), 2, SAME),
    "strided, asymmetric padding": ((10, 13), (4, 3), 2, ((1, 1), (0, 2))),
    "stem": ((14, 17), (7, 7), 2, ((3, 3), (3, 3))),
    "halving": ((10, 12), (4, 4), 2, SAME),
    "1x1": ((9, 12), (1, 1), 1, ((0, 0), (0, 0))),
    "1x1 strided": ((9, 12), (1, 1), 2, ((0, 0), (0, 0))),
    "few positions": ((4, 4), (3, 3), 2, SAME),
}
# The gradient of a kernel has one form of few output channels, one of few input channels, one of more, and Winograd's.
CHANNELS = {"few out": (3, 5), "few in": (3, 17), "more": (18, 17), "many": (33, 34)}


def _value_and_gradients(form, *inputs):
    """Of a product of the output with fixed numbers."""

    def total(*inputs):
        y = form(*inputs)
        return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(*inputs)
    return y, gradients


def _assert_same(ours, expected, tolerance=1e-4):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 4, 6)])
def test_products_are_the_same_product(shape):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=shape).astype(np.float32), rng.normal(size=(6, 7)).astype(np.float32)
    _assert_same(_value_and_gradients(cpu_product, *inputs), _value_and_gradients(plain_product, *inputs))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("case", CASES)
def test_convolutions_are_the_same_convolution(case, channels):
    size, kernel_size, strides, padding = CASES[case]
    c_in, c_out = CHANNELS[channels]
    rng = np.random.default_rng(0)
    inputs = (
        rng.normal(size=(2, *size, c_in)).astype(np.float32),
        rng.normal(size=(*kernel_size, c_in, c_out)).astype(np.float32),
    )
    expected = _value_and_gradients(lambda x, kernel: plain_convolution(x, kernel, padding, strides), *inputs)
    ours = _value_and_gradients(lambda x, kernel: cpu_convolution(x, kernel, padding, strides), *inputs)
    _assert_same(ours, expected)
    if channels == "few in":  # a product knows no channels
        ours = _value_and_gradients(lambda x, kernel: product_over_patches(x, kernel, padding, strides), *inputs)
        _assert_same(ours, expected)


@pytest.mark.parametrize("channels", CHANNELS)
def test_convolutions_inside_a_loop_are_the_same_convolution(channels):
    c_in, c_out = CHANNELS[channels]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 9, 12, c_in)).astype(np.float32)
    kernels = rng.normal(size=(2, 3, 3, c_in, c_out)).astype(np.float32)

    def scanned(x, kernels):
        return jax.lax.scan(lambda _, kernel: (None, cpu_convolution(x, kernel, SAME, 1)), None, kernels)[1]

    def unrolled(x, kernels):
        return jnp.stack([plain_convolution(x, kernel, SAME, 1) for kernel in kernels])

    _assert_same(_value_and_gradients(scanned, x, kernels), _value_and_gradients(unrolled, x, kernels))


def _images(**model):
    config = base.get_config("tiny", "base")
    config.model.residual_stack.num_residual_layers = 2
    config.model.resnet.width = 4
    config.model.vit.update(size="Ti", patch_size=8, decoder_width=16, decoder_depth=1, decoder_heads=2)
    config.model.update(model)
    return config


def _outlines(**model):
    config = base.apply_shape_variant(base.get_shape_config(), "tiny", "base")
    config.data.crop_size = (32, 32)
    config.model.latent_dim = 16
    config.model.update(model)
    return config


NETWORKS = {
    "stack": _images(name="vqvae"),
    "stack, pooled": _images(name="vqvae", bottleneck="pooled"),
    "resnet 18": _images(name="vae", encoder="resnet", spread="broadcast"),
    "resnet 50": _images(name="ae", encoder="resnet", resnet={"depth": 50, "padding": "circular"}),
    "vit": _images(name="vae", encoder="vit"),
    "independent": _images(name="ae", channels="independent"),
    "mae": _images(name="mae", encoder="vit", channels="tokens"),
    "points": _outlines(name="ae", decoder="points"),
    "matrix": _outlines(name="ae", decoder="matrix"),
}


def _built(config, channels, *, cpu_kernels):
    config = ConfigDict(config.to_dict())
    config.model.cpu_kernels = cpu_kernels
    return build_model(check_config(config), channels)


def _example(name):
    if name not in ("points", "matrix"):
        return np.random.default_rng(0).normal(size=(2, 32, 32, 2)).astype(np.float32)
    angle = 2 * np.pi * np.arange(32) / 32
    radius = 1 + np.asarray([[0.3], [0.1]]) * np.cos(2 * angle + 1) + 0.2 * np.cos(3 * angle)
    outlines = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1)
    return normalized_distances(outlines)[0].astype(np.float32)[..., None]


def _outputs(model, image):
    """variables -> what is learned from, in training."""

    def function(variables):
        mutable = [name for name in variables if name != "params"]
        rngs = {"noise": jax.random.key(2)}
        (reconstruction, out), _ = model.apply(variables, image, train=True, rngs=rngs, mutable=mutable)
        return reconstruction, out["embedding"], out["features"]

    return function


@pytest.fixture
def _small(monkeypatch):
    """A ResNet of one narrow stage, a ViT of two narrow blocks."""
    for room in (encoders_resnet, decoders_resnet):
        monkeypatch.setattr(room, "STAGE_SIZES", {18: (3,), 50: (3,)})
    monkeypatch.setitem(SIZES, "Ti", ViTSize(16, 2, 2, 24))


def _shapes(model, image):
    return jax.eval_shape(lambda image: initial_variables(model, image, jax.random.key(1)), image)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_switch_reaches_every_layer(name):
    image = _example(name)
    taken = {}
    for cpu_kernels in (True, False):
        outputs = _outputs(model := _built(NETWORKS[name], image.shape[-1], cpu_kernels=cpu_kernels), image)
        program = str(jax.make_jaxpr(outputs)(_shapes(model, image)))
        taken[cpu_kernels] = program.count("=cpu_product") + program.count("=cpu_convolution")
    assert taken[True] > 0 == taken[False]


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("name", ["stack", "resnet 18", "vit", "matrix"])
def test_plain_networks_have_forward_derivatives_and_are_the_same_networks(name):
    """u . (J v) of the plain network, forward, is (u J) . v of that in CPU forms, backward."""
    image, rng = _example(name), np.random.default_rng(0)
    plain, fast = (_built(NETWORKS[name], image.shape[-1], cpu_kernels=form) for form in (False, True))

    def normal(tree, scale=1.0):
        return jax.tree.map(lambda leaf: (scale * rng.normal(size=leaf.shape)).astype(np.float32), tree)

    shapes = _shapes(plain, image)
    state = {key: jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes[key]) for key in shapes}
    params, tangent = normal(shapes["params"], 0.1), normal(shapes["params"], 0.1)
    cotangent = normal(jax.eval_shape(_outputs(plain, image), shapes))

    @jax.jit
    def derivatives(params):
        of_plain, of_fast = (
            lambda params, model=model: _outputs(model, image)(state | {"params": params}) for model in (plain, fast)
        )
        y, dy = jax.jvp(of_plain, (params,), (tangent,))
        fast_y, back = jax.vjp(of_fast, params)
        return y, fast_y, dy, _dot(tangent, back(cotangent)[0])

    y, fast_y, dy, backward = derivatives(params)
    _assert_same(fast_y, y)
    forward, scale = _dot(cotangent, dy), np.sqrt(_dot(cotangent, cotangent) * _dot(dy, dy))
    assert abs(forward) > 1e-4 * scale > 0
    np.testing.assert_allclose(backward, forward, atol=1e-4 * scale)


def _dot(a, b):
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), a, b)))

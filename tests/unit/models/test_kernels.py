"""Each CPU form beside its plain twin, and whole networks of either."""

import jax
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

pytestmark = pytest.mark.slow

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


def _numbers(y):
    return np.sin(np.arange(y.size, dtype=np.float32)).reshape(y.shape)


def _value_and_gradients(form, *inputs):
    """Of a product of the output with fixed numbers."""

    def total(*inputs):
        y = form(*inputs)
        return (y * _numbers(y)).sum(), y

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


def _convolve_by_taps(x, kernel, padding, strides):
    """The convolution, and how the output's gradient becomes that of both inputs; in float64."""
    (top, bottom), (left, right) = padding
    x, kernel = np.pad(np.float64(x), ((0, 0), *padding, (0, 0))), np.float64(kernel)
    height, width = ((n - k) // strides + 1 for n, k in zip(x.shape[1:3], kernel.shape))
    seen = {
        (i, j): np.s_[:, i : i + (height - 1) * strides + 1 : strides, j : j + (width - 1) * strides + 1 : strides]
        for i, j in np.ndindex(kernel.shape[:2])
    }
    y = sum(x[part] @ kernel[tap] for tap, part in seen.items())

    def backward(dy):
        dx, dkernel = np.zeros_like(x), np.zeros_like(kernel)
        for tap, part in seen.items():
            dx[part] += dy @ kernel[tap].T
            dkernel[tap] = np.einsum("bhwc,bhwd->cd", x[part], dy)
        return dx[:, top : x.shape[1] - bottom, left : x.shape[2] - right], dkernel

    return y, backward


@pytest.mark.parametrize(
    ("case", "channels"),
    [
        *((case, channels) for case in CASES for channels in ("few out", "few in")),
        ("strided, asymmetric padding", "more"),
        ("3x3", "more"),
        ("1x1 strided", "more"),
        ("3x3", "many"),  # Winograd's form is of these alone
    ],
)
def test_convolutions_are_the_same_convolution(case, channels):
    size, kernel_size, strides, padding = CASES[case]
    c_in, c_out = CHANNELS[channels]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, c_in)).astype(np.float32)
    kernel = rng.normal(size=(*kernel_size, c_in, c_out)).astype(np.float32)
    y, backward = _convolve_by_taps(x, kernel, padding, strides)
    # The others know no channels.
    others = {"few out": (product_over_patches,), "few in": (plain_convolution,)}
    for form in (cpu_convolution, *others.get(channels, ())):
        ours = _value_and_gradients(lambda x, kernel, form=form: form(x, kernel, padding, strides), x, kernel)
        _assert_same(ours, (y, backward(_numbers(y))))


@pytest.mark.parametrize("channels", CHANNELS)
def test_convolutions_inside_a_loop_are_the_same_convolution(channels):
    c_in, c_out = CHANNELS[channels]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 9, 12, c_in)).astype(np.float32)
    kernels = rng.normal(size=(2, 3, 3, c_in, c_out)).astype(np.float32)

    def scanned(x, kernels):
        return jax.lax.scan(lambda _, kernel: (None, cpu_convolution(x, kernel, SAME, 1)), None, kernels)[1]

    each = [_convolve_by_taps(x, kernel, SAME, 1) for kernel in kernels]
    y = np.stack([y for y, _ in each])
    dx, dkernels = zip(*(backward(dy) for (_, backward), dy in zip(each, _numbers(y), strict=True)), strict=True)
    _assert_same(_value_and_gradients(scanned, x, kernels), (y, (sum(dx), np.stack(dkernels))))


def _images(**model):
    config = base.get_config("tiny", "base")
    config.model.residual_stack.num_residual_layers = 1
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
    "stack, pooled, independent": _images(name="vqvae", bottleneck="pooled", channels="independent"),
    "resnet 18": _images(name="vae", encoder="resnet", spread="broadcast"),
    "resnet 50": _images(name="ae", encoder="resnet", resnet={"depth": 50, "padding": "circular"}),
    "vit": _images(name="vae", encoder="vit"),
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
    """ResNets of one narrow stage, its further blocks unrolled in the one and scanned in the other; a ViT of two."""
    for room in (encoders_resnet, decoders_resnet):
        monkeypatch.setattr(room, "STAGE_SIZES", {18: (2,), 50: (3,)})
    monkeypatch.setitem(SIZES, "Ti", ViTSize(16, 2, 2, 24))


def _shapes(model, image):
    return jax.eval_shape(lambda image: initial_variables(model, image, jax.random.key(1)), image)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_switch_reaches_every_layer(name):
    image = _example(name)
    models = {form: _built(NETWORKS[name], image.shape[-1], cpu_kernels=form) for form in (True, False)}
    taken, shapes = {}, _shapes(models[False], image)
    for cpu_kernels, model in models.items():
        program = str(jax.make_jaxpr(_outputs(model, image))(shapes))
        taken[cpu_kernels] = program.count("=cpu_product") + program.count("=cpu_convolution")
    assert taken[True] > 0 == taken[False]


def _normal(tree, rng, scale=1.0):
    return jax.tree.map(lambda leaf: (scale * rng.normal(size=leaf.shape)).astype(np.float32), tree)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("name", ["stack", "resnet 18", "vit", "matrix"])
def test_plain_networks_have_forward_derivatives_and_are_the_same_networks(name):
    """Of the first: u . (J v) of the plain network, forward, is (u J) . v of that in CPU forms, backward."""
    image, rng = _example(name), np.random.default_rng(0)
    plain, fast = (_built(NETWORKS[name], image.shape[-1], cpu_kernels=form) for form in (False, True))
    shapes = _shapes(plain, image)
    state = {key: jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes[key]) for key in shapes}
    params, tangent = _normal(shapes["params"], rng, 0.1), _normal(shapes["params"], rng, 0.1)
    of_plain, of_fast = (
        lambda params, model=model: _outputs(model, image)(state | {"params": params}) for model in (plain, fast)
    )

    def forward(params):
        return jax.jvp(of_plain, (params,), (tangent,))

    if name != "stack":
        _, moved = jax.eval_shape(forward, params)
        assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {np.dtype(np.float32)}
        _assert_same(*jax.jit(lambda params: (of_fast(params), of_plain(params)))(params))
        return

    cotangent = _normal(jax.eval_shape(of_plain, params), rng)

    @jax.jit
    def derivatives(params):
        fast_y, back = jax.vjp(of_fast, params)
        return *forward(params), fast_y, _dot(tangent, back(cotangent)[0])

    y, dy, fast_y, backward = derivatives(params)
    _assert_same(fast_y, y)
    along, scale = _dot(cotangent, dy), np.sqrt(_dot(cotangent, cotangent) * _dot(dy, dy))
    assert abs(along) > 1e-4 * scale > 0
    np.testing.assert_allclose(backward, along, atol=1e-4 * scale)


def _dot(a, b):
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), a, b)))

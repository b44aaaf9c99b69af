"""Counts, sizes and masks; the numbers themselves are held against Hugging Face's in `test_pretrained.py`."""

import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.decoders.resnet import ResNetDecoder
from bie_jax.models.encoders.resnet import STRIDES, ResNetEncoder
from bie_jax.models.layers.resnet import batch_norm

pytestmark = pytest.mark.slow

CLASSIFIER = {18: 513_000, 34: 513_000, 50: 2_049_000, 101: 2_049_000, 152: 2_049_000}


@functools.cache
def _published(depth):
    """Shapes of the parameters."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    return jax.eval_shape(lambda x: ResNetEncoder(depth).init(jax.random.key(0), x, train=False), image)["params"]


def _variables(network, x, rng):
    """Random, biases and scales too; running variances are positive."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x, train=True))

    def filled(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[-4:-1]) if path[-1].key == "kernel" else 100
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree.map_with_path(filled, shapes)


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_the_published_number_of_parameters(depth, parameters):
    """torchvision's, with a classifier of 1000 classes that an encoder does not have."""
    assert sum(leaf.size for leaf in jax.tree.leaves(_published(depth))) == parameters - CLASSIFIER[depth]


@pytest.mark.parametrize(("depth", "features"), [(18, 512), (50, 2048)])
def test_sizes(depth, features):
    encoder, decoder = ResNetEncoder(depth), ResNetDecoder(depth, 7)
    image = jnp.zeros((2, 96, 32, 7))
    encoded = jax.eval_shape(lambda x: encoder.init_with_output(jax.random.key(0), x, train=False)[0], image)
    assert encoded.shape == (2, 3, 1, features)
    z = jnp.zeros((2, 3, 1, 5))
    decoded = jax.eval_shape(lambda z: decoder.init_with_output(jax.random.key(0), z, train=False)[0], z)
    assert decoded.shape == image.shape


def test_equal_blocks_are_one_scanned_block():
    scanned = [_published(depth)["stage3"]["layers"]["conv1"]["kernel"].shape[0] for depth in (50, 101, 152)]
    assert scanned == [5, 22, 35]


@pytest.mark.parametrize(
    ("network", "blocks"),
    [(ResNetEncoder(18, 4, cpu_kernels=False), 2), (ResNetDecoder(18, 1, 4, cpu_kernels=False), 3)],
)
def test_blocks_computed_again_give_the_same_gradient_and_statistics(network, blocks, monkeypatch):
    """In one narrow stage: the blocks after its first are unrolled if there is one, and scanned if there are two."""
    room = sys.modules[type(network).__module__]
    monkeypatch.setattr(room, "STAGE_SIZES", {18: (blocks,)})
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 16, 16, 2)).astype(np.float32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x, train=True))
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)

    def loss(params, remat):
        given = variables | {"params": params}
        y, changed = network.clone(remat=remat).apply(given, x, train=True, mutable=["batch_stats"])
        return jnp.square(y).mean(), changed

    roots, results = {}, {}
    for remat in (False, True):
        gradient = jax.grad(functools.partial(loss, remat=remat), has_aux=True)
        traced = jax.jit(gradient).trace(variables["params"])
        roots[remat] = str(traced.jaxpr).count("rsqrt")  # one for each batch normalization
        results[remat] = traced.lower().compile()(variables["params"])
    assert roots[True] > roots[False]
    for ours, expected in zip(*map(jax.tree.leaves, (results[True], results[False])), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max() + 1e-9)


def test_an_example_without_channels_has_no_say_in_the_statistics():
    encoder, rng = ResNetEncoder(10, 4), np.random.default_rng(0)
    image = rng.normal(size=(3, 64, 64, 2)).astype(np.float32)
    mask = jnp.asarray([[True, True], [True, False], [False, False]])
    variables = _variables(encoder, image, rng)

    @jax.jit
    def run(image):
        features, changed = encoder.apply(variables, image, mask, train=True, mutable=["batch_stats"])
        return features[:2], changed

    outputs, disturbed, seen = run(image), image.copy(), image.copy()
    disturbed[2] = 100.0
    jax.tree.map(np.testing.assert_array_equal, outputs, run(disturbed))
    seen[1] *= 2.0
    assert np.abs(np.asarray(run(seen)[0][0] - outputs[0][0])).max() > 1e-4


def test_a_circular_network_knows_no_border():
    """An image rolled by the stride gives a map rolled by one position, and back."""
    encoder, decoder = ResNetEncoder(10, 4, padding_mode="circular"), ResNetDecoder(10, 1, 4, padding_mode="circular")
    rng = np.random.default_rng(0)
    for network, x, ways in (
        (encoder, rng.normal(size=(1, 64, 64, 1)), (32, 1)),
        (decoder, rng.normal(size=(1, 2, 2, 32)), (1, 32)),
    ):
        variables = _variables(network, x.astype(np.float32), rng)
        run = jax.jit(lambda x, network=network, variables=variables: network.apply(variables, x, train=False))
        given, made = ((way, way) for way in ways)
        y = np.asarray(run(x))
        rolled = np.asarray(run(np.roll(x, given, (1, 2))))
        np.testing.assert_allclose(rolled, np.roll(y, made, (1, 2)), atol=1e-4 * np.abs(y).max())
        assert np.abs(rolled - y).max() > 1e-2 * np.abs(y).max()


class _Norm(nn.Module):
    @nn.compact
    def __call__(self, x, valid):
        return batch_norm(x, valid, True, "norm")


_normalize = jax.jit(lambda x, valid: _Norm().init_with_output(jax.random.key(0), x, valid)[0])


@pytest.mark.parametrize("offset", [0, 30, 1000, 10_000])
def test_batch_statistics_against_float64_wherever_the_features_lie(offset):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(6, 5, 5, 3)) + offset).astype(np.float32)
    valid = np.asarray([1, 1, 1, 1, 0, 1], bool)
    counted = x[valid].astype(np.float64)
    mean, variance = counted.mean(axis=(0, 1, 2)), counted.var(axis=(0, 1, 2))
    np.testing.assert_allclose(_normalize(x, valid), (x - mean) / np.sqrt(variance + 1e-5), atol=1e-6 * (offset + 1))


@pytest.mark.parametrize("stem", ["large", "small", "full"])
def test_a_narrow_resnet_of_ten_layers(stem):
    """Its stem keeps the size of its name, and the decoder gives back the image's."""
    stride, side = {"large": (32, 7), "small": (16, 3), "full": (8, 3)}[stem]
    encoder, decoder = ResNetEncoder(10, 4, stem), ResNetDecoder(10, 3, 4, stem)
    image = jnp.zeros((2, 64, 32, 3))

    def encode(x):
        return encoder.init_with_output(jax.random.key(0), x, train=False)

    encoded, variables = jax.eval_shape(encode, image)
    assert encoded.shape == (2, 64 // stride, 32 // stride, 8 * 4)
    assert variables["params"]["stem"]["kernel"].shape == (side, side, 3, 4)
    assert STRIDES[stem] == stride
    decoded = jax.eval_shape(lambda z: decoder.init_with_output(jax.random.key(0), z, train=False)[0], encoded)
    assert decoded.shape == image.shape
    kernels = [leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 4 and leaf.shape[0] == 3]
    assert len(kernels) == 8 + (stem != "large")

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.decoders.vit import ViTDecoder
from bie_jax.models.encoders.vit import SIZES, ViTEncoder, drop_channels
from bie_jax.models.layers.patches import patchify, unpatchify
from bie_jax.models.layers.positions import sincos_positions
from bie_jax.models.layers.transformer import ViTSize, attention, gelu

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
SMALL = ViTSize(16, 2, 2, 24)
JOINT = ViTEncoder(SMALL, 8, "sincos", cpu_kernels=False)
TOKENS = ViTEncoder(SMALL, 8, "sincos", channel_tokens=True, cpu_kernels=False)
# Examples with all, some, one and none of their channels.
PRESENT = np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)


def _image(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def _variables(module, *inputs):
    """All random, biases and tokens too: at their initial 0 nobody sees whether they are added."""
    shapes = jax.eval_shape(lambda: module.init({"params": KEY, "noise": KEY}, *inputs, train=False))
    return jax.tree.map(lambda leaf: RNG.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def _encode(encoder, variables, image, present=None):
    """Tokens, kept channels and map."""
    tokens, kept = encoder.apply(variables, image, present, train=False, method="tokens")
    return tokens, kept, encoder.apply(variables, image, present, train=False)


@pytest.mark.parametrize(
    ("name", "patch_size", "published"),
    [
        ("S", 16, 21_665_664),
        ("S", 8, 21_670_272),
        ("B", 16, 85_798_656),
        ("B", 8, 85_807_872),
        ("L", 16, 303_301_632),
        ("H", 14, 630_764_800),
    ],
)
def test_sizes_have_as_many_parameters_as_published(name, patch_size, published):
    """Without a head, at 224 pixels; timm's `num_classes=0` counts the same."""
    encoder = ViTEncoder(SIZES[name], patch_size, "learnt")
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(lambda image: encoder.init(KEY, image, train=False), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == published


def test_patches_by_loops():
    image = _image(2, 6, 4, 5)
    patches = patchify(image, 2)
    assert patches.shape == (2, 6, 20)
    for row in range(3):
        for column in range(2):
            expected = [image[1, 2 * row + i, 2 * column + j, c] for i in range(2) for j in range(2) for c in range(5)]
            np.testing.assert_array_equal(patches[1, 2 * row + column], expected)
    np.testing.assert_array_equal(unpatchify(patches, (3, 2), 2), image)


def test_an_image_that_patches_do_not_cover_is_refused():
    for shape in ((1, 16, 20, 1), (1, 20, 16, 1)):
        with pytest.raises(ValueError, match=r"patches of model.vit.patch_size=8; its sides must be multiples of it"):
            patchify(_image(*shape), 8)


def test_positions_by_loops():
    rows, columns, width = 3, 5, 8
    positions = sincos_positions((rows, columns), width)
    for y in range(rows):
        for x in range(columns):
            angles = [[place / 10_000 ** (i / (width / 4)) for i in range(width // 4)] for place in (x, y)]
            expected = [f(angle) for axis in angles for f in (np.sin, np.cos) for angle in axis]
            np.testing.assert_allclose(positions[y, x], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="positions of width 6: it must be a multiple of 4"):
        sincos_positions((2, 2), 6)


def test_attention_by_loops():
    query, key, value = RNG.normal(size=(3, 2, 2, 4, 3)).astype(np.float32)
    present = np.asarray([[1, 1, 0, 1], [0, 1, 0, 0]], bool)
    ours = attention(query, key, value, present)
    for b in range(2):
        for head in range(2):
            for i in range(4):
                weights = {
                    j: np.exp(query[b, head, i] @ key[b, head, j] / np.sqrt(3)) for j in range(4) if present[b, j]
                }
                expected = sum(weight * value[b, head, j] for j, weight in weights.items()) / sum(weights.values())
                np.testing.assert_allclose(ours[b, head, i], expected, rtol=1e-5, atol=1e-6)
    everything = attention(query, key, value, np.ones((2, 4), bool))
    np.testing.assert_allclose(attention(query, key, value), everything, rtol=1e-6)


def test_attention_weighs_in_float32():
    """Scores of 256 and 257 are one number in bfloat16."""
    query, keys = [[2, 2, 0, 0]], [[256, 0, 0, 0], [256, 1, 0, 0]]  # the scale of 4 numbers is 1/2
    query, key, value = (jnp.asarray(x, jnp.bfloat16)[None, None] for x in (query, keys, [[0] * 4, [1] * 4]))
    ours = attention(query, key, value)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(jnp.float32), np.full((1, 1, 1, 4), 1 / (1 + np.exp(-1))), rtol=0.01)


def test_gelu_and_its_slope_by_the_normal_distribution():
    x = np.linspace(-12, 12, 241).astype(np.float32)
    phi = [0.5 * math.erfc(-number / math.sqrt(2)) for number in x.tolist()]
    slope = [p + number * math.exp(-number * number / 2) / math.sqrt(2 * math.pi) for p, number in zip(phi, x.tolist())]
    np.testing.assert_allclose(gelu(x), x * phi, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), slope, rtol=1e-6, atol=1e-6)


def test_gelu_of_bfloat16_is_rounded_once():
    """1 + erf(-2.4) has one digit in bfloat16."""
    x = jnp.asarray(np.linspace(-3.4, 3.4, 69), jnp.bfloat16)
    ours = gelu(x)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, gelu(x.astype(jnp.float32)).astype(jnp.bfloat16))


def test_every_patch_sees_every_other_and_the_class_token():
    image = _image(1, 16, 24, 2)
    variables = _variables(JOINT, image)

    @jax.jit
    def gradients(params):
        def first(params, image):
            return JOINT.apply({"params": params}, image, train=False)[0, 0, 0].sum()

        return jax.grad(first, argnums=(0, 1))(params, image)

    of_params, of_image = gradients(variables["params"])
    seen = np.abs(patchify(of_image, 8)).max(axis=-1)
    assert (seen > 0).all()
    assert np.abs(of_params["class_token"]).max() > 0


@pytest.mark.parametrize("network", [JOINT, TOKENS, ViTDecoder(3, 8, 16, 2, 2)], ids=["joint", "tokens", "decoder"])
def test_blocks_computed_again_give_the_same_gradient(network):
    """And the gradient of a block then multiplies matrices that are kept otherwise; computed of one of them."""
    image = _image(2, 8, 16, 2)
    variables = _variables(network, image)

    def loss(variables, remat):
        return jnp.square(network.clone(remat=remat).apply(variables, image, train=False)).mean()

    products, gradients = {}, {}
    for remat in (False, True):
        traced = jax.jit(jax.grad(functools.partial(loss, remat=remat))).trace(variables)
        products[remat] = str(traced.jaxpr).count("dot_general")
        if network is JOINT:
            gradients[remat] = traced.lower().compile()(variables)
    assert products[True] > products[False]
    if network is JOINT:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *gradients.values())


def test_what_a_block_keeps_does_not_grow_with_the_square_of_the_tokens():
    """Scores and shares of the attention are computed again."""

    def largest(tokens):
        image = _image(1, 8, 8 * tokens, 1)
        variables = _variables(JOINT, image)
        run = functools.partial(JOINT.apply, image=image, train=False)
        pull_back = jax.eval_shape(lambda variables: jax.vjp(run, variables)[1], variables)
        return max(leaf.size for leaf in jax.tree.leaves(pull_back))

    assert largest(200) < 2.2 * largest(100)


def test_learned_positions_are_of_one_size():
    encoder = ViTEncoder(SMALL, 8, "learnt")
    variables = _variables(encoder, _image(1, 16, 32, 1))
    with pytest.raises(ValueError, match=r"has learned \(2, 4\) and is given \(4, 2\) rows and columns of patches"):
        encoder.apply(variables, _image(1, 32, 16, 1), train=False)


def test_learned_channels_are_of_one_set():
    variables = _variables(TOKENS, _image(1, 8, 8, 3))
    with pytest.raises(ValueError, match=r"has learned \(3,\) and is given \(2,\) channels"):
        TOKENS.apply(variables, _image(1, 8, 8, 2), train=False)


def test_layer_scale_multiplies_what_is_added():
    image = _image(4, 16, 8, 3)
    encoder = JOINT.clone(layer_scale=True)
    params = _variables(encoder, image)["params"]

    @jax.jit
    def initial():
        blocks = encoder.init(KEY, image, train=False)["params"]["blocks"]
        return [blocks[name] for name in ("attention_scale", "mlp_scale")]

    np.testing.assert_array_equal(initial(), np.full((2, 2, 16), 1e-5, np.float32))
    # Where a layer is scaled, so are its matrix and bias.
    factors = {name: RNG.normal(size=(2, 16)).astype(np.float32) for name in ("attention_scale", "mlp_scale")}
    blocks = {name: leaf for name, leaf in params["blocks"].items() if name not in factors}
    scaled = dict(blocks)
    for name, layer in (("attention_scale", "attention_out"), ("mlp_scale", "mlp_out")):
        scaled[layer] = {"kernel": blocks[layer]["kernel"] * factors[name][:, None]}
        scaled[layer]["bias"] = blocks[layer]["bias"] * factors[name]
    _, _, ours = _encode(encoder, {"params": {**params, "blocks": blocks | factors}}, image)
    _, _, expected = _encode(JOINT, {"params": {**params, "blocks": scaled}}, image)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", [JOINT, TOKENS], ids=["joint", "tokens"])
def test_what_is_not_there_changes_nothing(encoder):
    """Not even what is not a number, and no gradient comes from it."""
    image, there = _image(4, 16, 8, 3), PRESENT[:, None, None, :]
    variables = _variables(encoder, image)

    blank = _encode(encoder, variables, np.where(there, image, 0), PRESENT)
    wrong = _encode(encoder, variables, np.where(there, image, np.nan), PRESENT)
    jax.tree.map(np.testing.assert_array_equal, blank, wrong)
    assert np.isfinite(blank[0]).all()
    gradient = jax.jit(jax.grad(lambda image: jnp.square(_encode(encoder, variables, image, PRESENT)[0]).sum()))(image)
    np.testing.assert_array_equal(gradient != 0, np.broadcast_to(there, image.shape))


def test_the_map_of_channel_tokens_is_their_mean():
    image = _image(4, 16, 8, 3)
    variables = _variables(TOKENS, image)
    tokens, kept, features = _encode(TOKENS, variables, image, PRESENT)
    assert tokens.shape == (4, 3, 2, 1, 16)
    np.testing.assert_array_equal(kept, PRESENT)
    np.testing.assert_array_equal(np.asarray(tokens)[~PRESENT], 0)
    for b in range(3):
        np.testing.assert_allclose(features[b], np.asarray(tokens)[b, PRESENT[b]].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(features[3], 0)
    everything, kept, _ = _encode(TOKENS, variables, image)
    assert kept.all()
    np.testing.assert_allclose(everything[0], tokens[0], rtol=1e-5, atol=1e-6)


def test_a_token_of_one_channel_is_that_of_a_network_of_one_channel():
    """The shared projection: alone, a channel gives what it gives beside channels that are not there."""
    image = _image(4, 16, 8, 3)
    variables = _variables(TOKENS, image)
    tokens, _, _ = _encode(TOKENS, variables, image, PRESENT)
    params = dict(variables["params"])
    params["channel_embed"] = {"embedding": params["channel_embed"]["embedding"][1:2]}
    _, _, alone = _encode(TOKENS, {"params": params}, image[2:3, ..., 1:2])
    np.testing.assert_allclose(tokens[2, 1], alone[0], rtol=1e-4, atol=1e-5)


def test_channels_are_left_out_by_loops():
    noise = RNG.uniform(size=(500, 3)).astype(np.float32)
    present = RNG.uniform(size=(500, 3)) < 0.7
    kept = np.asarray(drop_channels(noise, present, 0.6))
    for b in range(500):
        there = [c for c in range(3) if present[b, c]]
        expected = [c for c in there if noise[b, c] >= 0.6] or sorted(there, key=lambda c: noise[b, c])[-1:]
        np.testing.assert_array_equal(np.flatnonzero(kept[b]), expected)


def test_channels_are_left_out_in_training_alone():
    encoder = TOKENS.clone(channel_dropout=0.5)
    image = np.repeat(_image(1, 8, 8, 3), 64, axis=0)
    variables = _variables(encoder, image)

    @functools.partial(jax.jit, static_argnums=1)
    def run(key, train):
        return encoder.apply(variables, image, train=train, rngs={"noise": key}, method="tokens")

    tokens, kept = run(KEY, True)
    assert {1, 2, 3} == set(np.asarray(kept).sum(axis=1).tolist())
    np.testing.assert_array_equal(np.abs(tokens).max(axis=(2, 3, 4)) > 0, kept)
    assert (run(jax.random.key(1), True)[1] != kept).any()
    # What is left out has no influence on what stays: equal choices, equal tokens.
    same = [b for b in range(64) if (kept[b] == kept[0]).all()]
    assert len(same) > 1
    np.testing.assert_allclose(tokens[same[1]], tokens[0], rtol=1e-5, atol=1e-6)
    shapes = jax.eval_shape(lambda: encoder.apply(variables, image, train=False))  # draws nothing: there is no key
    assert shapes.shape == (64, 1, 1, 16)
    assert run(KEY, False)[1].all()


@pytest.mark.parametrize("module", [JOINT, TOKENS, ViTDecoder(3, 8, 16, 1, 2)], ids=["joint", "tokens", "decoder"])
def test_bfloat16_in_bfloat16_out(module):
    image = _image(4, 16, 8, 3)
    variables = _variables(module, image)
    run = jax.jit(lambda variables, image: module.apply(variables, image, train=False))
    exact = run(variables, image)
    half = run(*jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), (variables, image)))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.05 * np.abs(exact).max())


def test_decoder_of_any_map():
    """[B, h, w, *] -> [B, p h, p w, C], and a constant map is not a constant image: positions are told apart."""
    decoder = ViTDecoder(5, 4, 16, 1, 2)
    variables = _variables(decoder, _image(1, 2, 3, 7))
    run = jax.jit(lambda z: decoder.apply(variables, z, train=False))
    for rows, columns in ((2, 3), (4, 1)):
        image = run(np.ones((2, rows, columns, 7), np.float32))
        assert image.shape == (2, 4 * rows, 4 * columns, 5)
        patches = np.asarray(patchify(image, 4))[0]
        assert np.unique(patches.round(4), axis=0).shape == patches.shape

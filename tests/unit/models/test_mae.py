import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.decoders.mae import MAEDecoder
from bie_jax.models.encoders.vit import ViTEncoder
from bie_jax.models.layers.masking import random_masking
from bie_jax.models.layers.patches import patchify, unpatchify
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.models.mae import MAE, patch_scale

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
SMALL = ViTSize(16, 2, 2, 24)
B, H, W, C, P = 4, 16, 24, 3, 8
N = (H // P) * (W // P)
# Examples with all, some, one and none of their channels.
PRESENT = np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)


def _mae(*, channel_tokens=False, latent_dim=16, norm_pix_loss=True, channel_readout="mean", **encoder):
    encoder = ViTEncoder(SMALL, P, "sincos", channel_tokens=channel_tokens, cpu_kernels=False, **encoder)
    return MAE(encoder, C, latent_dim, 0.6, norm_pix_loss, channel_readout, 8, 1, 2)


JOINT = _mae()
TOKENS = _mae(channel_tokens=True)
BOTH = pytest.mark.parametrize("mae", [JOINT, TOKENS], ids=["joint", "tokens"])


def _image(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def _variables(module, *inputs, **settings):
    shapes = jax.eval_shape(lambda: module.init({"params": KEY, "noise": KEY}, *inputs, **settings))
    return jax.tree.map(lambda leaf: RNG.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


DECODER = {"channel_tokens": True, "norm_epsilon": 1e-6, "remat": False, "cpu_kernels": True}


@functools.partial(jax.jit, static_argnums=0)
def _run(mae, variables, image, present, noise):
    return mae.apply(variables, image, present, train=False, noise=noise)


@functools.partial(jax.jit, static_argnums=0)
def _encode(mae, variables, image, present):
    return mae.apply(variables, image, present, train=False, method="encode")


def _noise(mae, image):
    tokens = N * (image.shape[-1] if mae.encoder.channel_tokens else 1)
    return RNG.uniform(size=(len(image), tokens)).astype(np.float32)


@functools.cache
def _example(mae):
    image = _image(B, H, W, C)
    variables = _variables(mae, image, train=False)
    noise = _noise(mae, image)
    return image, variables, noise, *_run(mae, variables, image, PRESENT, noise)


@pytest.mark.parametrize("mask_ratio", [0.1, 0.5, 0.6, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("some", [False, True])
def test_masking_by_loops(mask_ratio, some):
    noise = RNG.uniform(size=(5, 10)).astype(np.float32)
    present = RNG.uniform(size=(5, 10)) < 0.5 if some else np.ones((5, 10), bool)
    masking = jax.tree.map(np.asarray, random_masking(noise, mask_ratio, present if some else None))
    slots = int(10 * (1 - mask_ratio))
    for b in range(5):
        there = [i for i in range(10) if present[b, i]]
        order = sorted(there, key=lambda i: noise[b, i])
        keep = order[: int(len(there) * (1 - mask_ratio))]
        np.testing.assert_array_equal(np.flatnonzero(masking.kept[b]), sorted(keep))
        np.testing.assert_array_equal(np.flatnonzero(masking.token_mask[b]), sorted(set(there) - set(keep)))
        np.testing.assert_array_equal(masking.ids_keep[b, : len(keep)], keep)
        np.testing.assert_array_equal(masking.filled[b], [slot < len(keep) for slot in range(slots)])
        np.testing.assert_array_equal(masking.ids_shuffle[b][masking.ids_restore[b]], np.arange(10))
        np.testing.assert_array_equal(masking.ids_restore[b][masking.ids_shuffle[b]], np.arange(10))
    assert masking.ids_keep.shape == (5, slots)


def test_the_scale_of_a_patch():
    patches = _image(2, 3, 12)
    patches[0, 1] = 5.0
    mean, deviation = patch_scale(patches)
    for b in range(2):
        for n in range(3):
            np.testing.assert_allclose(mean[b, n, 0], sum(patches[b, n]) / 12, rtol=1e-5, atol=1e-6)
            variance = sum((value - sum(patches[b, n]) / 12) ** 2 for value in patches[b, n]) / 11
            np.testing.assert_allclose(deviation[b, n, 0], np.sqrt(variance + 1e-6), rtol=1e-4)
    np.testing.assert_allclose(deviation[0, 1, 0], 1e-3, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_target_and_picture_by_loops(mae, norm_pix_loss):
    """What is kept is shown as it is, what is removed as it is predicted, in the image's own scale."""
    image, variables, noise, *_ = _example(mae)
    mae = mae.clone(norm_pix_loss=norm_pix_loss)
    reconstruction, out = _run(mae, variables, image, PRESENT, noise)
    there = np.where(PRESENT[:, None, None, :], image, 0)
    if mae.encoder.channel_tokens:
        pieces = [patchify(there[..., c : c + 1], P) for c in range(C)]
        patches = np.concatenate(pieces, axis=1)  # [B, C N, p p]
    else:
        patches = patchify(there, P)
    patches, removed = np.asarray(patches), np.asarray(out["token_mask"])
    filled = patches.copy()
    for b in range(B):
        for t in range(patches.shape[1]):
            mean, deviation = patches[b, t].mean(), np.sqrt(patches[b, t].var(ddof=1) + 1e-6)
            mean, deviation = (mean, deviation) if norm_pix_loss else (0, 1)
            np.testing.assert_allclose(out["target"][b, t], (patches[b, t] - mean) / deviation, rtol=1e-4, atol=1e-5)
            if removed[b, t]:
                filled[b, t] = out["prediction"][b, t] * deviation + mean
    if mae.encoder.channel_tokens:
        grid = (H // P, W // P)
        pieces = [unpatchify(filled[:, c * N : (c + 1) * N], grid, P) for c in range(C)]
        expected = np.concatenate(pieces, axis=-1)
    else:
        expected = np.asarray(unpatchify(filled, (H // P, W // P), P))
    expected = np.where(PRESENT[:, None, None, :], expected, 0)
    np.testing.assert_allclose(reconstruction, expected, rtol=1e-4, atol=1e-5)
    assert out["prediction"].shape == out["target"].shape == patches.shape


@BOTH
def test_as_many_tokens_are_removed_as_the_ratio_says(mae):
    image, variables, noise, _, out = _example(mae)
    counts = np.asarray(out["token_mask"]).sum(axis=1)
    if mae.encoder.channel_tokens:
        np.testing.assert_array_equal(counts, [c * N - int(c * N * 0.4) for c in (3, 2, 1, 0)])
        by_channel = np.asarray(out["token_mask"]).reshape(B, C, N)
        assert not by_channel[~PRESENT].any()
    else:
        np.testing.assert_array_equal(counts, N - int(N * 0.4))
    del image, variables, noise


@BOTH
def test_removed_patches_and_absent_channels_have_no_influence(mae):
    """On what is predicted and embedded: the gradient is exactly 0 there and nowhere else."""
    image, variables, noise, _, out = _example(mae)

    @jax.jit
    def gradient(image):
        def total(image):
            _, out = mae.apply(variables, image, PRESENT, train=False, noise=noise)
            return sum(jnp.square(out[name]).sum() for name in ("prediction", "embedding", "features"))

        return jax.grad(total)(image)

    removed = np.asarray(out["token_mask"])
    if mae.encoder.channel_tokens:
        removed = np.moveaxis(removed.reshape(B, C, N), 1, 2)  # [B, N, C]
    else:
        removed = np.repeat(removed[..., None], C, axis=-1)
    kept = ~removed[:, :, None] & PRESENT[:, None, None, :]  # [B, N, 1, C]
    found = np.asarray(patchify(gradient(image), P)).reshape(B, N, P * P, C)
    np.testing.assert_array_equal(found != 0, np.broadcast_to(kept, found.shape))


@BOTH
def test_what_is_not_there_changes_no_output(mae):
    image, variables, noise, reconstruction, out = _example(mae)
    wrong = np.where(PRESENT[:, None, None, :], image, np.nan)
    jax.tree.map(np.testing.assert_array_equal, _run(mae, variables, wrong, PRESENT, noise), (reconstruction, out))
    embedded = _encode(mae, variables, image, PRESENT)
    jax.tree.map(np.testing.assert_array_equal, _encode(mae, variables, wrong, PRESENT), embedded)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((reconstruction, out, embedded)))


@BOTH
def test_without_a_mask_every_channel_is_there(mae):
    image, variables, noise, *_ = _example(mae)
    ours = _run(mae, variables, image, None, noise)
    expected = _run(mae, variables, image, np.ones((B, C), bool), noise)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, expected)


@BOTH
def test_kept_tokens_are_embedded(mae):
    """Of `__call__`: as if the encoder had been given the kept patches alone."""
    image, variables, noise, _, out = _example(mae)
    encoder = mae.encoder
    bound = encoder.bind({"params": variables["params"]["encoder"]})
    patches = np.asarray(bound.patches(np.where(PRESENT[:, None, None, :], image, 0)))
    kept = np.asarray(random_masking(noise, 0.6, np.repeat(PRESENT, N, 1) if encoder.channel_tokens else None).kept)
    channels = C if encoder.channel_tokens else 1
    for b in range(2):
        ids = np.flatnonzero(kept[b])

        @jax.jit
        def transformed(patches, ids):
            return bound.transform(bound.embed(patches, (H // P, W // P), channels, ids), None)

        tokens = np.asarray(transformed(patches[b : b + 1, ids], ids[None]))[0, 1:]
        means = [tokens[ids // N == c].mean(axis=0) for c in range(channels) if (ids // N == c).any()]
        np.testing.assert_allclose(out["features"][b], np.mean(means, axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(out["embedding"][b], out["features"][b])  # there is no projection


@pytest.mark.parametrize(
    ("channel_tokens", "readout", "latent_dim"),
    [(False, "mean", 16), (False, "mean", 6), (True, "mean", 6), (True, "concat", 16), (True, "concat", 6)],
)
def test_embedding_is_the_mean_of_the_projected_tokens(latent_dim, channel_tokens, readout):
    """Of whole images, with exactly latent_dim numbers; no projection where the width is the encoder's."""
    latent_dim *= C if readout == "concat" else 1
    mae = _mae(channel_tokens=channel_tokens, latent_dim=latent_dim, channel_readout=readout)
    image = _image(B, H, W, C)
    variables = _variables(mae, image, train=False)
    z, out = _encode(mae, variables, image, PRESENT)
    bound = mae.encoder.bind({"params": variables["params"]["encoder"]})
    tokens, _ = jax.jit(lambda: bound.tokens(image, PRESENT, train=False))()  # [B, C', h, w, D]
    means = np.asarray(tokens).mean(axis=(2, 3))
    projected = means
    projection = variables["params"].get("latent")
    assert (projection is None) == (latent_dim // (C if readout == "concat" else 1) == 16)
    if projection is not None:
        projected = means @ projection["kernel"] + projection["bias"]
    assert z.shape == (B, H // P, W // P, latent_dim)
    np.testing.assert_allclose(out["embedding"], np.asarray(z).mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    for b in range(B):
        if not channel_tokens:
            np.testing.assert_allclose(out["embedding"][b], projected[b, 0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(out["features"][b], means[b, 0], rtol=1e-4, atol=1e-5)
            continue
        there = [c for c in range(C) if PRESENT[b, c]]
        each = [projected[b, c] if c in there else np.zeros_like(projected[b, c]) for c in range(C)]
        np.testing.assert_allclose(out["channel_embeddings"][b], each, rtol=1e-4, atol=1e-5)
        joined = np.concatenate(each) if readout == "concat" else np.sum(each, axis=0) / max(len(there), 1)
        np.testing.assert_allclose(out["embedding"][b], joined, rtol=1e-4, atol=1e-5)
        expected = np.mean(means[b, there], axis=0) if there else 0 * means[b, 0]
        np.testing.assert_allclose(out["features"][b], expected, rtol=1e-4, atol=1e-5)


def test_a_latent_that_channels_cannot_share_is_refused():
    mae = _mae(channel_tokens=True, latent_dim=16, channel_readout="concat")
    with pytest.raises(ValueError, match=r"latent_dim=16 .*: it must be a multiple of the number of channels, 3"):
        jax.eval_shape(lambda: mae.init(KEY, _image(1, H, W, C), train=False, noise=_image(1, C * N)))


@BOTH
def test_the_mask_is_drawn_from_noise_and_embedding_draws_nothing(mae):
    image, variables, *_ = _example(mae)

    @functools.partial(jax.jit, static_argnums=1)
    def masks(key, train):
        return mae.apply(variables, image, train=train, rngs={"noise": key})[1]["token_mask"]

    first = masks(KEY, False)
    np.testing.assert_array_equal(first, masks(KEY, False))
    assert (first != masks(jax.random.key(1), False)).any()
    assert (first[0] != first[1]).any()
    jax.eval_shape(lambda: mae.apply(variables, image, train=False, method="encode"))


def test_a_channel_that_is_left_out_is_as_if_it_were_not_there():
    mae = _mae(channel_tokens=True, channel_dropout=0.5)
    image = _image(16, P, 2 * P, C)
    variables = _variables(mae, image, train=False)
    run = jax.jit(lambda image, key: mae.apply(variables, image, train=True, rngs={"noise": key}))
    reconstruction, out = run(image, KEY)
    shown = (np.asarray(reconstruction) != 0).any(axis=(1, 2))
    assert {1, 2, 3} == set(shown.sum(axis=1).tolist())
    removed = np.asarray(out["token_mask"]).reshape(16, C, 2)
    assert not removed[~shown].any()
    assert (removed.sum(axis=(1, 2)) == [2 * c - int(2 * c * 0.4) for c in shown.sum(axis=1)]).all()
    seen = (shown[:, :, None] & ~removed).any(axis=2)
    assert (seen != shown).any()  # all tokens of a channel may be removed
    np.testing.assert_array_equal(out["channels_kept"], seen)
    np.testing.assert_array_equal((np.asarray(out["channel_embeddings"]) != 0).any(axis=2), seen)
    again = run(np.where(shown[:, None, None, :], image, 7), KEY)
    jax.tree.map(np.testing.assert_array_equal, again, (reconstruction, out))


def test_blocks_of_the_decoder_are_computed_again_for_the_gradient():
    """Which then multiplies more matrices; that these blocks give the same otherwise: `test_vit.py`."""
    masking = random_masking(RNG.uniform(size=(1, C * N)).astype(np.float32), 0.4)
    inputs = _image(1, 1 + masking.ids_keep.shape[1], 16), masking, (H // P, W // P), C
    decoder = MAEDecoder(ViTSize(8, 2, 2, 16), P * P, **DECODER)
    variables = _variables(decoder, *inputs)
    products = {}
    for remat in (False, True):
        network = decoder.clone(remat=remat)
        gradient = jax.grad(lambda variables, network=network: jnp.square(network.apply(variables, *inputs)).mean())
        products[remat] = str(jax.make_jaxpr(gradient)(variables)).count("dot_general")
        mae = TOKENS.clone(encoder=TOKENS.encoder.clone(remat=remat))
        assert mae.bind(_example(TOKENS)[1]).decoder.remat == remat
    assert products[True] > products[False]


def test_each_channel_is_decoded_on_its_own():
    """From its own tokens and the class token, and knowing which channel it is."""
    decoder = MAEDecoder(ViTSize(8, 1, 2, 16), P * P, **DECODER)
    masking = random_masking(RNG.uniform(size=(1, C * N)).astype(np.float32), 0.4)
    latent = _image(1, 1 + masking.ids_keep.shape[1], 16)
    variables = _variables(decoder, latent, masking, (H // P, W // P), C)
    run = jax.jit(lambda latent: decoder.apply(variables, latent, masking, (H // P, W // P), C).reshape(C, N, -1))
    plain = run(latent)
    for slot, token in enumerate(np.asarray(masking.ids_keep)[0]):
        changed = np.flatnonzero((run(latent + np.eye(latent.shape[1])[:, slot + 1, None] * _ONE) != plain).any((1, 2)))
        np.testing.assert_array_equal(changed, [token // N])
    assert (run(latent + np.eye(latent.shape[1])[:, :1] * _ONE) != plain).any((1, 2)).all()
    nothing = random_masking(np.zeros((1, C * N), np.float32), 0.999)
    blank = decoder.apply(variables, latent[:, :1], nothing, (H // P, W // P), C).reshape(C, N, -1)
    assert (np.abs(blank[0] - blank[1]) > 1e-3).any()


_ONE = np.ones((1, 1), np.float32)


@BOTH
def test_bfloat16_in_bfloat16_out(mae):
    image, variables, noise, *_ = _example(mae)
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), (variables, image))
    shapes = jax.eval_shape(lambda: _run(mae, *half, PRESENT, noise))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype(jnp.bfloat16), np.dtype(bool)}

"""Objectives over networks whose outputs are known, and over real ones."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.losses.contrastive import Origin
from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.objectives import METHODS, build_model
from bie_jax.objectives.ae import ae
from bie_jax.objectives.base import Batch, unlabeled_batch
from bie_jax.objectives.mae import mae
from bie_jax.objectives.vae import summarize_latents, vae
from bie_jax.objectives.vqvae import summarize_codes, vqvae
from bie_jax.training.state import initial_variables
from configs import base

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def _objective_config(**changes):
    config = base.get_config("tiny", "base").objective
    groups = ("contrastive", "matrix")
    config.update({name: value for name, value in changes.items() if name not in groups})
    for name in groups:
        config[name].update(changes.get(name, {}))
    return config


class _Known(nn.Module):
    """Reconstructs 0; everything else is what it is given."""

    out: dict

    def __call__(self, image, channel_mask, *, train):
        del channel_mask, train
        return jnp.zeros_like(image), self.out


class _Says(nn.Module):
    """Reconstructs what it is given."""

    said: jax.Array

    def __call__(self, image, channel_mask, *, train):
        del image, channel_mask, train
        return self.said, {}


def _value(objective, out, image, weight, *, step=0, **changes):
    batch = unlabeled_batch(jnp.asarray(image), jnp.asarray(weight))
    out = {name: jnp.asarray(value) for name, value in out.items()}
    return objective(_Known(out), _objective_config(**changes), {}, {}, batch, jnp.int32(step), KEY, train=False)


IMAGE = RNG.normal(size=(4, 3, 5, 2)).astype(np.float32)
THREE = np.asarray([[1, 1], [1, 1], [1, 1], [0, 0]], np.float32)


def test_ae_is_the_mean_square_over_the_images_that_count():
    loss, aux = _value(ae, {}, IMAGE, THREE)
    np.testing.assert_allclose(loss, np.square(IMAGE[:3]).mean(), rtol=1e-5)
    assert set(aux.metrics) == {"loss", "recon"}


def test_images_count_alike_however_many_channels_they_have():
    loss, _ = _value(ae, {}, IMAGE[:2], np.asarray([[1.0, 1.0], [1.0, 0.0]], np.float32))
    expected = (np.square(IMAGE[0]).mean() + np.square(IMAGE[1, ..., 0]).mean()) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_vqvae_adds_the_commitment():
    commitment = np.asarray([1.0, 2.0, 4.0, 100.0], np.float32)
    out = {"commitment": commitment, "perplexity": 1.5, "code_counts": [[10.0, 0.0, 5.0], [0.0, 0.0, 15.0]]}
    loss, aux = _value(vqvae, out, IMAGE, THREE)
    np.testing.assert_allclose(loss, np.square(IMAGE[:3]).mean() + 7 / 3, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["vq"], 7 / 3, rtol=1e-5)
    # 3 images with 15 codes in each of 2 codebooks of 3 codes: five positions.
    summary = summarize_codes(jax.device_get(aux.totals))
    assert summary == {"codes_used": 1.5, "capacity_bits": pytest.approx(5 * 2 * np.log2(3))}


def _kl_by_loops(mean, logvar):
    return [
        [0.5 * (np.exp(v) + m * m - 1 - v) for m, v in zip(*row, strict=True)] for row in zip(mean, logvar, strict=True)
    ]


def test_vae_is_sums_per_image():
    mean, logvar = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    kl = np.asarray(_kl_by_loops(mean, logvar))[:3]
    nll = 0.5 * np.square(IMAGE[:3]).sum() / 3
    out = {"mean": mean, "logvar": logvar}
    loss, aux = _value(vae, out, IMAGE, THREE, beta=2.0)
    np.testing.assert_allclose(loss, nll + 2 * kl.sum() / 3, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["kl"], kl.sum() / 3, rtol=1e-5)
    summary = summarize_latents(jax.device_get(aux.totals))
    np.testing.assert_allclose(summary["kl_per_dim"], kl.mean(axis=0), rtol=1e-4)
    assert summary["active_units"] == (mean[:3].var(axis=0) > 0.01).sum()
    # Half way through the warmup (step 4 is the fifth of ten) half of the KL counts.
    half, _ = _value(vae, out, IMAGE, THREE, beta=2.0, kl_warmup_steps=10, step=4)
    np.testing.assert_allclose(half, nll + kl.sum() / 3, rtol=1e-5)
    # A dimension cheaper than the free nats costs exactly these.
    free, _ = _value(vae, out, IMAGE, THREE, beta=1.0, free_nats=1.0)
    np.testing.assert_allclose(free, nll + np.maximum(kl.mean(axis=0), 1.0).sum(), rtol=1e-5)


def test_vae_of_channels_sums_over_the_channels_that_there_are():
    mean, logvar = RNG.normal(size=(2, 2, 2, 3)).astype(np.float32)  # [B, C, d]
    weight = np.asarray([[1, 1], [0, 1]], np.float32)
    loss, aux = _value(vae, {"mean": mean, "logvar": logvar}, IMAGE[:2], weight)
    there = [(0, 0), (0, 1), (1, 1)]
    kl = sum(np.sum(_kl_by_loops(mean[b, c][None], logvar[b, c][None])) for b, c in there) / 2
    nll = 0.5 * (np.square(IMAGE[0]).sum() + np.square(IMAGE[1, ..., 1]).sum()) / 2
    np.testing.assert_allclose(loss, nll + kl, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["kl"], kl, rtol=1e-5)
    assert aux.totals["count"] == 3
    # What is free is a dimension of one vector, in the unit that is logged; there are 1.5 vectors per image.
    per_dim = np.mean([_kl_by_loops(mean[b, c][None], logvar[b, c][None])[0] for b, c in there], axis=0)
    np.testing.assert_allclose(summarize_latents(jax.device_get(aux.totals))["kl_per_dim"], per_dim, rtol=1e-4)
    bound = float(np.median(per_dim))
    free, _ = _value(vae, {"mean": mean, "logvar": logvar}, IMAGE[:2], weight, free_nats=bound)
    np.testing.assert_allclose(free, nll + 1.5 * np.maximum(per_dim, bound).sum(), rtol=1e-5)


def test_a_collapsed_posterior_has_no_active_unit():
    out = {"mean": np.zeros((4, 3), np.float32), "logvar": np.zeros((4, 3), np.float32)}
    _, aux = _value(vae, out, IMAGE, np.ones((4, 2), np.float32))
    assert aux.metrics["kl"] == 0
    assert summarize_latents(jax.device_get(aux.totals)) == {"active_units": 0, "kl_per_dim": [0.0, 0.0, 0.0]}


class _KnownPatches(_Known):
    encoder = SimpleNamespace(patch_size=2)


@pytest.mark.parametrize("channel_tokens", [False, True])
def test_mae_looks_at_removed_patches_alone(channel_tokens):
    """6 patches of 2 x 2 pixels and 2 channels, together or each channel with its own; image 3 is padding."""
    image = RNG.normal(size=(4, 4, 6, 2)).astype(np.float32)
    tokens, values = (12, 4) if channel_tokens else (6, 8)
    prediction, target = RNG.normal(size=(2, 4, tokens, values)).astype(np.float32)
    token_mask = RNG.random((4, tokens)) < 0.5
    weight = THREE.copy()
    weight[1, 1] = 0  # a channel that is not there
    per_image = []
    for b in range(3):
        errors = []
        for t in np.flatnonzero(token_mask[b]):
            difference = np.square(prediction[b, t] - target[b, t])
            channels = [t // 6] if channel_tokens else [0, 1]
            for c in channels:
                if weight[b, c]:
                    errors.append(difference.mean() if channel_tokens else difference[c::2].mean())
        per_image.append(np.mean(errors))
    out = {"prediction": prediction, "target": target, "token_mask": token_mask}
    model = _KnownPatches({name: jnp.asarray(value) for name, value in out.items()})
    batch = unlabeled_batch(jnp.asarray(image), jnp.asarray(weight))
    losses = {}
    for fourier in (0.0, 2.0):
        config = _objective_config(fourier_weight=fourier)
        losses[fourier], aux = mae(model, config, {}, {}, batch, jnp.int32(0), KEY, train=False)
        np.testing.assert_allclose(aux.metrics["recon"], np.mean(per_image), rtol=1e-5)
        assert ("fourier" in aux.metrics) == (fourier > 0)
    np.testing.assert_allclose(losses[2.0] - losses[0.0], 2 * aux.metrics["fourier"], rtol=1e-5)


@pytest.mark.parametrize("form", ["channels", "pull", "replicates"])
def test_the_contrastive_term_is_added_with_its_weight(form):
    out = {
        "channel_embeddings": RNG.normal(size=(4, 2, 3)).astype(np.float32),
        "channels_kept": np.ones((4, 2), bool),
        "embedding": RNG.normal(size=(4, 3)).astype(np.float32),
    }
    number = jnp.arange(4)
    origin = Origin(number, number, plate=number % 2, treatment=number // 2)
    batch = Batch(jnp.asarray(IMAGE), jnp.ones((4, 2)), None, origin)
    model = _Known({name: jnp.asarray(value) for name, value in out.items()})

    def value(weight):
        config = _objective_config(contrastive={"weight": weight, "form": form})
        return ae(model, config, {}, {}, batch, jnp.int32(0), KEY, train=False)

    (without, _), (once, aux), (thrice, _) = value(0.0), value(1.0), value(3.0)
    assert aux.metrics["contrastive"] > 0
    np.testing.assert_allclose(once - without, aux.metrics["contrastive"], rtol=1e-4)
    np.testing.assert_allclose(thrice - without, 3 * aux.metrics["contrastive"], rtol=1e-4)


@pytest.mark.parametrize("form", ["channels", "pull"])
def test_a_channel_without_a_token_is_compared_with_nothing(form):
    """As one that the image does not have: neither its embedding nor that of another image is pulled to its zeros."""
    kept = np.asarray([[1, 1], [1, 1], [0, 1], [1, 1]], bool)
    embeddings = np.where(kept[..., None], RNG.normal(size=(4, 2, 3)), 0).astype(np.float32)

    def term(channels_kept, weight):
        out = {"channel_embeddings": embeddings, "channels_kept": channels_kept}
        _, aux = _value(ae, out, IMAGE, weight, contrastive={"weight": 1.0, "form": form})
        return float(aux.metrics["contrastive"])

    everything = np.ones((4, 2), np.float32)
    assert term(kept, everything) == term(np.ones((4, 2), bool), kept.astype(np.float32))
    assert term(kept, everything) != term(np.ones((4, 2), bool), everything)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(SIZES, "Ti", ViTSize(16, 2, 2, 24))


def _real(name, **model):
    config = base.get_config("tiny", "base")
    config.model.name = name
    config.model.cpu_kernels, config.model.residual_stack.num_residual_layers = False, 1
    config.model.quantizer.kmeans_iterations = 0
    config.model.update(model)
    config.data.crop_size = (16, 16)
    config.model.vit.update(size="Ti", patch_size=8, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return check_config(ConfigDict(config.to_dict()))


def _variables(config, channels, image):
    """Drawn without a program that is compiled for it; what is counted is 1."""
    model, rng = build_model(config, channels), np.random.default_rng(1)
    shapes = jax.eval_shape(lambda image: initial_variables(model, image, KEY), image)

    def draw(path, leaf):
        if path[-1].key in ("kernel", "codebook"):
            return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)
        if path[0].key == "params":
            return (0.1 * rng.normal(size=leaf.shape)).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("cluster_size", "distortion"), leaf.dtype)

    variables = jax.tree.map_with_path(draw, shapes)
    return model, variables.pop("params"), variables


def test_loss_and_gradient_do_not_depend_on_the_batch_size():
    """The predecessor's loss was 87, 661 and 5047 for 1, 8 and 64 copies of an image (PEERS B1.6)."""
    config = _real("vqvae")
    image = jax.random.normal(KEY, (1, 16, 16, 2))
    model, params, state = _variables(config, 2, image)

    def value(params, n):
        batch = unlabeled_batch(jnp.repeat(image, n, axis=0), jnp.ones((n, 2)))
        return vqvae(model, config.objective, params, state, batch, jnp.int32(0), KEY, train=True)[0]

    gradient = jax.jit(jax.value_and_grad(value), static_argnums=1)
    one = gradient(params, 1)
    many = gradient(params, 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, many)


def test_state_moves_only_in_training():
    config = _real("vqvae")
    image = jax.random.normal(KEY, (4, 16, 16, 1))
    model, params, state = _variables(config, 1, image)
    batch = unlabeled_batch(image, jnp.ones((4, 1)))
    step = jax.jit(
        lambda train: vqvae(model, config.objective, params, state, batch, jnp.int32(0), KEY, train=train)[1],
        static_argnums=0,
    )
    for train in (False, True):
        aux = step(train)
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), dict(aux.model_state), state)
        assert any(jax.tree.leaves(moved)) == train


def test_what_pads_a_batch_counts_for_nothing_in_the_terms_of_matrices():
    terms = dict.fromkeys(("diagonal", "symmetry", "non_negativity", "triangle"), 1.0)
    config = _objective_config(matrix={"reindexed": True, **terms})
    d, d_hat = jax.random.normal(KEY, (2, 3, 9, 9, 1))
    d = d + d.swapaxes(1, 2)

    def metrics(rows, weight):
        batch = unlabeled_batch(d[rows], weight)
        return ae(_Says(d_hat[rows]), config, {}, {}, batch, jnp.int32(0), KEY, train=False)[1].metrics

    padded = metrics(slice(3), jnp.asarray([[1.0], [1.0], [0.0]]))
    alone = metrics(slice(2), jnp.ones((2, 1)))
    assert terms.keys() < alone.keys()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), padded, alone)
    diagonals = np.diagonal(d_hat[:2, ..., 0], axis1=1, axis2=2)
    np.testing.assert_allclose(alone["diagonal"], np.square(diagonals).mean(), rtol=1e-6)


@pytest.mark.parametrize("name", ["ae", "vae", "vqvae", "mae"])
def test_what_pads_a_batch_counts_for_nothing(name):
    """Of the other methods, which take several views: `test_compared_views.py`."""
    config = _real(name, **({"encoder": "vit"} if name == "mae" else {}))
    image = jax.random.normal(KEY, (3, 16, 16, 2))
    model, params, state = _variables(config, 2, image)

    @jax.jit
    def metrics(image, weight):
        batch = unlabeled_batch(image, weight)
        aux = METHODS[name].objective(model, config.objective, params, state, batch, jnp.int32(0), KEY, train=False)[1]
        return aux.metrics, aux.totals

    weight = jnp.asarray([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    other = image.at[2].set(7.0)
    jax.tree.map(np.testing.assert_array_equal, metrics(image, weight), metrics(other, weight))

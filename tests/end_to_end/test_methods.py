"""Every method trains for a few steps, embeds and draws, through the one loop."""

import gzip
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from bie_jax.config.rules import check_config
from bie_jax.evaluation.embedding import load, load_readout, write_embeddings
from bie_jax.models.pretrained.huggingface import load_huggingface
from bie_jax.objectives import METHODS, build_model
from bie_jax.objectives.base import Aux, Method, no_summary
from bie_jax.train import train_and_evaluate
from bie_jax.training.checkpoint import load_model
from bie_jax.training.sharding import on_first_device
from bie_jax.training.state import initial_variables
from configs import ae_idr0093, dino_idr0093, mae_idr0093, vae_idr0093, vqvae_idr0093

CODES = {"val/vq", "val/perplexity", "val/codes_used", "val/capacity_bits"}
RUNS = {
    "ae": (ae_idr0093, {}, {"val/recon"}),
    "vae": (
        vae_idr0093,
        {},
        {"val/nll", "val/kl", "val/active_units", "val/kl_per_dim", "train/active_units"},
    ),
    "mae": (mae_idr0093, {"fourier_weight": 0.01}, {"val/recon", "val/fourier"}),
    "mae of channel tokens": (mae_idr0093, {"channels": "tokens", "channel_dropout": 0.2}, {"val/recon"}),
    "ae of single channels, contrastive": (
        ae_idr0093,
        {"encoder": "residual_stack", "channels": "independent", "contrastive": 0.1},
        {"val/contrastive"},
    ),
    "vqvae, codes by gradient": (vqvae_idr0093, {"quantizer": {"name": "gradient", "kmeans_iterations": 2}}, CODES),
    "vqvae, codes of residuals": (
        vqvae_idr0093,
        {"quantizer": {"name": "residual", "num_residuals": 2, "num_codes": 9}},
        CODES,
    ),
    "vqvae, fixed codes": (vqvae_idr0093, {"quantizer": {"name": "fsq", "levels": (8, 2), "code_dim": 2}}, CODES),
}


def _tiny(module, datasets):
    """One epoch of networks whose compilation takes least."""
    config = module.get_config("tiny")
    config.data.data_dir = datasets
    config.train.batch_size, config.train.epochs, config.train.checkpoint_every_steps = 16, 1, 1000
    config.optimizer.warmup_epochs = config.optimizer.cooldown_epochs = 0
    config.model.residual_stack.num_residual_layers = 1
    config.model.resnet.depth, config.model.resnet.width = 10, 4
    config.model.vit.decoder_width, config.model.vit.decoder_depth, config.model.vit.decoder_heads = 32, 1, 2
    return config


@pytest.mark.parametrize("name", RUNS)
def test_a_method_trains_and_embeds(name, datasets, tmp_path):
    module, changes, expected = RUNS[name]
    config = _tiny(module, datasets)
    config.objective.fourier_weight = changes.get("fourier_weight", 0.0)
    config.objective.contrastive.weight = changes.get("contrastive", 0.0)
    config.model.update({key: value for key, value in changes.items() if key in config.model})
    config.train.profile_steps = 2 if name == "vae" else 0
    workdir = tmp_path / "run"
    train_and_evaluate(config, workdir)

    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert expected <= lines[-1].keys()
    assert len(list((workdir / "reconstructions").glob("*.png"))) == 1
    table = write_embeddings(workdir)
    assert table.equals(pd.read_parquet(workdir / "embeddings.parquet"))
    features = table.filter(like=f"{config.model.name}_").to_numpy()
    assert features.shape == (len(table), config.model.latent_dim)
    assert np.isfinite(features).all()
    # Where there are more codes, principal components stand for how often they occur.
    assert (workdir / "components.npz").exists() == (name == "vqvae, codes of residuals")
    if name == "vqvae, codes of residuals":
        assert load_readout(workdir).dim == 18
        assert load(workdir).dim == features.shape[1] == 16
    assert features.std(axis=0).max() > 0
    assert (workdir / "codebook.npz").exists() == (config.model.name == "vqvae")
    assert (workdir / "profile").exists() == (name == "vae")
    if config.train.profile_steps:
        (trace,) = workdir.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))
        named = [event["name"] for event in events["traceEvents"] if "name" in event]
        assert sum("train_step" in event for event in named) >= 2
        assert list(trace.parent.glob("*.xplane.pb"))
    pictures = np.load(workdir / "reconstructions.npz")
    assert pictures["image"].shape == pictures["reconstruction"].shape


class _Averages(nn.Module):
    """The mean of every channel is all it knows of an image."""

    latent_dim: int

    def setup(self):
        self.latent = nn.Dense(self.latent_dim)

    @nn.compact
    def __call__(self, image, channel_mask=None, *, train):
        z, out = self.encode(image, channel_mask, train=train)
        color = nn.Dense(image.shape[-1], name="color")(z)
        return jnp.broadcast_to(color[:, None, None], image.shape), out

    def encode(self, image, channel_mask=None, *, train):
        features = image.mean((1, 2))
        z = self.latent(features)
        return z, {"embedding": z, "features": features}


def _absolute_error(model, config, params, model_state, batch, step, key, *, train, teacher):
    reconstruction, _ = model.apply({"params": params, **model_state}, batch.image, batch.channel_mask, train=train)
    loss = config.reconstruction * jnp.abs(batch.image - reconstruction).mean()
    return loss, Aux({"loss": loss, "recon": loss}, {}, model_state, reconstruction)


def test_a_new_method_is_a_network_a_loss_and_one_entry(datasets, tmp_path, monkeypatch):
    """It is checked, trained, validated, saved, drawn and embedded without a line elsewhere."""
    method = Method(lambda config, num_channels, **_: _Averages(config.latent_dim), _absolute_error, no_summary)
    monkeypatch.setitem(METHODS, "averages", method)
    config = _tiny(ae_idr0093, datasets)
    config.model.name, config.model.encoder = "averages", "residual_stack"
    train_and_evaluate(config, tmp_path / "run")
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"val/loss", "val/recon"} <= last.keys()
    features = write_embeddings(tmp_path / "run").filter(like="averages_").to_numpy()
    assert features.shape[1] == config.model.latent_dim
    assert features.std(axis=0).max() > 0


def test_published_weights_train_and_embed(torch, datasets, tmp_path):
    """From a folder that `transformers` wrote to embeddings; a frozen encoder ends with the weights of the file."""
    torch.manual_seed(0)
    published = ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=32, patch_size=8
    )
    network = ViTModel(published, add_pooling_layer=False)
    network.save_pretrained(tmp_path / "published")
    config = _tiny(ae_idr0093, datasets)
    config.model.encoder, config.model.vit.size, config.model.vit.patch_size = "vit", "Ti", 8
    config.model.vit.positions = "learnt"
    config.model.pretrained, config.optimizer.freeze = str(tmp_path / "published"), ("encoder",)
    workdir = tmp_path / "run"
    train_and_evaluate(config, workdir)
    table = write_embeddings(workdir)
    assert np.isfinite(table.filter(like="ae_").to_numpy()).all()
    model = build_model(check_config(config), 5)
    blank = np.zeros((1, 32, 32, 5), np.float32)
    shapes = on_first_device(jax.eval_shape(lambda key: initial_variables(model, blank, key), jax.random.key(0)))
    given = load_huggingface(tmp_path / "published", shapes["params"], {})["params"]["encoder"]
    trained = load_model(workdir, shapes)[0]["params"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, trained, given)
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    queries = [value for name, value in weights.items() if name.endswith("q_proj.weight")]
    kernels = np.asarray(trained["blocks"]["qkv"]["kernel"])[:, :, 0]  # [12, 192, 3, 64]
    np.testing.assert_array_equal(kernels.reshape(12, 192, 192), np.swapaxes(queries, 1, 2))


def test_dinov2_is_trained_on_with_dino_at_a_rate_for_each_block(torch, datasets, tmp_path):
    """Weights of 3 channels serve 5; the last blocks move, the first hardly do."""
    torch.manual_seed(0)
    published = Dinov2Config(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, image_size=28, patch_size=14)
    Dinov2Model(published).save_pretrained(tmp_path / "published")
    config = _tiny(dino_idr0093, datasets)
    config.model.encoder, config.model.pretrained = "vit", str(tmp_path / "published")
    config.model.vit.update({"size": "Ti", "patch_size": 14, "positions": "learnt", "layer_scale": True})
    config.data.crop_size = (28, 28)
    config.optimizer.layer_decay = 0.5
    config.optimizer.freeze = ()
    workdir = tmp_path / "run"
    train_and_evaluate(config, workdir)
    assert np.isfinite(write_embeddings(workdir).filter(like="dino_").to_numpy()).all()
    model = build_model(check_config(config), 5)
    blank = np.zeros((1, 28, 28, 5), np.float32)
    shapes = on_first_device(jax.eval_shape(lambda key: initial_variables(model, blank, key), jax.random.key(0)))
    given = load_huggingface(tmp_path / "published", shapes["params"], {})["params"]["encoder"]
    trained = load_model(workdir, shapes)[0]["params"]["encoder"]
    kernels = (np.asarray(encoder["blocks"]["qkv"]["kernel"]) for encoder in (trained, given))
    moved = np.abs(np.subtract(*kernels)).reshape(12, -1).mean(axis=1)
    # Half as far from block to block. AdamW's steps are of one size, and moving averages share theirs out alike.
    np.testing.assert_allclose(moved[1:] / moved[:-1], 2, rtol=0.3)

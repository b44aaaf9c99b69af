"""Every method trains for a few steps, embeds and draws, through the one loop."""

import json

import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.embed import write_embeddings
from bie_jax.train import train_and_evaluate
from configs import ae_idr0093, mae_idr0093, vae_idr0093

RUNS = {
    "ae": (ae_idr0093, {}, {"val/recon"}),
    "vae": (
        vae_idr0093,
        {"encoder": "residual_stack"},
        {"val/nll", "val/kl", "val/active_units", "val/kl_per_dim", "train/active_units"},
    ),
    "mae": (mae_idr0093, {"fourier_weight": 0.01}, {"val/recon", "val/fourier"}),
    "mae of channel tokens": (mae_idr0093, {"channels": "tokens", "channel_dropout": 0.2}, {"val/recon"}),
    "ae of single channels, contrastive": (
        ae_idr0093,
        {"encoder": "residual_stack", "channels": "independent", "contrastive": 0.1},
        {"val/contrastive"},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_method_trains_and_embeds(name, datasets, tmp_path):
    module, changes, expected = RUNS[name]
    config = module.get_config("tiny")
    config.data.data_dir = datasets
    config.train.batch_size, config.optimizer.cooldown_epochs = 16, 0
    config.optimizer.warmup_epochs = 0
    config.train.epochs = 1
    config.objective.fourier_weight = changes.get("fourier_weight", 0.0)
    config.objective.contrastive.weight = changes.get("contrastive", 0.0)
    config.model.update({key: value for key, value in changes.items() if key in config.model})
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
    assert features.std(axis=0).max() > 0
    assert not (workdir / "codebook.npz").exists()
    pictures = np.load(workdir / "reconstructions.npz")
    assert pictures["image"].shape == pictures["reconstruction"].shape

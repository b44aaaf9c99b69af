"""A posterior and a codebook that collapse in training are seen in what is logged."""

import json

import pytest

from bie_jax.train import train_and_evaluate
from configs import vae_idr0093, vqvae_idr0093


def _last_validation(config, lr, datasets, workdir):
    config.data.data_dir = datasets
    config.train.batch_size, config.train.epochs = 16, 6
    config.optimizer.name, config.optimizer.lr, config.optimizer.min_lr = "adamw", lr, lr
    config.optimizer.warmup_epochs, config.optimizer.cooldown_epochs = 0, 0
    config.train.min_epoch_steps = 10
    config.train.eval_every_epochs, config.train.checkpoint_every_steps = 6, 1000
    config.model.residual_stack.num_residual_layers = 1
    train_and_evaluate(config, workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "val/loss" in line][-1]


@pytest.mark.parametrize(("beta", "collapsed"), [(1e4, True), (1e-3, False)])
def test_a_collapsed_posterior(beta, collapsed, datasets, tmp_path):
    config = vae_idr0093.get_config("tiny")
    config.model.encoder = "residual_stack"
    config.objective.beta = beta
    logged = _last_validation(config, 1e-2, datasets, tmp_path / "run")
    assert (logged["val/active_units"] == 0) == collapsed
    assert (logged["val/kl"] < 0.1) == collapsed
    assert (max(logged["val/kl_per_dim"]) < 0.01) == collapsed


@pytest.mark.parametrize("collapsed", [True, False])
def test_a_collapsed_codebook(collapsed, datasets, tmp_path):
    """Drawn to their codes faster than the codes can part, vectors end at one of them; no dead code is restarted."""
    config = vqvae_idr0093.get_config("tiny")
    if collapsed:
        config.model.quantizer.commitment_cost, config.model.quantizer.restart_threshold = 100.0, 0.0
    logged = _last_validation(config, 1e-2 if collapsed else 1e-3, datasets, tmp_path / "run")
    assert (logged["val/perplexity"] < 2) == collapsed
    assert (logged["train/codes_used"] < config.model.quantizer.num_codes / 2) == collapsed

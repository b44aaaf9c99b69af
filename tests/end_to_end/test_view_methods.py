"""Methods that compare views, through the one loop: trained, stopped and gone on with, embedded, collapsed."""

import json

import numpy as np
import pandas as pd
import pytest

import bie_jax
from bie_jax.evaluation.embedding import load_untrained, write_embeddings
from bie_jax.train import CollapsedError, train_and_evaluate
from configs import dino_idr0093, lejepa_idr0093, simclr_idr0093


def _lines(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]


@pytest.fixture
def dino_config(datasets):
    """Ten steps with all that a step may have: local crops, partners of the same label, a teacher that grows old."""
    config = dino_idr0093.get_config("tiny")
    config.data.data_dir = datasets
    config.data.positives = "treatment"
    config.data.augment.area, config.data.augment.blur = (0.5, 1.0), 1.0
    config.model.encoder, config.model.residual_stack.num_residual_layers = "residual_stack", 1
    config.objective.crops.num_local, config.objective.crops.local_area = 1, (0.1, 0.4)
    config.objective.dino.koleo, config.objective.dino.frozen_prototype_steps = 0.1, 2
    config.objective.dino.teacher_temperature_steps = 4
    config.optimizer.weight_decay_growth = 10.0
    config.optimizer.warmup_epochs = 0
    config.train.epochs, config.train.checkpoint_every_steps, config.train.log_every_steps = 2, 3, 1
    config.eval.readout = "layers"
    return config


def test_dino_goes_on_to_the_bit_and_its_newest_network_embeds(dino_config, tmp_path, monkeypatch, capsys):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    result = train_and_evaluate(dino_config, straight)
    assert "second views: " in capsys.readouterr().out
    original, saves = bie_jax.training.checkpoint.Checkpoints.save, []

    def stop_after_two(self, *arguments):
        original(self, *arguments)
        saves.append(arguments)
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(bie_jax.training.checkpoint.Checkpoints, "save", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(dino_config, resumed)
    assert train_and_evaluate(dino_config, resumed) == result
    lines = _lines(straight)
    assert _lines(resumed) == lines
    last = lines[-1]
    assert result["step"] == last["step"] == 14  # whatever the validation losses before it were
    assert {"val/distillation", "val/koleo", "val/entropy_of_mean_target", "val/embedding_std"} <= last.keys()
    assert not list(straight.glob("reconstructions/*"))

    tables = [write_embeddings(workdir).filter(like="dino_").to_numpy() for workdir in (straight, resumed)]
    np.testing.assert_array_equal(*tables)
    assert tables[0].shape[1] == 3 * (4 + 8 + 8)
    (untrained,) = load_untrained(straight, [0])
    assert untrained.widths == (dino_config.model.latent_dim, tables[0].shape[1])


def test_lejepa_trains_and_embeds(datasets, tmp_path):
    config = lejepa_idr0093.get_config("tiny")
    config.data.data_dir = datasets
    config.optimizer.warmup_epochs, config.train.epochs = 0, 1
    config.eval.readout = "statistics"
    train_and_evaluate(config, tmp_path / "run")
    assert np.isfinite(_lines(tmp_path / "run")[-1]["val/loss"])
    table = write_embeddings(tmp_path / "run")
    assert table.equals(pd.read_parquet(tmp_path / "run" / "embeddings.parquet"))
    features = table.filter(like="lejepa_").to_numpy()
    assert features.shape == (len(table), 3 * 64)
    assert np.ptp(features, axis=0).max() > 0


def test_a_run_of_one_method_starts_from_another(datasets, tmp_path, capsys):
    """Names of parameters are the same, so that all but the head is taken."""
    config = simclr_idr0093.get_config("tiny")
    config.data.data_dir, config.optimizer.warmup_epochs, config.train.epochs = datasets, 0, 1
    train_and_evaluate(config, tmp_path / "first")
    capsys.readouterr()
    second = dino_idr0093.get_config("tiny")
    second.data.data_dir, second.optimizer.warmup_epochs, second.train.epochs = datasets, 0, 1
    second.train.init_from = str(tmp_path / "first")
    train_and_evaluate(second, tmp_path / "second")
    said = next(line for line in capsys.readouterr().out.splitlines() if "arrays taken" in line)
    fresh = said.split("at random start ")[1].split(", ")
    assert set(fresh) == {"params/head/prototypes", "center/head/logits"}


def test_a_collapsed_run_ends_in_one_line(datasets, tmp_path):
    """Without anything that keeps projections apart, equal ones cost nothing."""
    config = lejepa_idr0093.get_config("tiny")
    config.data.data_dir = datasets
    config.objective.lejepa.sigreg = 0.0001
    config.optimizer.lr, config.optimizer.weight_decay = 0.05, 1.0
    config.optimizer.warmup_epochs, config.train.epochs, config.train.stop_at_collapse = 0, 30, True
    with pytest.raises(CollapsedError, match=r"the embeddings have collapsed at step \d+: embedding_std=") as error:
        train_and_evaluate(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    stds = [line["val/embedding_std"] for line in _lines(tmp_path / "run") if "val/embedding_std" in line]
    assert stds[-1] < 0.01 < stds[0]

import json

import numpy as np
import pytest

from bie_jax.evaluation.report.codebook import codebook_use
from bie_jax.evaluation.report.training_curves import loss_curves, read_metrics


def test_metrics_of_a_killed_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"ste\n{"step": 2}\n')
    with pytest.raises(json.JSONDecodeError):
        read_metrics(path)


def test_figures_are_the_same_twice_and_take_any_number_of_terms():
    records = [
        {"step": 1, "epoch": 0.5, "train/loss": 1.0, "train/kl_<x>": -1.0},
        {"step": 2, "epoch": 1.0, "val/loss": 2.0},
    ]
    svg = loss_curves(records)
    assert svg == loss_curves(records)
    assert "Total loss" in svg
    assert "training" in svg
    assert "validation" in svg
    assert loss_curves([]) is None
    many = codebook_use(np.random.default_rng(0).integers(0, 9, (4, 32)))
    assert "group" in many

"""A published encoder beside a trained one, from the command's configuration to the report."""

import json
import shutil

import pandas as pd
import pytest
from transformers import ViTImageProcessor

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.config.stored import save_config
from bie_jax.evaluation.embedding import write_embeddings
from bie_jax.evaluation.evaluate import evaluate
from bie_jax.train import train_and_evaluate
from tests.unit.models.tiny_models import randomized, vit

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(torch, tmp_path):
    """A ViT, as `save_pretrained` leaves it."""
    randomized(vit(num_hidden_layers=1)).save_pretrained(tmp_path / "vit-tiny")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit-tiny")
    return tmp_path / "vit-tiny"


def test_a_published_encoder_is_scored_beside_ours(folder, trained_workdir, tiny_config, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained_workdir[0], workdir)
    quick = {"classical_baseline": False, "bootstrap": 2, "trees": 1, "folds": 2, "umap": False}
    tiny_config.eval.update({**quick, "published": str(folder)})
    save_config(check_config(tiny_config), workdir)
    write_embeddings(workdir)
    scores = evaluate(workdir)
    rows = pd.DataFrame(scores["rows"])
    of_set = {
        key: part.drop(columns=["feature_set", "value", "low", "high"]) for key, part in rows.groupby("feature_set")
    }
    ours, theirs = (
        of_set[key].sort_values(["normalization", "split", "classifier", "metric"])
        for key in ("trained_encoder", "published_encoder")
    )
    pd.testing.assert_frame_equal(
        ours.reset_index(drop=True), theirs.reset_index(drop=True)
    )  # every score that ours has
    assert {*scores["normalizations"]} == {*rows.loc[rows["feature_set"] == "published_encoder", "normalization"]}
    page = (workdir / "report" / "index.html").read_text()
    assert "Published encoder, frozen (vit-tiny)" in page
    assert "PCA of published encoder, frozen (vit-tiny) features" in page
    assert "published.npz" in json.loads((workdir / "checksums.json").read_text())["files"]


def test_one_that_is_not_there_is_refused_before_anything_is_written(tiny_config, tmp_path):
    tiny_config.eval.published = str(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"config.eval.published='.*absent': there is no folder .*absent"):
        train_and_evaluate(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

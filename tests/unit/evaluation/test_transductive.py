import pandas as pd
import pytest

from bie_jax.config.rules import check_config
from bie_jax.evaluation.scores.keys import UNSEEN
from bie_jax.evaluation.transductive import column_that_taught, transductive_note
from tests.unit.evaluation.layouts import layout

pytestmark = pytest.mark.slow


def test_the_transductive_note_counts_the_training_images(finished):
    workdir, scores = finished
    table = pd.read_parquet(workdir / "embeddings.parquet")
    train = int((table["Metadata_split"] == "train").sum())
    assert f"on {train} of these 108 images" in scores["transductive"]
    assert "transductive" in scores["transductive"]
    assert "trained without labels" in scores["transductive"]


def test_scores_of_unseen_images_are_explained_where_there_are_some():
    metadata, _ = layout()
    for splits, there in (([UNSEEN], True), (["leave_plate_out"], False)):
        note = transductive_note(metadata, None, splits, "")
        assert ("unseen by the encoder are not" in note) == there


def test_a_column_that_placed_images_on_both_sides_is_named():
    metadata, _ = layout()
    assert "decided with a look at the column moa, so that" in transductive_note(metadata, None, [], "moa")
    assert "with a look" not in transductive_note(metadata, None, [], "")


def test_an_encoder_that_was_taught_with_a_column_says_so(tiny_config):
    config = check_config(tiny_config)
    metadata, _ = layout()
    for positives, weight, form, taught in (
        ("same_image", 0.1, "replicates", True),
        ("same_image", 0.0, "replicates", False),
        ("same_image", 0.1, "channels", False),
        ("site", 0.0, "views", False),
        ("treatment", 0.0, "views", True),
    ):
        contrastive = {"weight": weight, "form": form, "treatment": "gene"}
        changed = config.model_copy(
            update={
                "data": config.data.model_copy(update={"positives": positives, "treatment": "gene"}),
                "objective": config.objective.model_copy(
                    update={"contrastive": config.objective.contrastive.model_copy(update=contrastive)}
                ),
            }
        )
        note = transductive_note(metadata, column_that_taught(changed), [], "")
        assert ("trained with the column gene" in note) == taught
        assert ("without labels on" in note) != taught

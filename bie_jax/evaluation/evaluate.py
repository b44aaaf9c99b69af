"""From the embeddings in a workdir to `scores.json`, `scores.parquet` and `report/index.html`.

The trained encoder is scored beside the baselines that it has to beat: the majority class, its own architecture with
random weights (published encoders have lost to that), principal components of the pixels or the matrices, hand-made
features (intensity, texture and regions of images, region properties and Fourier descriptors of shapes), and a
published encoder where one is named. All are compared alike: on the same images and folds, under every normalization
that one of them gets, random weights as the mean of several seeds.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bie_jax.config.schema import Config, EvalConfig
from bie_jax.config.stored import load_config
from bie_jax.evaluation.baselines.appended import appended_columns
from bie_jax.evaluation.baselines.cell_count import cell_counts
from bie_jax.evaluation.baselines.published import published_features
from bie_jax.evaluation.baselines.published_weights import open_published
from bie_jax.evaluation.compared import compared_rows, sampled_note
from bie_jax.evaluation.embedding.read import EmbeddedSet, read_embedded_set
from bie_jax.evaluation.encoders import encoder_features, read_out
from bie_jax.evaluation.feature_set import FeatureSet, without_broken
from bie_jax.evaluation.kinds import KINDS
from bie_jax.evaluation.report.content import Content
from bie_jax.evaluation.report.map import draw_maps, sample_points
from bie_jax.evaluation.report.page import write_report
from bie_jax.evaluation.report.training_curves import read_metrics
from bie_jax.evaluation.report.treatments.content import treatment_content
from bie_jax.evaluation.scores.file import Scores, describe_set, write_scores
from bie_jax.evaluation.scores.keys import TRAINED_ON_ALL
from bie_jax.evaluation.scores.plan import plan_scores
from bie_jax.evaluation.scores.rows import write_score_table
from bie_jax.evaluation.scores.score import score_features
from bie_jax.evaluation.transductive import column_that_taught, transductive_note
from bie_jax.evaluation.treatments.plan import TreatmentPlan, plan_treatments
from bie_jax.evaluation.treatments.score import ScoredTreatments, beside, score_treatments, treatment_rows
from bie_jax.evaluation.treatments.write import write_profiles
from bie_jax.files.foreign_text import visible
from bie_jax.training import run_files
from bie_jax.training.writers.log import LOG


def evaluate(workdir: str | Path) -> Scores:
    """Score the embeddings of a workdir beside their baselines, and write scores and report.

    Args:
        workdir: what the train and embed stages left.

    Returns:
        The content of `scores.json`.

    Raises:
        ConfigError: no configuration there, a column that does not exist, or a published encoder that cannot be read.
        EvaluationError: files that do not fit each other.
        SetNotBuiltError: the set is not built.
        DamagedFileError, StaleFileError: no embeddings, or of other images or another configuration.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    with run_files.opened(workdir):
        return _evaluate(workdir, config)


def _evaluate(workdir: Path, config: Config) -> Scores:
    started = time.monotonic()
    settings = config.eval

    # --- Read: what the report shows, too, is refused before the hours of scoring.
    whole = read_embedded_set(workdir, config)
    read_metrics(workdir / LOG)
    kind = KINDS[whole.image_set.kind]
    encoder = open_published(config, len(whole.image_set.channel_names))

    # --- Plan: all sets of features are compared on the same images, of a large set on some.
    planned = plan_treatments(whole.metadata, whole.metadata["split"].to_numpy(), settings)
    rows = compared_rows(whole.metadata, settings)
    embedded = whole.part(rows)
    metadata = embedded.metadata
    plan = plan_scores(metadata, metadata["split"].to_numpy(), settings)
    for note in plan.notes:
        print(f"scores: {visible(note)}")
    for note in () if planned is None else planned.notes:
        print(f"treatments: {visible(note)}")
    shown = sample_points(len(metadata), settings.max_report_points, settings.seed)

    # --- Features
    hand_made = kind.hand_made(embedded.image_set, shown, settings.classical_baseline)
    finite, broken = without_broken([*hand_made.feature_sets, *cell_counts(embedded.image_set, settings)])
    readout = read_out(workdir, embedded, config.num_components)
    trained, *untrained = encoder_features(workdir, embedded, readout, config)
    published = published_features(workdir, embedded, encoder, config)
    baselines = [*untrained, *finite, *appended_columns(finite, embedded.appended, settings.append), *published]

    # --- Score
    scored = score_features([trained, *baselines], plan, settings)
    scored["notes"] += broken
    if len(rows) < len(whole.metadata):
        scored["notes"].insert(0, sampled_note(len(rows), len(whole.metadata)))
    table = dataclasses.replace(trained, features=embedded.features, components=None)  # what stands in the files
    treatments = None if planned is None else _treatments([table, *baselines], whole, embedded, planned, settings)
    if treatments is not None:
        scored["rows"] += treatment_rows(treatments.scores)
    scores: Scores = {
        "set": describe_set(whole.image_set, whole.metadata),
        "model": embedded.model,
        "made_from": embedded.made_from,
        **scored,
        "treatments": None if treatments is None else treatments.scores,
        "transductive": transductive_note(
            metadata, column_that_taught(config), scored["splits"], config.data.stratify_by
        ),
        "invariances": [],
        "seconds": round(time.monotonic() - started, 1),
    }

    # --- Write: what is finished is kept, for whatever comes after it may be stopped.
    write_score_table(workdir / run_files.SCORES_TABLE, scores["rows"], embedded.made_from)
    write_scores(workdir / run_files.SCORES, scores)
    if treatments is not None:
        write_profiles(workdir, treatments, settings, embedded.model, embedded.made_from)

    # --- Show: the maps are of the table itself.
    def draw(rows: np.ndarray, side: int) -> list[Image.Image]:
        return kind.tiles(whole.image_set, rows, side)

    content = Content(
        workdir=workdir,
        config=config,
        scores=scores,
        metadata=metadata.iloc[shown].assign(row=rows[shown]).reset_index(drop=True),
        projections=draw_maps([table, *baselines], shown, settings.seed, plan.umap),
        tiles=hand_made.tiles,
        pictures=kind.pictures(workdir, embedded, metadata[settings.label].to_numpy(), settings.seed),
        treatments=None if treatments is None else treatment_content(treatments, settings.profile, draw),
    )
    write_report(content)

    # --- Invariances, which take longest, one by one.
    for invariance in kind.invariances(workdir, embedded, readout, plan.labels, config):
        scores["invariances"].append(invariance)
        scores["seconds"] = round(time.monotonic() - started, 1)
        write_scores(workdir / run_files.SCORES, scores)
    if scores["invariances"]:
        write_report(content)
    return scores


def _treatments(
    feature_sets: list[FeatureSet],
    whole: EmbeddedSet,
    compared: EmbeddedSet,
    planned: TreatmentPlan,
    settings: EvalConfig,
) -> ScoredTreatments:
    """Treatments of all sets of features; where these are of some images alone, those of the embeddings of all too."""
    if len(compared.metadata) == len(whole.metadata):
        return score_treatments(feature_sets, planned, settings)
    everything = FeatureSet(TRAINED_ON_ALL, f"{feature_sets[0].title}, all images", "", whole.features)
    plan = plan_treatments(compared.metadata, compared.metadata["split"].to_numpy(), settings)
    assert plan is not None
    return beside(score_treatments([everything], planned, settings), score_treatments(feature_sets, plan, settings))

"""From the embeddings in a workdir to `scores.json`, `scores.parquet` and `report/index.html`.

The trained encoder is scored beside the baselines that it has to beat: the majority class, its own architecture with
random weights (published encoders have lost to that), principal components of the pixels or the matrices, and hand-made
features: intensity, texture and regions of images, region properties and Fourier descriptors of shapes. All are
compared alike: on the same images and folds, under every normalization that one of them gets, random weights as the
mean of several seeds.
"""

import dataclasses
import time
from pathlib import Path

from bie_jax.config.schema import Config
from bie_jax.config.stored import load_config
from bie_jax.evaluation.baselines.appended import appended_columns
from bie_jax.evaluation.embedding.read import read_embedded_set
from bie_jax.evaluation.encoders import encoder_features, read_out
from bie_jax.evaluation.feature_set import without_broken
from bie_jax.evaluation.kinds import KINDS
from bie_jax.evaluation.report.content import Content
from bie_jax.evaluation.report.map import draw_maps, sample_points
from bie_jax.evaluation.report.page import write_report
from bie_jax.evaluation.report.training_curves import read_metrics
from bie_jax.evaluation.scores.file import Scores, describe_set, write_scores
from bie_jax.evaluation.scores.plan import plan_scores
from bie_jax.evaluation.scores.rows import write_score_table
from bie_jax.evaluation.scores.score import score_features
from bie_jax.evaluation.transductive import column_that_taught, transductive_note
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
        ConfigError: no configuration there, or a column that does not exist.
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
    embedded = read_embedded_set(workdir, config)
    read_metrics(workdir / LOG)
    kind, metadata = KINDS[embedded.image_set.kind], embedded.metadata

    # --- Plan
    plan = plan_scores(metadata, metadata["split"].to_numpy(), settings)
    for note in plan.notes:
        print(f"scores: {visible(note)}")
    shown = sample_points(len(metadata), settings.max_report_points, settings.seed)

    # --- Features
    hand_made = kind.hand_made(embedded.image_set, shown, settings.classical_baseline)
    finite, broken = without_broken(hand_made.feature_sets)
    readout = read_out(workdir, embedded, config.num_components)
    trained, *untrained = encoder_features(workdir, embedded, readout, config)
    baselines = [*untrained, *finite, *appended_columns(finite, embedded.appended, settings.append)]

    # --- Score
    scored = score_features([trained, *baselines], plan, settings)
    scored["notes"] += broken
    scores: Scores = {
        "set": describe_set(embedded.image_set, metadata),
        "model": embedded.model,
        "made_from": embedded.made_from,
        **scored,
        "transductive": transductive_note(metadata, column_that_taught(config), scored["splits"]),
        "invariances": [],
        "seconds": round(time.monotonic() - started, 1),
    }

    # --- Write: what is finished is kept, for whatever comes after it may be stopped.
    write_score_table(workdir / run_files.SCORES_TABLE, scores["rows"], embedded.made_from)
    write_scores(workdir / run_files.SCORES, scores)

    # --- Show: the maps are of the table itself.
    trained = dataclasses.replace(trained, features=embedded.features, components=None)
    content = Content(
        workdir=workdir,
        config=config,
        scores=scores,
        metadata=metadata.iloc[shown].assign(row=shown).reset_index(drop=True),
        projections=draw_maps([trained, *baselines], shown, settings.seed, plan.umap),
        tiles=hand_made.tiles,
        pictures=kind.pictures(workdir, embedded, metadata[settings.label].to_numpy(), settings.seed),
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

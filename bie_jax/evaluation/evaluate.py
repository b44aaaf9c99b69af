"""From the embeddings in a workdir to `scores.json` and `report/index.html`.

The trained encoder is scored beside the baselines that it has to beat: the majority class, its own architecture with
random weights (published encoders have lost to that), principal components of the pixels or the matrices, and hand-made
features: intensity, texture and regions of images, region properties and Fourier descriptors of shapes.
`score_features` is the part that takes arrays only.
"""

import collections.abc
import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from bie_jax.config import ConfigError, ContrastiveConfig, EvalConfig, load_config
from bie_jax.evaluation import embed, probe, project, report
from bie_jax.evaluation.feature_set import Block, FeatureSet, HandMade
from bie_jax.evaluation.image_features import image_features
from bie_jax.evaluation.shape_features import shape_features
from bie_jax.evaluation.shape_invariance import invariances
from bie_jax.evaluation.shape_pictures import shape_pictures
from bie_jax.image_set import ImageSet, open_image_set
from bie_jax.known_numbers import known_numbers
from bie_jax.parquet import read_parquet

TRAINED = "trained_encoder"
RANDOM = "random_encoder"
RANDOM_POOLED = "random_encoder_pooled"
UNSEEN = "unseen_by_encoder"
# Objects that the table of invariances is made of, and others that its classifier learns from, at most.
INVARIANCE_OBJECTS, INVARIANCE_TRAINING = 200, 5000
HAND_MADE: dict[str, collections.abc.Callable[..., HandMade]] = {"images": image_features, "shapes": shape_features}


class EvaluationError(ConfigError):
    """A configuration that cannot be scored on this set and workdir; the message says what does not fit."""


def read_embeddings(path: Path) -> tuple[pd.DataFrame, np.ndarray, str]:
    """Metadata, features and model name out of `embeddings.parquet`.

    Returns:
        Metadata with the prefix `Metadata_` taken off and plate, well and site in lower case; features [N, D] float32;
        the model's name.

    Raises:
        FileNotFoundError: no file.
        EvaluationError: no feature columns.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the same command with --stage=embed first")
    table = read_parquet(path)
    prefix = "Metadata_"
    names = [str(name) for name in table.columns]
    metadata = table.loc[:, [name.startswith(prefix) for name in names]]
    short = [str(name).removeprefix(prefix) for name in metadata.columns]
    ours = {"Plate": "plate", "Well": "well", "Site": "site"}
    metadata = metadata.set_axis([ours.get(value, value) for value in short], axis="columns")
    features = table.loc[:, [not name.startswith(prefix) for name in names]]
    if not features.shape[1]:
        raise EvaluationError(
            f"{path} has no feature columns, only {list(table.columns)}; delete it and run --stage=embed"
        )
    model = str(features.columns[0]).rsplit("_", 1)[0]
    return metadata, features.to_numpy(np.float32), model


def check_same_images(metadata: pd.DataFrame, image_set: ImageSet) -> None:
    """Refuse embeddings whose rows are not the set's images in order: every score would be of the wrong image."""
    if len(metadata) != len(image_set):
        raise EvaluationError(
            f"embeddings.parquet has {len(metadata)} rows and the set {image_set.name} {len(image_set)} "
            f"{image_set.kind}; run --stage=embed again on the set as it is now"
        )
    for column in ("plate", "well", "site"):
        ours, theirs = (
            metadata[column].astype(str).to_numpy(),
            image_set.metadata[column].astype(str).to_numpy(),
        )
        if (ours != theirs).any():
            row = int((ours != theirs).argmax())
            raise EvaluationError(
                f"row {row} of embeddings.parquet has {column} {ours[row]!r}, image {row} of {image_set.name} has "
                f"{theirs[row]!r}; run --stage=embed again on the set as it is now"
            )


def _column(metadata: pd.DataFrame, name: str, key: str) -> np.ndarray:
    if name not in metadata:
        raise EvaluationError(
            f"config.eval.{key}={name!r} is not a column of the metadata; there are "
            f"{', '.join(map(str, metadata.columns))}"
        )
    # astype("U"), not object: sklearn and numpy sort and compare fixed-width strings without surprises.
    return metadata[name].fillna("").astype(str).to_numpy().astype("U")


def sample_points(count: int, limit: int, seed: int) -> np.ndarray:
    """Rows to show, sorted: all of them, or `limit` drawn without looking at labels."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def _folds(
    labels: np.ndarray, groups: np.ndarray, settings: EvalConfig
) -> tuple[dict[str, list[probe.Fold]], list[str]]:
    classes = np.unique(labels)
    if len(classes) < 2:
        # Plates without labels are a common case: the report's maps, curves and reconstructions are still worth having.
        held = "no label" if not len(classes) else f"a single label ({classes[0]})"
        return {}, [f"The column {settings.label} holds {held}: nothing to classify, so only plate identity is scored."]
    several = len(np.unique(groups)) > 1
    try:
        folds = {"stratified_k_fold": probe.stratified_folds(labels, settings.folds, settings.seed)}
        if several:
            folds[f"leave_{settings.group}_out"] = probe.leave_group_out_folds(labels, groups)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    notes = []
    if several:
        notes = probe.describe_gaps(labels, folds[f"leave_{settings.group}_out"])
    else:
        notes.append(
            f"All images come from {settings.group} {groups[0]}: leaving one {settings.group} out is impossible."
        )
    return folds, notes


def _unseen_fold(labels: np.ndarray, sides: np.ndarray) -> tuple[dict[str, list[probe.Fold]], list[str]]:
    """The one fold whose test images neither encoder nor classifier learnt from: the run's own validation images."""
    train, held_out = np.flatnonzero(sides == "train"), np.flatnonzero(sides == "val")
    missing = [str(name) for name in np.unique(labels) if name not in labels[train] or name not in labels[held_out]]
    if missing:
        return {}, [
            f"No scores of images that the encoder never saw: {', '.join(missing)} is not on both sides of the run's "
            f"own division into {len(train)} training and {len(held_out)} validation images."
        ]
    return {UNSEEN: [probe.Fold("validation", train, held_out)]}, []


def score_features(
    feature_sets: list[FeatureSet],
    metadata: pd.DataFrame,
    settings: EvalConfig,
    on_step: collections.abc.Callable[[], object] = lambda: None,
) -> dict:
    """All scores of all feature sets; takes arrays only.

    Images without a label are left out of every score but plate identity, and their number is noted.

    Args:
        feature_sets: features [N, D] each.
        metadata: N rows with plate, well, the label column, the group column and split: "train" or "val", the side of
            the encoder's own training.
        settings: the `eval` group of a configuration: columns, folds, neighbours, resamples, seed.
        on_step: called after each fold of each feature set, for a progress bar.

    Returns:
        `classes`, `splits`, `interval_over`, `feature_sets` and `notes`, as they stand in `scores.json`.

    Raises:
        EvaluationError: a column that is not there, or folds that cannot be made (the class and its count are named).
    """
    all_labels = _column(metadata, settings.label, "label")
    plates = _column(metadata, "plate", "group")
    wells = _column(metadata, "well", "group")
    positions = np.array([f"{plate}/{well}" for plate, well in zip(plates, wells)])
    # A well is one well of one plate: B02 of two plates is not one group.
    groups = positions if settings.group == "well" else _column(metadata, settings.group, "group")

    labelled = np.flatnonzero(all_labels != "")
    notes = []
    if len(labelled) < len(all_labels):
        notes.append(f"{len(all_labels) - len(labelled)} images without a label take no part in the scores.")
    labels = all_labels[labelled]
    clusters = positions[labelled]
    few = [name for name in np.unique(labels) if len(np.unique(clusters[labels == name])) < 3]
    # Fewer than three wells in all are none: digits, or cells whose source names no plate. Then images are drawn.
    interval_over = "wells" if len(np.unique(clusters)) > 2 else "images"
    drawn = clusters if interval_over == "wells" else np.arange(len(labels)).astype("U")
    if interval_over == "images":
        notes.append(
            "The set has fewer than three wells: intervals resample single images, and say nothing of what sets wells, "
            "plates or cultures apart."
        )
    elif few:
        notes.append(
            f"Fewer than three wells of {', '.join(map(str, few))}: intervals that resample wells are too narrow there."
        )
    several_wells = len(np.unique(labels)) > 1 and len(np.unique(clusters)) > 1
    folds, fold_notes = _folds(labels, groups[labelled], settings)
    notes += fold_notes
    if folds:
        unseen, unseen_notes = _unseen_fold(labels, _column(metadata, "split", "label")[labelled])
        folds |= unseen
        notes += unseen_notes
    controls = np.flatnonzero(all_labels == settings.probe_control) if settings.probe_control else np.array([], int)
    several_plates = len(np.unique(plates[controls])) > 1
    if settings.probe_control and not several_plates:
        notes.append(
            f"Plate identity is not scored: negative controls ({settings.label} = {settings.probe_control!r}) "
            f"come from {len(np.unique(plates[controls]))} plates, two are needed."
        )

    def scored(values: np.ndarray, parts: list[probe.Fold]) -> dict:
        tested = np.sort(np.concatenate([fold.test for fold in parts]))
        return probe.classification_scores(
            labels[tested], values[tested], drawn[tested], resamples=settings.bootstrap, seed=settings.seed
        )

    results = {}
    for feature_set in feature_sets:
        features = feature_set.features[labelled]
        classifiers: dict[str, dict] = {probe.LOGISTIC_REGRESSION: {}, probe.RANDOM_FOREST: {}} if folds else {}
        for split, parts in folds.items():
            predictions = probe.cross_validate(
                features,
                labels,
                parts,
                components=feature_set.components,
                seed=settings.seed,
                trees=settings.trees,
                on_fold=on_step,
            )
            for name, prediction in predictions.items():
                classifiers[name][split] = scored(prediction.values, parts)
                notes += [f"{feature_set.title}: {note}" for note in prediction.notes]
        identity = None
        if several_plates:
            try:
                identity = probe.plate_identity(
                    feature_set.features[controls],
                    plates[controls],
                    wells[controls],
                    num_folds=settings.folds,
                    seed=settings.seed,
                    components=feature_set.components,
                )
                notes += [f"{feature_set.title}, plate identity: {note}" for note in identity["notes"]]
            except ValueError as error:
                # A plate with two controls is no reason to withhold every other score; the report says what is missing.
                notes.append(f"{feature_set.title}, plate identity is not scored: {error}.")
        results[feature_set.key] = {
            "title": feature_set.title,
            "description": feature_set.description,
            "dim": feature_set.dim,
            "classifiers": classifiers,
            "knn": probe.not_same_well_knn(
                features,
                labels,
                clusters,
                settings.knn_k,
                components=feature_set.components,
                seed=settings.seed,
            )
            if several_wells
            else None,
            "plate_identity": identity,
        }
        on_step()
    results[probe.MAJORITY] = {
        "title": "Majority class",
        "description": "Always the commonest class of the training fold.",
        "dim": 0,
        "classifiers": {
            probe.MAJORITY: {
                split: scored(probe.majority_predictions(labels, parts).values, parts) for split, parts in folds.items()
            }
        }
        if folds
        else {},
        "knn": None,
        "plate_identity": None,
    }
    names, counts = np.unique(labels, return_counts=True)
    return {
        "label": settings.label,
        "classes": {str(name): int(count) for name, count in zip(names, counts)},
        "splits": {split: {"folds": len(parts), "held_out": [f.name for f in parts]} for split, parts in folds.items()},
        "interval_over": interval_over,
        "feature_sets": results,
        "notes": notes,
    }


def transductive_note(
    metadata: pd.DataFrame, contrastive: ContrastiveConfig, splits: collections.abc.Iterable[str]
) -> str:
    """What the encoder saw while it was trained, in sentences that stand in the scores and in the report.

    Args:
        metadata: with `split`, "train" or "val".
        contrastive: the checked `objective.contrastive` group.
        splits: those that were scored.
    """
    total = len(metadata)
    train = int((metadata["split"] == "train").sum())
    taught = contrastive.compares_treatments
    how = (
        f"with the column {contrastive.treatment}, whose equal values it draws together,"
        if taught
        else "without labels"
    )
    seen = "with it" if taught else "unlabelled"
    unseen = (
        f"Those called {report.split_title(UNSEEN)} are not: encoder and classifiers learnt from the {train} images, "
        f"and the {total - train} are classified. "
        if UNSEEN in splits
        else ""
    )
    return (
        f"The encoder was trained {how} on {train} of these {total} images; the other {total - train} only "
        "decided when to stop. "
        f"The folds of the classifiers cut across that division, so most test images were seen, {seen}, by the "
        "encoder: its scores are transductive. "
        f"{unseen}"
        "Random weights and hand-made features saw none of the images. Principal components and scales are fitted in "
        "each training fold alone, for nearest neighbours to other wells than the image's. Of all images, without "
        "labels, are the intensities that a set or a plate is normalised by, and the maps."
    )


def write_json(path: Path, content: dict) -> None:
    """Write through a temporary file, so that a killed run leaves the old file or the new one, never half of one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(temporary, path)


def evaluate(workdir: str | Path) -> dict:
    """Score the embeddings of a workdir beside their baselines, and write `scores.json` and `report/index.html`.

    Args:
        workdir: what the train and embed stages left.

    Returns:
        The content of `scores.json`.

    Raises:
        ConfigError: no configuration there.
        EvaluationError: files that do not fit each other, a column that does not exist, folds that cannot be made.
        FileNotFoundError: no embeddings, or the set is not built.
    """
    started = time.monotonic()
    workdir = Path(workdir)
    config = load_config(workdir)
    settings = config.eval
    image_set = open_image_set(config.data.name, config.data.data_dir)
    metadata, features, model = read_embeddings(workdir / "embeddings.parquet")
    check_same_images(metadata, image_set)
    _column(metadata, settings.label, "label")
    _column(metadata, settings.group, "group")

    shown = sample_points(len(metadata), settings.max_report_points, settings.seed)
    hand_made = HAND_MADE[image_set.kind](image_set, shown, classical=settings.classical_baseline)
    appended = known_numbers(image_set, settings.append)
    embedded = features[:, : features.shape[1] - appended.shape[1]]
    # Components of the table are fitted to the run's training images; a fold of the scores fits its own, to what they
    # are of.
    readout = embedded if not settings.components else embed.embed_image_set(embed.load_readout(workdir), image_set)
    untrained, untrained_pooled = embed_untrained(workdir, image_set, settings.seed)

    def encoded(key: str, title: str, description: str, values: np.ndarray) -> FeatureSet:
        table = np.concatenate([values, appended], axis=1)
        return FeatureSet(key, title, description, table, encoder_blocks(values, appended, settings))

    feature_sets = [
        encoded(TRAINED, f"Trained encoder ({model})", "The embeddings of this run.", readout),
        encoded(RANDOM, "Random encoder", "The same network with random weights, read at the bottleneck.", untrained),
        encoded(
            RANDOM_POOLED,
            "Random encoder, pooled",
            "The same random weights, read before the bottleneck as the mean over positions.",
            untrained_pooled,
        ),
        *hand_made.feature_sets,
    ]
    with tqdm(desc="scores", unit="fold") as bar:
        scored = score_features(feature_sets, metadata, settings, bar.update)

    positions = metadata["plate"].astype(str) + "/" + metadata["well"].astype(str)
    scores = {
        "set": {
            "name": image_set.name,
            "kind": image_set.kind,
            "simulated": image_set.simulated,
            "description": image_set.description,
            "images": len(metadata),
            "plates": int(metadata["plate"].nunique()),
            "wells": int(positions.nunique()),
            "channels": list(image_set.channel_names),
            "image_shape": list(image_set.image_shape),
            "pixel_size_um": image_set.pixel_size_um,
        },
        "model": model,
        **scored,
        "transductive": transductive_note(metadata, config.objective.contrastive, scored["splits"]),
        "invariances": _invariances(workdir, image_set, readout, metadata, settings)
        if image_set.kind == "shapes"
        else None,
        "seconds": None,
    }
    # The maps are of the table itself.
    shown_sets = [dataclasses.replace(feature_sets[0], features=features), *feature_sets[1:]]
    projections = report_projections(shown_sets, shown, settings.seed, settings.umap)
    scores["seconds"] = round(time.monotonic() - started, 1)
    write_json(workdir / "scores.json", scores)
    report.write_report(
        workdir,
        config=config.model_dump(),
        scores=scores,
        metadata=metadata.iloc[shown].assign(row=shown).reset_index(drop=True),
        projections=projections,
        tiles=hand_made.tiles,
        pictures=shape_pictures(workdir, image_set, embedded, np.asarray(metadata[settings.label]), settings.seed)
        if image_set.kind == "shapes"
        else [],
        control=settings.probe_control,
    )
    return scores


def embed_untrained(workdir: Path, image_set: ImageSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What random weights make of the images: at the bottleneck, and pooled before it, [N, *] each."""
    embedder = embed.load_untrained(workdir, seed)
    both = embed.embed_image_set(embedder, image_set, progress=True)
    at_bottleneck, pooled = np.split(both, [embedder.widths[0]], axis=1)
    return at_bottleneck, pooled


def encoder_blocks(values: np.ndarray, appended: np.ndarray, settings: EvalConfig) -> tuple[Block, ...] | None:
    """What a fold fits to a readout [N, D] and numbers [N, A] beside it: `eval.components`, if any, of the first."""
    if not settings.components:
        return None
    components = min(settings.components, values.shape[1])
    beside = (Block(appended.shape[1]),) if appended.shape[1] else ()
    return (Block(values.shape[1], components, standardised=True), *beside)


def _invariances(
    workdir: Path, image_set: ImageSet, readout: np.ndarray, metadata: pd.DataFrame, settings: EvalConfig
) -> list[dict]:
    """What turning, moving, mirroring, another start, and pixels do to the readout itself: without what is appended to
    it, and before components are taken of it."""
    return invariances(
        embed.load_readout(workdir).embed,
        image_set.images(np.arange(len(image_set)))[..., 0],
        readout,
        _column(metadata, settings.label, "label"),
        num_objects=INVARIANCE_OBJECTS,
        most_training=INVARIANCE_TRAINING,
        components=encoder_blocks(readout, readout[:, :0], settings),
        seed=settings.seed,
    )


def report_projections(
    feature_sets: list[FeatureSet], shown: np.ndarray, seed: int, with_umap: bool
) -> list[report.Projection]:
    """Maps of the trained embeddings, and principal components of the random weights and of one set of hand-made
    features to compare with.

    Principal components are fitted on all images; UMAP on the images shown alone, as its time grows with them.
    """
    by_key = {feature_set.key: feature_set for feature_set in feature_sets}
    trained = by_key[TRAINED].features
    projections = []
    if with_umap:
        tqdm.write("UMAP without labels")
        projections.append(
            report.Projection(
                "UMAP of the trained embeddings",
                "UMAP 1 (arbitrary units)",
                "UMAP 2 (arbitrary units)",
                project.umap_projection(trained[shown], seed),
                "UMAP of the standardised embeddings, fitted without labels on the images shown (15 neighbours, "
                "minimal distance 0.1).",
            )
        )
    shown_by_hand = [feature_set.key for feature_set in feature_sets if feature_set.components is None][-1:]
    for key in dict.fromkeys((TRAINED, RANDOM, *shown_by_hand)):
        coordinates, shares = project.pca_projection(by_key[key].features)
        name = "the trained embeddings" if key == TRAINED else by_key[key].title.lower() + " features"
        projections.append(
            report.Projection(
                f"PCA of {name}",
                f"PC 1 ({shares[0]:.0%} of the variance)",
                f"PC 2 ({shares[1]:.0%} of the variance)",
                coordinates[shown],
                f"First two principal components of {name}, standardised, fitted without labels on all images.",
            )
        )
    return projections

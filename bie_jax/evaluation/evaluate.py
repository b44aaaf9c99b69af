"""From the embeddings in a workdir to `scores.json` and `report/index.html`.

The trained encoder is scored beside the baselines that it has to beat: the majority class, its own architecture with
random weights (published encoders have lost to that), principal components of the pixels or the matrices, and hand-made
features: intensity, texture and regions of images, region properties and Fourier descriptors of shapes. All are
compared alike: on the same images and folds, under every normalization that one of them gets, random weights as the
mean of several seeds. `score_features` is the part that takes arrays only.
"""

import collections.abc
import dataclasses
import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from bie_jax.config.schema import Config, ConfigError, ContrastiveConfig, EvalConfig
from bie_jax.config.stored import load_config
from bie_jax.evaluation.baselines.baselines import rotate_to_span
from bie_jax.evaluation.baselines.image_features import image_features
from bie_jax.evaluation.baselines.shape_features import shape_features
from bie_jax.evaluation.embedding import embed
from bie_jax.evaluation.feature_set import Block, FeatureSet, HandMade
from bie_jax.evaluation.report import project, report
from bie_jax.evaluation.report.shape_pictures import shape_pictures
from bie_jax.evaluation.scores import normalization, probe
from bie_jax.evaluation.scores.invariance import invariances
from bie_jax.evaluation.scores.plan import NEIGHBOURS, STRATIFIED, UNSEEN, ScoringPlan, plan_scores
from bie_jax.evaluation.scores.rows import score_rows
from bie_jax.files import integrity
from bie_jax.files.foreign_text import visible
from bie_jax.files.parquet import read_parquet
from bie_jax.input.covariates import known_numbers
from bie_jax.input.image_set import ImageSet, open_image_set
from bie_jax.input.pixels import check_finite_rows
from bie_jax.objectives.contrast import compared_treatment
from bie_jax.training import run_files
from bie_jax.training.writers.log import LOG

TRAINED = "trained_encoder"
RANDOM = "random_encoder"
RANDOM_POOLED = "random_encoder_pooled"
RANDOM_DRAWS = 3  # seeds of the random weights: a single one is better or worse by luck
APPENDED = "appended"
INVARIANCE_TRAINING = 5000  # objects that the classifier of the table of invariances learns from, at most
HAND_MADE: dict[str, collections.abc.Callable[..., HandMade]] = {"images": image_features, "shapes": shape_features}


class EvaluationError(ConfigError):
    """A configuration that cannot be scored on this set and workdir; the message says what does not fit."""


def read_embeddings(path: Path, made_from: integrity.MadeFrom | None = None) -> tuple[pd.DataFrame, np.ndarray, str]:
    """Metadata, features and model name out of `embeddings.parquet`.

    Args:
        path: of the file.
        made_from: what it would be made from now; None: whatever it was.

    Returns:
        Metadata with the prefix `Metadata_` taken off and plate, well and site in lower case; features [N, D] float32;
        the model's name.

    Raises:
        FileNotFoundError: no file.
        DamagedFileError: not what was written.
        StaleFileError: made from something else.
        EvaluationError: no feature columns.
        NonFiniteRowsError: a row that holds NaN or infinity.
    """
    integrity.verify(path, run_files.EMBED_AGAIN, made_from)
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
    values = features.to_numpy(np.float32)
    check_finite_rows(values, str(path))
    return metadata, values, model


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


def sample_points(count: int, limit: int, seed: int) -> np.ndarray:
    """Rows to show, sorted: all of them, or `limit` drawn without looking at labels."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def _folds(plan: ScoringPlan, settings: EvalConfig) -> dict[str, list[probe.Fold]]:
    """The folds of each division, numbers of rows of the set."""

    def of_set(rows: np.ndarray, folds: list[probe.Fold]) -> list[probe.Fold]:
        return [probe.Fold(fold.name, rows[fold.train], rows[fold.test]) for fold in folds]

    folds: dict[str, list[probe.Fold]] = {}
    for name, part in plan.parts.items():
        labels = plan.labels[part.rows]
        if name == STRATIFIED:
            folds[name] = of_set(part.rows, probe.stratified_folds(labels, settings.folds, settings.seed))
        elif name == UNSEEN:
            is_train = plan.sides[part.rows] == "train"
            folds[name] = [probe.Fold("validation", part.rows[is_train], part.rows[~is_train])]
        elif name != NEIGHBOURS:
            folds[name] = of_set(part.rows, probe.leave_group_out_folds(labels, plan.groups[part.rows]))
    return folds


def score_features(
    feature_sets: list[FeatureSet],
    metadata: pd.DataFrame,
    settings: EvalConfig,
    on_step: collections.abc.Callable[[], object] = lambda: None,
) -> dict:
    """All scores of all feature sets; takes arrays only.

    Images without a label are left out of every score but plate identity, and their number is noted. Of several plates,
    every feature set is scored raw and standardized per plate.

    Args:
        feature_sets: each of N images.
        metadata: N rows with plate, well, the label column, the group column and split: "train" or "val", the side of
            the encoder's own training.
        settings: the `eval` group of a configuration: columns, folds, neighbors, resamples, seed.
        on_step: called after each fold of each feature set, for a progress bar.

    Returns:
        `classes`, `splits`, `interval_over`, `normalizations`, `feature_sets` (an entry for each under each
        normalization), the same as `rows` of a table, and `notes`, as they stand in `scores.json`.

    Raises:
        EvaluationError: a column that is not there, or folds that cannot be made (the class and its count are named).
    """
    plan = plan_scores(metadata, metadata["split"].to_numpy(), settings)
    labels, folds = plan.labels, _folds(plan, settings)
    notes = list(plan.notes)
    for name, parts in folds.items():
        if name.startswith("leave_"):
            notes += probe.describe_gaps(labels, parts)
    drawn = plan.positions if plan.interval_over == "wells" else np.arange(len(labels)).astype("U")

    under = normalization.normalizations(plan.plates)
    names, counts = np.unique(plan.plates, return_counts=True)
    if len(under) > 1 and (counts == 1).any():
        lone = ", ".join(map(str, names[counts == 1]))
        notes.append(f"Plates of one image ({lone}): standardized per plate, that image is 0 in every column.")

    def scored(values: np.ndarray, parts: list[probe.Fold]) -> dict:
        tested = np.sort(np.concatenate([fold.test for fold in parts]))
        return probe.classification_scores(
            labels[tested], values[..., tested], drawn[tested], resamples=settings.bootstrap, seed=settings.seed
        )

    def neighbors_of(features: np.ndarray, components: int | tuple[Block, ...] | None) -> dict:
        rows = plan.parts[NEIGHBOURS].rows
        return probe.not_same_well_knn(
            features[rows],
            labels[rows],
            plan.positions[rows],
            settings.knn_k,
            components=components,
            seed=settings.seed,
        )

    results = {}
    for feature_set, normalized in itertools.product(feature_sets, under):
        name = f"{feature_set.title}, {normalization.TITLES[normalized]}" if len(under) > 1 else feature_set.title
        components = feature_set.components
        draws = [
            normalization.standardise_per_plate(draw, plan.plates) if normalized == normalization.PER_PLATE else draw
            for draw in feature_set.draws
        ]
        draws = [rotate_to_span(draw) if isinstance(components, int) else draw for draw in draws]
        classifiers: dict[str, dict] = {probe.LOGISTIC_REGRESSION: {}, probe.RANDOM_FOREST: {}} if folds else {}
        for split, parts in folds.items():
            predictions = [
                probe.cross_validate(
                    draw,
                    labels,
                    parts,
                    components=components,
                    seed=settings.seed,
                    trees=settings.trees,
                    on_fold=on_step,
                )
                for draw in draws
            ]
            for classifier, of_splits in classifiers.items():
                found = [prediction[classifier] for prediction in predictions]
                of_splits[split] = scored(np.stack([one.values for one in found]), parts)
                notes += [f"{name}: {note}" for note in dict.fromkeys(note for one in found for note in one.notes)]
        neighbors = [neighbors_of(draw, components) for draw in draws] if NEIGHBOURS in plan.parts else []
        identity = None
        if len(plan.controls):
            try:
                identity = _mean_of_draws(
                    [
                        _plate_identity(raw, draw, normalized, components, plan, settings)
                        for raw, draw in zip(feature_set.draws, draws)
                    ],
                    "macro_f1",
                )
                notes += [f"{name}, plate identity: {note}" for note in identity["notes"]]
            except ValueError as error:
                # A plate of controls alone is no reason to withhold every other score; the report says what is missing.
                notes.append(f"{name}, plate identity is not scored: {error}.")
        results[feature_set.key if normalized == normalization.RAW else f"{feature_set.key}_{normalized}"] = {
            "feature_set": feature_set.key,
            "normalization": normalized,
            "title": feature_set.title,
            "description": feature_set.description,
            "dim": feature_set.dim,
            "draws": len(draws),
            "classifiers": classifiers,
            "knn": _mean_of_draws(neighbors, "accuracy") if neighbors else None,
            "plate_identity": identity,
        }
        on_step()
    results[probe.MAJORITY] = {
        "feature_set": probe.MAJORITY,
        "normalization": normalization.RAW,
        "title": "Majority class",
        "description": "Always the commonest class of the training fold.",
        "dim": 0,
        "draws": 1,
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
    names, counts = np.unique(labels[plan.labeled], return_counts=True)
    return {
        "label": settings.label,
        "classes": {str(name): int(count) for name, count in zip(names, counts)},
        "splits": {
            split: {
                "folds": len(parts),
                "held_out": [f.name for f in parts],
                "classes": len(np.unique(labels[plan.parts[split].rows])),
                "left_out": plan.parts[split].left_out,
            }
            for split, parts in folds.items()
        },
        "interval_over": plan.interval_over,
        "normalizations": {one: normalization.DESCRIPTIONS[one] for one in under},
        "feature_sets": results,
        "rows": score_rows(results),
        "notes": notes,
    }


def without_broken(feature_sets: list[FeatureSet]) -> tuple[list[FeatureSet], list[str]]:
    """Hand-made features that are finite, and a note on each set that is not: it costs no other set its score."""
    finite, notes = [], []
    for feature_set in feature_sets:
        bad = np.flatnonzero(~np.isfinite(feature_set.draws).all(axis=(0, 2)))
        if not len(bad):
            finite.append(feature_set)
            continue
        notes.append(
            f"{feature_set.title} is not scored: {len(bad)} of {feature_set.draws.shape[1]} rows hold NaN or infinity, "
            f"the first is row {bad[0]}."
        )
    return finite, notes


def count_steps(feature_sets: list[FeatureSet], plan: ScoringPlan, settings: EvalConfig) -> int:
    """How often `score_features` calls `on_step`."""
    folds = sum(len(parts) for parts in _folds(plan, settings).values())
    under = len(normalization.normalizations(plan.plates))
    return under * sum(1 + len(feature_set.draws) * folds for feature_set in feature_sets)


def _mean_of_draws(scores: list[dict], key: str) -> dict:
    """The first of several draws' scores, with the mean of all as its own, and each one's under `<key>_of_draws`."""
    values = [score[key] for score in scores]
    return scores[0] | {key: float(np.mean(values)), f"{key}_of_draws": values}


def _plate_identity(
    raw: np.ndarray,
    draw: np.ndarray,
    normalized: str,
    components: int | tuple[Block, ...] | None,
    plan: ScoringPlan,
    settings: EvalConfig,
) -> dict:
    """`probe.plate_identity` of the controls, whose plate's statistics leave out the controls that are tested.

    Args:
        raw: [N, D], as they were.
        draw: [N, d], normalized with all images.
        normalized: how.
        components, plan, settings: as in `score_features`.

    Raises:
        ValueError: also for a plate of controls alone, standardized per plate: what is centerd on them has lost by
            construction what could be learnt.
    """
    controls, plates = plan.controls, plan.plates

    def per_plate(tested: np.ndarray) -> np.ndarray:
        fitted = np.ones(len(raw), dtype=bool)
        fitted[controls[tested]] = False
        values = normalization.standardise_per_plate(raw, plates, fitted)[controls]
        return rotate_to_span(values) if isinstance(components, int) else values

    if normalized == normalization.PER_PLATE:
        bare = np.setdiff1d(plates[controls], np.delete(plates, controls))
        if len(bare):
            raise ValueError(f"{', '.join(map(str, bare))} holds controls alone, whose own mean centers them")
    return probe.plate_identity(
        per_plate if normalized == normalization.PER_PLATE else draw[controls],
        plates[controls],
        plan.wells[controls],
        num_folds=settings.folds,
        seed=settings.seed,
        components=components,
    )


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
    taught = compared_treatment(contrastive) is not None
    how = (
        f"with the column {contrastive.treatment}, whose equal values it draws together,"
        if taught
        else "without labels"
    )
    seen = "with it" if taught else "unlabeled"
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
        "each training fold alone, for nearest neighbors to other wells than the image's. Of all images, without "
        "labels, are the intensities that a set or a plate is normalized by, what is standardized per plate (of all "
        "images of a plate, one that is held out too), and the maps."
    )


def evaluate(workdir: str | Path) -> dict:
    """Score the embeddings of a workdir beside their baselines, and write `scores.json` and `report/index.html`.

    Args:
        workdir: what the train and embed stages left.

    Returns:
        The content of `scores.json`.

    Raises:
        ConfigError: no configuration there.
        EvaluationError: files that do not fit each other, a column that does not exist, folds that cannot be made.
        SetNotBuiltError: the set is not built.
        DamagedFileError, StaleFileError: no embeddings, or of other images or another configuration.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    with run_files.opened(workdir):
        return _evaluate(workdir, config)


def _evaluate(workdir: Path, config: Config) -> dict:
    started = time.monotonic()
    settings = config.eval
    image_set = open_image_set(config.data.name, config.data.data_dir)
    run_files.check_same_set(workdir, image_set)
    made_from = run_files.origin_of_embeddings(workdir, settings, image_set)
    metadata, features, model = read_embeddings(workdir / run_files.EMBEDDINGS, made_from)
    of_the_report = [run_files.RECONSTRUCTIONS] + [run_files.CODEBOOK] * (config.model.name == "vqvae")
    for name in of_the_report:  # what the report shows is refused before the hours of scoring
        integrity.verify(workdir / name, run_files.EMBED_AGAIN, made_from)
    report.read_metrics(workdir / LOG)
    check_same_images(metadata, image_set)
    plan = plan_scores(metadata, metadata["split"].to_numpy(), settings)
    for note in plan.notes:
        print(f"scores: {visible(note)}")

    shown = sample_points(len(metadata), settings.max_report_points, settings.seed)
    hand_made = HAND_MADE[image_set.kind](image_set, shown, classical=settings.classical_baseline)
    finite, broken = without_broken(hand_made.feature_sets)
    appended = known_numbers(image_set, settings.append)
    embedded = features[:, : features.shape[1] - appended.shape[1]]
    # Components of the table are fitted to the run's training images; a fold of the scores fits its own, to what they
    # are of.
    readout = embedded if not settings.components else embed.embed_image_set(embed.load_readout(workdir), image_set)
    untrained, untrained_pooled = embed_untrained(workdir, image_set, settings.seed)
    seeds = f"mean of {RANDOM_DRAWS} seeds"

    def encoded(key: str, title: str, description: str, values: np.ndarray) -> FeatureSet:
        beside = np.broadcast_to(appended, (*values.shape[:-1], appended.shape[1]))
        table = np.concatenate([values, beside], axis=-1)
        return FeatureSet(key, title, description, table, encoder_blocks(values, appended, settings))

    feature_sets = [
        encoded(TRAINED, f"Trained encoder ({model})", "The embeddings of this run.", readout),
        encoded(
            RANDOM,
            "Random encoder",
            f"The same network with random weights, read at the bottleneck, {seeds}.",
            untrained,
        ),
        encoded(
            RANDOM_POOLED,
            "Random encoder, pooled",
            f"The same random weights, read before the bottleneck as the mean over positions, {seeds}.",
            untrained_pooled,
        ),
        *finite,
        *_appended(finite, appended, settings.append),
    ]
    with tqdm(desc="scores", unit="fold", total=count_steps(feature_sets, plan, settings)) as bar:
        scored = score_features(feature_sets, metadata, settings, bar.update)
    scored["notes"] += broken

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
        "made_from": made_from,
        **scored,
        "transductive": transductive_note(metadata, config.objective.contrastive, scored["splits"]),
        "invariances": [],  # of shapes, one by one, below
        "seconds": None,
    }

    def keep() -> None:
        # What is finished is kept: whatever comes after it may be stopped.
        scores["seconds"] = round(time.monotonic() - started, 1)
        integrity.write_json(workdir / run_files.SCORES, scores, made_from)

    keep()
    # The maps are of the table itself.
    mapped = [dataclasses.replace(feature_sets[0], features=features, components=None), *feature_sets[1:]]
    projections = report_projections(mapped, shown, settings.seed, plan.umap)
    pictures = (
        shape_pictures(workdir, image_set, embedded, np.asarray(metadata[settings.label]), settings.seed)
        if image_set.kind == "shapes"
        else []
    )

    def show() -> None:
        report.write_report(
            workdir,
            config=config.model_dump(),
            scores=scores,
            metadata=metadata.iloc[shown].assign(row=shown).reset_index(drop=True),
            projections=projections,
            tiles=hand_made.tiles,
            pictures=pictures,
            control=settings.probe_control,
        )

    show()
    if image_set.kind == "shapes" and settings.invariance_objects:
        for row in _invariances(workdir, image_set, readout, plan.labels, settings):
            scores["invariances"].append(row)
            keep()
        show()
    return scores


def embed_untrained(workdir: Path, image_set: ImageSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What random weights of `RANDOM_DRAWS` seeds make of the images, at the bottleneck and pooled before it.

    Returns:
        Two arrays [RANDOM_DRAWS, N, *].
    """
    draws = []
    for embedder in embed.load_untrained(workdir, range(seed, seed + RANDOM_DRAWS)):
        both = embed.embed_image_set(embedder, image_set, progress=True)
        draws.append(np.split(both, [embedder.widths[0]], axis=1))
    at_bottleneck, pooled = (np.stack(parts) for parts in zip(*draws))
    return at_bottleneck, pooled


def encoder_blocks(values: np.ndarray, appended: np.ndarray, settings: EvalConfig) -> tuple[Block, ...] | None:
    """What a fold fits to a readout [..., N, D] with numbers [N, A] beside it: `eval.components` of the first part."""
    if not settings.components:
        return None
    components = min(settings.components, values.shape[-1])
    beside = (Block(appended.shape[1]),) if appended.shape[1] else ()
    return (Block(values.shape[-1], components, standardized=True), *beside)


def _appended(hand_made: list[FeatureSet], appended: np.ndarray, names: tuple[str, ...]) -> list[FeatureSet]:
    """The numbers that stand beside the embedding, by themselves and beside the fullest hand-made features: what an
    embedding gains by them is not its own."""
    if not names:
        return []
    listed = ", ".join(names)
    alone = FeatureSet(APPENDED, "Appended columns", f"What stands beside the embedding, alone: {listed}.", appended)
    if not hand_made or hand_made[-1].components is not None:
        return [alone]
    fullest = hand_made[-1]
    beside = FeatureSet(
        f"{fullest.key}_{APPENDED}",
        f"{fullest.title}, appended columns",
        f"{fullest.description} Beside them {listed}, as beside the embedding.",
        np.concatenate([fullest.features, appended], axis=1),
    )
    return [alone, beside]


def _invariances(
    workdir: Path, image_set: ImageSet, readout: np.ndarray, labels: np.ndarray, settings: EvalConfig
) -> collections.abc.Iterator[dict]:
    """What turning, moving, mirroring, another start, and pixels do to the readout itself: without what is appended to
    it, and before components are taken of it."""
    return invariances(
        embed.load_readout(workdir).embed,
        image_set.images(np.arange(len(image_set)))[..., 0],
        readout,
        labels,
        num_objects=settings.invariance_objects,
        most_training=INVARIANCE_TRAINING,
        most_side_px=settings.invariance_side_px,
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
                "UMAP of the standardized embeddings, fitted without labels on the images shown (15 neighbors, "
                "minimal distance 0.1).",
            )
        )
    shown_by_hand = [feature_set.key for feature_set in feature_sets if feature_set.components is None][-1:]
    for key in dict.fromkeys((TRAINED, RANDOM, *shown_by_hand)):
        coordinates, shares = project.pca_projection(by_key[key].draws[0])
        name = "the trained embeddings" if key == TRAINED else by_key[key].title.lower() + " features"
        projections.append(
            report.Projection(
                f"PCA of {name}",
                f"PC 1 ({shares[0]:.0%} of the variance)",
                f"PC 2 ({shares[1]:.0%} of the variance)",
                coordinates[shown],
                f"First two principal components of {name}, standardized, fitted without labels on all images.",
            )
        )
    return projections

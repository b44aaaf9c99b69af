"""Which method learns what random weights and hand-made features do not have, read how?

    python experiments/learning/compare.py --set=hela_rnai_cells --runs simclr dino --images=40000 --seeds 0 1 2

Builds the set where it is not built (`--shared` is the folder of labeled sets), trains each run with `launch.py`, and
scores every readout of the trained network beside the same readout of three random ones, hand-made features, and both
together. All are standardized per plate where there are plates, all are tested on a plate, a patient or a fold that the
classifier did not learn from. What is there already (a run, features, scores) is not made again.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding import embed_image_set
from bie_jax.evaluation.embedding.load import load_readouts, load_untrained
from bie_jax.evaluation.embedding.read import read_embedded_set
from bie_jax.evaluation.feature_set import Reduction
from bie_jax.evaluation.kinds import KINDS
from bie_jax.evaluation.scores.classification import cross_validate
from bie_jax.evaluation.scores.folds import Fold, leave_group_out_folds, stratified_folds
from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION, RANDOM_FOREST
from bie_jax.evaluation.scores.normalization import PER_PLATE, normalize
from bie_jax.input.image_set import open_image_set

READOUTS = ("embedding", "features", "statistics", "layers")
SEEDS_OF_WEIGHTS = range(3)


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration file of `configs/`, and what differs from it; runs of one `network` share its random weights."""

    file: str
    options: tuple[str, ...] = ()
    network: str = "small ResNet"
    batch_size: int = 128


_FULL = ("--config.model.resnet.stem=full",)
_AT_FULL = "small ResNet at full resolution"
_AUTOENCODER = (
    *_FULL,
    "--config.model.encoder=resnet",
    "--config.model.resnet.depth=10",
    "--config.model.resnet.width=24",
    "--config.model.latent_dim=128",
)
_VIT = (
    "--config.model.encoder=vit",
    "--config.model.vit.size=Ti",
    "--config.model.vit.patch_size=8",
    "--config.model.latent_dim=192",
)
RUNS = {
    "simclr, half resolution": Run("simclr_idr0093"),
    "simclr, half resolution, batch 64": Run("simclr_idr0093", batch_size=64),
    "simclr": Run("simclr_idr0093", _FULL, _AT_FULL),
    # Which views.
    "simclr, no intensity changes": Run(
        "simclr_idr0093", (*_FULL, "--config.data.augment.brightness=0.0"), network=_AT_FULL
    ),
    "simclr, intensity changes": Run(
        "simclr_idr0093",
        (*_FULL, "--config.data.augment.brightness=0.3", "--config.data.augment.offset=0.3"),
        network=_AT_FULL,
    ),
    "simclr, zoom": Run(
        "simclr_idr0093",
        (*_FULL, "--config.data.augment.area=(0.25, 1.0)", "--config.data.augment.aspect=1.33"),
        network=_AT_FULL,
    ),
    "simclr, any angle": Run("simclr_idr0093", (*_FULL, "--config.data.augment.rotate=True"), network=_AT_FULL),
    "simclr, blur and noise": Run(
        "simclr_idr0093",
        (*_FULL, "--config.data.augment.blur=1.5", "--config.data.augment.noise=0.3"),
        network=_AT_FULL,
    ),
    "simclr, channel dropout": Run(
        "simclr_idr0093", (*_FULL, "--config.data.augment.channel_dropout=0.2"), network=_AT_FULL
    ),
    "simclr, 4 crops": Run(
        "simclr_idr0093", (*_FULL, "--config.objective.crops.num_global=4"), network=_AT_FULL, batch_size=64
    ),
    # Which comparison.
    "simclr, temperature 0.1": Run(
        "simclr_idr0093", (*_FULL, "--config.objective.simclr.temperature=0.1"), network=_AT_FULL
    ),
    "simclr, batch 64": Run("simclr_idr0093", _FULL, network=_AT_FULL, batch_size=64),
    "simclr, batch 256": Run("simclr_idr0093", _FULL, network=_AT_FULL, batch_size=256),
    "simclr, treatment": Run("simclr_idr0093", (*_FULL, "--config.data.positives=treatment"), network=_AT_FULL),
    # Which network.
    "simclr, width 16": Run(
        "simclr_idr0093", (*_FULL, "--config.model.resnet.width=16"), network="small ResNet at full resolution, 16"
    ),
    "simclr, channels alone": Run(
        "simclr_idr0093",
        (
            *_FULL,
            "--config.model.channels=independent",
            "--config.model.channel_readout=concat",
            "--config.model.latent_dim=240",
        ),
        network="small ResNet at full resolution, each channel",
    ),
    # Which method.
    "dino": Run("dino_idr0093", _FULL, _AT_FULL),
    "dino, local crops": Run(
        "dino_idr0093",
        (*_FULL, "--config.objective.crops.num_local=4", "--config.objective.crops.local_size=(16, 16)"),
        _AT_FULL,
    ),
    "dino, sinkhorn": Run("dino_idr0093", (*_FULL, "--config.objective.dino.targets=sinkhorn"), _AT_FULL),
    "dino, fast teacher": Run(
        "dino_idr0093", (*_FULL, "--config.train.ema_decay=0.9", "--config.train.ema_decay_grows=True"), _AT_FULL
    ),
    "lejepa": Run("lejepa_idr0093", _FULL, _AT_FULL),
    "simclr and reconstruction": Run(
        "simclr_idr0093",
        (*_FULL, "--config.model.decoder=mirror", "--config.objective.reconstruction=0.1"),
        _AT_FULL,
    ),
    "ae": Run("ae_idr0093", _AUTOENCODER, "autoencoder at full resolution"),
    "vae": Run("vae_idr0093", _AUTOENCODER, "autoencoder at full resolution"),
    "mae": Run("mae_idr0093", network="autoencoder, ViT-Ti/8"),
    "simclr, ViT-Ti/8": Run("simclr_idr0093", _VIT, network="ViT-Ti/8"),
    "dino, ViT-Ti/8": Run("dino_idr0093", _VIT, network="ViT-Ti/8"),
    "vqvae": Run("vqvae_idr0093", network="stack"),
}


@dataclasses.dataclass(frozen=True)
class Set:
    """How a set is built, what its runs are told, and which images a classifier is tested on."""

    build: tuple[str, ...]
    options: tuple[str, ...]
    folds: Callable[[np.ndarray, np.ndarray], list[Fold]]


def _arrays(name: str) -> tuple[str, ...]:
    return (f"--source={{shared}}/{name}/{name}.npz", "--layout=arrays", "--label=label")


def _by_patient(labels: np.ndarray, groups: np.ndarray) -> list[Fold]:
    """Seven folds; one patient at a time takes six times as long and tells the same."""
    rows = GroupKFold(7, shuffle=True, random_state=0).split(labels, labels, groups)
    return [Fold(f"fold {number}", train, test) for number, (train, test) in enumerate(rows)]


def _by_image(labels: np.ndarray, groups: np.ndarray) -> list[Fold]:
    del groups
    return stratified_folds(labels, 5, 0)


_NO_CONTROL = "--config.eval.probe_control="
SETS = {
    "simulated": Set((), ("--config.data.crop_size=(48, 48)",), leave_group_out_folds),
    "bbbc021": Set(
        ("--source={shared}/bbbc021_singlecell_subset",),
        ("--config.data.crop_size=(48, 48)", "--config.eval.probe_control=DMSO"),
        leave_group_out_folds,
    ),
    "hela_rnai_cells": Set(
        _arrays("hela_rnai_cells"),
        ("--config.data.crop_size=(48, 48)", _NO_CONTROL, "--config.data.split_by=group"),
        leave_group_out_folds,
    ),
    "jurkat_ifc": Set(
        _arrays("jurkat_ifc"),
        ("--config.data.crop_size=(32, 32)", _NO_CONTROL, "--config.data.split_by=image"),
        _by_image,
    ),
    "monuseg_organs": Set(
        _arrays("monuseg_organs"),
        (
            "--config.data.crop_size=(48, 48)",
            _NO_CONTROL,
            "--config.eval.group=group",
            "--config.data.split_by=group",
        ),
        _by_patient,
    ),
    "kather8_mini": Set(
        _arrays("kather8_mini"),
        ("--config.data.crop_size=(48, 48)", _NO_CONTROL, "--config.data.split_by=image"),
        _by_image,
    ),
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where sets, runs and features lie."""

    workdir: Path
    data_dir: Path
    shared: Path

    def run(self, set_name: str, run: str, images: int, seed: int) -> Path:
        """The workdir of one run."""
        return self.workdir / f"{set_name}-{run.replace(', ', '-').replace(' ', '_')}-{images}-{seed}"

    def random(self, set_name: str, run: str) -> Path:
        """Readouts of random weights of a run's network."""
        return self.workdir / f"{set_name}-{RUNS[run].network.replace(' ', '_')}-random.npz"


def build(place: Place, set_name: str) -> None:
    """Build a set that is not built."""
    if (place.data_dir / set_name).exists():
        return
    how = [part.format(shared=place.shared) for part in SETS[set_name].build]
    command = [sys.executable, "-m", "data.build", set_name, f"--data-dir={place.data_dir}", *how]
    subprocess.run(command, cwd=REPOSITORY, check=True)


def train(place: Place, set_name: str, name: str, images: int, seed: int, more: tuple[str, ...] = ()) -> Path:
    """One run, its embeddings and all its readouts; its seconds are kept beside them.

    Args:
        place: where it goes.
        set_name: of `SETS`.
        name: of `RUNS`.
        images: that it sees.
        seed: of training.
        more: options, which the workdir's name ends with.
    """
    workdir, run = place.run(set_name, ", ".join([name, *more]), images, seed), RUNS[name]
    if (workdir / "readouts.npz").exists():
        return workdir
    num_train = int(0.9 * len(open_image_set(set_name, str(place.data_dir))))
    epochs, epoch_steps = calendar(images // run.batch_size, num_train // run.batch_size)
    command = [sys.executable, "launch.py", f"--config=configs/{run.file}.py:simulated", f"--workdir={workdir}"]
    options = [
        f"--config.data.name={set_name}",
        f"--config.data.data_dir={place.data_dir}",
        f"--config.train.seed={seed}",
        f"--config.train.epochs={epochs}",
        f"--config.train.batch_size={run.batch_size}",
        f"--config.train.min_epoch_steps={epoch_steps}",
        f"--config.train.eval_every_epochs={epochs}",
        "--config.optimizer.warmup_epochs=1",
        "--config.optimizer.cooldown_epochs=0",
        *SETS[set_name].options,
        *run.options,
        *more,
    ]
    started = time.perf_counter()
    subprocess.run([*command, "--stage=train", *options], cwd=REPOSITORY, check=True)
    (workdir / "seconds").write_text(f"{time.perf_counter() - started:.0f}")
    subprocess.run([sys.executable, "launch.py", f"--workdir={workdir}", "--stage=embed"], cwd=REPOSITORY, check=True)
    image_set = read_embedded_set(workdir, load_config(workdir)).image_set
    trained = load_readouts(workdir, READOUTS)
    _keep(workdir / "readouts.npz", [embed_image_set(trained, image_set)], trained.widths)
    drawn = place.random(set_name, name)
    if not drawn.exists():
        random = [embed_image_set(one, image_set) for one in load_untrained(workdir, SEEDS_OF_WEIGHTS, READOUTS)]
        _keep(drawn, random, trained.widths)
    return workdir


def calendar(steps: int, of_set: int) -> tuple[int, int]:
    """Epochs, two to ten, and steps in each, for about so many steps; an epoch has at least those of the whole set."""
    epochs = min(10, max(2, round(steps / max(of_set, 1))))
    return epochs, max(steps // epochs, of_set)


def _keep(path: Path, drawn: list[np.ndarray], widths: tuple[int, ...]) -> None:
    """Every readout as [S, N, D]."""
    ends = np.cumsum(widths)[:-1]
    np.savez(path, **dict(zip(READOUTS, np.split(np.stack(drawn), ends, axis=2), strict=True)))


def hand_made(place: Place, set_name: str, workdir: Path) -> np.ndarray:
    """[1, N, D]: intensity, texture and region features, computed once a set; `workdir` is of any run on it."""
    kept = place.workdir / f"{set_name}-hand_made.npy"
    if not kept.exists():
        images = read_embedded_set(workdir, load_config(workdir)).image_set
        found = KINDS["images"].hand_made(images, np.arange(1), True).feature_sets
        np.save(kept, next(one.features for one in found if one.key == "intensity_texture_regions"))
    return np.load(kept)[None]


def score(
    draws: np.ndarray, set_name: str, workdir: Path, components: Reduction | None = None
) -> dict[str, list[float]]:
    """Macro F1 of every draw [S, N, D], by classifier; `components` of them are fitted in each training fold."""
    config = load_config(workdir)
    metadata = read_embedded_set(workdir, config).metadata
    labels, plates = (metadata[column].astype(str).to_numpy().astype("U") for column in ("label", "plate"))
    groups = metadata[config.eval.group].astype(str).to_numpy().astype("U")
    folds = SETS[set_name].folds(labels, groups)
    found: dict[str, list[float]] = {LOGISTIC_REGRESSION: [], RANDOM_FOREST: []}
    for features in draws:
        if len(np.unique(plates)) > 1:
            features = normalize(features, plates, PER_PLATE)
        for classifier, prediction in cross_validate(features, labels, folds, components=components).items():
            found[classifier].append(float(f1_score(labels, prediction.values, average="macro")))
    return found


def scores(place: Place, set_name: str, name: str, workdir: Path, readouts: list[str]) -> dict[str, dict]:
    """Those of a run's readouts, of random weights and of hand-made features; made once and kept."""
    classical = hand_made(place, set_name, workdir)

    def kept(path: Path, tables: dict[str, np.ndarray]) -> dict[str, dict]:
        found = json.loads(path.read_text()) if path.exists() else {}
        for key, draws in tables.items():
            if key not in found:
                found[key] = {"numbers": draws.shape[2]} | score(draws, set_name, workdir)
                path.write_text(json.dumps(found))
        return {key: found[key] for key in tables}

    def with_classical(path: Path, title: str) -> dict[str, np.ndarray]:
        found = {}
        with np.load(path) as kept_readouts:
            for readout in readouts:
                draws = kept_readouts[readout]
                beside = np.broadcast_to(classical, (len(draws), *classical.shape[1:]))
                found[f"{title}, {readout}"] = draws
                found[f"{title}, {readout} + hand-made"] = np.concatenate([draws, beside], axis=2)
        return found

    random = place.random(set_name, name)
    return (
        kept(place.workdir / f"{set_name}-hand_made.json", {"hand-made": classical})
        | kept(random.with_suffix(".json"), with_classical(random, "random"))
        | kept(workdir / "learning.json", with_classical(workdir / "readouts.npz", "trained"))
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    """The arguments that `place_of` reads."""
    parser.add_argument("--workdir", type=Path, default=Path("runs/learning"))
    parser.add_argument("--data-dir", type=Path, default=Path("datasets"))
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared" / "data")


def place_of(asked: argparse.Namespace) -> Place:
    """Where sets and runs lie."""
    return Place(asked.workdir.absolute(), asked.data_dir.absolute(), asked.shared.absolute())


def main() -> None:
    """All runs on a set, then a table of means over the seeds of training, or of random weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS), required=True)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--images", type=int, required=True, help="that a run sees, each as often as it is in a batch")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--readouts", nargs="+", choices=READOUTS, default=list(READOUTS))
    add_place(parser)
    asked = parser.parse_args()
    place = place_of(asked)
    build(place, asked.set)
    print("| run | minutes | features | numbers | logistic regression | random forest |\n|---|---|---|---|---|---|")
    for run in asked.runs:
        found, seconds = [], []
        for seed in asked.seeds:
            workdir = train(place, asked.set, run, asked.images, seed)
            found.append(scores(place, asked.set, run, workdir, asked.readouts))
            seconds.append(int((workdir / "seconds").read_text()))
        for name in found[0]:
            cells = []
            for classifier in (LOGISTIC_REGRESSION, RANDOM_FOREST):
                # What is not trained is the same beside every seed.
                of_seeds = found if name.startswith("trained") else found[:1]
                values = [value for one in of_seeds for value in one[name][classifier]]
                span = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.3f}{span}")
            minutes = f"{np.mean(seconds) / 60:.1f}"
            print(f"| {run} | {minutes} | {name} | {found[0][name]['numbers']} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

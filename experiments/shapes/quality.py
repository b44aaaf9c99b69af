"""What do trained embeddings of outlines know, and what taught them: reconstruction, contrast, or both?

    python experiments/shapes/quality.py mnist_test      the 10,000 test digits (data/studies/mnist)
    python experiments/shapes/quality.py mnist --runs "both, pose kept" --options config.train.epochs=5
    python experiments/shapes/quality.py cells           data/studies/osteosarcoma
    python experiments/shapes/quality.py cells --folds --runs both

Each run is `launch.py` with options, trained and embedded into runs/shapes; one that is there is not repeated. The
scores are macro F1 of out-of-fold predictions, stratified 5-fold (cells: mean and sd of five divisions), by the
report's own classifiers, and beside the trained network stands the same one with random weights of three seeds, read as
embedding and before the bottleneck. With `--folds` an encoder is trained five times, each time without one fifth of the
objects, and classifies that fifth: nothing of a test object was seen, not even its outline without the label (its loss
only chose the checkpoint).
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding import read_embeddings
from bie_jax.evaluation.encoders import embed_untrained
from bie_jax.evaluation.scores.classification import confusion_matrix, cross_validate
from bie_jax.evaluation.scores.folds import Fold, stratified_folds
from bie_jax.input.covariates import known_numbers
from bie_jax.input.image_set import ImageSet, open_image_set
from bie_jax.shapes.descriptors import SIZE_PROPERTIES, region_properties

REPOSITORY = Path(__file__).resolve().parents[2]
NO_CONTRAST = ["--config.objective.contrastive.weight=0.0"]
ONLY_CONTRAST = ["--config.objective.reconstruction=0.0", "--config.objective.beta=0.0"]
KEEPS_DIRECTION = ["--config.model.ring.keeps=direction", "--config.data.outline.reindex=start"]
KEEPS_START = [
    "--config.model.ring.keeps=start",
    "--config.data.outline.reindex=none",
    "--config.objective.matrix.reindexed=False",
    "--config.eval.readout=embedding",  # before it are 1,024 numbers
]
# name -> (configuration's method, options)
RUNS = {
    "reconstruction": ("vae", NO_CONTRAST),
    "contrast": ("vae", ONLY_CONTRAST),
    "both": ("vae", []),
    "both, codes": ("vqvae", []),
    "both, handed": ("vae", KEEPS_DIRECTION),
    "both, pose kept": ("vae", KEEPS_START),
}
SETS = {"mnist": "mnist_shapes", "mnist_test": "mnist_test_shapes", "cells": "osteosarcoma"}
CONFIGS = {(name, "vae"): "shape_vae_cells" if name == "cells" else "shape_vae_mnist" for name in SETS}
CONFIGS |= {(name, "vqvae"): "shape_vqvae_mnist" for name in SETS}
TARGETS = {"mnist": ("label",), "mnist_test": ("label",), "cells": ("cell_line", "treatment")}
SIZED = ("cells",)  # sets whose objects' size says something
FOLDS = 5
TREES = {"mnist": 100, "mnist_test": 100, "cells": 300}  # as in the configurations
DIVISIONS = {"mnist": 1, "mnist_test": 1, "cells": 5}  # into folds; scores of a few hundred objects depend on it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data_dir", type=Path, default=REPOSITORY / "datasets")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "shapes")
    parser.add_argument("--runs", nargs="*", choices=RUNS, default=list(RUNS))
    parser.add_argument("--folds", action="store_true")
    parser.add_argument("--options", nargs="*", default=[], help="for launch.py, e.g. config.train.epochs=5")
    arguments = parser.parse_args()
    image_set = open_image_set(SETS[arguments.set], arguments.data_dir)
    columns = [f"{target}, {classifier}" for target in TARGETS[arguments.set] for classifier in ("LR", "RF")]
    print(f"{image_set.name}: {len(image_set)} outlines, macro F1\n")
    print(f"| features | columns | {' | '.join(columns)} | seconds |\n|---|---|{'---|' * len(columns)}---|", flush=True)
    for name in arguments.runs:
        workdir = arguments.out / f"{arguments.set}-{name.replace(', ', '-').replace(' ', '-')}"
        if arguments.folds:
            of_folds(name, workdir, image_set, arguments)
            continue
        seconds = train(name, workdir, arguments, [])
        embeddings = read_embeddings(workdir / "embeddings.parquet")[1]
        show(name, embeddings, image_set, arguments.set, f"{seconds:.0f}")
        if arguments.set in SIZED:
            outlines = image_set.images(np.arange(len(image_set)))[..., 0].astype(np.float64)
            classical = region_properties(outlines, size=True).values
            row("region properties, with size", classical, image_set, arguments.set, "")
            both = np.concatenate([embeddings, classical], axis=1)
            row(f"{name}, and region properties, with size", both, image_set, arguments.set, "")
        if name in ("both", "both, handed", "both, pose kept"):
            untrained = embed_untrained(workdir, image_set, load_config(workdir).eval.seed)
            for readout, draws in zip(("embedding", "features"), untrained, strict=True):
                for number, values in enumerate(draws, 1):
                    title = f"{name}: random weights, {readout}, draw {number} of {len(draws)}"
                    show(title, values, image_set, arguments.set, "")


def train(name: str, workdir: Path, arguments: argparse.Namespace, more: list[str]) -> float:
    """Train and embed; the seconds of both."""
    kept = workdir / "seconds"
    if not kept.is_file():
        method, options = RUNS[name]
        file = f"configs/{CONFIGS[arguments.set, method]}.py"
        options = [*options, f"--config.data.name={SETS[arguments.set]}", *(f"--{o}" for o in arguments.options)]
        command = [sys.executable, "launch.py", f"--config={file}", f"--workdir={workdir}"]
        command += [
            f"--config.data.data_dir={arguments.data_dir.resolve()}",
            "--config.eval.append=()",
            *options,
            *more,
        ]
        start = time.perf_counter()
        subprocess.run([*command, "--stage=train"], cwd=REPOSITORY, check=True, stdout=sys.stderr)
        subprocess.run([*command, "--stage=embed"], cwd=REPOSITORY, check=True, stdout=sys.stderr)
        kept.write_text(f"{time.perf_counter() - start:.0f}")
    return float(kept.read_text())


def show(title: str, features: np.ndarray, image_set, set_name: str, seconds: str) -> None:
    """A row of scores, and one with the size beside the features where a set has one."""
    row(title, features, image_set, set_name, seconds)
    if set_name in SIZED:
        row(f"{title}, with size", with_size(features, image_set), image_set, set_name, seconds)


def with_size(features: np.ndarray, image_set: ImageSet) -> np.ndarray:
    """With the numbers that `configs/shape_vae_cells.py` puts beside an embedding; logarithms, for the linear probe."""
    return np.concatenate([features, np.log(known_numbers(image_set, SIZE_PROPERTIES))], axis=1)


def row(title: str, features: np.ndarray, image_set, set_name: str, seconds: str) -> None:
    """Scores of every target by each classifier; mean and sd where there are several divisions into folds."""
    cells = []
    for target in TARGETS[set_name]:
        labels = image_set.metadata[target].to_numpy().astype("U")
        scores = []
        for seed in range(DIVISIONS[set_name]):
            folds = stratified_folds(labels, FOLDS, seed)
            found = cross_validate(features, labels, folds, seed=seed, trees=TREES[set_name])
            scores.append([f1(labels, predictions.values) for predictions in found.values()])
        spread = [f" ± {sd:.3f}" if len(scores) > 1 else "" for sd in np.std(scores, axis=0)]
        cells += [f"{mean:.3f}{sd}" for mean, sd in zip(np.mean(scores, axis=0), spread, strict=True)]
    print("|", " | ".join([title, str(features.shape[1]), *cells, seconds]), "|", flush=True)


def of_folds(name: str, workdir: Path, image_set: ImageSet, arguments: argparse.Namespace) -> None:
    """One row: each fifth is classified from an encoder and a classifier that have seen the other four."""
    truth = {target: image_set.metadata[target].to_numpy().astype("U") for target in TARGETS[arguments.set]}
    guessed = {}
    total = 0.0
    for fold in range(FOLDS):
        one = workdir.with_name(f"{workdir.name}-fold{fold}")
        more = [f"--config.data.num_folds={FOLDS}", f"--config.data.fold={fold}"]
        total += train(name, one, arguments, more)
        table, features, _ = read_embeddings(one / "embeddings.parquet")
        assert load_config(one).data.fold == fold
        held_out = np.flatnonzero(table["split"] == "val")
        if arguments.set in SIZED:
            features = with_size(features, image_set)
        part = [Fold(str(fold), np.flatnonzero(table["split"] == "train"), held_out)]
        for target, labels in truth.items():
            for classifier, found in cross_validate(features, labels, part, trees=TREES[arguments.set]).items():
                guessed.setdefault((target, classifier), np.empty_like(labels))[held_out] = found.values[held_out]
    cells = [f"{f1(truth[target], values):.3f}" for (target, _), values in guessed.items()]
    print(
        "|",
        " | ".join([f"{name}, training folds only", str(features.shape[1]), *cells, f"{total:.0f}"]),
        "|",
        flush=True,
    )


def f1(labels: np.ndarray, guessed: np.ndarray) -> float:
    """Macro F1."""
    classes = np.unique(labels)
    confusion = confusion_matrix(labels, guessed, classes)
    return float(np.mean(2 * np.diag(confusion) / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1), 1)))


if __name__ == "__main__":
    main()

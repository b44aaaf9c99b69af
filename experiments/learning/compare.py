"""Which method learns what random weights and hand-made features do not have, read how?

    python experiments/learning/compare.py --set=hela_rnai_cells --runs simclr dino --epochs=30 --seeds 0 1 2

Builds the set where it is not built (`--shared` is the folder of labelled sets), trains each method with `launch.py`,
and scores every readout of the trained network beside the same readout of three random ones, hand-made features, and
both together, all standardized per plate where there are plates. A run that is there is not repeated.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding import embed_image_set, load_untrained
from bie_jax.evaluation.embedding.load import load_readouts
from bie_jax.evaluation.embedding.read import read_embedded_set
from bie_jax.evaluation.feature_set import FeatureSet
from bie_jax.evaluation.kinds import KINDS
from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION, RANDOM_FOREST
from bie_jax.evaluation.scores.plan import plan_scores
from bie_jax.evaluation.scores.score import score_features

READOUTS = ("embedding", "features", "statistics", "layers")
_GENTLE = ["--config.data.augment.brightness=0.2", "--config.data.augment.offset=0.2"]
# name -> (configuration, options)
RUNS = {
    "simclr": ("simclr_idr0093", []),
    "simclr-intensity": ("simclr_idr0093", _GENTLE),
    "simclr-treatment": ("simclr_idr0093", ["--config.data.positives=treatment"]),
    "dino": ("dino_idr0093", []),
    "dino-local": (
        "dino_idr0093",
        ["--config.objective.crops.num_local=4", "--config.objective.crops.local_size=(16, 16)"],
    ),
    "dino-sinkhorn": ("dino_idr0093", ["--config.objective.dino.targets=sinkhorn"]),
    "lejepa": ("lejepa_idr0093", []),
    "vqvae": ("vqvae_idr0093", ["--config.train.batch_size=64"]),
}


def _arrays(name: str, label: str, *columns: str) -> list[str]:
    return [f"--source={{shared}}/{name}/{name}.npz", "--layout=arrays", f"--label={label}", *columns]


# set -> (how it is built, options of its runs, the split that is told)
SETS = {
    "simulated": ([], ["--config.data.crop_size=(64, 64)"], "leave_plate_out"),
    "bbbc021": (
        ["--source={shared}/bbbc021_singlecell_subset"],
        ["--config.data.crop_size=(48, 48)", "--config.eval.probe_control=DMSO"],
        "leave_plate_out",
    ),
    "hela_rnai_cells": (
        _arrays("hela_rnai_cells", "label"),
        ["--config.data.crop_size=(48, 48)", "--config.eval.probe_control=", "--config.data.split_by=group"],
        "leave_plate_out",
    ),
    "jurkat_ifc": (
        _arrays("jurkat_ifc", "label"),
        ["--config.data.crop_size=(32, 32)", "--config.eval.probe_control=", "--config.data.split_by=image"],
        "stratified",
    ),
    "monuseg_organs": (
        _arrays("monuseg_organs", "label"),
        [
            "--config.data.crop_size=(64, 64)",
            "--config.eval.probe_control=",
            "--config.eval.group=group",
            "--config.data.split_by=group",
        ],
        "leave_group_out",
    ),
}


def train(workdir: Path, run: str, set_name: str, epochs: int, seed: int, data_dir: Path) -> None:
    """One run and its embeddings; its seconds are kept beside them."""
    file, options = RUNS[run]
    given = [f"--config.data.name={set_name}", f"--config.data.data_dir={data_dir}", f"--config.train.seed={seed}"]
    length = [f"--config.train.epochs={epochs}", f"--config.train.eval_every_epochs={epochs}"]
    command = [sys.executable, "launch.py", f"--config=configs/{file}.py:simulated", f"--workdir={workdir}"]
    started = time.perf_counter()
    options = [*given, *length, *SETS[set_name][1], *options]
    subprocess.run([*command, "--stage=train", *options], cwd=REPOSITORY, check=True)
    seconds = time.perf_counter() - started
    subprocess.run([sys.executable, "launch.py", f"--workdir={workdir}", "--stage=embed"], cwd=REPOSITORY, check=True)
    (workdir / "seconds").write_text(f"{seconds:.0f}")


def score(workdir: Path, split: str) -> dict:
    """Feature set -> (numbers, macro F1 by logistic regression, by random forest), of one run."""
    config = load_config(workdir)
    embedded = read_embedded_set(workdir, config)
    images, metadata = embedded.image_set, embedded.metadata
    trained = load_readouts(workdir, READOUTS)
    ends = np.cumsum(trained.widths)[:-1]
    of_trained = np.split(embed_image_set(trained, images), ends, axis=1)
    drawn = [
        np.split(embed_image_set(one, images), ends, axis=1) for one in load_untrained(workdir, range(3), READOUTS)
    ]
    of_random = [np.stack(parts) for parts in zip(*drawn, strict=True)]
    classical = next(
        found.features
        for found in KINDS["images"].hand_made(images, np.arange(1), True).feature_sets
        if found.key == "intensity_texture_regions"
    )
    tables = {"hand-made": classical}
    for readout, ours, random in zip(READOUTS, of_trained, of_random, strict=True):
        tables[f"trained, {readout}"] = ours
        tables[f"random, {readout}"] = random
        tables[f"trained, {readout} + hand-made"] = np.concatenate([ours, classical], axis=1)
        beside = np.broadcast_to(classical, (len(random), *classical.shape))
        tables[f"random, {readout} + hand-made"] = np.concatenate([random, beside], axis=2)
    sets = [FeatureSet(name, name, "", features) for name, features in tables.items()]
    plan = plan_scores(metadata, metadata["split"].to_numpy(), config.eval)
    entries = score_features(sets, plan, config.eval)["feature_sets"]
    found = {}
    for name, features in tables.items():
        entry = entries.get(f"{name}_per_plate", entries[name])
        by = [entry["classifiers"][way][split] for way in (LOGISTIC_REGRESSION, RANDOM_FOREST)]
        found[name] = [features.shape[-1], *(one["macro_f1"] for one in by), *(one["macro_f1_of_draws"] for one in by)]
    return found


def main() -> None:
    """All runs on a set, then a table of means over the seeds of training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS), required=True)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/learning"))
    parser.add_argument("--data-dir", type=Path, default=Path("datasets"))
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared" / "data")
    asked = parser.parse_args()
    built, _, split = SETS[asked.set]
    data_dir = asked.data_dir.absolute()
    if not (data_dir / asked.set).exists():
        how = [part.format(shared=asked.shared) for part in built]
        command = [sys.executable, "-m", "data.build", asked.set, f"--data-dir={data_dir}", *how]
        subprocess.run(command, cwd=REPOSITORY, check=True)
    print("| run | minutes | features | numbers | logistic regression | random forest |\n|---|---|---|---|---|---|")
    for run in asked.runs:
        scores, seconds = [], []
        for seed in asked.seeds:
            workdir = (asked.workdir / f"{asked.set}-{run}-{asked.epochs}-{seed}").absolute()
            if not (workdir / "seconds").exists():
                train(workdir, run, asked.set, asked.epochs, seed, data_dir)
            kept = workdir / "learning.json"
            if not kept.exists():
                kept.write_text(json.dumps(score(workdir, split)))
            scores.append(json.loads(kept.read_text()))
            seconds.append(int((workdir / "seconds").read_text()))
        for name in scores[0]:
            cells = []
            for place in (1, 2):
                values = [one[name][place] for one in scores]
                draws = [value for one in scores for value in one[name][place + 2]]
                spread = values if len(values) > 1 else draws
                cells.append(
                    f"{np.mean(values):.3f}" + (f" ({min(spread):.3f}-{max(spread):.3f})" if len(spread) > 1 else "")
                )
            print(
                f"| {run} | {np.mean(seconds) / 60:.1f} | {name} | {scores[0][name][0]} | {' | '.join(cells)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What small runs give, to the bit: recorded before a change that must change nothing, compared after it.

    python tests/golden/record.py golden/before                      # in the tree as it was
    python tests/golden/record.py golden/after                       # in the tree as it is
    python tests/golden/record.py golden/after --against=golden/before

Every method and every kind of set has a run: 20 steps of a tiny network through the commands that a user types, on one
thread, since sums of several threads have no fixed order. Compared are every loss of every step, the embeddings and
reconstructions, and all scores.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.studies.simulated.build import build_simulated
from data.studies.simulated.simulation import Design

STEPS = 20
_EVERY_STEP = ("train.log_every_steps=1", "eval.trees=10", "eval.umap=False", "eval.folds=2")
_OF_IMAGES = ("train.epochs=2", "optimizer.cooldown_epochs=0", "train.min_epoch_steps=10", "eval.max_report_points=64")
_OF_SHAPES = (*_OF_IMAGES, "eval.invariance_objects=8", "data.name=drawn", "data.crop_size=(32, 32)")
_POOLED = ("model.bottleneck=pooled", "model.quantizer.code_dim=4", "model.quantizer.num_codes=8")
RUNS = {
    "ae": ("ae_idr0093", _OF_IMAGES),
    "ae-resnet": ("ae_idr0093", (*_OF_IMAGES, "model.encoder=resnet", "train.accumulate_steps=2")),
    "vae": ("vae_idr0093", (*_OF_IMAGES, "objective.free_nats=0.01", "objective.kl_warmup_steps=5")),
    "vae-independent": ("vae_idr0093", (*_OF_IMAGES, "model.channels=independent", "objective.contrastive.weight=0.1")),
    "vqvae-ema": ("vqvae_idr0093", (*_OF_IMAGES, "train.ema_decay=0.9", "model.quantizer.kmeans_iterations=2")),
    "vqvae-gradient": ("vqvae_idr0093", (*_OF_IMAGES, "model.quantizer.name=gradient")),
    "vqvae-residual": (
        "vqvae_idr0093",
        (
            *_OF_IMAGES,
            *_POOLED,
            "model.quantizer.name=residual",
            "model.quantizer.num_residuals=2",
            "model.latent_dim=4",
        ),
    ),
    "vqvae-fsq": (
        "vqvae_idr0093",
        (
            *_OF_IMAGES,
            "model.quantizer.name=fsq",
            "model.quantizer.levels=(4, 4)",
            "model.quantizer.code_dim=2",
            "model.quantizer.num_codes=16",
        ),
    ),
    "mae": ("mae_idr0093", (*_OF_IMAGES, "objective.fourier_weight=0.01")),
    "shapes-vae": ("shape_vae_mnist", _OF_SHAPES),
    "shapes-vqvae": ("shape_vqvae_mnist", _OF_SHAPES),
}


def main() -> None:
    """Record into a folder, or compare two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where runs and records lie")
    parser.add_argument("--against", type=Path, help="another such folder: compare, run nothing")
    parser.add_argument("--only", nargs="*", choices=list(RUNS), default=list(RUNS))
    arguments = parser.parse_args()
    if arguments.against:
        sys.exit(_compare(arguments.against, arguments.folder, arguments.only))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    _build(arguments.folder / "datasets")
    for name in arguments.only:
        workdir = arguments.folder / name
        _run(workdir, *RUNS[name], arguments.folder / "datasets")
        np.savez(arguments.folder / f"{name}.npz", **_record(workdir))
        print(f"{name}: recorded", flush=True)


def _build(datasets: Path) -> None:
    """Two small simulated plates, and outlines drawn by a formula: two classes, 40 of each."""
    if not (datasets / "simulated").exists():
        design = Design(plates=2, control_wells=4, wells_per_sirna=1, sites=2, image_size=32, strengths=(0.5, 1.0))
        build_simulated(str(datasets), design, num_workers=1)
    if not (datasets / "drawn").exists():
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        rng = np.random.default_rng(0)
        lobes = np.repeat([3, 5], 40)
        radius = 20 + rng.uniform(3, 6, (80, 1)) * np.cos(lobes[:, None] * angle + rng.uniform(0, 6, (80, 1)))
        outlines = 32 + radius[..., None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        source = datasets / "drawn-source"
        source.mkdir(parents=True)
        grid = np.stack(np.mgrid[:64, :64], axis=-1).reshape(-1, 2)
        from matplotlib.path import Path as Polygon

        masks = [Polygon(outline).contains_points(grid).reshape(64, 64) for outline in outlines]
        np.savez(source / "drawn.npz", images=np.asarray(masks, np.uint8) * 255, labels=lobes)
        _python(
            "-m", "data.build", "drawn", "--kind=shapes", f"--source={source / 'drawn.npz'}", "--points=64",
            f"--data-dir={datasets}",
        )  # fmt: skip


def _run(workdir: Path, config: str, changes: tuple[str, ...], datasets: Path) -> None:
    flags = [f"--config.{change}" for change in (*_EVERY_STEP, *changes, f"data.data_dir={datasets}")]
    _python("launch.py", f"--config=configs/{config}.py:tiny", f"--workdir={workdir}", *flags)


def _python(*arguments: str) -> None:
    one_thread = {
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    core = min(os.sched_getaffinity(0))
    subprocess.run(
        ["taskset", "-c", str(core), sys.executable, *arguments], cwd=ROOT, env=os.environ | one_thread, check=True
    )


def _record(workdir: Path) -> dict[str, np.ndarray]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, np.ndarray] = {}
    for line in lines:
        for key, value in line.items():
            if not key.startswith("perf/"):
                found[f"step {line['step']} {key}"] = np.asarray(value)
    assert lines[-1]["step"] == STEPS, lines[-1]["step"]
    table = pd.read_parquet(workdir / "embeddings.parquet")
    features = table.loc[:, [not str(name).startswith("Metadata_") for name in table.columns]]
    found["embeddings"] = features.to_numpy(np.float32)[:32]
    with np.load(workdir / "reconstructions.npz") as stored:
        found["reconstructions"] = stored["reconstruction"]
    scores = json.loads((workdir / "scores.json").read_text())
    found |= {f"scores {path}": np.asarray(value) for path, value in _leaves(scores, "")}
    return found


def _leaves(tree: object, path: str):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}/{key}")
    elif isinstance(tree, list) and any(isinstance(value, dict | list) for value in tree):
        for number, value in enumerate(tree):
            yield from _leaves(value, f"{path}/{number}")
    elif "seconds" not in path and tree is not None:
        yield path, tree


def _compare(before: Path, after: Path, names: list[str]) -> int:
    differing = 0
    for name in names:
        with np.load(before / f"{name}.npz") as old, np.load(after / f"{name}.npz") as new:
            missing, added = sorted(set(old) - set(new)), sorted(set(new) - set(old))
            different = [key for key in old if key in new and not np.array_equal(old[key], new[key])]
            same = len(old) - len(missing) - len(different)
        differing += len(missing) + len(different)
        print(
            f"{name}: {same} records equal to the bit, {len(different)} differ, {len(missing)} are gone, "
            f"{len(added)} are new"
        )
        for key in (*different[:5], *missing[:5]):
            print(f"    {key}")
    return int(differing > 0)


if __name__ == "__main__":
    main()

"""A genome-wide screen whose structure is known: does evaluation find it, in how many seconds and how much memory?

python experiments/profiles/screen.py --images 1000 10000 110000 --folder=screens

For each size: a set of images of noise (16 x 16 px, one channel), one a well, on 16 plates of 1,536 wells or as many as
it takes, six wells a gene and 2 % of controls; a tiny VQ-VAE that is trained on it for an epoch and embeds it; then its
128 numbers are replaced by planted ones, and `launch.py --stage=evaluate` scores, profiles and reports. Planted are
complexes of three genes that shift profiles in one direction (a sixth of the genes), and an offset and a scale for
every plate; the other genes do nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bie_jax.evaluation.profiles.neighbors import most_similar_pairs, nearest_profiles
from bie_jax.files import integrity

REPOSITORY = Path(__file__).resolve().parents[2]
WELLS, REPLICATES, DIM, EFFECT, COMPLEX = 1536, 6, 128, 0.6, 3
CONTROL = "scrambled"


def main() -> None:
    """A line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    print("| images | genes | train and embed, s | evaluate, s | peak, GB | precision of top 100 pairs | active |")
    print("|---|---|---|---|---|---|---|")
    for count in asked.images:
        print(_line(count, asked.folder.absolute()), flush=True)


def _line(count: int, folder: Path) -> str:
    table, features = planted(count)
    name, workdir = f"screen_{count}", folder / f"run_{count}"
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).normal(1000, 50, size=(count, 16, 16)).astype(np.uint16)
    np.savez(
        folder / f"{name}.npz",
        images=images,
        **{name: of_it if name == "site" else of_it.to_numpy("U") for name, of_it in table.items()},
    )
    config = [
        "--config=configs/vqvae_idr0093.py:tiny",
        f"--config.data.name={name}",
        f"--config.data.data_dir={folder}",
        "--config.data.crop_size=(16, 16)",
        f"--config.model.latent_dim={DIM}",
        "--config.train.epochs=1",
        "--config.optimizer.warmup_epochs=0",
        "--config.optimizer.cooldown_epochs=0",
        "--config.train.batch_size=256",
        "--config.train.checkpoint_every_steps=100000",
        "--config.eval.batch_size=1024",
        "--config.eval.bootstrap=1000",
        "--config.eval.trees=100",
        "--config.eval.umap=True",
        "--config.eval.profile.treatment=('label',)",
        "--config.eval.profile.mechanism=complex",
    ]
    _run(
        [
            "-m",
            "data.build",
            name,
            f"--source={folder / f'{name}.npz'}",
            f"--data-dir={folder}",
            "--wells-per-plate=1536",
        ]
    )
    trained = sum(_run(["launch.py", *config, f"--workdir={workdir}", f"--stage={s}"])[0] for s in ("train", "embed"))
    plant(workdir, features)
    seconds, peak = _run(["launch.py", f"--workdir={workdir}", "--stage=evaluate"])
    genes = table["label"].nunique() - 1
    precision, active = recovered(workdir)
    return f"| {count:,} | {genes:,} | {trained:.0f} | {seconds:.0f} | {peak:.2f} | {precision:.2f} | {active} |"


def planted(count: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Metadata of `count` wells and their planted features [count, 128]."""
    rng = np.random.default_rng(0)
    plates = max(16, -(-count // (WELLS - 50)))
    controls = max(6, round(0.02 * count / plates)) * plates
    genes = (count - controls) // REPLICATES
    controls = count - genes * REPLICATES
    gene = np.concatenate([np.repeat(np.arange(genes), REPLICATES), np.full(controls, -1)])
    # The six wells of a gene are on six plates, of a control on any.
    first = np.repeat(rng.permutation(genes) % plates, REPLICATES)
    plate = np.concatenate([(first + np.tile(np.arange(REPLICATES), genes)) % plates, np.arange(controls) % plates])
    order = rng.permutation(count)
    gene, plate = gene[order], plate[order]
    complexes = genes // 6 // COMPLEX
    direction = EFFECT * rng.normal(size=(complexes, DIM))
    of_gene = np.where(np.arange(genes) < complexes * COMPLEX, np.arange(genes) // COMPLEX, -1)
    member = np.where(gene >= 0, of_gene[gene], -1)
    features = rng.normal(size=(count, DIM)) + np.where(member[:, None] >= 0, direction[member], 0)
    features = features * rng.uniform(0.8, 1.2, size=plates)[plate, None] + rng.normal(size=(plates, DIM))[plate]
    number = pd.Series(plate).groupby(plate).cumcount()
    table = pd.DataFrame(
        {
            "plate": [f"P{p:02d}" for p in plate],
            "well": [_well(n) for n in number],
            "site": 1,
            "label": [f"gene{g:05d}" if g >= 0 else CONTROL for g in gene],
            "complex": [f"complex{m:04d}" if m >= 0 else "" for m in member],
        }
    )
    return table, features.astype(np.float32)


def _well(number: int) -> str:
    """As in a plate of 32 rows and 48 columns: A01 to AF48."""
    row = number // 48
    return f"{'' if row < 26 else 'A'}{chr(65 + row % 26)}{number % 48 + 1:02d}"


def plant(workdir: Path, features: np.ndarray) -> None:
    """Replace the features of a run's embeddings."""
    path = workdir / "embeddings.parquet"
    table = pd.read_parquet(path)
    made_from = table.attrs["made_from"]
    columns = [name for name in table if not str(name).startswith("Metadata_")]
    table[columns] = features
    table.attrs["made_from"] = made_from
    integrity.write_file(path, lambda partial: table.to_parquet(partial, index=False), features.nbytes, made_from)


def recovered(workdir: Path) -> tuple[float, str]:
    """Share of the 100 most similar pairs that are of one complex, and how many planted and idle genes are active."""
    profiles = pd.read_parquet(workdir / "profiles_treatments.parquet")
    members = profiles["Metadata_complex"].to_numpy()
    features = profiles[[name for name in profiles if not str(name).startswith("Metadata_")]].to_numpy()
    pairs = most_similar_pairs(nearest_profiles(features, 3), 100).rows
    hits = (members[pairs[:, 0]] == members[pairs[:, 1]]) & (members[pairs[:, 0]] != "")
    results = json.loads((workdir / "scores.json").read_text())["treatments"]["results"]
    share = [r["value"] for r in results if r["metric"] == "share_significant" and r["score"] == "activity"][-1]
    return float(hits.mean()), f"{share:.3f} of all, {(members != '').mean():.3f} planted"


def _run(command: list[str]) -> tuple[float, float]:
    """Seconds and peak memory (GB) of one process."""
    started = time.monotonic()
    with open(os.devnull, "wb") as nowhere:
        process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, stdout=nowhere, stderr=subprocess.PIPE)
        said = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}\n{said[-2000:].decode()}")
    return time.monotonic() - started, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()

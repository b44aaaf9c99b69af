"""What does each method learn in the same number of epochs, which channel mode wins, what does the contrastive term do?

    python experiments/quality/compare.py --set=simulated                     every run, into runs/quality
    python experiments/quality/compare.py --set=bbbc021 --runs ae-resnet18 mae-vit

Windows of 32 x 32 px are learned from, whole images are embedded: a latent vector is spread with positions as channels,
for which any size will do. Each run is `launch.py` with options; the table is read from their `scores.json`. A run that
is there is not repeated.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_CROP = ["--config.data.crop_size=(32, 32)"]
_ANY_SIZE = ["--config.model.spread=broadcast"]  # of a network that makes a map of one vector
_RESNET = ["--config.model.encoder=resnet", *_CROP]
_POOLED = ["--config.model.bottleneck=pooled", "--config.model.quantizer.num_codes=64"]
_GROUPS = [*_POOLED, "--config.model.quantizer.num_groups=16", "--config.model.quantizer.code_dim=8"]
_VIT = ["--config.model.encoder=vit", "--config.model.vit.size=Ti", "--config.model.vit.patch_size=8", *_CROP]
_LATENT = ["--config.model.latent_dim=128"]

# name -> (configuration file, options); every one with 128 numbers per image, MAE with its ViT's width, 192 or 384.
RUNS = {
    "ae-resnet18": ("ae", [*_RESNET, *_ANY_SIZE, *_LATENT]),
    "vae-resnet18": ("vae", [*_RESNET, *_ANY_SIZE, *_LATENT]),
    "vqvae-resnet18": ("vqvae", [*_RESNET, *_LATENT]),
    "vqvae-resnet18-pooled": ("vqvae", [*_RESNET, *_ANY_SIZE, *_LATENT, *_GROUPS]),
    "vqvae-stack": ("vqvae", [*_CROP, *_LATENT]),
    "ae-vit": ("ae", [*_VIT, *_ANY_SIZE, *_LATENT]),
    "vae-vit": ("vae", [*_VIT, *_ANY_SIZE, *_LATENT]),
    "vqvae-vit": ("vqvae", [*_VIT, *_LATENT]),
    "mae-vit": ("mae", _CROP),
    "mae-vit-s": ("mae", [*_CROP, "--config.model.vit.size=S", "--config.model.latent_dim=384"]),
    "mae-vit-fourier": ("mae", [*_CROP, "--config.objective.fourier_weight=0.01"]),
    # A whole image of 128 px with 5 channels has 1,280 tokens, and their attention 5 million numbers in each block.
    "mae-vit-tokens": ("mae", [*_CROP, "--config.model.channels=tokens", "--config.eval.batch_size=4"]),
    "vqvae-stack-independent": ("vqvae", [*_CROP, *_LATENT, "--config.model.channels=independent"]),
    "vqvae-stack-contrastive": (
        "vqvae",
        [*_CROP, *_LATENT, "--config.model.channels=independent", "--config.objective.contrastive.weight=0.1"],
    ),
    "vqvae-stack-replicates": (
        "vqvae",
        [
            *_CROP,
            *_LATENT,
            "--config.objective.contrastive.weight=0.1",
            "--config.objective.contrastive.form=replicates",
        ],
    ),
}
_OF_SET = {
    "simulated": [],
    "bbbc021": ["--config.data.name=bbbc021", "--config.eval.probe_control=DMSO"],
}
RANDOM = ("random_encoder", "random_encoder_pooled")
BASELINES = ("intensity_texture_regions", "intensity", "pixel_pca")
NORMALIZATIONS = {"": "raw", "_per_plate": "per plate"}  # what is behind a feature set's name in `scores.json`


def train(name: str, set_name: str, epochs: int, workdir: Path) -> None:
    """One run with its scores; its seconds are kept beside them."""
    file, options = RUNS[name]
    command = [sys.executable, "launch.py", f"--config=configs/{file}_idr0093.py:simulated", f"--workdir={workdir}"]
    length = [f"--config.train.epochs={epochs}", "--config.optimizer.cooldown_epochs=1"]
    length.append(f"--config.train.eval_every_epochs={epochs}")
    start = time.perf_counter()
    subprocess.run([*command, *options, *_OF_SET[set_name], *length], cwd=REPOSITORY, check=True)
    (workdir / "seconds").write_text(f"{time.perf_counter() - start:.0f}")


def rows(title: str, feature_sets: dict, key: str, minutes: str) -> str:
    """A row for each normalization."""
    return "\n".join(row(title, under, feature_sets[key + end], minutes) for end, under in NORMALIZATIONS.items())


def row(title: str, under: str, features: dict, minutes: str) -> str:
    """Macro F1 with its interval, leave one plate out, and how well plates can be told apart."""
    cells = []
    for classifier in ("logistic_regression", "random_forest"):
        score = features["classifiers"][classifier]["leave_plate_out"]
        low, high = score["macro_f1_interval_95"]
        draws = score["macro_f1_of_draws"]
        seeds = f", seeds {min(draws):.3f}-{max(draws):.3f}" if len(draws) > 1 else ""
        cells.append(f"{score['macro_f1']:.3f} [{low:.3f}-{high:.3f}]{seeds}")
    plate = features["plate_identity"]["macro_f1"] if features.get("plate_identity") else float("nan")
    return f"| {title} | {under} | {features['dim']} | {' | '.join(cells)} | {plate:.3f} | {minutes} |"


def main() -> None:
    """All runs of a set, then its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(_OF_SET), required=True)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workdir", type=Path, default=Path("runs/quality"))
    asked = parser.parse_args()
    scores = {}
    for name in asked.runs:
        workdir = (asked.workdir / f"{asked.set}-{name}").absolute()
        if not (workdir / "seconds").exists():
            train(name, asked.set, asked.epochs, workdir)
        scores[name] = json.loads((workdir / "scores.json").read_text())["feature_sets"], workdir
    print(f"\n{asked.set}, {asked.epochs} epochs\n")
    heads = ["features", "normalized", "numbers", "logistic regression", "random forest", "plate", "minutes"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, (features, workdir) in scores.items():
        minutes = f"{int((workdir / 'seconds').read_text()) / 60:.1f}"
        print(rows(name, features, "trained_encoder", minutes))
        for baseline in RANDOM:
            print(rows(f"{name}: {features[baseline]['title'].lower()}", features, baseline, ""))
    features, _ = next(iter(scores.values()))
    for baseline in BASELINES:
        print(rows(features[baseline]["title"], features, baseline, ""))


if __name__ == "__main__":
    main()

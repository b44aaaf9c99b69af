"""A workdir with plausible content, made without training: what evaluation reads, and a set of images to go with it."""

import io
import json
import types

import numpy as np
import pandas as pd
import pytest

from bie_jax.config.rules import check_config
from bie_jax.config.stored import save_config
from bie_jax.files import integrity
from bie_jax.training import run_files
from configs import vqvae_idr0093
from tests.once import made_once

CHANNELS = ("DNA", "nascent <RNA>", "mem$brane & co")
LABELS = ("control", "KIF11", "PLK1", "<b>TOP2A</b>")
HOSTILE = "<script>document.title='owned'</script>"
PLATES = ("P1", "P2", "P3")


class FakeImageSet:
    """The attributes of `bie_jax.input.image_set.ImageSet` that evaluation uses, over an array."""

    def __init__(self, images, metadata, statistics):
        self.array, self.metadata, self.statistics = images, metadata, statistics
        self.name, self.kind, self.channel_names, self.pixel_size_um = "fake", "images", CHANNELS, 0.5
        self.image_shape, self.simulated, self.bit_depth = images.shape[1:], True, 16
        self.description, self.fingerprint = statistics["description"], ""

    def __len__(self):
        return len(self.array)

    def __getitem__(self, i):
        return self.array[i]

    def part(self, rows):
        statistics = self.statistics | {"num_examples": len(rows)}
        return FakeImageSet(self.array[rows], self.metadata.iloc[rows].reset_index(drop=True), statistics)


def simulate(size=48, sites=3, seed=0):
    """Discs of a size and brightness that depend on the label, on three plates of different brightness."""
    rng = np.random.default_rng(seed)
    rows, images = [], []
    y, x = np.mgrid[:size, :size]
    for p, plate in enumerate(PLATES):
        for w in range(12):
            label = w % len(LABELS)
            for site in range(sites):
                image = rng.normal(400 + 60 * p, 25, (size, size, len(CHANNELS)))
                for _ in range(rng.integers(2, 5)):
                    cy, cx = rng.uniform(6, size - 6, 2)
                    radius = 3 + label + rng.normal(0, 0.5)
                    disc = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
                    image += disc[..., None] * np.array([1500, 700 + 300 * label, 500])
                images.append(np.clip(image, 0, 65535))
                rows.append((plate, f"{'BCD'[w // 4]}{w % 4 + 2:02d}", site, LABELS[label], HOSTILE, 0.1 * label))
    metadata = pd.DataFrame(rows, columns=["plate", "well", "site", "label", "source", "truth"])
    images = np.array(images).astype(np.uint16)
    flat = images.reshape(-1, len(CHANNELS)).astype(float)
    overall = {
        "count": len(flat),
        "percentiles": {str(q): np.percentile(flat, q, axis=0).tolist() for q in (0.1, 1, 50, 99, 99.9)},
        "mean": flat.mean(0).tolist(),
        "std": flat.std(0).tolist(),
        "min": flat.min(0).tolist(),
        "max": flat.max(0).tolist(),
    }
    statistics = {
        "channel_names": list(CHANNELS),
        "pixel_size_um": 0.5,
        "bit_depth": 16,
        "image_shape": list(images.shape[1:]),
        "dtype": "uint16",
        "num_examples": len(images),
        "description": f"Discs on noise. {HOSTILE}",
        "simulated": True,
        "overall": overall,
        "plates": dict.fromkeys(PLATES, overall),
        "name": "fake",
        "directory": "datasets/fake/1.0.0",
    }
    return FakeImageSet(images, metadata, statistics)


def write_workdir(path, image_set, *, seed=0, latent_dim=8, **options):
    """What training and embedding leave, with embeddings that hold the label in noise."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    config = vqvae_idr0093.get_config("tiny")
    config.data.name, config.data.data_dir = "fake", f"datasets/{HOSTILE}"
    evaluation = {
        "label": "label",
        "group": "plate",
        "probe_control": "control",
        "folds": 3,
        "trees": 3,
        "knn_k": 1,
        "bootstrap": 50,
        "umap": False,
        "classical_baseline": True,
        "max_report_points": 2000,
    }
    config.eval.update(evaluation | options)
    save_config(check_config(config), path)
    integrity.write_json(path / "dataset.json", {"sets": [image_set.statistics]})

    lines = []
    for step in range(10, 401, 10):
        fall = float(np.exp(-step / 120))
        train = {
            "loss": 0.2 + fall,
            "recon": 0.19 + fall,
            "vq": 0.01 + 0.1 * fall,
            "perplexity": 12 - 8 * fall,
            "codes_used": 14,
        }
        lines.append(
            {"step": step, "epoch": step / 40}
            | {f"train/{k}": v for k, v in train.items()}
            | {"optimizer/lr": 1e-3 * fall, "perf/images_per_s": 200.0}
        )
        if step % 40 == 0:
            lines.append(
                {
                    "step": step,
                    "epoch": step / 40,
                    "val/loss": 0.22 + fall,
                    "val/recon": 0.2 + fall,
                    "val/vq": 0.02 + 0.1 * fall,
                    "val/perplexity": 11.0,
                }
            )
    log = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (path / "metrics.jsonl").write_bytes(log)
    integrity.enter_log(path / "metrics.jsonl", len(log), integrity.hash_bytes(log))

    count = len(image_set)
    label = image_set.metadata["label"].map(LABELS.index).to_numpy()
    features = rng.normal(size=(count, latent_dim)).astype(np.float32)
    features[:, :4] += 2.0 * np.eye(4)[label]
    names = {"plate": "Metadata_Plate", "well": "Metadata_Well", "site": "Metadata_Site"}
    table = image_set.metadata.rename(columns=lambda name: names.get(name, f"Metadata_{name}"))
    table["Metadata_split"] = np.where(rng.random(count) < 0.2, "val", "train")
    for i in range(latent_dim):
        table[f"vqvae_{i:04d}"] = features[:, i]
    integrity.write_file(path / "embeddings.parquet", table.to_parquet, 0)

    index = np.flatnonzero(table["Metadata_split"] == "val")[:4]
    overall = image_set.statistics["overall"]
    image = ((image_set.array[index] - np.array(overall["mean"])) / np.array(overall["std"])).astype(np.float32)
    _write_npz(path / "reconstructions.npz", image=image, reconstruction=0.8 * image + 0.1, index=index)
    counts = rng.multinomial(count * 16, rng.dirichlet(np.ones(16)), size=1)
    _write_npz(
        path / "codebook.npz",
        code_counts=counts,
        codebook=rng.normal(size=(1, 16, latent_dim)),
        positions=16,
        capacity_bits=64.0,
    )
    return path


def _write_npz(path, **arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    integrity.write_bytes(path, content.getvalue())


@pytest.fixture(scope="session")
def image_set():
    return simulate()


@pytest.fixture(scope="session")
def evaluate_fake():
    """`evaluate` over the fake set, with random projections in place of the untrained network."""
    from bie_jax.evaluation import encoders
    from bie_jax.evaluation.embedding import read
    from bie_jax.evaluation.evaluate import evaluate

    def run(workdir, image_set):
        def embed_fake(embedder, images, progress=True):
            pixels = images.array.reshape(len(images), -1).astype(np.float32)
            weights = np.random.default_rng(embedder.seed).normal(size=(pixels.shape[1], sum(embedder.widths)))
            return pixels @ weights.astype(np.float32) / 1e4

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(read, "open_image_set", lambda name, data_dir: image_set)
            patch.setattr(run_files, "best_step", lambda workdir: 400)  # there is no network, so no checkpoint either
            patch.setattr(
                encoders,
                "load_untrained",
                lambda workdir, seeds: (types.SimpleNamespace(seed=seed, widths=(8, 6)) for seed in seeds),
            )
            patch.setattr(encoders, "embed_image_set", embed_fake)
            return evaluate(workdir)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory, image_set, evaluate_fake):
    """A workdir after evaluation, with the scores that `evaluate` returned.

    Its map is of the first two numbers of each embedding: UMAP itself is tested in report/test_project.py.
    """

    def make(folder):
        workdir = write_workdir(folder / "demo <i>run", image_set, umap=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bie_jax.evaluation.report.map.umap_projection", lambda features, seed: features[:, :2])
            return evaluate_fake(workdir, image_set)

    folder, scores = made_once(tmp_path_factory, "evaluated", make)
    return folder / "demo <i>run", scores

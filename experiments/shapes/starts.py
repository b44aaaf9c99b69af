"""How much does an embedding change with the point that an outline starts at, and what does it cost that it does not?

    python experiments/shapes/starts.py runs/shape_vae_mnist

One table for the trained network of a run and for the same with random weights: of 500 outlines of its set, the
distance of an embedding from that of the same outline started elsewhere, as a share of the RMS distance between two
outlines. "One view" is every k-th point from the start, "all phases" what `Embedder.embed` does. A start between
stored points is that of the closed polygon through them, resampled from there.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bie_jax.config.stored import load_config
from bie_jax.evaluation import embedding
from bie_jax.input.image_set import open_image_set
from bie_jax.shapes.resample import resample_contour

OUTLINES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    workdir = parser.parse_args().workdir
    config = load_config(workdir)
    image_set = open_image_set(config.data.name, config.data.data_dir)
    rows = np.random.default_rng(0).choice(len(image_set), min(OUTLINES, len(image_set)), replace=False)
    outlines = image_set.images(rows)  # [N, P', 2, 1]
    step = outlines.shape[1] // config.data.crop_size[0]
    print(f"{len(rows)} outlines of {image_set.name}, {outlines.shape[1]} points, every {step}th seen\n")
    print("| weights | seen | another stored point: mean | greatest | half a step: mean | outlines/s |")
    print("|---|---|---|---|---|---|")
    for weights, embedder in (
        ("trained", embedding.load(workdir)),
        ("random", next(embedding.load_untrained(workdir, [0]))),
    ):
        for seen, thinned in (("one view", step), ("all phases", 1)):

            def of(points: np.ndarray) -> np.ndarray:
                return embedder.embed(points[:, ::thinned])  # noqa: B023

            own = of(outlines)
            start = time.perf_counter()
            of(outlines)
            rate = len(rows) / (time.perf_counter() - start)
            spread = np.sqrt(2 * own.astype(np.float64).var(axis=0).sum())
            shifts = (*range(1, max(step, 2)), outlines.shape[1] // 2 + 1)
            moved = [np.linalg.norm(of(np.roll(outlines, s, axis=1)) - own, axis=1) / spread for s in shifts]
            between = np.linalg.norm(of(_half_a_step_on(outlines)) - own, axis=1).mean() / spread
            print(
                f"| {weights} | {seen} | {np.mean(moved):.4%} | {np.max(moved):.4%} | {between:.2%} | {rate:.0f} |",
                flush=True,
            )


def _half_a_step_on(outlines: np.ndarray) -> np.ndarray:
    """[N, P', 2, 1]: the same polygons, from the middle between their first two points."""
    points = outlines[..., 0].astype(np.float64)
    middle = (points[:, :1] + points[:, 1:2]) / 2
    started = np.concatenate([middle, points[:, 1:], points[:, :1]], axis=1)
    resampled = [resample_contour(outline, points.shape[1]) for outline in started]
    return np.stack(resampled)[..., None].astype(np.float32)


if __name__ == "__main__":
    main()

"""What do summaries that need no training know of a shape? Cross-validated scores of invariant and classical ones.

    python experiments/shapes/classical.py mnist --data=../shared/data
    python experiments/shapes/classical.py cells --data=../shared/data

MNIST: silhouettes of the 10,000 test digits (binarized at half maximum, outer outline), 64 points, once as traced (the
start, above the leftmost pixel of the top row, tells which way is up), once with a random rotation, start and direction
each. Osteosarcoma cells: 256 points of the published outlines. Stratified 5-fold, macro F1; features are standardized
on the training folds, tables of more than 200 columns are reduced to 200 whitened principal components there.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bie_jax.shapes.contour import masks_to_contours
from bie_jax.shapes.descriptors import SHAPE_PROPERTIES, elliptic_fourier, fourier_magnitudes, region_properties
from bie_jax.shapes.distance_matrix import (
    canonical_start,
    cyclic_diagonal_spectrum,
    normalize_scale,
    pairwise_distances,
    reindex,
)
from bie_jax.shapes.resample import resample_contour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=("mnist", "cells"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--number", type=int, default=10_000, help="of digits")
    arguments = parser.parse_args()
    {"mnist": mnist, "cells": cells}[arguments.set](arguments)


def mnist(arguments: argparse.Namespace) -> None:
    with np.load(arguments.data / "mnist" / "mnist.npz") as archive:
        masks, labels = archive["x_test"][: arguments.number] > 127, archive["y_test"][: arguments.number]
    contours = masks_to_contours(masks, 256)
    moved = without_pose(contours, np.random.default_rng(0))
    tables = {name: summaries(points) for name, points in (("pose kept", contours), ("pose gone", moved))}
    print("| features | columns | LR, pose kept | LR, pose gone | seconds |\n|---|---|---|---|---|", flush=True)
    for name in tables["pose kept"]:
        begin = time.perf_counter()
        scores = [macro_f1(logistic_regression(tables[pose][name]), tables[pose][name], labels) for pose in tables]
        row = [name, tables["pose kept"][name].shape[1], *(f"{score:.3f}" for score in scores)]
        print("|", " | ".join(map(str, row)), f"| {time.perf_counter() - begin:.0f} |", flush=True)


def cells(arguments: argparse.Namespace) -> None:
    folder = arguments.data / "osteosarcoma_cell_contours"
    outlines = read_outlines(folder / "cells.txt")
    contours = np.stack([resample_contour(outline, 256) for outline in outlines])
    tables = summaries(contours)
    size = region_properties(contours, size=True).values[:, len(SHAPE_PROPERTIES) :]
    for name in ("region properties", "FFT magnitudes of cyclic diagonals", "region, Fourier, diagonals"):
        tables[f"{name}, with size"] = np.concatenate([tables[name], size], axis=1)
    print("| features | columns | line, LR | line, RF | treatment, LR | treatment, RF |\n|---|---|---|---|---|---|")
    for name, table in tables.items():
        row = [name, table.shape[1]]
        for target in ("cell_lines", "treatments"):
            labels = np.asarray((folder / f"{target}.txt").read_text().split())
            row.append(f"{macro_f1(logistic_regression(table), table, labels):.3f}")
            row.append(f"{macro_f1(RandomForestClassifier(300, random_state=0), table, labels):.3f}")
        print("|", " | ".join(map(str, row)), "|", flush=True)


def read_outlines(path: Path) -> list[np.ndarray]:
    """Blank lines part outlines, lines are "x y"."""
    blocks = path.read_text().replace("\r", "").strip().split("\n\n")
    return [np.asarray([line.split()[::-1] for line in block.splitlines()], np.float64) for block in blocks]


def without_pose(contours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each outline turned by any angle, from any start, in either direction."""
    num_points = contours.shape[1]
    angle, shift = rng.uniform(0, 2 * np.pi, len(contours)), rng.integers(num_points, size=len(contours))
    direction = rng.choice([-1, 1], len(contours))
    rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 1, 2, 2)
    order = (shift[:, None] + direction[:, None] * np.arange(num_points)) % num_points
    turned = (rotation @ contours[..., None])[..., 0]
    return np.take_along_axis(turned, order[..., None], axis=1)


def summaries(contours: np.ndarray) -> dict[str, np.ndarray]:
    """Tables [N, F] of outlines [N, 256, 2] in any direction."""
    d = normalize_scale(pairwise_distances(contours[:, ::4]))[0]  # 64 points
    upper = np.triu_indices(64, 1)
    # Region properties want a direction; the matrix does not.
    clockwise = np.stack([resample_contour(points, 256) for points in contours])
    tables = {
        "matrix, start as it is": d[:, *upper],
        "matrix, canonical start": reindex(d, *canonical_start(d))[:, *upper],
        "FFT magnitudes of cyclic diagonals": cyclic_diagonal_spectrum(d).reshape(len(d), -1),
        "FFT magnitudes of the matrix, 2-D": np.abs(np.fft.fft2(d))[:, :33].reshape(len(d), -1),
        "products of cyclic diagonals": diagonal_products(d),
        "region properties": region_properties(clockwise).values,
        "elliptic Fourier, normalized": elliptic_fourier(clockwise, 10).values,
        "Fourier magnitudes": fourier_magnitudes(clockwise, 40).values,
    }
    tables["region, Fourier, diagonals"] = np.concatenate(
        [tables[name] for name in ("region properties", "Fourier magnitudes", "FFT magnitudes of cyclic diagonals")], 1
    )
    more = ("region, Fourier, diagonals", "elliptic Fourier, normalized", "products of cyclic diagonals")
    tables["region, both Fourier, diagonals, products"] = np.concatenate([tables[name] for name in more], axis=1)
    return tables


def diagonal_products(d: np.ndarray) -> np.ndarray:
    """Re A_k(w) conj A_l(w) over |A_k(w) A_l(w)|^(1/2), of diagonals k, l = 4, 8, ..., 32 and frequencies w = 1 .. 16.

    With the diagonal taken about the middle of its chords, another start multiplies all A_k(w) by one phase, and the
    other direction conjugates them: their products' real parts do not change.
    """
    num_points = d.shape[-1]
    k = np.arange(4, 33, 4)[:, None]
    start = np.arange(num_points)
    diagonals = np.fft.rfft(d[:, start, (start + k) % num_points], axis=-1)[..., 1:17]
    diagonals = diagonals * np.exp(-1j * np.pi * k * np.arange(1, 17) / num_points)
    first, second = np.triu_indices(len(k))
    products = np.real(diagonals[:, first] * diagonals[:, second].conj())
    size = np.sqrt(np.abs(diagonals[:, first] * diagonals[:, second]))
    return (products / np.maximum(size, 1e-12)).reshape(len(d), -1)


def logistic_regression(table: np.ndarray):
    reduce = [PCA(200, whiten=True, random_state=0)] if table.shape[1] > 200 else []
    return make_pipeline(StandardScaler(), *reduce, LogisticRegression(max_iter=2000))


def macro_f1(classifier, table: np.ndarray, labels: np.ndarray) -> float:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return f1_score(labels, cross_val_predict(classifier, table, labels, cv=folds), average="macro")


if __name__ == "__main__":
    main()

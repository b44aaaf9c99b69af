"""How fast are masks made into distance matrices, and matrices into points again?

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python experiments/shapes/speed.py --data=../shared/data

Beside ours a plain loop of scikit-image and scipy (`find_contours`, `interp1d`, `cdist`), and one of
`sklearn.manifold.MDS`. CPU time of this process, so that other work on the machine counts little; each pair is measured
three times in turns, and the least counts.
"""

import argparse
import sys
import time
import warnings
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
import scipy.interpolate
import scipy.spatial
import skimage.measure
from classical import read_outlines
from sklearn.manifold import MDS

from bie_jax.losses.shape import reindexed_mse, triangle_inequality
from bie_jax.shapes.contour import label_image_to_contours, masks_to_contours
from bie_jax.shapes.descriptors import elliptic_fourier, fourier_magnitudes, region_properties
from bie_jax.shapes.distance_matrix import normalized_distances, pairwise_distances
from bie_jax.shapes.mds import classical_mds
from bie_jax.shapes.polygon import align, contour_to_mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    with np.load(arguments.data / "mnist" / "mnist.npz") as archive:
        digits = archive["x_test"][:2000] > 127
    outlines = read_outlines(arguments.data / "osteosarcoma_cell_contours" / "cells.txt")
    cells = np.stack([placed(outline, (128, 128)) for outline in outlines[:300]])
    fields = np.stack([placed(outline, (520, 696)) for outline in outlines[:40]])
    print("| masks | points | scikit-image + scipy, masks/s | ours, masks/s | factor |\n|---|---|---|---|---|")
    for name, masks in (("digits, 28 x 28", digits), ("cells, 128 x 128", cells), ("one in 520 x 696", fields)):
        for num_points in (64, 256):
            plain, ours = in_turns(partial(loop, masks, num_points), partial(matrices, masks, num_points))
            compare(f"{name} | {num_points}", len(masks) / plain, len(masks) / ours)
    many = field_of_cells(outlines)
    count = many.max()
    for num_points in (64, 256):
        plain, ours = in_turns(partial(loop_of_labels, many, num_points), partial(all_of_labels, many, num_points))
        compare(f"{count} in a 520 x 696 label image | {num_points}", count / plain, count / ours)

    print("\n| descriptors of 2,000 outlines of 256 points | outlines/s |\n|---|---|")
    contours = masks_to_contours(digits, 256)
    for function in (region_properties, elliptic_fourier, fourier_magnitudes):
        (seconds,) = in_turns(partial(function, contours))
        print(f"| `{function.__name__}` | {len(contours) / seconds:,.0f} |", flush=True)

    scaling()
    losses()


def scaling() -> None:
    angle = 2 * np.pi * np.arange(256) / 256
    radius = 1 + 0.3 * np.cos(3 * angle + 1) + 0.2 * np.cos(2 * angle)
    points = np.stack([2 * radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    rng = np.random.default_rng(0)
    print(
        "\n| points | matrices | sklearn.manifold.MDS, ms | ours, float64, ms | float32, ms | factor | largest error |"
    )
    print("|---|---|---|---|---|---|---|")
    for num_points in (64, 256):
        true = pairwise_distances(points[:: 256 // num_points])
        for kind, noise in (("true", 0.0), ("1 % noise", 0.01)):
            d = np.stack([true] * 32)
            d = d + noise * true.mean() * rng.normal(size=d.shape)
            d = np.abs(d + np.swapaxes(d, 1, 2)) / 2 * ~np.eye(num_points, dtype=bool)
            single = jnp.asarray(d, jnp.float32)

            reference, double, half = in_turns(
                partial(loop_of_sklearn, d[:4]), partial(classical_mds, d), partial(wait, classical_mds, single)
            )
            size = np.ptp(points[:, 0])
            errors = [
                np.abs(
                    align(np.asarray(found, np.float64), points[:: 256 // num_points]) - points[:: 256 // num_points]
                )
                for found in (loop_of_sklearn(d[:1])[0], classical_mds(d)[0])
            ]
            row = [num_points, kind, f"{250 * reference:.1f}", f"{1000 * double / 32:.2f}", f"{1000 * half / 32:.2f}"]
            row += [f"{reference / 4 / (double / 32):.0f} / {reference / 4 / (half / 32):.0f}"]
            row += [" / ".join(f"{error.max() / size:.1e}" for error in errors)]
            print("|", " | ".join(map(str, row)), "|", flush=True)


def losses() -> None:
    print("\n| loss | points | batch | value, ms per matrix | value and gradient, ms per matrix | memory beside, MB |")
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    cases = {"triangle_inequality": triangle_inequality, "reindexed_mse": lambda d: reindexed_mse(d, d[::-1]).mean()}
    for name, function in cases.items():
        for num_points in (64, 256):
            d = pairwise_distances(jnp.asarray(rng.normal(size=(16, num_points, 2)), jnp.float32)) * 0.9
            d = d + 0.1 * jnp.asarray(rng.random(d.shape), jnp.float32)
            value, gradient = jax.jit(function), jax.jit(jax.value_and_grad(function))
            seconds = in_turns(partial(wait, value, d), partial(wait, gradient, d))
            memory = gradient.lower(d).compile().memory_analysis().temp_size_in_bytes / 2**20
            times = " | ".join(f"{1000 * one / 16:.2f}" for one in seconds)
            print(f"| `{name}` | {num_points} | 16 | {times} | {memory:.1f} |", flush=True)


def loop_of_sklearn(d: np.ndarray) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of defaults that will change
        return [MDS(metric="precomputed", random_state=0).fit_transform(one) for one in d]


def wait(function, argument):
    return jax.block_until_ready(function(argument))


def in_turns(*calls) -> list[float]:
    """Least CPU seconds of three runs of each."""
    for call in calls:
        call()
    seconds = [[] for _ in calls]
    for _ in range(3):
        for call, taken in zip(calls, seconds, strict=True):
            begin = time.process_time()
            call()
            taken.append(time.process_time() - begin)
    return [min(taken) for taken in seconds]


def compare(name: str, plain: float, ours: float) -> None:
    print(f"| {name} | {plain:,.0f} | {ours:,.0f} | {ours / plain:.1f} |", flush=True)


def matrices(masks: np.ndarray, num_points: int) -> None:
    in_parts(masks_to_contours(masks, num_points))


def loop(masks: np.ndarray, num_points: int) -> None:
    for mask in masks:
        outline = max(skimage.measure.find_contours(np.pad(mask, 1).astype(float), 0.5), key=len)
        matrix_of(outline, num_points)


def matrix_of(outline: np.ndarray, num_points: int) -> np.ndarray:
    arc = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    points = scipy.interpolate.interp1d(arc, outline, axis=0)(arc[-1] * np.arange(num_points) / num_points)
    d = scipy.spatial.distance.cdist(points, points)
    return d * num_points / np.linalg.norm(d)


def all_of_labels(label_image: np.ndarray, num_points: int) -> None:
    in_parts(label_image_to_contours(label_image, num_points)[1])


def in_parts(contours: np.ndarray) -> None:
    """Matrices as a set is written, 2 MB at a time; the loop's matrices are dropped one by one."""
    size = 2**18 // contours.shape[1] ** 2
    for begin in range(0, len(contours), size):
        normalized_distances(contours[begin : begin + size])


def loop_of_labels(label_image: np.ndarray, num_points: int) -> None:
    for region in skimage.measure.regionprops(label_image):
        outline = max(skimage.measure.find_contours(np.pad(region.image, 1).astype(float), 0.5), key=len)
        matrix_of(outline, num_points)


def placed(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An outline drawn into the middle of an image, 0.8 of its height."""
    local = outline - (outline.max(axis=0) + outline.min(axis=0)) / 2
    local = local * 0.8 * min(shape) / np.ptp(local, axis=0).max()
    return contour_to_mask(local + np.asarray(shape) / 2, shape)


def field_of_cells(outlines: list[np.ndarray]) -> np.ndarray:
    """[520, 696] with 12 x 16 cells of some 40 px."""
    image = np.zeros((520, 696), np.int32)
    for index in range(12 * 16):
        row, column = divmod(index, 16)
        mask = placed(outlines[index], (43, 43))
        view = image[row * 43 : row * 43 + 43, column * 43 : column * 43 + 43]
        view[mask] = index + 1
    return image


if __name__ == "__main__":
    main()

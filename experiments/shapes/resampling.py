"""What is lost by resampling an outline, by method and number of points?

    python experiments/shapes/resampling.py --data=../shared/data

2,000 MNIST silhouettes (outlines by marching squares) and the 650 osteosarcoma outlines. IoU of the areas inside of the
outline and of its resampled polygon, rasterised at 8 (digits) and 2 (cells) times the resolution; Hausdorff distance of
the two outlines, in percent of the equivalent diameter.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import scipy.spatial
from classical import read_outlines

from bie_jax.shapes.contour import outer_boundary
from bie_jax.shapes.polygon import contour_to_mask, signed_area
from bie_jax.shapes.resample import METHODS, resample_contour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    with np.load(arguments.data / "mnist" / "mnist.npz") as archive:
        digits = [outer_boundary(mask) for mask in archive["x_test"][:2000] > 127]
    cells = read_outlines(arguments.data / "osteosarcoma_cell_contours" / "cells.txt")
    print("| outlines | points | method | IoU, mean | IoU, least | Hausdorff, mean | Hausdorff, worst | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for name, outlines, magnification in (("digits", digits, 8), ("cells", cells, 2)):
        for num_points in (64, 256):
            for method in METHODS:
                overlap, distance, seconds = compare(outlines, num_points, method, magnification)
                row = [name, num_points, method, f"{overlap.mean():.4f}", f"{overlap.min():.3f}"]
                row += [f"{100 * distance.mean():.2f} %", f"{100 * distance.max():.1f} %"]
                print("|", " | ".join(map(str, row)), f"| {1000 * seconds:.2f} |", flush=True)


def compare(outlines: list[np.ndarray], num_points: int, method: str, magnification: int):
    overlaps, distances, seconds = [], [], 0.0
    for outline in outlines:
        begin = time.process_time()
        points = resample_contour(outline, num_points, method)
        seconds += time.process_time() - begin
        low = np.minimum(outline.min(axis=0), points.min(axis=0)) - 1
        high = np.maximum(outline.max(axis=0), points.max(axis=0)) + 1
        shape = tuple(np.ceil((high - low) * magnification).astype(int))
        mask, other = (contour_to_mask((one - low) * magnification, shape) for one in (outline, points))
        overlaps.append((mask & other).sum() / (mask | other).sum())
        distances.append(hausdorff(outline, points) / (2 * np.sqrt(abs(signed_area(outline)) / np.pi)))
    return np.asarray(overlaps), np.asarray(distances), seconds / len(outlines)


def hausdorff(one: np.ndarray, other: np.ndarray) -> float:
    """Between polygons, each seen as 2,048 points."""
    one, other = resample_contour(one, 2048), resample_contour(other, 2048)
    there, back = (scipy.spatial.cKDTree(a).query(b)[0].max() for a, b in ((one, other), (other, one)))
    return max(there, back)


if __name__ == "__main__":
    main()

"""What a trained autoencoder knows of shapes, drawn: out of the latent space, and back to outlines.

Every picture goes embedding -> decoder -> distance matrix -> classical scaling -> outline. A matrix knows nothing of
rotation and reflection, so the outlines of a row are turned, or mirrored, onto each other.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.mixture import GaussianMixture

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding import Embedder, embed_image_set, load_latents
from bie_jax.evaluation.embedding.decoder import has_decoder
from bie_jax.evaluation.report.outline_grid import outline_grid
from bie_jax.evaluation.report.style import Picture
from bie_jax.input.image_set import ImageSet
from bie_jax.shapes.distance_matrix import normalized_distances
from bie_jax.shapes.mds import classical_mds, residual_energy
from bie_jax.shapes.polygon import align
from bie_jax.training import run_files
from bie_jax.training.writers.outline_pictures import match

COLUMNS = 8
ROWS = 4
CLASSES = 12  # most that are drawn
AXIS_SD = 2.0  # how far a walk along an axis goes, in standard deviations
MIXTURE_COMPONENTS = 4
LEAST_FOR_MIXTURE = 50  # shapes of a class for a mixture of Gaussians; below, one Gaussian of its axes


def shape_pictures(
    workdir: Path, image_set: ImageSet, features: np.ndarray, labels: np.ndarray, seed: int
) -> list[Picture]:
    """Neighbors in latent space and, where the decoder was trained, what it makes of points of it.

    Args:
        workdir: of the run.
        image_set: of shapes.
        features: [N, D] embeddings, without what is appended to them.
        labels: [N], of any type; what is missing is NaN or None.
        seed: of what is drawn at random.
    """
    config = load_config(workdir)
    rng = np.random.default_rng(seed)
    step = image_set.image_shape[0] // config.data.crop_size[0]
    names = np.where(pd.isna(labels), "", labels.astype(str))

    pictures = [_neighbors(features, functools.partial(_outlines, image_set, step), names, rng)]
    if has_decoder(config) and config.objective.reconstruction:
        embedder = load_latents(workdir)
        latents = embed_image_set(embedder, image_set)
        classes = [name for name in np.unique(names) if name][:CLASSES]
        pictures += [
            _reconstructions(workdir, image_set, step),
            _interpolations(embedder, latents, names, rng),
            _walks(embedder, latents),
            _means(embedder, latents, names, classes),
            _samples(embedder, latents, names, classes, seed),
        ]
    return pictures


def _outlines(image_set: ImageSet, step: int, rows: np.ndarray) -> np.ndarray:
    """[n, P, 2] px of some rows, every `step`-th point of those that are stored."""
    return image_set.images(rows)[:, ::step, :, 0].astype(np.float64)


def latent_to_outline(embedder: Embedder, latents: np.ndarray) -> np.ndarray:
    """[N, D] -> [N, P, 2], in RMS distances between points, centered, in principal axes."""
    matrices = embedder.decode(latents)[..., 0]
    return classical_mds((matrices + np.swapaxes(matrices, -1, -2)) / 2)


def sample_latents(latents: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws from a mixture of Gaussians fitted to embeddings.

    Args:
        latents: [n, D]; of few, one Gaussian of independent axes is fitted.
        count: how many.
        seed: of fit and draws.

    Returns:
        [count, D].
    """
    few = len(latents) < LEAST_FOR_MIXTURE
    mixture = GaussianMixture(
        1 if few else MIXTURE_COMPONENTS, covariance_type="diag" if few else "full", reg_covar=1e-4, random_state=seed
    )
    # In single precision a covariance of nearly dependent axes is not positive any more, and cannot be drawn from.
    return mixture.fit(latents.astype(np.float64)).sample(count)[0].astype(np.float32)


def in_one_pose(outlines: np.ndarray) -> np.ndarray:
    """A row [C, P, 2] turned, or mirrored, onto its first, each from the start point and direction that fit best."""
    d = normalized_distances(outlines)[0]
    first = np.broadcast_to(d[:1], d.shape)
    return align(classical_mds(np.asarray(match(d, first), np.float64)), np.broadcast_to(outlines[:1], outlines.shape))


def _normalized(outlines: np.ndarray) -> np.ndarray:
    """[..., P, 2] px -> centered, in RMS distances between points; as the object lay in its image."""
    _, scale = normalized_distances(outlines)
    return (outlines - outlines.mean(axis=-2, keepdims=True)) / np.where(scale > 0, scale, 1)[..., None, None]


def _neighbors(
    latents: np.ndarray, outlines_of: Callable[[np.ndarray], np.ndarray], names: np.ndarray, rng: np.random.Generator
) -> Picture:
    standard = (latents - latents.mean(axis=0)) / np.maximum(latents.std(axis=0), 1e-9)
    queries = rng.choice(len(latents), min(ROWS + 2, len(latents)), replace=False)
    nearest = [
        np.argsort(np.square(standard - standard[query]).sum(axis=1), kind="stable")[:COLUMNS] for query in queries
    ]
    found = np.stack(nearest)
    cells = np.stack([in_one_pose(_normalized(outlines_of(rows))) for rows in found])[:, :, None]
    known = (names[queries] != "") & (found.shape[1] > 1)  # one object has no neighbors
    same = float(np.mean((names[found[:, 1:]] == names[queries][:, None])[known])) if known.any() else None
    return Picture(
        "Neighbors in latent space",
        outline_grid(
            cells,
            [str(names[query]) or "-" for query in queries],
            ["object", *(f"nearest {k}" for k in range(1, found.shape[1]))],
        ),
        "Each row: an object drawn at random, and the objects whose standardized embeddings are nearest to its own, "
        "turned onto it." + ("" if same is None else f" {same:.0%} of the neighbors shown carry its label."),
    )


def _reconstructions(workdir: Path, image_set: ImageSet, step: int) -> Picture:
    with np.load(workdir / run_files.RECONSTRUCTIONS, allow_pickle=False) as stored:
        d, d_hat, rows = stored["image"][..., 0], stored["reconstruction"][..., 0], stored["index"]
    outlines = _normalized(_outlines(image_set, step, rows))
    predicted = align(classical_mds(np.asarray(match(d_hat, d), np.float64)), outlines)
    error = np.sqrt(np.square(predicted - outlines).sum(axis=-1).mean())
    outside = np.mean(residual_energy((d_hat + d_hat.swapaxes(-1, -2)) / 2))
    cells = np.stack([outlines, predicted], axis=1)[None]
    return Picture(
        "Reconstructions of validation shapes",
        outline_grid(cells, [""], [f"row {row}" for row in rows]),
        "Grey: the outline. Red: matrix as predicted, to points by classical scaling, laid over it. Root mean squared "
        f"distance between corresponding points {error:.3f} RMS distances; {outside:.1%} of the predicted matrices' "
        "energy lies outside of the plane that is drawn.",
    )


def _interpolations(embedder: Embedder, latents: np.ndarray, names: np.ndarray, rng: np.random.Generator) -> Picture:
    share = np.linspace(0, 1, COLUMNS, dtype=np.float32)[:, None]
    cells, titles = [], []
    for _ in range(ROWS):
        first = int(rng.integers(len(names)))
        others = np.flatnonzero(names != names[first])
        second = int(rng.choice(others if len(others) else np.arange(len(names))))
        cells.append(in_one_pose(latent_to_outline(embedder, (1 - share) * latents[first] + share * latents[second])))
        titles.append(f"{names[first]} to {names[second]}")
    return Picture(
        "From one object to another",
        outline_grid(np.stack(cells)[:, :, None], titles, [f"{value:.2f}" for value in share[:, 0]]),
        "Points on the straight line between two objects' embeddings, decoded. Numbers: share of the way.",
    )


def _walks(embedder: Embedder, latents: np.ndarray) -> Picture:
    mean = latents.mean(axis=0)
    _, sizes, axes = np.linalg.svd(latents - mean, full_matrices=False)
    count = min(ROWS, len(axes))
    deviation = sizes[:count] / np.sqrt(len(latents))
    steps = np.linspace(-AXIS_SD, AXIS_SD, COLUMNS + 1, dtype=np.float32)
    walks = [mean + steps[:, None] * deviation[k] * axes[k] for k in range(count)]
    cells = np.stack([in_one_pose(latent_to_outline(embedder, walk)) for walk in walks])[:, :, None]
    shares = np.square(sizes[:count]) / np.square(sizes).sum()
    return Picture(
        "Walks along the axes of the latent space",
        outline_grid(cells, [f"axis {k + 1} ({shares[k]:.0%})" for k in range(count)], [f"{s:+.1f} sd" for s in steps]),
        "The mean embedding moved along one principal axis of all embeddings, decoded. In brackets: the axis' share of "
        "their variance.",
    )


def _means(embedder: Embedder, latents: np.ndarray, names: np.ndarray, classes: list[str]) -> Picture:
    groups = [latents[names == name].mean(axis=0) for name in classes] or [latents.mean(axis=0)]
    cells = latent_to_outline(embedder, np.stack(groups))[None, :, None]
    return Picture(
        "The mean shape of each class",
        outline_grid(cells, [""], classes or ["all"]),
        "The mean of a class' embeddings, decoded; each in its own principal axes.",
    )


def _samples(embedder: Embedder, latents: np.ndarray, names: np.ndarray, classes: list[str], seed: int) -> Picture:
    rows, titles = [sample_latents(latents, COLUMNS, seed)], ["any"]
    for name in classes:
        if (names == name).sum() >= 2:
            rows.append(sample_latents(latents[names == name], COLUMNS, seed))
            titles.append(name)
    cells = np.stack([latent_to_outline(embedder, row) for row in rows])[:, :, None]
    return Picture(
        "Shapes that nobody drew",
        outline_grid(cells, titles, [str(k + 1) for k in range(COLUMNS)]),
        f"Draws from a mixture of {MIXTURE_COMPONENTS} Gaussians fitted to the embeddings of all shapes, and of each "
        f"class (one Gaussian for fewer than {LEAST_FOR_MIXTURE} shapes), decoded.",
    )

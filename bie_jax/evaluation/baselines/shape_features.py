"""The baselines of a set of shapes, and their thumbnails: what outlines say without any training."""

import numpy as np
from PIL import Image, ImageDraw

from bie_jax.evaluation.feature_set import Block, FeatureSet, HandMade
from bie_jax.evaluation.report import thumbnails
from bie_jax.input.image_set import ImageSet
from bie_jax.shapes.descriptors import elliptic_fourier, fourier_magnitudes, region_properties
from bie_jax.shapes.distance_matrix import cyclic_diagonal_spectrum, normalized_distances

POINTS = 64  # of an outline, for its matrix
COMPONENTS = 64
HARMONICS = 10
MAGNITUDES = 40
TILE_PX = 96


def shape_features(image_set: ImageSet, shown: np.ndarray, classical: bool) -> HandMade:
    """Region properties, Fourier descriptors and principal components of distance matrices.

    Args:
        image_set: of shapes.
        shown: rows that get a thumbnail.
        classical: whether the region properties, and what is made with them, are among the baselines.
    """
    outlines = image_set.images(np.arange(len(image_set)))[..., 0].astype(np.float64)  # [N, P, 2]
    step = max(1, outlines.shape[1] // POINTS)
    d = normalized_distances(outlines[:, ::step])[0]
    spectrum = cyclic_diagonal_spectrum(d)
    upper = d[:, *np.triu_indices(d.shape[1], 1)].astype(np.float32)
    elliptic = elliptic_fourier(outlines, HARMONICS).values
    magnitudes = fourier_magnitudes(outlines, min(MAGNITUDES, outlines.shape[1] - 2)).values
    feature_sets = [
        FeatureSet(
            "matrix_pca",
            "Matrix PCA",
            f"{COMPONENTS} principal components of the distances between {d.shape[1]} points, from the start point "
            "that the outline came with, fitted in each training fold.",
            upper,
            COMPONENTS,
        ),
        FeatureSet(
            "spectrum_pca",
            "FFT magnitude PCA",
            f"{COMPONENTS} principal components of the Fourier magnitudes of the matrix's cyclic diagonals, which do "
            "not depend on the start point, fitted in each training fold.",
            spectrum.reshape(len(d), -1),
            COMPONENTS,
        ),
        FeatureSet(
            "elliptic_fourier",
            "Elliptic Fourier",
            f"Normalized elliptic Fourier coefficients of {HARMONICS} harmonics (Kuhl and Giardina 1982).",
            elliptic,
        ),
        FeatureSet(
            "fourier_magnitudes",
            "Fourier magnitudes",
            f"Magnitudes of the {magnitudes.shape[1]} lowest Fourier coefficients of the outline as a complex signal.",
            magnitudes,
        ),
    ]
    if classical:
        properties = region_properties(outlines).values
        with_size = region_properties(outlines, size=True).values
        flat = spectrum.reshape(len(d), -1)
        known = [properties, elliptic, magnitudes]
        feature_sets += [
            FeatureSet(
                "region_properties",
                "Region properties",
                f"{properties.shape[1]} region properties that know neither pose nor size.",
                properties,
            ),
            FeatureSet(
                "region_properties_size",
                "Region properties and size",
                f"The same and {with_size.shape[1] - properties.shape[1]} lengths and areas in pixels.",
                with_size,
            ),
            FeatureSet(
                "all_classical",
                "All classical",
                f"Region properties, both kinds of Fourier descriptors, and {COMPONENTS} principal components each of "
                "matrices and of their Fourier magnitudes, all standardized, fitted in each training fold.",
                np.concatenate([*known, upper, flat], axis=1),
                (
                    Block(sum(values.shape[1] for values in known)),
                    *(Block(values.shape[1], COMPONENTS, standardized=True) for values in (upper, flat)),
                ),
            ),
        ]
    side = thumbnails.tile_size(len(shown), TILE_PX)
    return HandMade(feature_sets, [outline_tile(outline, side) for outline in outlines[shown]])


def outline_tiles(image_set: ImageSet, rows: np.ndarray, side: int) -> list[Image.Image]:
    """Thumbnails of some outlines, of `side` px."""
    return [outline_tile(outline, side) for outline in image_set.images(rows)[..., 0].astype(np.float64)]


def outline_tile(outline: np.ndarray, side: int) -> Image.Image:
    """The filled outline [P, 2] (row, column), white on black, in a square of `side` px; its start is a dot."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    factor = (side - 8) / max(float((high - low).max()), 1e-6)
    centered = (outline - (low + high) / 2) * factor + side / 2
    tile = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(tile)
    places = [(float(column), float(row)) for row, column in centered]
    draw.polygon(places, fill="#c8d2e0", outline="#ffffff")
    column, row = places[0]
    draw.ellipse((column - 2, row - 2, column + 2, row + 2), fill="#ffd23f")
    return tile

"""A picture of outlines and what became of them on the way through a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from bie_jax.files.foreign_text import MOST_OF_TITLE, in_figure, save_figure
from bie_jax.files.integrity import write_unverified
from bie_jax.losses.shape import best_reindexing
from bie_jax.shapes.distance_matrix import reindex
from bie_jax.shapes.mds import classical_mds
from bie_jax.shapes.polygon import align


def draw_outlines(d: np.ndarray, d_hat: np.ndarray, title: str, path: Path) -> None:
    """Draw each outline with its reconstruction laid over it, and save as PNG.

    A matrix says nothing of where an outline lies and how it is turned or mirrored: the reconstruction's points are
    moved onto the outline's, from the start point and in the direction that fit best.

    Args:
        d: [N, P, P] normalized distances.
        d_hat: [N, P, P], as predicted.
        title: what was done to what.
        path: of the PNG; its folder is made.
    """
    outlines = classical_mds(np.asarray(d))
    predicted = align(classical_mds(np.asarray(match(d_hat, d))), outlines)
    figure = Figure(figsize=(1.9 * len(d) + 0.8, 2.9), layout="constrained")
    axes: Sequence[Any] = figure.subplots(1, len(d), squeeze=False)[0]
    for number, axis in enumerate(axes):
        draw_outline(axis, outlines[number], label="outline", color="0.6", linewidth=3.0)
        draw_outline(axis, predicted[number], label="reconstruction", color="C3", linewidth=1.2)
        axis.set_title(f"{number + 1}", fontsize=8)
        axis.tick_params(labelsize=6)
    axes[0].set_ylabel("in RMS distances between points", fontsize=7)
    axes[0].legend(fontsize=6, loc="upper left", frameon=False)
    figure.suptitle(in_figure(title, MOST_OF_TITLE), fontsize=10)
    write_unverified(path, lambda partial: save_figure(figure, partial, dpi=110, format="png"), needed=100_000)


def draw_outline(axis: Any, points: np.ndarray, **style: Any) -> None:
    """A closed outline [P, 2] (row, column) on a matplotlib axis, rows downwards, both axes to one scale."""
    closed = np.concatenate([points, points[:1]])
    axis.plot(closed[:, 1], closed[:, 0], **style)
    axis.set_aspect("equal", adjustable="datalim")
    if not axis.yaxis_inverted():
        axis.invert_yaxis()


def match(d: np.ndarray, target: np.ndarray) -> jax.Array:
    """Matrices [N, P, P] from the start points and in the directions in which they come nearest to others."""
    symmetric = jnp.asarray(d + d.swapaxes(-1, -2), jnp.float32) / 2
    return reindex(symmetric, *best_reindexing(symmetric, jnp.asarray(target, jnp.float32)))

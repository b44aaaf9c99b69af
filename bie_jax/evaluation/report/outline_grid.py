"""Outlines side by side, at one scale."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from bie_jax.evaluation.report.style import INK, RED, drawn_to_svg, report_style
from bie_jax.files.foreign_text import in_figure


def outline_grid(outlines: np.ndarray, row_titles: Sequence[str], column_titles: Sequence[str]) -> str:
    """Outlines side by side, at one scale.

    Args:
        outlines: [R, C, K, P, 2] (row, column) in RMS distances between points: K outlines, one over the other, in each
            of R x C cells; NaN where there is none.
        row_titles: R.
        column_titles: C.
    """
    rows, columns, layers = outlines.shape[:3]
    spacing = 2.16 * max(float(np.nanmax(np.abs(outlines))), 0.1)  # collapsed outlines are dots
    with report_style():
        figure, axis = plt.subplots(figsize=(1.05 * columns + 1.6, 1.05 * rows + 0.7), layout="constrained")
        colors = [(INK, 1.3)] if layers == 1 else [("#a9b4c0", 3.2), (RED, 1.3)]
        for row, column, layer in np.ndindex(rows, columns, layers):
            points = outlines[row, column, layer]
            if np.isnan(points).any():
                continue
            closed = np.concatenate([points, points[:1]])
            color, width = colors[layer]
            axis.plot(closed[:, 1] + column * spacing, closed[:, 0] + row * spacing, color=color, linewidth=width)
        axis.set_xlim(-spacing / 2, (columns - 0.5) * spacing)
        axis.set_ylim((rows - 0.5) * spacing, -spacing / 2)
        axis.set_aspect("equal")
        axis.set_xticks(spacing * np.arange(columns), [in_figure(title) for title in column_titles])
        axis.set_yticks(spacing * np.arange(rows), [in_figure(title) for title in row_titles])
        axis.tick_params(length=0)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.set_xlabel(f"each cell is {spacing:.2f} x {spacing:.2f} RMS distances between points", fontsize=8)
        return drawn_to_svg(figure)

"""How the static pictures of the report look.

They are SVG text, drawn without a display. Text stays text (the reader's own sans-serif), and pixels are embedded at
their own size.
"""

import contextlib
import io
import logging
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bie_jax.files.foreign_text import save_figure

INK, MUTED, RULE = "#1d2733", "#5c6773", "#dfe4ea"
# Okabe and Ito's colors, told apart with any kind of color vision.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"


STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bie-jax",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "semibold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


class Picture(NamedTuple):
    """One figure of the report: what it is, SVG text, and a sentence or two on how it was made."""

    title: str
    svg: str
    caption: str


def drawn_to_svg(figure: Figure) -> str:
    """A figure as SVG text; the same run gives the same bytes. The figure is closed."""
    buffer = io.StringIO()
    # No date and no creator: they would differ.
    save_figure(figure, buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    plt.close(figure)
    return buffer.getvalue()


def report_style() -> contextlib.AbstractContextManager[None]:
    """The style of all figures, inside of a `with`."""
    # Installed fonts differ from machine to machine; the browser picks the font, matplotlib only measures with what it
    # finds.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return plt.rc_context(STYLE)

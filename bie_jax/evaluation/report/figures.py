"""Static pictures of the report: loss curves, reconstructions, codebook use, scores with their intervals.

Each returns SVG text, drawn without a display. Text stays text (the reader's own sans-serif), and pixels are embedded
at their own size.
"""

import collections.abc
import io
import math
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from bie_jax.files.foreign_text import MOST_OF_TITLE, in_figure, save_figure

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


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # No date and no creator: the same run gives the same bytes.
    save_figure(figure, buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    plt.close(figure)
    return buffer.getvalue()


def _style():
    # Installed fonts differ from machine to machine; the browser picks the font, matplotlib only measures with what it
    # finds.
    import logging

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return plt.rc_context(STYLE)


def loss_curves(records: collections.abc.Sequence[dict], best_epoch: float | None = None) -> str | None:
    """Every `train/*` and `val/*` term against the epoch, training and validation in one panel per term, and the
    learning rate. (`capacity_bits` never changes; it stands in the section on codebooks.)

    Args:
        records: parsed lines of `metrics.jsonl`, each with `epoch`.
        best_epoch: marked by a vertical line when given.

    Returns:
        SVG, or None without any record.
    """
    series: dict[str, tuple[list, list]] = {}
    for record in records:
        for key, value in record.items():
            if (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and key.startswith(("train/", "val/", "optimizer/lr"))
                and not key.endswith("/capacity_bits")
            ):
                xs, ys = series.setdefault(key, ([], []))
                xs.append(record["epoch"])
                ys.append(value)
    if not series:
        return None
    terms = list(dict.fromkeys(key.split("/", 1)[1] for key in series if key != "optimizer/lr"))
    order = {"loss": 0, "recon": 1, "vq": 2, "commitment": 3}
    terms.sort(key=lambda term: (order.get(term, 9), term))
    panels = [*terms, *(["lr"] if "optimizer/lr" in series else [])]
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with _style():
        figure, axes = plt.subplots(rows, columns, figsize=(11, 2.7 * rows), squeeze=False, layout="constrained")
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        for axis, term in zip(axes.flat, panels):
            keys = ["optimizer/lr"] if term == "lr" else [f"train/{term}", f"val/{term}"]
            positive = True
            for key, color, name in zip(keys, (BLUE, ORANGE), ("training", "validation")):
                if key not in series:
                    continue
                xs, ys = (np.asarray(values, dtype=float) for values in series[key])
                positive &= bool((ys > 0).all())
                marker = "o" if len(xs) < 40 else None
                axis.plot(xs, ys, color=color, label=name, marker=marker, markersize=3)
            titles = {
                "lr": "Learning rate",
                "loss": "Total loss",
                "recon": "Reconstruction term",
                "vq": "Quantization term",
                "nll": "Negative log-likelihood",
                "kl": "KL divergence",
                "fourier": "Fourier term",
                "contrastive": "Contrastive term",
            }
            axis.set_title(titles.get(term, in_figure(term.replace("_", " ").capitalize())))
            units = {
                "lr": "learning rate",
                "perplexity": "codes",
                "codes_used": "codes",
                "nll": "nats",
                "kl": "nats",
                "contrastive": "nats",
                "active_units": "latent dimensions",
            }
            axis.set_ylabel(units.get(term, "unweighted value" if term != "loss" else "weighted sum"))
            axis.set_xlabel("epoch")
            if positive and term in ("loss", "recon", "vq"):
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.yaxis.set_minor_locator(LogLocator(subs=()))
            elif term in ("perplexity", "codes_used", "active_units", "kl"):
                # Room above: a count that stays at its maximum would lie under the title.
                axis.set_ylim(0, 1.1 * max(axis.get_ylim()[1], 1e-9))
            if best_epoch is not None and term != "lr":
                axis.axvline(best_epoch, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
            if term != "lr":
                axis.legend(loc="best")
        return _svg(figure)


def _scale_bar(width_px: int, pixel_size_um: float | None) -> tuple[float, str]:
    """Length in px and label of a bar of a round number of um (of px where the size of a pixel is unknown).

    It is at most 30 % of the image's width.
    """
    unit = 1.0 if pixel_size_um is None else pixel_size_um
    longest = 0.3 * width_px * unit
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    return length / unit, f"{length:g} {'px' if pixel_size_um is None else 'µm'}"


def reconstruction(
    image: np.ndarray,
    restored: np.ndarray,
    channel_names: collections.abc.Sequence[str],
    pixel_size_um: float | None,
    limits: np.ndarray,
    difference_limit: np.ndarray,
) -> str:
    """Input, reconstruction and difference of one image, channel by channel.

    Args:
        image, restored: [H, W, C] float, normalized as the model sees them.
        channel_names: C names.
        pixel_size_um: micrometers per pixel of `image`; None: unknown, the scale bar is then in pixels.
        limits: [C, 2], the intensities shown as black and white in the first two rows.
        difference_limit: [C], the end of the symmetric scale of the third row.
    """
    height, width, count = image.shape
    bar_px, bar_label = _scale_bar(width, pixel_size_um)
    with _style():
        figure, axes = plt.subplots(
            3,
            count,
            figsize=(2.05 * count + 0.6, 2.05 * 3 * height / width + 1.3),
            squeeze=False,
            layout="constrained",
        )
        for c, name in enumerate(channel_names):
            low, high = limits[c]
            rows = (
                (image[..., c], "gray", low, high),
                (restored[..., c], "gray", low, high),
                (restored[..., c] - image[..., c], "RdBu_r", -difference_limit[c], difference_limit[c]),
            )
            for r, (pixels, colors, vmin, vmax) in enumerate(rows):
                axis = axes[r, c]
                picture = axis.imshow(pixels, cmap=colors, vmin=vmin, vmax=vmax, interpolation="none")
                axis.set(xticks=[], yticks=[])
                axis.grid(False)
                axis.spines[:].set_visible(False)
                if r == 2:
                    bar = figure.colorbar(picture, ax=axis, location="bottom", fraction=0.06, pad=0.03, aspect=16)
                    bar.outline.set_visible(False)  # type: ignore[reportCallIssue]
                    bar.ax.tick_params(labelsize=8, length=2)
                    # Three labels well inside the bar: one that sticks out would push the columns apart.
                    end = float(f"{0.6 * difference_limit[c]:.1g}")
                    bar.set_ticks([-end, 0, end], labels=[f"\N{MINUS SIGN}{end:g}", "0", f"{end:g}"])
            axes[0, c].set_title(f"{in_figure(name)}\n", fontsize=10.5)
            axes[0, c].text(
                0,
                1.03,
                f"{low:.2f} to {high:.2f}".replace("-", "\N{MINUS SIGN}"),
                transform=axes[0, c].transAxes,
                color=MUTED,
                fontsize=8.5,
            )
            x, y = width * 0.95 - bar_px, height * 0.93
            # A black rim keeps the bar visible over bright cells.
            axes[0, c].plot(
                [x, x + bar_px],
                [y, y],
                color="white",
                linewidth=2.6,
                solid_capstyle="butt",
                path_effects=[withStroke(linewidth=4.6, foreground="black")],
            )
            if c == 0:
                axes[0, c].text(
                    x + bar_px / 2,
                    y - height * 0.035,
                    bar_label,
                    color="white",
                    ha="center",
                    va="bottom",
                    fontsize=9,
                    path_effects=[withStroke(linewidth=2, foreground="black")],
                )
        for r, name in enumerate(("input", "reconstruction", "difference")):
            axes[r, 0].set_ylabel(name, fontsize=10, color=INK)
        return _svg(figure)


def codebook_use(code_counts: np.ndarray) -> str:
    """Share of the positions that each code takes: bars for one codebook, a map of groups and codes for several.

    Args:
        code_counts: [G, K] int, over all embedded images.
    """
    shares = code_counts / np.maximum(code_counts.sum(axis=1, keepdims=True), 1)
    groups, codes = shares.shape
    with _style():
        if groups == 1:
            figure, axis = plt.subplots(figsize=(8.6, 2.7), layout="constrained")
            axis.bar(np.arange(codes), shares[0] * 100, color=BLUE, width=0.85 if codes <= 64 else 1.0)
            axis.axhline(100 / codes, color=ORANGE, linewidth=1.3, linestyle=(0, (4, 3)))
            axis.text(codes - 0.4, 100 / codes, "even use ", color="#9a6a00", ha="right", va="bottom", fontsize=9)
            axis.set(
                xlabel="code (index in the codebook)",
                ylabel="share of positions (%)",
                xlim=(-0.7, codes - 0.3),
            )
            axis.set_title("How often each code was chosen, over all embedded images")
            axis.grid(axis="x", visible=False)
            axis.xaxis.set_major_locator(MaxNLocator(16, integer=True))
        else:
            figure, axis = plt.subplots(figsize=(8.6, 1.6 + 0.22 * min(groups, 16)), layout="constrained")
            picture = axis.imshow(shares * 100, aspect="auto", cmap="cividis", vmin=0, interpolation="none")
            axis.set(xlabel="code (index in the group's codebook)", ylabel="group")
            axis.set_title("How often each code was chosen in each group, over all embedded images")
            axis.grid(False)
            axis.xaxis.set_major_locator(MaxNLocator(16, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(8, integer=True))
            figure.colorbar(picture, ax=axis, label="share of images (%)")
        return _svg(figure)


class ScoreMark(NamedTuple):
    """One macro F1 with its interval, by which classifier and under which normalization of the features."""

    classifier: str
    normalization: str
    f1: float
    low: float
    high: float


def score_intervals(rows: collections.abc.Sequence[dict], chance: float, title: str, interval_over: str) -> str:
    """Macro F1 of every feature set with its 95 % interval.

    Args:
        rows: each `title`, `marks`, a list of `ScoreMark`, and `highlight` for the trained encoder.
        chance: 1 / classes, drawn as a line.
        title: of the picture.
        interval_over: what was resampled for the intervals, "wells" or "images".
    """
    styles = {"logistic regression": (BLUE, "o"), "random forest": (ORANGE, "D"), "majority": (MUTED, "s")}
    several = len({mark.normalization for row in rows for mark in row["marks"]}) > 1
    steps = max(len(row["marks"]) for row in rows)
    with _style():
        height = (0.26 + 0.1 * steps) * len(rows) + 1.35  # inches
        figure, axis = plt.subplots(figsize=(8.6, height), layout="constrained")
        seen = set()
        for y, row in enumerate(rows):
            if row["highlight"]:
                axis.axhspan(y - 0.45, y + 0.45, color="#eaf3fb", linewidth=0)
            for i, mark in enumerate(row["marks"]):
                color, marker = styles[mark.classifier]
                # Hollow: features as they are.
                hollow = several and mark.normalization == "raw" and mark.classifier != "majority"
                name = f"{mark.classifier}, {mark.normalization}" if several else mark.classifier
                name = "majority" if mark.classifier == "majority" else name
                place = y + (i - (len(row["marks"]) - 1) / 2) * 0.7 / steps
                axis.plot(
                    [mark.low, mark.high],
                    [place] * 2,
                    color=color,
                    linewidth=2.2,
                    alpha=0.55,
                    solid_capstyle="round",
                )
                axis.plot(
                    [mark.f1],
                    [place],
                    marker,
                    color=color,
                    markerfacecolor="white" if hollow else color,
                    markersize=6 if steps <= 2 else 5,
                    label=None if name in seen else name,
                )
                seen.add(name)
        axis.axvline(chance, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axis.text(chance, -0.62, " chance", color=MUTED, fontsize=9, va="center")
        axis.set_yticks(range(len(rows)), [in_figure(row["title"]) for row in rows], color=INK)
        axis.set(
            xlim=(0, 1.005),
            ylim=(len(rows) - 0.45, -0.85),
            xlabel=f"macro F1 (1 is perfect), with 95 % interval over {interval_over}",
        )
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_title(in_figure(title, MOST_OF_TITLE))
        figure.legend(loc="outside lower right", ncols=3)
        return _svg(figure)


def outline_grid(
    outlines: np.ndarray, row_titles: collections.abc.Sequence[str], column_titles: collections.abc.Sequence[str]
) -> str:
    """Outlines side by side, at one scale.

    Args:
        outlines: [R, C, K, P, 2] (row, column) in RMS distances between points: K outlines, one over the other, in each
            of R x C cells; NaN where there is none.
        row_titles: R.
        column_titles: C.
    """
    rows, columns, layers = outlines.shape[:3]
    spacing = 2.16 * max(float(np.nanmax(np.abs(outlines))), 0.1)  # collapsed outlines are dots
    with _style():
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
        return _svg(figure)

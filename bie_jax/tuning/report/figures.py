"""The pictures of a sweep's page."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter

from bie_jax.evaluation.report.style import BLUE, INK, MUTED, RULE, drawn_to_svg, report_style
from bie_jax.evaluation.report.training_curves import read_metrics
from bie_jax.files.foreign_text import in_figure
from bie_jax.training.writers.log import LOG
from bie_jax.tuning.importance import HELD_OUT, SEED
from bie_jax.tuning.ranking import Row
from bie_jax.tuning.sweep import Axis, Logged, Metric, Range, Sweep
from bie_jax.tuning.trials import values_of

_COLORS = plt.colormaps["viridis"]
_MOST_NAMED = 12  # settings in a legend


def parallel_coordinates(sweep: Sweep, rows: Sequence[Row]) -> str:
    """A line for each setting through its value on every axis, to its score; the best one is blue, as SVG."""
    shown = [row for row in rows if row.values]
    names = [*sweep.axes, str(sweep.metric)]
    scores = np.array([np.mean(row.values) for row in shown])
    of_axes = [places(axis, [row.setting[name] for row in shown]) for name, axis in sweep.axes.items()]
    low, high = float(scores.min()), float(scores.max())
    of_axes.append((scores - low) / (high - low) if high > low else np.full(len(scores), 0.5))
    heights = np.stack(of_axes, axis=1)
    with report_style():
        figure, plot = plt.subplots(figsize=(11, 4), layout="constrained")
        for row in range(len(shown) - 1, -1, -1):
            best = row == 0
            color = BLUE if best else _COLORS(0.15 + 0.8 * float(heights[row, -1]))
            plot.plot(
                range(len(names)),
                heights[row],
                color=color,
                linewidth=2.6 if best else 1.1,
                alpha=1 if best else 0.7,
                marker="o",
            )
        for place, axis in enumerate([*sweep.axes.values(), None]):
            plot.axvline(place, color=RULE, zorder=0)
            is_score = axis is None
            ticks = [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")] if axis is None else _ticks(axis)
            for height, text in ticks:
                plot.annotate(
                    in_figure(text, 24),
                    (place, height),
                    (8 if is_score else -8, 0),
                    textcoords="offset points",
                    ha="left" if is_score else "right",
                    va="center",
                    color=INK,
                    fontsize=8.5,
                )
        plot.set_xticks(range(len(names)), [in_figure(name, 36) for name in names])
        plot.set_yticks([])
        plot.set_xlim(-0.35, len(names) - 0.8)
        plot.grid(False)
        plot.set_title(f"Every setting and its {in_figure(str(sweep.metric), 80)}; blue: the best")
        return drawn_to_svg(figure)


def importance_bars(shares: Mapping[str, float]) -> str:
    """Shares of the variance, as SVG."""
    with report_style():
        figure, plot = plt.subplots(figsize=(7, 0.8 + 0.42 * len(shares)), layout="constrained")
        names = list(shares)[::-1]
        plot.barh(
            [in_figure(name) for name in names],
            [shares[name] for name in names],
            color=[MUTED if name in (SEED, HELD_OUT) else BLUE for name in names],
        )
        plot.set_xlabel("share of the variance between trials (functional ANOVA)")
        plot.set_xlim(0, 1)
        plot.set_title("What the score depends on; grey: what is no axis")
        return drawn_to_svg(figure)


def learning_curves(rows: Sequence[Row], workdirs: Mapping[int, Sequence[Path]], metric: Metric) -> str | None:
    """The validation of every trial against its epoch, a color for each setting, as SVG; None without any."""
    name = metric.name if isinstance(metric, Logged) else "val/loss"
    with report_style():
        figure, plot = plt.subplots(figsize=(11, 4.2), layout="constrained")
        drawn, positive = 0, True
        for place, row in enumerate(rows):
            color = _COLORS(0.95 * place / max(len(rows) - 1, 1))
            label = in_figure(row.title, 40) if place < _MOST_NAMED else None
            for workdir in workdirs[row.number]:
                records = [record for record in read_metrics(workdir / LOG) if name in record]
                if not records:
                    continue
                values = [record[name] for record in records]
                positive &= min(values) > 0
                plot.plot([record["epoch"] for record in records], values, color=color, label=label, marker=".")
                label, drawn = None, drawn + 1
        if not drawn:
            plt.close(figure)
            return None
        if positive:
            plot.set_yscale("log")
            for of_axis in (plot.yaxis.set_major_formatter, plot.yaxis.set_minor_formatter):
                of_axis(FuncFormatter(lambda value, _: f"{value:g}"))
        plot.set_xlabel("epoch")
        plot.set_ylabel(f"{name}, of the validation images")
        plot.set_title(f"Validation of {drawn} trials; settings by rank")
        plot.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return drawn_to_svg(figure)


def places(axis: Axis, values: Sequence) -> np.ndarray:
    """Where values stand on an axis of the picture, from 0 (lowest or first) to 1; of a logarithmic range by decade."""
    if isinstance(axis, Range):
        to = math.log if axis.log else float
        low, high = to(axis.low), to(axis.high)
        return np.array([(to(value) - low) / (high - low) for value in values])
    all_values = values_of(axis)
    return np.array([_height(all_values.index(value), len(all_values)) for value in values])


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    if isinstance(axis, Range):
        return [(0.0, f"{axis.low:g}"), (1.0, f"{axis.high:g}")]
    values = values_of(axis)
    return [(_height(place, len(values)), str(value)) for place, value in enumerate(values)]


def _height(place: int, count: int) -> float:
    return place / (count - 1) if count > 1 else 0.5

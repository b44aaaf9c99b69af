"""Macro F1 of all sets of features with their intervals, in one picture."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt

from bie_jax.evaluation.report.markup import svg_image
from bie_jax.evaluation.report.ordering import grouped, leading_split
from bie_jax.evaluation.report.style import BLUE, INK, MUTED, ORANGE, drawn_to_svg, report_style
from bie_jax.evaluation.report.titles import CLASSIFIER_TITLES, split_title
from bie_jax.evaluation.scores.file import Scores
from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION, MAJORITY, RANDOM_FOREST, RAW, TRAINED
from bie_jax.evaluation.scores.normalization import TITLES
from bie_jax.files.foreign_text import MOST_OF_TITLE, in_figure

_LOOKS = {LOGISTIC_REGRESSION: (BLUE, "o"), RANDOM_FOREST: (ORANGE, "D"), MAJORITY: (MUTED, "s")}


class ScoreMark(NamedTuple):
    """One macro F1 with its interval, by which classifier and under which normalization of the features."""

    classifier: str
    normalization: str
    f1: float
    low: float
    high: float


class ScoreLine(NamedTuple):
    """The marks of one set of features; `highlight` of the trained encoder."""

    title: str
    marks: list[ScoreMark]
    highlight: bool


def score_figure(scores: Scores) -> str:
    """The picture of the leading split; none without one."""
    split = leading_split(scores)
    if split is None or not any(entry["classifiers"] for entry in scores["feature_sets"].values()):
        return ""
    lines = []
    for entries in grouped(scores):
        marks = [
            ScoreMark(
                name,
                entry["normalization"],
                results[split]["macro_f1"],
                *results[split]["macro_f1_interval_95"],
            )
            for entry in entries
            for name, results in entry["classifiers"].items()
        ]
        ours = entries[0]["feature_set"] == TRAINED
        lines.append(ScoreLine(entries[0]["title"], marks, ours))
    title = f"Macro F1 of {scores['label']}, {split_title(split)}, by features"
    svg = score_intervals(lines, 1 / scores["splits"][split]["classes"], title, scores["interval_over"])
    return svg_image(svg, title)


def score_intervals(lines: Sequence[ScoreLine], chance: float, title: str, interval_over: str) -> str:
    """Macro F1 of every feature set with its 95 % interval.

    Args:
        lines: one for each set of features, from above.
        chance: 1 / classes, drawn as a line.
        title: of the picture.
        interval_over: what was resampled for the intervals, "wells" or "images".
    """
    several = len({mark.normalization for line in lines for mark in line.marks}) > 1
    steps = max(len(line.marks) for line in lines)
    with report_style():
        height = (0.26 + 0.1 * steps) * len(lines) + 1.35  # inches
        figure, axis = plt.subplots(figsize=(8.6, height), layout="constrained")
        seen = set()
        for y, line in enumerate(lines):
            if line.highlight:
                axis.axhspan(y - 0.45, y + 0.45, color="#eaf3fb", linewidth=0)
            for i, mark in enumerate(line.marks):
                color, marker = _LOOKS[mark.classifier]
                # Hollow: features as they are.
                hollow = several and mark.normalization == RAW and mark.classifier != MAJORITY
                name = CLASSIFIER_TITLES[mark.classifier]
                if several and mark.classifier != MAJORITY:
                    name = f"{name}, {TITLES[mark.normalization]}"
                place = y + (i - (len(line.marks) - 1) / 2) * 0.7 / steps
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
        axis.set_yticks(range(len(lines)), [in_figure(line.title) for line in lines], color=INK)
        axis.set(
            xlim=(0, 1.005),
            ylim=(len(lines) - 0.45, -0.85),
            xlabel=f"macro F1 (1 is perfect), with 95 % interval over {interval_over}",
        )
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_title(in_figure(title, MOST_OF_TITLE))
        figure.legend(loc="outside lower right", ncols=3)
        return drawn_to_svg(figure)

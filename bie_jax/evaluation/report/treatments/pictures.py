"""Pictures of treatments: who resembles whom, what the steps did, and how effects grow with the dose."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.cluster.hierarchy
import scipy.spatial.distance
from matplotlib.axes import Axes

from bie_jax.evaluation.report.markup import csv_link, svg_image
from bie_jax.evaluation.report.project import pca_projection
from bie_jax.evaluation.report.style import BLUE, GREEN, MUTED, ORANGE, PURPLE, RED, SKY, drawn_to_svg, report_style
from bie_jax.evaluation.report.treatments.content import TreatmentContent
from bie_jax.files.foreign_text import in_figure, in_html

MOST_IN_MATRIX = 100  # treatments; the most active ones
MOST_NAMES = 50  # that axes have room for
MOST_POINTS = 3000  # wells in a map
MOST_COMPOUNDS = 12
_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)


def similarity_matrix(content: TreatmentContent) -> str:
    """Cosine similarity of treatments, in the order of their clusters."""
    shown = content.order[:MOST_IN_MATRIX]
    features = content.corrected.treatments.features[shown]
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    if len(shown) < 3 or not norms.all():
        return ""
    unit = features / norms
    similarity = np.clip(unit @ unit.T, -1, 1)
    distance = scipy.spatial.distance.squareform(1 - similarity, checks=False)
    linkage = scipy.cluster.hierarchy.linkage(np.maximum(distance, 0), "average", optimal_ordering=len(shown) <= 200)
    order = scipy.cluster.hierarchy.leaves_list(linkage)
    names = np.array(content.names, dtype=object)[shown][order]
    similarity = similarity[np.ix_(order, order)]
    with report_style():
        side = 4.2 + 0.09 * min(len(shown), MOST_NAMES)
        figure, axis = plt.subplots(figsize=(side + 1.6, side), layout="constrained")
        image = axis.imshow(similarity, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axis.grid(visible=False)
        if len(shown) <= MOST_NAMES:
            axis.set_yticks(range(len(names)), [in_figure(name, 30) for name in names], fontsize=7)
            axis.set_xticks(range(len(names)), [in_figure(name, 30) for name in names], fontsize=7, rotation=90)
        else:
            axis.set(xlabel="treatment, in the order of clusters", ylabel="treatment, in the order of clusters")
        figure.colorbar(image, ax=axis, label="cosine similarity", shrink=0.7)
        most = f"the {len(shown)} most active of {len(content.names)} treatments"
        title = f"Similarity of {most if len(shown) < len(content.names) else 'all treatments'}, clustered"
        axis.set_title(title)
        svg = drawn_to_svg(figure)
    table = pd.DataFrame(similarity, columns=pd.Index(names), index=pd.Index(names, name="treatment")).reset_index()
    return _figure(
        title, svg, f"Cosine of profiles behind the last step; average linkage. {csv_link('similarity', table)}"
    )


def before_and_after(content: TreatmentContent, seed: int) -> str:
    """Wells before any step and behind the last one, colored by plate and by what was done to them."""
    tables = content.corrected.tables
    if len(tables) < 2:
        return ""
    wells, count = content.plan.wells, len(content.plan.wells)
    shown = np.arange(count)
    if count > MOST_POINTS:
        shown = np.sort(np.random.default_rng(seed).choice(count, MOST_POINTS, replace=False))
    kinds = np.where(content.plan.controls, "control", "treated")
    mechanism = content.profile.mechanism
    if mechanism:
        kinds = np.where(content.plan.controls, "control", wells[mechanism].astype(str).replace("", "unknown"))
    numbers = wells[["plate", "well"]].assign(kind=kinds)
    with report_style():
        figure, axes = plt.subplots(2, 2, figsize=(8.6, 7.2), layout="constrained")
        for column, table in enumerate((tables[0], tables[-1])):
            when = "before any step" if column == 0 else f"after {table.steps.split('+', 1)[1].replace('+', ', ')}"
            points, shares = pca_projection(table.features)
            name = "before" if column == 0 else "after"
            numbers = numbers.assign(**{f"{name}_pc1": points[:, 0], f"{name}_pc2": points[:, 1]})
            for row, (values, what) in enumerate(((wells["plate"].to_numpy(), "plate"), (kinds, mechanism or "kind"))):
                axis = axes[row, column]
                _scatter(axis, points[shown], values[shown], np.unique(values))
                axis.set(
                    xlabel=f"PC 1 ({shares[0]:.0%} of the variance)", ylabel=f"PC 2 ({shares[1]:.0%} of the variance)"
                )
                axis.set_title(in_figure(f"Wells {when}, by {what}", 60))
                if column == 1 and len(np.unique(values)) <= 12:
                    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7.5, markerscale=1.6)
        svg = drawn_to_svg(figure)
    title = "Wells before and after correction"
    sampled = f" {MOST_POINTS} of {count} wells, drawn at random." if count > MOST_POINTS else ""
    return _figure(
        title,
        svg,
        "Principal components of the wells, standardized; each map by itself, so that directions and sizes of two maps "
        f"are not to be compared.{sampled} {csv_link('wells_before_and_after', numbers)}",
    )


def dose_response(content: TreatmentContent) -> str:
    """Activity against concentration, of the compounds with at least three."""
    profile, activity = content.profile, content.activity
    if not profile.concentration or activity is None:
        return ""
    compound = profile.compound or next((name for name in profile.treatment if name != profile.concentration), "")
    if not compound:
        return ""
    table = content.plan.treatments[[compound, profile.concentration]].assign(
        activity=activity["mean_normalized_average_precision"].to_numpy()
    )
    table = table.set_axis(["compound", "concentration", "activity"], axis=1).dropna()
    doses: dict[str, pd.DataFrame] = {
        str(name): part.sort_values(by=["concentration"])
        for name, part in table.groupby("compound")
        if part["concentration"].nunique() >= 3
    }
    names = sorted(doses, key=lambda name: -doses[name]["activity"].max())[:MOST_COMPOUNDS]
    if not names:
        return ""
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    with report_style():
        figure, axes = plt.subplots(
            lines, columns, figsize=(2.15 * columns + 0.6, 1.9 * lines + 0.7), layout="constrained", sharey=True,
            squeeze=False,
        )  # fmt: skip
        for axis in axes.ravel()[len(names) :]:
            axis.set_visible(False)
        for axis, name in zip(axes.ravel(), names):
            part = doses[name]
            axis.axhline(0, color=MUTED, linewidth=0.8)
            axis.plot(part["concentration"], part["activity"], "o-", color=BLUE, markersize=4)
            if (part["concentration"] > 0).all():
                axis.set_xscale("log")
            axis.set_title(in_figure(name, 24), fontsize=9)
        figure.supxlabel(in_figure(f"{profile.concentration}, as the set has it"), fontsize=9)
        figure.supylabel("normalized average precision", fontsize=9)
        svg = drawn_to_svg(figure)
    title = "Activity by concentration"
    return _figure(
        title,
        svg,
        "Mean average precision of activity, less what chance gives, over its distance to 1: 0 is chance. Compounds of "
        f"three concentrations and more, the {len(names)} of greatest activity. {csv_link('dose_response', table)}",
    )


def _scatter(axis: Axes, points: np.ndarray, values: np.ndarray, names: np.ndarray) -> None:
    for i, name in enumerate(names):
        rows = values == name
        color = MUTED if name == "control" else _COLORS[i % len(_COLORS)] if len(names) <= 6 else plt.cm.tab20(i % 20)  # pyright: ignore[reportAttributeAccessIssue]
        axis.scatter(
            points[rows, 0],
            points[rows, 1],
            s=9,
            color=[color],
            linewidths=0,
            alpha=0.8,
            label=in_figure(name, 22),
            rasterized=True,
        )


def _figure(title: str, svg: str, caption: str) -> str:
    return f"<h3>{in_html(title)}</h3><figure>{svg_image(svg, title)}<figcaption>{caption}</figcaption></figure>"

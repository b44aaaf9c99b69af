"""A picture of random views of examples, a row each, beside the one view that the evaluation has of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bie_jax.config.schema import DataConfig
from bie_jax.files.foreign_text import MOST_OF_TITLE, in_figure, save_figure
from bie_jax.files.integrity import write_unverified
from bie_jax.input.mixture import Mixture
from bie_jax.shapes.mds import classical_mds
from bie_jax.shapes.polygon import align
from bie_jax.training.writers.composites import channel_colors, composite
from bie_jax.training.writers.outline_pictures import match

_TILE_IN = 0.8  # inches
_DPI = 130
_OFF = (False, 0, "none", (0, 0))


def draw_views_of(
    evaluated: np.ndarray, views: np.ndarray, mixture: Mixture, data: DataConfig, rows: np.ndarray, path: Path
) -> None:
    """Draw a row for each example, with a column for the evaluation and one for each random view; save as PNG.

    Args:
        evaluated: [N, H, W, C], as the evaluation sees the examples.
        views: [V, N, H, W, C], as training does.
        mixture: the sets.
        data: the checked group that the views were made by.
        rows: [N] the examples, numbered over all sets.
        path: of the PNG; its folder is made.
    """
    num_views, n, height, width, _ = views.shape
    figure = Figure(
        figsize=(_TILE_IN * (num_views + 1) + 1.2, _TILE_IN * n * height / width + 1.2), layout="constrained"
    )
    axis = figure.subplots()
    step = _DRAWINGS[data.kind](axis, evaluated, views, mixture, data)
    axis.set_xticks(
        [step * column for column in range(num_views + 1)], ["evaluation", *map(str, range(1, num_views + 1))]
    )
    axis.set_yticks([step * row * height / width for row in range(n)], [f"example {row}" for row in rows])
    axis.tick_params(labelsize=7, length=0)
    axis.spines[:].set_visible(False)
    simulated = " (simulated)" if any(image_set.simulated for image_set in mixture.sets) else ""
    title = f"{mixture.name}{simulated}: {n} training {data.kind}, {num_views} random views of each"
    figure.suptitle(in_figure(title, MOST_OF_TITLE), fontsize=10)
    write_unverified(path, lambda partial: save_figure(figure, partial, dpi=_DPI, format="png"), needed=views.size)


def _images(axis: Any, evaluated: np.ndarray, views: np.ndarray, mixture: Mixture, data: DataConfig) -> float:
    """Color composites, whose middles are this far from each other along a row; black and white the evaluation's."""
    n, height, width, channels = evaluated.shape
    low, high = (np.percentile(evaluated, share, axis=(0, 1, 2)) for share in (1, 99.9))
    gap = max(1, width // 24)
    mosaic = np.full((n * (height + gap), (len(views) + 1) * (width + gap), 3), 255, np.uint8)
    for column, seen in enumerate((evaluated, *views)):
        for row, tile in enumerate(composite(seen, low, high)):
            top, left = row * (height + gap), column * (width + gap)
            mosaic[top : top + height, left : left + width] = tile
    # In units of the width with its gap; the middle of the first picture is (0, 0).
    step = width + gap
    right, down = mosaic.shape[1] / step - width / step / 2, (mosaic.shape[0] - height / 2) / step
    axis.imshow(mosaic, extent=(-width / step / 2, right, down, -height / step / 2), interpolation="antialiased")
    axis.set_xlabel(
        f"training: {_changes(data.augment.model_dump())}; {height} x {width} pixels, normalized; black and white at "
        "1 % and 99.9 % of the evaluation's",
        fontsize=8,
    )
    colors = zip(mixture.channel_names, channel_colors(channels), strict=True)
    patches = [Patch(facecolor=color, edgecolor="0.5", label=in_figure(name)) for name, color in colors]
    axis.figure.legend(handles=patches, loc="outside lower center", ncols=min(channels, 8), fontsize=7, frameon=False)
    return 1.0


def _outlines(axis: Any, evaluated: np.ndarray, views: np.ndarray, mixture: Mixture, data: DataConfig) -> float:
    """Outlines, moved onto the evaluation's: a matrix does not know how they lie."""
    del mixture
    step = 3.2  # RMS distances between points
    true = classical_mds(evaluated[..., 0])
    for column, seen in enumerate((evaluated, *views)):
        points = align(classical_mds(np.asarray(match(seen[..., 0], evaluated[..., 0]))), true)
        for row, outline in enumerate(points):
            closed = np.concatenate([outline, outline[:1]]) + step * np.asarray([row, column])
            axis.plot(closed[:, 1], closed[:, 0], color="0.4" if column == 0 else "C3", linewidth=1.0)
    axis.set_aspect("equal")
    axis.invert_yaxis()
    axis.set_xlabel(
        f"training: {_changes(data.outline.model_dump())}; {evaluated.shape[1]} points, at one size; start and "
        "direction are not drawn",
        fontsize=8,
    )
    return step


def _changes(group: dict[str, Any]) -> str:
    """What is on, as the configuration says it."""
    told = group if group.get("aspect", 1) != 1 else {key: value for key, value in group.items() if key != "aspect"}
    on = [key if value is True else f"{key} {value}" for key, value in told.items() if value not in _OFF]
    return ", ".join(on) or "a random window and nothing else"


_DRAWINGS: dict[str, Callable[..., float]] = {"images": _images, "shapes": _outlines}

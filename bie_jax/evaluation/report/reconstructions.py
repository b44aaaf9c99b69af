"""Validation images beside what the decoder made of them, channel by channel."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke

from bie_jax.evaluation.embedding.decoder import has_decoder
from bie_jax.evaluation.report.content import Content
from bie_jax.evaluation.report.markup import svg_image
from bie_jax.evaluation.report.style import INK, MUTED, drawn_to_svg, report_style
from bie_jax.files.foreign_text import in_figure, in_html
from bie_jax.training import run_files

NO_DECODER = "<p>This method has no decoder.</p>"


def reconstruction_section(content: Content) -> str:
    """Up to four images, or two large ones, as the network saw them."""
    if not has_decoder(content.config):
        return NO_DECODER
    facts = content.scores["set"]
    with np.load(content.workdir / run_files.RECONSTRUCTIONS, allow_pickle=False) as stored:
        images, restored, rows = stored["image"], stored["reconstruction"], stored["index"]
    count = min(len(images), 4 if images.shape[1] <= 128 else 2)
    images, restored = images[:count].astype(np.float32), restored[:count].astype(np.float32)
    flat = images.reshape(-1, images.shape[-1])
    limits = np.percentile(flat, (0.5, 99.8), axis=0).T  # [C, 2]
    limits[:, 1] = np.where(
        limits[:, 1] > limits[:, 0], limits[:, 1], limits[:, 0] + 1
    )  # a blank channel is shown black
    difference = np.percentile(np.abs(restored - images).reshape(-1, images.shape[-1]), 99.5, axis=0)
    difference = np.where(difference > 0, difference, 1)
    parts = []
    for image, other, row in zip(images, restored, rows):
        what = content.caption_of(int(row))
        svg = reconstruction(image, other, facts["channels"], facts["pixel_size_um"], limits, difference)
        error = float(((other - image) ** 2).mean())
        parts.append(
            f"<figure>{svg_image(svg, f'Input, reconstruction and difference of {what}')}"
            f"<figcaption>{in_html(what)}. Mean squared error over all channels {error:.3f}.</figcaption></figure>"
        )
    return (
        "<p>Validation images, center-cropped as the model saw them. Intensities are normalized, in the units the "
        "model works in; the range shown from black to white "
        "stands over each column and is the same for input and reconstruction (0.5th to 99.8th percentile of the "
        "inputs on this page). "
        "The difference is reconstruction minus input: red where too bright, blue where too dark.</p>"
        f"<div class='pictures {'wide' if images.shape[-1] > 3 else ''}'>{''.join(parts)}</div>"
    )


def reconstruction(
    image: np.ndarray,
    restored: np.ndarray,
    channel_names: Sequence[str],
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
    with report_style():
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
        return drawn_to_svg(figure)


def _scale_bar(width_px: int, pixel_size_um: float | None) -> tuple[float, str]:
    """Length in px and label of a bar of a round number of um (of px where the size of a pixel is unknown).

    It is at most 30 % of the image's width.
    """
    unit = 1.0 if pixel_size_um is None else pixel_size_um
    longest = 0.3 * width_px * unit
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    return length / unit, f"{length:g} {'px' if pixel_size_um is None else 'µm'}"

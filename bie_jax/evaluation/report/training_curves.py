"""How training went, out of a run's log."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator

from bie_jax.evaluation.report.markup import svg_image
from bie_jax.evaluation.report.style import BLUE, MUTED, ORANGE, drawn_to_svg, report_style
from bie_jax.files import integrity
from bie_jax.files.foreign_text import in_figure
from bie_jax.training import run_files
from bie_jax.training.writers.log import LOG


def training_section(workdir: Path) -> str:
    """The loss curves of a run, and how far it got."""
    records = read_metrics(workdir / LOG)
    validation = [record for record in records if "val/loss" in record]
    best = min(validation, key=lambda record: record["val/loss"])["epoch"] if validation else None
    svg = loss_curves(records, best)
    if svg is None:
        return "<p>No metrics were logged.</p>"
    last = records[-1]
    mark = f" The dashed line marks the lowest validation loss, at epoch {best:.3g}." if best is not None else ""
    return (
        f"<p>{last['step']} steps, {last['epoch']:.3g} epochs. Each panel is one term, unweighted and per batch for "
        f"training, over all validation images for validation.{mark}</p>"
        f"<figure>{svg_image(svg, 'Loss terms and learning rate against the epoch')}</figure>"
    )


def read_metrics(path: Path) -> list[dict]:
    """The lines of `metrics.jsonl`, none where it was removed; a last one that a killed run left unfinished is dropped.

    Raises:
        DamagedFileError: if it is not what was written.
    """
    if not path.is_file():
        return []
    lines = integrity.read_log(path, run_files.RESTORE_LOG).decode().splitlines()
    records = []
    for i, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if i < len(lines) - 1:
                raise
    return records


def loss_curves(records: Sequence[dict], best_epoch: float | None = None) -> str | None:
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
    with report_style():
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
        return drawn_to_svg(figure)

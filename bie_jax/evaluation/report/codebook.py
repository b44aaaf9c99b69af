"""How the codes of a VQ-VAE are used."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from bie_jax.evaluation.report.markup import svg_image
from bie_jax.evaluation.report.style import BLUE, ORANGE, drawn_to_svg, report_style
from bie_jax.training import run_files


def codebook_section(workdir: Path) -> tuple[str, str | None]:
    """The section, and its sum for the top of the page: "14 / 16"; None of a run without codes."""
    path = workdir / run_files.CODEBOOK
    if not path.is_file():
        return "<p>This model has no codebook.</p>", None
    with np.load(path, allow_pickle=False) as stored:
        counts = stored["code_counts"]
        positions, bits = int(stored["positions"]), float(stored["capacity_bits"])
    used, there, perplexity = codebook_statistics(counts)
    groups, codes = counts.shape
    where = "one codebook" if groups == 1 else f"{groups} groups, each with its own codebook"
    plural = "position" if positions == 1 else "positions"
    per_group = "" if groups == 1 else " per group"
    text = (
        f"<p><b>{used} of {there} codes</b> are in use ({where} of {codes} codes). Perplexity {perplexity:.1f} of "
        f"{codes}: the number of codes that, used evenly, would carry as much information. "
        f"Each image is written in {positions} {plural}{per_group}, a capacity of {bits:.0f} bits.</p>"
        f"<figure>{svg_image(codebook_use(counts), 'Share of each code')}</figure>"
    )
    return text, f"{used} / {there}"


def codebook_statistics(code_counts: np.ndarray) -> tuple[int, int, float]:
    """Codes used, codes there are, and perplexity 2^entropy (mean over groups) of counts [G, K]."""
    shares = code_counts / np.maximum(code_counts.sum(axis=1, keepdims=True), 1)
    logs = np.log2(np.where(shares > 0, shares, 1))
    perplexity = float(np.mean(2.0 ** -(shares * logs).sum(axis=1)))
    return int((code_counts > 0).sum()), int(code_counts.size), perplexity


def codebook_use(code_counts: np.ndarray) -> str:
    """Share of the positions that each code takes: bars for one codebook, a map of groups and codes for several.

    Args:
        code_counts: [G, K] int, over all embedded images.
    """
    shares = code_counts / np.maximum(code_counts.sum(axis=1, keepdims=True), 1)
    groups, codes = shares.shape
    with report_style():
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
        return drawn_to_svg(figure)

"""What leaves the embedding of an outline as it is."""

from collections.abc import Sequence

from bie_jax.evaluation.scores.invariance import Invariance
from bie_jax.files.foreign_text import in_html


def invariance_table(rows: Sequence[Invariance], most_side_px: int) -> str:
    """What changes to an outline, or to its picture, do to the embedding and to a classifier's score."""
    if not rows:
        return ""
    body = []
    for row in rows:
        f1 = "–" if row["macro_f1"] is None else f"{row['macro_f1']:.3f}"
        mean, greatest = ("–" if row[key] is None else f"{row[key]:.2%}" for key in ("embedding", "embedding_max"))
        lost = f" ({row['lost']} too small to draw)" if row["lost"] else ""
        body.append(
            f'<tr><th scope="row">{in_html(row["of"])}: {in_html(row["change"])}{lost}</th>'
            f'<td class="score"><b>{mean}</b></td><td class="score"><b>{greatest}</b></td>'
            f'<td class="score"><b>{f1}</b></td></tr>'
        )
    return (
        "<h3>What changes the embedding</h3><p>The distance of a changed object's embedding from its own, as a share "
        "of the RMS distance between two objects: mean over objects and angles, and the angle with the greatest mean. "
        "F1 is macro F1 on the changed objects, by logistic regression that has learned from other objects, "
        f"unchanged. An outline is changed itself; a mask is drawn from it, at most {most_side_px} px long, and traced "
        "anew.</p>"
        '<div class="scroll"><table class="plates"><thead><tr><th scope="col">change</th>'
        '<th scope="col">mean</th><th scope="col">greatest</th><th scope="col">macro F1</th></tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )

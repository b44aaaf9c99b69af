"""How well the plate can be read off the negative controls."""

from bie_jax.evaluation.report.ordering import grouped
from bie_jax.evaluation.report.score_table import normalization_head, range_of_draws, row_heads
from bie_jax.evaluation.scores.file import Scores
from bie_jax.files.foreign_text import in_html


def plate_table(scores: Scores) -> str:
    """How well the plate can be read off the negative controls, per feature set and normalization."""
    rows, first = [], None
    for entries in grouped(scores):
        scored = [entry for entry in entries if entry["plate_identity"]]
        for entry, mark, opening in row_heads(scored, scores, described=False):
            identity = entry["plate_identity"]
            if identity is None:
                continue
            first = first or identity
            share, chance = identity["macro_f1"], identity["chance"]
            rows.append(
                f'<tr{mark}>{opening}<td class="score"><b>{share:.3f}</b>'
                f"{range_of_draws(identity['macro_f1_of_draws'])}</td>"
                '<td class="meter">'
                f'<div role="img" aria-label="{share:.3f} on a scale from 0 to 1, chance {chance:.3f}">'
                f'<i style="width:{share:.1%}"></i><u style="left:{chance:.1%}"></u></div></td></tr>'
            )
    if first is None:
        return (
            "<p>Not scored: there are no negative controls on at least two plates "
            "(<code>config.eval.probe_control</code>).</p>"
        )
    left_out = (
        " What is normalized per plate is so by all images of the plate but the controls that are tested; where "
        "treatments differ from plate to plate in number or strength, that mean itself moves the controls apart."
        if len(scores["normalizations"]) > 1
        else ""
    )
    return (
        f"<p>Logistic regression guesses the plate of {first['images']} negative-control images from "
        f"{first['plates']} plates "
        f"({in_html(first['split'])}). The controls were treated alike, so what tells their plates apart is batch "
        "effect: <b>lower is better</b>. "
        f"Chance is {first['chance']:.3f} (the line in the bars).{left_out}</p>"
        '<div class="scroll"><table class="plates"><thead><tr><th scope="col">features</th>'
        f'{normalization_head(scores, 1)}<th scope="col">macro F1</th>'
        '<th scope="col">0 to 1</th></tr></thead><tbody>' + "".join(rows) + "</tbody></table></div>"
    )

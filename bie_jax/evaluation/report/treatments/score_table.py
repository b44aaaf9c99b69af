"""Scores of treatments, of all sets of features, before and after each step."""

import pandas as pd

from bie_jax.evaluation.report.markup import csv_link
from bie_jax.evaluation.report.score_table import range_of_draws
from bie_jax.evaluation.scores.keys import (
    ACTIVITY,
    BATCH_SEPARABILITY,
    CONSISTENCY,
    NOT_SAME_COMPOUND,
    NOT_SAME_COMPOUND_OR_BATCH,
    PLATE_SEPARABILITY,
    REPLICATING,
    SHARE_SIGNIFICANT,
    TRAINED,
)
from bie_jax.evaluation.treatments.score import WELLS, TreatmentResult, TreatmentScores
from bie_jax.files.foreign_text import in_html

_TITLES = {
    ACTIVITY: "activity: mean average precision",
    CONSISTENCY: "same mechanism: mean average precision",
    NOT_SAME_COMPOUND: "nearest of another compound has the mechanism (NSC)",
    NOT_SAME_COMPOUND_OR_BATCH: "the same, of another batch (NSCB)",
    REPLICATING: "share of treatments that replicate",
    PLATE_SEPARABILITY: "nearest control is of the same plate: lower is better",
    BATCH_SEPARABILITY: "nearest control is of the same batch: lower is better",
}


def treatment_summary(scores: TreatmentScores) -> str:
    """One row for each set of features, behind the last step that it could take; a sentence where nothing is scored."""
    if not scores["results"]:
        return "<p>No score of treatments can be had; the notes at the end of this section say why.</p>"
    return (
        "<h3>At a glance: all sets of features behind the last step</h3><p>The trained encoder has earned its time "
        "where its row is above all others. The small figures are explained with the whole table, at the end of this "
        f"section.</p>{_table(scores, every_step=False)}"
    )


def treatment_score_table(scores: TreatmentScores) -> str:
    """One row for each set of features behind each step; a file with all numbers; "" where nothing is scored."""
    if not scores["results"]:
        return ""
    table = pd.DataFrame(scores["results"])
    table["of_draws"] = [" ".join(map(str, values)) for values in table["of_draws"]]
    return (
        "<h3>Scores of treatments beside their baselines, before and after each step</h3>"
        "<p>The small figures: what chance would give, the 95 % interval over treatments (wells, for controls), the "
        "range over seeds where weights are random, and the share of treatments with q below 0.05. All sets of "
        "features go through the same steps. Plates are told by half of the controls, where the steps are fitted to "
        f"the other half. {csv_link('treatment_scores', table)}</p>{_table(scores, every_step=True)}"
    )


def _table(scores: TreatmentScores, every_step: bool) -> str:
    results = scores["results"]
    kinds = [kind for kind in _TITLES if any(result["score"] == kind for result in results)]
    significant = {
        (result["feature_set"], result["steps"], result["score"]): result["value"]
        for result in results
        if result["metric"] == SHARE_SIGNIFICANT
    }
    found = {
        (result["feature_set"], result["steps"], result["score"]): result
        for result in results
        if result["metric"] != SHARE_SIGNIFICANT
    }
    sets = dict.fromkeys((result["feature_set"], result["title"]) for result in results)
    rows = []
    for key, title in sets:
        steps = [step for step in scores["steps"] if any((key, step, kind) in found for kind in kinds)]
        steps = steps if every_step else steps[-1:]
        mark = ' class="ours"' if key == TRAINED else ""
        for i, step in enumerate(steps):
            opening = f'<th rowspan="{len(steps)}" scope="rowgroup">{in_html(title)}</th>' if i == 0 else ""
            cells = "".join(_cell(found.get((key, step, kind)), significant.get((key, step, kind))) for kind in kinds)
            rows.append(
                f'<tr{mark}>{opening}<th class="under" scope="row">{in_html(step_title(step))}</th>{cells}</tr>'
            )
    heads = "".join(f'<th scope="col">{_TITLES[kind]}</th>' for kind in kinds)
    return (
        '<div class="scroll"><table class="scores"><thead><tr><th scope="col">features</th>'
        f'<th scope="col">wells</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def step_title(steps: str) -> str:
    """What was done to wells: "wells+normalize+select" -> "+ select", "wells" -> "as they are"."""
    return "as they are" if steps == WELLS else f"+ {steps.rsplit('+', 1)[1]}"


def _cell(result: TreatmentResult | None, significant: float | None) -> str:
    if result is None:
        return '<td class="score">–</td>'
    low, high = result["low"], result["high"]
    interval = "" if low is None or high is None else f"<span>{low:.3f} – {high:.3f}</span>"
    share = "" if significant is None else f"<span>q &lt; 0.05: {significant:.0%}</span>"
    return (
        f'<td class="score"><b>{result["value"]:.3f}</b><span>chance {result["chance"]:.3f}</span>{interval}'
        f"{range_of_draws(result['of_draws'])}{share}</td>"
    )

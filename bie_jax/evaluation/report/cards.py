"""The few numbers that stand at the top of the page."""

from bie_jax.evaluation.report.ordering import best_row, leading_split
from bie_jax.evaluation.report.titles import CLASSIFIER_TITLES, full_title, split_title
from bie_jax.evaluation.scores.file import Scores
from bie_jax.evaluation.scores.keys import ACCURACY, TRAINED, entry_key
from bie_jax.evaluation.scores.rows import ScoreRow
from bie_jax.evaluation.scores.score import Entry
from bie_jax.files.foreign_text import in_html


def cards(scores: Scores, codes: str | None) -> str:
    """The trained encoder at its best, the best baseline, and how many codes are in use, where there are any."""
    shown = []
    split = leading_split(scores)
    ours, best = best_row(scores, trained=True), best_row(scores, trained=False)
    trained = scores["feature_sets"][TRAINED]
    if ours is not None and best is not None and split is not None:
        trained = _entry(ours, scores)
        shown.append(
            (
                f"{ours['value']:.3f}",
                f"{'accuracy' if ours['metric'] == ACCURACY else 'macro F1'}, {split_title(split)}",
                f"{full_title(trained, scores)}, {CLASSIFIER_TITLES[ours['classifier']]}{_interval(ours)}",
            )
        )
        lead = best["value"] - ours["value"]
        verdict = f"{abs(lead):.3f} {'ahead of' if lead > 0 else 'behind'}" if lead else "level with"
        shown.append(
            (
                f"{best['value']:.3f}",
                "best baseline",
                f"{full_title(_entry(best, scores), scores)}, {CLASSIFIER_TITLES[best['classifier']]}: {verdict} the "
                "trained encoder, each at its best",
            )
        )
    if trained["knn"]:
        shown.append(
            (
                f"{trained['knn']['accuracy']:.3f}",
                f"{trained['knn']['k']}-NN accuracy",
                f"{full_title(trained, scores)}, not same well; chance {trained['knn']['chance']:.3f}",
            )
        )
    if trained["plate_identity"]:
        identity = trained["plate_identity"]
        shown.append(
            (
                f"{identity['macro_f1']:.3f}",
                "plate identity",
                f"{full_title(trained, scores)}, from controls, lower is better; chance {identity['chance']:.3f}",
            )
        )
    if codes:
        shown.append((codes, "codes in use", "over all embedded images"))
    return "".join(
        f"<div class='card'><b>{in_html(a)}</b><span>{in_html(b)}</span><small>{in_html(c)}</small></div>"
        for a, b, c in shown
    )


def _interval(row: ScoreRow) -> str:
    return "" if row["low"] is None else f"; 95 % interval {row['low']:.3f} – {row['high']:.3f}"


def _entry(row: ScoreRow, scores: Scores) -> Entry:
    """The feature set under its normalization that a row is of."""
    return scores["feature_sets"][entry_key(row["feature_set"], row["normalization"])]

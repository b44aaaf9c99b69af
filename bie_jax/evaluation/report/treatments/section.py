"""The section on treatments, put together."""

from bie_jax.evaluation.report.treatments.content import TreatmentContent
from bie_jax.evaluation.report.treatments.pictures import before_and_after, dose_response, similarity_matrix
from bie_jax.evaluation.report.treatments.ranking import ranking
from bie_jax.evaluation.report.treatments.score_table import treatment_score_table, treatment_summary
from bie_jax.files.foreign_text import in_html

_NONE = (
    "<p>Not made: no column of treatments is named (<code>config.eval.profile.treatment</code>, for example "
    "<code>--config.eval.profile.treatment=\"('compound', 'dose')\"</code>).</p>"
)


def treatment_section(content: TreatmentContent | None, seed: int) -> str:
    """Scores, ranked treatments and pictures; or how to ask for them."""
    if content is None:
        return _NONE
    scores = content.scores
    steps = ", ".join(content.profile.steps) or "none"
    confounded = [note for note in scores["notes"] if note.startswith("CONFOUNDED")]
    warning = "".join(f'<p class="banner" role="note">{in_html(note)}</p>' for note in confounded)
    notes = "".join(f"<li>{in_html(note)}</li>" for note in scores["notes"] if note not in confounded)
    return (
        f"{warning}<p>{scores['wells']} wells, {scores['controls']} of them negative controls, are made of their "
        f"images ({content.profile.well_statistic}), corrected (steps: {in_html(steps)}), and brought together to "
        f"{scores['treatments']} treatments ({content.profile.treatment_statistic}), by "
        f"{in_html(', '.join(scores['treatment']))}. The profiles of the embeddings are in "
        "<code>profiles_wells</code> and <code>profiles_treatments</code>, <code>.parquet</code> and "
        "<code>.h5ad</code>.</p>"
        + treatment_summary(scores)
        + ranking(content)
        + similarity_matrix(content)
        + dose_response(content)
        + before_and_after(content, seed)
        + treatment_score_table(scores)
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )

"""What a reader must know of the scores to judge them."""

from bie_jax.evaluation.report.ordering import leading_split
from bie_jax.evaluation.scores.file import Scores
from bie_jax.evaluation.scores.keys import left_out_group
from bie_jax.evaluation.scores.normalization import TITLES
from bie_jax.files.foreign_text import in_html


def trust_note(scores: Scores) -> str:
    """Which split to look at, as the beginning of a sentence."""
    leading = leading_split(scores)
    group = left_out_group(leading) if leading is not None else None
    if group is None:
        return "No whole plates are left out here, so what images of one plate share flatters all scores"
    return in_html(
        f"Leaving each {group} out in turn is the number to trust: images of one {group} resemble each other"
    )


def normalization_note(scores: Scores) -> str:
    """What the normalizations are, where there is more than one."""
    if len(scores["normalizations"]) == 1:
        return ""
    described = " ".join(f"<b>{TITLES[name]}:</b> {in_html(text)}" for name, text in scores["normalizations"].items())
    return f"<p>{described}</p>"


def notes_list(scores: Scores) -> str:
    """All that was left out or went less than well."""
    notes = "".join(f"<li>{in_html(note)}</li>" for note in scores["notes"])
    return f"<ul class='notes'>{notes}</ul>" if notes else ""

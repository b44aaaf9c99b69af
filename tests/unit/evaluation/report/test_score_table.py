import copy
import re

from bie_jax.evaluation.report.cards import cards
from bie_jax.evaluation.report.ordering import grouped
from bie_jax.evaluation.report.plate_identity import plate_table
from bie_jax.evaluation.report.score_notes import normalization_note
from bie_jax.evaluation.report.score_table import score_table


def test_tables_hold_every_set_under_every_normalization(finished):
    _, scores = finished
    for table, count in ((score_table(scores), 13), (plate_table(scores), 12)):
        rows = re.findall(r"<tr.*?</tr>", table.split("<tbody>")[1], re.S)
        assert len(rows) == count
        assert sum('scope="row">raw' in row for row in rows) == 6
        assert sum('scope="row">per plate' in row for row in rows) == 6
    for entry in scores["feature_sets"].values():
        for splits in entry["classifiers"].values():
            for score in splits.values():
                assert f"<b>{score['macro_f1']:.3f}</b>" in score_table(scores)
    first, *baselines = grouped(scores)
    assert first[0]["feature_set"] == "trained_encoder"
    best = [
        max(of["leave_plate_out"]["macro_f1"] for entry in entries for of in entry["classifiers"].values())
        for entries in baselines
    ]
    assert best == sorted(best, reverse=True)


def test_a_set_of_one_plate_names_no_normalization(finished):
    scores = copy.deepcopy(finished[1])
    scores["normalizations"] = {"raw": "Features as they are."}
    scores["feature_sets"] = {k: e for k, e in scores["feature_sets"].items() if e["normalization"] == "raw"}
    scores["rows"] = [row for row in scores["rows"] if row["normalization"] == "raw"]
    page = score_table(scores) + plate_table(scores) + cards(scores, None)
    assert "normalized" not in page
    assert "raw" not in page
    assert normalization_note(scores) == ""

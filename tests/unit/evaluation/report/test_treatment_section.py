"""The section on treatments of sets that are unlike the usual screen."""

import re

import numpy as np
from PIL import Image

from bie_jax.evaluation.feature_set import FeatureSet
from bie_jax.evaluation.report.treatments.content import treatment_content
from bie_jax.evaluation.report.treatments.section import treatment_section
from bie_jax.evaluation.scores.keys import TRAINED
from bie_jax.evaluation.treatments.plan import plan_treatments
from bie_jax.evaluation.treatments.score import score_treatments
from tests.unit.evaluation.treatments.plates import screen, settings


def section(features, metadata, **changes):
    chosen = settings(profile__null_size=20, bootstrap=2, **changes)
    plan = plan_treatments(metadata, metadata["split"].to_numpy(), chosen)
    assert plan is not None
    scored = score_treatments([FeatureSet(TRAINED, "Trained", "", features)], plan, chosen)
    content = treatment_content(scored, chosen.profile, lambda rows, px: [Image.new("RGB", (4, 4)) for _ in rows])
    return treatment_section(content, 0)


def test_where_nothing_can_be_scored_the_notes_say_why():
    features, metadata = screen(plates=2, compounds=2)
    found = section(np.zeros_like(features), metadata)
    assert found.count("No score of treatments can be had") == 1
    assert "are 0 in every feature" in found


def test_treatments_that_are_numbers_alone_have_whole_wells():
    features, metadata = screen(plates=2, compounds=2)
    found = section(features, metadata, profile__treatment=("dose",), profile__mechanism="", profile__compound="")
    assert re.findall(r"</th><td>(.*?)</td>", found) == ["4", "4"]


def test_names_of_the_set_are_text_and_no_markup():
    features, metadata = screen(plates=2, compounds=3)
    metadata["compound"] = metadata["compound"].replace({"c0": "<b>x</b>, y", "c1": "$a_{$"})
    metadata["label"] = metadata["label"].replace({"m0": "<i>m</i>"})
    found = section(features, metadata)
    assert "&lt;b&gt;x&lt;/b&gt;, y, 1.0" in found
    assert "<b>x</b>" not in found
    assert "<i>m</i>" not in found

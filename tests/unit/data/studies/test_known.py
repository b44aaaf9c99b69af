"""The one list of known sets, against what a person is told and types."""

import pytest

from bie_jax.input.known_sets import HOW_TO_BUILD
from data.command_line import parse
from data.flags import _TAKEN_BY
from data.options import ShapeOptions
from data.studies.known import STUDIES
from data.studies.study import Study, readme


@pytest.mark.parametrize("name", HOW_TO_BUILD)
def test_the_command_that_a_missing_set_names_builds_that_set(name):
    how = HOW_TO_BUILD[name]
    start, module, command, *arguments = how.command.split()
    assert (start, module, command) == ("python", "-m", "data.build")
    options = parse(arguments, None)
    study = STUDIES[options.fields.name]
    assert options.set_name == name
    assert ("shapes" if isinstance(options.examples, ShapeOptions) else "images") in study.kinds
    assert readme(study) in how.needs or name == "simulated"


def test_every_known_set_says_how_it_is_built():
    for study in STUDIES.values():
        assert study.name in HOW_TO_BUILD


def test_no_study_takes_a_flag_that_there_is_not():
    for study in STUDIES.values():
        if isinstance(study, Study):
            assert study.flags <= _TAKEN_BY.keys()
            assert bool(study.flags) == (study.layout is None)

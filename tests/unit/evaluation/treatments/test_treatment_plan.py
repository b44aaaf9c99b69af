import numpy as np
import pandas as pd
import pytest

from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.treatments.plan import plan_treatments
from tests.unit.evaluation.treatments.plates import screen, settings


def plan(metadata, **changes):
    return plan_treatments(metadata, metadata["split"].to_numpy(), settings(**changes))


def test_wells_and_treatments_against_pandas():
    _, metadata = screen()
    found = plan(metadata)
    assert found is not None
    assert found.notes == ()
    expected = metadata.groupby(["plate", "well"]).size()
    np.testing.assert_array_equal(found.wells["images"], expected)
    np.testing.assert_array_equal(found.wells[["plate", "well"]].to_numpy().tolist(), list(map(list, expected.index)))
    for image, well in zip(found.images, found.well_of_image):
        assert (metadata.loc[image, ["plate", "well"]] == found.wells.loc[well, ["plate", "well"]]).all()
    assert (found.controls.sum(), found.treated.sum()) == (18, 36)
    assert len(found.treatments) == 12
    assert (found.treatments["wells"] == 3).all()
    assert found.treatments["dose"].tolist() == [1.0, 10.0] * 6  # numbers, by size
    assert found.treatments["label"].tolist() == [f"m{i // 2 % 3}" for i in range(12)]


def test_no_treatment_named_no_plan():
    _, metadata = screen()
    assert plan(metadata, profile__treatment=(), profile__mechanism="") is None


def test_what_has_no_part_is_said():
    _, metadata = screen()
    metadata.loc[metadata["plate"] == "P2", "split"] = "held_out"
    metadata.loc[(metadata["plate"] == "P0") & (metadata["label"] == "dmso"), "label"] = "other"
    metadata.loc[0, "well"] = ""
    unknown = (metadata["plate"] == "P1") & (metadata["well"] == "B01")
    metadata.loc[unknown, "compound"] = None
    found = plan(metadata)
    assert found is not None
    assert set(found.wells["plate"]) == {"P1"}
    for image, well in zip(found.images, found.well_of_image):
        assert (metadata.loc[image, ["plate", "well"]] == found.wells.loc[well, ["plate", "well"]]).all()
    assert [note.split(" (")[0] for note in found.notes] == [
        "1 images without a plate or a well have no part in profiles.",
        f"{(metadata['split'] == 'held_out').sum()} images that are held out have no part in profiles.",
        "Profiles leave out 18 wells",
        "1 wells without a treatment take no part in its scores.",
    ]
    assert "plate P0): fewer than 1 controls" in found.notes[2]
    of_all = plan(metadata, profile__normalize__rows="all")
    assert of_all is not None
    assert set(of_all.wells["plate"]) == {"P0", "P1"}
    np.testing.assert_array_equal(of_all.with_controls, of_all.wells["plate"] == "P1")


def test_one_control_a_plate_is_enough_to_center_on():
    _, metadata = screen(controls=1)
    found = plan(metadata)
    assert found is not None
    assert found.controls.sum() == 3
    with pytest.raises(ConfigError, match="no plate has the negative controls that it takes"):
        plan(metadata, profile__steps=("tvn",))


def test_controls_whose_treatment_has_a_name_are_controls_alone():
    _, metadata = screen()
    metadata.loc[metadata["label"] == "dmso", ["compound", "dose"]] = ["DMSO", "0"]
    found = plan(metadata)
    assert found is not None
    assert not (found.treated & found.controls).any()
    assert "DMSO" not in set(found.treatments["compound"])


def test_what_cannot_be_is_refused_with_the_key():
    _, metadata = screen()
    with pytest.raises(ConfigError, match=r"config.eval.profile.mechanism='moa' is not a column.*compound, dose"):
        plan(metadata, profile__mechanism="moa")
    with pytest.raises(ConfigError, match=r"config.eval.profile.replicates_differ_in='batch' is not"):
        plan(metadata, profile__replicates_differ_in=("batch",))
    with pytest.raises(ConfigError, match=r"concentration='compound': row 0 holds 'c\d', which is no number"):
        plan(metadata[metadata["compound"] != ""].reset_index(drop=True), profile__concentration="compound")
    with pytest.raises(ConfigError, match=r"no plate has the negative controls .*label = 'water'"):
        plan(metadata, probe_control="water")
    with pytest.raises(ConfigError, match="no well has a value in it that is no control"):
        plan(metadata.assign(compound=""))
    mixed = metadata.copy()
    mixed.loc[mixed.index[mixed["label"] == "m1"][0], "label"] = "m2"
    with pytest.raises(
        ConfigError, match=r"plate P\d, well B\d\d has several values of column 'label'; a well has one"
    ):
        plan(mixed)
    two = metadata.assign(label=metadata["label"].where(metadata["plate"] != "P0", "dmso"))
    with pytest.raises(
        ConfigError, match=r"compound c0, dose 1.0 has several values of column 'batch'; a treatment has"
    ):
        plan(two.assign(batch=metadata["plate"]), profile__mechanism="batch", profile__steps=())
    with pytest.raises(ConfigError, match=r"profile.treatment='images': profiles have a column of that name"):
        plan(metadata.assign(images="a"), profile__treatment=("images",), profile__mechanism="")


def test_a_batch_that_is_confounded_with_treatments_is_warned_of():
    _, metadata = screen()
    elsewhere = metadata["compound"].isin(["c0", "c1"]) & (metadata["plate"] != "P0")
    again = metadata[(metadata["compound"] == "c0") & (metadata["dose"] == "1.0")].assign(plate="P0", well="Z01")
    confounded = pd.concat([metadata[~elsewhere], again.drop_duplicates("site")], ignore_index=True)
    found = plan(confounded)  # c0 at 1.0 has two wells, all of P0; c1 has one well a dose, whose plate says nothing
    assert found is not None
    (note,) = found.notes
    assert note.startswith("CONFOUNDED: 1 of 12 treatments have all their wells in one plate.")

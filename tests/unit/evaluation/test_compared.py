import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.compared import compared_rows
from tests.unit.evaluation.treatments.plates import settings


def table(labels, wells_each, images=3):
    rows = [
        (f"P{well % 4}", f"{label}{well}", label, f"{label}-{well % 2}")
        for label in labels
        for well in range(wells_each)
        for _ in range(images)
    ]
    return pd.DataFrame(rows, columns=pd.Index(["plate", "well", "label", "drug"]))


def test_a_set_that_is_small_enough_is_compared_as_a_whole():
    metadata = table("ab", 20)
    chosen = settings(most_images=120, profile__treatment=())
    np.testing.assert_array_equal(compared_rows(metadata, chosen), np.arange(120))


@pytest.mark.parametrize("treatment", [(), ("drug",)])
def test_every_class_is_there_in_whole_wells_or_treatments(treatment):
    metadata = pd.concat([table("a", 100), table("b", 300), table(["dmso"], 200)], ignore_index=True)
    found = compared_rows(metadata, settings(most_images=600, profile__treatment=treatment))
    assert (np.diff(found) > 0).all()
    part = metadata.iloc[found]
    if treatment:  # two treatments at least, of which a treatment of a has 150 images and one of b 450
        assert part.groupby("drug").size().drop(["dmso-0", "dmso-1"]).tolist() == [150, 150, 450, 450]
    else:
        assert part.groupby("label").size().to_dict() == {"a": 120, "b": 360, "dmso": 120}
    assert (part.groupby(["plate", "well"]).size() == 3).all()


def test_of_many_classes_whole_ones_are_drawn_without_looking_at_their_names():
    metadata = table([f"g{i:04d}" for i in range(500)], 6, images=1)
    found = metadata.iloc[compared_rows(metadata, settings(most_images=600, profile__treatment=()))]
    sizes = found.groupby("label").size()
    assert (sizes == 6).all()
    assert len(sizes) == 100
    assert 150 < np.mean([int(name[1:]) for name in sizes.index]) < 350
    other = compared_rows(metadata, settings(most_images=600, profile__treatment=(), seed=1))
    assert set(metadata["label"].iloc[other]) != set(sizes.index)

import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.profiles.aggregate import aggregate


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    metadata = pd.DataFrame({"plate": rng.choice(["q", "p"], 40), "well": rng.choice(["B", "A", "C"], 40)})
    metadata["compound"] = "of " + metadata["plate"] + metadata["well"]
    features = rng.normal(size=(40, 3))
    features[rng.random((40, 3)) < 0.1] = np.nan
    return features, metadata


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_wells_against_a_loop(cells, statistic):
    features, metadata = cells
    found = aggregate(features, metadata, ["plate", "well"], ["compound"], statistic)
    wells = sorted(set(zip(metadata["plate"], metadata["well"])))
    assert list(zip(found.metadata["plate"], found.metadata["well"])) == wells
    for row, (plate, well) in enumerate(wells):
        inside = ((metadata["plate"] == plate) & (metadata["well"] == well)).to_numpy()
        expected = [getattr(np, statistic)([v for v in features[inside, d] if v == v]) for d in range(3)]
        np.testing.assert_allclose(found.features[row], expected, rtol=1e-12)
        assert found.sizes[row] == inside.sum()
        assert found.metadata["compound"][row] == f"of {plate}{well}"


def test_a_kept_column_has_one_value_in_every_group(cells):
    features, metadata = cells
    with pytest.raises(ValueError, match="well has several values in plate p"):
        aggregate(features, metadata, ["plate"], ["well"], "mean")
    # No value anywhere in a group is one value, too.
    metadata["dose"] = np.where(metadata["plate"] == "p", np.nan, 3.0)
    found = aggregate(features, metadata, ["plate"], ["dose"], "mean")
    np.testing.assert_array_equal(found.metadata["dose"], [np.nan, 3.0])
    metadata.loc[metadata["plate"].eq("p").idxmax(), "dose"] = 3.0
    with pytest.raises(ValueError, match="dose has several values in plate p"):
        aggregate(features, metadata, ["plate"], ["dose"], "mean")


def test_what_cannot_be_aggregated_is_told(cells):
    features, metadata = cells
    with pytest.raises(ValueError, match="39 rows, the metadata has 40"):
        aggregate(features[1:], metadata, ["plate"], [], "mean")
    with pytest.raises(ValueError, match="one of mean, median, got 'sum'"):
        aggregate(features, metadata, ["plate"], [], "sum")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one column"):
        aggregate(features, metadata, [], [], "mean")
    features[7, 2] = np.inf
    with pytest.raises(ValueError, match="1 values that are infinite, the first in row 7, column 2"):
        aggregate(features, metadata, ["plate"], [], "mean")


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_wells_are_those_of_pycytominer(cells, statistic):
    pycytominer = pytest.importorskip("pycytominer")
    features, metadata = cells
    table = pd.concat([metadata, pd.DataFrame(features, columns=pd.Index(["a", "b", "c"]))], axis=1)
    theirs = pycytominer.aggregate(table, strata=["plate", "well"], features=["a", "b", "c"], operation=statistic)
    found = aggregate(features, metadata, ["plate", "well"], [], statistic)
    np.testing.assert_array_equal(theirs[["plate", "well"]], found.metadata)
    np.testing.assert_allclose(found.features, theirs[["a", "b", "c"]], rtol=1e-12)

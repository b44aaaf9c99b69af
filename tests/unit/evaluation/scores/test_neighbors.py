import numpy as np
import pytest
from sklearn.decomposition import PCA

from bie_jax.evaluation.first_largest import first_largest
from bie_jax.evaluation.scores.neighbors import not_same_well_knn
from bie_jax.evaluation.scores.preparation import rotate_to_span
from tests.unit.evaluation.scores.conftest import _wide, clouds


@pytest.mark.parametrize("k", [1, 3])
def test_neighbors_against_brute_force(k):
    rng = np.random.default_rng(k)
    features, labels = clouds(rng, per_class=20, distance=1.0)
    wells = np.array([f"{label}{i % 4}" for i, label in enumerate(labels)])
    # One well lies far out in one direction: it must not scale what it is asked by.
    features[wells == wells[0], 0] *= 40
    names = sorted(set(wells))
    part = np.array([names.index(well) % 10 for well in wells])
    correct, chance = 0, []
    for i in range(len(labels)):
        others = features[part != part[i]]
        standard = (features - others.mean(0)) / others.std(0)
        allowed = [j for j in range(len(labels)) if wells[j] != wells[i]]
        cosine = {
            j: standard[i] @ standard[j] / np.linalg.norm(standard[i]) / np.linalg.norm(standard[j]) for j in allowed
        }
        nearest = sorted(allowed, key=lambda j: -cosine[j])[:k]
        votes = [labels[j] for j in nearest]
        best = max(votes.count(v) for v in votes)
        correct += next(v for v in votes if votes.count(v) == best) == labels[i]
        chance.append(np.mean([labels[j] == labels[i] for j in allowed]))
    got = not_same_well_knn(features, labels, wells, k)
    np.testing.assert_allclose(got["accuracy"], correct / len(labels))
    np.testing.assert_allclose(got["chance"], np.mean(chance))
    assert got["without_match"] == 0


def test_neighbors_of_the_same_well_do_not_count():
    # Every image has a twin in its own well, and the nearest image elsewhere has the other label.
    features = np.array(
        [[1.0, 0.0], [1.0, 0.01], [0.9, 0.1], [0.9, 0.11], [-1, -0.5], [-1, -0.51], [-0.9, -0.6], [-0.9, -0.61]]
    )
    labels = np.array(["a", "a", "b", "b", "a", "a", "b", "b"])
    wells = np.array(["1", "1", "2", "2", "3", "3", "4", "4"])
    assert not_same_well_knn(features, labels, wells)["accuracy"] == 0
    apart = not_same_well_knn(features, labels, np.arange(8).astype(str))
    assert apart["accuracy"] == 1


def test_components_of_pixels_are_those_whose_neighbors_are_asked():
    """All components of as many images, standardized, are a sphere: every other image is as near."""
    features, labels, wells = _wide()
    pixels = rotate_to_span(
        np.concatenate([features[:, :37], 0.3 * np.random.default_rng(3).normal(size=(60, 400))], 1)
    )
    assert pixels.shape == (60, 60)
    assert not_same_well_knn(pixels, labels, wells, components=3)["accuracy"] > 0.8
    assert not_same_well_knn(pixels, labels, wells)["accuracy"] < 0.7


def test_neighbors_of_a_treatment_in_one_well_are_told():
    features = np.random.default_rng(0).normal(size=(6, 2))
    labels, wells = np.array(list("aabbcc")), np.array(list("112344"))
    got = not_same_well_knn(features, labels, wells)
    assert got["without_match"] == 4  # a and c have one well each
    with pytest.raises(ValueError, match="at least two wells"):
        not_same_well_knn(features, labels, np.array(["1"] * 6))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        not_same_well_knn(features, labels, wells, k=0)


def test_neighbors_of_principal_components_are_found_among_those_alone():
    """Two wide directions hold the label; a hundred narrow ones, each blown up to unit size, would drown them."""
    rng = np.random.default_rng(0)
    wide, labels = clouds(rng, per_class=20, classes=2, dim=2, distance=4.0)
    features = np.concatenate([wide, 0.01 * rng.normal(size=(40, 100))], axis=1)
    wells = np.arange(40).astype(str)
    expected = PCA(2).fit_transform(features)
    found = not_same_well_knn(features, labels, wells, components=2)
    assert found == not_same_well_knn(expected, labels, wells)
    assert found["accuracy"] > 0.9 > not_same_well_knn(features, labels, wells)["accuracy"]


@pytest.mark.parametrize("k", [1, 2, 5, 9, 40])
def test_the_first_of_the_largest_against_a_stable_sort(k):
    """Of numbers of which most are equal, and rows of minus infinity as of the same well."""
    values = np.random.default_rng(0).integers(0, 4, size=(60, 12)).astype(float)
    values[::3, 2:9] = -np.inf
    np.testing.assert_array_equal(first_largest(values, k), np.argsort(-values, axis=1, kind="stable")[:, :k])


def test_those_that_are_asked_have_the_answers_that_they_have_among_all():
    """Every label has one lone well: the drawn images differ from all in chance and in how many cannot be right."""
    rng = np.random.default_rng(0)
    features, labels = clouds(rng, per_class=30, distance=1.0)
    wells = np.array([f"{label}{i % 5}" for i, label in enumerate(labels)])
    labels = labels.astype("<U8")
    labels[7:20] = "rare"
    labels[wells == wells[0]] = "lone"
    drawn = np.random.default_rng(3).permutation(len(labels))[:17]
    right, chance, without = [], [], 0
    names = sorted(set(wells))
    part = np.array([names.index(well) % 10 for well in wells])
    for i in drawn:
        others = features[part != part[i]]
        standard = (features - others.mean(0)) / others.std(0)
        unit = standard / np.linalg.norm(standard, axis=1, keepdims=True)
        allowed = np.flatnonzero(wells != wells[i])
        right.append(labels[allowed[(unit[allowed] @ unit[i]).argmax()]] == labels[i])
        same = labels[allowed] == labels[i]
        chance.append(same.mean())
        without += not same.any()
    found = not_same_well_knn(features, labels, wells, seed=3, most_asked=17)
    np.testing.assert_allclose([found["accuracy"], found["chance"]], [np.mean(right), np.mean(chance)])
    assert (found["images"], found["without_match"]) == (17, without)
    everyone = not_same_well_knn(features, labels, wells, seed=3, most_asked=len(labels))
    assert everyone["images"] == len(labels)
    assert everyone["chance"] != found["chance"]
    assert 0 < without < everyone["without_match"]

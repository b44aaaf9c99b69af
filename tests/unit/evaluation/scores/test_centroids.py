import numpy as np
import pytest

from bie_jax.evaluation.scores import centroids as module
from bie_jax.evaluation.scores.centroids import centroid_rows, mean_centroids, nearest_centroids
from bie_jax.evaluation.scores.folds import leave_group_out_folds


def genes(classes=40, plates=5, effect=1.0, seed=0):
    """Two images of every gene on every plate."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"g{c:03d}" for c in range(classes)], 2 * plates)
    groups = np.tile([f"p{p}" for p in range(plates)], 2 * classes)
    features = effect * np.repeat(rng.normal(size=(classes, 8)), 2 * plates, axis=0)
    features = features + rng.normal(size=(len(labels), 8))
    return features, labels, leave_group_out_folds(labels, groups)


@pytest.mark.parametrize("held", [2**22, 90])
def test_nearest_means_against_a_loop(held, monkeypatch):
    monkeypatch.setattr(module, "_SIMILARITIES_HELD", held)
    features, labels, folds = genes()
    first, ten = [], []
    for fold in folds:
        mean, sd = features[fold.train].mean(axis=0), features[fold.train].std(axis=0)
        scaled = (features - mean) / sd
        names = sorted(set(labels[fold.train]))
        means = [scaled[fold.train][labels[fold.train] == name].mean(axis=0) for name in names]
        for i in fold.test:
            cosine = [scaled[i] @ m / np.linalg.norm(scaled[i]) / np.linalg.norm(m) for m in means]
            ranked = [names[j] for j in np.argsort(cosine)[::-1]]
            first.append(ranked[0] == labels[i])
            ten.append(labels[i] in ranked[:10])
    found = nearest_centroids(features, labels, folds, components=None, seed=0)
    np.testing.assert_allclose([found["accuracy"], found["top_10"]], [np.mean(first), np.mean(ten)])
    np.testing.assert_allclose([found["chance"], found["top_10_chance"]], [1 / 40, 10 / 40])
    assert (found["images"], found["classes"]) == (400, 40)
    assert 0.2 < found["accuracy"] < found["top_10"] < 1


def test_a_collapsed_encoder_and_shuffled_labels_are_right_by_chance():
    features, labels, folds = genes()
    collapsed = nearest_centroids(np.ones_like(features), labels, folds, components=None, seed=0)
    np.testing.assert_allclose([collapsed["accuracy"], collapsed["top_10"]], [1 / 40, 10 / 40])
    lifts = []
    for seed in range(20):
        features, labels, folds = genes(effect=0, seed=seed)
        found = nearest_centroids(features, labels, folds, components=None, seed=0)
        lifts.append([found["accuracy"] - found["chance"], found["top_10"] - found["top_10_chance"]])
    assert (np.abs(np.mean(lifts, axis=0)) < 4 * np.std(lifts, axis=0) / np.sqrt(20)).all()


def test_a_class_that_the_training_fold_lacks_is_wrong():
    features, labels, folds = genes(effect=50)
    labels = labels.astype("U5")
    # Its name stands before that of its own gene, whose mean is the nearest.
    labels[folds[0].test[4]] = f"{labels[folds[0].test[4]][:-1]}1z"
    assert labels[folds[0].test[4]] == "g001z"
    found = nearest_centroids(features, labels, folds[:1], components=None, seed=0)
    np.testing.assert_allclose(found["accuracy"], 79 / 80)


def test_rows_and_draws():
    features, labels, folds = genes()
    draws = [nearest_centroids(features[:, part], labels, folds, components=None, seed=0) for part in ([0, 1], [2, 3])]
    mean = mean_centroids(draws)
    np.testing.assert_allclose(mean["accuracy"], np.mean(mean["accuracy_of_draws"]))
    rows = {row.metric: row.value for row in centroid_rows({"leave_plate_out": mean})}
    assert rows == {
        "accuracy": mean["accuracy"],
        "accuracy_chance": mean["chance"],
        "top_10_accuracy": mean["top_10"],
        "top_10_accuracy_chance": mean["top_10_chance"],
    }

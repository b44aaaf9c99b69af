from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from bie_jax.evaluation.baselines import baselines
from bie_jax.evaluation.baselines.baselines import rotate_to_span
from bie_jax.evaluation.feature_set import Block, FeatureSet
from bie_jax.evaluation.scores import probe

SUBSET = Path(__file__).parents[4] / "shared/data/bbbc021_singlecell_subset/bbbc021_subset.npz"


def strings(rng, names, size):
    return rng.choice(np.array(names), size)


def clouds(rng, per_class=40, classes=3, dim=5, distance=3.0):
    labels = np.repeat(np.array([f"c{k}" for k in range(classes)]), per_class)
    features = rng.normal(size=(len(labels), dim))
    features[np.arange(len(labels)), np.repeat(np.arange(classes), per_class)] += distance
    return features, labels


def loop_scores(labels, predictions):
    """Everything counted one image at a time."""
    classes = sorted(set(labels))
    confusion = [[0] * len(classes) for _ in classes]
    for truth, guess in zip(labels, predictions):
        confusion[classes.index(truth)][classes.index(guess)] += 1
    per_class = []
    for k in range(len(classes)):
        hit = confusion[k][k]
        predicted = sum(row[k] for row in confusion)
        support = sum(confusion[k])
        precision = hit / predicted if predicted else 0.0
        recall = hit / support
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        per_class.append((precision, recall, f1, support))
    return confusion, per_class


@pytest.mark.parametrize("seed", range(3))
def test_scores_against_counting_by_hand(seed):
    rng = np.random.default_rng(seed)
    labels = strings(rng, ["a", "b", "c", "d"], 70)
    predictions = np.where(
        rng.random(70) < 0.6, labels, strings(rng, ["a", "b", "c"], 70)
    )  # d: rarely, never by chance
    scores = probe.classification_scores(labels, predictions, np.arange(70).astype(str), resamples=10, seed=0)
    confusion, per_class = loop_scores(labels, predictions)
    assert scores["confusion"] == confusion
    for name, (precision, recall, f1, support) in zip("abcd", per_class):
        entry = scores["per_class"][name]
        np.testing.assert_allclose(
            [entry["precision"], entry["recall"], entry["f1"], entry["support"]], [precision, recall, f1, support]
        )
    np.testing.assert_allclose(scores["macro_f1"], np.mean([row[2] for row in per_class]))
    np.testing.assert_allclose(scores["balanced_accuracy"], np.mean([row[1] for row in per_class]))
    np.testing.assert_allclose(scores["accuracy"], np.mean(labels == predictions))


def test_class_that_is_never_predicted_counts_as_zero():
    labels, predictions = np.array(["a", "a", "b", "b"]), np.array(["a", "a", "a", "a"])
    scores = probe.classification_scores(labels, predictions, np.array(list("wxyz")), resamples=10, seed=0)
    assert scores["per_class"]["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}
    np.testing.assert_allclose(scores["macro_f1"], (2 / 3) / 2)


def test_confusion_matrix_keeps_the_order_of_the_classes():
    confusion = probe.confusion_matrix(np.array(["a", "b", "b"]), np.array(["b", "b", "a"]), np.array(["b", "a"]))
    np.testing.assert_array_equal(confusion, [[1, 1], [1, 0]])
    with pytest.raises(ValueError, match="c"):
        probe.confusion_matrix(np.array(["c"]), np.array(["a"]), np.array(["a"]))


def test_majority_has_its_closed_form():
    labels = np.array(["a"] * 60 + ["b"] * 30 + ["c"] * 10)
    folds = probe.stratified_folds(labels, 5, seed=0)
    predictions = probe.majority_predictions(labels, folds).values
    scores = probe.classification_scores(labels, predictions, np.arange(100).astype(str), resamples=10, seed=0)
    share = 0.6
    np.testing.assert_allclose(scores["accuracy"], share)
    np.testing.assert_allclose(scores["macro_f1"], 2 * share / (1 + share) / 3)
    np.testing.assert_allclose(scores["balanced_accuracy"], 1 / 3)


def test_majority_looks_at_the_training_fold_alone():
    labels = np.array(["a"] * 5 + ["b"] * 4 + ["b"] * 5 + ["a"] * 2)
    groups = np.array(["p"] * 9 + ["q"] * 7)
    predictions = probe.majority_predictions(labels, probe.leave_group_out_folds(labels, groups)).values
    assert set(predictions[9:]) == {"a"}  # over all images "b" is the commoner one
    assert set(predictions[:9]) == {"b"}


def test_stratified_folds_partition_and_keep_shares():
    labels = np.array(["a"] * 40 + ["b"] * 20)
    folds = probe.stratified_folds(labels, 4, seed=1)
    tested = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(np.sort(tested), np.arange(60))
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        assert (labels[fold.test] == "a").sum() == 10
        assert (labels[fold.test] == "b").sum() == 5


def test_impossible_folds_name_the_label_and_the_count():
    labels = np.array(["common"] * 20 + ["rare"] * 3)
    with pytest.raises(ValueError, match=r"\{'rare': 3\}. Leave those classes out, or set fewer --config.eval.folds"):
        probe.stratified_folds(labels, 5, seed=0)
    with pytest.raises(ValueError, match=r"\{'only': 9\}"):
        probe.stratified_folds(np.array(["only"] * 9), 5, seed=0)
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        probe.stratified_folds(labels, 1, seed=0)
    with pytest.raises(ValueError, match=r"\['p'\]"):
        probe.leave_group_out_folds(labels, np.array(["p"] * 23))
    with pytest.raises(ValueError, match=r"leaving q out.*\{'common': 18\}"):
        probe.leave_group_out_folds(labels, np.array(["p"] * 18 + ["q"] * 5))


def test_no_plate_is_in_train_and_test_at_once():
    rng = np.random.default_rng(0)
    labels, plates = strings(rng, ["a", "b"], 90), strings(rng, ["p", "q", "r"], 90)
    folds = probe.leave_group_out_folds(labels, plates)
    assert [fold.name for fold in folds] == ["p", "q", "r"]
    for fold in folds:
        assert set(plates[fold.test]) == {fold.name}
        assert fold.name not in set(plates[fold.train])
        assert len(fold.train) + len(fold.test) == 90


@pytest.mark.parametrize("components", [None, 3])
def test_nothing_is_fitted_on_the_held_out_plate(components):
    """One absurd image on the held-out plate moves no other prediction there: scaling and components never saw it."""
    rng = np.random.default_rng(0)
    features, labels = clouds(rng, distance=1.5)
    plates = np.tile(np.array(["p", "q", "r", "s"]), 30)
    folds = probe.leave_group_out_folds(labels, plates)
    before = probe.cross_validate(features, labels, folds, components=components)
    spoilt = features.copy()
    victim = int(np.flatnonzero(plates == "q")[0])
    spoilt[victim] = 1e7 * rng.normal(size=5)
    after = probe.cross_validate(spoilt, labels, folds, components=components)
    others = (plates == "q") & (np.arange(len(labels)) != victim)
    for name in before:
        np.testing.assert_array_equal(before[name].values[others], after[name].values[others])
    # The image does matter where it is in the training fold, so the test can tell.
    linear = probe.LOGISTIC_REGRESSION
    assert (before[linear].values[plates != "q"] != after[linear].values[plates != "q"]).any()


def test_logistic_regression_is_scaled_by_the_training_fold():
    rng = np.random.default_rng(1)
    features, labels = clouds(rng, distance=1.0)
    features = features * np.array([1e-3, 1, 1e3, 1, 50]) + 7
    plates = np.tile(np.array(["p", "q"]), 60)
    features[plates == "q"] *= 1.3
    folds = probe.leave_group_out_folds(labels, plates)
    expected = np.empty_like(labels)
    for fold in folds:
        mean, sd = features[fold.train].mean(0), features[fold.train].std(0)
        model = LogisticRegression(max_iter=2000, class_weight="balanced")
        model.fit((features[fold.train] - mean) / sd, labels[fold.train])
        expected[fold.test] = model.predict((features[fold.test] - mean) / sd)
    got = probe.cross_validate(features, labels, folds, classifiers=(probe.LOGISTIC_REGRESSION,))
    np.testing.assert_array_equal(got[probe.LOGISTIC_REGRESSION].values, expected)


def test_separable_classes_are_found_and_permuted_labels_are_not():
    rng = np.random.default_rng(0)
    features, labels = clouds(rng, distance=6.0)
    wells = np.arange(len(labels)).astype(str)

    def macro_f1(labels):
        folds = probe.stratified_folds(labels, 5, seed=0)
        return {
            name: probe.classification_scores(labels, prediction.values, wells, resamples=10, seed=0)["macro_f1"]
            for name, prediction in probe.cross_validate(features, labels, folds).items()
        }

    assert min(macro_f1(labels).values()) > 0.97
    # 120 images, three classes: the standard deviation of a chance score is about 0.045.
    for value in macro_f1(rng.permutation(labels)).values():
        assert abs(value - 1 / 3) < 0.15


def test_names_of_classes_change_no_prediction():
    """A forest that weighs classes refuses the words "0" to "9" (scikit-learn), and digits are labels of MNIST."""
    features, labels = clouds(np.random.default_rng(5), classes=3)
    folds = probe.stratified_folds(labels, 4, 0)
    expected = probe.cross_validate(features, labels, folds)
    digits = np.char.lstrip(labels, "c")
    for name, found in probe.cross_validate(features, digits, folds).items():
        np.testing.assert_array_equal(np.char.add("c", found.values), expected[name].values)


def test_constant_features_and_the_same_seed():
    rng = np.random.default_rng(0)
    features, labels = clouds(rng)
    features = np.concatenate([features, np.full((len(features), 2), 0.1)], axis=1)
    folds = probe.stratified_folds(labels, 3, seed=0)
    first = probe.cross_validate(features, labels, folds, seed=3)
    second = probe.cross_validate(features, labels, folds, seed=3)
    for name in first:
        np.testing.assert_array_equal(first[name].values, second[name].values)
    only_constant = probe.cross_validate(np.full((len(labels), 2), 0.1), labels, folds)
    assert set(only_constant[probe.LOGISTIC_REGRESSION].values) <= set(labels)


def test_bad_features_and_folds_are_refused():
    rng = np.random.default_rng(0)
    features, labels = clouds(rng)
    folds = probe.stratified_folds(labels, 3, seed=0)
    with pytest.raises(ValueError, match="got shape"):
        probe.cross_validate(features[:-1], labels, folds)
    broken = features.copy()
    broken[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 120 rows .* row 7"):
        probe.cross_validate(broken, labels, folds)
    with pytest.raises(ValueError, match="test 160 rows, of which 120 differ"):
        probe.cross_validate(features, labels, [*folds, folds[0]])
    leaking = probe.Fold("leaking", np.append(folds[0].train, folds[0].test[0]), folds[0].test)
    with pytest.raises(ValueError, match="learns from rows that it tests"):
        probe.cross_validate(features, labels, [leaking])
    for prediction in probe.cross_validate(features, labels, folds[:2]).values():
        assert (prediction.values[folds[2].test] == "").all()


def test_a_fit_that_has_not_converged_is_reported(monkeypatch):
    rng = np.random.default_rng(0)
    features, labels = clouds(rng, distance=1.0)
    folds = probe.stratified_folds(labels, 2, seed=0)
    monkeypatch.setattr(
        probe, "build_classifiers", lambda seed, trees: {probe.LOGISTIC_REGRESSION: LogisticRegression(max_iter=1)}
    )
    got = probe.cross_validate(features, labels, folds, classifiers=(probe.LOGISTIC_REGRESSION,))
    assert len(got[probe.LOGISTIC_REGRESSION].notes) == 2
    assert "fold 1" in got[probe.LOGISTIC_REGRESSION].notes[1]


def test_gaps_between_training_and_test_are_told():
    labels = np.array(["a", "b", "a", "b", "new", "new", "a"])
    plates = np.array(["p", "p", "q", "q", "r", "r", "s"])
    notes = probe.describe_gaps(labels, probe.leave_group_out_folds(labels, plates))
    assert any("Held out r: new occurs nowhere" in note and "2 images" in note for note in notes)
    assert any("Held out s: it holds one class only (a)" in note for note in notes)
    assert not any("Held out p" in note for note in notes)


def loop_bootstrap(labels, predictions, wells, resamples, rng):
    """Wells drawn with replacement, within each class if each holds one, one resample and one image at a time."""
    rows_of = {well: [i for i, w in enumerate(wells) if w == well] for well in sorted(set(wells))}
    pure = all(len(set(labels[own])) == 1 for own in rows_of.values())
    strata = [[well for well, own in rows_of.items() if labels[own[0]] == name] for name in sorted(set(labels))]
    values = []
    for _ in range(resamples):
        rows = []
        for members in strata if pure else [list(rows_of)]:
            for well in rng.choice(members, len(members)):
                rows += rows_of[well]
        values.append(np.mean([f1 for *_, f1, _ in loop_scores(labels[rows], predictions[rows])[1]]))
    return np.quantile(values, [0.025, 0.975])


def test_interval_against_resampling_in_a_loop():
    rng = np.random.default_rng(0)
    wells = np.repeat(np.array([f"w{i:02d}" for i in range(24)]), 5)
    labels = np.repeat(np.array(["a", "b", "c"] * 8), 5)
    wrong = np.repeat(rng.random(24) < 0.3, 5) | (rng.random(120) < 0.1)  # whole wells go wrong together
    predictions = np.where(wrong, "a", labels)
    got = probe.bootstrap_interval(labels, predictions, wells, 4000, seed=0)
    expected = loop_bootstrap(labels, predictions, wells, 1500, np.random.default_rng(5))
    np.testing.assert_allclose(got, expected, atol=0.015)  # the error of a 2.5 % quantile of 1500 resamples
    by_image = probe.bootstrap_interval(labels, predictions, np.arange(120).astype(str), 4000, seed=0)
    assert got[1] - got[0] > 1.3 * (by_image[1] - by_image[0])


def test_a_class_that_a_resample_lacks_is_not_in_its_mean():
    """Wells of several classes, one of them in a single well: a third of the resamples have none of it."""
    rng = np.random.default_rng(4)
    wells = np.repeat(np.array([f"w{i:02d}" for i in range(12)]), 6)
    labels = np.where(np.arange(72) % 2, "a", "b")
    labels[:6] = "rare"
    predictions = np.where(rng.random(72) < 0.8, labels, "a")
    got = probe.bootstrap_interval(labels, predictions, wells, 4000, seed=0)
    expected = loop_bootstrap(labels, predictions, wells, 1500, np.random.default_rng(5))
    np.testing.assert_allclose(got, expected, atol=0.015)


def test_interval_of_several_draws_is_that_of_their_mean():
    rng = np.random.default_rng(2)
    labels, wells = np.repeat(np.array(["a", "b"]), 20), np.repeat(np.arange(8), 5)
    draws = np.stack([np.where(rng.random(40) < share, labels, "a") for share in (0.9, 0.5, 0.2)])
    together = probe.bootstrap_interval(labels, draws, wells, 2000, seed=0)
    alone = [probe.bootstrap_interval(labels, draw, wells, 2000, seed=0) for draw in draws]
    assert probe.bootstrap_interval(labels, draws[:1], wells, 2000, seed=0) == alone[0]
    assert probe.bootstrap_interval(labels, draws[[1, 1, 1]], wells, 2000, seed=0) == pytest.approx(alone[1])
    low, high = np.mean(alone, axis=0)
    assert low <= together[0] < together[1] <= high  # the mean of three varies no more than they do


def test_interval_of_perfect_predictions_and_of_wells_with_mixed_labels():
    labels = np.array(["a", "b"] * 10)
    assert probe.bootstrap_interval(labels, labels, np.repeat(np.arange(5), 4), 50, seed=0) == (1.0, 1.0)
    flipped = np.where(labels == "a", "b", "a")
    assert probe.bootstrap_interval(labels, flipped, np.repeat(np.arange(5), 4), 50, seed=0) == (0.0, 0.0)
    with pytest.raises(ValueError, match="got 0"):
        probe.bootstrap_interval(labels, labels, labels, 0, seed=0)


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
    got = probe.not_same_well_knn(features, labels, wells, k)
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
    assert probe.not_same_well_knn(features, labels, wells)["accuracy"] == 0
    apart = probe.not_same_well_knn(features, labels, np.arange(8).astype(str))
    assert apart["accuracy"] == 1


def _wide(seed=0):
    """[60, 40] of twelve wells whose labels show in a direction of large variance, and a block of three numbers."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(["a", "b", "c"], 20)
    signal = rng.normal(size=(60, 3)) + np.repeat(np.eye(3) * 3, 20, axis=0)
    wide = signal @ rng.normal(size=(3, 37)) + 0.3 * rng.normal(size=(60, 37))
    wells = np.char.add(labels, (np.arange(60) % 4).astype(str))
    return np.concatenate([wide, rng.normal(size=(60, 3))], axis=1), labels, wells


BLOCKS = (Block(37, 4, standardized=True), Block(3))


@pytest.mark.parametrize("components", [None, 4, BLOCKS, (Block(37, 4), Block(3))])
def test_nothing_is_fitted_to_rows_that_are_tested(components):
    """Absurd test rows but one: what is fitted, and so the prediction of that one, stays."""
    features, labels, wells = _wide()
    for folds in (probe.stratified_folds(labels, 5, 0), probe.leave_group_out_folds(labels, wells)):
        before = probe.cross_validate(features, labels, folds, components=components, trees=20)
        fold = folds[0]
        spoilt = features.copy()
        spoilt[fold.test[:-1]] = 1e9 * np.random.default_rng(1).normal(size=(len(fold.test) - 1, 40))
        after = probe.cross_validate(spoilt, labels, folds, components=components, trees=20)
        for name in before:
            assert before[name].values[fold.test[-1]] == after[name].values[fold.test[-1]] == labels[fold.test[-1]]
        prepared = [
            probe.build_preparation(len(fold.train), 40, components, 0).fit(table[fold.train]).transform(features)
            for table in (features, spoilt)
        ]
        np.testing.assert_array_equal(*prepared)


def test_blocks_become_their_own_components_beside_the_rest():
    features, _, _ = _wide()
    train = np.arange(0, 60, 2)
    prepared = probe.build_preparation(30, 40, BLOCKS, 0).fit(features[train]).transform(features)
    wide = (features[:, :37] - features[train, :37].mean(0)) / features[train, :37].std(0)
    _, vectors = np.linalg.eigh(np.cov(wide[train], rowvar=False))
    scores = wide @ vectors[:, ::-1][:, :4]
    expected = np.concatenate([scores, features[:, 37:]], axis=1)
    expected = (expected - expected[train].mean(0)) / expected[train].std(0)
    signs = np.sign((prepared * expected).sum(axis=0))
    np.testing.assert_allclose(prepared, signs * expected, atol=1e-6)
    with pytest.raises(ValueError, match="there are 39 features, and blocks of 40"):
        probe.build_preparation(30, 39, BLOCKS, 0)
    assert FeatureSet("k", "t", "d", features, BLOCKS).dim == 7


def test_components_of_pixels_are_those_whose_neighbors_are_asked():
    """All components of as many images, standardized, are a sphere: every other image is as near."""
    features, labels, wells = _wide()
    pixels = rotate_to_span(
        np.concatenate([features[:, :37], 0.3 * np.random.default_rng(3).normal(size=(60, 400))], 1)
    )
    assert pixels.shape == (60, 60)
    assert probe.not_same_well_knn(pixels, labels, wells, components=3)["accuracy"] > 0.8
    assert probe.not_same_well_knn(pixels, labels, wells)["accuracy"] < 0.7


def test_neighbors_of_a_treatment_in_one_well_are_told():
    features = np.random.default_rng(0).normal(size=(6, 2))
    labels, wells = np.array(list("aabbcc")), np.array(list("112344"))
    got = probe.not_same_well_knn(features, labels, wells)
    assert got["without_match"] == 4  # a and c have one well each
    with pytest.raises(ValueError, match="at least two wells"):
        probe.not_same_well_knn(features, labels, np.array(["1"] * 6))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        probe.not_same_well_knn(features, labels, wells, k=0)


def test_neighbors_of_principal_components_are_found_among_those_alone():
    """Two wide directions hold the label; a hundred narrow ones, each blown up to unit size, would drown them."""
    rng = np.random.default_rng(0)
    wide, labels = clouds(rng, per_class=20, classes=2, dim=2, distance=4.0)
    features = np.concatenate([wide, 0.01 * rng.normal(size=(40, 100))], axis=1)
    wells = np.arange(40).astype(str)
    expected = PCA(2).fit_transform(features)
    found = probe.not_same_well_knn(features, labels, wells, components=2)
    assert found == probe.not_same_well_knn(expected, labels, wells)
    assert found["accuracy"] > 0.9 > probe.not_same_well_knn(features, labels, wells)["accuracy"]


def plate_layout(wells_per_plate=4, images=15):
    plates = np.repeat(np.array(["p", "q", "r"]), wells_per_plate * images)
    wells = np.tile(np.repeat(np.array([f"B{w:02d}" for w in range(wells_per_plate)]), images), 3)
    return plates, wells


def test_plate_identity_finds_a_batch_effect_and_nothing_else():
    rng = np.random.default_rng(0)
    plates, wells = plate_layout()
    noise = rng.normal(size=(len(plates), 4))
    shifted = noise + 4 * np.stack([plates == "q", plates == "r", plates == "s", plates == "s"], axis=1)
    high = probe.plate_identity(shifted, plates, wells, num_folds=5, seed=0)
    low = probe.plate_identity(noise, plates, wells, num_folds=5, seed=0)
    assert high["macro_f1"] > 0.95
    assert abs(low["macro_f1"] - 1 / 3) < 0.12
    assert high["chance"] == 1 / 3
    assert high["split"] == "4 folds of whole wells"


def test_plate_identity_is_not_read_off_the_wells():
    """Each well has its own look, drawn alike on all plates: with wells held out, that tells nothing about plates."""
    rng = np.random.default_rng(0)
    plates, wells = plate_layout(wells_per_plate=12, images=4)
    names, index = np.unique(np.char.add(plates, wells), return_inverse=True)
    features = 5 * rng.normal(size=(len(names), 60))[index] + 0.1 * rng.normal(size=(len(plates), 60))
    grouped = probe.plate_identity(features, plates, wells, num_folds=5, seed=0)
    assert grouped["macro_f1"] < 0.6
    folds = probe.stratified_folds(plates, 5, seed=0)  # the same with images held out instead
    leaking = probe.cross_validate(features, plates, folds, classifiers=(probe.LOGISTIC_REGRESSION,))
    assert (leaking[probe.LOGISTIC_REGRESSION].values == plates).mean() > 0.9


def test_plate_identity_with_one_control_well_says_so():
    rng = np.random.default_rng(0)
    plates, wells = plate_layout(wells_per_plate=1)
    got = probe.plate_identity(rng.normal(size=(len(plates), 3)), plates, wells, num_folds=5, seed=0)
    assert "one control well only" in got["split"]
    with pytest.raises(ValueError, match=r"\{'p': 15\}"):
        probe.plate_identity(np.zeros((15, 1)), plates[:15], wells[:15], num_folds=5, seed=0)
    with pytest.raises(ValueError, match=r"\{'r': 2\}"):
        probe.plate_identity(np.zeros((32, 1)), plates[:32], wells[:32], num_folds=5, seed=0)


@pytest.mark.skipif(not SUBSET.exists(), reason="../shared/data/bbbc021_singlecell_subset is not on this machine")
def test_intensity_statistics_of_real_cells_reach_the_published_mark():
    """DMSO against protein-synthesis inhibition on a plate not seen: an independent script reached .965."""
    with np.load(SUBSET) as stored:
        images, labels, plates = stored["images"], stored["moa"].astype(str), stored["plate"].astype(str)
        wells = np.char.add(plates, stored["well"].astype(str))
    features = baselines.intensity_features(images, ["DAPI", "Tubulin", "Actin"])
    assert features.shape == (1440, 36)
    folds = probe.leave_group_out_folds(labels, plates)
    got = probe.cross_validate(features, labels, folds, classifiers=(probe.LOGISTIC_REGRESSION,))
    scores = probe.classification_scores(labels, got[probe.LOGISTIC_REGRESSION].values, wells, resamples=200, seed=0)
    assert scores["macro_f1"] >= 0.95
    assert scores["macro_f1_interval_95"][0] < scores["macro_f1"] < scores["macro_f1_interval_95"][1]
    controls = labels == "DMSO"
    identity = probe.plate_identity(features[controls], plates[controls], wells[controls], num_folds=5, seed=0)
    assert 0.55 < identity["macro_f1"] < 0.75


def test_resamples_are_the_same_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    labels, guesses = (rng.choice(list("abcd"), 60) for _ in range(2))
    wells = np.arange(60) // 3
    whole = probe.bootstrap_interval(labels, guesses, wells, 40, 0)
    monkeypatch.setattr(probe, "_NUMBERS_HELD", 20 * 7)  # seven resamples of 20 wells at a time
    assert probe.bootstrap_interval(labels, guesses, wells, 40, 0) == whole


def test_a_thousand_classes_are_resampled_in_little_memory():
    labels = np.repeat([f"gene{number:04d}" for number in range(3000)], 2)
    low, high = probe.bootstrap_interval(labels, labels, np.arange(6000), 20, 0)
    assert low == high == 1.0  # a table of classes by classes for each well would take 430 GB

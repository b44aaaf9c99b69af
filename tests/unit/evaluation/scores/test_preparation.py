import numpy as np
import pytest

from bie_jax.evaluation.feature_set import Block, FeatureSet
from bie_jax.evaluation.scores.classification import cross_validate
from bie_jax.evaluation.scores.folds import leave_group_out_folds, stratified_folds
from bie_jax.evaluation.scores.preparation import build_preparation, rotate_to_span
from tests.unit.evaluation.scores.conftest import _wide

pytestmark = pytest.mark.slow

BLOCKS = (Block(37, 4, standardized=True), Block(3))


@pytest.mark.parametrize("components", [None, 4, BLOCKS, (Block(37, 4), Block(3))])
def test_nothing_is_fitted_to_rows_that_are_tested(components):
    """Absurd test rows but one: what is fitted, and so the prediction of that one, stays."""
    features, labels, wells = _wide()
    for folds in (stratified_folds(labels, 5, 0), leave_group_out_folds(labels, wells)):
        before = cross_validate(features, labels, folds, components=components, trees=20)
        fold = folds[0]
        spoilt = features.copy()
        spoilt[fold.test[:-1]] = 1e9 * np.random.default_rng(1).normal(size=(len(fold.test) - 1, 40))
        after = cross_validate(spoilt, labels, folds, components=components, trees=20)
        for name in before:
            assert before[name].values[fold.test[-1]] == after[name].values[fold.test[-1]] == labels[fold.test[-1]]
        prepared = [
            build_preparation(len(fold.train), 40, components, 0).fit(table[fold.train]).transform(features)
            for table in (features, spoilt)
        ]
        np.testing.assert_array_equal(*prepared)


def test_blocks_become_their_own_components_beside_the_rest():
    features, _, _ = _wide()
    train = np.arange(0, 60, 2)
    prepared = build_preparation(30, 40, BLOCKS, 0).fit(features[train]).transform(features)
    wide = (features[:, :37] - features[train, :37].mean(0)) / features[train, :37].std(0)
    _, vectors = np.linalg.eigh(np.cov(wide[train], rowvar=False))
    scores = wide @ vectors[:, ::-1][:, :4]
    expected = np.concatenate([scores, features[:, 37:]], axis=1)
    expected = (expected - expected[train].mean(0)) / expected[train].std(0)
    signs = np.sign((prepared * expected).sum(axis=0))
    np.testing.assert_allclose(prepared, signs * expected, atol=1e-6)
    with pytest.raises(ValueError, match="there are 39 features, and blocks of 40"):
        build_preparation(30, 39, BLOCKS, 0)
    assert FeatureSet("k", "t", "d", features, BLOCKS).dim == 7


def test_rotation_keeps_every_distance():
    features = np.random.default_rng(0).normal(size=(20, 300)).astype(np.float32)
    rotated = rotate_to_span(features)
    assert rotated.shape == (20, 20)
    # Distances decide what principal components of any subset of the rows are.
    np.testing.assert_allclose(rotated @ rotated.T, features @ features.T, atol=1e-3)
    assert rotate_to_span(features.T) is not None
    np.testing.assert_array_equal(rotate_to_span(features.T), features.T)

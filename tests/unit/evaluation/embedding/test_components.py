"""Principal components of a readout, held against an eigendecomposition."""

import numpy as np
import pytest

from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.embedding.components import Components
from bie_jax.files.integrity import StaleFileError


@pytest.fixture
def features():
    """[200, 6] that vary along three directions; the last column never does."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3)) * [5.0, 2.0, 1.0] @ rng.normal(size=(3, 6)) + 10.0
    values[:, 5] = 7.0
    return values.astype(np.float32)


def test_components_are_the_eigenvectors_of_the_correlations(features):
    components = Components.fit(features, 3)
    found = components(features)
    assert found.shape == (200, 3)
    assert found.dtype == np.float32
    correlations = np.corrcoef(features[:, :5].astype(np.float64), rowvar=False)
    values = np.sort(np.linalg.eigvalsh(correlations))[::-1][:3]
    np.testing.assert_allclose(found.var(axis=0), values, rtol=1e-4)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(found, rowvar=False, bias=True), np.diag(values), atol=1e-3)


def test_all_of_them_keep_all_distances(features):
    standard = (features - features.mean(axis=0)) / np.where(features.std(axis=0) > 1e-6, features.std(axis=0), 1)
    found = Components.fit(features, 6)(features)
    for a, b in ((0, 1), (5, 90), (17, 111)):
        assert np.linalg.norm(found[a] - found[b]) == pytest.approx(np.linalg.norm(standard[a] - standard[b]), rel=1e-3)


def test_they_are_kept_with_the_run(features, tmp_path):
    components = Components.fit(features, 2)
    components.save(tmp_path, {"checkpoint": "8"})
    np.testing.assert_array_equal(Components.load(tmp_path, {"checkpoint": "8"})(features), components(features))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checksums.json", "components.npz"]
    with pytest.raises(StaleFileError, match=r"components.npz was made from checkpoint = 8, which is 12 now: run"):
        Components.load(tmp_path, {"checkpoint": "12"})


def test_a_run_that_was_not_embedded_has_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing: run the same command with --stage=embed"):
        Components.load(tmp_path, {})


def test_more_than_there_are_is_refused(features):
    with pytest.raises(ConfigError, match=r"eval.components=7: 200 examples of 6 numbers have 6 at most"):
        Components.fit(features, 7)
    with pytest.raises(ConfigError, match="4 examples of 6 numbers have 4 at most"):
        Components.fit(features[:4], 5)

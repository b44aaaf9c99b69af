import inspect

import numpy as np
import pytest

from bie_jax.evaluation.report import project

pytestmark = pytest.mark.slow


def test_pca_against_singular_values():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)) + 10
    coordinates, shares = project.pca_projection(features)
    standard = (features - features.mean(0)) / features.std(0)
    left, singular, right = np.linalg.svd(standard, full_matrices=False)
    for axis in range(2):
        sign = np.sign(right[axis, np.abs(right[axis]).argmax()])
        np.testing.assert_allclose(coordinates[:, axis], sign * left[:, axis] * singular[axis], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shares, singular[:2] ** 2 / (singular**2).sum(), rtol=1e-6)


def test_pca_of_one_column_and_of_constants():
    line, shares = project.pca_projection(np.arange(5.0)[:, None])
    assert line.shape == (5, 2)
    assert (line[:, 1] == 0).all()
    assert shares == (1.0, 0.0)
    flat, shares = project.pca_projection(np.full((5, 3), 0.1))
    assert (flat == 0).all()
    assert shares == (0.0, 0.0)


def test_umap_keeps_clusters_repeats_itself_and_takes_no_labels():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(30, 8)), rng.normal(size=(30, 8)) + 8])
    first = project.umap_projection(features, seed=0)
    np.testing.assert_array_equal(first, project.umap_projection(features, seed=0))
    assert np.isfinite(first).all()
    between = np.linalg.norm(first[:30].mean(0) - first[30:].mean(0))
    within = np.linalg.norm(first[:30] - first[:30].mean(0), axis=1).mean()
    assert between > 3 * within
    for function in (project.umap_projection, project.pca_projection):
        assert not {"labels", "y", "target"} & set(inspect.signature(function).parameters)


def test_umap_of_few_images():
    assert project.umap_projection(np.random.default_rng(0).normal(size=(6, 3)), seed=0).shape == (6, 2)
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        project.umap_projection(np.zeros((3, 2)), seed=0)

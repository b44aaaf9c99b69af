import numpy as np
import pandas as pd
import pytest
from scipy.linalg import sqrtm

from bie_jax.evaluation.profiles.normalize import fit_scaling
from bie_jax.evaluation.profiles.sphering import fit_sphering


def correlated(rows, dim, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(loc=5, size=(rows, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


@pytest.mark.parametrize("rotation", ["PCA", "ZCA"])
def test_controls_become_uncorrelated_with_unit_variance(rotation):
    controls = correlated(50, 6)
    sphered = fit_sphering(controls, rotation, 0.0, "raise").transform(controls)
    np.testing.assert_allclose(np.cov(sphered, rowvar=False), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(sphered.mean(axis=0), 0, atol=1e-9)


def test_zca_is_the_inverse_root_of_the_covariance():
    """Closed form: the symmetric map, by another way than a decomposition of the data."""
    controls = correlated(50, 6)
    found = fit_sphering(controls, "ZCA", 0.0, "raise")
    np.testing.assert_allclose(found.weights, np.linalg.inv(sqrtm(np.cov(controls, rowvar=False)).real), rtol=1e-7)


def test_pca_turns_to_components_by_falling_variance():
    controls, others = correlated(50, 6), correlated(9, 6, seed=1)
    found = fit_sphering(controls, "PCA", 0.0, "raise").transform(others)
    variances, axes = np.linalg.eigh(np.cov(controls, rowvar=False))
    expected = (others - controls.mean(axis=0)) @ axes[:, ::-1] / np.sqrt(variances[::-1])
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-7)


def test_epsilon_is_added_to_singular_values():
    controls = correlated(50, 6)
    centered = controls - controls.mean(axis=0)
    _, singular, directions = np.linalg.svd(centered)
    expected = sum(np.outer(v, v) / (s + 2.5) for s, v in zip(singular, directions)) * 7
    np.testing.assert_allclose(fit_sphering(controls, "ZCA", 2.5, "raise").weights, expected, rtol=1e-9)


def test_few_controls_are_refused_or_filled_up():
    controls = correlated(6, 6)
    with pytest.raises(ValueError, match="6 controls do not determine the covariance of 6 features: give more than 6"):
        fit_sphering(controls, "ZCA", 0.0, "raise")
    sphered = fit_sphering(controls, "PCA", 0.0, "fill").transform(controls)
    np.testing.assert_allclose(np.cov(sphered, rowvar=False), np.diag([1, 1, 1, 1, 1, 0]), atol=1e-9)
    few = controls[:3]
    filled = fit_sphering(few, "ZCA", 0.0, "fill")
    _, singular, directions = np.linalg.svd(few - few.mean(axis=0))
    # Two directions are spanned; the others have the smaller one's scale.
    np.testing.assert_allclose(np.abs(directions[2:] @ filled.weights), np.abs(directions[2:]) * 2**0.5 / singular[1])


def test_what_cannot_be_sphered_is_told():
    controls = correlated(50, 6)
    sphering = fit_sphering(controls, "ZCA", 0.0, "raise")
    with pytest.raises(ValueError, match="fitted to 6 features, got 5"):
        sphering.transform(controls[:, :5])
    with pytest.raises(ValueError, match="at least 2 controls, got 1"):
        fit_sphering(controls[:1], "ZCA", 0.0, "fill")
    with pytest.raises(ValueError, match="epsilon must be at least 0, got -1"):
        fit_sphering(controls, "ZCA", -1.0, "raise")
    with pytest.raises(ValueError, match="one of PCA, ZCA, got 'zca'"):
        fit_sphering(controls, "zca", 0.0, "raise")  # pyright: ignore[reportArgumentType]
    controls[:, 2] = controls[:, 0] + controls[:, 1]
    with pytest.raises(ValueError, match="vary in 5 directions, 6 were expected"):
        fit_sphering(controls, "ZCA", 1e-3, "raise")
    with pytest.raises(ValueError, match="all alike"):
        fit_sphering(np.ones((9, 3)), "ZCA", 1e-3, "fill")
    controls[4, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite, the first in row 4, column 1"):
        fit_sphering(controls, "ZCA", 0.0, "raise")


@pytest.mark.parametrize("rotation", ["PCA", "ZCA"])
@pytest.mark.parametrize("rows", [50, 7, 4])
@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_weights_are_those_of_pycytominer(rotation, rows, epsilon):
    transform = pytest.importorskip("pycytominer.operations.transform")
    controls, others = correlated(rows, 6), correlated(9, 6, seed=1)
    theirs = transform.Spherize(epsilon=epsilon, center=True, method=rotation).fit(pd.DataFrame(controls))
    found = fit_sphering(controls, rotation, epsilon, "fill")
    np.testing.assert_allclose(found.transform(others), theirs.transform(pd.DataFrame(others)), atol=1e-8)


def test_standardized_zca_is_zca_cor_of_pycytominer():
    transform = pytest.importorskip("pycytominer.operations.transform")
    controls, others = correlated(50, 6) * np.arange(1, 7), correlated(9, 6, seed=1)
    theirs = transform.Spherize(epsilon=1e-6, method="ZCA-cor").fit(pd.DataFrame(controls))
    scaling = fit_scaling(controls, "standardize", "raise")
    found = fit_sphering(scaling.transform(controls), "ZCA", 1e-6, "raise").transform(scaling.transform(others))
    np.testing.assert_allclose(found, theirs.transform(pd.DataFrame(others)), atol=1e-8)


def test_directions_that_centering_of_plates_has_taken_are_filled():
    """12 controls of 3 plates, each centered on its own plate, span 9 of 10 directions at most."""
    controls = correlated(12, 10)
    for plate in range(3):
        controls[4 * plate : 4 * plate + 4] -= controls[4 * plate : 4 * plate + 4].mean(axis=0)
    with pytest.raises(ValueError, match="vary in 9 directions, 10 were expected"):
        fit_sphering(controls, "PCA", 0.0, "raise")
    filled = fit_sphering(controls, "PCA", 0.0, "fill")
    _, singular, directions = np.linalg.svd(controls)
    np.testing.assert_allclose(np.abs(directions @ filled.weights)[-1, -1], np.sqrt(11) / singular[8])
    np.testing.assert_allclose(np.cov(controls @ filled.weights, rowvar=False)[:9, :9], np.eye(9), atol=1e-9)

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from bie_jax.evaluation.profiles.tvn import fit_tvn
from tests.unit.evaluation.profiles.conftest import make_plates


def published(features, batches, controls):
    """The published steps, one after the other, with scikit-learn and scipy."""
    for _ in range(2):
        features = StandardScaler().fit(features[controls]).transform(features)
        axes = PCA().fit(features[controls]).components_
        features = features @ axes.T if _ == 0 else features
    for batch in np.unique(batches):
        inside = batches == batch
        covariance = np.cov(features[inside & controls], rowvar=False) + 0.5 * np.eye(features.shape[1])
        features[inside] = features[inside] @ fractional_matrix_power(covariance, -0.5)
    return features


def test_steps_are_the_published_ones(plates):
    features, metadata, controls = plates
    features = features * np.where(metadata["plate"] == "p1", 3, 1)[:, None] + 4
    found = fit_tvn(features[controls], 0.5).transform(features, metadata, ["plate"], controls)
    expected = published(features, metadata["plate"].to_numpy(), controls)
    # The sign of a principal axis is no one's to choose.
    sign = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * sign, expected, atol=1e-9)


def test_controls_of_every_batch_are_whitened_as_far_as_the_regularization_lets_them():
    """Closed form: variances v of a batch's controls become v / (v + regularization)."""
    features, metadata, controls = make_plates(controls=60)
    batches = metadata["plate"].to_numpy()
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    features[batches == "p1"] = features[batches == "p1"] @ np.diag([1, 2, 4, 8, 16]) @ turn
    for regularization in (1e-9, 0.5):
        fitted = fit_tvn(features[controls], regularization)
        components = fitted.after.transform(fitted.before.transform(features) @ fitted.axes)
        found = fitted.transform(features, metadata, ["plate"], controls)
        for batch in ("p0", "p1", "p2"):
            inside = (batches == batch) & controls
            before = np.linalg.eigvalsh(np.cov(components[inside], rowvar=False))
            after = np.linalg.eigvalsh(np.cov(found[inside], rowvar=False))
            np.testing.assert_allclose(after, np.sort(before / (before + regularization)), rtol=1e-6)


def test_a_later_batch_comes_into_the_axes_of_the_earlier_ones(plates):
    """By its own controls: the same numbers as if it had been there, and nothing of the others moves."""
    features, metadata, controls = plates
    fitted = fit_tvn(features[controls], 0.5)
    together = fitted.transform(features, metadata, ["plate"], controls)
    late = (metadata["plate"] == "p2").to_numpy()
    alone = fitted.transform(features[late], metadata[late], ["plate"], controls[late])
    np.testing.assert_allclose(alone, together[late], atol=1e-12)
    no_batches = fitted.transform(features, metadata, (), controls)
    assert np.abs(no_batches - together).max() > 0.1


def test_what_cannot_be_whitened_is_told(plates):
    features, metadata, controls = plates
    fitted = fit_tvn(features[controls], 0.5)
    one_on_p1 = controls.copy()
    one_on_p1[np.flatnonzero(controls & (metadata["plate"] == "p1").to_numpy())[1:]] = False
    with pytest.raises(ValueError, match="plate p1 has 1 controls, TVN needs at least 2"):
        fitted.transform(features, metadata, ["plate"], one_on_p1)
    with pytest.raises(ValueError, match="fitted to 5 features, got 4"):
        fitted.transform(features[:, :4], metadata, ["plate"], controls)
    with pytest.raises(ValueError, match="5 controls do not determine the axes of 5 features"):
        fit_tvn(features[controls][:5], 0.5)
    with pytest.raises(ValueError, match="must be above 0, got 0"):
        fit_tvn(features[controls], 0)
    twice = np.hstack([features, features[:, :1] - features[:, 1:2]])
    with pytest.raises(ValueError, match="6 features of the controls add up to each other"):
        fit_tvn(twice[controls], 0.5)
    features[:, 3] = 1.0
    with pytest.raises(ValueError, match=r"feature column 3 \(1 in all\) with a deviation of 0"):
        fit_tvn(features[controls], 0.5)

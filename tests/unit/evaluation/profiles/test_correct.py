"""Steps in a row are the functions in a row, and later plates go the same way."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from bie_jax.config.rules import check_config
from bie_jax.evaluation.profiles.correct import Correction, fit_correction
from bie_jax.evaluation.profiles.normalize import normalize
from bie_jax.evaluation.profiles.select import correlation_threshold
from bie_jax.evaluation.profiles.sphering import fit_sphering
from configs import vqvae_idr0093
from tests.unit.evaluation.profiles.conftest import make_plates


def settings(steps, **changes):
    config = vqvae_idr0093.get_config("tiny")
    config.eval.profile.update({"treatment": ("compound",), "steps": steps})
    for key, value in changes.items():
        config.eval.profile.update_from_flattened_dict({key.replace("__", "."): value})
    return check_config(config).eval.profile


def run(features, metadata, controls, profile):
    fitted = list(fit_correction(features, metadata, controls, profile))
    return Correction(tuple(step for step, _ in fitted)), [table for _, table in fitted]


def test_steps_are_made_in_the_order_of_the_configuration():
    features, metadata, controls = make_plates(controls=12)
    features = np.concatenate([features, features[:, :1] + 0.01], axis=1)  # the last says what the first says
    profile = settings(("normalize", "select", "sphere"))
    _, tables = run(features, metadata, controls, profile)
    first = normalize(features, metadata, ("plate",), controls, "standardize", "raise")
    second = first[:, correlation_threshold(first, 0.9)]
    third = fit_sphering(second[controls], "ZCA", 1e-6, "raise").transform(second)
    assert [table.shape[1] for table in tables] == [6, 5, 5]
    for found, expected in zip(tables, (first, second, third), strict=True):
        np.testing.assert_allclose(found, expected)
    _, (sphered, _) = run(features[:, :5], metadata, controls, settings(("sphere", "normalize")))
    np.testing.assert_allclose(np.cov(sphered[controls], rowvar=False), np.eye(5), atol=1e-5)


def test_which_feature_a_column_was_is_kept():
    features, metadata, controls = make_plates(controls=12)
    features = np.concatenate([features[:, :1] * 0 + 3, features], axis=1)  # a constant one first
    (selected, table), (mixed, _) = fit_correction(features, metadata, controls, settings(("select", "components")))
    assert selected.kept is not None
    np.testing.assert_array_equal(table, features[:, selected.kept])
    assert 0 not in selected.kept
    assert mixed.kept is None


def test_components_are_those_of_scikit_learn():
    features, metadata, controls = make_plates()
    _, (found,) = run(features, metadata, controls, settings(("components",), components=3))
    expected = PCA(3).fit_transform(features)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-10)
    _, (turned,) = run(-features, metadata, controls, settings(("components",), components=3))
    np.testing.assert_allclose(turned, -found, atol=1e-10)  # signs are of the axes, not of chance


@pytest.mark.parametrize("steps", [("normalize", "select", "sphere"), ("normalize", "tvn"), ("components", "sphere")])
def test_later_plates_come_into_the_space_of_the_first(steps):
    """A plate that comes again is where it was, and one of another scale and offset comes there too."""
    features, metadata, controls = make_plates(plates=3, controls=30)
    profile = settings(steps, components=4)
    correction, tables = run(features, metadata, controls, profile)
    again = (metadata["plate"] == "p1").to_numpy()
    later = metadata[again].reset_index(drop=True)
    found = correction.transform(features[again], later, controls[again])
    np.testing.assert_allclose(found, tables[-1][again], atol=1e-9)
    if steps[0] == "normalize":
        brighter = correction.transform(features[again] * 3 + 7, later.assign(plate="new"), controls[again])
        np.testing.assert_allclose(brighter, tables[-1][again], atol=1e-8)


def test_what_a_step_refuses_begins_with_its_name():
    features, metadata, controls = make_plates(controls=2)
    with pytest.raises(ValueError, match="step 'tvn': 6 controls"):
        run(np.tile(features, 2), metadata, controls, settings(("tvn",)))
    with pytest.raises(ValueError, match="step 'normalize': plate p2"):
        run(features, metadata, controls & (metadata["plate"] != "p2").to_numpy(), settings(("normalize",)))
    correction, _ = run(features, metadata, controls, settings(("normalize",)))
    with pytest.raises(ValueError, match="step 'normalize'"):
        correction.transform(features, metadata, np.zeros(len(metadata), dtype=bool))


def test_normalization_knows_robust_scales_and_other_rows():
    features, metadata, controls = make_plates()
    profile = settings(("normalize",), normalize__rows="all", normalize__method="mad_robustize", normalize__scope=())
    _, (found,) = run(features, metadata, controls, profile)
    middle = np.median(features, axis=0)
    np.testing.assert_allclose(found, (features - middle) / (1.4826 * np.median(np.abs(features - middle), axis=0)))


def test_outliers_and_what_hardly_varies_go():
    features, metadata, controls = make_plates(dim=4)
    features[:, 1] *= 1e-3
    features[0, 2] = 1e5
    profile = settings(("select",), select__min_variance=0.01, select__max_absolute=1e4)
    ((step, _),) = fit_correction(features, metadata, controls, profile)
    assert step.kept is not None
    np.testing.assert_array_equal(step.kept, [0, 3])

import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.profiles.normalize import fit_scaling, normalize


def loop(features, scopes, fitted, method):
    out = np.empty_like(features)
    for i in range(len(features)):
        for d in range(features.shape[1]):
            known = [features[j, d] for j in range(len(features)) if scopes[j] == scopes[i] and fitted[j]]
            if method == "standardize":
                center = sum(known) / len(known)
                scale = (sum((v - center) ** 2 for v in known) / len(known)) ** 0.5
            else:
                center = np.median(known)
                scale = 1.4826 * np.median([abs(v - center) for v in known])
            out[i, d] = (features[i, d] - center) / scale
    return out


@pytest.mark.parametrize("method", ["standardize", "mad_robustize"])
@pytest.mark.parametrize("scope", [(), ("plate",)])
@pytest.mark.parametrize("rows", ["all", "controls"])
def test_scope_and_rows_against_a_loop(plates, method, scope, rows):
    features, metadata, controls = plates
    fitted = controls if rows == "controls" else np.ones(len(features), bool)
    scopes = metadata["plate"].to_numpy() if scope else np.zeros(len(features))
    found = normalize(features, metadata, scope, fitted, method, "raise")
    np.testing.assert_allclose(found, loop(features, scopes, fitted, method), atol=1e-12)


@pytest.mark.parametrize("method", ["standardize", "mad_robustize"])
def test_a_missing_value_stays_and_moves_nothing(plates, method):
    features, metadata, _ = plates
    everything = np.ones(len(features), bool)
    holed = features.copy()
    holed[3, 1] = np.nan
    found = normalize(holed, metadata, (), everything, method, "raise")
    assert np.isnan(found[3, 1])
    assert np.isnan(found).sum() == 1
    known = np.arange(len(features)) != 3
    expected = normalize(features[known], metadata[known], (), everything[known], method, "raise")
    np.testing.assert_array_equal(found[known, 1], expected[:, 1])


@pytest.mark.parametrize("method", ["standardize", "mad_robustize"])
def test_a_constant_feature_is_what_was_asked_for(plates, method):
    features, metadata, controls = plates
    # Equal up to the last bit, among the controls alone.
    features[controls, 2] = np.where(np.arange(controls.sum()) % 2 == 0, 0.3, 0.1 + 0.2)
    with pytest.raises(ValueError, match=r"all rows: feature column 2 \(1 in all\) with a deviation of 0 in 18 rows"):
        normalize(features, metadata, (), controls, method, "raise")
    assert (normalize(features, metadata, (), controls, method, "zero")[:, 2] == 0).all()
    centered = normalize(features, metadata, (), controls, method, "center")
    np.testing.assert_allclose(centered[:, 2], features[:, 2] - 0.3, atol=1e-12)
    np.testing.assert_array_equal(centered[:, 1], normalize(features, metadata, (), controls, method, "zero")[:, 1])


def test_what_cannot_be_normalized_is_told(plates):
    features, metadata, controls = plates
    none_on_p1 = controls & (metadata["plate"] != "p1").to_numpy()
    with pytest.raises(ValueError, match="plate p1 has no row to take center and scale of"):
        normalize(features, metadata, ["plate"], none_on_p1, "standardize", "raise")
    with pytest.raises(ValueError, match=r"fitted must be \[42\] bool"):
        normalize(features, metadata, (), np.arange(42), "standardize", "raise")
    features[:, [0, 4]] = np.nan
    with pytest.raises(ValueError, match=r"feature columns 0, 4 \(2 in all\) without a known value in 42 rows"):
        fit_scaling(features, "standardize", "raise")


@pytest.mark.parametrize("method", ["standardize", "mad_robustize"])
@pytest.mark.parametrize("rows", ["all", "controls"])
def test_numbers_are_those_of_pycytominer(plates, method, rows):
    pycytominer = pytest.importorskip("pycytominer")
    features, metadata, controls = plates
    features[5, 3] = np.nan
    names = [f"f{d}" for d in range(features.shape[1])]
    table = pd.concat([metadata, pd.DataFrame(features, columns=pd.Index(names))], axis=1)
    theirs = pycytominer.normalize(
        table,
        features=names,
        meta_features=list(metadata),
        samples="all" if rows == "all" else "compound == 'dmso'",
        method=method,
    )
    fitted = controls if rows == "controls" else np.ones(len(features), bool)
    np.testing.assert_allclose(normalize(features, metadata, (), fitted, method, "raise"), theirs[names], atol=1e-12)

import numpy as np

from bie_jax.evaluation.baselines.image_features import classical_features
from tests.unit.evaluation.conftest import CHANNELS


def test_classical_features_do_not_depend_on_the_batches(image_set, monkeypatch):
    shown = np.array([0, 7, 70])
    arguments = (image_set, CHANNELS, 0.5, image_set.statistics["overall"], shown, True)
    whole = classical_features(*arguments)
    monkeypatch.setattr("bie_jax.evaluation.baselines.image_features.BATCH", 10)
    parts = classical_features(*arguments)
    np.testing.assert_allclose(whole.intensity, parts.intensity)
    np.testing.assert_allclose(whole.texture_and_regions, parts.texture_and_regions)
    np.testing.assert_allclose(whole.pixels, parts.pixels)
    assert len(whole.tiles) == len(parts.tiles) == 3
    for one, other in zip(whole.tiles, parts.tiles):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_what_is_not_asked_for_is_not_computed(image_set, monkeypatch):
    for name in ("texture_features", "region_features"):
        monkeypatch.delattr(f"bie_jax.evaluation.baselines.image_features.{name}")
    found = classical_features(image_set, CHANNELS, 0.5, image_set.statistics["overall"], np.arange(2), False)
    assert found.texture_and_regions is None
    assert len(found.intensity) == len(found.pixels) == len(image_set)

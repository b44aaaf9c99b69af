import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.layers.noted import note_layer, statistics
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.models.readouts import look, pooled
from bie_jax.objectives import build_model
from bie_jax.training.state import initial_variables
from configs import ae_idr0093, mae_idr0093, shape_vae_mnist, simclr_idr0093

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


def test_statistics_against_numpy():
    features = RNG.normal(size=(3, 4, 5, 2)).astype(np.float32) + 100
    rows = features.reshape(3, 20, 2)
    expected = np.concatenate([rows.mean(axis=1), rows.max(axis=1), rows.std(axis=1)], axis=1)
    np.testing.assert_allclose(statistics(jnp.asarray(features)), expected, rtol=1e-4)
    assert set(pooled(jnp.asarray(features), train=True)) == {"features"}
    np.testing.assert_allclose(pooled(jnp.asarray(features), train=False)["features"], rows.mean(axis=1), rtol=1e-5)


def test_statistics_of_the_positions_that_count():
    features = RNG.normal(size=(3, 6, 2)).astype(np.float32)
    present = np.asarray([[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], bool)
    holed = np.where(present[..., None], features, np.inf)
    found = np.asarray(statistics(jnp.asarray(holed), jnp.asarray(present)))
    kept = features[0][present[0]]
    np.testing.assert_allclose(found[0], np.concatenate([kept.mean(0), kept.max(0), kept.std(0)]), rtol=1e-5)
    np.testing.assert_array_equal(found[1], 0)


class _Layers(nn.Module):
    """Twice the image, then its square, then eight blocks that add 1 each, scanned."""

    @nn.compact
    def encode(self, image, channel_mask, *, train):
        note_layer(self, "a", 2 * image)
        note_layer(self, "b", image**2)

        class Block(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                note_layer(self, "c", x + 1)
                return x + 1, None

        scan = nn.scan(Block, variable_axes={"intermediates": 0}, length=8)
        x, _ = scan(name="blocks")(image, None)
        return x, {}


def test_layers_stand_side_by_side_and_of_a_stack_each_quarter():
    image = jnp.asarray(RNG.normal(size=(2, 4, 4, 3)), jnp.float32)
    (x, _), layers = look(_Layers(), {}, image, jnp.ones((2, 3), bool), "encode", True)
    np.testing.assert_allclose(x, image + 8, rtol=1e-6)
    maps = [2 * image, image**2, *(image + count for count in (2, 4, 6, 8))]
    np.testing.assert_allclose(layers, np.concatenate([statistics(part) for part in maps], axis=1), rtol=1e-5)
    assert look(_Layers(), {}, image, jnp.ones((2, 3), bool), "encode", False)[1].shape == (2, 0)


IMAGE = (2, 16, 16, 3)
NETWORKS = {
    # 3 numbers of each of the channels of every layer
    "stack": (ae_idr0093, {}, 3 * (4 + 8 + 8), IMAGE),
    "independent": (ae_idr0093, {"model.channels": "independent"}, 3 * (4 + 8 + 8), IMAGE),
    "resnet": (simclr_idr0093, {"model.resnet.width": 4}, 3 * (4 + 8 + 16 + 32), IMAGE),
    "mae": (mae_idr0093, {"model.vit.decoder_heads": 2}, 3 * 4 * 16, IMAGE),
    "tokens": (mae_idr0093, {"model.channels": "tokens", "model.vit.decoder_heads": 2}, 3 * 4 * 16, IMAGE),
    "ring": (shape_vae_mnist, {"model.ring.width": 4, "model.ring.depth": 3}, 3 * 4 * 3, (2, 16, 16, 1)),
}


def _network(name, monkeypatch):
    monkeypatch.setitem(SIZES, "Ti", ViTSize(16, 8, 2, 24))
    module, changes, width, shape = NETWORKS[name]
    config = module.get_config("tiny")
    config.update_from_flattened_dict({"data.crop_size": shape[1:3], **changes})
    if name in ("stack", "independent"):
        config.model.encoder = "residual_stack"
    model = build_model(check_config(ConfigDict(config.to_dict())), shape[-1])
    blank = jnp.zeros(shape)
    shapes = jax.eval_shape(lambda: initial_variables(model, blank, jax.random.key(0)))
    variables = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32) ** 2 / 4, shapes)
    return model, variables, width, shape


@pytest.mark.parametrize("name", NETWORKS)
def test_every_encoder_notes_its_layers(name, monkeypatch):
    model, variables, width, shape = _network(name, monkeypatch)
    image = RNG.normal(size=shape).astype(np.float32)
    if name == "ring":
        points = RNG.normal(size=(2, 16, 2))
        image = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)[..., None].astype(np.float32)
    mask = jnp.ones((2, shape[-1]), bool)
    (_, out), layers = jax.jit(lambda image: look(model, variables, image, mask, "encode", True))(image)
    assert layers.shape == (2, width)
    assert np.isfinite(layers).all()
    assert np.ptp(layers, axis=0).max() > 0
    expected = np.asarray(out["statistics"])
    assert expected.shape[1] == 3 * out["features"].shape[1]
    np.testing.assert_allclose(expected[:, : out["features"].shape[1]], out["features"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["independent", "tokens"])
def test_a_channel_that_is_not_there_changes_nothing(name, monkeypatch):
    model, variables, _, shape = _network(name, monkeypatch)
    mask = jnp.asarray([[True, True, False]] * 2)
    image = RNG.normal(size=shape).astype(np.float32)
    read = jax.jit(lambda image: look(model, variables, image, mask, "encode", True)[1])
    np.testing.assert_allclose(read(image), read(image + np.float32([0, 0, 5])), rtol=1e-5)

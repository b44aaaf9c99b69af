import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.models.autoencoder import contract, contract_image, expand, join_channels
from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.objectives import build_model
from bie_jax.training.state import initial_variables
from configs import base

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """The smallest ViT is one of two narrow blocks; the size H is the published one."""
    monkeypatch.setitem(SIZES, "Ti", ViTSize(16, 2, 2, 24))


def _config(crop_size=(32, 32), **model):
    """A small network; "a.b" names a key within a group."""
    config = base.get_config("tiny", "base")
    config.data.crop_size = crop_size
    config.data.augment.rotate90 = crop_size[0] == crop_size[1]
    config.model.residual_stack.num_residual_layers = 1
    config.model.resnet.update(depth=10, width=4)
    config.model.quantizer.kmeans_iterations = 0
    config.model.vit.update(size="Ti", patch_size=16, decoder_width=16, decoder_depth=1, decoder_heads=2)
    for key, value in model.items():
        *groups, last = key.split(".")
        target = config.model
        for group in groups:
            target = target[group]
        target[last] = value
    return check_config(ConfigDict(config.to_dict()))


def _codes(bottleneck, groups, code_dim, num_codes=8):
    return {
        "bottleneck": bottleneck,
        "quantizer.num_groups": groups,
        "quantizer.code_dim": code_dim,
        "quantizer.num_codes": num_codes,
        "latent_dim": groups * (num_codes if bottleneck == "grid" else code_dim),
    }


# More sizes, of each bottleneck alone: `test_bottleneck.py`.
LATENTS = {
    **{f"ae {d}": {"name": "ae", "latent_dim": d} for d in (1, 2048)},
    "vae 128": {"name": "vae", "latent_dim": 128},
    "vae broadcast": {"name": "vae", "latent_dim": 3, "spread": "broadcast"},
    "grid": {"name": "vqvae", **_codes("grid", 1, 5)},
    "grid of 2": {"name": "vqvae", **_codes("grid", 2, 3)},
    "pooled 16": {"name": "vqvae", **_codes("pooled", 4, 4)},
    "pooled 2048": {"name": "vqvae", **_codes("pooled", 512, 4)},
    "gradient": {"name": "vqvae", "quantizer.name": "gradient", **_codes("pooled", 4, 4)},
    "residual": {
        "name": "vqvae",
        "quantizer.name": "residual",
        "quantizer.num_residuals": 3,
        **_codes("grid", 1, 5) | {"latent_dim": 24},
    },
    "fsq": {
        "name": "vqvae",
        "quantizer.name": "fsq",
        "quantizer.levels": (4, 3),
        **_codes("grid", 1, 2, 12),
    },
}
VIEWS = {
    "residual stack": ({"encoder": "residual_stack"}, "grid", (1, 32, 96, 7)),
    "resnet": ({"encoder": "resnet"}, "vae 128", (2, 64, 32, 5)),
    "vit": ({"encoder": "vit"}, "grid", (3, 32, 32, 1)),
    "channel tokens": ({"encoder": "vit", "channels": "tokens"}, "pooled 16", (1, 32, 96, 7)),
    "independent": ({"channels": "independent"}, "vae 128", (2, 64, 32, 5)),
    "independent codes": ({"channels": "independent"}, "grid", (3, 32, 32, 1)),
}

CODEBOOKS = {
    "ema": lambda quantizer: quantizer.num_groups,
    "gradient": lambda quantizer: quantizer.num_groups,
    "residual": lambda quantizer: quantizer.num_residuals,
    "fsq": lambda quantizer: 1,
}


@pytest.mark.parametrize("latent", LATENTS)
def test_any_latent_size(latent):
    """Exactly d numbers per image, and a reconstruction of the image's shape; shapes only, nothing is computed."""
    config = _config((64, 32), **LATENTS[latent])
    _check_shapes(config, (2, 64, 32, 5), config.model.latent_dim)


@pytest.mark.parametrize("case", VIEWS)
def test_any_encoder_any_channels_any_shape(case):
    encoder, latent, shape = VIEWS[case]
    config = _config(shape[1:3], **LATENTS[latent], **encoder)
    _check_shapes(config, shape, config.model.latent_dim)


@pytest.mark.parametrize(
    ("channels", "latent_dim", "shape"),
    [
        ("joint", 1, (3, 32, 32, 1)),
        ("joint", 16, (2, 64, 32, 5)),  # as wide as the encoder
        ("tokens", 1, (3, 32, 32, 1)),
        ("tokens", 2048, (2, 64, 32, 5)),
    ],
)
def test_any_latent_size_of_a_masked_autoencoder(channels, latent_dim, shape):
    config = _config(shape[1:3], name="mae", encoder="vit", channels=channels, latent_dim=latent_dim)
    _check_shapes(config, shape, latent_dim)


def test_the_largest_transformer():
    config = _config((28, 56), name="mae", encoder="vit", **{"vit.size": "H", "vit.patch_size": 14})
    _check_shapes(config, (2, 28, 56, 3), config.model.latent_dim)


def test_the_deepest_resnet():
    """Its 36 blocks of the third stage in both halves: the first, and 35 alike."""
    model = build_model(_config(name="ae", encoder="resnet", **{"resnet.depth": 152}), 3)
    shapes = jax.eval_shape(lambda: initial_variables(model, jnp.zeros((2, 32, 32, 3)), jax.random.key(0)))
    for half in ("encoder", "decoder"):
        assert shapes["params"][half]["stage3"]["layers"]["conv2"]["kernel"].shape == (35, 3, 3, 16, 16)


def test_channels_side_by_side():
    config = _config(name="ae", channels="independent", channel_readout="concat", latent_dim=15)
    _check_shapes(config, (2, 32, 32, 5), 15)
    config = _config(name="mae", encoder="vit", channels="tokens", channel_readout="concat", latent_dim=15)
    _check_shapes(config, (2, 32, 32, 5), 15)


def _check_shapes(config, shape, latent_dim):
    model = build_model(config, shape[-1])

    def run(key, image):
        variables = initial_variables(model, image, key)
        mask = jnp.ones((shape[0], shape[-1]), bool)
        rngs = {"noise": key}
        (reconstruction, out), _ = model.apply(
            variables, image, mask, train=True, rngs=rngs, mutable=[n for n in variables if n != "params"]
        )
        evaluated = model.apply(variables, image, mask, train=False, method="encode")[1]
        return reconstruction, out, evaluated

    reconstruction, out, evaluated = jax.eval_shape(run, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert reconstruction.shape == shape
    for result in (out, evaluated):
        assert result["embedding"].shape == (shape[0], latent_dim)
        assert result["features"].ndim == 2
        if config.model.channels != "joint":
            assert result["channel_embeddings"].shape[:2] == (shape[0], shape[-1])
    if config.model.name == "vqvae":
        codebooks, num_codes = out["code_counts"].shape
        assert num_codes == config.model.quantizer.num_codes
        assert out["codes"].shape[-1] == codebooks == CODEBOOKS[config.model.quantizer.name](config.model.quantizer)
        assert out["commitment"].shape == shape[:1]


def _network(config, image):
    """Weights as large as initial ones are, and none is 0; whatever else is learned is positive."""
    model = build_model(config, image.shape[-1])
    shapes = jax.eval_shape(lambda image: initial_variables(model, image, jax.random.key(1)), image)
    rng = np.random.default_rng(1)

    def filled(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        if path[0].key != "params" and path[-1].key != "codebook":
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if path[-1].key == "kernel" else 100
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return model, jax.tree.map_with_path(filled, shapes)


def _reconstruct(model, variables, image):
    return np.asarray(jax.jit(lambda image: model.apply(variables, image, train=False)[0])(image))


@pytest.mark.parametrize("bottleneck", ["grid", "pooled"])
def test_more_embeddings_than_codes(bottleneck):
    """One code per image would allow K embeddings only (PEERS B1.4)."""
    brightness = 5 * RNG.normal(size=(64, 1, 1, 2))
    image = (brightness + RNG.normal(size=(64, 16, 16, 2))).astype(np.float32)
    model, variables = _network(_config((16, 16), name="vqvae", **_codes(bottleneck, 4, 4, 4)), image)
    reconstruction = _reconstruct(model, variables, image)
    assert len(np.unique(reconstruction.reshape(64, -1).round(5), axis=0)) > 4


@pytest.mark.parametrize("spread", ["dense", "broadcast"])
def test_a_latent_vector_reaches_the_middle_of_the_image(spread):
    """A latent broadcast over positions gives a constant interior (PEERS B1.8); ours must not."""
    image = RNG.normal(size=(1, 64, 64, 1)).astype(np.float32)
    model, variables = _network(_config((64, 64), name="ae", spread=spread), image)
    assert _reconstruct(model, variables, image)[0, 28:36, 28:36, 0].std() > 1e-4


def test_expand_and_contract_are_inverse():
    image = jnp.asarray(RNG.normal(size=(2, 3, 4, 5)))
    expanded = expand(image)
    assert expanded.shape == (10, 3, 4, 1)
    np.testing.assert_array_equal(expanded[5 * 1 + 3, ..., 0], image[1, ..., 3])  # b-major
    np.testing.assert_array_equal(contract_image(expanded, 5), image)
    np.testing.assert_array_equal(contract(expanded, 5)[1, 3, ..., 0], image[1, ..., 3])


def test_joining_channels_against_loops():
    values = RNG.normal(size=(2, 3, 4))
    present = np.asarray([[1, 0, 1], [0, 0, 1]], bool)
    values[0, 1] = np.inf  # what a network makes of a channel that is not there
    mean = [np.mean([values[b, c] for c in range(3) if present[b, c]], axis=0) for b in range(2)]
    np.testing.assert_allclose(join_channels(jnp.asarray(values), jnp.asarray(present), "mean"), mean, rtol=1e-6)
    concat = np.where(present[..., None], values, 0).reshape(2, 12)
    joined = join_channels(jnp.asarray(values), jnp.asarray(present), "concat")
    np.testing.assert_allclose(joined, concat, rtol=1e-6)
    nothing = join_channels(jnp.asarray(values), jnp.zeros((2, 3), bool), "mean")
    np.testing.assert_array_equal(nothing, 0)


def test_one_network_sees_each_channel_alone():
    """The embedding is the mean of what the same weights make of each channel."""
    image = jnp.asarray(RNG.normal(size=(2, 16, 16, 3)), jnp.float32)
    model, variables = _network(_config((16, 16), name="ae", channels="independent"), image)
    encode = jax.jit(lambda image: model.apply(variables, image, train=False, method="encode")[1])
    out, alone = encode(image), [encode(image[..., c : c + 1])["embedding"] for c in range(3)]
    np.testing.assert_allclose(out["channel_embeddings"], np.stack(alone, axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["embedding"], np.mean(alone, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "vqvae", "channels": "independent", **_codes("pooled", 2, 4)},
        {"name": "vae", "channels": "tokens", "encoder": "vit", "channel_dropout": 0.5},
        {"name": "mae", "channels": "tokens", "encoder": "vit"},
    ],
    ids=lambda model: f"{model['name']} {model['channels']}",
)
def test_what_is_not_there_changes_nothing(model):
    """Neither the outputs of the other channels, nor what the network learns."""
    config = _config((16, 16), **{"vit.patch_size": 8}, **model)
    image = jnp.asarray(RNG.normal(size=(4, 16, 16, 3)), jnp.float32)
    present = jnp.asarray([[1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0]], bool)
    network, variables = _network(config, image)

    @jax.jit
    def run(image):
        mutable = [name for name in variables if name != "params"]
        (reconstruction, out), state = network.apply(
            variables, image, present, train=True, rngs={"noise": jax.random.key(0)}, mutable=mutable
        )
        reconstruction = jnp.where(present[:, None, None, :], reconstruction, 0)
        return (reconstruction, out["embedding"], state, out["channels_kept"]), out["channel_embeddings"]

    disturbed = jnp.where(present[:, None, None, :], image, 1e3)
    outputs, embeddings = run(image)
    jax.tree.map(np.testing.assert_array_equal, outputs, run(disturbed)[0])
    kept = outputs[-1]
    if model["channels"] == "tokens":
        np.testing.assert_array_equal(kept, (embeddings != 0).any(axis=2))
        assert (kept & ~present).sum() == 0 < (present & ~kept).sum()  # some are left out
    else:
        np.testing.assert_array_equal(kept, present)

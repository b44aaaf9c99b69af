import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models import build_model
from bie_jax.models.residual_stack import ResidualStackEncoder
from bie_jax.models.resnet import ResNetEncoder
from configs import vqvae_idr0093


def _config(encoder, bottleneck, latent_dim, code_dim):
    config = vqvae_idr0093.get_config("tiny").model
    config.encoder, config.bottleneck = encoder, bottleneck
    config.latent_dim, config.quantizer.code_dim = latent_dim, code_dim
    return config


@pytest.mark.parametrize("encoder", ["residual_stack", "resnet"])
@pytest.mark.parametrize(
    ("bottleneck", "latent_dim", "code_dim"),
    [
        ("grid", 3, 5),
        ("grid", 128, 16),
        ("grouped", 1, 1),
        ("grouped", 3, 1),
        ("grouped", 16, 4),
        ("grouped", 2048, 512),
    ],
)
def test_any_latent_size_and_channel_count(encoder, bottleneck, latent_dim, code_dim):
    """Exactly d numbers per image, and a reconstruction of the image's shape, square or not."""
    for shape in ((2, 64, 32, 5), (3, 32, 32, 1)):
        model = build_model(_config(encoder, bottleneck, latent_dim, code_dim), shape[-1])
        image = jnp.zeros(shape)
        variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)  # noqa: B023
        recon, out = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, image)  # noqa: B023
        assert recon.shape == shape
        assert out["embedding"].shape == (shape[0], latent_dim)
        groups = latent_dim // code_dim if bottleneck == "grouped" else 1
        assert out["code_counts"].shape == (groups, latent_dim)  # num_codes follows latent_dim
        assert (latent_dim // code_dim, latent_dim) if bottleneck == "grouped" else (1, latent_dim)
        assert out["commitment"].shape == (shape[0],)


@pytest.mark.parametrize("bottleneck", ["grid", "grouped"])
def test_more_embeddings_than_codes(bottleneck):
    """One code per image would allow K embeddings only (PEERS B1.4)."""
    model = build_model(_config("residual_stack", bottleneck, 16, 4), 2)
    brightness = 5 * jax.random.normal(jax.random.key(2), (64, 1, 1, 2))
    image = brightness + jax.random.normal(jax.random.key(0), (64, 16, 16, 2))
    variables = model.init(jax.random.key(1), image, train=False)
    recon, _ = model.apply(variables, image, train=False)
    assert len(np.unique(np.asarray(recon).reshape(64, -1).round(5), axis=0)) > 16


def test_grouped_latent_reaches_the_middle_of_the_image():
    """A latent broadcast over positions gives a constant interior (PEERS B1.8); ours must not."""
    model = build_model(_config("residual_stack", "grouped", 16, 4), 1)
    image = jax.random.normal(jax.random.key(0), (1, 96, 96, 1))
    variables = model.init(jax.random.key(1), image, train=False)
    recon, _ = model.apply(variables, image, train=False)
    assert np.asarray(recon)[0, 40:56, 40:56, 0].std() > 1e-3


@pytest.mark.parametrize("layers", [2, 150])
def test_signal_neither_explodes_nor_dies_with_depth(layers):
    image = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    encoder = ResidualStackEncoder(16, 32, num_residual_layers=layers, num_halvings=2)
    variables = encoder.init(jax.random.key(1), image, train=False)
    assert 0.05 < encoder.apply(variables, image, train=False).std() < 5


def test_depth_is_one_scanned_layer():
    """Parameters carry the depth as an axis, and the program does not grow with it."""
    image = jnp.zeros((1, 16, 16, 3))
    sizes = {}
    for layers in (2, 150):
        encoder = ResidualStackEncoder(
            num_hiddens=8, num_residual_hiddens=8, num_residual_layers=layers, num_halvings=2
        )
        variables = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), image)  # noqa: B023
        kernel = variables["params"]["ResidualStack_0"]["layers"]["Conv_0"]["kernel"]
        assert kernel.shape == (layers, 3, 3, 8, 8)
        lowered = jax.jit(lambda v, x: encoder.apply(v, x, train=False)).lower(variables, image)  # noqa: B023
        sizes[layers] = len(lowered.as_text())
    assert sizes[150] < 1.1 * sizes[2]


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_176_512), (34, 21_284_672)])
def test_resnet_has_the_published_number_of_parameters(depth, parameters):
    """torchvision's resnet18 and resnet34 without the classifier (11,689,512 - 513,000 and 21,797,672 - 513,000)."""
    shapes = jax.eval_shape(
        lambda x: ResNetEncoder(depth).init(jax.random.key(0), x, train=False), jnp.zeros((1, 64, 64, 3))
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == parameters


def test_resnet_strides():
    shape = jax.eval_shape(
        lambda x: ResNetEncoder(18).init_with_output(jax.random.key(0), x, train=False)[0],
        jnp.zeros((2, 224, 96, 7)),
    ).shape
    assert shape == (2, 7, 3, 512)

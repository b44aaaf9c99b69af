import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.autoencoder import Autoencoder
from bie_jax.models.bottlenecks.projected import ProjectedBottleneck
from bie_jax.models.encoders.residual_stack import ResidualStackEncoder
from bie_jax.models.head import ProjectionHead, WithHead

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


def _gelu(x):
    return np.asarray(jax.nn.gelu(x, approximate=False))


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("num_prototypes", [0, 7])
def test_dense_layers_then_cosines_with_prototypes(depth, num_prototypes):
    head, x = ProjectionHead(6, depth, 5, num_prototypes), RNG.normal(size=(4, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), x))
    variables = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), shapes)
    params, expected = variables["params"], x
    for number in range(1, depth):
        layer = params[f"hidden{number}"]
        expected = _gelu(expected @ layer["kernel"] + layer["bias"])
    expected = expected @ params["output"]["kernel"] + params["output"]["bias"]
    assert set(params) == {*(f"hidden{n}" for n in range(1, depth)), "output"} | (
        {"prototypes"} if num_prototypes else set()
    )
    if num_prototypes:
        rows = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        expected = rows @ (params["prototypes"] / np.linalg.norm(params["prototypes"], axis=0, keepdims=True))
        assert shapes["center"]["logits"].shape == (num_prototypes,)
    np.testing.assert_allclose(head.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_a_vector_of_zeros_has_a_finite_gradient():
    head = ProjectionHead(6, 1, 5, 7)
    variables = head.init(jax.random.key(0), jnp.ones((1, 3)))
    gradient = jax.grad(lambda x: head.apply(variables, x).sum())(jnp.zeros((1, 3)))
    assert np.isfinite(gradient).all()


def test_a_head_leaves_the_names_of_the_network_as_they_are():
    """So that a run can start from one of another method; and `encode` is the network's own."""
    network = Autoencoder(ResidualStackEncoder(4, 4, 1, 2), ProjectedBottleneck(3), None)
    image = jnp.asarray(RNG.normal(size=(2, 8, 8, 1)), jnp.float32)
    alone = network.init(jax.random.key(0), image, train=True)
    both = WithHead(network, ProjectionHead(6, 2, 5, 0))
    variables = both.init(jax.random.key(1), image, train=True)
    without_head = {name: part for name, part in variables["params"].items() if name != "head"}
    assert jax.tree.map(jnp.shape, without_head) == jax.tree.map(jnp.shape, alone["params"])
    _, ours = both.apply(variables, image, train=False, method="encode")
    _, theirs = network.apply({"params": without_head}, image, train=False, method="encode")
    np.testing.assert_array_equal(ours["embedding"], theirs["embedding"])
    assert "projection" not in ours
    drawn, out = both.apply(variables, image, train=False)
    assert drawn is None
    assert out["projection"].shape == (2, 5)

import itertools

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from bie_jax.models.encoders.resnet import ResNetEncoder
from bie_jax.models.encoders.vit import SIZES, ViTEncoder
from bie_jax.models.layers.conv import Conv
from bie_jax.training.flops import count_flops

pytestmark = pytest.mark.slow


def _shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_matrix_products():
    assert count_flops(lambda a, b: a @ b, _shape(5, 7), _shape(7, 3)) == 2 * 5 * 7 * 3
    assert count_flops(lambda a, b: jnp.einsum("bnhd,bmhd->bhnm", a, b), _shape(2, 4, 3, 5), _shape(2, 6, 3, 5)) == (
        2 * (2 * 3) * 4 * 6 * 5
    )
    assert count_flops(lambda a, b: jnp.tensordot(a, b), _shape(5, 7, 2), _shape(7, 2, 3)) == 2 * 5 * 7 * 2 * 3
    assert count_flops(lambda a: jnp.tanh(a) + a.sum(), _shape(5, 7)) == 0


def _multiplications(image, kernel, out_shape, **options):
    """Count one by one; kernel [kh, kw, C_in / groups, C_out]. A tap into a hole of a dilated image is none."""
    strides, padding = options["window_strides"], options["padding"]
    lhs_dilation, rhs_dilation = options["lhs_dilation"], options["rhs_dilation"]
    count = 0
    for i, j, di, dj in itertools.product(*map(range, (*out_shape[1:3], *kernel.shape[:2]))):
        row = i * strides[0] + di * rhs_dilation[0] - padding[0][0]
        column = j * strides[1] + dj * rhs_dilation[1] - padding[1][0]
        count += row % lhs_dilation[0] == 0 and column % lhs_dilation[1] == 0
    channels_per_group = image.shape[3] // options["feature_group_count"]
    return count * image.shape[0] * channels_per_group * kernel.shape[3]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window_strides": (2, 3)},
        {"rhs_dilation": (1, 2)},
        {"lhs_dilation": (2, 3)},
        {"lhs_dilation": (2, 3), "window_strides": (2, 1)},
        {"lhs_dilation": (2, 3), "rhs_dilation": (2, 1)},
        {"feature_group_count": 3},
    ],
)
def test_convolutions_against_a_count_one_by_one(changes):
    options = {
        "window_strides": (1, 1),
        "padding": ((1, 1), (0, 2)),
        "lhs_dilation": (1, 1),
        "rhs_dilation": (1, 1),
        "feature_group_count": 1,
    } | changes
    image, kernel = _shape(2, 8, 9, 6), _shape(3, 2, 6 // options["feature_group_count"], 9)

    def convolve(image, kernel):
        return lax.conv_general_dilated(image, kernel, **options, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    out = jax.eval_shape(convolve, image, kernel)
    assert count_flops(convolve, image, kernel) == 2 * _multiplications(image, kernel, out.shape, **options)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("strides", [1, 2])
def test_gradients_of_a_convolution_cost_as_much_as_itself(groups, strides):
    """Each product of the forward pass is one product in either gradient; they are dilated, transposed, grouped."""
    image, kernel = _shape(2, 16, 16, 4), _shape(4, 4, 4 // groups, 8)

    def loss(image, kernel):
        y = lax.conv_general_dilated(
            image,
            kernel,
            (strides, strides),
            ((1, 2), (1, 2)) if strides == 1 else ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return (y**2).sum()

    forward = count_flops(loss, image, kernel)
    assert forward == 2 * 2 * (16 // strides) ** 2 * 16 * (4 // groups) * 8
    assert count_flops(jax.grad(loss, argnums=0), image, kernel) == 2 * forward
    assert count_flops(jax.grad(loss, argnums=1), image, kernel) == 2 * forward


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize(("kernel_size", "strides"), [(1, 1), (3, 1), (3, 2), (4, 2)])
def test_every_form_of_our_convolution_counts_alike(size, kernel_size, strides, monkeypatch):
    """On the CPU it is a matrix product on small maps, and has gradients of its own; elsewhere it is the library's."""
    pad = ((kernel_size - 1) // 2, (kernel_size - 1) // 2)
    conv = Conv(5, (kernel_size, kernel_size), strides, (pad, pad))
    image = _shape(2, size, size, 3)
    params = jax.eval_shape(conv.init, jax.random.key(0), image)

    def loss(params, image):
        return (conv.apply(params, image) ** 2).sum()

    counts = {}
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        counts[backend] = [
            count_flops(function, params, image)
            for function in (loss, jax.grad(loss, argnums=0), jax.grad(loss, argnums=(0, 1)))
        ]
    out = jax.eval_shape(conv.apply, params, image)
    forward = 2 * out.size * kernel_size**2 * 3
    assert counts == {"cpu": [forward, 2 * forward, 3 * forward], "gpu": [forward, 2 * forward, 3 * forward]}


def _square(x):
    return x @ x


@jax.custom_vjp
def _square_with_its_own_gradient(x):
    return x @ x


_square_with_its_own_gradient.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))


@jax.custom_jvp
def _square_with_its_own_tangent(x):
    return x @ x


_square_with_its_own_tangent.defjvp(lambda x, t: (x[0] @ x[0], x[0] @ t[0] + t[0] @ x[0]))


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (jax.jit(_square), 1),
        (jax.checkpoint(_square), 1),
        (_square_with_its_own_gradient, 1),
        (jax.grad(lambda x: _square_with_its_own_gradient(x).sum()), 2),
        (jax.value_and_grad(lambda x: _square_with_its_own_gradient(x).sum()), 3),
        (_square_with_its_own_tangent, 1),
        (lambda x: lax.scan(lambda c, _: (c @ c, None), x, length=7)[0], 7),
        (lambda x: lax.scan(lambda c, _: (c @ c, None), x, length=7, unroll=7)[0], 7),
        (lambda x: lax.scan(lambda c, _: (lax.map(_square, jnp.stack([c] * 3))[0], None), x, length=5)[0], 15),
        (lambda x: lax.fori_loop(0, 4, lambda _, c: c @ c, x), 4),
        (lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, _square, x), 2),
        (lambda x: lax.cond(x[0, 0] > 0, _square, lambda x: x @ x @ x, x), 2),
        # Forward, forward again, and two products backward.
        (jax.grad(lambda x: jnp.tanh(jax.checkpoint(lambda x: jnp.sin(x @ x))(x)).sum()), 4),
        (lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x) @ x, 1),
    ],
)
def test_programs_inside_programs(function, products):
    assert count_flops(function, _shape(3, 3)) == products * 2 * 27


def test_what_no_result_depends_on_is_not_counted():
    def two(x):
        return x @ x, jnp.sin(x @ x) @ x

    assert count_flops(lambda x: jax.jit(two)(x)[0], _shape(3, 3)) == 2 * 27
    # The carry needs one product, the other is collected and thrown away.
    assert count_flops(lambda x: lax.scan(lambda c, _: two(c), x, length=5)[0], _shape(3, 3)) == 5 * 2 * 27


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="while: how many operations it takes is not known"):
        count_flops(lambda x: lax.while_loop(lambda c: c.sum() < 9, _square, x), _shape(3, 3))


def test_a_kernel_that_jax_does_not_see_into_is_refused():
    rows, expert = _shape(6, 4), _shape(2, 4, 5)
    with pytest.raises(ValueError, match="ragged_dot"):
        count_flops(lambda a, b: lax.ragged_dot(a, b, jnp.asarray([2, 4])), rows, expert)


# Multiply-adds of one image of 224 x 224 pixels and 3 channels. ResNets: torchvision's model tables, which count the
# classifier that an encoder has not. ViTs: the same tables (S/16 is not in them: Touvron et al. 2021, arXiv 2012.12877,
# table 5; nor are S/8 and B/8: timm's table of inference benchmarks, less the 5 operations that it counts for each
# number of 25 norms; of L/8 and H/8 nobody publishes any); they hold both products of the attention.
RESNETS = {18: 1.814e9, 34: 3.664e9, 50: 4.089e9, 101: 7.801e9, 152: 11.514e9}
VITS = {
    ("S", 16): 4.6e9,
    ("S", 8): 22.44e9 - 5 * 25 * 785 * 384,
    ("B", 8): 78.22e9 - 5 * 25 * 785 * 768,
    ("B", 16): 17.564e9,
    ("L", 16): 61.555e9,
    ("H", 14): 167.295e9,
}


def _macs(model):
    image = _shape(1, 224, 224, 3)
    variables = jax.eval_shape(lambda key, image: model.init(key, image, train=False), jax.random.key(0), image)
    return count_flops(lambda variables, image: model.apply(variables, image, train=False), variables, image) / 2


@pytest.mark.parametrize("depth", RESNETS)
def test_resnets_have_their_published_size(depth):
    classifier = 1000 * (512 if depth < 50 else 2048)
    assert _macs(ResNetEncoder(depth)) + classifier == pytest.approx(RESNETS[depth], abs=1e6)


@pytest.mark.parametrize(("size", "patch_size"), VITS)
def test_vits_have_their_published_size(size, patch_size):
    encoder = ViTEncoder(SIZES[size], patch_size, positions="sincos")
    published = VITS[size, patch_size]
    assert _macs(encoder) == pytest.approx(published, rel=0.005 if (size, patch_size) == ("S", 16) else 0.0005)

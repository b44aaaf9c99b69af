"""One step: parts of a batch, other number types, averages; on networks that are compiled in a second."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params
from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.models.autoencoder import Autoencoder
from bie_jax.models.bottlenecks.dense import DenseBottleneck
from bie_jax.models.decoders.matrix import MatrixDecoder
from bie_jax.models.decoders.points import PointsDecoder
from bie_jax.models.decoders.residual_stack import ResidualStackDecoder
from bie_jax.models.encoders.resnet import ResNetEncoder
from bie_jax.models.encoders.ring import RingEncoder
from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.objectives import build_model
from bie_jax.shapes.distance_matrix import normalized_distances
from bie_jax.training import sharding
from bie_jax.training.checkpoint import Checkpoints, Progress, find_checkpoints, load_model
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.state import averageable, create_train_state, initial_variables
from bie_jax.training.step import build_eval_step, build_train_step, ema_decay, frozen_statistics
from bie_jax.views import intensities
from configs import base

pytestmark = pytest.mark.slow

IMAGES = np.random.default_rng(0).poisson(300, (16, 16, 16, 2)).astype(np.uint16)
NAMES = ("a", "b")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(SIZES, "Ti", ViTSize(16, 2, 2, 24))


def _base():
    config = base.get_config("tiny", "base")
    config.data.normalization_scope, config.train.batch_size = "set", 16
    config.model.cpu_kernels, config.model.residual_stack.num_residual_layers = False, 1
    config.model.resnet.update(depth=10, width=8)
    config.model.vit.update(size="Ti", patch_size=8, decoder_width=16, decoder_depth=1, decoder_heads=2)
    config.model.quantizer.kmeans_iterations = 0
    config.data.augment.update(flip=False, rotate90=False, brightness=0.0)
    return config


def _config(name="ae", quantizer="ema", **train):
    config = _base()
    if name == "mae":
        config.model.encoder = "vit"
    config.data.crop_size = (16, 16)
    config.train.update(train)
    config.model.name, config.model.quantizer.name = name, quantizer
    return check_config(ConfigDict(config.to_dict()))


def _table():
    overall = {"mean": [300.0, 300.0], "std": [17.0, 17.0]}
    described = {"name": "set", "channel_names": list(NAMES), "overall": overall, "plates": {}}
    return intensities.intensity_table([described], NAMES, "zscore", "set")


class _Normed(nn.Module):
    """A convolution and a batch norm: an encoder with statistics that is compiled in a second."""

    @nn.compact
    def __call__(self, image, channel_mask=None, *, train):
        x = nn.Conv(8, (3, 3), strides=2)(image)
        return nn.relu(nn.BatchNorm()(x, use_running_average=not train))


NORMED = Autoencoder(_Normed(), DenseBottleneck(4, "dense", 8), ResidualStackDecoder(2, 8, 8, 1, 1))


@functools.cache
def _program(config, model):
    """A state that nothing has been learned in, and a step; by descent of rate 1, which moves by the gradient."""
    layout = sharding.data_layout()
    model = build_model(config, 2) if model is None else model
    shapes = jax.eval_shape(lambda key: create_train_state(config, model, optax.sgd(1.0), 2, key), jax.random.key(0))
    return _drawn(shapes), build_train_step(config, model, _table(), layout, shapes, 100)


def _drawn(shapes):
    """Of a size that a network starts with, without a program that is compiled for it."""
    rng = np.random.default_rng(2)

    def draw(path, leaf):
        if path[-1].key in ("kernel", "codebook"):
            return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var", "cluster_size"), leaf.dtype)

    params, model_state = (jax.tree.map_with_path(draw, part) for part in (shapes.params, shapes.model_state))
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    averages = None if shapes.averages is None else averageable(params, model_state)
    return empty.replace(params=params, model_state=model_state, averages=averages)


def _batch(images=IMAGES, **more):
    zeros = np.zeros(len(images), np.int32)
    batch = {"image": images, "plate": zeros, "origin": np.repeat(zeros[:, None], 4, axis=1), **more}
    return sharding.put_batch(batch, sharding.data_layout().batch)


def _steps(config, count, images=IMAGES, model=None):
    """State, losses and parameters with batch statistics after some steps on one batch."""
    drawn, step = _program(config, model)
    state, batch = jax.device_put(drawn, sharding.data_layout().host), _batch(images)
    history, losses = [jax.device_get(averageable(state.params, state.model_state))], []
    for _ in range(count):
        state, loss = step(state, batch)
        history.append(jax.device_get(averageable(state.params, state.model_state)))
        losses.append(float(loss))
    return jax.device_get(state), losses, history


def _assert_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("name", ["ae", pytest.param("vqvae", marks=pytest.mark.eight_devices)])
def test_a_batch_in_parts_is_the_batch(name):
    """Gradients, loss, metrics, codebook: all as if it had been computed at once.

    Perplexity alone is that of a part, on average: it is no mean over images.
    """
    whole, whole_losses, _ = _steps(_config(name), 2)
    parts, part_losses, _ = _steps(_config(name, accumulate_steps=2), 2)
    np.testing.assert_allclose(part_losses, whole_losses, rtol=1e-4)
    _assert_close(parts.params, whole.params, rtol=1e-3, atol=1e-5)
    for metric in set(whole.window.sums) - {"perplexity"}:
        np.testing.assert_allclose(parts.window.sums[metric], whole.window.sums[metric], rtol=1e-4)
    _assert_close(parts.window.totals, whole.window.totals)
    assert parts.window.steps == whole.window.steps == 2
    if name == "vqvae":
        for key in ("codebook", "cluster_size", "embedding_sum", "distortion"):
            learned = [state.model_state["codebook"]["bottleneck"]["quantizer"][key] for state in (parts, whole)]
            np.testing.assert_allclose(*learned, rtol=1e-3, atol=1e-5)
            assert np.abs(learned[0]).max() > 0


def test_every_image_of_a_batch_in_parts_counts():
    changed = IMAGES.copy()
    changed[15] += 500
    _, _, before = _steps(_config(accumulate_steps=2), 1)
    _, _, after = _steps(_config(accumulate_steps=2), 1, images=changed)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before[1], after[1])
    assert max(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.parametrize("name", ["vae", "mae"])
def test_bfloat16_computes_near_float32_and_keeps_float32(name):
    _, full_losses, full_history = _steps(_config(name), 1)
    half, half_losses, half_history = _steps(_config(name, compute_dtype="bfloat16"), 1)
    np.testing.assert_allclose(half_losses, full_losses, rtol=2e-2)
    assert half_losses != full_losses
    types = {leaf.dtype for leaf in jax.tree.leaves((half.params, half.opt_state, half.window))}
    assert types == {np.dtype("float32"), np.dtype("int32")} - ({np.dtype("int32")} - types)
    half_gradients, full_gradients = (
        jax.tree.map(np.subtract, history[0]["params"], history[1]["params"])
        for history in (half_history, full_history)
    )
    for a, b in zip(jax.tree.leaves(half_gradients), jax.tree.leaves(full_gradients), strict=True):
        assert np.linalg.norm(a - b) < 0.12 * np.linalg.norm(b)


def test_codes_are_looked_up_in_float32_where_the_network_computes_in_bfloat16():
    config = _config("vqvae", "gradient", compute_dtype="bfloat16")
    model = build_model(config, 2)
    state = jax.eval_shape(lambda key: create_train_state(config, model, optax.sgd(1.0), 2, key), jax.random.key(0))
    step = build_train_step(config, model, _table(), sharding.data_layout(), state, 100)
    zeros = np.zeros(len(IMAGES), np.int32)
    types = {}

    def look(method, args, kwargs, context):
        for path, leaf in jax.tree.leaves_with_path(context.module.variables.get("params", {})):
            types.setdefault(path[-1].key, set()).add(leaf.dtype.name)
        return method(*args, **kwargs)

    with nn.intercept_methods(look):
        after, _ = jax.eval_shape(
            step, state, {"image": IMAGES, "plate": zeros, "origin": np.repeat(zeros[:, None], 4, axis=1)}
        )
    assert types == {"codebook": {"float32"}, "kernel": {"bfloat16"}, "bias": {"bfloat16"}}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(after.params)} == {"float32"}


@pytest.mark.parametrize("encoder", ["ring", "resnet", "vit"])
def test_outlines_are_seen_in_float32_where_the_network_computes_in_bfloat16(encoder):
    """How they turn is a small difference of distances."""
    config = base.apply_shape_variant(base.get_shape_config(), "tiny", "base")
    config.train.compute_dtype, config.train.batch_size = "bfloat16", 4
    config.model.encoder, config.model.resnet.depth, config.model.resnet.width = encoder, 10, 4
    config.model.vit.update(size="Ti", patch_size=8, positions="learnt")
    points = config.data.crop_size[0]
    config = check_config(config)
    model = build_model(config, 1)
    state = jax.eval_shape(lambda key: create_train_state(config, model, optax.sgd(1.0), 1, key), jax.random.key(0))
    step = build_train_step(config, model, _table(), sharding.data_layout(), state, 100)
    outlines = {"image": np.zeros((4, 2 * points, 2, 1), np.float32), "plate": np.zeros(4, np.int32)}
    inputs, outputs = set(), set()

    def look(method, args, kwargs, context):
        out = method(*args, **kwargs)
        if context.module.name == "encoder" and context.method_name == "__call__":
            inputs.add(args[0].dtype.name)
            outputs.add(out.dtype.name)
        return out

    with nn.intercept_methods(look):
        jax.eval_shape(step, state, outlines | {"origin": np.zeros((4, 4), np.int32)})
    assert inputs == {"float32"}
    assert outputs == {"bfloat16"}


def test_bfloat16_leaves_what_a_ring_says_of_outlines():
    angle = 2 * np.pi * np.arange(64) / 64
    radius = 10 + np.random.default_rng(0).random((4, 1)) * np.cos(3 * angle)
    matrix = normalized_distances(jnp.asarray(np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1)))[0]
    encoder = RingEncoder(16, 3, 5, "nothing")
    variables = encoder.init(jax.random.key(0), matrix[..., None], train=False)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    whole, rounded = (encoder.apply(of, matrix[..., None], train=False) for of in (variables, half))
    assert rounded.dtype == jnp.bfloat16
    assert np.abs(rounded - whole).max() < 0.03 * np.abs(whole).max()


@pytest.mark.parametrize(
    "model",
    [
        {"name": "vae", "spread": "broadcast"},
        {"name": "vqvae", "encoder": "resnet"},
        {"name": "vqvae", "quantizer.name": "residual", "quantizer.num_residuals": 1},
        {"name": "mae", "encoder": "vit", "channels": "tokens", "vit.layer_scale": True},
        {"name": "ae", "encoder": "vit", "vit.positions": "learnt"},
    ],
)
def test_nothing_is_summed_in_bfloat16(model):
    """Traced: no sum over more than the four pixels of a doubled map, no row that is added to again."""
    config = _base()
    config.data.crop_size, config.train.compute_dtype = (32, 32), "bfloat16"
    for key, value in model.items():
        config.update_from_flattened_dict({f"model.{key}": value})
    config = check_config(ConfigDict(config.to_dict()))
    network = build_model(config, 2)
    state = jax.eval_shape(lambda key: create_train_state(config, network, optax.sgd(1.0), 2, key), jax.random.key(0))
    step = build_train_step(config, network, _table(), sharding.data_layout(), state, 100)
    zeros = np.zeros(16, np.int32)
    batch = {
        "image": np.zeros((16, 32, 32, 2), np.uint16),
        "plate": zeros,
        "origin": np.repeat(zeros[:, None], 4, axis=1),
    }
    sums = list(_sums(jax.make_jaxpr(step)(state, batch).jaxpr))
    assert len(sums) > 10
    assert [found for found in sums if found[0] == jnp.bfloat16 and found[1] > 4] == []


@pytest.mark.parametrize("network", [RingEncoder(8, 2, 5, "nothing"), PointsDecoder(64), MatrixDecoder(64)])
def test_nothing_of_an_outline_s_networks_is_summed_in_bfloat16(network):
    given = jax.ShapeDtypeStruct((4, 64, 64, 1), jnp.bfloat16)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x.astype(jnp.float32), train=True), given)
    variables = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), variables)

    def total(variables, x):
        return network.apply(variables, x, train=True).astype(jnp.float32).sum()

    sums = list(_sums(jax.make_jaxpr(jax.grad(total))(variables, given).jaxpr))
    assert len(sums) > 3
    assert [found for found in sums if found[0] == jnp.bfloat16 and found[1] > 4] == []


def _sums(jaxpr):
    """Type, and numbers that become one, of all sums of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("reduce_sum", "cumsum", "reduce_window_sum"):
            summed, result = equation.invars[0].aval, equation.outvars[0].aval
            yield summed.dtype, summed.size / result.size
        elif equation.primitive.name == "scatter-add":
            yield equation.invars[0].aval.dtype, np.inf
        for part in jaxprs_in_params(equation.params):
            yield from _sums(part)


def test_rematerialised_blocks_give_the_same_step():
    plain, plain_losses, _ = _steps(_config(), 2)
    again, again_losses, _ = _steps(_config(remat=True), 2)
    np.testing.assert_allclose(again_losses, plain_losses, rtol=1e-5)
    _assert_close(again.params, plain.params, rtol=1e-4, atol=1e-6)


def test_averages_by_hand_and_what_is_saved_of_them(tmp_path):
    """Of parameters and batch statistics: validated, embedded by and resumed."""
    state, _, history = _steps(_config(ema_decay=0.9), 3, model=NORMED)
    average = history[0]
    for newest in history[1:]:
        average = jax.tree.map(lambda mean, new: 0.9 * mean + 0.1 * new, average, newest)
    evaluated = {"params": state.eval_params, **state.eval_model_state}
    assert set(evaluated) == {"params", "batch_stats"}
    _assert_close(evaluated, average, rtol=1e-4, atol=1e-6)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), average, history[-1])
    assert min(max(jax.tree.leaves(moved[name])) for name in moved) > 1e-3
    without, _, _ = _steps(_config(), 1, model=NORMED)
    assert without.averages is None
    assert without.eval_params is without.params
    assert without.eval_model_state == without.model_state

    state = jax.device_put(state, jax.local_devices()[0])
    with Checkpoints(tmp_path, find_checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(state, Progress(), None)
    with Checkpoints(tmp_path, find_checkpoints(tmp_path)) as checkpoints:
        blank = sharding.on_first_device(state)
        resumed, _ = checkpoints.restore(blank, 3)
    embedding, _ = load_model(tmp_path, sharding.on_first_device(evaluated))
    jax.tree.map(np.testing.assert_array_equal, resumed, state)
    jax.tree.map(np.testing.assert_array_equal, embedding, evaluated)


def test_validation_draws_the_same_for_every_step_and_ignores_the_warmup():
    config = _base()
    config.data.crop_size, config.model.name = (16, 16), "vae"
    config.objective.kl_warmup_steps = 1000
    config = check_config(ConfigDict(config.to_dict()))
    model = build_model(config, 2)
    state = jax.jit(lambda key: create_train_state(config, model, optax.sgd(0.0), 2, key))(jax.random.key(0))
    evaluate = build_eval_step(config, model, _table(), sharding.data_layout(), state)
    batch = _batch(weight=np.ones(16, np.float32))
    metrics, totals, _, _ = evaluate(state.params, state.model_state, batch)
    np.testing.assert_allclose(metrics["loss"], metrics["nll"] + metrics["kl"], rtol=1e-5)
    assert totals["count"] == 16
    again, _, _, _ = evaluate(state.params, state.model_state, batch)
    assert float(again["loss"]) == float(metrics["loss"])
    assert jnp.isfinite(metrics["loss"])


def test_frozen_batch_norms_keep_and_use_their_statistics():
    """Also of scanned layers; of what is not frozen they move."""
    encoder = ResNetEncoder(18, 4, cpu_kernels=False)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 2)).astype(np.float32)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), images, train=True))
    variables = jax.tree.map(lambda leaf: rng.uniform(-0.5, 1, leaf.shape).astype(np.float32), shapes["params"])
    spreads = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes["batch_stats"])
    variables = {"params": variables, "batch_stats": spreads}
    everywhere = tuple(variables["batch_stats"])
    frozen = everywhere[:-1]

    def after(prefixes):
        with nn.intercept_methods(frozen_statistics(prefixes)):
            features, changed = encoder.apply(variables, images, train=True, mutable=["batch_stats"])
        return features, changed["batch_stats"]

    _, stats = jax.jit(after, static_argnums=0)(frozen)
    for name, before in variables["batch_stats"].items():
        moved = jax.tree.map(lambda old, new: float(np.abs(old - new).max()), before, stats[name])
        assert (max(jax.tree.leaves(moved)) == 0) if name in frozen else (min(jax.tree.leaves(moved)) > 0), name
    features, _ = jax.jit(after, static_argnums=0)(everywhere)
    expected = jax.jit(lambda: encoder.apply(variables, images, train=False))()
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [(), ("encoder",)])
def test_a_training_step_leaves_a_frozen_encoder_as_it_is(frozen):
    """Its parameters and its statistics; without freezing both move."""
    config = _config("ae")
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"freeze": frozen})})
    model = NORMED
    shapes = jax.eval_shape(lambda key: initial_variables(model, jnp.zeros((1, 16, 16, 2)), key), jax.random.key(0))
    tx, _ = build_optimizer(config.optimizer, shapes["params"], steps_per_epoch=1, epochs=2)
    layout = sharding.data_layout()
    shapes = jax.eval_shape(lambda key: create_train_state(config, model, tx, 2, key), jax.random.key(0))
    state = jax.device_put(_drawn(shapes), layout.host)
    before = jax.device_get((state.params["encoder"], state.model_state["batch_stats"]))
    state, _ = build_train_step(config, model, _table(), layout, state, 100)(state, _batch())
    after = jax.device_get((state.params["encoder"], state.model_state["batch_stats"]))
    moved = jax.tree.leaves(jax.tree.map(lambda old, new: float(np.abs(old - new).max()), before, after))
    assert max(moved) == 0 if frozen else max(moved[-2:]) > 0 and max(moved[:-2]) > 0


def test_the_memory_of_an_average_grows_to_all_of_the_run():
    """Of 4 steps, from 0.8: 1 - 0.2 (1 + cos(pi step / 4)) / 2."""
    config = _config("ae", ema_decay=0.8, ema_decay_grows=True)
    decays = [float(ema_decay(config.train, jnp.int32(step), 4)) for step in range(5)]
    np.testing.assert_allclose(decays, [0.8, 0.82928932, 0.9, 0.97071068, 1.0], rtol=1e-6)
    constant = config.train.model_copy(update={"ema_decay_grows": False})
    assert ema_decay(constant, jnp.int32(3), 4) == 0.8

"""From shapes, a mesh and rules to a tree of shardings, and a step that runs under a second rule."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from bie_jax.config.mesh import mesh_shape
from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError, MeshConfig
from bie_jax.config.set_rules import check_heads
from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.kernels.product import product
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.objectives import build_model
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.sharding import (
    AXES,
    Layout,
    data_layout,
    embedding_layout,
    on_first_device,
    put_batch,
    replicate,
    training_layout,
)
from bie_jax.training.state import create_train_state, initial_variables
from bie_jax.training.step import build_train_step
from bie_jax.views.intensities import intensity_table
from configs import base

SHAPES = {"encoder": {"kernel": jnp.zeros((3, 16)), "bias": jnp.zeros(16)}, "step": jnp.zeros((), jnp.int32)}


def test_the_first_rule_that_answers_decides_and_rules_see_paths():
    seen = []

    def rule(path, leaf, mesh):
        seen.append((path, leaf.shape))
        return PartitionSpec("data") if path == "encoder/bias" else None

    layout = Layout(data_layout().mesh, (rule, replicate))
    tree = layout.of(SHAPES)
    assert tree["encoder"]["bias"].spec == PartitionSpec("data")
    assert tree["encoder"]["kernel"].spec == tree["step"].spec == PartitionSpec()
    assert seen == [("encoder/bias", (16,)), ("encoder/kernel", (3, 16)), ("step", ())]
    abstract = layout.abstract(SHAPES)
    assert abstract["encoder"]["bias"].sharding == tree["encoder"]["bias"]
    assert abstract["step"].dtype == jnp.int32


def test_a_leaf_without_a_rule_is_named():
    layout = Layout(data_layout().mesh, (lambda path, leaf, mesh: None,))
    with pytest.raises(ValueError, match=r"no sharding rule has an answer for encoder/bias of shape \(16,\)"):
        layout.of(SHAPES)


def test_a_host_reads_from_its_first_device():
    tree = on_first_device(SHAPES)
    assert {leaf.sharding.device_set == {jax.local_devices()[0]} for leaf in jax.tree.leaves(tree)} == {True}
    assert tree["encoder"]["kernel"].shape == (3, 16)


@pytest.mark.parametrize(
    ("given", "devices", "expected"),
    [((-1, 1, 1), 8, (8, 1, 1)), ((2, -1, 2), 8, (2, 2, 2)), ((1, 4, 2), 8, (1, 4, 2)), ((-1, 1, 1), 1, (1, 1, 1))],
)
def test_one_axis_takes_what_is_left(given, devices, expected):
    assert mesh_shape(_mesh_config(*given), devices) == expected


@pytest.mark.parametrize(
    ("given", "devices", "said"),
    [
        ((2, 1, 1), 8, r"data=2, fsdp=1, tensor=1: 2 devices, and there are 8"),
        ((16, 1, 1), 8, r"16 devices, and there are 8"),
        ((-1, 3, 1), 8, r"data=-1, fsdp=3, tensor=1: 8 devices cannot be shared out"),
        ((-1, 4, 4), 8, r"8 devices cannot be shared out"),
    ],
)
def test_a_mesh_that_does_not_take_the_devices_is_refused(given, devices, said):
    with pytest.raises(ConfigError, match=said):
        mesh_shape(_mesh_config(*given), devices)


@pytest.mark.parametrize(
    ("changes", "tensor", "said"),
    [
        (
            {"size": "Ti"},
            2,
            "2 devices along tensor with model.vit.size='Ti': its 3 attention heads are shared by 1 or 3",
        ),
        (
            {"size": "S", "decoder_heads": 4},
            3,
            "decoder_heads=4: its 4 attention heads are shared by 1 or 2 or 4",
        ),
    ],
)
def test_heads_that_devices_cannot_share_are_refused(changes, tensor, said):
    config = base.get_config("tiny", "base")
    config.model.encoder = "vit"
    config.model.vit.update(changes)
    model = check_config(config).model
    check_heads(model, 1)
    with pytest.raises(ConfigError, match=said):
        check_heads(model, tensor)


def test_what_lies_where():
    """Of a ViT: pairs of products over "tensor", what is large in a block over "fsdp", never the axis of blocks."""
    tree = {
        "encoder": {
            "blocks": {
                "qkv": {"kernel": jnp.zeros((2, 64, 3, 4, 16)), "bias": jnp.zeros((2, 3, 4, 16))},
                "attention_out": {"kernel": jnp.zeros((2, 64, 32)), "bias": jnp.zeros((2, 32))},
                "mlp_in": {"kernel": jnp.zeros((2, 32, 128)), "bias": jnp.zeros((2, 128))},
                "mlp_out": {"kernel": jnp.zeros((2, 128, 32)), "bias": jnp.zeros((2, 32))},
                "attention_norm": {"scale": jnp.zeros((64, 2, 32))},
            },
            "patches": {"kernel": jnp.zeros((12, 384)), "bias": jnp.zeros(384)},
            "class_token": jnp.zeros((3, 5001)),
        },
        "mlp_in": {"kernel": jnp.zeros((64, 128))},
    }
    both = _layout(2, 2, 2)
    found = jax.tree.map(lambda leaf: tuple(leaf.spec), both.of(tree))
    assert found == {
        "encoder": {
            "blocks": {
                "qkv": {"kernel": (None, "fsdp", None, "tensor", None), "bias": (None, None, "tensor", None)},
                "attention_out": {"kernel": (None, "tensor", None), "bias": ()},
                "mlp_in": {"kernel": (None, "fsdp", "tensor"), "bias": (None, "tensor")},
                "mlp_out": {"kernel": (None, "tensor", "fsdp"), "bias": ()},
                "attention_norm": {"scale": ()},  # 64 numbers of a block are fetched at a time
            },
            "patches": {"kernel": (None, "fsdp"), "bias": ()},
            "class_token": (),
        },
        "mlp_in": {"kernel": (None, "fsdp")},
    }
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(_layout(8, 1, 1).of(tree)))
    of_equals = _layout(1, 8, 1).of({"kernel": jnp.zeros((64, 64))})
    assert tuple(of_equals["kernel"].spec) == (None, "fsdp")
    assert both.shares == 4
    assert both.batch.shard_shape((8, 3)) == (2, 3)


@pytest.mark.eight_devices
@pytest.mark.parametrize("cpu_kernels", [True, False])
def test_devices_that_share_heads_fetch_nothing_of_each_other(cpu_kernels):
    """Of a product into heads and of its gradients only the gradient of what goes in is summed over devices."""
    mesh = training_layout(_mesh_config(1, 1, 8)).mesh
    shapes = {"x": (4, 5, 32), "kernel": (32, 3, 8, 4), "dy": (4, 5, 3, 8, 4)}
    heads = {
        "x": PartitionSpec(),
        "kernel": PartitionSpec(None, None, "tensor"),
        "dy": PartitionSpec(*[None] * 3, "tensor"),
    }
    x, kernel, dy = (
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, heads[name]))
        for name, shape in shapes.items()
    )

    def gradients(x, kernel, dy):
        y, back = jax.vjp(lambda *of: product(*of, cpu_kernels=cpu_kernels), x, kernel)
        return y, *back(dy)

    placed = tuple(array.sharding for array in (dy, x, kernel))
    program = jax.jit(gradients, out_shardings=placed).lower(x, kernel, dy).compile().as_text()
    assert "all-gather" not in program
    assert program.count(" all-reduce(") == 1


@pytest.mark.eight_devices
def test_a_run_is_embedded_on_other_devices_than_it_was_trained_on():
    assert dict(embedding_layout(_mesh_config(2, 4, 1)).mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert dict(embedding_layout(_mesh_config(2, 8, 1)).mesh.shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    in_parts = training_layout(_mesh_config(2, 2, 2)).with_state_in_parts()
    assert dict(in_parts.mesh.shape) == {"data": 1, "fsdp": 4, "tensor": 2}


STEPS = {
    "MAE of a ViT, LAMB": (
        (2, 2, 2),
        {
            "model.name": "mae",
            "model.encoder": "vit",
            "model.latent_dim": 32,
            "optimizer.clip_norm": 1.0,
            "model.vit.patch_size": 8,
            "model.vit.decoder_width": 32,
            "model.vit.decoder_depth": 1,
            "model.vit.decoder_heads": 2,
        },
    ),
    "VQ-VAE, in two microbatches": ((2, 4, 1), {"train.accumulate_steps": 2}),
    "SimCLR, with batch statistics": (
        (1, 8, 1),
        {"model.name": "simclr", "model.decoder": "none", "objective.reconstruction": 0.0},
    ),
}


class _Normed(nn.Module):
    """An encoder with statistics that is compiled in a second."""

    @nn.compact
    def __call__(self, image, channel_mask=None, *, train):
        x = nn.Conv(16, (3, 3), strides=4)(image)
        return nn.relu(nn.BatchNorm()(x, use_running_average=not train))


@pytest.mark.eight_devices
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_the_same_under_every_mesh(name, monkeypatch):
    """Batch statistics, codebooks, negatives, trust ratios and norms are of the whole batch and of whole arrays."""
    monkeypatch.setattr("bie_jax.training.sharding._LEAST_SPLIT", 32)
    monkeypatch.setitem(SIZES, "S", ViTSize(32, 2, 2, 64))
    if "statistics" in name:
        monkeypatch.setattr("bie_jax.models.ResidualStackEncoder", lambda *_, **__: _Normed())
    mesh, changes = STEPS[name]
    given = base.get_config("tiny", "base")
    given.update_from_flattened_dict(
        {"train.batch_size": 32, "data.normalization_scope": "set", "data.crop_size": (16, 16)} | changes
    )
    config = check_config(given)
    model, num_channels = build_model(config, 2), 2
    described = {
        "name": "set",
        "channel_names": ["a", "b"],
        "overall": {"mean": [300.0] * 2, "std": [17.0] * 2},
        "plates": {},
    }
    table = intensity_table([described], ("a", "b"), "zscore", "set")
    rng = np.random.default_rng(0)
    images = rng.poisson(300 + 100 * rng.random((32, 1, 1, 2)), (32, 16, 16, 2)).astype(np.uint16)
    rows = np.arange(32, dtype=np.int32)
    batch = {"image": images, "plate": np.zeros(32, np.int32), "origin": np.repeat(rows[:, None], 4, axis=1)}
    results = []
    for sizes in ((8, 1, 1), mesh):
        layout = training_layout(_mesh_config(*sizes))
        blank = jnp.zeros((1, 16, 16, num_channels))
        shapes = jax.eval_shape(lambda key, image: initial_variables(model, image, key), jax.random.key(0), blank)
        tx, _ = build_optimizer(config.optimizer, shapes["params"], steps_per_epoch=2, epochs=100)

        def init(key, tx=tx):
            return create_train_state(config, model, tx, num_channels, key)

        shardings = layout.of(jax.eval_shape(init, jax.random.key(0)))
        state = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
        step = build_train_step(config, model, table, layout, state, 100)
        for _ in range(2):
            state, loss = step(state, put_batch(batch, layout.batch))
        results.append((state, float(loss)))
    (whole, whole_loss), (parts, parts_loss) = results
    np.testing.assert_allclose(parts_loss, whole_loss, rtol=1e-4)
    before = jax.device_get((whole.params, whole.model_state, whole.opt_state))
    after = jax.device_get((parts.params, parts.model_state, parts.opt_state))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4), before, after)
    held = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(parts.params))
    assert held < 1.3 * sum(leaf.size for leaf in jax.tree.leaves(parts.params)) / (mesh[1] * mesh[2])


def _layout(*sizes):
    """Of devices that need not be there."""
    return Layout(AbstractMesh(sizes, AXES))


def _mesh_config(data, fsdp, tensor):
    return MeshConfig(data=data, fsdp=fsdp, tensor=tensor)

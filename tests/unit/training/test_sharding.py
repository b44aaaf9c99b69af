"""From shapes, a mesh and rules to a tree of shardings, and a step that runs under a second rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.models.autoencoder import Autoencoder
from bie_jax.models.bottlenecks.dense import DenseBottleneck
from bie_jax.models.decoders.residual_stack import ResidualStackDecoder
from bie_jax.models.encoders.residual_stack import ResidualStackEncoder
from bie_jax.training.sharding import RULES, Layout, data_layout, on_first_device, put_batch, replicate
from bie_jax.training.state import create_train_state
from bie_jax.training.step import build_train_step
from bie_jax.views.intensities import intensity_table
from configs import base

SHAPES = {"encoder": {"kernel": jnp.zeros((3, 16)), "bias": jnp.zeros(16)}, "step": jnp.zeros((), jnp.int32)}


def split_largest_axis(path, leaf, mesh):
    """Kernels along their largest axis that the devices divide; biases and scalars are left to the next rule."""
    divisible = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
    if not path.endswith("kernel") or not divisible:
        return None
    largest = max(divisible, key=lambda axis: leaf.shape[axis])
    return PartitionSpec(*("data" if axis == largest else None for axis in range(len(leaf.shape))))


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


@pytest.mark.eight_devices
def test_a_step_under_another_rule_is_the_same_step():
    """Kernels, their moments and averages in eight parts: the numbers of whole copies, and an eighth of the memory."""
    config = base.get_config("tiny", "base")
    config.model.name, config.train.batch_size, config.train.ema_decay = "ae", 16, 0.5
    config.data.normalization_scope, config.data.crop_size = "set", (16, 16)
    config = check_config(ConfigDict(config.to_dict()))
    model = Autoencoder(
        ResidualStackEncoder(16, 8, 1, 1), DenseBottleneck(8, "dense", 8), ResidualStackDecoder(2, 16, 8, 1, 1)
    )
    described = {
        "name": "set",
        "channel_names": ["a", "b"],
        "overall": {"mean": [300.0] * 2, "std": [17.0] * 2},
        "plates": {},
    }
    table = intensity_table([described], ("a", "b"), "zscore", "set")
    images = np.random.default_rng(0).poisson(300, (16, 16, 16, 2)).astype(np.uint16)
    zeros = np.zeros(16, np.int32)
    results = []
    for rules in (RULES, (split_largest_axis, *RULES)):
        layout = Layout(data_layout().mesh, rules)

        def init(key):
            return create_train_state(config, model, optax.adam(1e-3), 2, key)

        shardings = layout.of(jax.eval_shape(init, jax.random.key(0)))
        state = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
        step = build_train_step(config, model, table, layout, state, 100)
        for _ in range(3):
            batch = put_batch(
                {"image": images, "plate": zeros, "origin": np.repeat(zeros[:, None], 4, axis=1)}, layout.batch
            )
            state, loss = step(state, batch)
        results.append((state, float(loss)))
    (whole, whole_loss), (parts, parts_loss) = results
    np.testing.assert_allclose(parts_loss, whole_loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), whole.eval_params, parts.eval_params
    )
    split = [leaf for leaf in jax.tree.leaves(parts) if not leaf.sharding.is_fully_replicated]
    assert len(split) >= 12
    assert all(leaf.addressable_shards[0].data.size * 8 == leaf.size for leaf in split)

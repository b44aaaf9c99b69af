"""Starting from another run's weights: what fits is taken, channels by name, the rest starts at random."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from bie_jax.checkpoint import Checkpoints
from bie_jax.config import ConfigError, check_config
from bie_jax.objectives import build_model
from bie_jax.train import train_and_evaluate
from bie_jax.train_state import initial_variables
from bie_jax.warm_start import channel_axes_of, graft

RNG = np.random.default_rng(0)


def _params(workdir, config, channels):
    checked = check_config(config)
    model = build_model(checked, channels)
    blank = np.zeros((1, *checked.data.crop_size, channels), np.float32)
    variables = jax.eval_shape(lambda key: initial_variables(model, blank, key), jax.random.key(0))
    with Checkpoints(workdir) as checkpoints:
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.device_get(checkpoints.restore_model(variables, here)[0]["params"])


def _flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def test_graft_takes_what_fits_by_name_and_shape():
    ours = {"params": {"a": np.zeros((2, 3)), "b": np.zeros(4), "c": np.zeros(5)}}
    theirs = {"params": {"a": np.ones((2, 3)), "b": np.ones(3), "d": np.ones(5)}}
    grafted = graft(ours, theirs, {}, ("x",), ("x",))
    np.testing.assert_array_equal(grafted.variables["params"]["a"], 1)
    np.testing.assert_array_equal(grafted.variables["params"]["b"], 0)
    np.testing.assert_array_equal(grafted.variables["params"]["c"], 0)
    assert grafted.taken == ("params/a",)
    assert grafted.fresh == ("params/b", "params/c")


def test_channels_are_matched_by_name_and_new_ones_are_the_mean():
    theirs = RNG.normal(size=(3, 3, 2, 4))  # a stem of the channels x, y
    out = RNG.normal(size=(5, 8))  # 2 x 2 pixels of the channels x, y side by side: the channel is fastest
    donor = {"params": {"stem": theirs, "out": out}}
    ours = {"params": {"stem": np.zeros((3, 3, 3, 4)), "out": np.zeros((5, 12))}}
    axes = {"params/stem": 2, "params/out": 1}
    params = graft(ours, donor, axes, ("y", "z", "x"), ("x", "y")).variables["params"]
    np.testing.assert_allclose(params["stem"][:, :, 0], theirs[:, :, 1])
    np.testing.assert_allclose(params["stem"][:, :, 2], theirs[:, :, 0])
    np.testing.assert_allclose(params["stem"][:, :, 1], theirs.mean(axis=2))
    for pixel in range(4):
        x, y = out[:, 2 * pixel], out[:, 2 * pixel + 1]
        np.testing.assert_allclose(params["out"][:, 3 * pixel : 3 * pixel + 3], np.stack([y, (x + y) / 2, x], axis=1))


def test_the_same_channels_in_another_order_are_turned():
    theirs = RNG.normal(size=(1, 1, 2, 4))
    grafted = graft({"a": np.zeros((1, 1, 2, 4))}, {"a": theirs}, {"a": 2}, ("y", "x"), ("x", "y"))
    np.testing.assert_array_equal(grafted.variables["a"], theirs[:, :, ::-1])


def test_channel_axes_are_found_by_adding_a_channel(tiny_config):
    axes = channel_axes_of(check_config(tiny_config), 5)
    assert axes == {
        "params/encoder/Conv_0/kernel": 2,
        "params/decoder/Conv_2/kernel": 3,
        "params/decoder/Conv_2/bias": 0,
    }


def test_fine_tuning_with_another_head_and_a_frozen_encoder(trained_workdir, tiny_config, tmp_path, capsys):
    donor, _ = trained_workdir
    before = _params(donor, tiny_config, 5)
    tiny_config.model.name, tiny_config.model.latent_dim = "ae", 7
    tiny_config.train.init_from = str(donor)
    tiny_config.optimizer.freeze = ("encoder",)
    workdir = tmp_path / "run"
    train_and_evaluate(tiny_config, workdir)
    said = capsys.readouterr().out
    assert "arrays taken; at random start" in said
    assert "params/bottleneck" in said
    after = _params(workdir, tiny_config, 5)
    for name, value in _flat(after["encoder"]).items():
        np.testing.assert_array_equal(value, _flat(before["encoder"])[name])
    moved = [np.abs(value).max() > 0 for value in _flat(after["bottleneck"]).values()]
    assert any(moved)


def test_averaged_parameters_are_what_is_saved_for_embedding_and_resumed(tiny_config, tmp_path):
    tiny_config.train.ema_decay = 0.5
    train_and_evaluate(tiny_config, tmp_path / "run")
    again = train_and_evaluate(tiny_config, tmp_path / "run")
    assert again["step"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.init_from": "nowhere"}, "nowhere holds no config.json"),
        ({"model.encoder": "resnet", "model.pretrained": "nowhere"}, "config.model.pretrained='nowhere'"),
        ({"optimizer.freeze": ("head",)}, "freeze='head' names no parameters; possible are .*encoder"),
    ],
)
def test_what_cannot_be_started_from_is_refused_before_anything_is_written(tiny_config, tmp_path, changes, message):
    for key, value in changes.items():
        group, name = key.split(".")
        tiny_config[group][name] = value
    with pytest.raises(ConfigError, match=message):
        train_and_evaluate(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

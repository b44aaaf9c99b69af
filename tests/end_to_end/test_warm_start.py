"""Starting from another run's weights: what fits is taken, channels by name, the rest starts at random."""

import functools
import json

import jax
import numpy as np
import optax
import pytest
from flax import traverse_util
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

import bie_jax
from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.config.stored import save_config
from bie_jax.files import integrity
from bie_jax.objectives import build_model
from bie_jax.train import train_and_evaluate
from bie_jax.training import sharding
from bie_jax.training.checkpoint import Checkpoints, Progress, find_checkpoints, load_model
from bie_jax.training.state import create_train_state, initial_variables
from bie_jax.training.warm_start import channel_axes_of, check_finite_weights, given_weights, graft
from configs import mae_idr0093

RNG = np.random.default_rng(0)


def _shapes(config, channels):
    checked = check_config(config)
    model = build_model(checked, channels)
    blank = np.zeros((1, *checked.data.crop_size, channels), np.float32)
    variables = jax.eval_shape(lambda key: initial_variables(model, blank, key), jax.random.key(0))
    return sharding.on_first_device(variables)


def _params(workdir, config, channels):
    return jax.device_get(load_model(workdir, _shapes(config, channels))[0]["params"])


def _untrained(workdir, config, channel_names):
    """A workdir as a run leaves it, with random numbers for a network; returns its parameters by path."""
    checked, channels = check_config(config), len(channel_names)
    model = build_model(checked, channels)
    init = functools.partial(create_train_state, checked, model, optax.sgd(1.0), channels)
    shapes = jax.eval_shape(init, jax.random.key(0))
    state = jax.tree.map(lambda leaf: np.asarray(RNG.normal(size=leaf.shape), leaf.dtype), shapes).replace(step=0)
    save_config(checked, workdir)
    integrity.write_json(workdir / "dataset.json", {"channel_names": channel_names})
    with Checkpoints(workdir, find_checkpoints(workdir)) as checkpoints:
        checkpoints.save(state, Progress(), None)
    return _flat(jax.device_get(state.params))


def _flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def _taken(given):
    return {path: leaf for path, leaf in _flat(given["params"]).items() if not isinstance(leaf, jax.ShapeDtypeStruct)}


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


def _side_by_side(latent_dim):
    """A masked autoencoder whose embedding is latent_dim / C numbers of each channel."""
    config = mae_idr0093.get_config("tiny")
    config.model.channels, config.model.channel_readout = "tokens", "concat"
    config.model.latent_dim = latent_dim
    return config


# 4 channels; 5 do not share 8; they share 20; and of 960 they get the encoder's own width, where nothing projects.
@pytest.mark.parametrize("latent_dim", [8, 20, 960])
def test_arrays_of_each_channels_share_are_not_told_apart_by_channel(latent_dim):
    axes = channel_axes_of(check_config(_side_by_side(latent_dim)), 4)
    assert axes == {"params/encoder/channel_embed/embedding": 0, "params/decoder/channel_embed/embedding": 0}


def test_embeddings_side_by_side_are_taken_by_a_run_with_other_channels(tmp_path):
    donor = _untrained(tmp_path / "donor", _side_by_side(16), ("a", "b", "c", "d"))
    config = _side_by_side(12)
    config.train.init_from = str(tmp_path / "donor")
    shapes = _shapes(config, 3)
    given = given_weights(shapes, check_config(config), ("d", "new", "a"))
    taken = _taken(given)
    assert taken.keys() == donor.keys()
    for path, value in donor.items():
        expected = np.stack([value[3], value.mean(axis=0), value[0]]) if "channel_embed" in path else value
        np.testing.assert_allclose(taken[path], expected, rtol=1e-6, err_msg=path)


def test_an_array_that_has_channels_in_one_network_alone_stays_random(tiny_config, tmp_path):
    """The third convolution of a decoder is the last one of two halvings, and a hidden one of three."""
    tiny_config.model.residual_stack.num_halvings = 3
    donor = _untrained(tmp_path / "donor", tiny_config, list("abcde"))
    tiny_config.model.residual_stack.num_halvings = 2
    tiny_config.train.init_from = str(tmp_path / "donor")
    given = given_weights(_shapes(tiny_config, 5), check_config(tiny_config), tuple("abcde"))
    taken = _taken(given)
    assert "decoder/Conv_2/kernel" in donor.keys() - taken.keys()
    np.testing.assert_array_equal(taken["encoder/Conv_0/kernel"], donor["encoder/Conv_0/kernel"])


def test_fine_tuning_with_other_channels_another_head_and_a_frozen_encoder(
    trained_workdir, tiny_config, two_sets, tmp_path, capsys
):
    """Of five channels to two, of which the donor knows one; it embeds those two afterwards."""
    donor, _ = trained_workdir
    before = _params(donor, tiny_config, 5)
    names = json.loads((donor / "dataset.json").read_text())["channel_names"]
    tiny_config.data.data_dir, tiny_config.data.name = two_sets, "other"
    tiny_config.eval.label = tiny_config.objective.contrastive.treatment = "label"
    tiny_config.model.name, tiny_config.model.latent_dim = "ae", 7
    tiny_config.train.init_from = str(donor)
    tiny_config.optimizer.freeze = ("encoder",)
    workdir = tmp_path / "run"
    train_and_evaluate(tiny_config, workdir)
    said = capsys.readouterr().out
    assert "arrays taken; at random start" in said
    assert "params/bottleneck" in said
    after = _params(workdir, tiny_config, 2)
    first = "Conv_0/kernel"
    for name, value in _flat(after["encoder"]).items():
        if name != first:
            np.testing.assert_array_equal(value, _flat(before["encoder"])[name])
    actin, dna = np.moveaxis(_flat(after["encoder"])[first], 2, 0)
    np.testing.assert_array_equal(dna, _flat(before["encoder"])[first][:, :, names.index("DNA")])
    np.testing.assert_allclose(actin, _flat(before["encoder"])[first].mean(axis=2), rtol=1e-5, atol=1e-7)
    moved = [np.abs(value).max() > 0 for value in _flat(after["bottleneck"]).values()]
    assert any(moved)
    images = np.random.default_rng(0).integers(0, 4000, (3, 32, 32, 2)).astype(np.uint16)
    embedder = bie_jax.load(workdir)
    assert embedder.channel_names == ("actin", "DNA")
    assert embedder.embed(images).shape == (3, 7)


def test_averaged_parameters_are_what_is_saved_for_embedding_and_resumed(tiny_config, tmp_path, monkeypatch):
    tiny_config.train.ema_decay = 0.5
    saved, resumed = {}, []
    save, restore = Checkpoints.save, Checkpoints.restore

    def seen_save(self, state, progress, val_loss):
        saved[int(state.step)] = [
            jax.tree.map(np.array, jax.device_get(tree)) for tree in (state.params, state.averages["params"])
        ]
        save(self, state, progress, val_loss)

    def seen_restore(self, state, step):
        state, progress = restore(self, state, step)
        resumed.append((step, jax.device_get(state.params), jax.device_get(state.averages["params"])))
        return state, progress

    monkeypatch.setattr(Checkpoints, "save", seen_save)
    monkeypatch.setattr(Checkpoints, "restore", seen_restore)
    result = train_and_evaluate(tiny_config, tmp_path / "run")
    learning, averaged = saved[result["step"]]
    assert np.abs(averaged["encoder"]["Conv_0"]["kernel"] - learning["encoder"]["Conv_0"]["kernel"]).max() > 0
    jax.tree.map(np.testing.assert_array_equal, _params(tmp_path / "run", tiny_config, 5), averaged)
    again = train_and_evaluate(tiny_config, tmp_path / "run")
    assert again == result
    ((step, *both),) = resumed
    assert step == max(saved)
    jax.tree.map(np.testing.assert_array_equal, both, saved[step])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders of published weights: a narrow ResNet of 34 layers, and a narrow ViT with patches of 16."""
    folder = tmp_path_factory.mktemp("published")
    resnet = ResNetConfig(layer_type="basic", depths=[3, 4, 6, 3], hidden_sizes=[8] * 4, embedding_size=8)
    ResNetModel(resnet).save_pretrained(folder / "resnet34")
    vit = ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=32)
    ViTModel(vit, add_pooling_layer=False).save_pretrained(folder / "vit16")
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.init_from": "nowhere"}, "nowhere holds no config.json"),
        (
            {"train.init_from": "{donor}", "model.name": "mae", "model.encoder": "vit", "model.vit.patch_size": 8},
            "none of its parameters fits model.name='mae' with model.encoder='vit'; it was trained with "
            "model.name='vqvae', model.encoder='residual_stack'",
        ),
        ({"model.encoder": "resnet", "model.pretrained": "nowhere"}, "config.model.pretrained='nowhere'"),
        (
            {"model.encoder": "resnet", "model.pretrained": "{published}/resnet34"},
            "config.model.pretrained='.*/resnet34': model.resnet.depth=18, and these weights need 34",
        ),
        (
            {
                "model.encoder": "vit",
                "model.vit.size": "Ti",
                "model.vit.patch_size": 8,
                "model.vit.positions": "learnt",
                "model.pretrained": "{published}/vit16",
            },
            "config.model.pretrained='.*/vit16': model.vit.patch_size=8, and these weights need 16",
        ),
        ({"optimizer.freeze": ("head",)}, "freeze='head' names no parameters; possible are .*encoder"),
    ],
)
def test_what_cannot_be_started_from_is_refused_before_anything_is_compiled_or_written(
    tiny_config, trained_workdir, published, tmp_path, monkeypatch, changes, message
):
    made = []

    def seen(*args):
        jax.debug.callback(lambda: made.append("random start"))  # when it is run, not when its shapes are asked for
        return create_train_state(*args)

    monkeypatch.setattr("bie_jax.training.prepare.create_train_state", seen)
    monkeypatch.setattr("bie_jax.training.prepare.compile_step", lambda *_: pytest.fail("the step was compiled"))
    for key, value in changes.items():
        *groups, name = key.split(".")
        group = tiny_config
        for part in groups:
            group = group[part]
        group[name] = value.format(donor=trained_workdir[0], published=published) if isinstance(value, str) else value
    with pytest.raises(ConfigError, match=message):
        train_and_evaluate(tiny_config, tmp_path / "run")
    jax.effects_barrier()
    assert not made
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_weights_that_are_no_numbers_are_refused(value):
    given = {"params": {"encoder": {"kernel": np.array([1.0, value]), "bias": jax.ShapeDtypeStruct((2,), np.float32)}}}
    with pytest.raises(ConfigError, match=r"^whose: params/encoder/kernel holds NaN, infinity or numbers beyond"):
        check_finite_weights(given, "whose")
    given["params"]["encoder"]["kernel"][1] = 3.0
    check_finite_weights(given, "whose")

"""The loop, in this process."""

import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.input.image_set import SetNotBuiltError
from bie_jax.models import build_quantizer
from bie_jax.models.autoencoder import Autoencoder
from bie_jax.models.bottlenecks.projected import ProjectedBottleneck
from bie_jax.models.bottlenecks.quantized import GridBottleneck
from bie_jax.models.decoders.residual_stack import ResidualStackDecoder
from bie_jax.models.head import ProjectionHead, WithHead
from bie_jax.train import NonFiniteLossError, train_and_evaluate
from bie_jax.training import sharding
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.preflight import compile_step, notes_on_microbatches
from bie_jax.training.state import create_train_state
from bie_jax.training.step import build_train_step
from bie_jax.views.intensities import intensity_table
from configs import dino_idr0093, lejepa_idr0093, simclr_idr0093


def _lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.eight_devices
def test_a_run_leaves_its_files_and_a_falling_loss(trained_workdir):
    workdir, result = trained_workdir
    lines = _lines(workdir)
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < losses[0]
    validations = [line for line in lines if "val/loss" in line]
    assert result["val/loss"] == min(line["val/loss"] for line in validations)
    assert {"train/recon", "train/vq", "train/perplexity", "optimizer/lr", "perf/images_per_s"} <= lines[0].keys()
    assert all(line["train/codes_used"] >= 1 for line in validations)
    # 32 x 32 pixels in strides of 4 are 64 positions of 16 codes, 4 bits each.
    assert {line[f"{side}/capacity_bits"] for line in validations for side in ("train", "val")} == {256.0}
    for name in ("config.json", "dataset.json"):
        json.loads((workdir / name).read_text())
    pictures = sorted((workdir / "reconstructions").glob("*.png"))
    assert len(pictures) == len(validations)
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_what_is_not_one_large_batch_in_parts_is_said(tiny_config):
    tiny_config.train.accumulate_steps, tiny_config.model.channels = 4, "independent"
    tiny_config.objective.contrastive.weight = 0.1
    quantizer = tiny_config.model.quantizer
    quantizer.kmeans_iterations = 5
    said = notes_on_microbatches(check_config(tiny_config), has_batch_norm=True)
    assert [note.split(": ")[1] for note in said] == [
        "batch normalization takes its statistics from 2 images, not from all 8 of a batch",
        "the contrastive term takes its negatives from 2 images, not from all 8 of a batch",
        "the start from k-means takes its vectors from 2 images, not from all 8 of a batch",
        "restarted codes take their vectors from 2 images, not from all 8 of a batch",
    ]
    tiny_config.objective.contrastive.weight = 0.0
    quantizer.kmeans_iterations, quantizer.restart_threshold = 0, 0.0
    assert notes_on_microbatches(check_config(tiny_config), has_batch_norm=False) == []
    tiny_config.model.name, quantizer.restart_threshold = "vae", 0.05  # which has no codes
    tiny_config.objective.free_nats = 0.5
    (note,) = notes_on_microbatches(check_config(tiny_config), has_batch_norm=False)
    assert "the bound of free nats takes its mean divergence from 2 images, not from all 8 of a batch" in note
    tiny_config.train.accumulate_steps = 1
    assert notes_on_microbatches(check_config(tiny_config), has_batch_norm=True) == []


def test_running_again_trains_no_further(trained_workdir, tiny_config, tmp_path):
    trained, result = trained_workdir
    workdir = shutil.copytree(trained, tmp_path / "run")
    before = (workdir / "metrics.jsonl").read_bytes()
    assert train_and_evaluate(tiny_config, workdir) == result
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_early_stopping_counts_epochs_without_a_better_validation(tiny_config, tmp_path):
    tiny_config.optimizer.lr = tiny_config.optimizer.min_lr = tiny_config.optimizer.warmup_init_lr = 1e-12
    tiny_config.model.name = "ae"  # without codes, which follow what they see: the first validation stays the best
    tiny_config.train.epochs = 50
    tiny_config.train.early_stopping_patience_epochs = 2
    tiny_config.train.checkpoint_every_steps = 1000
    train_and_evaluate(tiny_config, tmp_path / "run")
    epochs = [line["epoch"] for line in _lines(tmp_path / "run") if "val/loss" in line]
    assert len(epochs) < 15


def test_a_small_set_is_gone_through_several_times_in_an_epoch(tiny_config, tmp_path, tiny_set):
    tiny_config.train.min_epoch_steps = len(tiny_set) // tiny_config.train.batch_size + 2
    tiny_config.train.log_every_steps = 1
    tiny_config.train.checkpoint_every_steps = 1000
    train_and_evaluate(tiny_config, tmp_path / "run")
    lines = _lines(tmp_path / "run")
    epochs = tiny_config.train.epochs + tiny_config.optimizer.cooldown_epochs
    assert lines[-1]["step"] == epochs * tiny_config.train.min_epoch_steps
    assert [line["epoch"] for line in lines if "val/loss" in line] == list(range(1, epochs + 1))
    rates = [line["optimizer/lr"] for line in lines if "optimizer/lr" in line]
    highest = tiny_config.optimizer.warmup_epochs * tiny_config.train.min_epoch_steps
    np.testing.assert_allclose(rates[highest], tiny_config.optimizer.lr, rtol=1e-6)
    assert np.argmax(rates) == highest


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(tiny_config, tmp_path, tiny_set):
    tiny_config.optimizer.name = "sgd"
    tiny_config.optimizer.clip_norm = 0.0
    tiny_config.optimizer.lr = tiny_config.optimizer.warmup_init_lr = 100.0
    tiny_config.train.epochs = 30
    with pytest.raises(NonFiniteLossError, match=r"the loss of step \d+ is (nan|inf)") as error:
        train_and_evaluate(tiny_config, tmp_path / "run")
    named = [source for source in tiny_set.metadata["source"] if source in str(error.value)]
    assert len(named) >= tiny_config.train.batch_size / 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        pytest.param(
            "train.batch_size",
            12,
            "batch_size=12 cannot be shared by 8 devices.*8 or 16",
            marks=pytest.mark.eight_devices,
        ),
        ("train.batch_size", 8000, "batch_size=8000 is more than the"),
        ("data.crop_size", (4096, 4096), r"crop_size=\(4096, 4096\) is larger than the images"),
        pytest.param(
            "train.accumulate_steps",
            2,
            "batch_size=8 cannot be shared by 8 devices in 2 parts.*16 or 16",
            marks=pytest.mark.eight_devices,
        ),
        ("eval.label", "gene", "eval.label='gene' is no column"),
        ("model.latent_dim", 0, "latent_dim=0"),
        ("eval.components", 17, "components=17 is more than the 16 numbers that config.eval.readout gives"),
        ("eval.components", 1000, r"components=1000 is more than the \d+ images of 'simulated'"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(tiny_config, tmp_path, key, value, message):
    group, name = key.split(".")
    tiny_config[group][name] = value
    with pytest.raises(ConfigError, match=message):
        train_and_evaluate(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_steps_than_are_counted_are_refused(tiny_config, tmp_path):
    tiny_config.train.epochs, tiny_config.train.min_epoch_steps = 100_000, 1_000_000
    with pytest.raises(ConfigError, match=r"of 1000000 steps each are 100001000000 steps, 2147483647 at most"):
        train_and_evaluate(tiny_config, tmp_path / "run")


def test_what_will_not_be_scored_is_said_before_the_first_step(tiny_config, tmp_path, capsys):
    tiny_config.eval.folds, tiny_config.eval.probe_control = 1000, "nobody"
    tiny_config.train.batch_size, tiny_config.train.accumulate_steps = 8, 1
    tiny_config.train.epochs, tiny_config.optimizer.cooldown_epochs = 2, 0
    train_and_evaluate(tiny_config, tmp_path / "run")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("scores: ")]
    assert any("Stratified 1000-fold is not scored: fewer than two classes have 1000 images" in line for line in said)
    assert any("negative controls (label = 'nobody', config.eval.probe_control)" in line for line in said)


@pytest.mark.parametrize(
    ("form", "treatment", "name", "message"),
    [
        (
            "replicates",
            "gene",
            "simulated",
            "contrastive.treatment='gene' is no column of 'simulated'; there are .*label",
        ),
        ("replicates", "source", "simulated", "no value of 'source' in 'simulated' is on two plates"),
        ("channels", "label", "floats", "compares the channels of an image, and 'floats' has one, 'actin'"),
        ("pull", "label", "floats", "'views' and 'replicates' are possible"),
    ],
)
def test_a_contrast_with_nothing_to_compare_is_refused(
    tiny_config, three_depths, tmp_path, form, treatment, name, message
):
    tiny_config.data.data_dir, tiny_config.data.name = three_depths, name
    tiny_config.model.channels = "joint" if form == "replicates" else "independent"
    tiny_config.objective.contrastive.update({"weight": 0.1, "form": form, "treatment": treatment})
    with pytest.raises(ConfigError, match=message):
        train_and_evaluate(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_step_is_held_against_the_memory_before_there_is_a_state(tiny_config, tmp_path, monkeypatch):
    """On a CPU what is left is less by a state that is there, and the step counts it again."""

    def refuse(compile_under, layout, config):
        raise ConfigError("looked at")

    monkeypatch.setattr("bie_jax.training.prepare.compile_step", refuse)
    monkeypatch.setattr("bie_jax.training.prepare.warm_start", lambda *_: pytest.fail("there is a state"))
    with pytest.raises(ConfigError, match="looked at"):
        train_and_evaluate(tiny_config, tmp_path / "run")


def test_a_batch_that_does_not_fit_is_refused_with_what_fits_and_what_helps(tiny_config, monkeypatch):
    tiny_config.train.batch_size, tiny_config.train.accumulate_steps = 64 * jax.device_count(), 4
    checked = check_config(tiny_config)
    monkeypatch.setattr("bie_jax.training.preflight.available_bytes", lambda device: 4 * 30_500)

    def compile_under(layout, batch_size):
        batch = jax.ShapeDtypeStruct((batch_size, 1000), np.float32, sharding=layout.batch)
        return jax.jit(lambda state, batch: state + batch.sum()).lower(np.float32(0), batch).compile()

    with pytest.raises(ConfigError) as refused:
        compile_step(compile_under, sharding.data_layout(), checked)
    said = str(refused.value)
    assert f"batch_size={checked.train.batch_size}, shared by {jax.device_count()} device(s), needs" in said
    assert "the largest seen to fit: 28;" in said  # in four parts; 30 would fit in one
    assert said.endswith("accumulate_steps, config.train.compute_dtype='bfloat16', config.train.remat make it less")


def test_a_set_that_is_not_built_is_named_with_its_command(tiny_config, tmp_path):
    tiny_config.data.name = "idr0093"
    with pytest.raises(SetNotBuiltError, match=r"python -m data.build idr0093"):
        train_and_evaluate(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_set_with_other_pixels_is_refused(trained_workdir, tiny_config, tmp_path, monkeypatch):
    workdir, _ = trained_workdir
    before = json.loads((workdir / "dataset.json").read_text())
    changed = tmp_path / "run"
    changed.mkdir()
    (changed / "config.json").write_bytes((workdir / "config.json").read_bytes())
    (changed / "dataset.json").write_text(json.dumps(before | {"sets": [before["sets"][0] | {"num_examples": 1}]}))
    with pytest.raises(ConfigError, match=r"not the set that.*num_examples"):
        train_and_evaluate(tiny_config, changed)


class _Stem(nn.Module):
    @nn.compact
    def __call__(self, image, channel_mask=None, *, train):
        x = nn.Conv(8, (3, 3), strides=2)(image)
        return nn.relu(nn.BatchNorm(use_running_average=not train)(x))


def _assert_eight_devices_are_one(config, model, tx, tiny_set):
    """Three steps on eight and on one: the loss, parameters and all other collections."""
    channels = len(tiny_set.channel_names)
    table = intensity_table([tiny_set.intensities], tiny_set.channel_names, "zscore", "set")
    results = []
    for devices in (jax.devices(), jax.devices()[:1]):
        layout = sharding.data_layout(devices)
        init = jax.jit(lambda key: create_train_state(config, model, tx, channels, key), out_shardings=layout.host)
        state = init(jax.random.key(0))
        step = build_train_step(config, model, table, layout, state, 100)
        for number in range(3):
            images = tiny_set.images(range(8 * number, 8 * number + 8))
            origin = np.repeat(np.arange(8, dtype=np.int32)[:, None], 4, axis=1)
            batch = {"image": images, "plate": np.zeros(8, np.int32), "origin": origin}
            state, loss = step(state, sharding.put_batch(batch, layout.batch))
        results.append(jax.device_get((state.params, state.model_state, loss)))
    eight, one = results
    np.testing.assert_allclose(eight[2], one[2], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(eight[:2]), jax.tree.leaves(one[:2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.eight_devices
def test_sums_over_eight_devices_are_sums_over_one(tiny_config, tiny_set):
    """Batch statistics and code counts are of the global batch: eight devices take the step that one takes."""
    config = check_config(tiny_config)
    # Small, with batch normalization and a codebook: the two that look across the batch.
    quantizer = build_quantizer(config.model.quantizer, num_microbatches=1)
    decoder = ResidualStackDecoder(len(tiny_set.channel_names), 8, 8, 1, 1)
    tx, _ = build_optimizer(config.optimizer, {}, steps_per_epoch=4, epochs=4)
    _assert_eight_devices_are_one(config, Autoencoder(_Stem(), GridBottleneck(quantizer), decoder), tx, tiny_set)


@pytest.mark.eight_devices
@pytest.mark.parametrize("name", ["simclr", "dino", "lejepa"])
def test_views_over_eight_devices_are_views_over_one(name, datasets, tiny_set):
    """Negatives, centers, neighbors and distributions are of the global batch, too."""
    config = {"simclr": simclr_idr0093, "dino": dino_idr0093, "lejepa": lejepa_idr0093}[name].get_config("tiny")
    config.data.data_dir = datasets
    config.objective.crops.num_local = 1
    config.objective.dino.koleo, config.objective.dino.frozen_prototype_steps = 0.1, 0
    num_prototypes = 16 if name == "dino" else 0
    model = WithHead(Autoencoder(_Stem(), ProjectedBottleneck(8), None), ProjectionHead(8, 2, 8, num_prototypes))
    _assert_eight_devices_are_one(check_config(config), model, optax.sgd(0.1), tiny_set)

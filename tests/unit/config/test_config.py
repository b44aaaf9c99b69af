import importlib
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.config.stored import load_config, save_config
from bie_jax.files import integrity
from bie_jax.files.integrity import DamagedFileError
from configs import (
    ae_idr0093,
    cells,
    dino_idr0093,
    lejepa_idr0093,
    mae_idr0093,
    shape_vae_cells,
    shape_vae_mnist,
    shape_vqvae_mnist,
    simclr_idr0093,
    vae_idr0093,
    vqvae_bbbc021,
    vqvae_idr0093,
)

RECONSTRUCT = (ae_idr0093, vae_idr0093, vqvae_idr0093, mae_idr0093)
COMPARE_VIEWS = (simclr_idr0093, dino_idr0093, lejepa_idr0093)
VARIANTS = dict.fromkeys(RECONSTRUCT + COMPARE_VIEWS, ("", "simulated", "tiny"))
VARIANTS |= dict.fromkeys((cells, shape_vae_mnist, shape_vqvae_mnist, shape_vae_cells), ("", "tiny"))
ALL = {
    f"{module.__name__.removeprefix('configs.')}:{variant}": module.get_config(variant)
    for module, variants in VARIANTS.items()
    for variant in variants
} | {"vqvae_bbbc021": vqvae_bbbc021.get_config()}


@pytest.mark.parametrize("name", ALL)
def test_every_file_states_a_valid_configuration(name):
    check_config(ALL[name])


def test_no_config_file_is_left_out_here():
    files = {path.stem for path in Path(vqvae_idr0093.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert {name.split(":")[0] for name in ALL} == files
    for name in files:
        assert importlib.import_module(f"configs.{name}").__doc__.count("python launch.py") >= 1


def test_the_seeds_table():
    config = vqvae_idr0093.get_config()
    assert (config.train.epochs, config.train.batch_size, config.model.latent_dim) == (100, 64, 16)
    assert config.model.quantizer.num_codes == 16
    assert config.model.residual_stack.to_dict() == {
        "num_hiddens": 16,
        "num_residual_hiddens": 32,
        "num_residual_layers": 150,
        "num_halvings": 2,
    }
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.weight_decay) == ("lamb", 1e-3, 1e-4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "model.latent_dim",
            0,
            "config.model.latent_dim=0: expected a whole number from 1 to 65536, e.g. --config.model.latent_dim=1",
        ),
        ("model.latent_dim", 2.5, "config.model.latent_dim=2.5"),
        (
            "model.name",
            "gan",
            "config.model.name='gan': expected 'ae', 'vae', 'vqvae', 'mae', 'simclr', 'dino' or 'lejepa', e.g. ",
        ),
        ("model.encoder", "resnet9", "config.model.encoder='resnet9': .*'residual_stack', 'resnet', 'vit' or 'ring'"),
        ("model.resnet.depth", 20, "config.model.resnet.depth=20: .*18, 34, 50, 101 or 152"),
        ("model.vit.patch_size", 15, "config.model.vit.patch_size=15: .*8, 14 or 16"),
        ("model.vit.decoder_heads", 7, "decoder_width=512 is not a multiple of decoder_heads=7"),
        ("model.channels", "tokens", "channels='tokens' with encoder='residual_stack': only 'vit' has tokens"),
        ("model.channel_readout", "concat", "channel_readout='concat' with name='vqvae', channels='joint'"),
        ("model.channel_dropout", 0.5, "channel_dropout=0.5 with channels='joint': 0 is possible"),
        ("model.pretrained", "weights", "pretrained with encoder='residual_stack': only 'resnet' and 'vit'"),
        ("model.name", "mae", "encoder='residual_stack' with name='mae': only 'vit'"),
        ("model.mae.mask_ratio", 1.0, "config.model.mae.mask_ratio=1.0"),
        ("objective.contrastive.weight", 1.0, "contrastive.form='channels' with model.channels='joint'"),
        ("objective.beta", -1.0, "config.objective.beta=-1.0"),
        ("objective.fourier_weight", 0.1, "fourier_weight=0.1 with model.name='vqvae': only 'mae' reads it"),
        ("objective.free_nats", 0.1, "free_nats=0.1 with model.name='vqvae': only 'vae' reads it"),
        ("optimizer.layer_decay", 0.5, "layer_decay=0.5 with model.encoder='residual_stack'.*1.0 is possible"),
        ("train.accumulate_steps", 3, "batch_size=64 is not a multiple of accumulate_steps=3"),
        ("train.compute_dtype", "float16", "'float32' or 'bfloat16'"),
        ("optimizer.lr", -1.0, "config.optimizer.lr=-1.0"),
        ("optimizer.lr", float("nan"), "config.optimizer.lr=nan"),
        ("optimizer.lr", "fast", "config.optimizer.lr='fast'"),
        (
            "optimizer.lr",
            1e-5,
            "min_lr=0.0001 above lr=1e-05, the peak: give all, e.g. --config.optimizer.lr=1e-05 "
            "--config.optimizer.min_lr=1e-06",
        ),
        ("optimizer.min_lr", 1.0, "min_lr=1.0 above lr"),
        ("optimizer.warmup_init_lr", 1.0, "warmup_init_lr=1.0 above lr"),
        (
            "optimizer.lr",
            1e-8,
            "min_lr=0.0001 and warmup_init_lr=1e-06 above lr=1e-08, the peak: give all, e.g. "
            "--config.optimizer.lr=1e-08 --config.optimizer.min_lr=1e-09 --config.optimizer.warmup_init_lr=1e-09",
        ),
        ("train.batch_size", 0, "config.train.batch_size=0"),
        ("train.epochs", 5, "warmup_epochs=5 leaves nothing of train.epochs=5"),
        ("train.wandb", "yes", "'disabled', 'offline' or 'online'"),
        ("data.crop_size", (224, 223), r"data.crop_size=\(224, 223\): its sides must be multiples of 4"),
        ("data.crop_size", (224, 128), r"data.crop_size=\(224, 128\) with data.augment.rotate90=True"),
        ("eval.image_size", (0, 64), r"eval.image_size=\(0, 64\): \(0, 0\) means the whole image"),
        ("data.val_fraction", 1.0, "config.data.val_fraction=1.0"),
    ],
)
def test_what_cannot_run_is_refused_by_name(key, value, message):
    config = vqvae_idr0093.get_config().to_dict()
    *groups, last = key.split(".")
    target = config
    for group in groups:
        target = target[group]
    target[last] = value
    with pytest.raises(ConfigError, match=message):
        check_config(ConfigDict(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.kind": "images"}, "model.encoder='ring', model.decoder='points' with data.kind='images'"),
        ({"data.crop_size": (64, 32)}, r"crop_size=\(64, 32\).*\(P, P\) for P points"),
        ({"data.mix_with": ("cells",), "data.mix_weights": (1.0, 1.0)}, "mix_with=.* comes from one set"),
        ({"model.decoder": "mirror"}, "decoder='mirror' with encoder='ring': 'points' and 'matrix' are possible"),
        ({"model.name": "vqvae", "model.bottleneck": "grid"}, "with bottleneck='grid'.*'pooled' is possible"),
        ({"model.ring.keeps": "start"}, "reindex='start_and_direction': what it keeps would be random; 'none' is"),
        ({"model.ring.keeps": "direction"}, "what it keeps would be random; 'start' and 'none' are possible"),
        ({"eval.image_size": (32, 32)}, "an outline is seen whole"),
        ({"model.name": "mae"}, "encoder='ring' with name='mae': only 'vit'"),
        ({"train.remat": True}, "remat=True with model.encoder='ring': .*False is possible"),
        ({"objective.contrastive.form": "channels"}, "form='channels' with model.channels='joint'"),
    ],
)
def test_what_shapes_cannot_be_is_refused_by_name(changes, message):
    config = shape_vae_mnist.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_what_would_change_nothing_is_refused():
    config = vqvae_idr0093.get_config()
    config.model.quantizer.update({"name": "fsq", "levels": (8, 2), "num_codes": 16, "code_dim": 2})
    check_config(config)
    config.model.quantizer.kmeans_iterations = 5
    with pytest.raises(ConfigError, match="kmeans_iterations=5 with name='fsq': its codes are fixed"):
        check_config(config)
    config = vqvae_idr0093.get_config()
    config.model.encoder, config.model.pretrained, config.train.init_from = "resnet", "weights", "runs/other"
    config.data.crop_size = (224, 224)
    with pytest.raises(ConfigError, match="weights come from one of them"):
        check_config(config)


def test_terms_of_matrices_are_refused_for_images():
    config = vqvae_idr0093.get_config()
    config.objective.matrix.triangle = 1.0
    with pytest.raises(ConfigError, match=r"objective.matrix with data.kind='images'"):
        check_config(config)


def test_unknown_and_missing_keys_are_named():
    config = vqvae_idr0093.get_config()
    config.model.latent_dims = 16
    del config.optimizer["lr"]
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert "config.model.latent_dims=16: there is no such key" in str(error.value)
    assert "config.optimizer.lr: missing" in str(error.value)


def _vqvae(**quantizer):
    config = vqvae_idr0093.get_config("simulated").to_dict()
    config["model"]["bottleneck"] = quantizer.pop("bottleneck", "grid")
    config["model"]["quantizer"] |= quantizer
    return ConfigDict(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"bottleneck": "pooled", "code_dim": 3, "num_groups": 40},
            "latent_dim=128 with quantizer.num_groups=40 of quantizer.code_dim=3 numbers: .* must be 120",
        ),
        ({"num_codes": 64}, "latent_dim=128 with 64 codes in all codebooks .* so 64 and less are possible"),
        ({"name": "residual", "num_residuals": 3, "num_codes": 42}, "latent_dim=128 with 126 codes .* so 126 and less"),
        ({"name": "residual", "num_groups": 2}, "num_groups=2 with name='residual': 1 is possible"),
        ({"name": "fsq", "levels": (4, 4)}, r"levels=\(4, 4\): they are 16, .* and 2"),
    ],
)
def test_codes_must_fit_the_latent(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_config(_vqvae(**changes))


@pytest.mark.parametrize(
    ("quantizer", "counts"),
    [
        ({"num_codes": 200}, 200),
        ({"num_codes": 64, "num_groups": 3}, 192),
        ({"name": "residual", "num_residuals": 3, "num_codes": 64}, 192),
        ({"name": "fsq", "levels": (8, 6, 3), "num_codes": 144, "code_dim": 3}, 144),
    ],
)
def test_fewer_features_than_codes_are_principal_components(quantizer, counts):
    config = check_config(_vqvae(**quantizer))
    assert (config.model.num_code_counts, config.num_components) == (counts, 128)
    read_elsewhere = _vqvae(**quantizer)
    read_elsewhere.eval.readout = "features"
    assert check_config(read_elsewhere).num_components == 0
    assert check_config(_vqvae()).num_components == 0


def test_masking_must_leave_a_patch():
    config = mae_idr0093.get_config("tiny")
    config.data.crop_size = (16, 8)
    config.data.augment.rotate90 = False
    with pytest.raises(
        ConfigError, match=r"mask_ratio=0.75 leaves none of the 2 patches that data.crop_size=\(16, 8\)"
    ):
        check_config(config)


@pytest.mark.parametrize("changes", [{"spread": "dense"}, {"positions": "learnt"}])
def test_a_network_of_one_size_embeds_that_size(changes):
    config = ae_idr0093.get_config("simulated")
    config.model.encoder, config.model.spread = "vit", changes.get("spread", "broadcast")
    config.model.vit.positions = changes.get("positions", "sincos")
    config.eval.image_size = (64, 64)
    with pytest.raises(ConfigError, match=r"a network has one size, so only data.crop_size"):
        check_config(config)
    config.model.spread, config.model.vit.positions = "broadcast", "sincos"
    check_config(config)


def test_changing_the_latent_size_alone_is_enough():
    config = vqvae_idr0093.get_config("simulated")
    config.model.latent_dim = 32
    assert check_config(config).model.quantizer.num_codes == 32


def test_workdir_of_another_configuration_is_left_alone(tmp_path):
    config = vqvae_idr0093.get_config("tiny")
    save_config(check_config(config), tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    config.optimizer.lr = 5e-3
    with pytest.raises(ConfigError, match=r"optimizer.lr: the workdir has 0.004, this run 0.005"):
        save_config(check_config(config), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_what_does_not_change_training_may_change(tmp_path):
    config = vqvae_idr0093.get_config("tiny")
    save_config(check_config(config), tmp_path)
    config.eval.folds, config.data.data_dir = 3, "elsewhere"
    save_config(check_config(config), tmp_path)
    assert load_config(tmp_path) == check_config(config)


def test_a_folder_of_other_things_is_no_workdir(tmp_path):
    config = check_config(vqvae_idr0093.get_config("tiny"))
    for folder in ("mine", "hidden", "killed", "model"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "hidden" / ".DS_Store").touch()
    (tmp_path / "killed" / ".partial-config.json").touch()
    (tmp_path / "model" / "config.json").write_text('{"hidden_size": 768}')
    for folder in (tmp_path / "hidden", tmp_path / "killed", tmp_path / "new"):
        save_config(config, folder)
    for folder, message in (
        (tmp_path / "mine", r"holds other things than a run \(thesis.tex\); choose one that is empty"),
        (tmp_path / "mine" / "thesis.tex", "thesis.tex is a file; a run needs a folder of its own"),
        (tmp_path / "mine" / "thesis.tex" / "run", "thesis.tex is a file; a run needs a folder of its own"),
        (tmp_path / "model", "config.json is not of a run: expected the groups data, model"),
        (Path("/"), "the folder holds other things than a run"),
        (Path(vqvae_idr0093.__file__).parent.parent, r"holds other things than a run .* and \d+ more"),
    ):
        with pytest.raises(ConfigError, match=message):
            save_config(config, folder)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ['{"data": ', "[]", "\x00"])
def test_a_damaged_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DamagedFileError, match=r"config.json is damaged \(.*\): restore it from a copy"):
        load_config(tmp_path)


def test_a_configuration_of_another_version_says_what_to_do(tmp_path):
    config = vqvae_idr0093.get_config("tiny")
    save_config(check_config(config), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["eval"]["invariance_objects"]
    integrity.write_json(tmp_path / "config.json", stored)
    with pytest.raises(ConfigError, match=r"not of this version; give the configuration too .*\n.*invariance_objects"):
        load_config(tmp_path)
    save_config(check_config(config), tmp_path)
    assert load_config(tmp_path) == check_config(config)


def test_no_workdir(tmp_path):
    with pytest.raises(ConfigError, match="nothing was trained there"):
        load_config(tmp_path)

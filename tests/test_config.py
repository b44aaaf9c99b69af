import importlib
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from bie_jax.config import ConfigError, check_config, load_config, save_config
from configs import vqvae_bbbc021, vqvae_idr0093

ALL = {
    "vqvae_idr0093": vqvae_idr0093.get_config(),
    "vqvae_idr0093:simulated": vqvae_idr0093.get_config("simulated"),
    "vqvae_idr0093:tiny": vqvae_idr0093.get_config("tiny"),
    "vqvae_bbbc021": vqvae_bbbc021.get_config(),
}


@pytest.mark.parametrize("name", ALL)
def test_every_file_states_a_valid_configuration(name):
    check_config(ALL[name])


def test_no_config_file_is_left_out_here():
    files = {path.stem for path in Path(vqvae_idr0093.__file__).parent.glob("*.py")} - {"__init__"}
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
        ("model.latent_dim", 0, "config.model.latent_dim=0: .*greater than or equal to 1"),
        ("model.latent_dim", 2.5, "config.model.latent_dim=2.5"),
        ("model.encoder", "resnet9", "config.model.encoder='resnet9': .*'residual_stack' or 'resnet'"),
        ("model.resnet.depth", 50, "config.model.resnet.depth=50: .*18 or 34"),
        ("optimizer.lr", -1.0, "config.optimizer.lr=-1.0"),
        ("optimizer.lr", float("nan"), "config.optimizer.lr=nan"),
        ("optimizer.lr", "fast", "config.optimizer.lr='fast'"),
        ("optimizer.min_lr", 1.0, "min_lr=1.0 is above lr"),
        ("train.batch_size", 0, "config.train.batch_size=0"),
        ("train.epochs", 5, "warmup_epochs=5 leaves nothing of train.epochs=5"),
        ("train.wandb", "yes", "'disabled', 'offline' or 'online'"),
        ("data.crop_size", 223, "data.crop_size=223 is not a multiple of 4"),
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


def test_unknown_and_missing_keys_are_named():
    config = vqvae_idr0093.get_config()
    config.model.latent_dims = 16
    del config.optimizer["lr"]
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert "config.model.latent_dims=16: there is no such key" in str(error.value)
    assert "config.optimizer.lr: missing" in str(error.value)


@pytest.mark.parametrize(
    ("bottleneck", "num_codes", "code_dim", "message"),
    [
        ("grouped", 128, 3, r"latent_dim=128 is not a multiple of quantizer.code_dim=3"),
        ("grid", 64, 16, r"latent_dim=128 with quantizer.num_codes=64"),
    ],
)
def test_codes_must_fit_the_latent(bottleneck, num_codes, code_dim, message):
    config = vqvae_idr0093.get_config("simulated").to_dict()
    config["model"]["bottleneck"] = bottleneck
    config["model"]["quantizer"] |= {"num_codes": num_codes, "code_dim": code_dim}
    with pytest.raises(ConfigError, match=message):
        check_config(ConfigDict(config))


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


def test_no_workdir(tmp_path):
    with pytest.raises(ConfigError, match="nothing was trained there"):
        load_config(tmp_path)

"""Every key: changed where nothing reads it, it is refused; changed where something does, it is not."""

import pytest
from ml_collections import ConfigDict

from bie_jax.config.faults import numbers_of
from bie_jax.config.readers import READERS, refuse_unread, unread
from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, ConfigError
from bie_jax.config.stored import flatten
from configs import base, dino_idr0093, lejepa_idr0093, shape_vqvae_mnist, simclr_idr0093, vqvae_idr0093
from tests.unit.config.test_config import ALL

pytestmark = pytest.mark.slow

ENDS = {key: (low, high) for key, low, high in numbers_of(Config)}


def _other(key, value):
    """Another value of the same type; that it fits the others is of no importance here."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        low, high = ENDS.get(key, (0, 10**6))
        return type(value)(high if value != high else low)
    if isinstance(value, tuple):
        return tuple(2 * part or 1 for part in value) or ("another",)
    return value + "other"


def _changed(config, key, value):
    *groups, last = key.split(".")
    # `model_copy` checks nothing, so that one key is changed and nothing follows it.
    parts = [config]
    for name in groups:
        parts.append(getattr(parts[-1], name))
    new = parts[-1].model_copy(update={last: value})
    for name, part in zip(reversed(groups), reversed(parts[:-1]), strict=True):
        new = part.model_copy(update={name: new})
    return new


@pytest.mark.parametrize("name", ALL)
def test_every_key_that_is_not_read_is_refused_if_it_is_changed(name):
    config = check_config(ALL[name])
    not_read = dict(unread(config))
    refuse_unread(config, [ALL[name]])
    for key, value in flatten(config.model_dump()).items():
        changed = _changed(config, key, _other(key, value))
        if key in not_read:
            with pytest.raises(ConfigError) as error:
                refuse_unread(changed, [ALL[name]])
            assert f"config.{key}={flatten(changed.model_dump())[key]!r} is read only by" in str(error.value)
            assert not_read[key] in str(error.value)
        elif key not in ("data.kind", "model.name", "model.encoder", "model.decoder", "data.num_folds"):
            assert key not in dict(unread(changed))


@pytest.mark.parametrize("name", ALL)
def test_files_of_configs_hold_nothing_but_what_base_states(name):
    refuse_unread(check_config(ALL[name]), base.tables())


def test_every_key_of_a_reader_is_a_key():
    keys = list(flatten(vqvae_idr0093.get_config().to_dict()))
    for reader in READERS:
        for part in reader.keys:
            assert any(key == part or key.startswith(f"{part}.") for key in keys), part


def test_every_reader_reads_in_some_configuration():
    changes = (
        {},
        {"model.name": "vae"},
        {
            "eval.profile.treatment": ("sirna",),
            "eval.profile.steps": ("normalize", "select", "components", "sphere", "tvn"),
        },
        {"model.encoder": "resnet", "model.name": "ae"},
        {"model.encoder": "vit", "model.channels": "tokens", "model.name": "mae", "data.num_folds": 2},
        {"model.quantizer.name": "residual", "model.latent_dim": 64, "model.quantizer.num_codes": 16},
        {"model.quantizer.name": "gradient", "optimizer.name": "sgd"},
        {
            "model.quantizer.name": "fsq",
            "model.quantizer.levels": (8, 2),
            "model.quantizer.code_dim": 2,
        },
        {
            "objective.contrastive.weight": 1.0,
            "objective.contrastive.form": "replicates",
            "data.mix_with": ("other",),
            "data.mix_weights": (1.0, 2.0),
            "eval.published": "dinov2-small",
        },
    )
    read = set()
    for change in changes:
        config = vqvae_idr0093.get_config()
        config.update_from_flattened_dict(change)
        read |= {reader for reader in READERS if reader.reads(check_config(config))}
    taught = {
        "data.positives": "treatment",
        "data.held_out": ("plate_0",),
        "objective.crops.num_local": 1,
        "objective.dino.teacher_temperature_steps": 1,
    }
    for module, change in ((simclr_idr0093, {}), (lejepa_idr0093, {}), (dino_idr0093, taught), (shape_vqvae_mnist, {})):
        config = module.get_config("tiny")
        config.update_from_flattened_dict(change)
        read |= {reader for reader in READERS if reader.reads(check_config(config))}
    assert [reader.keys for reader in READERS if reader not in read] == []


def test_what_follows_another_key_may_follow_it():
    config = vqvae_idr0093.get_config("tiny")
    config.model.name, config.model.latent_dim = "vae", 33
    assert config.model.quantizer.num_codes == 33
    refuse_unread(check_config(config), base.tables())


def test_the_message_says_what_to_leave_it_at():
    config = vqvae_idr0093.get_config()
    config.objective.beta = 4.0
    with pytest.raises(ConfigError) as error:
        refuse_unread(check_config(config), [vqvae_idr0093.get_config()])
    assert str(error.value) == "config.objective.beta=4.0 is read only by model.name='vae'; leave it at 1.0"


def test_a_list_is_as_good_as_a_tuple():
    config = vqvae_idr0093.get_config().to_dict()
    config["data"]["mix_weights"] = [1.0]
    refuse_unread(check_config(ConfigDict(config)), base.tables())


@pytest.mark.parametrize(
    ("stated", "changed"),
    [
        (
            {"model.quantizer.kmeans_iterations": 5},
            {"model.quantizer.name": "fsq", "model.quantizer.kmeans_iterations": 0},
        ),
        ({"data.num_folds": 3, "data.fold": 1}, {"data.num_folds": 0, "data.fold": 0}),
        ({"model.name": "vae", "objective.free_nats": 0.5}, {"model.name": "ae", "objective.free_nats": 0.0}),
    ],
)
def test_what_must_be_off_can_be_switched_off(stated, changed):
    """What a rule asks for is not refused as something that nobody reads."""
    config = vqvae_idr0093.get_config()
    config.update_from_flattened_dict({"model.quantizer.levels": (8, 2), "model.quantizer.code_dim": 2} | stated)
    file = ConfigDict(config.to_dict())
    config.update_from_flattened_dict(changed)
    refuse_unread(check_config(config), [file])

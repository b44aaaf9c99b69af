"""When a key of a configuration is read: by which method, encoder, quantizer, optimizer or kind of set.

Every file states every key, so most files hold values that their run never looks at. That is no fault; a value that
somebody changed, and that changes nothing, is one. A key that has to be off where nobody reads it (0, "", 1.0) is not
listed here: `rules` refuse any other value.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from bie_jax.config.schema import Config, ConfigError
from bie_jax.config.stored import flatten


class Reader(NamedTuple):
    """Keys that are not always read.

    Attributes:
        keys: a key, or a group with all that is in it.
        by: who reads them, as it stands in a message.
        reads: whether a configuration has such a reader.
    """

    keys: tuple[str, ...]
    by: str
    reads: Callable[[Config], bool]


_COMPARE_VIEWS = ("simclr", "dino", "lejepa")


def _spreads_a_vector(config: Config) -> bool:
    model = config.model
    if model.name == "vqvae":
        return model.bottleneck == "pooled"
    return model.name in ("ae", "vae") or (model.name in _COMPARE_VIEWS and model.decoder != "none")


def _compares_views(config: Config) -> bool:
    return config.model.name in _COMPARE_VIEWS


def _learns_codes(config: Config, *names: str) -> bool:
    return config.model.name == "vqvae" and config.model.quantizer.name in names


# A key may stand in several lines: it is read where all of them say so. What stands in none is always read.
READERS = (
    Reader(
        ("data.normalization", "data.normalization_scope", "data.augment"),
        "data.kind='images'",
        lambda c: c.data.kind == "images",
    ),
    Reader(
        ("data.outline", "eval.invariance_objects", "eval.invariance_side_px"),
        "data.kind='shapes'",
        lambda c: c.data.kind == "shapes",
    ),
    Reader(("data.mix_weights",), "a mixture (data.mix_with)", lambda c: bool(c.data.mix_with)),
    Reader(("data.held_out_by",), "data.held_out", lambda c: bool(c.data.held_out)),
    Reader(("data.treatment",), "data.positives='treatment'", lambda c: c.data.positives == "treatment"),
    Reader(("data.val_fraction",), "data.num_folds=0", lambda c: c.data.num_folds == 0),
    Reader(("model.residual_stack",), "model.encoder='residual_stack'", lambda c: c.model.encoder == "residual_stack"),
    Reader(("model.resnet",), "model.encoder='resnet'", lambda c: c.model.encoder == "resnet"),
    Reader(("model.ring",), "model.encoder='ring'", lambda c: c.model.encoder == "ring"),
    Reader(("model.vit",), "model.encoder='vit'", lambda c: c.model.encoder == "vit"),
    Reader(
        ("model.vit.decoder_width", "model.vit.decoder_depth", "model.vit.decoder_heads"),
        "model.decoder='mirror'",
        lambda c: c.model.decoder == "mirror",
    ),
    Reader(("model.bottleneck", "model.quantizer"), "model.name='vqvae'", lambda c: c.model.name == "vqvae"),
    Reader(
        ("model.spread",),
        "model.name='ae', 'vae', 'vqvae' with model.bottleneck='pooled', and others with a model.decoder",
        _spreads_a_vector,
    ),
    Reader(
        ("model.quantizer.num_residuals",),
        "model.quantizer.name='residual'",
        lambda c: _learns_codes(c, "residual"),
    ),
    Reader(("model.quantizer.levels",), "model.quantizer.name='fsq'", lambda c: _learns_codes(c, "fsq")),
    Reader(
        (
            "model.quantizer.commitment_cost",
            "model.quantizer.ema_decay",
            "model.quantizer.restart_threshold",
        ),
        "model.quantizer.name='ema', 'gradient' and 'residual'",
        lambda c: _learns_codes(c, "ema", "gradient", "residual"),
    ),
    Reader(
        ("model.quantizer.codebook_cost",),
        "model.quantizer.name='gradient'",
        lambda c: _learns_codes(c, "gradient"),
    ),
    Reader(("model.mae",), "model.name='mae'", lambda c: c.model.name == "mae"),
    Reader(("model.head", "objective.crops"), "model.name='simclr', 'dino' and 'lejepa'", _compares_views),
    Reader(("model.head.num_prototypes", "objective.dino"), "model.name='dino'", lambda c: c.model.name == "dino"),
    Reader(("objective.simclr",), "model.name='simclr'", lambda c: c.model.name == "simclr"),
    Reader(("objective.lejepa",), "model.name='lejepa'", lambda c: c.model.name == "lejepa"),
    Reader(
        ("objective.crops.local_size", "objective.crops.local_area"),
        "objective.crops.num_local above 0",
        lambda c: c.objective.crops.num_local > 0,
    ),
    Reader(
        ("objective.dino.teacher_temperature_start",),
        "objective.dino.teacher_temperature_steps above 0",
        lambda c: c.objective.dino.teacher_temperature_steps > 0,
    ),
    Reader(
        ("objective.dino.center_momentum",),
        "objective.dino.targets='center'",
        lambda c: c.objective.dino.targets == "center",
    ),
    Reader(("objective.beta",), "model.name='vae'", lambda c: c.model.name == "vae"),
    Reader(
        ("objective.contrastive.form", "objective.contrastive.temperature", "objective.contrastive.treatment"),
        "objective.contrastive.weight above 0",
        lambda c: c.objective.contrastive.weight > 0,
    ),
    Reader(
        ("objective.contrastive.temperature",),
        "objective.contrastive.form='views', 'channels' and 'replicates'",
        lambda c: c.objective.contrastive.form != "pull",
    ),
    Reader(
        ("objective.contrastive.treatment",),
        "objective.contrastive.form='replicates'",
        lambda c: c.objective.contrastive.form == "replicates",
    ),
    Reader(("optimizer.momentum",), "optimizer.name='sgd'", lambda c: c.optimizer.name == "sgd"),
    Reader(
        ("optimizer.beta1", "optimizer.beta2"),
        "optimizer.name='lamb' and 'adamw'",
        lambda c: c.optimizer.name in ("lamb", "adamw"),
    ),
    Reader(
        ("optimizer.decay_biases_and_norms",),
        "optimizer.name='lamb', and by the others with optimizer.weight_decay above 0",
        lambda c: c.optimizer.name == "lamb" or c.optimizer.weight_decay > 0,
    ),
    Reader(
        ("optimizer.weight_decay_growth",),
        "optimizer.weight_decay above 0",
        lambda c: c.optimizer.weight_decay > 0,
    ),
    Reader(("optimizer.warmup_init_lr",), "optimizer.warmup_epochs above 0", lambda c: c.optimizer.warmup_epochs > 0),
    Reader(("eval.cell_count_channel",), "data.kind='images'", lambda c: c.data.kind == "images"),
    Reader(
        (
            "eval.profile.mechanism",
            "eval.profile.compound",
            "eval.profile.concentration",
            "eval.profile.batch",
            "eval.profile.replicates_differ_in",
            "eval.profile.well_statistic",
            "eval.profile.treatment_statistic",
            "eval.profile.steps",
            "eval.profile.normalize",
            "eval.profile.components",
            "eval.profile.select",
            "eval.profile.sphere",
            "eval.profile.tvn_regularization",
            "eval.profile.null_size",
        ),
        "eval.profile.treatment",
        lambda c: bool(c.eval.profile.treatment),
    ),
    Reader(
        ("eval.profile.normalize",),
        "'normalize' in eval.profile.steps",
        lambda c: "normalize" in c.eval.profile.steps,
    ),
    Reader(("eval.profile.select",), "'select' in eval.profile.steps", lambda c: "select" in c.eval.profile.steps),
    Reader(
        ("eval.profile.components",),
        "'components' in eval.profile.steps",
        lambda c: "components" in c.eval.profile.steps,
    ),
    Reader(("eval.profile.sphere",), "'sphere' in eval.profile.steps", lambda c: "sphere" in c.eval.profile.steps),
    Reader(
        ("eval.profile.tvn_regularization",),
        "'tvn' in eval.profile.steps",
        lambda c: "tvn" in c.eval.profile.steps,
    ),
    Reader(
        ("eval.published_channels", "eval.published_components"), "eval.published", lambda c: bool(c.eval.published)
    ),
    Reader(("eval.invariance_side_px",), "eval.invariance_objects above 0", lambda c: c.eval.invariance_objects > 0),
)
# Keys that configs/base.py lets follow another one.
_FOLLOWS = {"model.quantizer.num_codes": "model.latent_dim"}


def unread(config: Config) -> Iterator[tuple[str, str]]:
    """(key, who would read it) of every key that a run does not look at."""
    for key in flatten(config.model_dump(mode="json")):
        missing = (
            reader.by
            for reader in READERS
            if any(key == part or key.startswith(f"{part}.") for part in reader.keys) and not reader.reads(config)
        )
        by = next(missing, None)
        if by is not None:
            yield key, by


def refuse_unread(config: Config, stated: Sequence[ConfigDict]) -> None:
    """Refuse a value that nothing reads, unless it is one that was there before anybody changed it.

    Args:
        config: the checked configuration.
        stated: tables that say what a key holds where nobody reads it.

    Raises:
        ConfigError: one line for each key, with the value, its reader and the value to leave it at.
    """
    values = _comparable(config.model_dump())
    tables = [_comparable(table.to_dict()) for table in stated]
    faults = []
    for key, by in unread(config):
        idle = [table[key] for table in tables if key in table]
        if values[key] in idle or (key in _FOLLOWS and values[key] == values[_FOLLOWS[key]]):
            continue
        leave = f"; leave it at {idle[0]!r}" if idle else ""
        faults.append(f"config.{key}={values[key]!r} is read only by {by}{leave}")
    if faults:
        raise ConfigError("\n".join(faults))


def _comparable(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A file may write a list where another writes a tuple."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in flatten(dict(tree)).items()}

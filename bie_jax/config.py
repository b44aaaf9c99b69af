"""What a configuration may hold: every key, its type, its range, and which combinations make sense.

Configurations are `ml_collections` files under `configs/`; this schema is what they are checked against before a device
is touched. There are no defaults here: every file states every key.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from ml_collections import ConfigDict
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic import ConfigDict as PydanticConfig

from bie_jax.models import encoder_stride

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Lists too: JSON has no tuples.
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]
Weights = Annotated[tuple[PositiveFloat, ...], Field(strict=False)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names each key, its value and what is allowed."""


class _Group(BaseModel):
    # strict: "3" is no number and 2.5 no int; forbid: a key that nothing reads is a typo.
    model_config = PydanticConfig(strict=True, extra="forbid", frozen=True)


class AugmentConfig(_Group):
    """Random changes of a training view."""

    flip: bool
    rotate90: bool
    brightness: Annotated[float, Field(ge=0, lt=1)]


class DataConfig(_Group):
    """Which sets, and how their pixels reach the model."""

    name: Annotated[str, Field(min_length=1)]
    mix_with: Names
    mix_weights: Weights
    data_dir: Annotated[str, Field(min_length=1)]
    crop_size: PositiveInt
    normalization: Literal["zscore", "percentile", "percentile_clip"]
    normalization_scope: Literal["set", "plate", "image"]
    val_fraction: OpenFraction
    num_folds: NonNegativeInt
    fold: NonNegativeInt
    split_by: Annotated[str, Field(min_length=1)]
    read_threads: PositiveInt
    augment: AugmentConfig

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if len(self.mix_weights) != 1 + len(self.mix_with):
            raise ValueError(
                f"mix_weights={self.mix_weights} for {1 + len(self.mix_with)} sets (name, mix_with): one for each"
            )
        if len({self.name, *self.mix_with}) <= len(self.mix_with):
            raise ValueError(f"mix_with={self.mix_with} with name={self.name!r}: a set is named twice")
        if self.num_folds == 1 or (self.num_folds == 0 and self.fold) or 0 < self.num_folds <= self.fold:
            raise ValueError(
                f"fold={self.fold} of num_folds={self.num_folds}: expected num_folds 0 (val_fraction is held out) and "
                "fold 0, or num_folds of 2 and more and a fold from 0 on"
            )
        return self


class QuantizerConfig(_Group):
    """The codebook."""

    num_codes: Annotated[int, Field(ge=2)]
    code_dim: PositiveInt
    commitment_cost: NonNegativeFloat
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    restart_threshold: Annotated[float, Field(ge=0, lt=1)]


class ResidualStackConfig(_Group):
    """Sizes of the seed's encoder and decoder."""

    num_hiddens: Annotated[int, Field(ge=2, multiple_of=2)]
    num_residual_hiddens: PositiveInt
    num_residual_layers: PositiveInt
    num_halvings: Annotated[int, Field(ge=1, le=6)]


class ResNetConfig(_Group):
    """Which ResNet."""

    depth: Literal[18, 34]


class ModelConfig(_Group):
    """The network."""

    name: Literal["vqvae"]
    encoder: Literal["residual_stack", "resnet"]
    residual_stack: ResidualStackConfig
    resnet: ResNetConfig
    latent_dim: PositiveInt
    bottleneck: Literal["grid", "grouped"]
    quantizer: QuantizerConfig

    @model_validator(mode="after")
    def _latent_fits_codes(self) -> Self:
        if self.bottleneck == "grid" and self.latent_dim != self.quantizer.num_codes:
            raise ValueError(
                f"latent_dim={self.latent_dim} with quantizer.num_codes={self.quantizer.num_codes}: bottleneck='grid' "
                "embeds an image by how often each code occurs in it, so the two must be equal"
            )
        if self.bottleneck == "grouped" and self.latent_dim % self.quantizer.code_dim:
            raise ValueError(
                f"latent_dim={self.latent_dim} is not a multiple of quantizer.code_dim={self.quantizer.code_dim}, "
                "and bottleneck='grouped' cuts it into groups of that length"
            )
        return self


class ObjectiveConfig(_Group):
    """What is minimised."""

    name: Literal["vqvae"]


class OptimizerConfig(_Group):
    """The optimiser and its schedule."""

    name: Literal["lamb", "adamw"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat
    clip_norm: PositiveFloat
    warmup_epochs: NonNegativeInt
    warmup_init_lr: NonNegativeFloat
    min_lr: NonNegativeFloat
    cooldown_epochs: NonNegativeInt

    @model_validator(mode="after")
    def _floor_under_peak(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr={self.min_lr} is above lr={self.lr}")
        return self


class TrainConfig(_Group):
    """The loop."""

    seed: NonNegativeInt
    epochs: PositiveInt
    batch_size: PositiveInt
    log_every_steps: PositiveInt
    eval_every_epochs: PositiveInt
    checkpoint_every_steps: PositiveInt
    early_stopping_patience_epochs: NonNegativeInt
    num_reconstructions: PositiveInt
    wandb: Literal["disabled", "offline", "online"]


class EvalConfig(_Group):
    """Embedding and scores."""

    batch_size: PositiveInt
    image_size: NonNegativeInt
    label: Annotated[str, Field(min_length=1)]
    group: Annotated[str, Field(min_length=1)]
    probe_control: str
    folds: Annotated[int, Field(ge=2)]
    knn_k: PositiveInt
    bootstrap: PositiveInt
    umap: bool
    classical_baseline: bool
    max_report_points: PositiveInt
    seed: NonNegativeInt


class Config(_Group):
    """A whole run."""

    data: DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    eval: EvalConfig

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.optimizer.warmup_epochs >= self.train.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs={self.optimizer.warmup_epochs} leaves nothing of "
                f"train.epochs={self.train.epochs} for the cosine"
            )
        stride = encoder_stride(self.model)
        for key, size in (("data.crop_size", self.data.crop_size), ("eval.image_size", self.eval.image_size)):
            if size % stride:
                raise ValueError(
                    f"{key}={size} is not a multiple of {stride}, the stride of model.encoder='{self.model.encoder}'"
                )
        if self.model.bottleneck == "grouped" and self.eval.image_size not in (0, self.data.crop_size):
            raise ValueError(
                f"eval.image_size={self.eval.image_size}: model.bottleneck='grouped' has a decoder of fixed size, "
                f"so only data.crop_size={self.data.crop_size} (or 0, which means it) is possible"
            )
        return self


def check_config(config: ConfigDict) -> Config:
    """Refuse what cannot run.

    Returns:
        The same values, typed and frozen: what all code behind this point reads.

    Raises:
        ConfigError: one line per fault, each with the key, the value and what is allowed.
    """
    try:
        return Config.model_validate(config.to_dict())
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(fault) for fault in error.errors())) from None


def _describe(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"config.{key}={fault['input']!r}: there is no such key"
    if fault["type"] == "missing":
        return f"config.{key}: missing; every file states every key"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":  # a combination: its message names the keys
        return f"config{'.' + key if key else ''}: {message}"
    return f"config.{key}={fault['input']!r}: {message}"


# Keys that may differ between two runs of one workdir: where things lie and how they are scored, not what is trained.
_FREE_KEYS = ("data.data_dir", "data.read_threads", "train.wandb")


def save_config(config: Config, workdir: Path) -> None:
    """Write `config.json`, or hold the configuration against the one that is there.

    The `eval` group may change between calls, and so may keys that say only where things lie.

    Raises:
        ConfigError: if the workdir was made by another configuration; nothing is overwritten.
    """
    path = workdir / "config.json"
    if path.exists():
        before, now = _flatten(_read(workdir)), _flatten(config.model_dump(mode="json"))
        differing = [
            f"config.{key}: the workdir has {before.get(key, 'no such key')!r}, "
            f"this run {now.get(key, 'no such key')!r}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and not key.startswith("eval.") and key not in _FREE_KEYS
        ]
        if differing:
            raise ConfigError(
                f"{workdir} was made by another configuration; choose another --workdir, or remove that one:\n"
                + "\n".join(differing)
            )
    workdir.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(config.model_dump(mode="json"), indent=2) + "\n")
    os.replace(partial, path)


def load_config(workdir: Path) -> Config:
    """The configuration that made a workdir.

    Raises:
        ConfigError: if there is none, or if it is of another version of this program.
    """
    return check_config(ConfigDict(_read(workdir)))


def _read(workdir: Path) -> dict[str, Any]:
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise ConfigError(f"{workdir} holds no config.json: nothing was trained there")
    return json.loads(path.read_text())


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

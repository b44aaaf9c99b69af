"""What a configuration may hold: every key, its type, its range, and which combinations make sense.

Configurations are `ml_collections` files under `configs/`; this schema is what they are checked against before a device
is touched. There are no defaults here: every file states every key.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from ml_collections import ConfigDict
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from pydantic import ConfigDict as PydanticConfig
from pydantic_core import PydanticCustomError

from bie_jax.config.faults import Allowed, describe_faults, one_of
from bie_jax.files import integrity
from bie_jax.files.foreign_text import visible
from bie_jax.models import encoder_stride, has_fixed_size
from bie_jax.models.decoders import matrix
from bie_jax.models.encoders import ring

CONFIG = "config.json"  # of a run's folder
# Keys that runs begun before did not have, (group, key), and what those runs did: they go on as they began.
_ADDED = {("model", "cpu_kernels"): True}
_RESTORE = "restore it from a copy"


def _refused() -> PydanticCustomError:
    """By a validator below; the message is made of what is allowed (`config_faults`)."""
    return PydanticCustomError("refused", "refused")


def _is_text(text: str) -> str:
    """No control characters, which no file name has, and no bytes that are no UTF-8 (lone surrogates)."""
    if visible(text) != text:
        raise _refused()
    return text


def _is_folder_name(text: str) -> str:
    if text in (".", "..") or "/" in text or "\\" in text:
        raise _refused()
    return text


def _is_felt(value: float) -> float:
    """0, or more than rounds to it in single precision, where it would be 0 in silence."""
    if 0 < value < LEAST:
        raise _refused()
    return value


# Every number has an upper and a lower end, inside of which all stages work; what needs more memory than there is, or
# does not fit a set, is refused where that is known (`preflight`). LEAST and MOST: single precision has room beyond.
LEAST, MOST = 1e-12, 1e6


def _whole(low: int, high: int, **more: Any) -> Any:
    return Field(ge=low, le=high, **more)


def _real(low: float, high: float) -> Any:
    return Field(ge=low, le=high, allow_inf_nan=False)


Seed = Annotated[int, _whole(0, 2**31 - 1)]  # numpy, scikit-learn and Grain take no more than 32 bits
Epochs = Annotated[int, _whole(0, 100_000)]
PositiveEpochs = Annotated[int, _whole(1, 100_000)]
Steps = Annotated[int, _whole(0, 10**9)]
PositiveSteps = Annotated[int, _whole(1, 10**9)]
BatchSize = Annotated[int, _whole(1, 2**20)]
Side = Annotated[int, _whole(1, 2**15)]  # pixels
Width = Annotated[int, _whole(1, 2**16)]  # numbers in a vector, or vectors
Depth = Annotated[int, _whole(1, 1000)]  # layers, one after the other
Weight = Annotated[
    float, _real(0, MOST), AfterValidator(_is_felt), Allowed(f"0, or a number from {LEAST:g} to {MOST:.0f}", 0.1)
]
PositiveWeight = Annotated[float, _real(LEAST, MOST)]
# Of an average or of momentum; 1 would never change, and single precision takes more nines for it.
Decay = Annotated[float, _real(0, 0.999999)]
Rate = Annotated[float, _real(0, 100), AfterValidator(_is_felt), Allowed(f"0, or a number from {LEAST:g} to 100", 1e-5)]
Share = Annotated[float, _real(0.0001, 0.9999)]
Amount = Annotated[float, _real(0, 0.9999)]
Text = Annotated[str, Field(max_length=4096), AfterValidator(_is_text)]
Name = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_is_text)]
SetName = Annotated[
    str,
    Field(min_length=1, max_length=200),
    AfterValidator(_is_text),
    AfterValidator(_is_folder_name),
    Allowed("the name of a folder, without a path", "my_set", "names of folders, without a path,"),
]
# Lists too: JSON has no tuples.
Names = Annotated[tuple[Name, ...], Field(strict=False, max_length=1000)]
SetNames = Annotated[tuple[SetName, ...], Field(strict=False, max_length=100)]
Weights = Annotated[tuple[PositiveWeight, ...], Field(strict=False, min_length=1, max_length=101)]
Levels = Annotated[tuple[Annotated[int, _whole(2, 1024)], ...], Field(strict=False, min_length=1, max_length=16)]
Size = Annotated[tuple[Side, Side], Field(strict=False)]  # (height, width), pixels
PartSize = Annotated[  # the same; (0, 0): all of it
    tuple[Annotated[int, _whole(0, 2**15)], Annotated[int, _whole(0, 2**15)]], Field(strict=False)
]


def _known_method(name: str) -> str:
    from bie_jax.objectives import METHODS

    if name not in METHODS:
        raise _refused()
    return name


MethodName = Annotated[str, AfterValidator(_known_method), one_of(("ae", "vae", "vqvae", "mae"))]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names each key, its value and what is allowed."""


class _Group(BaseModel):
    # strict: "3" is no number and 2.5 no int; forbid: a key that nothing reads is a typo.
    model_config = PydanticConfig(strict=True, extra="forbid", frozen=True)


class AugmentConfig(_Group):
    """Random changes of a training view."""

    flip: bool
    rotate90: bool
    brightness: Amount


class OutlineConfig(_Group):
    """Random changes of a training view of an outline; read when data.kind is "shapes"."""

    reindex: Literal["none", "start", "start_and_direction"]
    noise: Amount
    stretch: Amount
    unevenness: Amount


class DataConfig(_Group):
    """Which sets, and how their pixels reach the model."""

    kind: Literal["images", "shapes"]
    name: SetName
    mix_with: SetNames
    mix_weights: Weights
    data_dir: Name
    crop_size: Size
    normalization: Literal["zscore", "percentile", "percentile_clip"]
    normalization_scope: Literal["set", "plate", "image"]
    val_fraction: Share
    num_folds: Annotated[int, _whole(0, 1000)]
    fold: Annotated[int, _whole(0, 999)]
    split_by: Name
    read_threads: Annotated[int, _whole(1, 128)]  # each holds two batches
    augment: AugmentConfig
    outline: OutlineConfig

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.kind == "shapes" and (self.mix_with or self.crop_size[0] != self.crop_size[1]):
            raise ValueError(
                f"crop_size={self.crop_size}, mix_with={self.mix_with} with kind='shapes': a matrix has as many rows "
                "as columns, (P, P) for P points, and comes from one set"
            )
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
    """How continuous vectors become codes; read when model.name is "vqvae"."""

    name: Literal["ema", "gradient", "residual", "fsq"]
    num_codes: Width
    code_dim: Width
    num_groups: Width
    num_residuals: Annotated[int, _whole(1, 64)]
    levels: Levels
    commitment_cost: Weight
    codebook_cost: Weight
    ema_decay: Decay
    restart_threshold: Amount
    kmeans_iterations: Annotated[int, _whole(0, 1000)]

    @property
    def num_codebooks(self) -> int:
        """Codes that one vector becomes: G."""
        return {"ema": self.num_groups, "gradient": self.num_groups, "residual": self.num_residuals, "fsq": 1}[
            self.name
        ]

    @property
    def vector_dim(self) -> int:
        """Numbers that are quantized together."""
        return self.num_groups * self.code_dim

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.name in ("residual", "fsq") and self.num_groups != 1:
            raise ValueError(f"num_groups={self.num_groups} with name={self.name!r}: 1 is possible")
        if self.name == "fsq" and (self.num_codes, self.code_dim) != (math.prod(self.levels), len(self.levels)):
            raise ValueError(
                f"num_codes={self.num_codes} and code_dim={self.code_dim} with name='fsq', levels={self.levels}: they "
                f"are {math.prod(self.levels)}, the product of the levels, and {len(self.levels)}, their number"
            )
        if self.name == "fsq" and self.kmeans_iterations:
            raise ValueError(
                f"kmeans_iterations={self.kmeans_iterations} with name='fsq': its codes are fixed; 0 is possible"
            )
        return self


class ResidualStackConfig(_Group):
    """Sizes of the seed's encoder and decoder."""

    num_hiddens: Annotated[int, _whole(2, 2**16, multiple_of=2)]
    num_residual_hiddens: Width
    num_residual_layers: Depth
    num_halvings: Annotated[int, _whole(1, 6)]


class ResNetConfig(_Group):
    """Which ResNet."""

    depth: Literal[18, 34, 50, 101, 152]
    padding: Literal["zeros", "circular"]


class RingConfig(_Group):
    """The network over the ring of an outline's points."""

    width: Width
    depth: Depth
    kernel_size: Literal[1, 3, 5, 7, 9, 11, 13, 15]
    keeps: Literal["nothing", "direction", "start"]


class ViTConfig(_Group):
    """Which vision transformer, and its decoder."""

    size: Literal["Ti", "S", "B", "L", "H"]
    patch_size: Literal[8, 14, 16]
    positions: Literal["sincos", "learnt"]
    layer_scale: bool
    decoder_width: Annotated[int, _whole(4, 2**16, multiple_of=4)]
    decoder_depth: Depth
    decoder_heads: Annotated[int, _whole(1, 1024)]

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"decoder_width={self.decoder_width} is not a multiple of decoder_heads={self.decoder_heads}"
            )
        return self


class MAEConfig(_Group):
    """Masking; read when model.name is "mae"."""

    mask_ratio: Share
    norm_pix_loss: bool


class ModelConfig(_Group):
    """The network."""

    name: MethodName
    encoder: Literal["residual_stack", "resnet", "vit", "ring"]
    decoder: Literal["mirror", "points", "matrix"]
    pretrained: Text
    channels: Literal["joint", "independent", "tokens"]
    channel_readout: Literal["mean", "concat"]
    channel_dropout: Amount
    residual_stack: ResidualStackConfig
    resnet: ResNetConfig
    ring: RingConfig
    vit: ViTConfig
    latent_dim: Width
    bottleneck: Literal["grid", "pooled"]
    spread: Literal["dense", "broadcast"]
    quantizer: QuantizerConfig
    mae: MAEConfig
    cpu_kernels: bool

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.name == "mae" and self.encoder != "vit":
            raise ValueError(f"encoder={self.encoder!r} with name='mae': only 'vit' can leave patches out")
        if self.name == "mae" and self.channels == "independent":
            raise ValueError("channels='independent' with name='mae': 'joint' and 'tokens' are possible")
        if self.channels == "tokens" and self.encoder != "vit":
            raise ValueError(f"channels='tokens' with encoder={self.encoder!r}: only 'vit' has tokens")
        side_by_side = (("ae", "independent"), ("vae", "independent"), ("mae", "tokens"))
        if self.channel_readout == "concat" and (self.name, self.channels) not in side_by_side:
            raise ValueError(
                f"channel_readout='concat' with name={self.name!r}, channels={self.channels!r}: 'independent' channels "
                "of 'ae' and 'vae', and 'tokens' of 'mae', can be put side by side; 'mean' is possible"
            )
        if self.channel_dropout and self.channels != "tokens":
            raise ValueError(f"channel_dropout={self.channel_dropout} with channels={self.channels!r}: 0 is possible")
        if self.pretrained and self.encoder not in ("resnet", "vit"):
            raise ValueError(f"pretrained with encoder={self.encoder!r}: only 'resnet' and 'vit' are published")
        if self.decoder == "mirror" and self.encoder == "ring":
            raise ValueError("decoder='mirror' with encoder='ring': 'points' and 'matrix' are possible")
        if self.decoder != "mirror" and (self.name == "mae" or self.channels != "joint"):
            raise ValueError(
                f"decoder={self.decoder!r} with name={self.name!r}, channels={self.channels!r}: it makes one matrix of "
                "one latent vector; 'ae', 'vae' and 'vqvae' with 'joint' channels are possible"
            )
        if self.decoder != "mirror" and self.name == "vqvae" and self.bottleneck == "grid":
            raise ValueError(
                f"decoder={self.decoder!r} with bottleneck='grid': it needs one latent vector; 'pooled' is possible"
            )
        return self

    @model_validator(mode="after")
    def _latent_fits_codes(self) -> Self:
        quantizer = self.quantizer
        if self.name != "vqvae":
            return self
        if quantizer.num_codes < 2:
            raise ValueError(
                f"quantizer.num_codes={quantizer.num_codes}: one code says nothing; 2 and more are possible"
            )
        width = quantizer.num_codebooks * quantizer.num_codes
        if self.bottleneck == "grid" and self.latent_dim != width:
            raise ValueError(
                f"latent_dim={self.latent_dim} with quantizer.num_codes={quantizer.num_codes} in "
                f"{quantizer.num_codebooks} codebooks: bottleneck='grid' embeds an image by how often each code occurs "
                f"in it, so it must be {width}"
            )
        if self.bottleneck == "pooled" and self.latent_dim != quantizer.vector_dim:
            raise ValueError(
                f"latent_dim={self.latent_dim} with quantizer.num_groups={quantizer.num_groups} of "
                f"quantizer.code_dim={quantizer.code_dim} numbers: bottleneck='pooled' cuts the latent vector into "
                f"these groups, so it must be {quantizer.vector_dim}"
            )
        return self


class ContrastiveConfig(_Group):
    """The contrastive term; weight 0: none."""

    weight: Weight
    form: Literal["views", "channels", "pull", "replicates"]
    temperature: Annotated[float, _real(0.0001, MOST)]
    treatment: Name

    @property
    def compares_views(self) -> bool:
        """Whether a loss needs another random view of every image."""
        return self.weight > 0 and self.form == "views"

    @property
    def compares_treatments(self) -> bool:
        """Whether a loss needs the treatment of every image."""
        return self.weight > 0 and self.form == "replicates"


class MatrixConfig(_Group):
    """What a predicted distance matrix costs; read when data.kind is "shapes"."""

    reindexed: bool
    diagonal: Weight
    symmetry: Weight
    non_negativity: Weight
    triangle: Weight


class ObjectiveConfig(_Group):
    """What is minimized."""

    reconstruction: Weight
    beta: Weight
    free_nats: Weight
    kl_warmup_steps: Steps
    fourier_weight: Weight
    contrastive: ContrastiveConfig
    matrix: MatrixConfig


class OptimizerConfig(_Group):
    """The optimizer and its schedule."""

    name: Literal["lamb", "adamw", "sgd"]
    lr: Annotated[float, _real(LEAST, 100)]
    weight_decay: Weight
    decay_biases_and_norms: bool
    momentum: Decay
    beta1: Decay
    beta2: Decay
    clip_norm: Weight
    layer_decay: Annotated[float, _real(0.0001, 1)]
    freeze: Names
    warmup_epochs: Epochs
    warmup_init_lr: Rate
    min_lr: Rate
    cooldown_epochs: Epochs

    @model_validator(mode="after")
    def _peak_is_highest(self) -> Self:
        above = [key for key in ("min_lr", "warmup_init_lr") if getattr(self, key) > self.lr]
        if above:
            values = " and ".join(f"{key}={getattr(self, key)}" for key in above)
            flags = " ".join(f"--config.optimizer.{key}={self.lr / 10:g}" for key in above)
            raise ValueError(
                f"{values} above lr={self.lr}, the peak: give all, e.g. --config.optimizer.lr={self.lr:g} {flags}"
            )
        return self


class TrainConfig(_Group):
    """The loop."""

    seed: Seed
    init_from: Text
    epochs: PositiveEpochs
    min_epoch_steps: Annotated[int, _whole(1, 10**6)]
    batch_size: BatchSize
    accumulate_steps: BatchSize
    compute_dtype: Literal["float32", "bfloat16"]
    remat: bool
    ema_decay: Decay
    log_every_steps: PositiveSteps
    eval_every_epochs: PositiveEpochs
    checkpoint_every_steps: PositiveSteps
    early_stopping_patience_epochs: Epochs
    profile_steps: Annotated[int, _whole(0, 1000)]
    num_reconstructions: Annotated[int, _whole(1, 32)]
    wandb: Literal["disabled", "offline", "online"]

    @model_validator(mode="after")
    def _microbatches_are_equal(self) -> Self:
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of accumulate_steps={self.accumulate_steps}, the "
                "number of equal parts it is computed in"
            )
        return self


class EvalConfig(_Group):
    """Embedding and scores."""

    batch_size: Annotated[int, _whole(1, 2**16)]
    image_size: PartSize
    label: Name
    group: Name
    readout: Literal["embedding", "features"]
    components: Annotated[int, _whole(0, 2**16)]
    append: Names
    probe_control: Text
    folds: Annotated[int, _whole(2, 1000)]
    trees: Annotated[int, _whole(1, 10_000)]
    knn_k: Annotated[int, _whole(1, 1000)]
    bootstrap: Annotated[int, _whole(1, 100_000)]
    umap: bool
    classical_baseline: bool
    max_report_points: Annotated[int, _whole(1, 100_000)]
    invariance_objects: Annotated[int, _whole(0, 10_000)]
    invariance_side_px: Annotated[int, _whole(16, 4096)]
    seed: Seed


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
        shapes = self.data.kind == "shapes"
        if self.optimizer.warmup_epochs >= self.train.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs={self.optimizer.warmup_epochs} leaves nothing of "
                f"train.epochs={self.train.epochs} for the cosine"
            )
        stride = encoder_stride(self.model)
        for key, size in (("data.crop_size", self.data.crop_size), ("eval.image_size", self.eval.image_size)):
            if size[0] % stride or size[1] % stride:
                raise ValueError(
                    f"{key}={size}: its sides must be multiples of {stride}, the stride of "
                    f"model.encoder='{self.model.encoder}'"
                )
        if self.model.name == "mae":
            patches = self.data.crop_size[0] * self.data.crop_size[1] // stride**2
            if int(patches * (1 - self.model.mae.mask_ratio)) == 0:
                raise ValueError(
                    f"model.mae.mask_ratio={self.model.mae.mask_ratio} leaves none of the {patches} patches that "
                    f"data.crop_size={self.data.crop_size} has with model.vit.patch_size={stride}"
                )
        if (0 in self.eval.image_size) != (self.eval.image_size == (0, 0)):
            raise ValueError(f"eval.image_size={self.eval.image_size}: (0, 0) means the whole image")
        if shapes and self.eval.image_size != (0, 0):
            raise ValueError(
                f"eval.image_size={self.eval.image_size} with data.kind='shapes': an outline is seen whole, (0, 0)"
            )
        if has_fixed_size(self.model) and self.eval.image_size not in ((0, 0), self.data.crop_size):
            raise ValueError(
                f"eval.image_size={self.eval.image_size}: with model.spread='dense' or learnt positions a network has "
                f"one size, so only data.crop_size={self.data.crop_size} (or (0, 0), which means it) is possible"
            )
        if self.data.augment.rotate90 and self.data.crop_size[0] != self.data.crop_size[1]:
            raise ValueError(
                f"data.crop_size={self.data.crop_size} with data.augment.rotate90=True: only squares can be turned"
            )
        if not shapes and (self.model.encoder == "ring" or self.model.decoder != "mirror"):
            raise ValueError(
                f"model.encoder={self.model.encoder!r}, model.decoder={self.model.decoder!r} with data.kind='images': "
                "they are of distance matrices; for images model.decoder='mirror' and another encoder are possible"
            )
        if not shapes and self.objective.matrix != MatrixConfig(
            reindexed=False, diagonal=0.0, symmetry=0.0, non_negativity=0.0, triangle=0.0
        ):
            raise ValueError("objective.matrix with data.kind='images': its terms are of distance matrices")
        random = {"nothing": (), "direction": ("start_and_direction",), "start": ("start", "start_and_direction")}
        keeps, reindex = self.model.ring.keeps, self.data.outline.reindex
        if self.model.encoder == "ring" and reindex in random[keeps]:
            raise ValueError(
                f"model.ring.keeps={keeps!r} with data.outline.reindex={reindex!r}: what it keeps would be random; "
                + ("'none' is possible" if keeps == "start" else "'start' and 'none' are possible")
            )
        if shapes:
            self._is_of_shapes()
        name, objective = self.model.name, self.objective
        for key, value, method in (
            ("fourier_weight", objective.fourier_weight, "mae"),
            ("free_nats", objective.free_nats, "vae"),
            ("kl_warmup_steps", objective.kl_warmup_steps, "vae"),
        ):
            if value and name != method:
                raise ValueError(
                    f"objective.{key}={value} with model.name={name!r}: only {method!r} reads it; 0 is possible"
                )
        if self.model.pretrained and self.train.init_from:
            raise ValueError(
                f"model.pretrained={self.model.pretrained!r} with train.init_from={self.train.init_from!r}: weights "
                "come from one of them; leave the other ''"
            )
        contrastive = self.objective.contrastive
        if contrastive.weight and contrastive.form in ("channels", "pull") and self.model.channels == "joint":
            raise ValueError(
                f"objective.contrastive.form={contrastive.form!r} with model.channels='joint': it compares the "
                "embeddings of channels; 'independent' and 'tokens' have them"
            )
        if self.train.remat and self.model.encoder == "ring":
            raise ValueError(
                "train.remat=True with model.encoder='ring': nothing of it can be computed again; False is possible"
            )
        if self.optimizer.layer_decay < 1 and self.model.encoder != "vit":
            raise ValueError(
                f"optimizer.layer_decay={self.optimizer.layer_decay} with model.encoder={self.model.encoder!r}: only "
                "'vit' has layers to tell apart; 1.0 is possible"
            )
        return self

    def _is_of_shapes(self) -> None:
        """Refuse what outlines cannot have."""
        if self.model.name == "mae":
            raise ValueError("model.name='mae' with data.kind='shapes': 'ae', 'vae' and 'vqvae' are possible")
        if self.model.channels != "joint":
            raise ValueError(
                f"model.channels={self.model.channels!r} with data.kind='shapes': a matrix is one channel; 'joint' is "
                "possible"
            )
        if self.model.name == "vqvae" and self.model.bottleneck != "pooled":
            raise ValueError(
                f"model.bottleneck={self.model.bottleneck!r} with data.kind='shapes': an outline is drawn from one "
                "vector; 'pooled' is possible"
            )
        num_points = self.data.crop_size[0]
        parts_of_ring = self.model.encoder == "ring" and self.model.ring.keeps == "start"
        for needed, divisor, key in (
            (self.model.decoder == "matrix", matrix.GROWTH, "model.decoder='matrix'"),
            (parts_of_ring, ring.PARTS, "model.ring.keeps='start'"),
        ):
            if needed and num_points % divisor:
                raise ValueError(
                    f"data.crop_size={self.data.crop_size} with {key}: the number of points must be a multiple of "
                    f"{divisor}"
                )


def check_config(config: ConfigDict) -> Config:
    """Refuse what cannot run.

    Returns:
        The same values, typed and frozen: what all code behind this point reads.

    Raises:
        ConfigError: one line per fault, each with the key, the value and what is allowed.
    """
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"a configuration is a ml_collections.ConfigDict, not a {type(config).__name__}")
    given = config.to_dict()
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        raise ConfigError("\n".join(describe_faults(Config, given, error.errors()))) from None


# Keys that may differ between two runs of one workdir: where things lie and how they are scored, not what is trained.
_FREE_KEYS = ("data.data_dir", "data.read_threads", "train.wandb", "train.profile_steps")


def check_workdir(config: Config, workdir: Path) -> None:
    """Hold the configuration against the one that a workdir was made by, if it was made by any.

    The `eval` group may change between calls, and so may keys that say only where things lie.

    Raises:
        ConfigError: naming every key that differs; or if the folder holds something, and that is no run.
    """
    _check_is_of_a_run(workdir)
    if not (workdir / CONFIG).exists():
        return
    before, now = flatten(_read(workdir)), flatten(config.model_dump(mode="json"))
    differing = [
        f"config.{key}: the workdir has {before.get(key, 'no such key')!r}, this run {now.get(key, 'no such key')!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith("eval.") and key not in _FREE_KEYS
    ]
    if differing:
        raise ConfigError(
            f"{workdir} was made by another configuration; choose another --workdir, or remove that one:\n"
            + "\n".join(differing)
        )


def _check_is_of_a_run(workdir: Path) -> None:
    """A folder is a run's if it is not there yet, empty, or holds config.json; hidden files do not count."""
    for path in (workdir, *workdir.parents):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--workdir={workdir}: {path} is a file; a run needs a folder of its own")
    if not workdir.is_dir() or (workdir / "config.json").is_file():
        return
    others = sorted(path.name for path in workdir.iterdir() if not path.name.startswith("."))
    others = [name for name in others if name != integrity.CHECKSUMS]  # a kill while the first file was written
    left = [name for name in ("checkpoints", "dataset.json", "metrics.jsonl") if name in others]
    if left:
        raise ConfigError(
            f"{workdir / CONFIG} is missing beside {', '.join(left)} of a run: {_RESTORE}, or choose another --workdir"
        )
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise ConfigError(
            f"--workdir={workdir}: the folder holds other things than a run ({visible(', '.join(others[:3]))}{more}); "
            "choose one that is empty or not there yet, e.g. --workdir=runs/first"
        )


def check_trained(workdir: Path) -> None:
    """Raise ConfigError unless a run was begun in a folder, by whatever version of this program."""
    if not (workdir / "config.json").is_file():
        raise ConfigError(f"{workdir} holds no config.json: nothing was trained there")


def save_config(config: Config, workdir: Path) -> None:
    """Write `config.json`.

    Raises:
        ConfigError: if the workdir was made by another configuration; nothing is overwritten.
    """
    check_workdir(config, workdir)
    integrity.write_json(workdir / CONFIG, config.model_dump(mode="json"))


def load_config(workdir: Path) -> Config:
    """The configuration that made a workdir.

    Raises:
        ConfigError: if there is none, or if it is of another version of this program.
        DamagedFileError: if it is not what was written.
    """
    stored = ConfigDict(_read(Path(workdir)))
    try:
        return check_config(stored)
    except ConfigError as error:
        raise ConfigError(
            f"{Path(workdir) / 'config.json'} is not of this version; give the configuration too (--config=FILE) to "
            f"have its eval group written anew:\n{error}"
        ) from None


def _read(workdir: Path) -> dict[str, Any]:
    check_trained(workdir)
    content = integrity.read_json(workdir / CONFIG, _RESTORE)
    if not set(Config.model_fields) <= content.keys():
        raise ConfigError(f"{workdir / CONFIG} is not of a run: expected the groups {', '.join(Config.model_fields)}")
    for (group, key), value in _ADDED.items():
        content[group].setdefault(key, value)
    return content


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as one table: "model.latent_dim" -> value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

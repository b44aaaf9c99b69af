"""What a configuration may hold: every key, its type and its range.

Configurations are `ml_collections` files under `configs/`; this schema is what they are checked against before a device
is touched. There are no defaults here: every file states every key. Which values go together is said in `rules`, what
goes with a set in `set_rules`. Nothing of ours is imported, so that everybody may read this module.
"""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, Field
from pydantic import ConfigDict as PydanticConfig
from pydantic_core import PydanticCustomError


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names each key, its value and what is allowed."""


class Allowed(NamedTuple):
    """What may stand at a key: in words, an example, and in words as a part of a list ("whole numbers from 1 to 9").

    Noted at a type where the type alone does not say it.
    """

    words: str
    example: Any
    several: str = ""


def _refused() -> PydanticCustomError:
    """By a validator below; the message is made of what is allowed (`faults`)."""
    return PydanticCustomError("refused", "refused")


def _is_folder_name(text: str) -> str:
    if text in (".", "..") or "/" in text or "\\" in text:
        raise _refused()
    return text


def _is_felt(value: float) -> float:
    """0, or more than rounds to it in single precision, where it would be 0 in silence."""
    if 0 < value < LEAST:
        raise _refused()
    return value


def _is_number_of_devices(value: int) -> int:
    if value == 0:
        raise _refused()
    return value


# Every number has an upper and a lower end, inside of which all stages work; what needs more memory than there is, or
# does not fit a set, is refused where that is known (`preflight`, `set_rules`). LEAST and MOST: single precision has
# room beyond.
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
MeshAxis = Annotated[
    int,
    _whole(-1, 2**20),
    AfterValidator(_is_number_of_devices),
    Allowed("a number of devices from 1 to 1048576, or -1 for what is left", 8),
]
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
# No control characters, which no file name has, and nothing that turns the text behind it round. A lone surrogate, of
# bytes that were no UTF-8, is no character at all. The same as what `foreign_text.visible` leaves as it is.
VISIBLE = r"^[^\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]*$"
Text = Annotated[str, Field(max_length=4096, pattern=VISIBLE)]
Name = Annotated[str, Field(min_length=1, max_length=4096, pattern=VISIBLE)]
# Which methods there are is known where they are (`rules` looks there).
MethodName = Annotated[Text, Allowed("the name of a method", "ae")]
SetName = Annotated[
    str,
    Field(min_length=1, max_length=200, pattern=VISIBLE),
    AfterValidator(_is_folder_name),
    Allowed("the name of a folder, without a path", "my_set", "names of folders, without a path,"),
]
# Lists too: JSON has no tuples.
Names = Annotated[tuple[Name, ...], Field(strict=False, max_length=1000)]
ProfileStep = Literal["normalize", "select", "components", "sphere", "tvn"]
ProfileSteps = Annotated[tuple[ProfileStep, ...], Field(strict=False, max_length=5)]
SetNames = Annotated[tuple[SetName, ...], Field(strict=False, max_length=100)]
Weights = Annotated[tuple[PositiveWeight, ...], Field(strict=False, min_length=1, max_length=101)]
Levels = Annotated[tuple[Annotated[int, _whole(2, 1024)], ...], Field(strict=False, min_length=1, max_length=16)]
# Shares of an image's area, the lower one first; (0, 0): none, which `rules` tell apart from half of it.
AreaShares = Annotated[
    tuple[Annotated[float, _real(0, 1)], Annotated[float, _real(0, 1)]],
    Field(strict=False),
    Allowed("two numbers from 0 to 1, (low, high)", (0.4, 1.0)),
]
Size = Annotated[tuple[Side, Side], Field(strict=False)]  # (height, width), pixels
PartSize = Annotated[  # the same; (0, 0): all of it
    tuple[Annotated[int, _whole(0, 2**15)], Annotated[int, _whole(0, 2**15)]], Field(strict=False)
]


class _Group(BaseModel):
    # strict: "3" is no number and 2.5 no int; forbid: a key that nothing reads is a typo.
    model_config = PydanticConfig(strict=True, extra="forbid", frozen=True)


class AugmentConfig(_Group):
    """Random changes of a training view of an image; read when data.kind is "images"."""

    flip: bool
    rotate90: bool
    brightness: Amount
    area: AreaShares
    aspect: Annotated[float, _real(1, 10)]
    rotate: bool
    offset: Annotated[float, _real(0, 10)]
    gamma: Annotated[float, _real(0, 3)]
    blur: Annotated[float, _real(0, 10)]
    noise: Annotated[float, _real(0, 10)]
    channel_dropout: Amount


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
    stratify_by: Text
    held_out: Names
    held_out_by: Name
    read_threads: Annotated[int, _whole(1, 128)]  # each holds two batches
    positives: Literal["same_image", "site", "treatment"]
    treatment: Name
    augment: AugmentConfig
    outline: OutlineConfig


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


class ResidualStackConfig(_Group):
    """Sizes of the predecessor's encoder and decoder."""

    num_hiddens: Annotated[int, _whole(2, 2**16, multiple_of=2)]
    num_residual_hiddens: Width
    num_residual_layers: Depth
    num_halvings: Annotated[int, _whole(1, 6)]


class ResNetConfig(_Group):
    """Which ResNet."""

    depth: Literal[10, 18, 34, 50, 101, 152]
    width: Width
    stem: Literal["large", "small", "full"]
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


class MAEConfig(_Group):
    """Masking; read when model.name is "mae"."""

    mask_ratio: Share
    norm_pix_loss: bool


class HeadConfig(_Group):
    """What the loss looks at behind the embedding; read when model.name is "simclr", "dino" or "lejepa"."""

    width: Width
    depth: Depth
    output_dim: Width
    num_prototypes: Annotated[int, _whole(2, 2**17)]


class ModelConfig(_Group):
    """The network."""

    name: MethodName
    encoder: Literal["residual_stack", "resnet", "vit", "ring"]
    decoder: Literal["mirror", "points", "matrix", "none"]
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
    head: HeadConfig
    cpu_kernels: bool

    @property
    def num_code_counts(self) -> int:
        """Codes in all codebooks, of a grid of codes, which says of an image how often each occurs; 0 of others."""
        if self.name != "vqvae" or self.bottleneck != "grid":
            return 0
        residual = self.quantizer.name == "residual"
        codebooks = self.quantizer.num_residuals if residual else self.quantizer.num_groups
        return codebooks * self.quantizer.num_codes


class ContrastiveConfig(_Group):
    """The contrastive term; weight 0: none."""

    weight: Weight
    form: Literal["views", "channels", "pull", "replicates"]
    temperature: Annotated[float, _real(0.0001, MOST)]
    treatment: Name


class MatrixConfig(_Group):
    """What a predicted distance matrix costs; read when data.kind is "shapes"."""

    reindexed: bool
    diagonal: Weight
    symmetry: Weight
    non_negativity: Weight
    triangle: Weight


class CropsConfig(_Group):
    """The views that are compared; read when model.name is "simclr", "dino" or "lejepa"."""

    num_global: Annotated[int, _whole(2, 16)]
    num_local: Annotated[int, _whole(0, 64)]
    local_size: Size
    local_area: AreaShares


class SimCLRConfig(_Group):
    """InfoNCE; read when model.name is "simclr"."""

    temperature: Annotated[float, _real(0.0001, MOST)]


class DINOConfig(_Group):
    """Self-distillation; read when model.name is "dino"."""

    student_temperature: Annotated[float, _real(0.0001, MOST)]
    teacher_temperature: Annotated[float, _real(0.0001, MOST)]
    teacher_temperature_start: Annotated[float, _real(0.0001, MOST)]
    teacher_temperature_steps: Steps
    targets: Literal["center", "sinkhorn"]
    center_momentum: Decay
    koleo: Weight
    frozen_prototype_steps: Steps


class LeJEPAConfig(_Group):
    """Joint embeddings of a normal distribution; read when model.name is "lejepa"."""

    sigreg: Share
    num_slices: Width


class ObjectiveConfig(_Group):
    """What is minimized."""

    reconstruction: Weight
    beta: Weight
    free_nats: Weight
    kl_warmup_steps: Steps
    fourier_weight: Weight
    crops: CropsConfig
    simclr: SimCLRConfig
    dino: DINOConfig
    lejepa: LeJEPAConfig
    contrastive: ContrastiveConfig
    matrix: MatrixConfig


class OptimizerConfig(_Group):
    """The optimizer and its schedule."""

    name: Literal["lamb", "adamw", "sgd"]
    lr: Annotated[float, _real(LEAST, 100)]
    weight_decay: Weight
    weight_decay_growth: PositiveWeight
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


class MeshConfig(_Group):
    """Devices along each axis of the mesh; -1: what is left."""

    data: MeshAxis
    fsdp: MeshAxis
    tensor: MeshAxis


class TrainConfig(_Group):
    """The loop."""

    seed: Seed
    init_from: Text
    epochs: PositiveEpochs
    min_epoch_steps: Annotated[int, _whole(1, 10**6)]
    batch_size: BatchSize
    mesh: MeshConfig
    accumulate_steps: BatchSize
    compute_dtype: Literal["float32", "bfloat16"]
    remat: bool
    ema_decay: Decay
    ema_decay_grows: bool
    stop_at_collapse: bool
    log_every_steps: PositiveSteps
    eval_every_epochs: PositiveEpochs
    checkpoint_every_steps: PositiveSteps
    early_stopping_patience_epochs: Epochs
    profile_steps: Annotated[int, _whole(0, 1000)]
    num_reconstructions: Annotated[int, _whole(1, 32)]
    wandb: Literal["disabled", "offline", "online"]


class NormalizeConfig(_Group):
    """Center and scale of each feature; read when "normalize" is a step of profiles."""

    method: Literal["standardize", "mad_robustize"]
    scope: Names
    rows: Literal["controls", "all"]


class SelectConfig(_Group):
    """Which features are kept; read when "select" is a step of profiles."""

    min_variance: Weight
    max_correlation: Annotated[float, _real(0.01, 1)]
    max_absolute: Annotated[float, _real(1, MOST)]


class SphereConfig(_Group):
    """Controls that vary alike in all directions; read when "sphere" is a step of profiles."""

    rotation: Literal["PCA", "ZCA"]
    epsilon: Weight
    few_controls: Literal["raise", "fill"]


class ProfileConfig(_Group):
    """Profiles of wells and treatments, and their scores."""

    treatment: Names
    mechanism: Text
    compound: Text
    concentration: Text
    batch: Names
    replicates_differ_in: Names
    well_statistic: Literal["mean", "median"]
    treatment_statistic: Literal["mean", "median"]
    steps: ProfileSteps
    normalize: NormalizeConfig
    components: Annotated[int, _whole(1, 2**16)]
    select: SelectConfig
    sphere: SphereConfig
    tvn_regularization: PositiveWeight
    null_size: Annotated[int, _whole(20, 1_000_000)]


class EvalConfig(_Group):
    """Embedding and scores."""

    batch_size: Annotated[int, _whole(1, 2**16)]
    image_size: PartSize
    label: Name
    group: Name
    readout: Literal["embedding", "features", "statistics", "layers"]
    components: Annotated[int, _whole(0, 2**16)]
    append: Names
    probe_control: Text
    folds: Annotated[int, _whole(2, 1000)]
    trees: Annotated[int, _whole(1, 10_000)]
    knn_k: Annotated[int, _whole(1, 1000)]
    bootstrap: Annotated[int, _whole(1, 100_000)]
    umap: bool
    classical_baseline: bool
    cell_count_channel: Text
    cell_count_column: Text
    most_images: Annotated[int, _whole(100, 10**8)]
    most_queries: Annotated[int, _whole(100, 10**8)]
    published: Text
    published_channels: Literal["concatenate", "average"]
    published_components: Annotated[int, _whole(0, 2**16)]
    max_report_points: Annotated[int, _whole(1, 100_000)]
    invariance_objects: Annotated[int, _whole(0, 10_000)]
    invariance_side_px: Annotated[int, _whole(16, 4096)]
    profile: ProfileConfig
    seed: Seed


class Config(_Group):
    """A whole run."""

    data: DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    eval: EvalConfig

    @property
    def num_components(self) -> int:
        """Principal components that stand for what is read of an image; 0: it stands for itself.

        `eval.components`; or `model.latent_dim`, where what is read is how often each of more codes occurs.
        """
        counted = self.model.num_code_counts
        if self.eval.readout == "embedding" and counted and self.model.latent_dim < counted:
            return self.model.latent_dim
        return self.eval.components

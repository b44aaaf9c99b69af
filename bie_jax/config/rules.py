"""Which values of a configuration go together: one function a rule, between keys that are each in their range.

A rule reads one group, or the whole configuration, and yields the line that a person reads if it is broken. Two tables
at the end list them all.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict
from pydantic import BaseModel, ValidationError

from bie_jax.config.faults import describe_faults, one_of, refusal
from bie_jax.config.schema import (
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    MatrixConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    QuantizerConfig,
    TrainConfig,
    ViTConfig,
)
from bie_jax.models import encoder_stride, has_fixed_size, supports_remat
from bie_jax.models.decoders import matrix
from bie_jax.models.encoders import ring
from bie_jax.objectives import METHODS
from bie_jax.objectives.base import Method, never_collapsed


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
        checked, lines = Config.model_validate(given), []
    except ValidationError as error:
        checked, lines = None, describe_faults(Config, given, error.errors())
    for path, rules in RULES_OF_GROUPS.items():
        group = _typed(path, given)
        if group is not None:
            lines += [line for rule in rules for line in rule(group)]
    if checked is not None and not lines:  # of a group that is wrong in itself they would say what only follows
        lines = [line for rule in RULES_OF_ALL for line in rule(checked)]
    if checked is None or lines:
        raise ConfigError("\n".join(lines))
    return checked


def _typed(path: str, given: Any) -> BaseModel | None:
    """The group at a path; None where one of its values is not of its type or range, which has been said."""
    schema: Any = Config
    for name in path.split("."):
        schema = schema.model_fields[name].annotation
        given = given.get(name) if isinstance(given, dict) else None
    try:
        return schema.model_validate(given)
    except ValidationError:
        return None


def _methods(are: Callable[[Method], bool]) -> list[str]:
    """Names of the methods that are so."""
    return [name for name, method in METHODS.items() if are(method)]


# --- data


def _outlines_are_square_and_of_one_set(data: DataConfig) -> Iterator[str]:
    if data.kind == "shapes" and (data.mix_with or data.crop_size[0] != data.crop_size[1]):
        yield (
            f"config.data: crop_size={data.crop_size}, mix_with={data.mix_with} with kind='shapes': a matrix has as "
            "many rows as columns, (P, P) for P points, and comes from one set"
        )


def _every_set_has_a_weight(data: DataConfig) -> Iterator[str]:
    if len(data.mix_weights) != 1 + len(data.mix_with):
        yield (
            f"config.data: mix_weights={data.mix_weights} for {1 + len(data.mix_with)} sets (name, mix_with): one for "
            "each"
        )


def _no_set_is_named_twice(data: DataConfig) -> Iterator[str]:
    if len({data.name, *data.mix_with}) <= len(data.mix_with):
        yield f"config.data: mix_with={data.mix_with} with name={data.name!r}: a set is named twice"


def _fold_is_one_of_them(data: DataConfig) -> Iterator[str]:
    if data.num_folds == 1 or (data.num_folds == 0 and data.fold) or 0 < data.num_folds <= data.fold:
        yield (
            f"config.data: fold={data.fold} of num_folds={data.num_folds}: expected num_folds 0 (val_fraction is held "
            "out) and fold 0, or num_folds of 2 and more and a fold from 0 on"
        )


def _no_shares(key: str, area: tuple[float, float]) -> Iterator[str]:
    low, high = area
    if area != (0, 0) and not 0 < low <= high:
        yield f"{key}={area}: expected (0, 0), windows at the image's own scale, or 0 < low <= high"


def _shares_of_the_area_are_a_range(data: DataConfig) -> Iterator[str]:
    yield from _no_shares("config.data: augment.area", data.augment.area)


def _only_windows_of_any_scale_are_stretched(data: DataConfig) -> Iterator[str]:
    if data.augment.aspect != 1 and data.augment.area[1] == 0:
        yield (
            f"config.data: augment.aspect={data.augment.aspect} with augment.area={data.augment.area}: windows at the "
            "image's own scale are not stretched; 1.0 is possible, or an area, e.g. "
            "--config.data.augment.area='(0.4,1.0)'"
        )


def _turns_are_of_one_kind(data: DataConfig) -> Iterator[str]:
    if data.augment.rotate and data.augment.rotate90:
        yield (
            "config.data: augment.rotate90=True with augment.rotate=True: any angle is one of its right angles too; "
            "one of the two is possible"
        )


# --- model


def _heads_divide_the_width(vit: ViTConfig) -> Iterator[str]:
    if vit.decoder_width % vit.decoder_heads:
        yield (
            f"config.model.vit: decoder_width={vit.decoder_width} is not a multiple of "
            f"decoder_heads={vit.decoder_heads}"
        )


def _only_plain_codebooks_have_groups(quantizer: QuantizerConfig) -> Iterator[str]:
    if quantizer.name in ("residual", "fsq") and quantizer.num_groups != 1:
        yield (f"config.model.quantizer: num_groups={quantizer.num_groups} with name={quantizer.name!r}: 1 is possible")


def _levels_make_the_codes_of_fsq(quantizer: QuantizerConfig) -> Iterator[str]:
    num_codes, code_dim = math.prod(quantizer.levels), len(quantizer.levels)
    if quantizer.name == "fsq" and (quantizer.num_codes, quantizer.code_dim) != (num_codes, code_dim):
        yield (
            f"config.model.quantizer: num_codes={quantizer.num_codes} and code_dim={quantizer.code_dim} with "
            f"name='fsq', levels={quantizer.levels}: they are {num_codes}, the product of the levels, and {code_dim}, "
            "their number"
        )


def _codes_of_fsq_start_where_they_stay(quantizer: QuantizerConfig) -> Iterator[str]:
    if quantizer.name == "fsq" and quantizer.kmeans_iterations:
        yield (
            f"config.model.quantizer: kmeans_iterations={quantizer.kmeans_iterations} with name='fsq': its codes are "
            "fixed; 0 is possible"
        )


def _method_is_known(model: ModelConfig) -> Iterator[str]:
    if model.name not in METHODS:
        yield refusal("model.name", model.name, one_of(tuple(METHODS)))


def _mae_has_patches_to_leave_out(model: ModelConfig) -> Iterator[str]:
    if model.name == "mae" and model.encoder != "vit":
        yield f"config.model: encoder={model.encoder!r} with name='mae': only 'vit' can leave patches out"


def _mae_sees_channels_together(model: ModelConfig) -> Iterator[str]:
    if model.name == "mae" and model.channels == "independent":
        yield "config.model: channels='independent' with name='mae': 'joint' and 'tokens' are possible"


def _only_vit_has_tokens(model: ModelConfig) -> Iterator[str]:
    if model.channels == "tokens" and model.encoder != "vit":
        yield f"config.model: channels='tokens' with encoder={model.encoder!r}: only 'vit' has tokens"


def _only_separate_channels_are_concatenated(model: ModelConfig) -> Iterator[str]:
    side_by_side = model.channels == ("tokens" if model.name == "mae" else "independent") and model.name != "vqvae"
    if model.channel_readout == "concat" and not side_by_side:
        yield (
            f"config.model: channel_readout='concat' with name={model.name!r}, channels={model.channels!r}: "
            "'independent' channels (not of 'vqvae'), and 'tokens' of 'mae', can be put side by side; 'mean' is "
            "possible"
        )


def _only_tokens_are_dropped(model: ModelConfig) -> Iterator[str]:
    if model.channel_dropout and model.channels != "tokens":
        yield (f"config.model: channel_dropout={model.channel_dropout} with channels={model.channels!r}: 0 is possible")


def _only_published_encoders_are_pretrained(model: ModelConfig) -> Iterator[str]:
    if model.pretrained and model.encoder not in ("resnet", "vit"):
        yield f"config.model: pretrained with encoder={model.encoder!r}: only 'resnet' and 'vit' are published"
    net = model.resnet
    if model.pretrained and model.encoder == "resnet" and (net.depth == 10 or net.width != 64 or net.stem != "large"):
        yield (
            f"config.model: pretrained with resnet.depth={net.depth}, resnet.width={net.width}, "
            f"resnet.stem={net.stem!r}: ResNets of 18 to 152 layers are published, with width 64 and stem 'large'"
        )


def _some_methods_need_a_decoder(model: ModelConfig) -> Iterator[str]:
    without = _methods(lambda method: not method.needs_decoder)
    if model.decoder == "none" and model.name in METHODS and model.name not in without:
        yield (
            f"config.model: decoder='none' with name={model.name!r}: it learns from what it draws; 'mirror' is "
            f"possible, and 'none' with name {one_of(tuple(without)).words}"
        )


def _ring_has_no_mirror(model: ModelConfig) -> Iterator[str]:
    if model.decoder == "mirror" and model.encoder == "ring":
        yield "config.model: decoder='mirror' with encoder='ring': 'points' and 'matrix' are possible"


def _matrices_are_decoded_by_autoencoders(model: ModelConfig) -> Iterator[str]:
    if model.decoder in ("points", "matrix") and (model.name == "mae" or model.channels != "joint"):
        yield (
            f"config.model: decoder={model.decoder!r} with name={model.name!r}, channels={model.channels!r}: it makes "
            "one matrix of one latent vector; other methods than 'mae', with 'joint' channels, are possible"
        )


def _matrices_are_decoded_from_a_vector(model: ModelConfig) -> Iterator[str]:
    if model.decoder in ("points", "matrix") and model.name == "vqvae" and model.bottleneck == "grid":
        yield (
            f"config.model: decoder={model.decoder!r} with bottleneck='grid': it needs one latent vector; 'pooled' is "
            "possible"
        )


def _codes_can_differ(model: ModelConfig) -> Iterator[str]:
    if model.name == "vqvae" and model.quantizer.num_codes < 2:
        yield (
            f"config.model: quantizer.num_codes={model.quantizer.num_codes}: one code says nothing; 2 and more are "
            "possible"
        )


def _latent_counts_the_codes_of_a_grid(model: ModelConfig) -> Iterator[str]:
    counts = model.num_code_counts
    if model.quantizer.num_codes > 1 and 0 < counts < model.latent_dim:
        yield (
            f"config.model: latent_dim={model.latent_dim} with {counts} codes in all codebooks (quantizer.num_codes="
            f"{model.quantizer.num_codes}): bottleneck='grid' embeds an image by how often each code occurs in it, or "
            f"by principal components of that, so {counts} and less are possible"
        )


def _latent_is_the_groups_of_a_pooled_vector(model: ModelConfig) -> Iterator[str]:
    quantizer = model.quantizer
    width = quantizer.num_groups * quantizer.code_dim
    if model.name == "vqvae" and model.bottleneck == "pooled" and model.latent_dim != width:
        yield (
            f"config.model: latent_dim={model.latent_dim} with quantizer.num_groups={quantizer.num_groups} of "
            f"quantizer.code_dim={quantizer.code_dim} numbers: bottleneck='pooled' cuts the latent vector into these "
            f"groups, so it must be {width}"
        )


# --- optimizer and train


def _peak_is_highest(optimizer: OptimizerConfig) -> Iterator[str]:
    lr = optimizer.lr
    ends = {"min_lr": optimizer.min_lr, "warmup_init_lr": optimizer.warmup_init_lr}
    above = {key: value for key, value in ends.items() if value > lr}
    if above:
        values = " and ".join(f"{key}={value}" for key, value in above.items())
        flags = " ".join(f"--config.optimizer.{key}={lr / 10:g}" for key in above)
        yield (
            f"config.optimizer: {values} above lr={lr}, the peak: give all, e.g. --config.optimizer.lr={lr:g} {flags}"
        )


def _microbatches_are_equal(train: TrainConfig) -> Iterator[str]:
    if train.batch_size % train.accumulate_steps:
        yield (
            f"config.train: batch_size={train.batch_size} is not a multiple of "
            f"accumulate_steps={train.accumulate_steps}, the number of equal parts it is computed in"
        )


def _one_axis_takes_what_is_left(mesh: MeshConfig) -> Iterator[str]:
    left = [axis for axis, size in mesh.model_dump().items() if size == -1]
    if len(left) > 1:
        yield f"config.train.mesh: {'=-1 and '.join(left)}=-1: only one axis can take what is left"


# --- The whole configuration: images

_NO_MATRIX_TERMS = MatrixConfig(reindexed=False, diagonal=0.0, symmetry=0.0, non_negativity=0.0, triangle=0.0)


def _warmup_ends_before_the_last_epoch(config: Config) -> Iterator[str]:
    if config.optimizer.warmup_epochs >= config.train.epochs:
        yield (
            f"config: optimizer.warmup_epochs={config.optimizer.warmup_epochs} leaves nothing of "
            f"train.epochs={config.train.epochs} for the cosine"
        )


def _sizes_are_multiples_of_the_stride(config: Config) -> Iterator[str]:
    stride = encoder_stride(config.model)
    for key, size in (("data.crop_size", config.data.crop_size), ("eval.image_size", config.eval.image_size)):
        if size[0] % stride or size[1] % stride:
            yield (
                f"config: {key}={size}: its sides must be multiples of {stride}, the stride of "
                f"model.encoder={config.model.encoder!r}"
            )


def _masking_leaves_a_patch(config: Config) -> Iterator[str]:
    if config.model.name != "mae":
        return
    crop_size, patch_size, mask_ratio = config.data.crop_size, config.model.vit.patch_size, config.model.mae.mask_ratio
    patches = crop_size[0] * crop_size[1] // patch_size**2
    if patches > 0 and int(patches * (1 - mask_ratio)) == 0:
        yield (
            f"config: model.mae.mask_ratio={mask_ratio} leaves none of the {patches} patches that "
            f"data.crop_size={crop_size} has with model.vit.patch_size={patch_size}"
        )


def _no_side_alone_is_whole(config: Config) -> Iterator[str]:
    image_size = config.eval.image_size
    if 0 in image_size and image_size != (0, 0):
        yield f"config: eval.image_size={image_size}: (0, 0) means the whole image"


def _network_of_one_size_embeds_that_size(config: Config) -> Iterator[str]:
    image_size, crop_size = config.eval.image_size, config.data.crop_size
    is_part = config.data.kind == "images" and 0 not in image_size
    if is_part and has_fixed_size(config.model) and image_size != crop_size:
        yield (
            f"config: eval.image_size={image_size}: with model.spread='dense' or learned positions a network has one "
            f"size, so only data.crop_size={crop_size} (or (0, 0), which means it) is possible"
        )


def _only_squares_are_turned(config: Config) -> Iterator[str]:
    crop_size = config.data.crop_size
    if config.data.augment.rotate90 and crop_size[0] != crop_size[1]:
        yield f"config: data.crop_size={crop_size} with data.augment.rotate90=True: only squares can be turned"


def _images_are_no_matrices(config: Config) -> Iterator[str]:
    model = config.model
    if config.data.kind == "images" and (model.encoder == "ring" or model.decoder in ("points", "matrix")):
        yield (
            f"config: model.encoder={model.encoder!r}, model.decoder={model.decoder!r} with data.kind='images': they "
            "are of distance matrices; for images model.decoder='mirror' and another encoder are possible"
        )


def _terms_of_matrices_are_of_what_is_drawn(config: Config) -> Iterator[str]:
    if config.model.decoder == "none" and config.objective.matrix != _NO_MATRIX_TERMS:
        yield "config: objective.matrix with model.decoder='none': its terms are of a predicted distance matrix"


def _images_have_no_terms_of_matrices(config: Config) -> Iterator[str]:
    if config.data.kind == "images" and config.objective.matrix != _NO_MATRIX_TERMS:
        yield "config: objective.matrix with data.kind='images': its terms are of distance matrices"


# --- The whole configuration: outlines


def _outlines_are_seen_whole(config: Config) -> Iterator[str]:
    if config.data.kind == "shapes" and config.eval.image_size != (0, 0):
        yield (
            f"config: eval.image_size={config.eval.image_size} with data.kind='shapes': an outline is seen whole, "
            "(0, 0)"
        )


def _outlines_are_learned_by_autoencoders(config: Config) -> Iterator[str]:
    if config.data.kind == "shapes" and config.model.name == "mae":
        yield "config: model.name='mae' with data.kind='shapes': all other methods are possible"


def _published_encoders_see_images(config: Config) -> Iterator[str]:
    if config.data.kind == "shapes" and config.eval.published:
        yield (
            f"config: eval.published={config.eval.published!r} with data.kind='shapes': published encoders are of "
            "images; '' is possible"
        )


def _outlines_have_one_channel(config: Config) -> Iterator[str]:
    if config.data.kind == "shapes" and config.model.channels != "joint":
        yield (
            f"config: model.channels={config.model.channels!r} with data.kind='shapes': a matrix is one channel; "
            "'joint' is possible"
        )


def _outlines_are_drawn_from_a_vector(config: Config) -> Iterator[str]:
    model = config.model
    if config.data.kind == "shapes" and model.name == "vqvae" and model.bottleneck != "pooled":
        yield (
            f"config: model.bottleneck={model.bottleneck!r} with data.kind='shapes': an outline is drawn from one "
            "vector; 'pooled' is possible"
        )


def _points_suit_the_network(config: Config) -> Iterator[str]:
    model = config.model
    for needed, divisor, key in (
        (model.decoder == "matrix", matrix.GROWTH, "model.decoder='matrix'"),
        (model.encoder == "ring" and model.ring.keeps == "start", ring.PARTS, "model.ring.keeps='start'"),
    ):
        if config.data.kind == "shapes" and needed and config.data.crop_size[0] % divisor:
            yield (
                f"config: data.crop_size={config.data.crop_size} with {key}: the number of points must be a multiple "
                f"of {divisor}"
            )


def _what_the_ring_keeps_is_not_random(config: Config) -> Iterator[str]:
    random = {"nothing": (), "direction": ("start_and_direction",), "start": ("start", "start_and_direction")}
    keeps, reindex = config.model.ring.keeps, config.data.outline.reindex
    if config.model.encoder == "ring" and reindex in random[keeps]:
        yield (
            f"config: model.ring.keeps={keeps!r} with data.outline.reindex={reindex!r}: what it keeps would be random; "
            + ("'none' is possible" if keeps == "start" else "'start' and 'none' are possible")
        )


# --- The whole configuration: what is minimized, and how


def _terms_are_of_the_method(config: Config) -> Iterator[str]:
    name = config.model.name
    for owner, method in METHODS.items():
        for key in method.terms:
            value = getattr(config.objective, key)
            if value and name != owner:
                yield (
                    f"config: objective.{key}={value} with model.name={name!r}: only {owner!r} reads it; 0 is possible"
                )


def _decoder_is_trained(config: Config) -> Iterator[str]:
    if config.model.name not in _methods(lambda method: not method.needs_decoder):
        return
    drawn = config.model.decoder != "none"
    if drawn != (config.objective.reconstruction > 0):
        yield (
            f"config: model.decoder={config.model.decoder!r} with objective.reconstruction="
            f"{config.objective.reconstruction}: "
            + ("nothing would train the decoder; give the term a weight, or 'none'" if drawn else "0 is possible")
        )


def _second_views_are_of_something(config: Config) -> Iterator[str]:
    known = config.model.name in METHODS
    if config.data.positives != "same_image" and known and not METHODS[config.model.name].other_views(config):
        yield (
            f"config: data.positives={config.data.positives!r} with model.name={config.model.name!r}: nothing looks "
            "at a second view; 'same_image' is possible, or objective.contrastive.form='views' with a weight"
        )


def _local_views_suit_the_network(config: Config) -> Iterator[str]:
    crops, model = config.objective.crops, config.model
    if not crops.num_local or model.name not in _methods(lambda method: not method.needs_decoder):
        return
    stride, size = encoder_stride(model), crops.local_size
    if config.data.kind == "shapes":
        yield (
            f"config: objective.crops.num_local={crops.num_local} with data.kind='shapes': an outline is seen whole; 0 "
            "is possible"
        )
    if size[0] % stride or size[1] % stride:
        yield (
            f"config: objective.crops.local_size={size}: its sides must be multiples of {stride}, the stride of "
            f"model.encoder={model.encoder!r}"
        )
    if has_fixed_size(model) and size != config.data.crop_size:
        yield (
            f"config: objective.crops.local_size={size}: with model.spread='dense' or learned positions a network has "
            f"one size, so only data.crop_size={config.data.crop_size} is possible"
        )
    yield from _no_shares("config: objective.crops.local_area", crops.local_area)
    if config.data.augment.rotate90 and size[0] != size[1]:
        yield f"config: objective.crops.local_size={size} with data.augment.rotate90=True: only squares can be turned"


def _only_averages_grow_old(config: Config) -> Iterator[str]:
    if config.train.ema_decay_grows and not config.train.ema_decay:
        yield "config: train.ema_decay_grows=True with train.ema_decay=0.0: there is no average; False is possible"


def _collapse_can_be_told(config: Config) -> Iterator[str]:
    told = _methods(lambda method: method.collapse is not never_collapsed)
    if config.train.stop_at_collapse and config.model.name not in told:
        yield (
            f"config: train.stop_at_collapse=True with model.name={config.model.name!r}: only "
            f"{', '.join(map(repr, told))} look; False is possible"
        )


def _newest_is_not_stopped_early(config: Config) -> Iterator[str]:
    patience = config.train.early_stopping_patience_epochs
    if patience and config.model.name in _methods(lambda method: method.newest_is_best):
        yield (
            f"config: train.early_stopping_patience_epochs={patience} with model.name={config.model.name!r}: its "
            "validation loss does not say which network is better; 0 is possible"
        )


def _teacher_is_an_average(config: Config) -> Iterator[str]:
    if config.model.name in _methods(lambda method: method.has_teacher) and not config.train.ema_decay:
        yield (
            f"config: train.ema_decay={config.train.ema_decay} with model.name={config.model.name!r}: its teacher is a "
            "moving average of the network; above 0 is possible, e.g. --config.train.ema_decay=0.999"
        )


def _weights_come_from_one_place(config: Config) -> Iterator[str]:
    if config.model.pretrained and config.train.init_from:
        yield (
            f"config: model.pretrained={config.model.pretrained!r} with train.init_from={config.train.init_from!r}: "
            "weights come from one of them; leave the other ''"
        )


def _compared_channels_have_embeddings(config: Config) -> Iterator[str]:
    contrastive = config.objective.contrastive
    if contrastive.weight and contrastive.form in ("channels", "pull") and config.model.channels == "joint":
        yield (
            f"config: objective.contrastive.form={contrastive.form!r} with model.channels='joint': it compares the "
            "embeddings of channels; 'independent' and 'tokens' have them"
        )


def _components_are_counted_once(config: Config) -> Iterator[str]:
    if config.eval.components and config.num_components != config.eval.components:
        yield (
            f"config: eval.components={config.eval.components} with model.latent_dim={config.model.latent_dim} of "
            f"{config.model.num_code_counts} codes: both say how many components stand for the counts of codes; leave "
            "eval.components at 0"
        )


def _ring_is_not_computed_again(config: Config) -> Iterator[str]:
    if config.train.remat and not supports_remat(config.model):
        yield (
            f"config: train.remat=True with model.encoder={config.model.encoder!r}: nothing of it can be computed "
            "again; False is possible"
        )


def _only_vit_and_resnet_have_blocks(config: Config) -> Iterator[str]:
    if config.optimizer.layer_decay < 1 and config.model.encoder not in ("vit", "resnet"):
        yield (
            f"config: optimizer.layer_decay={config.optimizer.layer_decay} with "
            f"model.encoder={config.model.encoder!r}: only 'vit' and 'resnet' have blocks to count; 1.0 is possible"
        )


def _only_transformers_share_products(config: Config) -> Iterator[str]:
    tensor = config.train.mesh.tensor
    if tensor != 1 and config.model.encoder != "vit":
        yield (
            f"config: train.mesh.tensor={tensor} with model.encoder={config.model.encoder!r}: only the products of "
            "'vit' are shared; 1 is possible, and train.mesh.fsdp for a network of any kind"
        )


# The group that the rules read -> rules.
# --- eval


def _cells_are_counted_once(settings: EvalConfig) -> Iterator[str]:
    channel, column = settings.cell_count_channel, settings.cell_count_column
    if channel and column:
        yield f"config.eval: cell_count_channel={channel!r} and cell_count_column={column!r}: one of them is ''"


def _steps_differ(settings: EvalConfig) -> Iterator[str]:
    steps = settings.profile.steps
    if len(set(steps)) < len(steps):
        yield f"config.eval.profile.steps={steps}: each at most once"


def _steps_have_their_controls(settings: EvalConfig) -> Iterator[str]:
    profile = settings.profile
    if not profile.treatment or settings.probe_control:
        return
    needing = [step for step in profile.steps if step in ("sphere", "tvn")]
    if "normalize" in profile.steps and profile.normalize.rows == "controls":
        needing.append("normalize")
    if needing:
        yield (
            f"config.eval.probe_control='' with {', '.join(map(repr, needing))} in eval.profile.steps: they are fitted "
            "to negative controls; name their label, or choose other steps (normalize.rows='all' needs none)"
        )


RULES_OF_GROUPS: dict[str, tuple[Callable[..., Iterator[str]], ...]] = {
    "data": (
        _outlines_are_square_and_of_one_set,
        _every_set_has_a_weight,
        _no_set_is_named_twice,
        _fold_is_one_of_them,
        _shares_of_the_area_are_a_range,
        _only_windows_of_any_scale_are_stretched,
        _turns_are_of_one_kind,
    ),
    "model.vit": (_heads_divide_the_width,),
    "model.quantizer": (
        _only_plain_codebooks_have_groups,
        _levels_make_the_codes_of_fsq,
        _codes_of_fsq_start_where_they_stay,
    ),
    "model": (
        _method_is_known,
        _mae_has_patches_to_leave_out,
        _mae_sees_channels_together,
        _only_vit_has_tokens,
        _only_separate_channels_are_concatenated,
        _only_tokens_are_dropped,
        _only_published_encoders_are_pretrained,
        _some_methods_need_a_decoder,
        _ring_has_no_mirror,
        _matrices_are_decoded_by_autoencoders,
        _matrices_are_decoded_from_a_vector,
        _codes_can_differ,
        _latent_counts_the_codes_of_a_grid,
        _latent_is_the_groups_of_a_pooled_vector,
    ),
    "optimizer": (_peak_is_highest,),
    "train": (_microbatches_are_equal,),
    "eval": (_cells_are_counted_once, _steps_differ, _steps_have_their_controls),
    "train.mesh": (_one_axis_takes_what_is_left,),
}

RULES_OF_ALL: tuple[Callable[[Config], Iterator[str]], ...] = (
    _warmup_ends_before_the_last_epoch,
    _sizes_are_multiples_of_the_stride,
    _masking_leaves_a_patch,
    _no_side_alone_is_whole,
    _network_of_one_size_embeds_that_size,
    _only_squares_are_turned,
    _images_are_no_matrices,
    _images_have_no_terms_of_matrices,
    _terms_of_matrices_are_of_what_is_drawn,
    _outlines_are_seen_whole,
    _outlines_are_learned_by_autoencoders,
    _outlines_have_one_channel,
    _published_encoders_see_images,
    _outlines_are_drawn_from_a_vector,
    _points_suit_the_network,
    _what_the_ring_keeps_is_not_random,
    _terms_are_of_the_method,
    _decoder_is_trained,
    _second_views_are_of_something,
    _local_views_suit_the_network,
    _teacher_is_an_average,
    _only_averages_grow_old,
    _collapse_can_be_told,
    _newest_is_not_stopped_early,
    _weights_come_from_one_place,
    _compared_channels_have_embeddings,
    _components_are_counted_once,
    _ring_is_not_computed_again,
    _only_vit_and_resnet_have_blocks,
    _only_transformers_share_products,
)

"""Whether a configuration suits the sets that it names, the devices that there are and the network that it makes.

What the values of a configuration say of each other is in `rules`; here the images are known.
"""

import jax
import numpy as np

from bie_jax.config.mesh import mesh_shape
from bie_jax.config.schema import (
    Config,
    ConfigError,
    ContrastiveConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    TrainConfig,
)
from bie_jax.input.columns import embedding_columns
from bie_jax.input.covariates import check_known
from bie_jax.input.image_set import ImageSet
from bie_jax.input.mixture import Mixture
from bie_jax.input.positives import build_positives
from bie_jax.input.splits import check_held_out, check_stratified, split_image_set
from bie_jax.input.wells import names_of_wells
from bie_jax.models.encoders.vit import SIZES
from bie_jax.objectives.contrast import compared_treatment

_MOST_STEPS = 2**31  # the step is counted in 32 bits


def check_run(config: Config, mixture: Mixture) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Hold a configuration against the sets and the devices.

    Returns:
        Rows to train on and rows to validate on, of each set, numbered over all sets.

    Raises:
        ConfigError: naming the key, its value and what is possible.
    """
    main = mixture.sets[0]
    data, fsdp, tensor = mesh_shape(config.train.mesh, jax.device_count())
    _check_devices_share_a_batch(config.train, data * fsdp)
    check_heads(config.model, tensor)
    _check_kind(config.data, mixture)
    if config.data.kind == "shapes":
        _check_points(config.data, mixture)
    else:
        _check_window("data.crop_size", config.data.crop_size, mixture)
    _check_channels_share_the_latent(config.model, mixture)
    _check_a_channel_can_be_left_out(config.data, mixture)
    _check_something_is_compared(config.objective.contrastive, mixture)
    _check_images_of_one_size(config.data, mixture)
    check_evaluated(config, mixture)
    train_rows, val_rows = _split(config, mixture)
    check_negatives(config.objective.contrastive, mixture, np.concatenate(train_rows))
    _check_positives(config.data, mixture, np.concatenate(train_rows))
    _check_batch_is_filled(config.train, mixture, train_rows, val_rows)
    _check_components_are_fitted(config, main, train_rows[0])
    _check_steps_are_counted(config, sum(map(len, train_rows)))
    return train_rows, val_rows


def check_evaluated(config: Config, mixture: Mixture) -> None:
    """Hold what is embedded and scored against the sets.

    Raises:
        ConfigError: naming the key of the `eval` group, its value and what is possible.
    """
    if config.data.kind == "images":
        _check_window("eval.image_size", config.eval.image_size, mixture)
    _check_columns(config.eval, mixture.sets[0])


def check_components(components: int, dim: int) -> None:
    """Raise ConfigError for more components than the readout [dim] has numbers."""
    if components > dim:
        raise ConfigError(
            f"config.eval.components={components} is more than the {dim} numbers that config.eval.readout gives"
        )


def check_negatives(contrastive: ContrastiveConfig, mixture: Mixture, train_rows: np.ndarray) -> None:
    """Raise ConfigError if no batch can hold two images to be told apart: the contrastive term would always be 0.

    Args:
        contrastive: the checked group.
        mixture: the sets.
        train_rows: the rows that are trained on, numbered over all sets.
    """
    if not contrastive.weight or contrastive.form == "pull":
        return
    metadata = mixture.metadata.iloc[train_rows]
    if compared_treatment(contrastive) is not None:
        metadata = metadata[metadata[contrastive.treatment].fillna("") != ""]
        if metadata[contrastive.treatment].nunique() < 2:
            raise ConfigError(
                f"config.objective.contrastive.form='replicates' tells treatments apart, and {contrastive.treatment!r} "
                f"of the images that {mixture.name!r} has to train on holds fewer than two; 'views' is possible"
            )
    if names_of_wells(metadata).nunique() < 2:
        raise ConfigError(
            f"config.objective.contrastive.form={contrastive.form!r} tells wells apart (fields, where no well is "
            f"known), and all images that {mixture.name!r} has to train on are of one; "
            "config.objective.contrastive.weight=0 is possible"
        )


def _check_devices_share_a_batch(train: TrainConfig, devices: int) -> None:
    shares = devices * train.accumulate_steps
    if train.batch_size % shares:
        in_parts = f" in {train.accumulate_steps} parts" if train.accumulate_steps > 1 else ""
        raise ConfigError(
            f"config.train.batch_size={train.batch_size} cannot be shared by {devices} devices{in_parts}; the nearest "
            f"that can: {max(1, train.batch_size // shares) * shares} or {-(-train.batch_size // shares) * shares}"
        )


def check_heads(model: ModelConfig, tensor: int) -> None:
    """Raise ConfigError unless as many devices as lie along "tensor" share the attention heads of a ViT evenly."""
    if model.encoder != "vit":
        return
    heads = {f"model.vit.size={model.vit.size!r}": SIZES[model.vit.size].heads}
    if model.decoder != "none":
        heads[f"model.vit.decoder_heads={model.vit.decoder_heads}"] = model.vit.decoder_heads
    for key, count in heads.items():
        if count % tensor:
            raise ConfigError(
                f"config.train.mesh: {tensor} devices along tensor with {key}: its {count} attention heads are shared "
                f"by {' or '.join(str(size) for size in range(1, count + 1) if count % size == 0)} of them"
            )


def _check_kind(data: DataConfig, mixture: Mixture) -> None:
    kinds = {image_set.kind for image_set in mixture.sets}
    if kinds != {data.kind}:
        raise ConfigError(
            f"config.data.kind={data.kind!r}, but {mixture.name!r} is a set of {' and '.join(sorted(kinds))}"
        )


def _check_points(data: DataConfig, mixture: Mixture) -> None:
    numbers = {image_set.name: image_set.image_shape[0] for image_set in mixture.sets}
    if len(set(numbers.values())) > 1:
        told = ", ".join(f"{name} {points}" for name, points in numbers.items())
        raise ConfigError(
            f"config.data.mix_with: the sets' outlines have different numbers of points ({told}), and no part of "
            "an outline is one; build them with one --points"
        )
    if mixture.window[0] % data.crop_size[0]:
        raise ConfigError(
            f"config.data.crop_size={data.crop_size}: the outlines of {mixture.name!r} have {mixture.window[0]} "
            "points, of which every one, every second, every third, ... is taken: expected (P, P), P a divisor of that"
        )


def _check_window(key: str, size: tuple[int, int], mixture: Mixture) -> None:
    if size[0] > mixture.window[0] or size[1] > mixture.window[1]:
        raise ConfigError(
            f"config.{key}={size} is larger than the images of {mixture.name!r}, "
            f"{mixture.window[0]} x {mixture.window[1]} pixels"
        )


def _check_channels_share_the_latent(model: ModelConfig, mixture: Mixture) -> None:
    channels = len(mixture.channel_names)
    if model.channel_readout == "concat" and model.latent_dim % channels:
        raise ConfigError(
            f"config.model.latent_dim={model.latent_dim} with channel_readout='concat' is not a multiple of the "
            f"{channels} channels of {mixture.name!r}: each gives an equal part"
        )


def _check_a_channel_can_be_left_out(data: DataConfig, mixture: Mixture) -> None:
    if data.kind == "images" and data.augment.channel_dropout and len(mixture.channel_names) == 1:
        raise ConfigError(
            f"config.data.augment.channel_dropout={data.augment.channel_dropout} leaves out channels, but never all, "
            f"and {mixture.name!r} has one, {mixture.channel_names[0]!r}; 0 is possible"
        )


def _check_something_is_compared(contrastive: ContrastiveConfig, mixture: Mixture) -> None:
    """The contrastive term would be 0 all the time."""
    if not contrastive.weight:
        return
    if contrastive.form in ("channels", "pull") and len(mixture.channel_names) == 1:
        raise ConfigError(
            f"config.objective.contrastive.form={contrastive.form!r} compares the channels of an image, and "
            f"{mixture.name!r} has one, {mixture.channel_names[0]!r}; 'views' and 'replicates' are possible"
        )
    if compared_treatment(contrastive) is None:
        return
    treatment, metadata = contrastive.treatment, mixture.metadata
    if treatment not in metadata.columns:
        raise ConfigError(
            f"config.objective.contrastive.treatment={treatment!r} is no column of {mixture.name!r}; "
            f"there are {', '.join(metadata.columns)}"
        )
    known = metadata[metadata[treatment] != ""]
    if known.empty or known.groupby(treatment)["plate"].nunique().max() < 2:
        raise ConfigError(
            f"config.objective.contrastive.form='replicates' compares a treatment on one plate with itself on another, "
            f"and no value of {treatment!r} in {mixture.name!r} is on two plates; 'views' is possible"
        )


def _check_positives(data: DataConfig, mixture: Mixture, train_rows: np.ndarray) -> None:
    """Second views of other images are there for some of those that are trained on."""
    if data.positives == "treatment" and data.treatment not in mixture.metadata.columns:
        raise ConfigError(
            f"config.data.treatment={data.treatment!r} is no column of {mixture.name!r}; there are "
            f"{', '.join(mixture.metadata.columns)}"
        )
    positives = build_positives(data, mixture.metadata, train_rows)
    if positives is not None and all(positives.candidates(row)[0] == row for row in train_rows):
        of = "another site of its well" if data.positives == "site" else f"another well of its {data.treatment}"
        raise ConfigError(
            f"config.data.positives={data.positives!r}: no image that {mixture.name!r} has to train on has {of}; "
            "'same_image' is possible"
        )


def _check_images_of_one_size(data: DataConfig, mixture: Mixture) -> None:
    sizes = {image_set.image_shape[:2] for image_set in mixture.sets}
    if data.normalization_scope == "image" and len(sizes) > 1:
        raise ConfigError(
            f"config.data.normalization_scope='image' with sets of different sizes {sorted(sizes)}: windows of the "
            "larger images reach the device, and their numbers are not the images'; 'plate' and 'set' are possible"
        )


def _check_columns(settings: EvalConfig, image_set: ImageSet) -> None:
    for key, column in (("label", settings.label), ("group", settings.group)):
        if column not in image_set.metadata.columns:
            raise ConfigError(
                f"config.eval.{key}={column!r} is no column of {image_set.name!r}; "
                f"there are {', '.join(image_set.metadata.columns)}"
            )
    embedding_columns(image_set.metadata)
    check_known(image_set, settings.append)
    if settings.cell_count_column:
        check_known(image_set, (settings.cell_count_column,), "cell_count_column")
    if settings.cell_count_channel and settings.cell_count_channel not in image_set.channel_names:
        raise ConfigError(
            f"config.eval.cell_count_channel={settings.cell_count_channel!r} is no channel of {image_set.name!r}; "
            f"there are {', '.join(image_set.channel_names)}"
        )


def _split(config: Config, mixture: Mixture) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows to train on and rows to validate on, of each set, numbered over all sets."""
    train_rows, val_rows = [], []
    name = mixture.name
    try:
        tables = [image_set.metadata for image_set in mixture.sets]
        check_held_out(config.data, tables)
        check_stratified(config.data, tables)
        for member, image_set in enumerate(mixture.sets):
            name = image_set.name
            train, val = split_image_set(config, image_set)
            train_rows.append(train + mixture.first_rows[member])
            val_rows.append(val + mixture.first_rows[member])
    except ValueError as error:
        raise ConfigError(f"config.data: {name!r}: {error}") from None
    return train_rows, val_rows


def _check_batch_is_filled(
    train: TrainConfig, mixture: Mixture, train_rows: list[np.ndarray], val_rows: list[np.ndarray]
) -> None:
    count = sum(map(len, train_rows))
    if train.batch_size > count:
        raise ConfigError(
            f"config.train.batch_size={train.batch_size} is more than the {count} images of {mixture.name!r} "
            f"that are left to train on ({sum(map(len, val_rows))} are for validation)"
        )


def _check_components_are_fitted(config: Config, image_set: ImageSet, train_rows: np.ndarray) -> None:
    if config.num_components > len(train_rows):
        key = "config.eval.components" if config.eval.components else "config.model.latent_dim"
        raise ConfigError(
            f"{key}={config.num_components} is more than the {len(train_rows)} images of "
            f"{image_set.name!r} that they are fitted to"
        )


def _check_steps_are_counted(config: Config, count: int) -> None:
    steps = max(count // config.train.batch_size, config.train.min_epoch_steps)
    total = (config.train.epochs + config.optimizer.cooldown_epochs) * steps
    if total >= _MOST_STEPS:
        raise ConfigError(
            f"config.train.epochs={config.train.epochs} and config.optimizer.cooldown_epochs="
            f"{config.optimizer.cooldown_epochs} of {steps} steps each are {total} steps, {_MOST_STEPS - 1} at most"
        )

"""What can be refused is refused here, before a file is written and before the first step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bie_jax.config.schema import Config, ConfigError, ContrastiveConfig
from bie_jax.files import integrity
from bie_jax.input.columns import embedding_columns
from bie_jax.input.covariates import check_known
from bie_jax.input.mixture import Mixture
from bie_jax.input.splits import split_image_set
from bie_jax.input.wells import names_of_wells
from bie_jax.training import run_files
from bie_jax.training.memory import OutOfMemoryError, available_bytes, check_fits

_MOST_STEPS = 2**31  # the step is counted in 32 bits


def check_run(config: Config, mixture: Mixture) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Hold a configuration against the sets and the devices.

    Returns:
        Rows to train on and rows to validate on, of each set, numbered over all sets.

    Raises:
        ConfigError: naming the key, its value and what is possible.
    """
    devices, batch_size = jax.device_count(), config.train.batch_size
    shares = devices * config.train.accumulate_steps
    if batch_size % shares:
        in_parts = f" in {config.train.accumulate_steps} parts" if config.train.accumulate_steps > 1 else ""
        raise ConfigError(
            f"config.train.batch_size={batch_size} cannot be shared by {devices} devices{in_parts}; "
            f"the nearest that can: {max(1, batch_size // shares) * shares} or {-(-batch_size // shares) * shares}"
        )
    _check_size(config, mixture)
    channels = len(mixture.channel_names)
    if config.model.channel_readout == "concat" and config.model.latent_dim % channels:
        raise ConfigError(
            f"config.model.latent_dim={config.model.latent_dim} with channel_readout='concat' is not a multiple of the "
            f"{channels} channels of {mixture.name!r}: each gives an equal part"
        )
    _check_contrastive(config.objective.contrastive, mixture)
    sizes = {image_set.image_shape[:2] for image_set in mixture.sets}
    if config.data.normalization_scope == "image" and len(sizes) > 1:
        raise ConfigError(
            f"config.data.normalization_scope='image' with sets of different sizes {sorted(sizes)}: windows of the "
            "larger images reach the device, and their numbers are not the images'; 'plate' and 'set' are possible"
        )
    main = mixture.sets[0]
    for key in ("label", "group"):
        column = getattr(config.eval, key)
        if column not in main.metadata.columns:
            raise ConfigError(
                f"config.eval.{key}={column!r} is no column of {main.name!r}; "
                f"there are {', '.join(main.metadata.columns)}"
            )
    embedding_columns(main.metadata)
    check_known(main, config.eval.append)
    train_rows, val_rows = [], []
    for member, image_set in enumerate(mixture.sets):
        try:
            sides = split_image_set(config, image_set)
        except ValueError as error:
            raise ConfigError(f"config.data: {image_set.name!r}: {error}") from None
        for rows, side in zip((train_rows, val_rows), sides, strict=True):
            rows.append(side + mixture.first_rows[member])
    _check_negatives(config.objective.contrastive, mixture, np.concatenate(train_rows))
    count = sum(map(len, train_rows))
    if batch_size > count:
        raise ConfigError(
            f"config.train.batch_size={batch_size} is more than the {count} images of {mixture.name!r} "
            f"that are left to train on ({sum(map(len, val_rows))} are for validation)"
        )
    if config.eval.components > len(train_rows[0]):
        raise ConfigError(
            f"config.eval.components={config.eval.components} is more than the {len(train_rows[0])} images of "
            f"{main.name!r} that they are fitted to"
        )
    steps = max(count // batch_size, config.train.min_epoch_steps)
    total = (config.train.epochs + config.optimizer.cooldown_epochs) * steps
    if total >= _MOST_STEPS:
        raise ConfigError(
            f"config.train.epochs={config.train.epochs} and config.optimizer.cooldown_epochs="
            f"{config.optimizer.cooldown_epochs} of {steps} steps each are {total} steps, {_MOST_STEPS - 1} at most"
        )
    return train_rows, val_rows


def check_components(components: int, dim: int) -> None:
    """Raise ConfigError for more components than the readout [dim] has numbers."""
    if components > dim:
        raise ConfigError(
            f"config.eval.components={components} is more than the {dim} numbers that config.eval.readout gives"
        )


def _check_contrastive(contrastive: ContrastiveConfig, mixture: Mixture) -> None:
    """Whether there is anything to compare: the term would be 0 all the time."""
    if not contrastive.weight:
        return
    if contrastive.form in ("channels", "pull") and len(mixture.channel_names) == 1:
        raise ConfigError(
            f"config.objective.contrastive.form={contrastive.form!r} compares the channels of an image, and "
            f"{mixture.name!r} has one, {mixture.channel_names[0]!r}; 'views' and 'replicates' are possible"
        )
    if not contrastive.compares_treatments:
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


def _check_negatives(contrastive: ContrastiveConfig, mixture: Mixture, train_rows: np.ndarray) -> None:
    """Whether a batch can hold two images that are to be told apart: without any the term is 0 all the time."""
    if not contrastive.weight or contrastive.form == "pull":
        return
    metadata = mixture.metadata.iloc[train_rows]
    if contrastive.compares_treatments:
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


def _check_size(config: Config, mixture: Mixture) -> None:
    """Whether the sets are of the kind and the size that the configuration is for."""
    kinds = {image_set.kind for image_set in mixture.sets}
    if kinds != {config.data.kind}:
        raise ConfigError(
            f"config.data.kind={config.data.kind!r}, but {mixture.name!r} is a set of {' and '.join(sorted(kinds))}"
        )
    crop_size = config.data.crop_size
    if config.data.kind == "shapes":
        numbers = {image_set.name: image_set.image_shape[0] for image_set in mixture.sets}
        if len(set(numbers.values())) > 1:
            told = ", ".join(f"{name} {points}" for name, points in numbers.items())
            raise ConfigError(
                f"config.data.mix_with: the sets' outlines have different numbers of points ({told}), and no part of "
                "an outline is one; build them with one --points"
            )
        if mixture.window[0] % crop_size[0]:
            raise ConfigError(
                f"config.data.crop_size={crop_size}: the outlines of {mixture.name!r} have {mixture.window[0]} points, "
                "of which every one, every second, every third, ... is taken: expected (P, P), P a divisor of that"
            )
        return
    for key, size in (("data.crop_size", crop_size), ("eval.image_size", config.eval.image_size)):
        if size[0] > mixture.window[0] or size[1] > mixture.window[1]:
            raise ConfigError(
                f"config.{key}={size} is larger than the images of {mixture.name!r}, "
                f"{mixture.window[0]} x {mixture.window[1]} pixels"
            )


def notes_on_microbatches(config: Config, *, has_batch_norm: bool) -> list[str]:
    """In what a batch that is computed in microbatches (`train.accumulate_steps`) is not one large batch."""
    parts = config.train.accumulate_steps
    learns_codes = config.model.name == "vqvae" and config.model.quantizer.name != "fsq"
    comparing = {
        "batch normalization takes its statistics": has_batch_norm,
        "the contrastive term takes its negatives": config.objective.contrastive.weight > 0,
        "the bound of free nats takes its mean divergence": config.objective.free_nats > 0,
        "the start from k-means takes its vectors": learns_codes and config.model.quantizer.kmeans_iterations > 0,
        "restarted codes take their vectors": learns_codes and config.model.quantizer.restart_threshold > 0,
    }
    return [
        f"config.train.accumulate_steps={parts}: {what} from {config.train.batch_size // parts} images, not from all "
        f"{config.train.batch_size} of a batch"
        for what, there in comparing.items()
        if there and parts > 1
    ]


def describe_dataset(mixture: Mixture, workdir: Path, resumes: bool) -> dict[str, Any]:
    """What an embedder must know of the sets: channels, pixel size, intensities.

    Args:
        mixture: the sets.
        workdir: of the run.
        resumes: whether there is a checkpoint, beside which `dataset.json` must be.

    Returns:
        What `dataset.json` of the workdir holds or will hold: `channel_names` of all sets, and `sets`, one description
        each.

    Raises:
        ConfigError: if the workdir was trained on other pixels of the same name.
        DamagedFileError: if `dataset.json` is not what was written.
    """
    sets = [
        integrity.read_json(image_set.directory / "statistics.json", "build the set again")
        | {"name": image_set.name, "directory": str(image_set.directory)}
        for image_set in mixture.sets
    ]
    if resumes or (workdir / run_files.DATASET).exists():
        for described, before in zip(sets, run_files.read_dataset(workdir)["sets"], strict=True):
            changed = [key for key in described if key != "directory" and described[key] != before.get(key)]
            if changed:
                raise ConfigError(
                    f"{described['directory']} is not the set that {workdir} was trained on ({', '.join(changed)} "
                    "differ): choose another --workdir"
                )
    return {"channel_names": list(mixture.channel_names), "sets": sets}


def compile_step(
    step: Callable[..., Any], state: Any, batch_of: Callable[[int], Any], config: Config
) -> Callable[..., Any]:
    """The compiled training step, once it is known to fit into memory.

    Args:
        step: jitted, (state, batch) -> ...
        state: the state, of which shapes and shardings are looked at.
        batch_of: global batch size -> shapes, types and shardings of a batch.
        config: the checked configuration.

    Raises:
        ConfigError: naming the memory needed, the memory there is and the largest batch that fits.
    """
    try:
        return check_fits(
            lambda batch_size: step.lower(state, batch_of(batch_size)).compile(),
            config.train.batch_size,
            devices=jax.device_count(),
            parts=config.train.accumulate_steps,
            available=available_bytes(jax.local_devices()[0]),
        )
    except OutOfMemoryError as error:
        smaller = ["config.train.accumulate_steps", "config.train.compute_dtype='bfloat16'"]
        if config.model.encoder != "ring":
            smaller.append("config.train.remat")
        raise ConfigError(f"config.train.batch_size: {error}; {', '.join(smaller)} make it less") from None

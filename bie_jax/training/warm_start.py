"""Starting from weights that exist: another run's, or published ones.

A run with another latent size, another bottleneck or other channels takes what fits. Channels are matched by name: the
weights of a channel that the other run did not have start as the mean over those that it had.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from bie_jax.config.schema import Config, ConfigError
from bie_jax.config.stored import load_config
from bie_jax.objectives import build_model
from bie_jax.training import run_files
from bie_jax.training.checkpoint import load_model
from bie_jax.training.sharding import on_first_device
from bie_jax.training.state import TrainState, averageable, initial_variables


def given_weights(shapes: dict[str, Any], config: Config, channel_names: tuple[str, ...]) -> dict[str, Any] | None:
    """The weights that `model.pretrained` or `train.init_from` name, for a network that need not be there yet.

    Prints what was taken and what starts at random.

    Args:
        shapes: of the network's collections, "params" and others, with their types.
        config: the checked configuration.
        channel_names: of the network's images.

    Returns:
        The same tree with an array in each place for which there are weights; None if the configuration names none.

    Raises:
        ConfigError: if there are no such weights, or none of them fits.
    """
    if config.model.pretrained:
        from bie_jax.models.pretrained.huggingface import load_huggingface  # needs safetensors, as no other run does

        try:
            given = load_huggingface(Path(config.model.pretrained), shapes["params"], shapes.get("batch_stats", {}))
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(f"config.model.pretrained={config.model.pretrained!r}: {error}") from None
        check_finite_weights(given, f"config.model.pretrained={config.model.pretrained!r}")
        print(f"{config.model.pretrained}: the encoder starts with its weights")
        return shapes | given
    if config.train.init_from:
        taken = _from_run(shapes, config, channel_names)
        check_finite_weights(taken, f"config.train.init_from={config.train.init_from!r}")
        return taken
    return None


def check_finite_weights(given: dict[str, Any], whose: str) -> None:
    """Refuse weights that are no numbers, or none in single precision; what is a mere shape is not looked at.

    Raises:
        ConfigError: naming the first such array.
    """
    for path, leaf in _flat(given).items():
        if isinstance(leaf, jax.ShapeDtypeStruct):
            continue
        with np.errstate(over="ignore"):  # looked at here
            single = np.asarray(leaf).astype(np.float32)
        if not np.isfinite(single).all():
            raise ConfigError(f"{whose}: {path} holds NaN, infinity or numbers beyond single precision")


def warm_start(state: TrainState, given: dict[str, Any] | None) -> TrainState:
    """A fresh state with weights in it.

    Args:
        state: as `create_train_state` makes it.
        given: as `given_weights` returns them; what is a mere shape keeps its random start.
    """
    if given is None:
        return state

    def place(old: jax.Array, new: Any) -> jax.Array:
        return old if isinstance(new, jax.ShapeDtypeStruct) else jax.device_put(new, old.sharding)

    placed = jax.tree.map(place, {"params": state.params, **state.model_state}, given)
    params = placed.pop("params")
    averages = None if state.averages is None else jax.tree.map(jnp.copy, averageable(params, placed))
    return state.replace(params=params, model_state=placed, averages=averages)


@dataclasses.dataclass(frozen=True)
class Graft:
    """What `graft` did.

    Attributes:
        variables: the new tree.
        taken: paths whose values were taken.
        fresh: paths that kept their random start, because the donor has none of that name or one of another shape.
    """

    variables: dict[str, Any]
    taken: tuple[str, ...]
    fresh: tuple[str, ...]


def graft(
    variables: dict[str, Any],
    donor: dict[str, Any],
    channel_axes: dict[str, int],
    channel_names: tuple[str, ...],
    donor_channel_names: tuple[str, ...],
) -> Graft:
    """Take every array of `donor` that has a place in `variables`.

    Args:
        variables: the tree to fill, of arrays or their shapes; what it holds stays where nothing fits.
        donor: the tree to take from.
        channel_axes: path -> axis along which the image's channels lie in that array, in both trees, the channel
            fastest where an axis holds more (pixels of a patch times channels).
        channel_names: of `variables`.
        donor_channel_names: of `donor`.
    """
    new, old = _flat(variables), _flat(donor)
    taken = []
    for path, leaf in new.items():
        if path not in old:
            continue
        value = np.asarray(old[path])
        if path in channel_axes:
            value = _match_channels(value, channel_axes[path], channel_names, donor_channel_names)
        if value.shape == leaf.shape:
            new[path] = value.astype(leaf.dtype)
            taken.append(path)
    fresh = tuple(path for path in new if path not in set(taken))
    return Graft(traverse_util.unflatten_dict(new, sep="/"), tuple(taken), fresh)


def channel_axes_of(config: Config, num_channels: int) -> dict[str, int]:
    """Path -> axis that grows with the number of channels, of every array of the network that has one."""
    # Side by side, the embeddings of channels share `latent_dim` out: arrays of one share are of every channel alike,
    # but one channel more would change their size, or leave a number that cannot be shared out.
    config = config.model_copy(update={"model": config.model.model_copy(update={"channel_readout": "mean"})})
    ours, more = (_flat(_shapes(config, count)) for count in (num_channels, num_channels + 1))
    return {
        path: next(axis for axis, size in enumerate(leaf.shape) if size != more[path].shape[axis])
        for path, leaf in ours.items()
        if leaf.shape != more[path].shape
    }


def _from_run(shapes: dict[str, Any], config: Config, channel_names: tuple[str, ...]) -> dict[str, Any]:
    workdir = Path(config.train.init_from)
    donor_config = load_config(workdir)
    donor_channels = tuple(run_files.read_dataset(workdir)["channel_names"])
    # Read by the host; each array goes to its place in `warm_start`.
    wanted = on_first_device(_shapes(donor_config, len(donor_channels)))
    try:
        donor, step = load_model(workdir, wanted)
    except FileNotFoundError as error:
        raise ConfigError(f"config.train.init_from={config.train.init_from!r}: {error}") from None
    ours, theirs = (
        channel_axes_of(of, len(names)) for of, names in ((config, channel_names), (donor_config, donor_channels))
    )
    # In a network of another depth or kind an array of that name may be another one, whose axis has no channels.
    axes = {path: axis for path, axis in ours.items() if theirs.get(path) == axis}
    grafted = graft(shapes, donor, axes, channel_names, donor_channels)
    if not any(path.startswith("params/") for path in grafted.taken):
        raise ConfigError(
            f"config.train.init_from={config.train.init_from!r}: none of its parameters fits model.name="
            f"{config.model.name!r} with model.encoder={config.model.encoder!r}; it was trained with "
            f"model.name={donor_config.model.name!r}, model.encoder={donor_config.model.encoder!r}"
        )
    fresh = ", ".join(grafted.fresh) or "none"
    print(f"{workdir}, step {step}: {len(grafted.taken)} arrays taken; at random start {fresh}")
    return grafted.variables


def _match_channels(
    value: np.ndarray, axis: int, channel_names: tuple[str, ...], donor_channel_names: tuple[str, ...]
) -> np.ndarray:
    """The axis of the donor's channels, in the order of ours."""
    value = np.moveaxis(value, axis, -1)
    value = value.reshape(*value.shape[:-1], -1, len(donor_channel_names))
    donor = list(donor_channel_names)
    places = [donor.index(name) if name in donor else -1 for name in channel_names]  # -1: the mean, put last
    value = np.concatenate([value, value.mean(axis=-1, keepdims=True)], axis=-1)[..., places]
    return np.moveaxis(value.reshape(*value.shape[:-2], -1), -1, axis)


def _shapes(config: Config, num_channels: int) -> dict[str, Any]:
    """Shapes and types of a network's arrays."""
    model = build_model(config, num_channels)
    image = jax.ShapeDtypeStruct((1, *config.data.crop_size, num_channels), jnp.float32)
    return dict(jax.eval_shape(lambda key, image: initial_variables(model, image, key), jax.random.key(0), image))


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Path with slashes -> array."""
    return {"/".join(path): leaf for path, leaf in traverse_util.flatten_dict(tree).items()}

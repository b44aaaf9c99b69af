"""The published encoder that a configuration names: opened before the first training step, and again to be scored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bie_jax.config.schema import Config, ConfigError
from bie_jax.training.warm_start import check_finite_weights

if TYPE_CHECKING:
    from bie_jax.models.pretrained.encoder import PublishedEncoder


def open_published(config: Config, num_channels: int) -> PublishedEncoder | None:
    """The encoder of `eval.published`; None if that names none.

    Args:
        config: the checked configuration.
        num_channels: C of the images that it will see, one by one.

    Raises:
        ConfigError: if there is none in that folder, or one that cannot be read, or more components are asked for than
            it has numbers.
    """
    folder = config.eval.published
    if not folder:
        return None
    from bie_jax.models.pretrained.encoder import load_encoder  # needs safetensors, as no other run does

    try:
        encoder = load_encoder(Path(folder), config.model.cpu_kernels)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"config.eval.published={folder!r}: {error}") from None
    check_finite_weights(encoder.variables, f"config.eval.published={folder!r}")
    width = encoder.dim * (num_channels if config.eval.published_channels == "concatenate" else 1)
    if config.eval.published_components > width:
        raise ConfigError(
            f"config.eval.published_components={config.eval.published_components} is more than the {width} numbers "
            f"that config.eval.published={folder!r} gives of an image"
        )
    return encoder

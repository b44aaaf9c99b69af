"""How images were shown to published weights: `preprocessor_config.json` of Hugging Face's `transformers`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

PREPROCESSOR = "preprocessor_config.json"
_BYTE = 1 / 255  # a rescale_factor that makes 0..1 of 8-bit images


@dataclasses.dataclass(frozen=True)
class Preprocessor:
    """From an image in 0..1 to the input of a network.

    Attributes:
        size: (height, width) of the input, pixels.
        mean: of each channel of the input, subtracted.
        std: of each channel of the input, divided by.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, gray: jax.Array) -> jax.Array:
        """One channel as a gray image of K channels.

        The largest middle part of the input's form is taken: all of a square image, where `transformers` may cut a
        margin off. It is resized bicubically with a = -0.5, widened where it shrinks (antialiased), as Pillow does.

        Args:
            gray: [B, H, W] float32 in 0..1.

        Returns:
            [B, *size, K] float32.
        """
        batch_size, *image_size = gray.shape
        scale = min(have / want for have, want in zip(image_size, self.size, strict=True))
        height, width = (max(1, round(want * scale)) for want in self.size)
        top, left = (image_size[0] - height) // 2, (image_size[1] - width) // 2
        part = gray[:, top : top + height, left : left + width, None]
        resized = jax.image.resize(part, (batch_size, *self.size, 1), "cubic", antialias=True)
        mean, std = (jnp.asarray(numbers, jnp.float32).reshape(1, 1, 1, -1) for numbers in (self.mean, self.std))
        # A bicubic kernel overshoots at edges; 8-bit images, which the weights know, cannot.
        shape = (batch_size, *self.size, len(self.mean))
        return (jnp.broadcast_to(jnp.clip(resized, 0, 1), shape) - mean) / std


def read_preprocessor(folder: Path, channels: int) -> Preprocessor:
    """Read the file.

    Args:
        folder: that it lies in.
        channels: K of the network's input.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it does not say what is needed, or asks for something else.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: only it tells the size and the intensities that the weights were trained on; "
            "save_pretrained of the model's image processor writes it"
        )
    try:
        said = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(said, dict):
        raise ValueError(f"{path} holds {type(said).__name__}, not named values")
    if not said.get("do_rescale", True) or abs(said.get("rescale_factor", _BYTE) - _BYTE) > 1e-9:
        raise ValueError(
            f"{path} has do_rescale={said.get('do_rescale')}, rescale_factor={said.get('rescale_factor')}: only "
            "networks of images in 0..1 are shown the intensities that they know (True and 1 / 255)"
        )
    key = "crop_size" if said.get("do_center_crop", False) else "size"
    mean, std = (0.0,) * channels, (1.0,) * channels
    if said.get("do_normalize", True):
        mean, std = (_numbers(said, name, channels, path) for name in ("image_mean", "image_std"))
    if min(std) <= 0:
        raise ValueError(f"{path} has image_std={said['image_std']}: expected numbers above 0")
    return Preprocessor(_size(said, key, path), mean, std)


def _size(said: dict[str, Any], key: str, path: Path) -> tuple[int, int]:
    size = said.get(key)
    if isinstance(size, dict):
        size = [size.get(side, size.get("shortest_edge")) for side in ("height", "width")]
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise ValueError(
            f"{path} has {key}={said.get(key)!r}: expected a number of pixels, height and width, or shortest_edge"
        )
    return sides[0], sides[1]


def _numbers(said: dict[str, Any], key: str, count: int, path: Path) -> tuple[float, ...]:
    numbers = said.get(key)
    if not isinstance(numbers, list) or len(numbers) != count or not all(isinstance(n, int | float) for n in numbers):
        raise ValueError(f"{path} has {key}={numbers!r}: expected {count} numbers, one for each channel of the network")
    return tuple(map(float, numbers))

"""A published encoder as it was published: the network that its own files describe, with its weights."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from bie_jax.models.encoders.resnet import STRIDES, ResNetEncoder
from bie_jax.models.encoders.vit import ViTEncoder
from bie_jax.models.pretrained.files import CONFIG, entries_of, read_files
from bie_jax.models.pretrained.huggingface import encoder_of
from bie_jax.models.pretrained.leaves import Leaves, flat, with_values
from bie_jax.models.pretrained.positions import resize_positions
from bie_jax.models.pretrained.preprocessor import Preprocessor, read_preprocessor
from bie_jax.models.pretrained.resnet import published_depth, resnet_variables
from bie_jax.models.pretrained.vit import POSITIONS, as_published, has_layer_scale, size_of
from bie_jax.models.pretrained.vit_blocks import PATCHES


@dataclasses.dataclass(frozen=True)
class PublishedEncoder:
    """A network with its weights.

    Attributes:
        name: what `config.json` calls its kind and how large it is, e.g. "dinov2 of 12 blocks".
        reads: what of its last layer is an image's row.
        dim: D numbers of an image.
        module: the network.
        variables: its weights, float32.
        preprocessor: from an image in 0..1 to its input.
    """

    name: str
    reads: str
    dim: int
    module: ViTEncoder | ResNetEncoder
    variables: dict[str, Any]
    preprocessor: Preprocessor

    def features(self, variables: dict[str, Any], gray: jax.Array) -> jax.Array:
        """One channel by itself: [B, H, W] float32 in 0..1 -> [B, D], to be compiled."""
        return _read(self.module, variables, self.preprocessor(gray))


def load_encoder(folder: Path, cpu_kernels: bool) -> PublishedEncoder:
    """The encoder of a folder that `save_pretrained` of `transformers` filled: ResNet, ViT, ViTMAE or DINOv2.

    It computes what the original does, to rounding. Read of a ViT is the class token after the last norm, of a ResNet
    the mean over positions: what the original's users take. Learned positions are fitted to the size of its input.

    Args:
        folder: with `config.json`, `preprocessor_config.json` and `model.safetensors`.
        cpu_kernels: see `bie_jax.models.kernels`.

    Raises:
        FileNotFoundError: if one of the three is not there.
        ValueError: for a network that is none of these, or that its files do not describe.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: save_pretrained of `transformers` makes one")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"there is no {folder / CONFIG}: save_pretrained of `transformers` writes it")
    tensors, config = read_files(folder)
    if encoder_of(tensors) == "resnet":
        depth = published_depth(tensors, config)
        given = {name: flat(tree) for name, tree in resnet_variables(tensors, depth).items()}
        *_, channels, width = given["params"]["stem", "kernel"].shape
        preprocessor = read_preprocessor(folder, channels)
        module, stride = ResNetEncoder(depth, width, cpu_kernels=cpu_kernels), STRIDES["large"]
        name, reads = f"{config.get('model_type')} of {depth} layers", "the mean over positions"
    else:
        given = {"params": as_published(tensors, config)}
        stride, _, channels, _ = given["params"][PATCHES].shape
        preprocessor = read_preprocessor(folder, channels)
        module = _vit(given["params"], config, cpu_kernels)
        name, reads = f"{config.get('model_type')} of {module.size.depth} blocks", "the class token"
    size = preprocessor.size
    if size[0] % stride or size[1] % stride:
        raise ValueError(f"its input of {size[0]} x {size[1]} pixels is no multiple of its stride, {stride} pixels")
    if isinstance(module, ViTEncoder):
        given["params"][POSITIONS] = resize_positions(
            given["params"][POSITIONS], (size[0] // stride, size[1] // stride)
        )
    blank = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    shapes = jax.eval_shape(lambda image: module.init(jax.random.key(0), image, train=False), blank)
    # Held against the network that is made of them: a file may be of two kinds at once.
    variables = {
        name: traverse_util.unflatten_dict(with_values(flat(tree), (), given[name])) for name, tree in shapes.items()
    }
    dim = jax.eval_shape(lambda image: _read(module, variables, image), blank).shape[-1]
    return PublishedEncoder(name, reads, dim, module, variables, preprocessor)


def _vit(params: Leaves, config: dict[str, Any], cpu_kernels: bool) -> ViTEncoder:
    (epsilon,) = entries_of(config, "layer_norm_eps")
    return ViTEncoder(
        size_of(params),
        params[PATCHES].shape[0],
        positions="learnt",
        layer_scale=has_layer_scale(params),
        norm_epsilon=epsilon,
        cpu_kernels=cpu_kernels,
    )


def _read(module: nn.Module, variables: dict[str, Any], image: jax.Array) -> jax.Array:
    """[B, h, w, K] -> [B, D]."""
    if isinstance(module, ViTEncoder):
        return jnp.asarray(module.apply(variables, image, method="class_features"))
    return jnp.asarray(module.apply(variables, image, train=False)).mean(axis=(1, 2))

"""Weights of Hugging Face's vision transformers, as the parameters of `ViTEncoder`: ViT, DINOv2, and ViTMAE's encoder.

Models with a head put "vit." or "dinov2." before the names of their tensors.
"""

import re
from typing import Any

import numpy as np

from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.models.pretrained.channels import adapt_channels
from bie_jax.models.pretrained.files import CONFIG, entries_of
from bie_jax.models.pretrained.leaves import Leaves, refuse_differences
from bie_jax.models.pretrained.positions import refuse_other_positions, resize_positions
from bie_jax.models.pretrained.vit_blocks import CHANNELS, PATCHES, QKV, rename, take_blocks

POSITIONS = ("pos_embed", "embedding")
# Heads, poolers and the token of masked pre-training: an encoder does not have them.
_IGNORED = re.compile(r"(pooler\.dense|classifier|head)\.(weight|bias)|embeddings\.mask_token")


def fit_vit(tensors: dict[str, np.ndarray], config: dict[str, Any], encoder: Leaves) -> Leaves:
    """The leaves of a ViT encoder with published weights.

    Args:
        tensors: see `encoder_params`.
        config: what `config.json` says.
        encoder: leaves of the network's encoder; embeddings of channels are taken over from it.

    Raises:
        ValueError: if these are weights of another ViT, or `config.json` lacks what the tensors do not tell.
    """
    given = as_published(tensors, config)
    refuse_differences(_facts(encoder), _facts(given))
    given[PATCHES] = adapt_channels(given[PATCHES], encoder[PATCHES].shape[2])
    if POSITIONS in encoder:
        given[POSITIONS] = resize_positions(given[POSITIONS], encoder[POSITIONS].shape[:2])
    else:
        refuse_other_positions(given.pop(("class_pos_embed",)), given.pop(POSITIONS))
    return given | {path: leaf for path, leaf in encoder.items() if path == CHANNELS}


def as_published(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> Leaves:
    """`encoder_params`, with heads and grid as `config.json` has them.

    Raises:
        ValueError: if it lacks what the tensors do not tell, or these are not the tensors of a ViT with GELUs.
    """
    keys = ("hidden_act", "num_attention_heads", "image_size", "patch_size")
    activation, heads, *sizes = entries_of(config, *keys)
    if activation != "gelu":
        raise ValueError(f"{CONFIG} has hidden_act={activation!r}; the ViTs here have 'gelu'")
    sides = [side if isinstance(side, list) else [side, side] for side in sizes]
    grid = (sides[0][0] // sides[1][0], sides[0][1] // sides[1][1])
    return encoder_params(tensors, heads, grid)


def size_of(encoder: Leaves) -> ViTSize:
    """The size of a ViT encoder with these parameters."""
    depth, width, _, heads, _ = encoder[QKV].shape
    return ViTSize(width, depth, heads, encoder["blocks", "mlp_in", "kernel"].shape[-1])


def has_layer_scale(encoder: Leaves) -> bool:
    """Whether a ViT encoder with these parameters has LayerScale."""
    return ("blocks", "mlp_scale") in encoder


def encoder_params(tensors: dict[str, np.ndarray], heads: int, grid: tuple[int, int]) -> Leaves:
    """The values of a published ViT by their paths in the tree of `ViTEncoder(positions="learnt")`.

    Args:
        tensors: state dict, name -> array; those of a head or of a decoder are left aside.
        heads: of the attention (`num_attention_heads`), which tensors do not tell.
        grid: rows and columns of patches that the positions are for.

    Returns:
        Path -> float32; `layer_scale` where the weights have it. "patch_embed/kernel" is [p, p, C, D] with the
        channels of the tensors.

    Raises:
        ValueError: if tensors are missing or left over, or the positions are not of this grid.
    """
    given = {re.sub(r"^(vit|dinov2)\.", "", name): tensor for name, tensor in tensors.items()}
    given = {
        name: tensor for name, tensor in given.items() if not (_IGNORED.fullmatch(name) or name.startswith("decoder."))
    }
    blocks, rest = take_blocks(given, heads)
    outside = {
        "embeddings.cls_token": ("class_token",),
        "embeddings.position_embeddings": ("positions",),
        "embeddings.patch_embeddings.projection.weight": ("patch_embed", "kernel"),
        "embeddings.patch_embeddings.projection.bias": ("patch_embed", "bias"),
        "layernorm.weight": ("norm", "scale"),
        "layernorm.bias": ("norm", "bias"),
    }
    leaves = rename(rest, outside)
    kernel = leaves["patch_embed", "kernel"]  # [D, C, p, p]
    leaves["patch_embed", "kernel"] = kernel.transpose(2, 3, 1, 0)
    leaves["class_token",] = leaves["class_token",].reshape(-1)
    positions = leaves.pop(("positions",))[0]  # [1 + N, D]
    rows, columns = grid
    if rows * columns != len(positions) - 1:
        raise ValueError(f"{len(positions) - 1} positions are not a grid of {rows} x {columns} patches")
    leaves["class_pos_embed",] = positions[0]
    leaves["pos_embed", "embedding"] = positions[1:].reshape(rows, columns, -1)
    return leaves | blocks


def _facts(encoder: Leaves) -> dict[str, Any]:
    """What a configuration says of an encoder with these parameters."""
    size = size_of(encoder)
    return {
        "model.vit.size": next((name for name, known in SIZES.items() if known == size), size),
        "model.vit.patch_size": encoder[PATCHES].shape[0],
        "model.vit.layer_scale": has_layer_scale(encoder),
    }

"""Weights of the decoder of Hugging Face's `ViTMAEForPreTraining`, as the parameters of the decoder of `MAE`."""

import math
from typing import Any

import numpy as np

from bie_jax.models.pretrained.files import entries_of
from bie_jax.models.pretrained.leaves import Leaves, refuse_differences
from bie_jax.models.pretrained.positions import refuse_other_positions
from bie_jax.models.pretrained.vit_blocks import CHANNELS, PATCHES, QKV, rename, take_blocks


def fit_decoder(tensors: dict[str, np.ndarray], config: dict[str, Any], encoder: Leaves, decoder: Leaves) -> Leaves:
    """The leaves of the decoder of a masked autoencoder with published weights.

    Args:
        tensors: see `decoder_params`.
        config: what `config.json` says.
        encoder: leaves of the network's encoder.
        decoder: leaves of the network's decoder; embeddings of channels are taken over from it, and so is its first
            layer where that has another input.

    Raises:
        ValueError: if these are weights of another decoder, or `config.json` lacks what the tensors do not tell.
    """
    (heads,) = entries_of(config, "decoder_num_attention_heads")
    given, positions = decoder_params(tensors, heads)
    refuse_differences(_facts(decoder), _facts(given))
    side = math.isqrt(len(positions) - 1)
    refuse_other_positions(positions[0], positions[1:].reshape(side, side, -1))
    pixels = encoder[PATCHES].shape[0] ** 2
    for path in (("pred", "kernel"), ("pred", "bias")):
        values = given[path].reshape(*given[path].shape[:-1], pixels, -1)  # [..., p p, K]
        channels = decoder[path].shape[-1] // pixels
        if values.shape[-1] != channels:
            values = np.repeat(values.mean(axis=-1, keepdims=True), channels, axis=-1)
        given[path] = values.reshape(*values.shape[:-2], -1)
    # Behind a projection of another latent_dim this layer has another input.
    kept = {("embed", "kernel"), ("embed", "bias")} if _width_in(decoder) != _width_in(given) else set()
    return given | {path: leaf for path, leaf in decoder.items() if path == CHANNELS or path in kept}


def decoder_params(tensors: dict[str, np.ndarray], heads: int) -> tuple[Leaves, np.ndarray]:
    """The decoder of a `ViTMAEForPreTraining` by their paths in the tree of `MAEDecoder`.

    Args:
        tensors: state dict, name -> array; those outside "decoder." are left aside.
        heads: of its attention (`decoder_num_attention_heads`).

    Returns:
        Path -> float32; and its positions [1 + N, D], which `MAEDecoder` computes, the class token's first.

    Raises:
        ValueError: if tensors are missing or left over.
    """
    given = {name.removeprefix("decoder."): array for name, array in tensors.items() if name.startswith("decoder.")}
    blocks, rest = take_blocks(given, heads)
    outside = {
        "mask_token": ("mask_token",),
        "decoder_pos_embed": ("positions",),
        "decoder_embed.weight": ("embed", "kernel"),
        "decoder_embed.bias": ("embed", "bias"),
        "decoder_norm.weight": ("norm", "scale"),
        "decoder_norm.bias": ("norm", "bias"),
        "decoder_pred.weight": ("pred", "kernel"),
        "decoder_pred.bias": ("pred", "bias"),
    }
    leaves = rename(rest, outside)
    for module in ("embed", "pred"):
        leaves[module, "kernel"] = leaves[module, "kernel"].T
    leaves["mask_token",] = leaves["mask_token",].reshape(-1)
    positions = leaves.pop(("positions",))[0]
    return leaves | blocks, positions


def _facts(decoder: Leaves) -> dict[str, Any]:
    depth, width, _, heads, _ = decoder[QKV].shape
    names = ("model.vit.decoder_width", "model.vit.decoder_depth", "model.vit.decoder_heads")
    return dict(zip(names, (width, depth, heads), strict=True))


def _width_in(decoder: Leaves) -> int:
    return decoder["embed", "kernel"].shape[0]

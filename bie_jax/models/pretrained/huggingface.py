"""Published weights for an encoder: what `save_pretrained` of Hugging Face's `transformers` wrote.

ResNet-18/34/50/101/152, ViT, ViTMAE (the decoder of a joint `MAE` too) and DINOv2.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from bie_jax.models.pretrained.files import read_files
from bie_jax.models.pretrained.leaves import below, flat, refuse_differences, with_values
from bie_jax.models.pretrained.resnet import fit_resnet
from bie_jax.models.pretrained.vit import fit_vit
from bie_jax.models.pretrained.vit_mae import fit_decoder

# Of ViT, ViTMAE and DINOv2, with the prefix that models with a head have; Swin, BEiT, CLIP and BERT have other names.
_OF_A_VIT = re.compile(r"((vit|dinov2)\.)?embeddings\.(cls_token|position_embeddings)")


def load_huggingface(path: str | Path, params: dict[str, Any], batch_stats: dict[str, Any]) -> dict[str, Any]:
    """The variables of a network with the weights of a published encoder in it.

    Every array of the encoder is taken, and in a masked autoencoder those of a ViTMAE's decoder. Left as they are: what
    is not the encoder's (bottleneck, decoders of other networks), embeddings of channels, and the projection to another
    latent_dim with the decoder's layer after it. Three things are fitted to the network:

    - The first layer, to C channels: each gets the sum of the weights over the file's channels, divided by C, so that a
      grey image repeated over channels gives what it gave. Unchanged for as many channels as the file has. The last
      layer of a decoder gets the mean over the file's channels for each of ours.
    - Learned positions, to the size of the network's images: bicubically, as `transformers` interpolates them.
    - Fixed positions are computed, for any size; those of the file must be the same ones.

    Two things are not part of the weights. `norm_epsilon`: DINOv2's is 1e-6, and that of `transformers`' ViT and ViTMAE
    1e-12. A ResNet's `padding_mode`: published ones have zeros around an image, and a network that is circular, for
    distance matrices, starts from the same kernels.

    Args:
        path: folder with `config.json` and `model.safetensors`, or the .safetensors file in it. (A ResNet's weights do
            without `config.json`.)
        params: of the network, an autoencoder or `MAE`; values, or anything with shape and dtype.
        batch_stats: of the network; empty without batch norm.

    Returns:
        {"params": ..., "batch_stats": ...} of the same tree and shapes, with what is left as it is as it was given; no
        "batch_stats" where none were given.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind, or of another network; the message has the keys of the configuration
            that differ, and the values that fit; or what `config.json` lacks.
    """
    tensors, config = read_files(Path(path))
    prefix = ("network",) if "network" in params else ()  # of independent channels
    leaves = flat(params)
    encoder = below(leaves, (*prefix, "encoder"))
    theirs = encoder_of(tensors)
    ours = "resnet" if ("stem", "kernel") in encoder else "vit" if ("class_token",) in encoder else "residual_stack"
    refuse_differences({"model.encoder": ours}, {"model.encoder": theirs})
    if theirs == "resnet":
        given = fit_resnet(tensors, config, encoder)
        stats = with_values(flat(batch_stats), (*prefix, "encoder"), given["batch_stats"])
        leaves = with_values(leaves, (*prefix, "encoder"), given["params"])
        return {"params": traverse_util.unflatten_dict(leaves), "batch_stats": traverse_util.unflatten_dict(stats)}
    decoder = below(leaves, (*prefix, "decoder"))
    leaves = with_values(leaves, (*prefix, "encoder"), fit_vit(tensors, config, encoder))
    if ("mask_token",) in decoder and "decoder.mask_token" in tensors:
        leaves = with_values(leaves, (*prefix, "decoder"), fit_decoder(tensors, config, encoder, decoder))
    variables = {"params": traverse_util.unflatten_dict(leaves)}
    return variables | ({"batch_stats": batch_stats} if batch_stats else {})


def encoder_of(tensors: dict[str, np.ndarray]) -> str:
    """The `model.encoder` that these are of, by the names that no other network has."""
    if any("embedder.embedder" in name for name in tensors):
        return "resnet"
    if any(_OF_A_VIT.fullmatch(name) for name in tensors):
        return "vit"
    names = ", ".join(sorted(tensors)[:3])
    more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
    raise ValueError(
        f"{names or 'no tensors'}{more}: these weights are of none of the networks here, ResNet, ViT, ViTMAE and "
        "DINOv2, as `transformers` names their tensors; save_pretrained of its models writes them so"
    )

"""Published weights for an encoder: what `save_pretrained` of Hugging Face's `transformers` wrote.

ResNet-18/34/50/101/152, ViT, ViTMAE (the decoder of a joint `MAE` too) and DINOv2. Only safetensors files are read:
other formats are pickles, which run what they contain.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bie_jax.models.encoders.resnet import STAGE_SIZES
from bie_jax.models.encoders.vit import SIZES, ViTSize, sincos_positions
from bie_jax.models.pretrained.resnet import resnet_variables
from bie_jax.models.pretrained.vit import decoder_params, encoder_params

_Path = tuple[str, ...]
_Leaves = dict[_Path, Any]  # what a tree of parameters holds, by path

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
# Of ViT, ViTMAE and DINOv2, with the prefix that models with a head have; Swin, BEiT, CLIP and BERT have other names.
_OF_A_VIT = re.compile(r"((vit|dinov2)\.)?embeddings\.(cls_token|position_embeddings)")
_PATCHES = ("patch_embed", "kernel")
_POSITIONS = ("pos_embed", "embedding")
_CHANNELS = ("channel_embed", "embedding")
_QKV = ("blocks", "qkv", "kernel")


def load_huggingface(path: str | Path, params: dict[str, Any], batch_stats: dict[str, Any]) -> dict[str, Any]:
    """The variables of a network with the weights of a published encoder in it.

    Every array of the encoder is taken, and in a masked autoencoder those of a ViTMAE's decoder. Left as they are: what
    is not the encoder's (bottleneck, decoders of other networks), embeddings of channels, and the projection to another
    latent_dim with the decoder's layer after it. Three things are fitted to the network:

    - The first layer, to C channels: each gets the sum of the weights over the file's channels, divided by C, so that a
      grey image repeated over channels gives what it gave. Unchanged for as many channels as the file has. The last
      layer of a decoder gets the mean over the file's channels for each of ours.
    - Learnt positions, to the size of the network's images: bicubically, as `transformers` interpolates them.
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
    tensors, config = _read(Path(path))
    prefix = ("network",) if "network" in params else ()  # of independent channels
    leaves = _flat(params)
    encoder = _below(leaves, (*prefix, "encoder"))
    theirs = _encoder_of(tensors)
    ours = "resnet" if ("stem", "kernel") in encoder else "vit" if ("class_token",) in encoder else "residual_stack"
    _refuse_differences({"model.encoder": ours}, {"model.encoder": theirs})
    if theirs == "resnet":
        given = _resnet(tensors, config, encoder)
        stats = _with(_flat(batch_stats), (*prefix, "encoder"), given["batch_stats"])
        leaves = _with(leaves, (*prefix, "encoder"), given["params"])
        return {"params": traverse_util.unflatten_dict(leaves), "batch_stats": traverse_util.unflatten_dict(stats)}
    decoder = _below(leaves, (*prefix, "decoder"))
    leaves = _with(leaves, (*prefix, "encoder"), _vit(tensors, config, encoder))
    if ("mask_token",) in decoder and "decoder.mask_token" in tensors:
        leaves = _with(leaves, (*prefix, "decoder"), _decoder(tensors, config, encoder, decoder))
    variables = {"params": traverse_util.unflatten_dict(leaves)}
    return variables | ({"batch_stats": batch_stats} if batch_stats else {})


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The first layer for another number of channels.

    Args:
        kernel: [kh, kw, K, D], trained on K channels.
        channels: C.

    Returns:
        [kh, kw, C, D]: each the sum over K divided by C; the same kernel where C = K.
    """
    if kernel.shape[2] == channels:
        return kernel
    return np.repeat(kernel.sum(axis=2, keepdims=True) / channels, channels, axis=2)


def resize_positions(positions: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Learnt positions for another grid of patches, [h, w, D] -> [rows, columns, D].

    Bicubic with a = -0.75, half-pixel centers, borders repeated and no smoothing: what
    `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` does, and `interpolate_pos_encoding` with it.
    """
    rows, columns = (_cubic_weights(old, new) for old, new in zip(positions.shape[:2], grid, strict=True))
    return np.einsum("ri,cj,ijd->rcd", rows, columns, positions).astype(positions.dtype)


def _cubic_weights(old: int, new: int) -> np.ndarray:
    """[new, old] float64, the share of each old position in each new one."""
    a = -0.75
    place = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(place).astype(int)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        distance = np.abs(place - (first + tap))
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        np.add.at(weights, (np.arange(new), np.clip(first + tap, 0, old - 1)), np.where(distance <= 1, near, far))
    return weights


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors, and what `config.json` beside them says (empty without one)."""
    file = path / _WEIGHTS if path.is_dir() else path
    if not file.exists():
        others = [p.name for p in sorted(file.parent.glob("*")) if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5")]
        instead = f"; {', '.join(others)} cannot be read, because it may run code" if others else ""
        raise FileNotFoundError(f"there is no {file}{instead}. save_pretrained of `transformers` writes it")
    if file.suffix != ".safetensors":
        raise ValueError(f"{file.name} cannot be read: only .safetensors files are, because others may run code")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a safetensors file: {error}") from None
    for name, tensor in tensors.items():
        # Whole numbers are quantized weights, whose scale stands elsewhere, or counters.
        if tensor.dtype.kind in "biuc" and tensor.ndim > 1:
            raise ValueError(f"{file}: {name} is of {tensor.dtype}; only weights in floats are read")
    beside = file.parent / _CONFIG
    try:
        return tensors, json.loads(beside.read_text()) if beside.exists() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{beside} is not JSON: {error}") from None


def _encoder_of(tensors: dict[str, np.ndarray]) -> str:
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


def _entries(config: dict[str, Any], *keys: str) -> list[Any]:
    """What `config.json` says of a ViT that its tensors do not tell."""
    if not config:
        raise ValueError(f"{_CONFIG} beside the weights is missing or empty, and only it tells a ViT's number of heads")
    missing = [key for key in keys if key not in config]
    if missing:
        raise ValueError(
            f"{_CONFIG} beside the weights has no {', '.join(missing)}, which the tensors do not tell; save_pretrained "
            "of `transformers` writes it"
        )
    return [config[key] for key in keys]


def _resnet(tensors: dict[str, np.ndarray], config: dict[str, Any], encoder: _Leaves) -> dict[str, _Leaves]:
    if config.get("downsample_in_bottleneck", False) or config.get("hidden_act", "relu") != "relu":
        raise ValueError(
            f"{_CONFIG} has downsample_in_bottleneck={config.get('downsample_in_bottleneck')}, hidden_act="
            f"{config.get('hidden_act')!r}; the ResNets here are those with False and 'relu'"
        )
    places = [re.search(r"stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.convolution", name) for name in tensors]
    found = [tuple(map(int, match.groups())) for match in places if match]
    blocks = tuple(len({block for s, block, _ in found if s == stage}) for stage in range(4))
    depth = _depth_of(blocks, max((number for *_, number in found), default=0) + 1)
    blocks = tuple(1 + encoder[f"stage{stage}", "layers", "conv1", "kernel"].shape[0] for stage in range(1, 5))
    our_depth = _depth_of(blocks, 3 if ("stage1", "first", "conv3", "kernel") in encoder else 2)
    _refuse_differences({"model.resnet.depth": our_depth}, {"model.resnet.depth": depth})
    given = {name: _flat(tree) for name, tree in resnet_variables(tensors, depth).items()}
    kernel = "stem", "kernel"
    given["params"][kernel] = adapt_channels(given["params"][kernel], encoder[kernel].shape[2])
    return given


def _depth_of(blocks: tuple[int, ...], convolutions: int) -> int:
    """Of a ResNet with that many blocks in each stage, and convolutions in each block."""
    for depth, sizes in STAGE_SIZES.items():
        if blocks == sizes and depth == 2 + convolutions * sum(sizes):
            return depth
    depths = ", ".join(map(str, STAGE_SIZES))
    raise ValueError(
        f"a ResNet with {blocks} blocks of {convolutions} convolutions; there are those of {depths} layers"
    )


def _vit(tensors: dict[str, np.ndarray], config: dict[str, Any], encoder: _Leaves) -> _Leaves:
    keys = ("hidden_act", "num_attention_heads", "image_size", "patch_size")
    activation, heads, *sizes = _entries(config, *keys)
    if activation != "gelu":
        raise ValueError(f"{_CONFIG} has hidden_act={activation!r}; the ViTs here have 'gelu'")
    sides = [side if isinstance(side, list) else [side, side] for side in sizes]
    grid = (sides[0][0] // sides[1][0], sides[0][1] // sides[1][1])
    given: _Leaves = encoder_params(tensors, heads, grid)
    _refuse_differences(_facts_of_vit(encoder), _facts_of_vit(given))
    given[_PATCHES] = adapt_channels(given[_PATCHES], encoder[_PATCHES].shape[2])
    if _POSITIONS in encoder:
        given[_POSITIONS] = resize_positions(given[_POSITIONS], encoder[_POSITIONS].shape[:2])
    else:
        _refuse_other_positions(given.pop(("class_pos_embed",)), given.pop(_POSITIONS))
    return given | {path: leaf for path, leaf in encoder.items() if path == _CHANNELS}


def _decoder(tensors: dict[str, np.ndarray], config: dict[str, Any], encoder: _Leaves, decoder: _Leaves) -> _Leaves:
    (heads,) = _entries(config, "decoder_num_attention_heads")
    given, positions = decoder_params(tensors, heads)
    _refuse_differences(_facts_of_decoder(decoder), _facts_of_decoder(given))
    side = math.isqrt(len(positions) - 1)
    _refuse_other_positions(positions[0], positions[1:].reshape(side, side, -1))
    pixels = encoder[_PATCHES].shape[0] ** 2
    for path in (("pred", "kernel"), ("pred", "bias")):
        values = given[path].reshape(*given[path].shape[:-1], pixels, -1)  # [..., p p, K]
        channels = decoder[path].shape[-1] // pixels
        if values.shape[-1] != channels:
            values = np.repeat(values.mean(axis=-1, keepdims=True), channels, axis=-1)
        given[path] = values.reshape(*values.shape[:-2], -1)
    # Behind a projection of another latent_dim this layer has another input.
    kept = {("embed", "kernel"), ("embed", "bias")} if _width_in(decoder) != _width_in(given) else set()
    return given | {path: leaf for path, leaf in decoder.items() if path == _CHANNELS or path in kept}


def _facts_of_vit(encoder: _Leaves) -> dict[str, Any]:
    """What a configuration says of an encoder with these parameters."""
    depth, width, _, heads, _ = encoder[_QKV].shape
    size = ViTSize(width, depth, heads, encoder["blocks", "mlp_in", "kernel"].shape[-1])
    return {
        "model.vit.size": next((name for name, known in SIZES.items() if known == size), size),
        "model.vit.patch_size": encoder[_PATCHES].shape[0],
        "model.vit.layer_scale": ("blocks", "mlp_scale") in encoder,
    }


def _facts_of_decoder(decoder: _Leaves) -> dict[str, Any]:
    depth, width, _, heads, _ = decoder[_QKV].shape
    names = ("model.vit.decoder_width", "model.vit.decoder_depth", "model.vit.decoder_heads")
    return dict(zip(names, (width, depth, heads), strict=True))


def _width_in(decoder: _Leaves) -> int:
    return decoder["embed", "kernel"].shape[0]


def _refuse_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    different = [
        f"{key}={ours[key]!r}, and these weights need {theirs[key]!r}" for key in ours if ours[key] != theirs[key]
    ]
    if different:
        raise ValueError("; ".join(different))


def _refuse_other_positions(of_class_token: np.ndarray, of_patches: np.ndarray) -> None:
    """Positions [D] and [h, w, D] of a file, which must be those that a network computes."""
    computed = sincos_positions(of_patches.shape[:2], of_patches.shape[-1])
    # Rounded to bfloat16 a sine is off by less than this.
    if max(np.abs(of_class_token).max(), np.abs(of_patches - computed).max()) > 0.01:
        raise ValueError("model.vit.positions='sincos', and these weights need 'learnt': their positions are others")


def _flat(tree: dict[str, Any]) -> _Leaves:
    return dict(traverse_util.flatten_dict(tree))


def _below(leaves: _Leaves, prefix: _Path) -> _Leaves:
    return {path[len(prefix) :]: leaf for path, leaf in leaves.items() if path[: len(prefix)] == prefix}


def _with(leaves: _Leaves, prefix: _Path, given: _Leaves) -> _Leaves:
    """`leaves` with `given` in place of everything below `prefix`, in the types that were there."""
    below = _below(leaves, prefix)
    shapes, given_shapes = ({path: tuple(leaf.shape) for path, leaf in tree.items()} for tree in (below, given))
    if shapes != given_shapes:
        path = min(path for path in shapes.keys() | given_shapes.keys() if shapes.get(path) != given_shapes.get(path))
        raise ValueError(
            f"{'/'.join((*prefix, *path))} is {shapes.get(path, 'not there')} in the network, and in these weights "
            f"{given_shapes.get(path, 'not there')}"
        )
    cast = {  # what was kept may be a mere shape
        path: leaf if given[path] is leaf else given[path].astype(leaf.dtype) for path, leaf in below.items()
    }
    return leaves | {(*prefix, *path): leaf for path, leaf in cast.items()}

"""Weights of Hugging Face's vision transformers, as the parameters of `ViTEncoder` and of the decoder of `MAE`.

`ViTModel`, `ViTMAEForPreTraining` and `Dinov2Model` differ in the names of their tensors, and in what versions of
`transformers` call them; models with a head put "vit." or "dinov2." before them. Matrices are [out, in] there and [in,
out] here, query, key and value are one array here, and all blocks share one leaf, in their order along its first axis.
"""

import re

import numpy as np

_Path = tuple[str, ...]
Leaves = dict[_Path, np.ndarray]

_BLOCK = re.compile(r"(?:encoder\.layer|decoder_encoder\.layer|decoder_layers|layers)\.(\d+)\.(.+)\.(\w+)")
# Heads, poolers and the token of masked pre-training: an encoder does not have them.
_IGNORED = re.compile(r"(pooler\.dense|classifier|head)\.(weight|bias)|embeddings\.mask_token")
_MODULES_OF_BLOCK = {
    "attention.attention.query": "query",
    "attention.attention.key": "key",
    "attention.attention.value": "value",
    "attention.q_proj": "query",
    "attention.k_proj": "key",
    "attention.v_proj": "value",
    "attention.output.dense": "attention_out",
    "attention.o_proj": "attention_out",
    "layer_scale1": "attention_scale",
    "intermediate.dense": "mlp_in",
    "mlp.fc1": "mlp_in",
    "output.dense": "mlp_out",
    "mlp.fc2": "mlp_out",
    "layer_scale2": "mlp_scale",
    "layernorm_before": "attention_norm",
    "norm1": "attention_norm",
    "layernorm_after": "mlp_norm",
    "norm2": "mlp_norm",
}
_NORMS = ("attention_norm", "mlp_norm")
_MATRICES = ("query", "key", "value", "attention_out", "mlp_in", "mlp_out")
_SCALES = {("attention_scale",), ("mlp_scale",)}
_LEAVES_OF_BLOCK = {(name, leaf) for name in _MATRICES for leaf in ("kernel", "bias")} | {
    (name, leaf) for name in _NORMS for leaf in ("scale", "bias")
}


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
    blocks, rest = _take_blocks(given, heads)
    outside = {
        "embeddings.cls_token": ("class_token",),
        "embeddings.position_embeddings": ("positions",),
        "embeddings.patch_embeddings.projection.weight": ("patch_embed", "kernel"),
        "embeddings.patch_embeddings.projection.bias": ("patch_embed", "bias"),
        "layernorm.weight": ("norm", "scale"),
        "layernorm.bias": ("norm", "bias"),
    }
    leaves = _renamed(rest, outside)
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
    blocks, rest = _take_blocks(given, heads)
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
    leaves = _renamed(rest, outside)
    for module in ("embed", "pred"):
        leaves[module, "kernel"] = leaves[module, "kernel"].T
    leaves["mask_token",] = leaves["mask_token",].reshape(-1)
    positions = leaves.pop(("positions",))[0]
    return leaves | blocks, positions


def _take_blocks(tensors: dict[str, np.ndarray], heads: int) -> tuple[Leaves, dict[str, np.ndarray]]:
    """The leaves of "blocks", and the tensors that do not belong to a block."""
    blocks: dict[int, Leaves] = {}
    rest = {}
    for name, tensor in tensors.items():
        match = _BLOCK.fullmatch(name)
        module = _MODULES_OF_BLOCK.get(match[2]) if match else None
        if match is None or module is None:
            rest[name] = tensor
            continue
        array = np.asarray(tensor, np.float32)
        if match[3] == "lambda1":
            path: _Path = (module,)
        elif match[3] == "weight":
            path = (module, "scale" if module in _NORMS else "kernel")
            array = array.T if array.ndim == 2 else array
        else:
            path = (module, match[3])
        blocks.setdefault(int(match[1]), {})[path] = array
    if not blocks:
        raise ValueError(f"there are no blocks of a ViT among these tensors; there are {_listed(set(rest))}")
    for number in range(len(blocks)):
        has = blocks.get(number, {}).keys()
        if has - _SCALES != _LEAVES_OF_BLOCK or has != blocks[0].keys():
            names = sorted("/".join(path) for path in has ^ _LEAVES_OF_BLOCK)
            raise ValueError(f"block {number} is not a block of a ViT; too much or too little: {', '.join(names)}")
    leaves = {path: np.stack([blocks[number][path] for number in range(len(blocks))]) for path in blocks[0]}
    parts = [leaves.pop((name, "kernel")) for name in ("query", "key", "value")]
    kernel = np.stack(parts, axis=2)  # [L, in, 3, out]
    bias = np.stack([leaves.pop((name, "bias")) for name in ("query", "key", "value")], axis=1)
    if kernel.shape[-1] % heads:
        raise ValueError(f"{heads} heads do not divide a width of {kernel.shape[-1]}")
    leaves["qkv", "kernel"] = kernel.reshape(*kernel.shape[:-1], heads, -1)
    leaves["qkv", "bias"] = bias.reshape(*bias.shape[:-1], heads, -1)
    return {("blocks", *path): array for path, array in leaves.items()}, rest


def _renamed(tensors: dict[str, np.ndarray], names: dict[str, _Path]) -> Leaves:
    missing, unexpected = names.keys() - tensors.keys(), tensors.keys() - names.keys()
    if missing or unexpected:
        raise ValueError(f"not the tensors of a ViT: missing {_listed(missing)}; unexpected {_listed(unexpected)}")
    return {path: np.asarray(tensors[name], np.float32) for name, path in names.items()}


def _listed(names: set[str]) -> str:
    first = sorted(names)[:3]
    more = f" and {len(names) - len(first)} more" if len(names) > len(first) else ""
    return (", ".join(first) or "none") + more

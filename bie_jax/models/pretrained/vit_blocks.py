"""The blocks of Hugging Face's vision transformers, as the scanned block of `stack_of_blocks`.

`ViTModel`, `ViTMAEForPreTraining` and `Dinov2Model` differ in the names of their tensors, and in what versions of
`transformers` call them. Matrices are [out, in] there and [in, out] here, query, key and value are one array here, and
all blocks share one leaf, in their order along its first axis.
"""

import re

import numpy as np

from bie_jax.models.pretrained.leaves import LeafPath, Leaves

# Where encoders and decoders have them: kernels of the patches and of the attention, embeddings of channels.
PATCHES = ("patch_embed", "kernel")
CHANNELS = ("channel_embed", "embedding")
QKV = ("blocks", "qkv", "kernel")

_BLOCK = re.compile(r"(?:encoder\.layer|decoder_encoder\.layer|decoder_layers|layers)\.(\d+)\.(.+)\.(\w+)")
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


def take_blocks(tensors: dict[str, np.ndarray], heads: int) -> tuple[Leaves, dict[str, np.ndarray]]:
    """The leaves of "blocks", and the tensors that do not belong to a block.

    Raises:
        ValueError: if there are no blocks, something of a block is missing or left over, or `heads` do not fit.
    """
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
            path: LeafPath = (module,)
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


def rename(tensors: dict[str, np.ndarray], names: dict[str, LeafPath]) -> Leaves:
    """The tensors outside of the blocks by the paths that `names` has for them, float32.

    Raises:
        ValueError: if tensors are missing or left over.
    """
    missing, unexpected = names.keys() - tensors.keys(), tensors.keys() - names.keys()
    if missing or unexpected:
        raise ValueError(f"not the tensors of a ViT: missing {_listed(missing)}; unexpected {_listed(unexpected)}")
    return {path: np.asarray(tensors[name], np.float32) for name, path in names.items()}


def _listed(names: set[str]) -> str:
    first = sorted(names)[:3]
    more = f" and {len(names) - len(first)} more" if len(names) > len(first) else ""
    return (", ".join(first) or "none") + more

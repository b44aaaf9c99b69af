"""Weights of Hugging Face's ResNets, as the variables of `ResNetEncoder`.

`transformers` names the tensors of a `ResNetModel` `embedder.*` and `encoder.stages.S.layers.L.*`;
`ResNetForImageClassification` puts "resnet." before them and adds a classifier, which an encoder does not have. Kernels
are [out, in, height, width] there and [height, width, in, out] here. Blocks 1, 2, ... of a stage share one leaf here,
in this order along its first axis.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import traverse_util

from bie_jax.models.layers.resnet import STAGE_SIZES
from bie_jax.models.pretrained.channels import adapt_channels
from bie_jax.models.pretrained.files import CONFIG
from bie_jax.models.pretrained.leaves import LeafPath, Leaves, flat, refuse_differences

_CONVOLUTIONS_PER_BLOCK = {18: 2, 34: 2, 50: 3, 101: 3, 152: 3}
_IGNORED = re.compile(r".*\.num_batches_tracked|classifier\.1\.(weight|bias)")  # a count of steps, and the classifier
_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def fit_resnet(tensors: dict[str, np.ndarray], config: dict[str, Any], encoder: Leaves) -> dict[str, Leaves]:
    """The leaves of a ResNet encoder with published weights, {"params": ..., "batch_stats": ...}.

    Args:
        tensors: see `resnet_variables`.
        config: what `config.json` says, empty without one.
        encoder: leaves of the network's encoder.

    Raises:
        ValueError: if these are weights of another ResNet.
    """
    depth = published_depth(tensors, config)
    blocks = tuple(1 + encoder[f"stage{stage}", "layers", "conv1", "kernel"].shape[0] for stage in range(1, 5))
    our_depth = _depth_of(blocks, 3 if ("stage1", "first", "conv3", "kernel") in encoder else 2)
    refuse_differences({"model.resnet.depth": our_depth}, {"model.resnet.depth": depth})
    given = {name: flat(tree) for name, tree in resnet_variables(tensors, depth).items()}
    kernel = "stem", "kernel"
    given["params"][kernel] = adapt_channels(given["params"][kernel], encoder[kernel].shape[2])
    return given


def published_depth(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> int:
    """Layers of a published ResNet.

    Args:
        tensors: see `resnet_variables`.
        config: what `config.json` says, empty without one.

    Raises:
        ValueError: if there is none of its kind here.
    """
    if config.get("downsample_in_bottleneck", False) or config.get("hidden_act", "relu") != "relu":
        raise ValueError(
            f"{CONFIG} has downsample_in_bottleneck={config.get('downsample_in_bottleneck')}, hidden_act="
            f"{config.get('hidden_act')!r}; the ResNets here are those with False and 'relu'"
        )
    places = [re.search(r"stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.convolution", name) for name in tensors]
    found = [tuple(map(int, match.groups())) for match in places if match]
    blocks = tuple(len({block for s, block, _ in found if s == stage}) for stage in range(4))
    return _depth_of(blocks, max((number for *_, number in found), default=0) + 1)


def resnet_variables(tensors: dict[str, np.ndarray], depth: int) -> dict[str, dict]:
    """The values of a published ResNet in the tree of `ResNetEncoder(depth)`.

    A ResNet with the stride of its bottlenecks in their first convolution (`downsample_in_bottleneck`) has the same
    tensors, computes something else, and cannot be told apart here.

    Args:
        tensors: state dict of a `ResNetModel` or a `ResNetForImageClassification`, name -> array.
        depth: 18, 34, 50, 101 or 152.

    Returns:
        {"params": ..., "batch_stats": ...}, float32. "stem/kernel" is [7, 7, C, 64] with the channels of the tensors.

    Raises:
        ValueError: if there is no such depth, or tensors are missing or left over.
    """
    if depth not in _CONVOLUTIONS_PER_BLOCK:
        published = ", ".join(map(str, _CONVOLUTIONS_PER_BLOCK))
        raise ValueError(f"depth={depth}: there are ResNets of {published} layers")
    given = {name.removeprefix("resnet."): tensor for name, tensor in tensors.items() if not _IGNORED.fullmatch(name)}
    places = dict(_places(depth))
    missing, unexpected = places.keys() - given.keys(), given.keys() - places.keys()
    if missing or unexpected:
        raise ValueError(
            f"not the tensors of a ResNet-{depth}: missing {_listed(missing)}; unexpected {_listed(unexpected)}"
        )
    stacks: dict[LeafPath, list[np.ndarray]] = {}
    for name, path in places.items():
        tensor = np.asarray(given[name], np.float32)
        stacks.setdefault(path, []).append(tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor)
    leaves = {path: np.stack(stack) if "layers" in path else stack[0] for path, stack in stacks.items()}
    return traverse_util.unflatten_dict(leaves)


def _places(depth: int) -> Iterator[tuple[str, LeafPath]]:
    """(name of a tensor there, path of the leaf here), the blocks of a stage in order."""
    yield from _convolution_and_norm("embedder.embedder", (), "stem", "stem_norm")
    for stage, num_blocks in enumerate(STAGE_SIZES[depth]):
        for block in range(num_blocks):
            there = f"encoder.stages.{stage}.layers.{block}"
            here = (f"stage{stage + 1}", "layers" if block else "first")
            # The first stage of the shallow nets does not change the shape.
            if block == 0 and (stage > 0 or _CONVOLUTIONS_PER_BLOCK[depth] == 3):
                yield from _convolution_and_norm(f"{there}.shortcut", here, "shortcut_conv", "shortcut_norm")
            for number in range(_CONVOLUTIONS_PER_BLOCK[depth]):
                names = f"conv{number + 1}", f"norm{number + 1}"
                yield from _convolution_and_norm(f"{there}.layer.{number}", here, *names)


def _convolution_and_norm(there: str, here: LeafPath, conv: str, norm: str) -> Iterator[tuple[str, LeafPath]]:
    yield f"{there}.convolution.weight", ("params", *here, conv, "kernel")
    for name, (collection, leaf) in _NORM.items():
        yield f"{there}.normalization.{name}", (collection, *here, norm, leaf)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _depth_of(blocks: tuple[int, ...], convolutions: int) -> int:
    """Of a ResNet with that many blocks in each stage, and convolutions in each block."""
    for depth, sizes in STAGE_SIZES.items():
        if blocks == sizes and depth == 2 + convolutions * sum(sizes):
            return depth
    depths = ", ".join(map(str, STAGE_SIZES))
    raise ValueError(
        f"a ResNet with {blocks} blocks of {convolutions} convolutions; there are those of {depths} layers"
    )

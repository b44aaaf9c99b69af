"""Optimizers and the learning-rate schedule.

LAMB: You et al. 2020, "Large Batch Optimization for Deep Learning", arXiv 1904.00962, algorithm 2, with the clip of the
global norm that timm (`timm/optim/lamb.py`) puts before it. AdamW: Loshchilov and Hutter 2019, arXiv 1711.05101. SGD
with Nesterov's momentum as `torch.optim.SGD` computes it. Layer-wise learning rates: Bao et al. 2021, "BEiT", arXiv
2106.08254, as MAE (He et al. 2021, arXiv 2111.06377) fine-tunes with them.
"""

import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bie_jax.config.schema import OptimizerConfig
from bie_jax.models.layers.stacks import STACKS

_LAMB_EPSILON = 1e-6  # of the paper and of timm
_ADAM_EPSILON = 1e-8  # of the paper and of PyTorch

# Where a parameter is in the encoder that lies outside of it, or acts after its blocks.
_AFTER_BLOCKS = ((), ("norm",))

_Path = tuple[str, ...]


def build_schedule(config: OptimizerConfig, *, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Linear warmup, half a cosine, then a constant floor.

    Warmup from `warmup_init_lr` to `lr` in `warmup_epochs`, cosine to `min_lr` at the end of `epochs` (the warmup is
    part of them), then `min_lr` for as long as training goes on (`cooldown_epochs`). At the beginning of each epoch
    this is timm's `CosineLRScheduler(t_initial=epochs - warmup_epochs, warmup_prefix=True)`, which is constant within
    an epoch where this one moves with every step. timm's own default, `warmup_prefix=False`, lets the cosine begin
    under the warmup, so that `lr` is never reached.

    Args:
        config: the checked `optimizer` group.
        steps_per_epoch: optimizer steps in an epoch.
        epochs: epochs without the cooldown.

    Returns:
        step -> learning rate, for steps counted from 0.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=config.warmup_init_lr,
        peak_value=config.lr,
        warmup_steps=config.warmup_epochs * steps_per_epoch,
        decay_steps=epochs * steps_per_epoch,
        end_value=config.min_lr,
    )


def build_optimizer(
    config: OptimizerConfig, params: Any, *, steps_per_epoch: int, epochs: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer that `config` asks for, and its schedule.

    - `clip_norm`: the gradient of all trained parameters together is shortened to this norm; 0: never.
    - `weight_decay`: "adamw" and "lamb" add it to the step that Adam proposes (decoupled from the moments); "sgd" adds
      it to the gradient, before the momentum, which is what published ResNet recipes mean by it.
    - `weight_decay_growth`: by this factor the decay grows until the end of `epochs`, as half a cosine (as in DINO,
      Caron et al. 2021, arXiv 2104.14294, from .04 to .4). 1: constant.
    - `decay_biases_and_norms`: True: decay and LAMB's trust ratio act on every parameter. False: on kernels alone;
      biases, scales, embeddings and tokens take the plain Adam step, as timm does for a module.
    - LAMB's trust ratio |parameter| / |step| is 1 where either norm is 0. Every layer of a scanned stack has its own.
      timm leaves it out altogether at `weight_decay=0`; the paper and this function do not.
    - `layer_decay`: see `layer_factors`; multiplies the whole step, decay included. 1: off.
    - `freeze`: paths such as "encoder" or "encoder/stem": no parameter under them changes or has optimizer state.
      (`train_step` keeps their batch statistics.)
    - `momentum` is of "sgd" alone, `beta1` and `beta2` of the others.

    Args:
        config: the checked `optimizer` group.
        params: the parameters, or their `jax.eval_shape`; only names and shapes are looked at.
        steps_per_epoch: optimizer steps in an epoch.
        epochs: epochs without the cooldown.

    Raises:
        ValueError: if a path of `freeze` names no parameter, or all are frozen; if `layer_decay` is under 1 and the
            encoder has no blocks.
    """
    schedule = build_schedule(config, steps_per_epoch=steps_per_epoch, epochs=epochs)
    exempt = not config.decay_biases_and_norms
    steps = epochs * steps_per_epoch
    decay = optax.add_decayed_weights(_growing(config, steps), _kernels if exempt else None)
    trust_ratio = optax.masked(_scale_by_trust_ratio(), _kernels) if exempt else _scale_by_trust_ratio()
    step = {
        "lamb": (optax.scale_by_adam(config.beta1, config.beta2, _LAMB_EPSILON), decay, trust_ratio),
        "adamw": (optax.scale_by_adam(config.beta1, config.beta2, _ADAM_EPSILON), decay),
        "sgd": (decay, optax.trace(config.momentum, nesterov=True)),
    }[config.name]
    clip = (optax.clip_by_global_norm(config.clip_norm),) if config.clip_norm else ()
    tx = optax.chain(*clip, *step, optax.scale_by_learning_rate(schedule))
    if config.layer_decay < 1:
        tx = optax.chain(tx, _scale_by(layer_factors(params, config.layer_decay, encoder="encoder")))
    if config.freeze:
        tx = optax.multi_transform(
            {"trained": tx, "frozen": optax.set_to_zero()}, _freeze_labels(params, config.freeze)
        )
    return tx, schedule


def _growing(config: OptimizerConfig, steps: int) -> float | optax.Schedule:
    """The weight decay of each step, or of all."""
    if config.weight_decay_growth == 1:
        return config.weight_decay
    first, last = config.weight_decay, config.weight_decay * config.weight_decay_growth

    def of_step(step: Any) -> jax.Array:
        share = jnp.minimum(step / steps, 1.0)
        return last + (first - last) * 0.5 * (1 + jnp.cos(jnp.pi * share))

    return of_step


def layer_factors(params: Any, decay: float, *, encoder: str) -> dict[_Path, np.ndarray]:
    """By how much the learning rate of each parameter is multiplied when an encoder is fine-tuned.

    `decay ** (L - i)` in block i = 0 .. L-1 of an encoder with L blocks, `decay ** (L + 1)` in what comes before the
    blocks (stem, embeddings, tokens), 1 after them (the encoder's last norm, everything outside the encoder). The
    blocks of a ResNet are counted over all its stages, as timm does.

    Args:
        params: the parameters, or their `jax.eval_shape`.
        decay: in (0, 1].
        encoder: name of the encoder's subtree, at any depth. A ViT's scanned blocks are under "blocks": leaves
            [L, ...]; those of a ResNet under "stage1/first", "stage1/layers" [L1 - 1, ...], "stage2/first", ...

    Returns:
        path -> factor, float64; scalar, or [L, 1, ...] with the axes of a leaf of scanned blocks.

    Raises:
        ValueError: if the encoder has no blocks.
    """
    leaves = {_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    # Where in the encoder a parameter is; () outside of it.
    inside = {path: path[path.index(encoder) + 1 :] if encoder in path else () for path in leaves}
    counts = {  # name of a block, or of several that are scanned -> how many
        name: leaf.shape[0] if name[-1] in STACKS else 1
        for path, leaf in leaves.items()
        if (name := _block(inside[path]))
    }
    if not counts:
        raise ValueError(
            f"layer_decay={decay} needs an encoder of blocks, parameters {encoder}/blocks/... or "
            f"{encoder}/stage1/..., and there are {', '.join(_prefixes(leaves))}"
        )
    names = sorted(counts)  # in the order of the encoder: stage1/first, stage1/layers, stage2/first, ...
    ends = dict(zip(names, np.cumsum([counts[name] for name in names]), strict=True))
    depth = sum(counts.values())

    def factor(path: _Path, leaf: Any) -> np.ndarray:
        if inside[path][:1] in _AFTER_BLOCKS:
            return np.asarray(1.0)
        name = _block(inside[path])
        if not name:
            return np.asarray(decay ** (depth + 1))
        factors = decay ** (depth - np.arange(ends[name] - counts[name], ends[name]))
        return factors.reshape(-1, *[1] * (leaf.ndim - 1)) if name[-1] in STACKS else factors[0]

    return {path: factor(path, leaf) for path, leaf in leaves.items()}


def _block(inside: _Path) -> _Path:
    """Name of the block, or of the scanned blocks, that a parameter of an encoder is in; () for one of the stem."""
    if inside[:1] == ("blocks",):
        return inside[:1]
    return inside[:2] if inside and re.fullmatch(r"stage\d", inside[0]) else ()


def _names(path: Any) -> _Path:
    return tuple(entry.key for entry in path)


def _kernels(tree: Any) -> Any:
    """True for the weights of convolutions and dense layers, False for biases, scales, embeddings, tokens."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1] == "kernel", tree)


def _scale_by_trust_ratio() -> optax.GradientTransformation:
    def scale(path: Any, step: jax.Array, param: jax.Array) -> jax.Array:
        stacked = not STACKS.isdisjoint(_names(path))
        axes = tuple(range(1 if stacked else 0, step.ndim))
        param_norm, step_norm = (jnp.sqrt(jnp.sum(x * x, axes, keepdims=True)) for x in (param, step))
        usable = (param_norm > 0) & (step_norm > 0)
        return step * jnp.where(usable, param_norm / jnp.where(usable, step_norm, 1.0), 1.0)

    return optax.stateless(lambda steps, params: jax.tree_util.tree_map_with_path(scale, steps, params))


def _scale_by(factors: dict[_Path, np.ndarray]) -> optax.GradientTransformation:
    def scale(path: Any, step: jax.Array) -> jax.Array:
        return step * jnp.asarray(factors[_names(path)], step.dtype)

    return optax.stateless(lambda steps, _: jax.tree_util.tree_map_with_path(scale, steps))


def _freeze_labels(params: Any, prefixes: Iterable[str]) -> Any:
    paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for prefix in prefixes:
        if not any(is_under(path, prefix) for path in paths):
            raise ValueError(f"freeze={prefix!r} names no parameters; possible are {', '.join(_prefixes(paths))}")
    labels = jax.tree_util.tree_map_with_path(
        lambda path, _: "frozen" if any(is_under(_names(path), prefix) for prefix in prefixes) else "trained", params
    )
    if "trained" not in jax.tree.leaves(labels):
        raise ValueError(f"freeze={tuple(prefixes)} leaves nothing to train")
    return labels


def is_under(path: tuple[str, ...], prefix: str) -> bool:
    """Whether a path of names lies under a path as `freeze` writes it, or is that path."""
    parts = tuple(prefix.split("/"))
    return path[: len(parts)] == parts


def _prefixes(paths: Iterable[_Path]) -> list[str]:
    """The first two levels of the parameter tree, as `freeze` writes them."""
    return sorted({"/".join(path[:depth]) for path in paths for depth in (1, 2) if len(path) > depth})

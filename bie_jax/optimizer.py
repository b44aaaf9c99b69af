"""Optimisers and the learning-rate schedule.

LAMB: You et al. 2020, "Large Batch Optimization for Deep Learning", arXiv 1904.00962, algorithm 2, with the global-norm
clip that timm puts before it. Weight decay and trust ratio act on every parameter, biases and norms included, as they
did in the predecessor's runs.
"""

from typing import Any

import optax


def build_schedule(config: Any, *, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Linear warmup, half a cosine, then a constant floor.

    Warmup from `warmup_init_lr` to `lr` in `warmup_epochs`, cosine to `min_lr` at the end of `epochs` (the warmup is
    part of them), then `min_lr` for as long as training goes on (`cooldown_epochs`).

    Args:
        config: the checked `optimizer` group.
        steps_per_epoch: optimiser steps in an epoch.
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
    config: Any, *, steps_per_epoch: int, epochs: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser that `config.optimizer` asks for, and its schedule (arguments as `build_schedule`)."""
    schedule = build_schedule(config, steps_per_epoch=steps_per_epoch, epochs=epochs)
    optimizer = {"lamb": optax.lamb, "adamw": optax.adamw}[config.name]
    tx = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optimizer(schedule, weight_decay=config.weight_decay),
    )
    return tx, schedule

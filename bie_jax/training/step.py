"""The compiled steps: one gradient step, one validation batch.

No file and no loop here, so that a step can be measured alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.config.schema import Config
from bie_jax.losses.contrastive import Origin
from bie_jax.objectives.base import METHODS, Aux, Batch
from bie_jax.training.optimizer import is_under
from bie_jax.training.state import TrainState, averageable
from bie_jax.views import images as augment
from bie_jax.views.kinds import VIEWS


def build_train_step(
    config: Config, model: Any, table: augment.IntensityTable, split: Any, everywhere: Any
) -> Callable[[TrainState, dict[str, Any]], tuple[TrainState, jax.Array]]:
    """The compiled step: (state, {"image" counts, "plate", "origin"}) -> (state, loss).

    The given state's buffers are reused. With `train.accumulate_steps` = k the batch is computed in k parts whose
    gradients are averaged, which is the gradient of the whole batch, and codebooks learn once from all of them. What
    looks at several images together sees B / k of them: batch normalization for its statistics, a contrastive term for
    its negatives, free nats for a mean divergence, codebooks for a start from k-means and for restarts (`train` says
    so). What is frozen (`optimizer.freeze`) keeps its batch statistics and uses them.
    """
    objective = METHODS[config.model.name].objective
    view = VIEWS[config.data.kind].train
    dtype = jnp.dtype(config.train.compute_dtype)
    all_there = _all_there(table)
    statistics = frozen_statistics(config.optimizer.freeze)

    def train_step(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, jax.Array]:
        # The step's number makes its key, so that a resumed run draws the same views without a saved key.
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        view_key, noise_key = jax.random.split(key)
        weight = table.present[batch["plate"]]

        def look(key: jax.Array) -> jax.Array:
            return view(key, batch["image"], batch["plate"], table, config.data).astype(dtype)

        seen = Batch(
            image=look(view_key),
            weight=weight,
            channel_mask=None if all_there else weight > 0,
            origin=Origin.of(batch["origin"]),
            other_view=look(jax.random.fold_in(view_key, 1)) if config.objective.contrastive.compares_views else None,
        )

        def gradients_of(model_state: Any, part: Batch, key: jax.Array) -> tuple[Any, Aux]:
            def loss_of(params):
                cast = _cast(params, dtype)
                with nn.intercept_methods(statistics):
                    return objective(model, config.objective, cast, model_state, part, state.step, key, train=True)

            return jax.grad(loss_of, has_aux=True)(state.params)

        parts = config.train.accumulate_steps
        if parts == 1:
            gradients, aux = gradients_of(state.model_state, seen, noise_key)
            model_state, metrics, totals = aux.model_state, aux.metrics, aux.totals
        else:
            gradients, model_state, metrics, totals = _accumulate(
                gradients_of, state.model_state, seen, noise_key, parts
            )
        state = state.apply_gradients(grads=gradients)
        averages = state.averages
        if averages is not None:
            d, newest = config.train.ema_decay, averageable(state.params, model_state)
            averages = jax.tree.map(lambda mean, new: d * mean + (1 - d) * new, averages, newest)
        window = state.window.add(metrics, totals)
        return state.replace(model_state=model_state, window=window, averages=averages), metrics["loss"]

    return jax.jit(
        train_step,
        in_shardings=(everywhere, split),
        out_shardings=(everywhere, everywhere),
        donate_argnames=("state",),
    )


def build_eval_step(
    config: Config, model: Any, table: augment.IntensityTable, split: Any, everywhere: Any
) -> Callable[..., tuple[dict[str, jax.Array], dict[str, jax.Array], jax.Array, jax.Array]]:
    """The compiled validation: (params, model_state, batch) -> (metrics, totals, normalized images, reconstructions).

    What a method draws is drawn the same way in every validation, so that two of them compare.
    """
    objective = METHODS[config.model.name].objective
    views = VIEWS[config.data.kind]
    dtype = jnp.dtype(config.train.compute_dtype)

    def eval_step(params, model_state, batch):
        image = views.evaluate(batch["image"], batch["plate"], table, config.data.crop_size, config.data)
        weight = table.present[batch["plate"]] * batch["weight"][:, None]
        seen = Batch(
            image=image.astype(dtype),
            weight=weight,
            channel_mask=weight > 0,
            origin=Origin.of(batch["origin"]),
        )
        key = jax.random.key(config.train.seed)
        if config.objective.contrastive.compares_views:  # the image as it is, and a random view of it
            other = views.train(key, batch["image"], batch["plate"], table, config.data)
            seen = dataclasses.replace(seen, other_view=other.astype(dtype))
        # The warmup of a loss term is over here: validations before and after its end compare.
        step = jnp.int32(config.objective.kl_warmup_steps)
        cast = _cast(params, dtype)
        _, aux = objective(model, config.objective, cast, model_state, seen, step, key, train=False)
        return aux.metrics, aux.totals, image, aux.reconstruction.astype(jnp.float32)

    return jax.jit(eval_step, in_shardings=(everywhere, everywhere, split), out_shardings=everywhere)


def _accumulate(
    gradients_of: Callable[..., tuple[Any, Aux]], model_state: Any, batch: Batch, key: jax.Array, parts: int
) -> tuple[Any, Any, dict[str, jax.Array], dict[str, jax.Array]]:
    """Mean gradients, the last collections, mean metrics and summed totals of equal parts of a batch."""

    def in_parts(array: jax.Array) -> jax.Array:
        # Every part takes rows of every device, so no image moves: [B, ...] -> [parts, B / parts, ...].
        return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)

    split = jax.tree.map(in_parts, batch)
    shapes = jax.eval_shape(gradients_of, model_state, jax.tree.map(lambda array: array[0], split), key)
    gradients, metrics, totals = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[1].metrics, shapes[1].totals)
    )

    def add_part(carry: Any, part: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        gradients, model_state, metrics, totals = carry
        index, images = part
        new, aux = gradients_of(model_state, images, jax.random.fold_in(key, index))
        gradients = jax.tree.map(lambda mean, value: mean + value / parts, gradients, new)
        metrics = jax.tree.map(lambda mean, value: mean + value / parts, metrics, aux.metrics)
        return (gradients, aux.model_state, metrics, jax.tree.map(jnp.add, totals, aux.totals)), None

    carry, _ = jax.lax.scan(add_part, (gradients, model_state, metrics, totals), (jnp.arange(parts), split))
    return carry


def frozen_statistics(frozen: tuple[str, ...]) -> Callable[..., Any]:
    """What `nn.intercept_methods` takes, so that batch norms under a frozen path do as in validation.

    They normalize by their running statistics and leave them as they are: parameters alone are half of what a frozen
    network is.
    """

    def call(method: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: nn.module.InterceptorContext):
        norm = isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__"
        if norm and any(is_under(context.module.path, prefix) for prefix in frozen):
            kwargs = kwargs | {"use_running_average": True}
        return method(*args, **kwargs)

    return call


def _cast(params: Any, dtype: jnp.dtype) -> Any:
    """Parameters in the type that is computed in; their gradients come back in float32.

    A codebook that is a parameter stays as it is: vectors are looked up in full precision
    (`bie_jax.models.quantizers.lookup`). The offset beside it is relative to these numbers.
    """

    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        return leaf if path[-1].key == "codebook" else leaf.astype(dtype)

    return jax.tree.map_with_path(cast, params)


def _all_there(table: augment.IntensityTable) -> bool:
    """Whether every image has every channel; then no network needs to look at a mask."""
    return bool((table.present == 1).all())

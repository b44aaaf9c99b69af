"""The compiled steps: one gradient step, one validation batch.

No file and no loop here, so that a step can be measured alone.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.config.schema import Config, TrainConfig
from bie_jax.losses.contrastive import Origin
from bie_jax.objectives import METHODS
from bie_jax.objectives.base import Aux, Batch, Teacher
from bie_jax.training.optimizer import is_under
from bie_jax.training.sharding import Layout
from bie_jax.training.state import TrainState, averageable
from bie_jax.views.intensities import IntensityTable
from bie_jax.views.kinds import VIEWS


def build_train_step(
    config: Config, model: nn.Module, table: IntensityTable, layout: Layout, state: TrainState, total_steps: int
) -> Callable[[TrainState, dict[str, Any]], tuple[TrainState, jax.Array]]:
    """The compiled step: (state, {"image" counts, "plate", "origin"}) -> (state, loss), "positive" of the image beside.

    The given state's buffers are reused. With `train.accumulate_steps` = k the batch is computed in k microbatches
    whose gradients are averaged, which is the gradient of the whole batch, and codebooks learn once from all of them.
    What looks at several images together sees B / k of them: batch normalization for its statistics, a contrastive
    term for its negatives, free nats for a mean divergence, codebooks for a start from k-means and for restarts
    (`train` says so). What is frozen (`optimizer.freeze`) keeps its batch statistics and uses them.

    Args:
        config: the checked configuration.
        model: the network.
        table: intensities of the sets.
        layout: where arrays lie.
        state: the state or its shapes.
        total_steps: of the run, in which the teacher's memory grows (`train.ema_decay_grows`).
    """
    method = METHODS[config.model.name]
    objective = layout.with_examples_apart(method.objective)
    views = VIEWS[config.data.kind]
    view, others = views.train, method.other_views(config)
    dtype = jnp.dtype(config.train.compute_dtype)
    seen_dtype = dtype if views.in_half else jnp.float32
    all_there = _all_there(table)
    statistics = frozen_statistics(config.optimizer.freeze)

    def train_step(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, jax.Array]:
        # The step's number makes its key, so that a resumed run draws the same views without a saved key.
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        view_key, noise_key = jax.random.split(key)
        weight = table.present[batch["plate"]]
        counts = (batch["image"], batch["plate"], table)
        # Every second view is of the image beside, where there is one.
        beside = (batch["positive"], batch["positive_plate"], table) if "positive" in batch else counts
        seen = Batch(
            image=view(view_key, *counts, config.data).astype(seen_dtype),
            weight=weight,
            channel_mask=None if all_there else weight > 0,
            origin=Origin.of(batch["origin"]),
            other_views=tuple(
                view(jax.random.fold_in(view_key, number), *(beside if number % 2 else counts), data).astype(seen_dtype)
                for number, data in enumerate(others, start=1)
            ),
        )
        # As it was before this step: the average is taken of what the step makes.
        teacher = Teacher(_cast(state.eval_params, dtype), state.eval_model_state) if method.has_teacher else None

        def gradients_of(model_state: Any, microbatch: Batch, key: jax.Array) -> tuple[Any, Aux]:
            def loss_of(params):
                cast = _cast(params, dtype)
                with nn.intercept_methods(statistics):
                    return objective(
                        model,
                        config.objective,
                        cast,
                        model_state,
                        microbatch,
                        state.step,
                        key,
                        train=True,
                        teacher=teacher,
                    )

            return jax.grad(loss_of, has_aux=True)(state.params)

        num_microbatches = config.train.accumulate_steps
        if num_microbatches == 1:
            gradients, aux = gradients_of(state.model_state, seen, noise_key)
            model_state, metrics, totals = aux.model_state, aux.metrics, aux.totals
        else:
            gradients, model_state, metrics, totals = _accumulate(
                gradients_of, state.model_state, seen, noise_key, num_microbatches
            )
        d = ema_decay(config.train, state.step, total_steps)
        state = state.apply_gradients(grads=gradients)
        averages = state.averages
        if averages is not None:
            newest = averageable(state.params, model_state)
            averages = jax.tree.map(lambda mean, new: d * mean + (1 - d) * new, averages, newest)
        window = state.window.add(metrics, totals)
        return state.replace(model_state=model_state, window=window, averages=averages), metrics["loss"]

    shardings = layout.of(state)
    return jax.jit(
        train_step,
        in_shardings=(shardings, layout.batch),
        out_shardings=(shardings, layout.host),
        donate_argnames=("state",),
    )


def build_eval_step(
    config: Config, model: nn.Module, table: IntensityTable, layout: Layout, state: TrainState
) -> Callable[..., tuple[dict[str, jax.Array], dict[str, jax.Array], jax.Array, jax.Array | None]]:
    """The compiled validation: (params, model_state, batch) -> (metrics, totals, normalized images, reconstructions).

    What a method draws is drawn the same way in every validation, so that two of them compare. The network is its own
    teacher here. A method without a decoder has None for reconstructions. Arguments as `build_train_step`.
    """
    method = METHODS[config.model.name]
    objective = layout.with_examples_apart(method.objective)
    views = VIEWS[config.data.kind]
    others = method.other_views(config)
    dtype = jnp.dtype(config.train.compute_dtype)
    seen_dtype = dtype if views.in_half else jnp.float32

    def eval_step(params, model_state, batch):
        image = views.evaluate(batch["image"], batch["plate"], table, config.data.crop_size, config.data)
        weight = table.present[batch["plate"]] * batch["weight"][:, None]
        key = jax.random.key(config.train.seed)
        seen = Batch(
            image=image.astype(seen_dtype),
            weight=weight,
            channel_mask=weight > 0,
            origin=Origin.of(batch["origin"]),
            # The image as it is, and random views of it.
            other_views=tuple(
                views.train(
                    key if number == 0 else jax.random.fold_in(key, number),
                    batch["image"],
                    batch["plate"],
                    table,
                    data,
                ).astype(seen_dtype)
                for number, data in enumerate(others)
            ),
        )
        # The warmup of a loss term is over here: validations before and after its end compare.
        step = jnp.int32(method.settled_step(config.objective))
        cast = _cast(params, dtype)
        teacher = Teacher(cast, model_state) if method.has_teacher else None
        _, aux = objective(model, config.objective, cast, model_state, seen, step, key, train=False, teacher=teacher)
        restored = None if aux.reconstruction is None else aux.reconstruction.astype(jnp.float32)
        return aux.metrics, aux.totals, image, restored

    shardings = layout.of(state)
    return jax.jit(
        eval_step,
        in_shardings=(shardings.eval_params, shardings.eval_model_state, layout.batch),
        out_shardings=layout.host,
    )


def _accumulate(
    gradients_of: Callable[..., tuple[Any, Aux]], model_state: Any, batch: Batch, key: jax.Array, num: int
) -> tuple[Any, Any, dict[str, jax.Array], dict[str, jax.Array]]:
    """Mean gradients, the last collections, mean metrics and summed totals of equal microbatches."""

    def into_microbatches(array: jax.Array) -> jax.Array:
        # Each takes rows of every device, so no image moves: [B, ...] -> [num, B / num, ...].
        return array.reshape(-1, num, *array.shape[1:]).swapaxes(0, 1)

    split = jax.tree.map(into_microbatches, batch)
    shapes = jax.eval_shape(gradients_of, model_state, jax.tree.map(lambda array: array[0], split), key)
    gradients, metrics, totals = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[1].metrics, shapes[1].totals)
    )

    def add_microbatch(carry: Any, numbered: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        gradients, model_state, metrics, totals = carry
        index, microbatch = numbered
        new, aux = gradients_of(model_state, microbatch, jax.random.fold_in(key, index))
        gradients = jax.tree.map(lambda mean, value: mean + value / num, gradients, new)
        metrics = jax.tree.map(lambda mean, value: mean + value / num, metrics, aux.metrics)
        return (gradients, aux.model_state, metrics, jax.tree.map(jnp.add, totals, aux.totals)), None

    carry, _ = jax.lax.scan(add_microbatch, (gradients, model_state, metrics, totals), (jnp.arange(num), split))
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


def ema_decay(config: TrainConfig, step: int | jax.Array, total_steps: int) -> float | jax.Array:
    """Constant, or from `ema_decay` to 1 as half a cosine (Grill et al. 2020, "BYOL", arXiv 2006.07733, section 3.3).

    Args:
        config: the checked `train` group.
        step: int32, from 0.
        total_steps: of the run.
    """
    if not config.ema_decay_grows:
        return config.ema_decay
    return 1 - (1 - config.ema_decay) * 0.5 * (1 + jnp.cos(jnp.pi * step / total_steps))


def _cast(params: Any, dtype: jnp.dtype) -> Any:
    """Parameters in the type that is computed in; their gradients come back in float32.

    A codebook that is a parameter stays as it is: vectors are looked up in full precision
    (`bie_jax.models.quantizers.lookup`). The offset beside it is relative to these numbers.
    """

    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        return leaf if path[-1].key == "codebook" else leaf.astype(dtype)

    return jax.tree.map_with_path(cast, params)


def _all_there(table: IntensityTable) -> bool:
    """Whether every image has every channel; then no network needs to look at a mask."""
    return bool((table.present == 1).all())

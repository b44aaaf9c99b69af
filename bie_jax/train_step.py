"""The compiled steps: one gradient step, one validation batch.

No file and no loop here, so that a step can be measured alone.
"""

from collections.abc import Callable
from typing import Any

import jax

from bie_jax import augment
from bie_jax.config import Config
from bie_jax.objectives import OBJECTIVES
from bie_jax.train_state import TrainState


def build_train_step(
    config: Config, model: Any, table: augment.IntensityTable, split: Any, everywhere: Any
) -> Callable[[TrainState, dict[str, Any]], tuple[TrainState, jax.Array]]:
    """The compiled step: (state, {"image" counts, "plate"}) -> (state, loss). The given state's buffers are reused."""
    objective = OBJECTIVES[config.objective.name]

    def train_step(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, jax.Array]:
        # The step's number makes its key, so that a resumed run draws the same views without a saved key.
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        image = augment.train_view(key, batch["image"], batch["plate"], table, config.data)
        weight = table.present[batch["plate"]]

        def loss_of(params):
            return objective(model, params, state.model_state, image, weight, train=True)

        (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        state = state.apply_gradients(grads=gradients)
        return state.replace(model_state=aux.model_state, window=state.window.add(aux)), loss

    return jax.jit(
        train_step,
        in_shardings=(everywhere, split),
        out_shardings=(everywhere, everywhere),
        donate_argnames=("state",),
    )


def build_eval_step(
    config: Config, model: Any, table: augment.IntensityTable, split: Any, everywhere: Any
) -> Callable[..., tuple[dict[str, jax.Array], jax.Array, jax.Array]]:
    """The compiled validation: (params, model_state, batch) -> (metrics, normalised images, reconstructions)."""
    objective = OBJECTIVES[config.objective.name]

    def eval_step(params, model_state, batch):
        size = (config.data.crop_size, config.data.crop_size)
        image = augment.eval_view(batch["image"], batch["plate"], table, size, config.data)
        weight = table.present[batch["plate"]] * batch["weight"][:, None]
        _, aux = objective(model, params, model_state, image, weight, train=False)
        return aux.metrics, image, aux.reconstruction

    return jax.jit(eval_step, in_shardings=(everywhere, everywhere, split), out_shardings=everywhere)

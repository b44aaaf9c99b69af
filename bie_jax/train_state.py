"""Everything that a training step changes, in one pytree; saved and restored as a whole."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from bie_jax.objectives import Aux


@flax.struct.dataclass
class MetricWindow:
    """Running sums since the last log line, on the device, so that no step waits for the host.

    They are part of the state because a resumed run must log the same averages as an unbroken one.

    Attributes:
        sums: metric name -> float32 sum over steps.
        steps: int32, how many steps were summed.
        codes_seen: [G, K] bool, codes used since the last validation.
    """

    sums: dict[str, jax.Array]
    steps: jax.Array
    codes_seen: jax.Array

    def add(self, aux: Aux) -> "MetricWindow":
        """With one more step."""
        sums = {name: self.sums[name] + value for name, value in aux.metrics.items()}
        return MetricWindow(sums, self.steps + 1, self.codes_seen | aux.codes_seen)

    def without_sums(self) -> "MetricWindow":
        """After a log line."""
        zeros = jax.tree.map(jnp.zeros_like, (self.sums, self.steps))
        return dataclasses.replace(self, sums=zeros[0], steps=zeros[1])

    def without_codes(self) -> "MetricWindow":
        """After a validation."""
        return dataclasses.replace(self, codes_seen=jnp.zeros_like(self.codes_seen))


class TrainState(train_state.TrainState):
    """Flax's state (step, params, tx, opt_state) and what the optimiser does not touch.

    Attributes:
        model_state: the model's other collections, `codebook` and `batch_stats`.
        window: running sums for the log.
    """

    model_state: Any
    window: MetricWindow


def create_train_state(
    model: Any, tx: optax.GradientTransformation, aux_of: Any, image: jax.Array, key: jax.Array
) -> TrainState:
    """A fresh state.

    Args:
        model: the network.
        tx: the optimiser.
        aux_of: (params, model_state, image) -> Aux, used only for the names and shapes of what is summed.
        image: [B, H, W, C] of the shape trained on; values do not matter.
        key: for the initial parameters and codes.
    """
    variables = dict(model.init(key, image, train=True))
    params = variables.pop("params")
    aux = jax.eval_shape(aux_of, params, variables, image)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (aux.metrics, aux.codes_seen))
    window = MetricWindow(zeros[0], jnp.zeros((), jnp.int32), zeros[1])
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx, model_state=variables, window=window)
    return state.replace(step=jnp.zeros((), jnp.int32))

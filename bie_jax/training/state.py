"""Everything that a training step changes, in one pytree; saved and restored as a whole."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from bie_jax.config.schema import Config
from bie_jax.objectives import METHODS
from bie_jax.objectives.base import Aux, Teacher, unlabeled_batch


@flax.struct.dataclass
class MetricWindow:
    """Running sums since the last log line, on the device, so that no step waits for the host.

    They are part of the state because a resumed run must log the same averages as an unbroken one.

    Attributes:
        sums: metric name -> float32 sum over steps.
        steps: int32, how many steps were summed.
        totals: what the method adds up (`Aux.totals`), since the last validation.
    """

    sums: dict[str, jax.Array]
    steps: jax.Array
    totals: dict[str, jax.Array]

    def add(self, metrics: dict[str, jax.Array], totals: dict[str, jax.Array]) -> "MetricWindow":
        """With one more step."""
        return MetricWindow(
            jax.tree.map(jnp.add, self.sums, metrics), self.steps + 1, jax.tree.map(jnp.add, self.totals, totals)
        )

    def without_sums(self) -> "MetricWindow":
        """After a log line."""
        zeros = jax.tree.map(jnp.zeros_like, (self.sums, self.steps))
        return dataclasses.replace(self, sums=zeros[0], steps=zeros[1])

    def without_totals(self) -> "MetricWindow":
        """After a validation."""
        return dataclasses.replace(self, totals=jax.tree.map(jnp.zeros_like, self.totals))


class TrainState(train_state.TrainState):
    """Flax's state (step, params, tx, opt_state) and what the optimizer does not touch.

    Attributes:
        model_state: the model's other collections, `codebook` and `batch_stats`.
        window: running sums for the log.
        averages: exponential moving averages of `averageable`, or None without them.
    """

    model_state: Any
    window: MetricWindow
    averages: Any

    @property
    def eval_params(self) -> Any:
        """The parameters that validation and embedding use: the averaged ones where there are any."""
        return self.params if self.averages is None else self.averages["params"]

    @property
    def eval_model_state(self) -> Any:
        """The other collections that they use: averaged batch statistics go with averaged parameters."""
        return self.model_state | {name: part for name, part in (self.averages or {}).items() if name != "params"}


def averageable(params: Any, model_state: dict[str, Any]) -> dict[str, Any]:
    """What averages are taken of: parameters, and the batch statistics that they are normalized by.

    A codebook is a moving average of its own (or a parameter), and a restarted code cannot be averaged with what it
    was: the newest is used.
    """
    return {"params": params} | {name: part for name, part in model_state.items() if name == "batch_stats"}


def create_train_state(
    config: Config, model: nn.Module, tx: optax.GradientTransformation, num_channels: int, key: jax.Array
) -> TrainState:
    """A fresh state.

    Args:
        config: the checked configuration.
        model: the network.
        tx: the optimizer.
        num_channels: C of the images.
        key: for the initial parameters and codes.
    """
    image = jnp.zeros((config.train.batch_size // config.train.accumulate_steps, *config.data.crop_size, num_channels))
    variables = initial_variables(model, image, key)
    params = variables.pop("params")

    method = METHODS[config.model.name]

    def aux_of(params: Any) -> Aux:  # for the names and shapes of what is summed
        others = tuple(jnp.zeros((len(image), *data.crop_size, num_channels)) for data in method.other_views(config))
        batch = dataclasses.replace(unlabeled_batch(image, jnp.ones((len(image), num_channels))), other_views=others)
        teacher = Teacher(params, variables) if method.has_teacher else None
        return method.objective(
            model, config.objective, params, variables, batch, jnp.int32(0), key, train=True, teacher=teacher
        )[1]

    aux = jax.eval_shape(aux_of, params)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (aux.metrics, aux.totals))
    state = TrainState.create(
        apply_fn=model.apply,
        params=params,
        tx=tx,
        model_state=variables,
        window=MetricWindow(zeros[0], jnp.zeros((), jnp.int32), zeros[1]),
        averages=jax.tree.map(jnp.copy, averageable(params, variables)) if config.train.ema_decay else None,
    )
    return state.replace(step=jnp.zeros((), jnp.int32))


def initial_variables(model: nn.Module, image: jax.Array, key: jax.Array) -> dict[str, Any]:
    """Random parameters and the other collections of a network, for images of this shape."""
    return dict(model.init({"params": key, "noise": key}, image, train=True))

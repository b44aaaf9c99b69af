"""From a checked configuration and its sets to everything that the loop needs, compiled; nothing is written yet.

Whatever can be refused is refused here: weights that do not fit, a learning-rate schedule that cannot be, a batch that
is too large for the memory.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from bie_jax.config.schema import Config, ConfigError
from bie_jax.config.set_rules import check_components
from bie_jax.input.mixture import Mixture
from bie_jax.input.positives import teaching_column
from bie_jax.models import readouts
from bie_jax.objectives import METHODS, build_model
from bie_jax.training import sharding
from bie_jax.training.calendar import Calendar
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.preflight import compile_step, notes_on_microbatches
from bie_jax.training.state import MetricWindow, TrainState, create_train_state, initial_variables
from bie_jax.training.step import build_eval_step, build_train_step
from bie_jax.training.validation import Validation
from bie_jax.training.warm_start import given_weights, warm_start
from bie_jax.views.intensities import intensity_table, table_rows


@dataclasses.dataclass(frozen=True)
class Run:
    """What the loop needs.

    Attributes:
        state: fresh, or of a run that goes on the shapes and shardings into which its checkpoint is loaded.
        calendar: when what is due.
        learning_rate: step -> rate, steps counted from 0.
        share: places in a batch that this process reads.
        put: the share of a host batch -> what `train_step` takes.
        train_step: (state, batch) -> (state, loss); the given state is gone afterwards.
        validate: state -> metrics and pictures.
        without_sums, without_totals: of a `MetricWindow`, after a log line and after a validation.
        summarize: totals -> numbers to log.
    """

    state: TrainState
    calendar: Calendar
    learning_rate: Callable[[int], Any]
    share: np.ndarray
    put: Callable[[dict[str, np.ndarray]], dict[str, Any]]
    train_step: Callable[..., tuple[TrainState, jax.Array]]
    validate: Validation
    without_sums: Callable[[MetricWindow], MetricWindow]
    without_totals: Callable[[MetricWindow], MetricWindow]
    summarize: Callable[[dict[str, np.ndarray]], dict[str, Any]]


def prepare(
    config: Config,
    mixture: Mixture,
    train_rows: list[np.ndarray],
    val_rows: list[np.ndarray],
    sets: list[dict[str, Any]],
    workdir: Path,
    resumes: bool,
) -> Run:
    """Build and compile.

    Args:
        config: checked.
        mixture: the sets.
        train_rows, val_rows: of each set, numbered over all sets.
        sets: descriptions of the sets, as in `dataset.json`.
        workdir: of the run.
        resumes: whether a checkpoint will be loaded.

    Raises:
        ConfigError: see the top of this file.
    """
    layout = sharding.training_layout(config.train.mesh)
    calendar = Calendar.of(config, sum(map(len, train_rows)))
    channels = len(mixture.channel_names)
    model = build_model(config, channels)
    blank = jnp.zeros((1, *config.data.crop_size, channels))
    shapes = jax.eval_shape(lambda key: initial_variables(model, blank, key), jax.random.key(0))
    try:
        tx, schedule = build_optimizer(
            config.optimizer,
            shapes["params"],
            steps_per_epoch=calendar.steps_per_epoch,
            epochs=config.train.epochs,
        )
    except ValueError as error:
        raise ConfigError(f"config.optimizer: {error}") from None
    check_components(config.num_components, _readout_width(config, model, shapes, blank))

    def fresh(key: jax.Array) -> TrainState:
        return create_train_state(config, model, tx, channels, key)

    key = jax.random.key(config.train.seed)
    state_shapes = jax.eval_shape(fresh, key)
    blank_state = layout.abstract(state_shapes)
    # Weights that do not fit are refused before anything is compiled.
    given = None if resumes else given_weights(shapes, config, mixture.channel_names)
    for note in notes_on_microbatches(config, has_batch_norm="batch_stats" in shapes):
        print(note)

    table = intensity_table(sets, mixture.channel_names, config.data.normalization, config.data.normalization_scope)
    batch_shapes = _BatchShapes(mixture, config.data.positives != "same_image")

    def compile_under(layout: sharding.Layout, batch_size: int) -> Any:
        state = layout.abstract(state_shapes)
        step = build_train_step(config, model, table, layout, state, calendar.total)
        return step.lower(state, batch_shapes(batch_size, layout.batch)).compile()

    train_step = compile_step(compile_under, layout, config)
    # There is no state yet while the step is held against the memory that is left. One that is loaded later needs no
    # random numbers, which take long to compile.
    shardings = layout.of(blank_state)
    state = blank_state if resumes else warm_start(jax.jit(fresh, out_shardings=shardings)(key), given)
    method = METHODS[config.model.name]
    put = _Put(mixture, table_rows(sets), method.treatment(config.objective), teaching_column(config.data), layout)
    eval_step = build_eval_step(config, model, table, layout, blank_state)
    share = layout.share(config.train.batch_size)
    return Run(
        state=state,
        calendar=calendar,
        learning_rate=schedule,
        put=put,
        train_step=train_step,
        share=share,
        validate=Validation(config, mixture, val_rows, eval_step, put, share, workdir),
        without_sums=jax.jit(lambda window: window.without_sums(), out_shardings=shardings.window),
        without_totals=jax.jit(lambda window: window.without_totals(), out_shardings=shardings.window),
        summarize=method.summarize,
    )


def _readout_width(config: Config, model: nn.Module, shapes: dict[str, Any], blank: jax.Array) -> int:
    """Numbers of an image that `eval.readout` says."""
    present = jnp.ones((1, blank.shape[-1]), bool)
    (_, out), layers = jax.eval_shape(lambda of: readouts.look(model, of, blank, present, "encode", True), shapes)
    width = (out | {"layers": layers})[config.eval.readout].shape[-1]
    if not width:
        raise ConfigError(f"config.eval.readout='layers' with model.name={config.model.name!r}: its network notes none")
    return width


@dataclasses.dataclass(frozen=True)
class _BatchShapes:
    """Global batch size and sharding -> shapes and types of what `_Put` makes for a training step."""

    mixture: Mixture
    has_positives: bool

    def __call__(self, batch_size: int, sharding: NamedSharding) -> dict[str, jax.ShapeDtypeStruct]:
        shapes = {
            "image": ((*self.mixture.window, len(self.mixture.channel_names)), self.mixture.dtype),
            "plate": ((), np.int32),
            "origin": ((4,), np.int32),
        }
        if self.has_positives:
            shapes |= {"positive": shapes["image"], "positive_plate": shapes["plate"]}
        return {
            name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=sharding)
            for name, (shape, dtype) in shapes.items()
        }


class _Put:
    """Host batches onto the devices: row numbers stay behind, and what they stand for goes along.

    Args:
        mixture: the sets.
        table_rows: (set, plate) -> row of the intensity table.
        treatment: the column that a method compares; None: it does not, and it need not be there.
        positives: the column whose equal values are each other's second views: told apart is then no longer by wells
            but by this; None: no column is.
        layout: where a batch lies.
    """

    def __init__(
        self,
        mixture: Mixture,
        table_rows: dict[tuple[str, str], int],
        treatment: str | None,
        positives: str | None,
        layout: sharding.Layout,
    ):
        keys = zip(mixture.metadata["set"], mixture.metadata["plate"], strict=True)
        self._plate_of_row = np.asarray([table_rows[key] for key in keys], np.int32)
        self._origin_of_row = mixture.origins(treatment, positives)
        self._sharding = layout.batch

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        arrays = {name: array for name, array in batch.items() if name not in ("row", "positive_row")}
        known = {"plate": self._plate_of_row[batch["row"]], "origin": self._origin_of_row[batch["row"]]}
        if "positive_row" in batch:
            known["positive_plate"] = self._plate_of_row[batch["positive_row"]]
        return sharding.put_batch(arrays | known, self._sharding)

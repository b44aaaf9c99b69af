"""Validation: every held-out image once, the loss terms averaged, and a few reconstructions to look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bie_jax.config.schema import Config
from bie_jax.input.batches import eval_batches
from bie_jax.input.mixture import Mixture
from bie_jax.input.splits import mixed
from bie_jax.objectives import METHODS
from bie_jax.training.finite import NonFiniteLossError
from bie_jax.training.state import TrainState

Pictures = tuple[np.ndarray, np.ndarray]  # what was seen and what was made of it, both [N, H, W, C]


class Validation:
    """What a run validates on.

    Args:
        config: the checked configuration.
        mixture: the sets.
        val_rows: of each set, numbered over all sets.
        eval_step: as `step.build_eval_step` compiles it.
        put: the share of a host batch -> what the step takes.
        share: places in a batch that this process reads.
        workdir: of the run, for a message.
    """

    def __init__(
        self,
        config: Config,
        mixture: Mixture,
        val_rows: list[np.ndarray],
        eval_step: Callable[..., Any],
        put: Callable[[dict[str, np.ndarray]], dict[str, Any]],
        share: np.ndarray,
        workdir: Path,
    ):
        self._config, self._mixture, self._workdir = config, mixture, workdir
        self._eval_step, self._put, self._share = eval_step, put, share
        self._summarize = METHODS[config.model.name].summarize
        # Each set's in an order of chance: a contrast compares wells, and neighboring rows are of one.
        self._rows = np.concatenate([mixed(rows, config.train.seed) for rows in val_rows])

    def __call__(self, state: TrainState) -> tuple[dict[str, Any], Pictures | None]:
        """Metrics under `val/`, and pictures of the first batch; None of a method that has no decoder.

        Raises:
            NonFiniteLossError: for a loss that is no number.
        """
        sums: dict[str, float] = {}
        totals: list[dict[str, np.ndarray]] = []
        pictures: list[tuple[np.ndarray, np.ndarray | None]] = []
        for batch, rows in eval_batches(
            self._mixture, self._rows, self._config.train.batch_size, self._config.data.read_threads, self._share
        ):
            metrics, batch_totals, seen, reconstruction = jax.device_get(
                self._eval_step(state.eval_params, state.eval_model_state, self._put(batch))
            )
            totals.append(batch_totals)
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(rows)
            if not pictures:
                pictures.append((seen, reconstruction))
        means: dict[str, Any] = {f"val/{name}": value / len(self._rows) for name, value in sums.items()}
        if not np.isfinite(means["val/loss"]):
            raise NonFiniteLossError(
                f"the validation loss at step {int(state.step)} is {means['val/loss']}; checkpoints from before it are "
                f"kept in {self._workdir}"
            )
        summary = self._summarize(jax.tree.map(lambda *arrays: np.sum(arrays, axis=0), *totals))
        means |= {f"val/{name}": value for name, value in summary.items()}
        seen, reconstruction = pictures[0]
        shown = min(self._config.train.num_reconstructions, len(self._rows))
        return means, None if reconstruction is None else (seen[:shown], reconstruction[:shown])

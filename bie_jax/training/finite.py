"""A loss that is not finite ends a run before anything that it poisoned is written."""

from pathlib import Path

import jax
import numpy as np


class NonFiniteLossError(FloatingPointError):
    """The loss became infinite or NaN; the message names the step and the images of its batch."""


class LossWatch:
    """Looks at the loss of every step, one step behind: the device has the next one to do meanwhile.

    Args:
        sources: where each image of the sets is from, by its row, for the message.
        workdir: of the run, for the message.
    """

    def __init__(self, sources: np.ndarray, workdir: Path):
        self._sources = sources
        self._workdir = workdir
        self._pending: tuple[int, np.ndarray, jax.Array] | None = None

    def follow(self, step: int, rows: np.ndarray, loss: jax.Array, saved_step: int) -> None:
        """Look at the step before, and keep this one for later.

        Args:
            step: that was made.
            rows: [B] of its batch.
            loss: on the device.
            saved_step: of the newest checkpoint, for the message.

        Raises:
            NonFiniteLossError: of the step before.
        """
        self.settle(saved_step)
        self._pending = (step, rows, loss)

    def settle(self, saved_step: int) -> None:
        """Look at the last step too, which waits for it; whatever is written after this is sound."""
        if self._pending is None:
            return
        step, rows, loss = self._pending
        if not np.isfinite(float(loss)):
            raise NonFiniteLossError(
                f"the loss of step {step} is {float(loss)}; checkpoints up to step {saved_step} are kept in "
                f"{self._workdir}. The images of its batch: " + ", ".join(self._sources[rows].tolist())
            )
        self._pending = None

"""A run whose embeddings have become all alike ends, where that is asked for."""

from pathlib import Path
from typing import Any

from bie_jax.config.schema import Config
from bie_jax.objectives import METHODS
from bie_jax.training.calendar import Calendar


class CollapsedError(RuntimeError):
    """Embeddings of all images are alike; the message says by what number, and what helps."""


def check_apart(config: Config, metrics: dict[str, Any], step: int, calendar: Calendar, workdir: Path) -> None:
    """Look at a validation, once the learning rate's warmup is over: random weights are nearly alike, too.

    Raises:
        CollapsedError: if the method says so, and `train.stop_at_collapse`.
    """
    if not config.train.stop_at_collapse or step <= config.optimizer.warmup_epochs * calendar.steps_per_epoch:
        return
    told = METHODS[config.model.name].collapse(
        {name.removeprefix("val/"): value for name, value in metrics.items() if name.startswith("val/")}
    )
    if told is not None:
        raise CollapsedError(
            f"the embeddings have collapsed at step {step}: {told}. Checkpoints are kept in {workdir}. A lower "
            "optimizer.lr, more images in a batch, or more weight of the term that keeps images apart may help; "
            "--config.train.stop_at_collapse=False goes on all the same"
        )

"""Saving and restoring a run with Orbax; no other file knows Orbax.

A checkpoint is written to a temporary folder and renamed when it is whole, so one that was cut short is never seen.
Kept are the newest two (the older one in case a disk tears the newer) and the best by validation loss.
"""

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Sharding
from orbax.checkpoint import v1 as ocp

from bie_jax.sharding import abstract
from bie_jax.train_state import TrainState, averageable

# Where every device has the whole state, each copies a part of an array to the host, if the parts are this large:
# cutting a small array into parts takes longer than copying it.
_LEAST_SLICE_BYTES = 2**20


@dataclasses.dataclass
class Progress:
    """What the loop knows beside the state.

    Attributes:
        best_val_loss: least validation loss so far; infinity before the first.
        best_step: the step that had it.
        log_bytes: length of `metrics.jsonl` when the checkpoint was made; what follows is written anew on resuming.
    """

    best_val_loss: float = float("inf")
    best_step: int = 0
    log_bytes: int = 0


class Checkpoints:
    """The folder `checkpoints/` of a workdir."""

    def __init__(self, workdir: Path):
        self._directory = (Path(workdir) / "checkpoints").absolute()
        context = ocp.Context()
        context.array.saving.min_slice_bytes_for_replica_parallel = _LEAST_SLICE_BYTES
        # Orbax's v1 types are protocols that pyright does not see its own classes fulfil.
        self._checkpointer = ocp.training.Checkpointer(
            self._directory,  # pyright: ignore[reportArgumentType]
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),  # pyright: ignore[reportArgumentType]
            preservation_policy=ocp.training.preservation_policies.AnyPreservationPolicy(  # pyright: ignore[reportArgumentType]
                [
                    ocp.training.preservation_policies.LatestN(2),
                    ocp.training.preservation_policies.BestN(
                        get_metric_fn=lambda metrics: -metrics["val/loss"],
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            cleanup_tmp_directories=True,
            context=context,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()  # waits for a save under way

    @property
    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, progress: Progress, val_loss: float | None) -> None:
        """Save in the background.

        The copy to the host is made before this returns, so a following step may donate the state's buffers.

        Args:
            state: the whole state; its step names the checkpoint.
            progress: saved beside it.
            val_loss: the validation loss at this very step, if there is one; it ranks the checkpoint.
        """
        self._checkpointer.save_checkpointables_async(
            int(state.step),
            {**_split(state), "progress": dataclasses.asdict(progress)},
            metrics=None if val_loss is None else {"val/loss": val_loss},
        )

    def restore(self, state: TrainState, step: int) -> tuple[TrainState, Progress]:
        """Load a checkpoint into the shapes, dtypes and shardings that `state` is a tree of."""
        loaded = self._checkpointer.load_checkpointables(step, {**_split(state), "progress": None})
        model, training = loaded["model"], loaded["training"]
        if state.averages is not None:
            learning = training.pop("learning")
            model = {
                "params": learning.pop("params"),
                "model_state": model["model_state"] | learning,
                "averages": averageable(model["params"], model["model_state"]),
            }
        return state.replace(**model, **training), Progress(**loaded["progress"])

    def restore_model(self, variables: dict[str, Any], sharding: Sharding) -> tuple[dict[str, Any], int]:
        """Load a network of the best step by validation loss (the newest, if none was validated).

        Args:
            variables: its collections, "params" and others, of which shapes and dtypes are looked at.
            sharding: wanted of all arrays.

        Returns:
            The same collections, loaded, and their step.

        Raises:
            FileNotFoundError: if there is no whole checkpoint.
        """
        newest = self.latest_step
        if newest is None:
            raise FileNotFoundError(f"{self._directory} holds no whole checkpoint: train first")
        progress = Progress(**self._checkpointer.load_checkpointables(newest, {"progress": None})["progress"])
        step = progress.best_step or newest
        wanted = abstract(variables, sharding)
        model = {"params": wanted.pop("params"), "model_state": wanted}
        loaded = self._checkpointer.load_checkpointables(step, {"model": model})["model"]
        return {"params": loaded["params"], **loaded["model_state"]}, step


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run can go on from something; makes no folder."""
    if not (Path(workdir) / "checkpoints").exists():
        return False
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.latest_step is not None


def _split(state: TrainState) -> dict[str, Any]:
    """What an embedder needs apart from what only training needs, so that each can be loaded alone."""
    # With averages the embedder needs these, and training alone what they are the averages of.
    learning = {} if state.averages is None else {"learning": averageable(state.params, state.model_state)}
    return {
        "model": {"params": state.eval_params, "model_state": state.eval_model_state},
        "training": {"step": state.step, "opt_state": state.opt_state, "window": state.window} | learning,
    }

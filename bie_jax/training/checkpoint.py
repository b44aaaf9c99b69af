"""Saving and restoring a run with Orbax; no other file knows Orbax.

A checkpoint is written to a temporary folder and renamed when it is whole; then it gets its `checksums.json`. One
without is not finished, and one that does not fit it is damaged: neither is read. Kept are the newest two (the older
one in case a disk damages the newer) and the best by validation loss.
"""

import dataclasses
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from bie_jax.files import integrity
from bie_jax.files.integrity import DamagedFileError, disk_errors
from bie_jax.training import processes
from bie_jax.training.state import TrainState, averageable

# Where every device has the whole state, each copies a part of an array to the host, if the parts are this large:
# cutting a small array into parts takes longer than copying it.
_LEAST_SLICE_BYTES = 2**20

_UNFINISHED = f"{integrity.CHECKSUMS} is missing"


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


@dataclasses.dataclass(frozen=True)
class Found:
    """The checkpoints of a run, each read once.

    Attributes:
        whole: steps of those that are whole, ascending.
        damaged: step -> what is wrong with it, of those that are damaged or were not finished.
    """

    whole: tuple[int, ...]
    damaged: dict[int, str]


def find_checkpoints(workdir: Path) -> Found:
    """Verify the checkpoints of a run; changes nothing.

    Raises:
        DamagedFileError: if there are some and none of them is whole. (A first one that was not finished is none.)
    """
    directory = _directory(workdir)
    wrong = {step: _what_is_wrong(workdir, step) for step in _steps(directory)}
    damaged = {step: why for step, why in wrong.items() if why is not None}
    whole = tuple(step for step in wrong if step not in damaged)
    if damaged and not whole and list(damaged.values()) != [_UNFINISHED]:
        listed = ", ".join(f"{step}: {why}" for step, why in damaged.items())
        raise DamagedFileError(
            f"{directory}: no checkpoint is whole ({listed}): restore one from a copy, or remove the folder to train "
            "anew"
        )
    return Found(whole, damaged)


class Checkpoints:
    """The folder `checkpoints/` of a run that is trained.

    Checkpoints that are damaged or were not finished are put aside, with a warning: the run goes on from the newest
    whole one and makes them again to the bit, so nothing is lost but time.

    Args:
        workdir: of the run.
        found: what `find_checkpoints` found there.
    """

    def __init__(self, workdir: Path, found: Found):
        self._directory = _directory(workdir)
        self._sealing: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._bytes = 0
        if processes.is_first():
            _put_damaged_aside(self._directory, found)
        processes.wait_for_all("damaged checkpoints are put aside")
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
        with disk_errors(self._directory, self._bytes):
            try:
                self._wait()
            finally:
                self._checkpointer.close()

    @property
    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, progress: Progress, rank: float | None) -> None:
        """Save in the background.

        The copy to the host is made before this returns, so a following step may donate the state's buffers.

        Args:
            state: the whole state; its step names the checkpoint.
            progress: saved beside it.
            rank: of this very step, less is better, where it was validated: its loss, or what stands for it.

        Raises:
            DiskError: if this save, or the one before, finds no room.
        """
        step = int(state.step)
        content = {**_split(state), "progress": dataclasses.asdict(progress)}
        self._bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(content) if isinstance(leaf, jax.Array))
        with disk_errors(self._directory / str(step), self._bytes):
            self._wait()
            response = self._checkpointer.save_checkpointables_async(
                step, content, metrics=None if rank is None else {"val/loss": rank}
            )
        self._sealing = threading.Thread(target=self._seal, args=(response, self._directory / str(step)))
        self._sealing.start()

    def restore(self, state: TrainState, step: int) -> tuple[TrainState, Progress]:
        """Load a checkpoint into the shapes, dtypes and shardings that `state` is a tree of.

        Raises:
            DamagedFileError: if the checkpoint of the least validation loss, which embedding will need, is not there.
        """
        loaded = self._checkpointer.load_checkpointables(step, {**_split(state), "progress": None})
        model, training = loaded["model"], loaded["training"]
        if state.averages is not None:
            learning = training.pop("learning")
            model = {
                "params": learning.pop("params"),
                "model_state": model["model_state"] | learning,
                "averages": averageable(model["params"], model["model_state"]),
            }
        progress = Progress(**loaded["progress"])
        # The best one of then was removed when a later one was better. If that was damaged, it will be made again.
        if progress.best_step and not any(put_aside > step for put_aside in _steps(_aside(self._directory))):
            _check_is_there(self._directory, progress.best_step)
        return state.replace(**model, **training), progress

    def _seal(self, response: Any, directory: Path) -> None:
        """In a thread: once Orbax has given the checkpoint its name, enter its checksums."""
        try:
            response.result()
            if processes.is_first():
                integrity.seal(directory)
        except BaseException as error:  # raised by `_wait`, in the thread of the run
            self._failure = error

    def _wait(self) -> None:
        """Until the save under way is done; raises what it failed of."""
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def load_model(workdir: Path, variables: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The network of a run at the best step by validation loss (the newest, if none was validated).

    Args:
        workdir: of the run; nothing is changed in it, and it may be trained meanwhile.
        variables: the network's collections, "params" and others: shapes, dtypes and the shardings that are wanted
            (`sharding.on_first_device`).

    Returns:
        The same collections, loaded, and their step.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        DamagedFileError: if the newest or the best is damaged. An older one would give other numbers.
    """
    directory, step = _directory(workdir), best_step(workdir)
    _check_is_there(directory, step)
    _check_is_whole(workdir, step, lambda name: not name.startswith("training/"))
    others = {name: part for name, part in variables.items() if name != "params"}
    model = {"params": variables["params"], "model_state": others}
    loaded = ocp.load_checkpointables(str(directory / str(step)), {"model": model})["model"]
    return {"params": loaded["params"], **loaded["model_state"]}, step


def best_step(workdir: Path) -> int:
    """The step of the least validation loss, as the newest checkpoint says (its own, if none was validated).

    Raises:
        FileNotFoundError, DamagedFileError: as `load_model`.
    """
    directory = _directory(workdir)
    steps = _steps(directory)
    if steps and _what_is_wrong(workdir, steps[-1], lambda name: False) == _UNFINISHED:
        print(f"checkpoint {steps[-1]} in {directory} was not finished; it is passed over", file=sys.stderr)
        steps.pop()
    if not steps:
        raise FileNotFoundError(f"{directory} holds no whole checkpoint: train first")
    _check_is_whole(workdir, steps[-1], lambda name: not name.startswith(("model/", "training/")))
    progress = Progress(**ocp.load_checkpointables(str(directory / str(steps[-1])), {"progress": None})["progress"])
    return progress.best_step or steps[-1]


def checkpoint_fingerprint(workdir: Path, step: int) -> str:
    """Of a checkpoint's content; "" of one from an earlier version."""
    folder = _directory(workdir) / str(step)
    return integrity.fingerprint(folder) if (folder / integrity.CHECKSUMS).exists() else ""


def seal_old_checkpoints(workdir: Path) -> None:
    """Enter the checksums of checkpoints that an earlier version wrote, as they are."""
    directory = _directory(workdir)
    for step in _steps(directory):
        if not (directory / str(step) / integrity.CHECKSUMS).exists():
            integrity.seal(directory / str(step))


def _directory(workdir: Path) -> Path:
    return (Path(workdir) / "checkpoints").absolute()


def _aside(directory: Path) -> Path:
    """Where damaged checkpoints go."""
    return directory.with_name("damaged-checkpoints")


def _steps(directory: Path) -> list[int]:
    """Of all checkpoints, ascending; folders that Orbax has not finished have other names."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())


def _what_is_wrong(workdir: Path, step: int, wanted: Callable[[str], bool] = lambda name: True) -> str | None:
    """With a checkpoint; None if it is whole, or of a run that an earlier version wrote, without any checksums."""
    folder = _directory(workdir) / str(step)
    if not (folder / integrity.CHECKSUMS).exists() and not (Path(workdir) / integrity.CHECKSUMS).exists():
        integrity.say_unverified(Path(workdir))
        return None
    return integrity.damage(folder, wanted)


def _check_is_there(directory: Path, step: int) -> None:
    if step not in _steps(directory):
        raise DamagedFileError(
            f"{directory}: checkpoint {step}, that of the least validation loss, is missing: run the command with "
            "--stage=train, restore it from a copy, or remove the folder to train anew"
        )


def _check_is_whole(workdir: Path, step: int, wanted: Callable[[str], bool]) -> None:
    wrong = _what_is_wrong(workdir, step, wanted)
    if wrong is not None:
        raise DamagedFileError(
            f"{_directory(workdir)}: checkpoint {step} is damaged ({wrong}): restore it from a copy, or run the "
            "command with --stage=train, which goes on from the newest one that is whole"
        )


def _put_damaged_aside(directory: Path, found: Found) -> None:
    """Move damaged and unfinished checkpoints out of the way."""
    for step, wrong in found.damaged.items():
        aside = _aside(directory) / str(step)
        with disk_errors(aside, 0):
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            (directory / str(step)).rename(aside)
        print(
            f"checkpoint {step} is damaged ({wrong}); it is put aside, in {aside}, and the run goes on from "
            f"{f'checkpoint {found.whole[-1]}' if found.whole else 'its start'}",
            file=sys.stderr,
        )


def _split(state: TrainState) -> dict[str, Any]:
    """What an embedder needs apart from what only training needs, so that each can be loaded alone."""
    # With averages the embedder needs these, and training alone what they are the averages of.
    learning = {} if state.averages is None else {"learning": averageable(state.params, state.model_state)}
    return {
        "model": {"params": state.eval_params, "model_state": state.eval_model_state},
        "training": {"step": state.step, "opt_state": state.opt_state, "window": state.window} | learning,
    }

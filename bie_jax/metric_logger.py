"""`metrics.jsonl`, always, and Weights & Biases when asked."""

import json
import os
import secrets
from pathlib import Path
from typing import Any, Literal

import jax


class MetricLogger:
    """Append one JSON object a line to `metrics.jsonl`; the first process alone writes.

    Keys under `perf/` are timings; all others are the same to the bit in an interrupted and an unbroken run.

    Args:
        workdir: where the file is.
        resume_bytes: the file is cut to this length first, which takes back lines written after the checkpoint that
            the run goes on from.
        wandb_mode: "disabled", "offline" (files in the workdir, no account) or "online".
        config: recorded with the run on W&B.
    """

    def __init__(
        self,
        workdir: Path,
        resume_bytes: int,
        wandb_mode: Literal["disabled", "offline", "online"],
        config: dict[str, Any],
    ):
        self._is_writer = jax.process_index() == 0
        self._wandb_run = None
        if not self._is_writer:
            return
        self._file = open(workdir / "metrics.jsonl", "ab")  # noqa: SIM115, closed by `__exit__`
        self._file.truncate(resume_bytes)
        self._file.seek(0, os.SEEK_END)
        if wandb_mode != "disabled":
            import wandb  # a second of import time that most runs need not spend

            self._wandb_run = wandb.init(
                project="bie-jax",
                dir=workdir,
                mode=wandb_mode,
                config=config,
                id=_run_id(workdir),
                resume="allow",
            )

    def __enter__(self) -> "MetricLogger":
        return self

    def __exit__(self, *_: object) -> None:
        """Flush and close."""
        if not self._is_writer:
            return
        self._file.close()
        if self._wandb_run is not None:
            self._wandb_run.finish()

    @property
    def bytes_written(self) -> int:
        """Length of the file, all lines flushed."""
        if not self._is_writer:
            return 0
        self._file.flush()
        return self._file.tell()

    def write(self, step: int, epoch: float, metrics: dict[str, Any]) -> None:
        """One line: {"step", "epoch", **metrics}; numbers, and lists of numbers, which W&B has no chart for."""
        if not self._is_writer:
            return
        line = json.dumps({"step": step, "epoch": epoch, **metrics}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        if self._wandb_run is not None:
            numbers = {name: value for name, value in metrics.items() if not isinstance(value, list)}
            self._wandb_run.log(numbers | {"epoch": epoch}, step=step)

    def write_picture(self, step: int, path: Path) -> None:
        """Show a picture file beside the numbers on W&B; in the workdir it lies anyway."""
        if self._wandb_run is not None:
            import wandb

            self._wandb_run.log({path.parent.name: wandb.Image(str(path))}, step=step)


def _run_id(workdir: Path) -> str:
    """One W&B run per workdir, so that a resumed run goes on in the same charts."""
    path = workdir / "wandb_run_id"
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return path.read_text()

"""`metrics.jsonl`, always, and Weights & Biases when asked."""

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import xxhash

from bie_jax.files import integrity
from bie_jax.files.integrity import DamagedFileError, disk_errors

LOG = "metrics.jsonl"
_REMEDY = "restore it from a copy, or remove it, and the log begins anew where the run goes on"


class MetricLogger:
    """Append one JSON object a line to `metrics.jsonl`; the first process alone writes.

    Keys under `perf/` are timings; all others are the same to the bit in an interrupted and an unbroken run.

    Args:
        workdir: where the file is.
        resume_bytes: the file is cut to this length first, which takes back lines written after the checkpoint that
            the run goes on from; 0 for a new run.
        wandb_mode: "disabled", "offline" (files in the workdir, no account) or "online".
        config: recorded with the run on W&B.

    Raises:
        DamagedFileError: if the file is not what was written up to the checkpoint. One that is missing begins anew.
        DiskError: here and in every method, if there is no room.
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
        self._path = workdir / LOG
        kept = _read_until(self._path, resume_bytes)
        self._hasher = xxhash.xxh3_128(kept)
        # The checksum first: a log that is longer than its checksum says is as good.
        integrity.enter_log(self._path, len(kept), self._hasher.hexdigest())
        with disk_errors(self._path, 0):
            self._file = open(self._path, "ab")  # noqa: SIM115, closed by `__exit__`
            self._file.truncate(len(kept))
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
        with disk_errors(self._path, 0):
            self._file.close()
        if self._wandb_run is not None:
            self._wandb_run.finish()

    def settle(self) -> int:
        """Bring all lines to the disk and enter their checksum; returns their length in bytes."""
        if not self._is_writer:
            return 0
        with disk_errors(self._path, 0):
            os.fsync(self._file.fileno())
        size = self._file.tell()
        integrity.enter_log(self._path, size, self._hasher.hexdigest())
        return size

    def write(self, step: int, epoch: float, metrics: dict[str, Any]) -> None:
        """One line: {"step", "epoch", **metrics}; numbers, and lists of numbers, which W&B has no chart for."""
        if not self._is_writer:
            return
        line = json.dumps({"step": step, "epoch": epoch, **metrics}, allow_nan=False).encode() + b"\n"
        with disk_errors(self._path, len(line)):
            self._file.write(line)
            self._file.flush()
        self._hasher.update(line)
        if self._wandb_run is not None:
            numbers = {name: value for name, value in metrics.items() if not isinstance(value, list)}
            self._wandb_run.log(numbers | {"epoch": epoch}, step=step)

    def write_picture(self, step: int, path: Path) -> None:
        """Show a picture file beside the numbers on W&B; in the workdir it lies anyway."""
        if self._wandb_run is not None:
            import wandb

            self._wandb_run.log({path.parent.name: wandb.Image(str(path))}, step=step)


def _read_until(path: Path, size: int) -> bytes:
    """The first bytes of the log, verified; none of one that is missing."""
    if size == 0:
        return b""
    if not path.exists():
        print(f"{path} is missing; the log begins anew where the run goes on", file=sys.stderr)
        return b""
    content = integrity.read_log(path, _REMEDY)
    if len(content) < size:
        raise DamagedFileError(
            f"{path} is damaged (it has {len(content)} bytes, the checkpoint knows {size}): {_REMEDY}"
        )
    return content[:size]


def _run_id(workdir: Path) -> str:
    """One W&B run per workdir, so that a resumed run goes on in the same charts."""
    path = workdir / "wandb_run_id"
    if not path.exists():
        integrity.write_text(path, secrets.token_hex(4))
    integrity.verify(path, "remove it, and the run goes on in new charts")
    return path.read_text()

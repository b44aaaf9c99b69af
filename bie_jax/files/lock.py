"""Who works in a folder, a run's or that of a set that is being built: one process, or several that know of it."""

import contextlib
import datetime
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from bie_jax.files.integrity import disk_errors


class LockedError(RuntimeError):
    """Another process works there; the message says which one, and since when."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file. Its folder is made if need be; one that is still empty afterwards is removed again.

    The system releases the lock of a process that dies, however it dies, so what it leaves, a file, locks nothing.
    Processes on other machines are seen where the file system passes locks on, as NFS and Lustre (flock) do.

    Args:
        path: of the file, in the folder of a run, or beside that of a build.

    Raises:
        LockedError: if another process holds it.
        DiskError: if the folder cannot be written to.
    """
    with _held(path, fcntl.LOCK_EX, waits=False):
        yield


@contextlib.contextmanager
def locked_together(path: Path) -> Iterator[None]:
    """Hold a lock file that others may hold together with this process, and nobody as `locked` has it.

    Args:
        path: as in `locked`.

    Raises:
        LockedError: if another process holds it for itself.
        DiskError: if the folder cannot be written to.
    """
    with _held(path, fcntl.LOCK_SH, waits=False):
        yield


@contextlib.contextmanager
def locked_in_turn(path: Path) -> Iterator[None]:
    """Hold a lock file as soon as no other process does; says once for whom it waits.

    Args:
        path: as in `locked`.

    Raises:
        DiskError: if the folder cannot be written to.
    """
    with _held(path, fcntl.LOCK_EX, waits=True):
        yield


@contextlib.contextmanager
def _held(path: Path, operation: int, waits: bool) -> Iterator[None]:
    made = [parent for parent in path.parents if not parent.exists()]
    with disk_errors(path, 100):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _take(path, operation, waits)
    try:
        yield
    finally:
        # Of those who hold it together, the last one removes it.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        os.close(file)
        for parent in made:
            with contextlib.suppress(OSError):  # not empty
                parent.rmdir()


def _take(path: Path, operation: int, waits: bool) -> int:
    """The lock file, opened and locked."""
    said = False
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, operation if said else operation | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.read(file, 1000))
            os.close(file)
            if not waits:
                raise LockedError(
                    f"{path}: {holder} works there; wait until it is done, stop it, or choose another folder"
                ) from None
            print(f"{path}: waiting for {holder.rstrip(',')}", file=sys.stderr)
            said = True
            continue
        # Whoever held it before may have removed the file since it was opened here.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                break
        os.close(file)
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "together": operation == fcntl.LOCK_SH}
    os.ftruncate(file, 0)
    os.write(file, json.dumps(who).encode() + b"\n")
    return file


def _holder(content: bytes) -> str:
    try:
        said = json.loads(content)
        others = " and perhaps others" if said["together"] else ""
        return f"process {said['pid']} on {said['host']}, since {said['since']},{others}"
    except (ValueError, KeyError, TypeError):
        return "another process, which has not said yet which one,"

"""Several processes, on one machine or many, that train one run together.

Every process runs the same program on its own devices and reads its own share of each batch; the first one alone writes
what is written once. Checkpoints are written by all of them, into one folder that all of them see.
"""

import contextlib
import functools
import os
import re
import sys
import time
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np
import xxhash
from jax.experimental import multihost_utils

from bie_jax.config.schema import Config, ConfigError
from bie_jax.training.meeting import meet

_SECONDS_TO_JOIN = 60
# A process that dies ends the others within a minute: that long without a sign, and what it takes to be told.
_SECONDS_WITHOUT_A_SIGN = 30
_PACKAGE = Path(__file__).resolve().parents[1]


def join(how: str) -> None:
    """Meet the other processes; before anything else is asked of jax.

    Args:
        how: "none": this process is alone. "auto": as SLURM, Open MPI, Kubernetes or a TPU pod say. Else by hand,
            "HOST:PORT,COUNT,INDEX": where the first process can be reached, how many there are, and which this is.

    Raises:
        ConfigError: if nothing says who the others are, or not all of them come within a minute.
    """
    if how == "none":
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    initialize = functools.partial(
        jax.distributed.initialize,
        initialization_timeout=_SECONDS_TO_JOIN,
        heartbeat_timeout_seconds=_SECONDS_WITHOUT_A_SIGN,
        shutdown_timeout_seconds=_SECONDS_TO_JOIN,
    )
    if how == "auto":
        try:
            initialize()
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                "--distributed=auto: neither SLURM, Open MPI, Kubernetes nor a TPU pod says who the other processes "
                f"are, or they do not answer ({_first_line(error)}); by hand: --distributed=HOST:PORT,COUNT,INDEX"
            ) from None
        return
    host, port, count, index = _by_hand(how)
    try:
        missing = meet(host, port, count, index, _SECONDS_TO_JOIN)
    except OSError as error:
        raise ConfigError(f"--distributed={how}: process 0 cannot listen at {host}:{port} ({error})") from None
    if missing:
        raise ConfigError(
            f"--distributed={how}: process {', '.join(map(str, missing))} of {count} did not come to {host}:{port} "
            f"within {_SECONDS_TO_JOIN} s"
        )
    initialize(f"{host}:{port}", count, index)


def _by_hand(how: str) -> tuple[str, int, int, int]:
    found = re.fullmatch(r"([^,]+):(\d+),(\d+),(\d+)", how)
    if found is None or not int(found[4]) < int(found[3]) or int(found[2]) > 65535:
        raise ConfigError(
            f"--distributed={how!r}: expected 'none', 'auto' or HOST:PORT,COUNT,INDEX with INDEX from 0 to COUNT - 1, "
            "e.g. --distributed=node1:9876,4,0"
        )
    return found[1], int(found[2]), int(found[3]), int(found[4])


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def are_several() -> bool:
    """Whether there are others."""
    return jax.process_count() > 1


def wait_for_all(place: str) -> None:
    """Until all processes are at the same place of the program."""
    if are_several():
        multihost_utils.sync_global_devices(place)


def check_same(config: Config) -> None:
    """Refuse processes that would train different things.

    Raises:
        ConfigError: naming the processes whose configuration or program differs from the first one's.
    """
    if not are_several():
        return
    program = xxhash.xxh3_64()
    for path in sorted(_PACKAGE.rglob("*.py")):
        program.update(path.read_bytes())
    own = (xxhash.xxh3_64_intdigest(config.model_dump_json().encode()), program.intdigest())
    halves = np.asarray([part for whole in own for part in divmod(whole, 2**32)], np.uint32)
    found = multihost_utils.process_allgather(halves)  # [P, 4]
    for what, columns in (("configuration", slice(0, 2)), ("version of the program", slice(2, 4))):
        others = np.flatnonzero((found[:, columns] != found[0, columns]).any(axis=1))
        if len(others):
            raise ConfigError(
                f"--distributed: another {what} than in process 0 in process {', '.join(map(str, others))}: give all "
                "of them the same"
            )


def check_shared(workdir: Path, name: str) -> None:
    """Refuse a folder that is not the first process's own; to be called once that has written the file there.

    Raises:
        ConfigError: naming the folder and the processes that do not see the file.
    """
    if not are_several():
        return
    wait_for_all(f"{name} is written")
    seen = multihost_utils.process_allgather(np.asarray((workdir / name).exists()))
    if not seen.all():
        missing = ", ".join(str(index) for index in np.flatnonzero(~seen))
        raise ConfigError(
            f"--workdir={workdir}: process {missing} does not see what process 0 wrote there; the folder must lie on a "
            "disk that all machines share"
        )


def asked_to_stop(step: int) -> bool:
    """Whether SIGTERM has come to any of several processes; all of them hear of it at the same step."""
    return are_several() and multihost_utils.reached_preemption_sync_point(step)


def end(message: str) -> NoReturn:
    """End with an error. Of several processes each says its own, and nobody waits for one that has ended."""
    if not are_several():
        sys.exit(message)
    print(message, file=sys.stderr, flush=True)
    if is_first():
        time.sleep(2)  # without the first one jax ends the others in the midst of what they say
    os._exit(1)


def end_after_loss(error: Exception) -> NoReturn:
    """End this process after another one died; jax names that one, once it has been without a sign for too long."""
    cause = _first_line(error)
    if "Gloo context initialization failed" in cause:  # Gloo listens at what the machine's own name means to it
        cause += "; on CPUs each machine's own name has to mean its address in the network, no 127.x, in its /etc/hosts"
    print(
        f"launch.py: process {jax.process_index()} of {jax.process_count()} lost another one ({cause}). "
        "jax says below which; what that one printed says why. The same command goes on from the last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    with contextlib.suppress(RuntimeError):
        jax.distributed.shutdown()
    os._exit(1)  # other threads wait for the lost one


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

"""Where the trials of a sweep run: on a Ray of this machine, or on the cluster that RAY_ADDRESS names."""

import contextlib
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from bie_jax.config.schema import ConfigError
from bie_jax.tuning.command import REPOSITORY
from bie_jax.tuning.sweep import Sweep

_OBJECT_STORE_BYTES = 100 << 20  # results are a few numbers
_SECONDS_TO_ANSWER = 10
_ASKED_ONCE = {"RAY_gcs_server_port_wait_time_s": "1"}  # else it asks a cluster that does not answer for minutes
_GIB = 2**30


@contextlib.contextmanager
def started_ray(sweep: Sweep) -> Iterator[None]:
    """A Ray with room for the sweep's trials, which ends with this context if it began with it.

    Raises:
        ConfigError: if RAY_ADDRESS names nothing that answers as the Ray that is installed here, or no trial would ever
            start.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    with warnings.catch_warnings():
        # jax warns of every fork; those of Ray are followed by an exec at once, which is safe.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        if address in ("", "local"):
            _init(
                address="local",
                num_cpus=sweep.at_once * sweep.each.cores,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
            )
        else:
            _join(address)
    try:
        check_room(sweep, [machine["Resources"] for machine in ray.nodes() if machine["Alive"]])
        yield
    finally:
        ray.shutdown()


def _init(**told: Any) -> None:
    ray.init(
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}},
        **told,
    )


def _join(address: str) -> None:
    """Join a cluster that runs."""
    if address != "auto":
        _check_answers(address)
    os.environ.update(_ASKED_ONCE)
    try:
        _init(address=address)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        said = " ".join(str(error).split())  # of another version it says so in many lines
        raise ConfigError(
            f"RAY_ADDRESS={address}: {said} (here: Ray {ray.__version__}; if the cluster asks for a token, "
            "RAY_AUTH_MODE=token gives it)"
        ) from None


def _check_answers(address: str) -> None:
    """Raise ConfigError for what is no address of a cluster, and where nobody listens."""
    if re.fullmatch(r"[^\s/]+:\d{1,5}", address) is None:
        raise ConfigError(f"RAY_ADDRESS={address!r}: expected 'auto' or HOST:PORT of `ray start --head`")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"RAY_ADDRESS={address}: no Ray answers there ({error}); start it there with `ray start --head`, or unset "
            "RAY_ADDRESS for a Ray of this machine"
        ) from None


def check_room(sweep: Sweep, machines: Sequence[Mapping[str, float]]) -> None:
    """Raise ConfigError if no trial would ever start; say so if fewer than wanted can run at once.

    Args:
        sweep: what each of its trials may take.
        machines: what each machine of Ray's has, by its own names. A trial runs on one of them.
    """
    needed = {
        "cores": ("CPU", float(sweep.each.cores)),
        "gpus": ("GPU", sweep.each.gpus),
        "memory_gb": ("memory", sweep.each.memory_gb * _GIB),
    }
    for field, (name, amount) in needed.items():
        has = max((machine.get(name, 0.0) for machine in machines), default=0.0)
        if amount > has:
            shown = has / _GIB if name == "memory" else has
            raise ConfigError(
                f"each.{field}={getattr(sweep.each, field):g} of the sweep, and no machine of Ray's has more than "
                f"{shown:.3g}"
            )
    room = sum(
        min(int(machine.get(name, 0.0) / amount) for name, amount in needed.values() if amount) for machine in machines
    )
    if not room:
        raise ConfigError(f"each={sweep.each} of the sweep, and no machine of Ray's has all of it")
    if room < sweep.at_once:
        print(f"sweep: Ray has room for {room} trials at once, not for {sweep.at_once}")

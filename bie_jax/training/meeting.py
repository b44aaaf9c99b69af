"""Whether all processes of a run have come, asked before jax is: it ends a process that waits in vain, and names none.

The first process listens where jax will. The others connect, say who they are, and are told whether all have come.
"""

import socket
import struct
import time

_PAUSE_SECONDS = 0.2
_GO = b"go"


def meet(host: str, port: int, count: int, index: int, seconds: float) -> list[int]:
    """Wait until all processes are there.

    Args:
        host: where the first one can be reached.
        port: of its.
        count: processes.
        index: which this is.
        seconds: after which nobody is waited for.

    Returns:
        The processes that did not come, as far as this one knows; none when all did.
    """
    deadline = time.monotonic() + seconds
    return _receive(host, port, count, deadline) if index == 0 else _call(host, port, index, deadline)


def _receive(host: str, port: int, count: int, deadline: float) -> list[int]:
    """The first process: collect the others, then tell all of them who is missing."""
    callers: dict[int, socket.socket] = {}
    with socket.create_server((host, port), backlog=count) as server:
        while len(callers) < count - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                caller, _ = server.accept()
            except TimeoutError:
                break
            index = _index_of(caller)
            if index is None:
                caller.close()
            else:
                callers[index] = caller
    missing = [index for index in range(1, count) if index not in callers]
    for caller in callers.values():
        with caller:
            caller.sendall(_GO + struct.pack(f"!{len(missing)}i", *missing))
    return missing


def _index_of(caller: socket.socket) -> int | None:
    """Which process has connected; None for somebody else."""
    caller.settimeout(_PAUSE_SECONDS)
    try:
        return struct.unpack("!i", caller.recv(4))[0]
    except (OSError, struct.error):
        return None


def _call(host: str, port: int, index: int, deadline: float) -> list[int]:
    """Another process: call the first one until it answers."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as first:
                first.sendall(struct.pack("!i", index))
                first.settimeout(left + 10 * _PAUSE_SECONDS)
                answer = b"".join(iter(lambda: first.recv(4096), b""))
        except OSError:
            time.sleep(_PAUSE_SECONDS)
            continue
        if answer.startswith(_GO):
            told = answer[len(_GO) :]
            return list(struct.unpack(f"!{len(told) // 4}i", told))
        time.sleep(_PAUSE_SECONDS)
    return [0]

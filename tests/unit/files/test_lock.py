"""One process at a time, real ones; a dead one locks nothing."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from bie_jax.files.lock import LockedError, locked

_HOLD = """
import sys
from pathlib import Path
from bie_jax.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def _hold(path):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named_and_one_that_was_killed_locks_nothing(tmp_path):
    path = tmp_path / "run" / ".lock"
    holder = _hold(path)
    wanted = rf"\.lock: process {holder.pid} on {re.escape(socket.gethostname())}, since 20.*, works there; wait"
    with pytest.raises(LockedError, match=wanted), locked(path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert path.exists()  # what it left
    with locked(path):
        assert f'"pid": {os.getpid()}' in path.read_text()
    assert not path.exists()


def test_a_folder_in_which_nothing_was_done_is_not_left(tmp_path):
    with locked(tmp_path / "a" / "b" / ".lock"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / "b" / ".lock"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert os.listdir(tmp_path / "a" / "b") == ["kept"]

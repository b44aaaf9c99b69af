"""One process at a time, real ones; a dead one locks nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from bie_jax.files.lock import LockedError, locked, locked_in_turn, locked_together

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


def test_several_hold_it_together_and_nobody_alone(tmp_path):
    path = tmp_path / ".lock"
    with locked_together(path):
        message = rf"process {os.getpid()} on .* and perhaps others works there"
        with locked_together(path), pytest.raises(LockedError, match=message), locked(path):
            pass
        assert path.exists()  # not removed by the first of them to leave
        with pytest.raises(LockedError), locked(path):
            pass
    assert not path.exists()
    with locked(path), pytest.raises(LockedError), locked_together(path):
        pass


def test_in_turn(tmp_path, capsys):
    """The second waits for the first, whom it names, and holds a file of its own: the first removes its own."""
    path = tmp_path / ".lock"
    events = []

    def second():
        with locked_in_turn(path):
            events.append("second")
            assert path.exists()

    with locked_in_turn(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        events.append("first")
    thread.join(10)
    assert events == ["first", "second"]
    assert f".lock: waiting for process {os.getpid()} on " in capsys.readouterr().err
    assert not path.exists()


def test_a_folder_in_which_nothing_was_done_is_not_left(tmp_path):
    with locked(tmp_path / "a" / "b" / ".lock"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / "b" / ".lock"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert os.listdir(tmp_path / "a" / "b") == ["kept"]

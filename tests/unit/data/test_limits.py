import os
import re
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from data import limits
from data.errors import BadInputError, BuildError
from data.limits import GB, SMALL_BYTES, Limits, at_most_seconds, check_size, reading, regular, using


def test_what_an_input_may_become():
    assert Limits().allowed(0) == SMALL_BYTES == Limits().allowed(SMALL_BYTES // 500)
    assert Limits().allowed(1 << 20) == 500 << 20
    assert Limits().allowed(GB) == 4 * GB == Limits().allowed(None)
    assert Limits(9 * GB, float("inf")).allowed(0) == 9 * GB


def test_an_announcement_is_held_against_the_size():
    check_size("a.tif", "an image", SMALL_BYTES, 10)
    with pytest.raises(BadInputError) as caught:
        check_size("a.tif", "an image of 40000 x 40000 pixels", 1_600_000_000, 2048)
    assert str(caught.value) == (
        "a.tif: announces an image of 40000 x 40000 pixels, 1.49 GB of memory from 2 kB; at most 256 MB are given to "
        "it. If it is whole and no bomb, --max-gb=2 allows it"
    )
    with using(Limits(2 * GB, float("inf"))):
        check_size("a.tif", "an image of 40000 x 40000 pixels", 1_600_000_000, 2048)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "is a pipe, a file is needed"),
        (os.mkdir, "is a folder, a file is needed"),
        (_socket, "is a socket, a file is needed"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device, a file is needed"),
        (lambda path: path.symlink_to(path), "cannot be opened: Too many levels of symbolic links"),
        (lambda path: None, "cannot be opened: No such file or directory"),
    ],
)
def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch, make, problem):
    monkeypatch.chdir(tmp_path)  # a socket's path may be 107 bytes long
    make(tmp_path / "x") if make is not _socket else make("x")
    with pytest.raises(BadInputError, match=f"^{tmp_path}/x: {problem}$"):
        regular(tmp_path / "x")


def test_a_name_that_no_file_can_have():
    with pytest.raises(BadInputError, match="cannot be opened: embedded null byte"):
        regular("a\0b")


class _Panic(BaseException):
    """What a reader written in Rust raises is no Exception."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (struct.error("unpack requires 4 bytes"), "error: unpack requires 4 bytes"),
        (OverflowError("too large"), "OverflowError: too large"),
        (RecursionError("maximum recursion depth exceeded"), "maximum recursion depth exceeded"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (KeyError("ImageWidth"), "KeyError: 'ImageWidth'"),
        (ValueError("first line\nsecond line"), "first line"),
        (AssertionError(), "AssertionError"),
        (StopIteration(), "StopIteration"),
        (zlib.error("incorrect header check"), "error: incorrect header check"),
        (_Panic("index out of bounds"), "_Panic: index out of bounds"),
    ],
)
def test_whatever_a_decoder_raises_is_the_fault_of_its_file(error, said):
    with pytest.raises(BadInputError) as caught, reading("a.tif", 10):
        raise error
    assert str(caught.value) == f"a.tif: damaged: {said}"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), BuildError("ours"), BadInputError("b", "", "x")])
def test_what_is_not_the_files_fault_passes(error):
    with pytest.raises(type(error)) as caught, reading("a.tif", 10):
        raise error
    assert caught.value is error


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say how much memory is in use")
def test_a_reader_gets_no_more_memory_than_its_file_may_take():
    def ask(count):
        with reading("a.tif", 1000):
            return np.ones(count, np.uint8).nbytes

    assert ask(SMALL_BYTES) == SMALL_BYTES
    with pytest.raises(
        BadInputError, match=r"a.tif: damaged: its reader asks for more memory from 1000 bytes; at most"
    ):
        ask(3 * SMALL_BYTES)
    with using(Limits(GB, float("inf"))):
        assert ask(3 * SMALL_BYTES) == 3 * SMALL_BYTES
    assert np.ones(3 * SMALL_BYTES, np.uint8).nbytes == 3 * SMALL_BYTES  # outside nothing is held back


def test_a_reader_within_a_reader_leaves_the_outer_bound():
    def ask():
        with reading("outer", 0):
            with reading("inner", 0):
                pass
            np.empty(3 * SMALL_BYTES, np.uint8)

    with pytest.raises(BadInputError, match=r"outer: .*asks for more memory"):
        ask()


def test_who_listens_is_told_before_a_file_is_read():
    heard = []
    with limits.told(heard.append), reading("a.tif", 1):
        assert heard == ["a.tif"]
    with reading("b.tif", 1):
        pass
    assert heard == ["a.tif"]


def test_time():
    with at_most_seconds(5, "too long"):
        assert re.fullmatch("(a+)+$", "a" * 10)
    with pytest.raises(BuildError, match=r"^too long$"), at_most_seconds(0.1, "too long"):
        re.fullmatch("(a+)+$", "a" * 40 + "!")


MEMORY = """
import resource, sys
from data.limits import reading
import numpy as np
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
with reading("a", 0):
    np.ones(100 << 20, np.uint8)
print(resource.getrlimit(resource.RLIMIT_DATA)[0])
"""


def test_a_limit_of_the_shell_stays():
    command = [sys.executable, "-c", MEMORY, str(1 << 30)]
    cwd = Path(limits.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    assert done.stdout == f"{1 << 30}\n"

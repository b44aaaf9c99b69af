"""The two commands, without what importing them costs: `launch.py` takes 4 s of a processor, `data.build` 2 s."""

import contextlib
import dataclasses
import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Done:
    """What a command left, under the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def build(*arguments: object) -> Done:
    """`python -m data.build` in this process. An exception that the command lets through comes out of this function."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(REPOSITORY),
        mock.patch.object(sys, "argv", ["data.build", *map(str, arguments)]),
    ):
        try:
            runpy.run_path(str(REPOSITORY / "data" / "build.py"), run_name="__main__")
        except SystemExit as stopped:  # as the interpreter takes it
            code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
            if isinstance(stopped.code, str):
                print(stopped.code, file=sys.stderr)
    return Done(code, out.getvalue(), err.getvalue())


def launch_arguments(*arguments: object) -> list[str]:
    """Arguments of `launch.py`, with the tests' cache of compiled programs."""
    return [*map(str, arguments), f"--compilation_cache={jax.config.jax_compilation_cache_dir}"]


def launch(*arguments: object, devices: int = 1) -> subprocess.CompletedProcess:
    """`python launch.py`, as a person starts it."""
    return subprocess.run(
        [sys.executable, "launch.py", *launch_arguments(*arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )


# No fork after jax has threads: this process imports it and computes nothing.
_SERVER = """
import gc, json, os, sys
import launch
from absl import app
gc.freeze()  # what is not touched is not copied
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.path[:0] = asked["path"]
        sys.argv = ["launch.py", *asked["arguments"]]
        app.run(launch.main, flags_parser=launch._parse_flags)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Launcher:
    """Starts `launch.py` again and again, each time in a process of its own, forked from one that has imported it."""

    def __init__(self, folder: Path):
        self._out, self._err = folder / "out", folder / "err"
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            cwd=REPOSITORY,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running = False

    def start(self, *arguments: object, path: tuple[Path, ...] = ()) -> int:
        """The number of the process, to send signals to; modules are looked for in `path` first."""
        assert not self._running
        asked = {
            "arguments": launch_arguments(*arguments),
            "out": str(self._out),
            "err": str(self._err),
            "path": [str(folder) for folder in path],
        }
        print(json.dumps(asked), file=self._server.stdin, flush=True)
        self._running = True
        return int(self._server.stdout.readline())

    def said(self) -> str:
        """What it has written to stderr so far."""
        return self._err.read_text() if self._err.exists() else ""

    def wait(self) -> Done:
        """The end of what was started last; killed by a signal, its status is that of `subprocess`, below 0."""
        code = int(self._server.stdout.readline())
        self._running = False
        return Done(code, self._out.read_text(), self._err.read_text())

    def run(self, *arguments: object, path: tuple[Path, ...] = ()) -> Done:
        """`start` and `wait`."""
        self.start(*arguments, path=path)
        return self.wait()

    def close(self) -> None:
        """End the process that forks."""
        with self._server:
            self._server.stdin.close()


@contextlib.contextmanager
def launcher(folder: Path) -> Iterator[Launcher]:
    """One that is closed afterwards."""
    one = Launcher(folder)
    try:
        yield one
    finally:
        one.close()

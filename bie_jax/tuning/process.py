"""A trial as Ray Tune runs it: `launch.py` in a process of its own, whose validations are told as they come.

Ray starts a process for it that imports this module and nothing else of ours, so that it is there at once.
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ray import tune

_LOOK_EVERY_SECONDS = 0.3
_SECONDS_TO_SAVE = 120  # that a run has after SIGTERM


class TrialProcess(tune.Trainable):
    """One trial. Its configuration has `command`, `cwd`, `environment`, `workdir`, `log` and `metric`.

    Each result has `epoch` and `value` of a validation; the last one, `done`, the process' exit code and what it said.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the process."""
        self._log = Path(config["log"])
        self._metrics = Path(config["workdir"]) / "metrics.jsonl"
        self._metric = config["metric"]
        self._lines_told = 0
        self._last: dict[str, Any] = {"epoch": 0.0, "value": None}
        die_with_this_thread = _death_signal(signal.SIGTERM)
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                config["command"],
                cwd=config["cwd"],
                env=os.environ | config["environment"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the sweep, which stops its trials
                preexec_fn=die_with_this_thread,
            )

    def step(self) -> dict[str, Any]:
        """Wait for the next validation, or for the end."""
        while True:
            code = self._process.poll()
            told = self._next_validation()
            if told is not None:
                self._last = told
                return {**told, "done": False}
            if code is not None:
                return {**self._last, "done": True, "code": code, "said": self._said(code)}
            time.sleep(_LOOK_EVERY_SECONDS)

    def cleanup(self) -> None:
        """Stop the process, if it still runs, once it has saved."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _next_validation(self) -> dict[str, Any] | None:
        """The next line of the log with the metric, if it is whole."""
        if not self._metrics.is_file():
            return None
        text = self._metrics.read_text()
        lines = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
        while self._lines_told < len(lines):
            record = json.loads(lines[self._lines_told])
            self._lines_told += 1
            if self._metric in record:
                return {"epoch": float(record["epoch"]), "value": record[self._metric]}
        return None

    def _said(self, code: int) -> str:
        """The line that says what went wrong: ours, that of the last traceback's exception, or the last one."""
        if code == 0:
            return ""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            text = log.read().decode(errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
        ours = [line for line in lines if line.startswith("launch.py: ")]
        # The first line after it that is not indented; more may follow, of the exception or of jax.
        raised = re.findall(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.*)", text, re.MULTILINE)
        said = (ours or raised or lines or [""])[-1].removeprefix("launch.py: ")[:300]
        if code < 0:
            name = signal.Signals(-code).name
            cause = ", by the system if memory ran out" if -code == signal.SIGKILL else ""
            return f"ended by {name}{cause}"
        return said or f"exit status {code}"


def _death_signal(number: int) -> Any:
    """For `preexec_fn`: the system sends a signal when whoever started the process is gone, however it went.

    On Linux; elsewhere a trial whose sweep was killed goes on, and holds its folder until it is done.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(1, number)  # PR_SET_PDEATHSIG

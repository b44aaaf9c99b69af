"""All trials of a sweep in one live table; where nobody watches, a line when one begins and one when it ends."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

_ENDED_SHOWN = 8  # of those that are done the last ones


class ProgressTable:
    """Which trials run, how far each is, and which are done.

    Args:
        total: trials of the sweep.
        left: of them that this call runs.
        metric: what their numbers are.
    """

    def __init__(self, total: int, left: int, metric: str):
        self._total, self._left, self._metric = total, left, metric
        self._running: dict[str, tuple[float, float, float | None]] = {}
        self._ended: list[tuple[str, str, float | None, str, float]] = []
        self._began = time.monotonic()
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None

    @property
    def num_ended(self) -> int:
        """Trials that ended, one way or another, since the table began."""
        return len(self._ended)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self.draw()
            self._live.stop()

    def start(self, name: str) -> None:
        """A trial begins."""
        self._running[name] = (time.monotonic(), 0.0, None)
        self._say(f"{name}: begins")

    def tell(self, name: str, epoch: float, value: float | None) -> None:
        """A trial has validated."""
        if name in self._running:
            self._running[name] = (self._running[name][0], epoch, value)

    def end(self, name: str, state: str, value: float | None, why: str) -> None:
        """A trial is done."""
        began, _, _ = self._running.pop(name, (time.monotonic(), 0.0, None))
        seconds = time.monotonic() - began
        self._ended.append((name, state, value, why, seconds))
        shown = "" if value is None else f", {self._metric} {value:.4g}"
        self._say(f"{name}: {state}{shown}, {_clock(seconds)}{f' ({why})' if why else ''}")

    def draw(self) -> None:
        """The table as it is now."""
        if self._live is None:
            return
        done = self._total - self._left + len(self._ended)
        table = Table(title=f"{done} of {self._total} trials done, {_clock(time.monotonic() - self._began)}")
        for title in ("trial", "state", "epoch", self._metric, "time"):
            table.add_column(title, justify="left" if title in ("trial", "state") else "right")
        for name, state, value, why, seconds in self._ended[-_ENDED_SHOWN:]:
            table.add_row(name, why or state, "", "" if value is None else f"{value:.4g}", _clock(seconds))
        for name, (began, epoch, value) in self._running.items():
            shown = "" if value is None else f"validation {value:.4g}"
            table.add_row(name, "runs", f"{epoch:.3g}", shown, _clock(time.monotonic() - began))
        self._live.update(table, refresh=True)

    def _say(self, line: str) -> None:
        if self._live is None:
            print(line, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}"

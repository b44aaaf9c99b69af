"""SIGTERM and Ctrl-C end a run once its state is saved."""

import signal
import threading
from typing import Any

from bie_jax.training import processes


class Interrupted(Exception):
    """SIGTERM or Ctrl-C arrived; the state of the last step is saved and the same command goes on from there.

    Attributes:
        number: of the signal.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


class StopSignal:
    """Remembers SIGTERM or Ctrl-C instead of dying of it, while a run can still save; a second one ends it at once.

    Attributes:
        number: of the signal that came; 0 before one does.
    """

    def __init__(self):
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        # Python takes signals in the main thread only; a run started from another one dies of them as usual. Of several
        # processes jax takes SIGTERM, and tells all of them.
        if threading.current_thread() is threading.main_thread() and not processes.are_several():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: object) -> None:
        del frame
        self.number = number
        self.__exit__()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def hear(self, step: int) -> None:
        """Of several processes: whether SIGTERM has come to any of them, so that all stop at the same step."""
        if processes.asked_to_stop(step):
            self.number = int(signal.SIGTERM)

    def check(self, step: int, total: int, unit: str = "step") -> None:
        """End the run if a signal came; to be called when its state is saved.

        Args:
            step: that is saved.
            total: of all steps.
            unit: what is counted.

        Raises:
            Interrupted: naming the signal and the step.
        """
        if self.number:
            name = signal.Signals(self.number).name
            raise Interrupted(f"stopped by {name} at {unit} {step} of {total}; the same command goes on", self.number)

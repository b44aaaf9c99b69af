"""The progress bar, and how many images a second are trained on."""

import time

from tqdm import tqdm


class ProgressBar:
    """Counts images; shows the loss of the last log line.

    Args:
        name: of the run.
        batch_size: images in a step.
        step: that is made already.
        total: steps of the run.
        shown: whether anybody sees it.
    """

    def __init__(self, name: str, batch_size: int, step: int, total: int, shown: bool):
        self._batch_size = batch_size
        self._bar = tqdm(
            total=total * batch_size,
            initial=step * batch_size,
            desc=f"train {name}",
            unit="image",
            unit_scale=True,
            mininterval=1.0,
            disable=not shown,
        )
        self._images, self._seconds, self._started = 0, 0.0, None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def after_step(self) -> None:
        """One batch more."""
        self._bar.update(self._batch_size)
        if self._started is None:  # the first step compiles; the clock starts after it
            self._started = time.perf_counter()
        else:
            self._images += self._batch_size

    def show(self, loss: float) -> None:
        """Beside the count."""
        self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)

    def pause(self) -> None:
        """What follows is not training: validating, drawing, saving."""
        if self._started is not None:
            self._seconds += time.perf_counter() - self._started
            self._started = time.perf_counter()

    def resume(self) -> None:
        """Training goes on."""
        if self._started is not None:
            self._started = time.perf_counter()

    def images_per_s(self) -> float:
        """Of training alone, since this was asked last."""
        self.pause()
        rate = self._images / self._seconds if self._seconds else 0.0
        self._images, self._seconds = 0, 0.0
        return rate

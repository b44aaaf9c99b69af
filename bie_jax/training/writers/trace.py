"""A trace of some training steps, for TensorBoard's profile plugin and for Perfetto."""

from pathlib import Path

import jax


class StepProfiler:
    """Traces steps 2 .. 1 + num_steps of this process; the first compiles and warms caches up.

    Writes `profile/plugins/profile/<time>/`: `*.xplane.pb`, which `tensorboard --logdir=WORKDIR/profile` opens, and
    `perfetto_trace.json.gz`, which https://ui.perfetto.dev opens.

    Args:
        workdir: folder of the run.
        num_steps: how many steps; 0: no trace.
    """

    def __init__(self, workdir: Path, num_steps: int):
        self._directory = workdir / "profile"
        self._left = num_steps
        self._steps_begun = 0
        self._tracing = False

    def __enter__(self) -> "StepProfiler":
        return self

    def before_step(self) -> None:
        """Begins the trace before the second step."""
        self._steps_begun += 1
        if self._steps_begun == 2 and self._left:
            jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
            self._tracing = True

    def after_step(self, result: jax.Array) -> None:
        """Ends the trace when the last of its steps is computed; `result` is something that the step returned."""
        if not self._tracing:
            return
        self._left -= 1
        if self._left == 0:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._tracing = False
        print(f"{self._directory}: a trace of training steps; tensorboard --logdir={self._directory}")

    def __exit__(self, *_: object) -> None:
        """A run that ends before its trace does still leaves it."""
        if self._tracing:
            self._stop()

"""Work on every core: processes that are started afresh and stop with their parent."""

import collections
import contextlib
import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from data.errors import BuildError

Tick = Callable[[], None]  # one part of a job is done

_tick: Tick


def run(
    work: Callable[[Any, Tick], None], jobs: Sequence[Any], num_workers: int, progress: Callable[[int], Any]
) -> None:
    """`work(job, tick)` for every job, at most `num_workers` at once; in this process if that is 1.

    Args:
        work: a function that a new process can import.
        jobs: picklable.
        num_workers: processes.
        progress: is told how many ticks came since it was last told.

    Raises:
        BuildError: for a full disk, or a process that was killed; and whatever `work` raises in the first that fails.
    """
    try:
        with _sigterm_as_interrupt():
            if num_workers == 1 or len(jobs) <= 1:
                for job in jobs:
                    work(job, lambda: progress(1))
            else:
                _run_in_processes(work, jobs, num_workers, progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise BuildError(
                f"no room to write {error.filename or 'a record'} ({error.strerror}); free some, and the same command "
                "goes on"
            ) from None
        raise


def _run_in_processes(work: Callable, jobs: Sequence[Any], num_workers: int, progress: Callable[[int], Any]) -> None:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("L", 0)
    told = 0
    waiting = collections.deque(jobs)
    running = set()
    with ProcessPoolExecutor(min(num_workers, len(jobs)), context, _start, (counter,)) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < num_workers + 1:  # few at once: a job holds its parts
                    running.add(pool.submit(_work, work, waiting.popleft()))
                finished, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                progress(counter.value - told)
                told = counter.value
        except BrokenProcessPool:
            raise BuildError(
                "a worker process was killed, by the system if memory ran out; the same command goes on, with fewer "
                "--workers if that was it"
            ) from None
        except BaseException:
            waiting.clear()
            for process in list((pool._processes or {}).values()):  # no public way to stop a running job
                process.terminate()
            raise


def _work(work: Callable[[Any, Tick], None], job: Any) -> None:
    work(job, _tick)


def _start(counter: Any) -> None:
    """Once in every worker."""
    global _tick

    def tick() -> None:
        with counter.get_lock():
            counter.value += 1

    _tick = tick
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Without it, the workers of a parent that was killed would wait for work for ever.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a build as Ctrl-C does, workers included."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Work on every core: processes that are started afresh and stop with their parent."""

import collections
import contextlib
import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, Self

from data import limits
from data.errors import BuildError

Tick = Callable[[], None]  # one part of a job is done

_tick: Tick


class Job(Protocol):
    """What one process does in one go, one part after the other. Picklable."""

    @property
    def note(self) -> Path:
        """A file for `noted`."""
        ...

    def without(self, number: int, source: str, problem: str) -> Self:
        """The same job without one part.

        Args:
            number: of the part, from 0.
            source: the file of it that was being read, "" if none was.
            problem: why it is left out.

        Raises:
            BuildError: if no part may be left out.
        """
        ...


class DeadReaderError(Exception):
    """A process that was killed, or killed itself, or that did not end: no exception came out of it.

    Attributes:
        problem: how it came to its end.
        part: number of the part that it was at, and the file, "" if it read none; None if it had not begun.
    """

    def __init__(self, problem: str, part: tuple[int, str] | None):
        super().__init__(problem)
        self.problem, self.part = problem, part


def run(
    work: Callable[[Any, Tick], None],
    jobs: Sequence[Job],
    num_workers: int,
    progress: Callable[[int], Any],
    isolated: bool,
) -> None:
    """`work(job, tick)` for every job, at most `num_workers` at once.

    A process that dies or does not end takes the others with it. What was being done is done again, each job in a
    process of its own; a part of which such a process dies once more is left out, if the job lets it be.

    Args:
        work: a function that a new process can import. It has each part of a job within `noted`, and ticks after it.
        jobs: picklable.
        num_workers: processes.
        progress: is told how many ticks came since it was last told; fewer than none, where parts are done again.
        isolated: whether this process must survive whatever `work` does. Otherwise one worker, or one job, needs no
            process of its own.

    Raises:
        BuildError: for a full disk; and whatever `work` or `Job.without` raises in the first that fails.
    """
    try:
        with _sigterm_as_interrupt():
            if not isolated and (num_workers == 1 or len(jobs) <= 1):
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


@contextlib.contextmanager
def noted(note: Path, number: int) -> Iterator[None]:
    """While a part is worked on, a file says which one it is, and what is being read: should the process die of it."""
    partial = note.with_name(f"{note.name}.partial")

    def write(source: str) -> None:
        partial.write_text(json.dumps([number, source]))
        os.replace(partial, note)

    write("")
    with limits.told(write):
        yield


def alone(function: Callable[..., Any], *arguments: Any, note: Path) -> Any:
    """`function(*arguments)` in a process of its own.

    Args:
        function: that a new process can import.
        arguments: picklable, as what is returned.
        note: that the function keeps with `noted`; removed before and afterwards.

    Raises:
        DeadReaderError: if the process dies, or reads one file for longer than `limits.FILE_SECONDS`.
        Exception: whatever the function raises.
    """
    note.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, limits.current(), function, arguments))
    process.start()
    sender.close()
    answer = None
    try:
        while answer is None and not _is_late(note):
            if receiver.poll(0.2):
                answer = _received(receiver)
                break
    finally:
        process.terminate()
        process.join()
        receiver.close()
    if answer is None:
        late = _is_late(note)
        raise DeadReaderError(
            _too_long() if late else f"the reader died of it ({_end(process.exitcode)})", _noted(note)
        )
    note.unlink(missing_ok=True)
    result, error = answer
    if error is not None:
        raise error
    return result


def _too_long() -> str:
    return f"the reader did not come to an end within {limits.FILE_SECONDS} s"


def _answer(sender: Connection, bounds: limits.Limits, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    _prepare(bounds)
    try:
        sender.send((function(*arguments), None))
    except BaseException as error:
        sender.send((None, error))


def _received(receiver: Connection) -> tuple[Any, BaseException | None] | None:
    try:
        return receiver.recv()
    except EOFError:  # the other end closed with its process
        return None


def _end(code: int | None) -> str:
    """How a process ended, by its exit code: the signal's name if there was one."""
    return f"exit status {code}" if code is None or code >= 0 else signal.Signals(-code).name


def _noted(note: Path) -> tuple[int, str] | None:
    try:
        number, source = json.loads(note.read_text())
    except FileNotFoundError:
        return None
    return number, source


def _is_late(note: Path) -> bool:
    try:
        return time.time() - note.stat().st_mtime > limits.FILE_SECONDS
    except FileNotFoundError:
        return False


def _run_in_processes(work: Callable, jobs: Sequence[Job], num_workers: int, progress: Callable[[int], Any]) -> None:
    waiting = collections.deque(jobs)
    while waiting:
        for job in _run_in_pool(work, waiting, num_workers, progress):
            part = _noted(job.note)
            progress(-part[0] if part else 0)
            _run_alone(work, job, progress)


def _run_in_pool(
    work: Callable, waiting: collections.deque[Job], num_workers: int, progress: Callable[[int], Any]
) -> list[Job]:
    """Work off the queue; the jobs that were being done when a process died or did not end."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("L", 0)
    told = 0
    running: dict[Future, Job] = {}
    late: set[Future] = set()
    workers = min(num_workers, len(waiting))
    with ProcessPoolExecutor(workers, context, _start, (counter, limits.current())) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < num_workers + 1:  # few at once: a job holds its parts
                    waiting[0].note.unlink(missing_ok=True)
                    future = pool.submit(_work, work, waiting[0])
                    running[future] = waiting.popleft()
                finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    if future.exception() is None:
                        del running[future]
                for future in finished:
                    future.result()
                progress(counter.value - told)
                told = counter.value
                late = {future for future, job in running.items() if _is_late(job.note)}
                if late:
                    _stop(pool)
                    break
        except BrokenProcessPool:
            progress(counter.value - told)
            return list(running.values())
        except BaseException:
            waiting.clear()
            _stop(pool)
            raise
    progress(counter.value - told)
    return [_without_file(job) if future in late else job for future, job in running.items()]


def _without_file(job: Job) -> Job:
    """What is left of a job whose reader did not come to an end."""
    part = _noted(job.note)
    return job if part is None else job.without(*part, _too_long())


def _stop(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):  # no public way to stop a running job
        process.terminate()


def _run_alone(work: Callable, job: Job, progress: Callable[[int], Any]) -> None:
    while True:
        try:
            ticks = alone(_count_ticks, work, job, note=job.note)
        except DeadReaderError as error:
            if error.part is None:
                raise BuildError(
                    f"a worker process was killed ({error.problem}), by the system if memory ran out; the same command "
                    "goes on, with fewer --workers if that was it"
                ) from None
            job = job.without(*error.part, error.problem)
        else:
            progress(ticks)
            return


def _count_ticks(work: Callable[[Any, Tick], None], job: Job) -> int:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    work(job, tick)
    return ticks


def _work(work: Callable[[Any, Tick], None], job: Any) -> None:
    work(job, _tick)


def _start(counter: Any, bounds: limits.Limits) -> None:
    """Once in every worker of the pool."""
    global _tick

    def tick() -> None:
        with counter.get_lock():
            counter.value += 1

    _tick = tick
    _prepare(bounds)


def _prepare(bounds: limits.Limits) -> None:
    """Once in every process."""
    limits.set_current(bounds)
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

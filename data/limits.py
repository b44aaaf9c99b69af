"""How much of this machine one input may take. A header can announce anything: what is believed is the size on disk.

An input of any size may become `SMALL_BYTES` in memory, a larger one `MOST_RATIO` times its own size, and none more
than `Limits.most_bytes`. `python -m data.build --max-gb=N` allows N GB to every input, whatever its size.
"""

import contextlib
import contextvars
import dataclasses
import math
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from data.errors import BadInputError, BuildError

GB = 1 << 30
SMALL_BYTES = 256 << 20
MOST_RATIO = 500  # deflate packs an image of one color a thousandfold; a label image of a few cells, three hundredfold
MOST_BYTES = 4 * GB  # a plane of 46 000 x 46 000 pixels of 16 bits

# What is kept of what is only listed: a plane of an index, a value of a table, a character of a text.
PLANE_BYTES = 1 << 10
VALUE_BYTES = 100
TEXT_BYTES = 10

MOST_COLUMNS = 5000  # of a table; CellProfiler's have three thousand

METADATA_BYTES = 64 << 20  # of one file of a Zarr store that says what is in it; the largest plates have 1 MB

# Beyond either an archive is taken for a bomb. The largest plates are near 1 GB, and even an empty 16-bit TIFF does not
# shrink a hundredfold together with its neighbors. A download ends there too.
ARCHIVE_BYTES = 200 * GB
ARCHIVE_RATIO = 100
SMALL_ARCHIVE_BYTES = 10 << 20  # an archive that unpacks to less does no harm at any ratio
MOST_FOLDERS = 100  # within each other, in an archive

PATTERN_SECONDS = 10  # for all paths together, and
PATTERN_SECONDS_PER_PATH = 1e-4  # a usual pattern takes a hundredth of that
FILE_SECONDS = 3600  # for one file, until its reader is taken for one that never ends

_ROOM_BYTES = 256 << 20  # for what is in the process besides the input: stacks of threads, buffers

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an input may become in memory.

    Attributes:
        most_bytes: at most.
        most_ratio: times its own size, from `SMALL_BYTES` on.
    """

    most_bytes: int = MOST_BYTES
    most_ratio: float = MOST_RATIO

    def allowed(self, stored: int | None) -> int:
        """Bytes that an input of a size may become; None: a server has it, and its size is not known."""
        if stored is None or self.most_ratio == math.inf:
            return self.most_bytes
        return int(min(self.most_bytes, max(SMALL_BYTES, self.most_ratio * stored)))


_DEFAULT = Limits()
_current = contextvars.ContextVar("limits", default=_DEFAULT)


def current() -> Limits:
    """Those that hold here."""
    return _current.get()


@contextlib.contextmanager
def using(limits: Limits) -> Iterator[None]:
    """Other limits within the block, as `numpy.errstate` has other errors; `data.records.workers` takes them along."""
    token = _current.set(limits)
    try:
        yield
    finally:
        _current.reset(token)


def set_current(limits: Limits) -> None:
    """For good: in a process that works for another one, which has told it."""
    _current.set(limits)


_told: contextvars.ContextVar[Callable[[str], None] | None] = contextvars.ContextVar("told", default=None)


@contextlib.contextmanager
def told(listener: Callable[[str], None]) -> Iterator[None]:
    """Within the block the listener is told of every file before a decoder looks at it, should it be the last."""
    token = _told.set(listener)
    try:
        yield
    finally:
        _told.reset(token)


def check_size(source: object, what: str, needed: int, stored: int | None) -> None:
    """Whether there is room for what an input announces.

    Args:
        source: the file or URL.
        what: it announces, as a message shows it, e.g. "an image of 40000 x 40000 pixels".
        needed: bytes of memory.
        stored: bytes that the input has; None where that is not known.

    Raises:
        BadInputError: if that is more than `Limits.allowed`.
    """
    allowed = current().allowed(stored)
    if needed > allowed:
        from_ = f" from {size_text(stored)}" if stored else ""
        raise BadInputError(
            str(source), "", f"announces {what}, {size_text(needed)} of memory{from_}; {_advice(allowed, needed)}"
        )


def _advice(allowed: int, needed: int) -> str:
    return (
        f"at most {size_text(allowed)} are given to it. If it is whole and no bomb, --max-gb={-(-needed // GB)} "
        "allows it"
    )


def check_text(path: Path) -> None:
    """Whether a file of text may be read whole; raises BadInputError as `regular` and `check_size`."""
    size = regular(path).st_size
    check_size(path, f"a text of {size_text(size)}", TEXT_BYTES * size, size)


def size_text(count: int) -> str:
    """ "1.5 GB"; a GB is 2^30 bytes."""
    for unit, size in (("GB", GB), ("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def regular(path: Path | str) -> os.stat_result:
    """The status of a file that can be read to its end. Opening a pipe would wait, and a device has no end.

    Raises:
        BadInputError: for what is not there, may not be looked at, or is no regular file.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadInputError(str(path), "", f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise BadInputError(str(path), "", f"is {kind}, a file is needed")
    return status


def first_line(error: BaseException) -> str:
    """What an exception says, as one line; its type where it says nothing, or only a name."""
    lines = str(error).splitlines()
    plain = isinstance(error, (ValueError, OSError, RuntimeError)) and lines
    return lines[0] if plain else f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"


@contextlib.contextmanager
def reading(
    source: object,
    stored: int | None,
    problem: str = "damaged",
    why: Callable[[BaseException], str] = first_line,
) -> Iterator[None]:
    """The border to a decoder of other people's: whatever it raises or asks for is the fault of one file.

    The block may take as much more memory as `Limits.allowed` says, on Linux and in the main thread; an allocation
    beyond that fails before it is made. Keep our own code out of the block, whose errors would not be seen.

    Args:
        source: the file or URL.
        stored: its size in bytes; None where that is not known.
        problem: what is said before the decoder's own words.
        why: makes one line of these.

    Raises:
        BadInputError: for everything that is raised, but for the `BuildError`s of our own.
    """
    allowed = current().allowed(stored)
    listener = _told.get()
    if listener is not None:
        listener(str(source))
    try:
        with _at_most(allowed):
            yield
    except (BuildError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        from_ = f" from {size_text(stored)}" if stored else ""
        raise BadInputError(
            str(source), "", f"{problem}: its reader asks for more memory{from_}; {_advice(allowed, allowed + 1)}"
        ) from None
    except BaseException as error:  # a panic of a reader in Rust is no Exception
        raise BadInputError(str(source), "", f"{problem}: {why(error)}") from None


@contextlib.contextmanager
def at_most_seconds(seconds: float, problem: str) -> Iterator[None]:
    """Stop what runs too long: Python's own code, and regular expressions, which look for signals. In the main thread.

    Raises:
        BuildError: with the problem.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise BuildError(problem)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again, should it come where exceptions are lost
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _at_most(count: int) -> Iterator[None]:
    """So many bytes of memory more than now."""
    # One limit for all threads: two of them would lift each other's.
    statm = Path("/proc/self/statm")
    if threading.current_thread() is not threading.main_thread() or not statm.exists():
        yield
        return
    used = int(statm.read_text().split()[5]) * resource.getpagesize()
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = used + count + _ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most if before == resource.RLIM_INFINITY else min(most, before), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))

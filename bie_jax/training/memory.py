"""Whether a compiled step fits into the memory of a device, known before it runs.

A batch that is too large otherwise ends in an allocation error of the runtime minutes into a run, or, on a CPU, in a
killed process without a message.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_GIB = 2**30


class OutOfMemoryError(ValueError):
    """A step needs more memory than a device has.

    Attributes:
        largest_batch_size: the largest batch seen to fit, examples; 0 if none does.
    """

    def __init__(self, message: str, largest_batch_size: int):
        super().__init__(message)
        self.largest_batch_size = largest_batch_size


def step_bytes(compiled: Any) -> int:
    """Bytes that a compiled function occupies on each device while it runs: arguments, results, temporaries.

    Results that reuse the memory of donated arguments count once. XLA's own `peak_memory_in_bytes` is not used: on the
    CPU it leaves temporaries out.

    Args:
        compiled: what `jax.jit(f).lower(...).compile()` returns.
    """
    sizes = compiled.memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.generated_code_size_in_bytes
    )


def gibibytes(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / _GIB:.2f} GiB"


def available_bytes(device: Any) -> int:
    """Bytes a step may occupy on a device.

    On an accelerator the pool that this process may allocate from, what is in use included, since a step's arguments
    are. On a CPU what the machine and the process's control groups have left, in equal parts for the devices it plays.

    Args:
        device: one of `jax.local_devices()`.
    """
    stats = device.memory_stats()
    if stats is not None:
        return stats["bytes_limit"]
    return min([_machine_bytes(), *_cgroup_bytes()]) // device.client.local_device_count()


def check_fits(compile_at: Callable[[int], Any], batch_size: int, *, shares: int, parts: int, available: int) -> Any:
    """Compile a step and hold what it needs against what there is.

    Where it does not fit, up to three smaller batches are compiled: the smallest, the one that a line through the two
    needs says is the largest, and, should that miss, one more. The batch that is named was compiled and fits.

    Args:
        compile_at: global batch size -> compiled step.
        batch_size: global, examples.
        shares: parts of a batch, each on another device.
        parts: how many equal parts each computes one after the other; sizes that are tried are multiples of
            `shares` x `parts`.
        available: bytes on each device.

    Returns:
        `compile_at(batch_size)`.

    Raises:
        OutOfMemoryError: naming the bytes needed, the bytes there and the batch size that fits.
    """
    compiled = compile_at(batch_size)
    needed = step_bytes(compiled)
    if needed <= available:
        return compiled
    smallest = shares * parts
    largest = _largest_that_fits(compile_at, batch_size, needed, smallest, available)
    advice = f"the largest seen to fit: {largest}" if largest else f"not even a batch of {smallest} fits"
    raise OutOfMemoryError(
        f"batch_size={batch_size}, shared by {shares} device(s), needs {gibibytes(needed)} on each, and "
        f"{gibibytes(available)} are there; {advice}",
        largest,
    )


def _largest_that_fits(
    compile_at: Callable[[int], Any], batch_size: int, needed: int, smallest: int, available: int
) -> int:
    if batch_size <= smallest:
        return 0
    fits, fits_bytes = smallest, step_bytes(compile_at(smallest))
    if fits_bytes > available:
        return 0
    fails, fails_bytes = batch_size, needed
    for _ in range(2):
        on_line = fits + (available - fits_bytes) * (fails - fits) // (fails_bytes - fits_bytes)
        guess = on_line // smallest * smallest
        if guess <= fits:
            break
        guess_bytes = step_bytes(compile_at(guess))
        if guess_bytes <= available:
            return guess
        fails, fails_bytes = guess, guess_bytes
    return fits


def _machine_bytes() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        sizes = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(sizes["MemAvailable"].removesuffix("kB")) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # macOS says only how much is built in


def _cgroup_bytes(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What each limited control group of this process has left, bytes; cached files can be dropped and do not count."""
    lines = membership.read_text().splitlines() if membership.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            base, limit_name, used_name, dropped = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):  # version 1
            base, dropped = root / "memory", "total_inactive_file"
            limit_name, used_name = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            # Inside a container the path may be that of the host, and only the root of the tree is there.
            if not (folder / limit_name).exists():
                continue
            limit, used = ((folder / name).read_text().strip() for name in (limit_name, used_name))
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            if limit != "max":
                yield int(limit) - int(used) + int(statistics[dropped])

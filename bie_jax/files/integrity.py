"""Files that a later run reads: written whole or not at all, and verified whenever they are read.

A folder of such files has a `checksums.json`. For every file it holds the length, the XXH3 hash of 128 bits and what
the file was made from, and it holds a hash of itself. The checksum is entered before the file gets its name, beside
that of the file which it replaces, so that a kill between the two leaves a file that one of both fits.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

CHECKSUMS = "checksums.json"
PARTIAL = ".partial-"  # what files and folders are called until they are whole

_BLOCK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
# What libraries that have no OSError say of a disk that does not take any more.
_FULL_TEXT = re.compile(r"No space left on device|Disk quota exceeded|File too large", re.IGNORECASE)
_FORBIDDEN_TEXT = re.compile(r"Read-only file system|Permission denied", re.IGNORECASE)

MadeFrom = dict[str, str]


class DamagedFileError(OSError):
    """A file is not what was written; the message names it and says what to do."""


class StaleFileError(OSError):
    """A file was made from something else than what is there now; the message names both and says what to do."""


class DiskError(OSError):
    """A disk is full or cannot be written to; the message names the path and the space that is needed."""


@dataclasses.dataclass(frozen=True)
class Checksum:
    """What is known of a file that was written.

    Attributes:
        size: bytes; of a file that grows those that were there when the checksum was taken.
        xxh3_128: hash of these bytes, in hexadecimal digits.
        grows: whether more may follow: a log.
        made_from: name -> fingerprint or value of what the file was made from; None of a file that an earlier version
            wrote, of which that is not known.
    """

    size: int
    xxh3_128: str
    grows: bool = False
    made_from: MadeFrom | None = None


def write_bytes(path: Path, content: bytes, made_from: MadeFrom | None = None) -> None:
    """Write a file whole or not at all, and enter its checksum.

    Args:
        path: of the file; its folder is made.
        content: of the file.
        made_from: name -> fingerprint or value, which `verify` holds against what is there then.

    Raises:
        DiskError: if there is no room or no right to write; the file is as it was.
    """
    write_file(path, lambda partial: partial.write_bytes(content), len(content), made_from)


def write_text(path: Path, content: str, made_from: MadeFrom | None = None) -> None:
    """`write_bytes` of a text, in UTF-8."""
    write_bytes(path, content.encode("utf-8"), made_from)


def write_json(path: Path, content: Any, made_from: MadeFrom | None = None) -> None:
    """`write_bytes` of finite numbers, texts, lists and dicts."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n", made_from)


def write_file(path: Path, write: Callable[[Path], object], needed: int, made_from: MadeFrom | None = None) -> None:
    """`write_bytes` of what a library can only write itself.

    Args:
        path: of the file; its folder is made.
        write: is given the path to write to.
        needed: about how many bytes that will be, for the message.
        made_from: as in `write_bytes`.

    Raises:
        DiskError: as in `write_bytes`.
    """

    def enter(partial: Path) -> None:
        new = dataclasses.replace(_checksum_of(partial), made_from=made_from)
        entries = _read_entries(path.parent)
        # The file on disk is one of these, or was not written by this program.
        before = [old for old in entries.get(path.name, []) if path.is_file() and _fits(path, old)]
        _write_entries(path.parent, entries | {path.name: [*before, new]})

    _write_whole(path, write, needed, enter)


def write_unverified(path: Path, write: Callable[[Path], object], needed: int) -> None:
    """`write_file` of what people look at and no run reads: whole or not at all, without a checksum."""
    _write_whole(path, write, needed, enter=lambda partial: None)


def _write_whole(path: Path, write: Callable[[Path], object], needed: int, enter: Callable[[Path], None]) -> None:
    partial = path.with_name(PARTIAL + path.name)
    with disk_errors(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(partial)
            _to_disk(partial)
            enter(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def enter_log(path: Path, size: int, xxh3_128: str) -> None:
    """Enter the checksum of a log as far as it is now; what is appended later is not covered."""
    with disk_errors(path, size):
        entries = _read_entries(path.parent)
        _write_entries(path.parent, entries | {path.name: [Checksum(size, xxh3_128, grows=True)]})


def verify(path: Path, remedy: str, made_from: MadeFrom | None = None) -> None:
    """Hold a file against its checksum and against what it should be made from.

    A folder without `checksums.json` was written by an earlier version: nothing can be verified, which is said once.

    Args:
        path: of the file.
        remedy: what to do if it is missing or damaged, as a message says it: "run --stage=embed".
        made_from: what it would be made from now; None: whatever it was.

    Raises:
        FileNotFoundError: if it is missing.
        DamagedFileError: if it is not what was written, or not written by this program.
        StaleFileError: if it was made from something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {remedy}")
    if not (path.parent / CHECKSUMS).exists():
        say_unverified(path.parent)
        return
    for _ in range(2):  # a run may be replacing the file at this moment
        checksums = _read_entries(path.parent).get(path.name, [])
        fitting = [checksum for checksum in checksums if _fits(path, checksum)]
        if fitting:
            break
    else:
        raise DamagedFileError(f"{path} is damaged ({_difference(path, checksums)}): {remedy}")
    before = fitting[-1].made_from
    if made_from is None or before is None:
        return
    for name, value in made_from.items():
        if before.get(name) != value:
            raise StaleFileError(f"{path} was made from {name} = {before.get(name)}, which is {value} now: {remedy}")


def read_json(path: Path, remedy: str, made_from: MadeFrom | None = None) -> Any:
    """The content of a JSON file that was verified; raises what `verify` raises."""
    verify(path, remedy, made_from)
    return parse_json(path, remedy)


def parse_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file, verified already or of an earlier version; raises DamagedFileError if it has none."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DamagedFileError(f"{path} is missing: {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} is damaged (it holds {type(content).__name__}, not named values): {remedy}")
    return content


def read_log(path: Path, remedy: str) -> bytes:
    """The bytes of a log that its checksum covers; all of them, where nothing can be verified."""
    verify(path, remedy)
    content = path.read_bytes()
    checksums = _read_entries(path.parent).get(path.name, [])
    return content[: checksums[-1].size] if checksums else content


def adopt(directory: Path, names: tuple[str, ...], logs: tuple[str, ...]) -> None:
    """Enter the files of a folder that an earlier version wrote as they are; from now on they are verified."""
    if (directory / CHECKSUMS).exists():
        return
    found = {name: [_checksum_of(directory / name)] for name in names if (directory / name).is_file()}
    for name in logs:
        if (directory / name).is_file():
            found[name] = [dataclasses.replace(_checksum_of(directory / name), grows=True)]
    if found:
        print(
            f"{directory}: was written by an earlier version, without checksums; it is taken as it is", file=sys.stderr
        )
        with disk_errors(directory / CHECKSUMS, 0):
            _write_entries(directory, found)


def seal(directory: Path, links: dict[str, Path] | None = None) -> None:
    """Enter every file of a finished folder and of the folders in it.

    Args:
        directory: the folder.
        links: files in it that are links to files of folders that were sealed: they are not read again, and what is
            entered is the checksum of what was written there.
    """
    known = {name: _read_entries(path.parent)[path.name] for name, path in (links or {}).items()}
    found = {str(path.relative_to(directory)): path for path in _files(directory)}
    entries = {name: known[name] if name in known else [_checksum_of(path)] for name, path in found.items()}
    with disk_errors(directory / CHECKSUMS, 0):
        _write_entries(directory, entries)


def damage(directory: Path, wanted: Callable[[str], bool] = lambda name: True) -> str | None:
    """What is wrong with a folder that was sealed: a file's name and why; None if it is whole.

    Args:
        directory: the folder.
        wanted: which files are read for it, by their path in the folder; others are looked for only.
    """
    try:
        entries = _read_entries(directory)
    except DamagedFileError:
        return f"{CHECKSUMS} is not what was written"
    if not entries:
        return f"{CHECKSUMS} is missing"
    for name, checksums in entries.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if not any(
            _fits(path, checksum) if wanted(name) else path.stat().st_size == checksum.size for checksum in checksums
        ):
            return f"{name}: {_difference(path, checksums)}"
    return None


def fingerprint(directory: Path) -> str:
    """Of a sealed folder: the hash over the checksums of all its files."""
    return _self_hash(_as_json(_read_entries(directory)))


def hash_bytes(content: bytes | memoryview) -> str:
    """XXH3 of 128 bits, in hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(content)


@contextlib.contextmanager
def disk_errors(path: Path, needed: int | None) -> Iterator[None]:
    """Turns what the system or a library says of a disk that is full or not to be written to into one `DiskError`.

    Args:
        path: what is being written.
        needed: about how many bytes; None where that is not known.
    """
    room = "more" if needed is None else _readable(needed)
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL or (number is None and _FULL_TEXT.search(str(error))):
            raise DiskError(
                f"{path}: no room to write: {room} is needed, {_readable(_free_bytes(path))} are free; "
                "make room, and the same command goes on"
            ) from None
        if number in _FORBIDDEN or (number is None and _FORBIDDEN_TEXT.search(str(error))):
            why = os.strerror(number) if number is not None else "read-only, or not yours"
            raise DiskError(
                f"{path}: cannot be written ({why}; room for {room} is needed); make it writable, and the same "
                "command goes on"
            ) from None
        raise


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.name != CHECKSUMS)


def _checksum_of(path: Path, size: int | None = None) -> Checksum:
    """Of a whole file, or of its first bytes."""
    hasher = xxhash.xxh3_128()
    left = path.stat().st_size if size is None else size
    total = left
    with open(path, "rb", buffering=0) as file:
        while left > 0:
            block = file.read(min(left, _BLOCK_BYTES))
            if not block:
                break
            hasher.update(block)
            left -= len(block)
    return Checksum(total - left, hasher.hexdigest())


def _fits(path: Path, checksum: Checksum) -> bool:
    size = path.stat().st_size
    if size < checksum.size or (size > checksum.size and not checksum.grows):
        return False
    return _checksum_of(path, checksum.size).xxh3_128 == checksum.xxh3_128


def _difference(path: Path, checksums: list[Checksum]) -> str:
    if not checksums:
        return f"it has no checksum in {CHECKSUMS}, so it was not written here"
    size, expected = path.stat().st_size, checksums[-1].size
    if size != expected and not (checksums[-1].grows and size > expected):
        return f"it has {size:,} bytes, {expected:,} were written"
    return "its bytes are not those that were written"


def _as_json(entries: dict[str, list[Checksum]]) -> dict[str, Any]:
    return {name: [dataclasses.asdict(checksum) for checksum in entries[name]] for name in sorted(entries)}


def _self_hash(files: dict[str, Any]) -> str:
    return hash_bytes(json.dumps(files, sort_keys=True).encode())


def _read_entries(directory: Path) -> dict[str, list[Checksum]]:
    """Name -> checksums, any of which may fit; empty if there is no `checksums.json`."""
    path = directory / CHECKSUMS
    try:
        content = json.loads(path.read_bytes())
        files = content["files"]
        if content != {"files": files, "xxh3_128": _self_hash(files)}:
            raise ValueError
        return {name: [Checksum(**checksum) for checksum in checksums] for name, checksums in files.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedFileError(
            f"{path} is damaged: restore it from a copy, or remove it, and the files beside it are taken as they are"
        ) from None


def _write_entries(directory: Path, entries: dict[str, list[Checksum]]) -> None:
    files = _as_json(entries)
    partial = directory / (PARTIAL + CHECKSUMS)
    try:
        partial.write_text(json.dumps({"files": files, "xxh3_128": _self_hash(files)}, indent=1) + "\n")
        _to_disk(partial)
        os.replace(partial, directory / CHECKSUMS)
    finally:
        partial.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """A name must not outlive a power cut that its content does not."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _free_bytes(path: Path) -> int:
    """Room on the disk that holds a path, which need not be there."""
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _readable(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"


@functools.lru_cache(maxsize=64)
def say_unverified(directory: Path) -> None:
    """Say once of a folder of an earlier version that nothing in it can be verified."""
    print(
        f"{directory}: was written by an earlier version, without checksums; its files are not verified",
        file=sys.stderr,
    )

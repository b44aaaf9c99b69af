"""A file that is named somewhere else, in whichever spelling the disk has it."""

import contextlib
import functools
import os
from pathlib import Path

from data.errors import BuildError
from data.text import plain


def find_spelled(folder: Path, name: str, where: str) -> Path:
    """The file of a name; some systems write accents as characters of their own, and tables lose blanks.

    Args:
        folder: that the name is relative to.
        name: with /, perhaps with ..; perhaps absolute.
        where: what names the file, for the message.

    Returns:
        The path as it is on the disk: of the file that is called so after `plain`. What is not there stays as it is
        named, and is met when it is read.

    Raises:
        BuildError: if two files are called so.
    """
    path = Path(os.path.normpath(folder / name))
    if str(path).isascii() and path.exists():
        return path
    folder = Path(os.path.normpath(folder))
    # The folder itself was found already, in the spelling that it was given in.
    found, parts = (folder, path.relative_to(folder).parts) if folder in path.parents else (Path(), path.parts)
    for part in parts:
        spelled = [part] if part in (os.sep, os.pardir) else _listed(found).get(plain(part, where), [part])
        if len(spelled) > 1:
            raise BuildError(f"{where}: {found} has {len(spelled)} files that a reader would call {part!r}; rename one")
        found = found / "".join(spelled)
    return found


def _listed(folder: Path) -> dict[str, list[str]]:
    """What is in a folder by its plain name; nothing if it cannot be listed."""
    try:
        return _names(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=64)
def _names(folder: Path, changed_ns: int) -> dict[str, list[str]]:
    """As `_listed`; the time of its last change makes a folder another one."""
    del changed_ns
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        with contextlib.suppress(BuildError):  # a name with control characters, which no table can have
            names.setdefault(plain(name, str(folder)), []).append(name)
    return names

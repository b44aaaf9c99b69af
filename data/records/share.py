"""A set that several processes make: which shards are whose, and what they must have been asked alike."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bie_jax.files import integrity
from data.errors import BuildError

_AGREEMENT = "parts.json"


@dataclasses.dataclass(frozen=True)
class Share:
    """`--part=NUMBER/COUNT`: a run of shards that one process makes, without joining them.

    Attributes:
        number: from 1 to `count`.
        count: of processes, or of turns of one.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def shards(self, number_of_shards: int) -> range:
        """Its shards, none where there are fewer of them than processes. Shares differ by one shard at most."""
        first, end = (number_of_shards * number // self.count for number in (self.number - 1, self.number))
        return range(first, end)


# What one process makes: a share; all shards, which it then joins; none, it only joins what others have made.
Work = Share | Literal["all", "none"]


def shards_to_make(work: Work, number_of_shards: int) -> range:
    """The shards that a process makes."""
    if isinstance(work, Share):
        return work.shards(number_of_shards)
    return range(number_of_shards if work == "all" else 0)


def agree(building: Path, work: Work, asked: Mapping[str, str]) -> int | None:
    """Hold what this process is asked for against what the parts were begun with; the first part writes it down.

    Args:
        building: folder of the unfinished set.
        work: what this process makes.
        asked: flag -> value, "" for a flag without one, of everything that decides what is in the set.

    Returns:
        Of how many parts the set is made; None if it was not begun in parts.

    Raises:
        BuildError: naming each flag that differs, both values, and what to do.
    """
    if isinstance(work, Share):
        _write_once(building / _AGREEMENT, {"parts": work.count, "asked": dict(asked)})
    elif not (building / _AGREEMENT).exists():
        return None
    begun = integrity.parse_json(building / _AGREEMENT, "remove the folder to begin anew")
    before = begun["asked"]
    differing = [name for name in sorted({*before, *asked}) if before.get(name) != asked.get(name)]
    if differing:
        there, here = (", ".join(_typed(name, values) for name in differing) for values in (before, asked))
        raise BuildError(
            f"{building}: its parts were begun with {there}, and here is {here}; type the same for all, or remove the "
            "folder to begin anew"
        )
    if isinstance(work, Share) and begun["parts"] != work.count:
        raise BuildError(
            f"--part={work}: the set was begun in {begun['parts']} parts, of which two could then write the same; type "
            f"--part=1/{begun['parts']} and so on, or, when none is running, remove {building / _AGREEMENT} and what "
            "is left is shared anew"
        )
    return begun["parts"]


def refuse_unfinished(problems: Mapping[int, str], number_of_shards: int, parts: int | None) -> None:
    """Nothing is joined that is not whole.

    Args:
        problems: shard -> what is wrong with it.
        number_of_shards: of the set.
        parts: of how many the set is made; None if it was not begun in parts.

    Raises:
        BuildError: if there is a problem, naming the parts and the commands that make them.
    """
    if not problems:
        return
    whole = f"{number_of_shards - len(problems)} of {number_of_shards} shards are there"
    if parts is None:
        raise BuildError(
            f"--join: {whole}, and the set was not begun in parts; the same command without --join makes the rest, and "
            "--part=1/N, --part=2/N and so on make it in parts"
        )
    shares = [Share(number, parts) for number in range(1, parts + 1)]
    lacking = [(share, [n for n in share.shards(number_of_shards) if n in problems]) for share in shares]
    lacking = [(share, numbers) for share, numbers in lacking if numbers]
    listed = ", ".join(f"{share} ({_told(problems, numbers)})" for share, numbers in lacking)
    flags = ", ".join(f"--part={share}" for share, _ in lacking)
    raise BuildError(
        f"--join: {whole}; unfinished: {listed}; the same command with {flags} in the place of --join goes on with that"
    )


def _typed(name: str, values: Mapping[str, str]) -> str:
    """A flag as it is typed."""
    if name not in values:
        return f"no {name}"
    return f"{name}={values[name]}" if values[name] else name


def _told(problems: Mapping[int, str], numbers: Sequence[int]) -> str:
    return f"{len(numbers)} shard{'s' if len(numbers) > 1 else ''}, {problems[numbers[0]]}"


def _write_once(path: Path, content: Any) -> None:
    """Write a file whole, unless another process has: of several that begin at once one is the first."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=integrity.PARTIAL) as file:
        file.write(json.dumps(content, indent=1) + "\n")
        file.flush()
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)

"""A set that is known by name: what the command line, the build and the READMEs need of each."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from data.options import FieldOptions, MaskReading
from data.records.description import Kind
from data.sources.origin import Origin

# What a study takes whose files hold pixels.
FLAGS_OF_PIXELS = frozenset(
    ("channels", "mask", "crop", "overlap", "random_crops", "seed", "objects", "label_mask", "illumination")
)


@dataclasses.dataclass(frozen=True)
class Study:
    """A known set whose fields are found in files.

    Attributes:
        name: as typed, and of its folder here.
        version: of the set; another version when the same files give other metadata.
        kinds: what it can be built as, the usual one first.
        layout: of its files, or "pattern": it takes the flags of any source of that layout. None: its own, `flags`.
        flags: that it takes of those that not every source takes (`data.flags`), with underscores.
        mask: how its images are read as masks unless the user says it.
        origin: finds its fields.
    """

    name: str
    version: str
    kinds: tuple[Kind, ...]
    layout: str | None
    flags: frozenset[str]
    mask: MaskReading
    origin: Callable[[FieldOptions], Origin]


@dataclasses.dataclass(frozen=True)
class Simulation:
    """A known set that is drawn, from no file; it takes no flag but where to, and with how many processes.

    Attributes:
        name: as typed, of the set, and of its folder here.
        version: of the set.
        kinds: what it can be built as.
        build: (folder of built sets, processes) -> the set's folder.
    """

    name: str
    version: str
    kinds: tuple[Kind, ...]
    build: Callable[[Path, int], Path]


def set_name(study: Study | Simulation, kind: Kind) -> str:
    """What its set is called: as images and as shapes they can lie side by side."""
    return study.name if kind == study.kinds[0] else f"{study.name}_{kind}"


def readme(study: Study | Simulation) -> str:
    """The file that says where its images are from and what the command takes."""
    return f"data/studies/{study.name}/README.md"

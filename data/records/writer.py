"""Writing a set: ArrayRecord shards through TFDS, the table of everything but pixels, and exact intensity statistics.

A built set is `<data_dir>/<name>/<version>/` with TFDS's own files (split "images", in the order given),
`metadata.parquet`, `statistics.json`, `build.json`, `image_checksums.npy` (XXH3 of 64 bits of each image's pixels) and
`checksums.json` (of every other file, see `bie_jax.files.integrity`). It appears under that name whole or not at all.
Until then its finished shards lie in `<data_dir>/.building-<name>-<version>/`, where the same command finds them and
goes on.
"""

import contextlib
import csv
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.errors import BadInputError, BuildError
from data.records import workers
from data.records.description import Description, Maker
from data.records.join import join
from data.records.shards import SHARD_FORMAT, Shard, is_done, write_shard

SHARD_BYTES = 16 << 20  # least size of a shard: what a kill can cost each worker
MOST_SHARDS = 500  # of a set; each is an open file of the reader


def write_set(
    description: Description,
    parts: Sequence[Any],
    maker: Maker,
    data_dir: str | Path,
    *,
    num_workers: int = 1,
    examples_per_part: int = 1,
    skip_bad: Path | None = None,
    unreadable: Sequence[tuple[str, str, str]] = (),
    notes: dict[str, Any] | None = None,
    attachments: dict[str, Path] | None = None,
) -> Path:
    """Write a set, or go on with one that was stopped; shows progress. The number of workers changes no byte.

    Args:
        description: of the set.
        parts: picklable, in order.
        maker: makes the examples of a part.
        data_dir: folder of built sets.
        num_workers: processes, started afresh (never forked) when more than 1.
        examples_per_part: about how many, to size the shards.
        skip_bad: csv to list the parts in that cannot be read and are left out, also where a reader dies of one: then
            even a single worker is another process. None: the first one stops the build.
        unreadable: (source, place, problem) of what is left out already, to list with these.
        notes: what else `build.json` shall say.
        attachments: further files to keep with the set, by name.

    Returns:
        The set's folder.

    Raises:
        BuildError: if an image or its metadata are not as described, or a part cannot be read.
    """
    plan = plan_set(description, parts, maker, data_dir, examples_per_part, skip_bad is not None)
    shards = write_all_shards(plan, num_workers)
    return join_set(plan, shards, skip_bad, unreadable, notes or {}, attachments or {})


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which parts lie in which shard: whoever makes the shards, and how many at once, the plan is the same.

    Attributes:
        description: of the set.
        maker: makes the examples of a part.
        data_dir: folder of built sets.
        runs: the parts of each shard.
        skip_bad: whether parts that cannot be read are left out.
    """

    description: Description
    maker: Maker
    data_dir: Path
    runs: Sequence[Sequence[Any]]
    skip_bad: bool

    @property
    def shards(self) -> list[Shard]:
        """All of them."""
        return [self.shard(number) for number in range(len(self.runs))]

    @property
    def building(self) -> Path:
        """Where the shards of the unfinished set lie."""
        return building_folder(self.description.name, self.description.version, self.data_dir)

    def shard(self, number: int) -> Shard:
        """One shard; asks for the identity of its parts, and so for the state of their files."""
        digest = hashlib.sha256(f"{SHARD_FORMAT}|{self.description}{self.maker}".encode())
        for part in self.runs[number]:
            # A part that is not there has no identity; the worker meets it again, and says so or lists it.
            with contextlib.suppress(BadInputError):
                digest.update(self.maker.identity(part).encode())
        parts = list(self.runs[number])
        return Shard(number, self.building, self.description, self.maker, parts, digest.hexdigest(), self.skip_bad)


def plan_set(
    description: Description,
    parts: Sequence[Any],
    maker: Maker,
    data_dir: str | Path,
    examples_per_part: int,
    skip_bad: bool,
) -> Plan:
    """Share parts out among shards: arguments as of `write_set`; raises BuildError if there are none."""
    if not parts:
        raise BuildError(f"there is nothing to write into {description.name!r}")
    part_bytes = int(np.prod(description.image_shape)) * np.dtype(description.dtype).itemsize * examples_per_part
    size = max(1, SHARD_BYTES // part_bytes, -(-len(parts) // MOST_SHARDS))
    runs = [parts[start : start + size] for start in range(0, len(parts), size)]
    return Plan(description, maker, Path(data_dir), runs, skip_bad)


def write_all_shards(plan: Plan, num_workers: int) -> list[Shard]:
    """`write_shards` of a whole set, by a process that is alone with it; leaves nothing where none was finished."""
    try:
        return write_shards(plan, range(len(plan.runs)), num_workers)
    finally:
        # Nothing finished is nothing to go on with.
        if not any(plan.building.glob("shard-*")):
            shutil.rmtree(plan.building)


def write_shards(plan: Plan, numbers: Sequence[int], num_workers: int) -> list[Shard]:
    """Make some shards of a plan, or go on with them; shows progress.

    Args:
        plan: of the set.
        numbers: of the shards.
        num_workers: processes, as in `write_set`.

    Returns:
        The shards, finished.

    Raises:
        BuildError: as `write_set`.
    """
    shards = [plan.shard(number) for number in numbers]
    plan.building.mkdir(parents=True, exist_ok=True)
    todo = [shard for shard in shards if not is_done(shard)]
    total = sum(len(shard.parts) for shard in shards)
    done = total - sum(len(shard.parts) for shard in todo)
    if done:
        print(f"going on: {done} of {total} pieces are written already")
    name = plan.description.name
    with tqdm(total=total, initial=done, desc=f"build {name}", unit="piece", mininterval=0.5) as bar:
        workers.run(write_shard, todo, num_workers, progress=bar.update, isolated=plan.skip_bad)
    return shards


def join_set(
    plan: Plan,
    shards: Sequence[Shard],
    skip_bad: Path | None,
    unreadable: Sequence[tuple[str, str, str]],
    notes: dict[str, Any],
    attachments: dict[str, Path],
) -> Path:
    """Finished shards -> the set.

    Args:
        plan: of the set.
        shards: all of them, finished, in order.
        skip_bad: as in `write_set`, and so are the others.
        unreadable: listed before what the shards left out.
        notes: for `build.json`.
        attachments: by name.

    Returns:
        The set's folder.

    Raises:
        BuildError: if something was left out and there is no `skip_bad` to list it in, or nothing else is there.
    """
    skipped = [list(row) for row in unreadable]
    skipped += [row for shard in shards for row in json.loads((shard.folder / "skipped.json").read_text())]
    without = [part for shard in shards for part in json.loads((shard.folder / "without.json").read_text())]
    if skipped and skip_bad is None:
        raise BuildError(
            f"{len(skipped)} fields were left out when their shards were made, the first {skipped[0][0]}: "
            f"{skipped[0][2]}; --skip-bad=FILE.csv lists them"
        )
    if skip_bad is not None:
        with open(skip_bad, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["source", "place", "problem"])
            writer.writerows(skipped)
    final = plan.data_dir / plan.description.name / plan.description.version
    join(
        plan.description,
        shards,
        plan.building,
        final,
        notes | {"skipped": skipped, "without an example": without},
        attachments,
    )
    shutil.rmtree(plan.building)
    return final


def building_folder(name: str, version: str, data_dir: Path) -> Path:
    """Where the parts of an unfinished set lie."""
    return data_dir / f".building-{name}-{version}"

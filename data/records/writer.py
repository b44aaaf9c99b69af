"""Writing a set: ArrayRecord shards through TFDS, the table of everything but pixels, and exact intensity statistics.

A built set is `<data_dir>/<name>/<version>/` with TFDS's own files (split "images", in the order given),
`metadata.parquet`, `statistics.json`, `build.json`, `image_checksums.npy` (XXH3 of 64 bits of each image's pixels) and
`checksums.json` (of every other file, see `bie_jax.files.integrity`). It appears under that name whole or not at all.
Until then its finished shards lie in `<data_dir>/.building-<name>-<version>/`, where the same command finds them and
goes on.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xxhash
from tqdm import tqdm

from bie_jax.files import integrity
from bie_jax.files.parquet import read_parquet
from data.errors import BadInputError, BuildError
from data.records import workers
from data.records.description import Description, Maker
from data.records.shards import SHARD_FORMAT, Shard, is_done, write_shard
from data.records.statistics import Intensities
from data.records.tfds_files import builder_of

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
    data_dir = Path(data_dir)
    final = data_dir / description.name / description.version
    building = building_folder(description.name, description.version, data_dir)
    shards = _plan(description, parts, maker, building, examples_per_part, skip_bad is not None)
    building.mkdir(parents=True, exist_ok=True)
    todo = [shard for shard in shards if not is_done(shard)]
    done = len(parts) - sum(len(shard.parts) for shard in todo)
    if done:
        print(f"going on: {done} of {len(parts)} parts are written already")
    bar = tqdm(total=len(parts), initial=done, desc=f"build {description.name}", unit="part", mininterval=0.5)
    try:
        with bar:
            workers.run(write_shard, todo, num_workers, progress=bar.update, isolated=skip_bad is not None)
    finally:
        # Nothing finished is nothing to go on with.
        if not any(building.glob("shard-*")):
            shutil.rmtree(building)
    skipped = [list(row) for row in unreadable]
    skipped += [row for shard in shards for row in json.loads((shard.folder / "skipped.json").read_text())]
    without = [part for shard in shards for part in json.loads((shard.folder / "without.json").read_text())]
    if skip_bad is not None:
        with open(skip_bad, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["source", "place", "problem"])
            writer.writerows(skipped)
    _assemble(
        description,
        shards,
        building,
        final,
        (notes or {}) | {"skipped": skipped, "without an example": without},
        attachments or {},
    )
    shutil.rmtree(building)
    return final


def _plan(
    description: Description,
    parts: Sequence[Any],
    maker: Maker,
    building: Path,
    examples_per_part: int,
    skip_bad: bool,
) -> list[Shard]:
    if not parts:
        raise BuildError(f"there is nothing to write into {description.name!r}")
    part_bytes = int(np.prod(description.image_shape)) * np.dtype(description.dtype).itemsize * examples_per_part
    size = max(1, SHARD_BYTES // part_bytes, -(-len(parts) // MOST_SHARDS))
    shards = []
    for number, start in enumerate(range(0, len(parts), size)):
        chosen = list(parts[start : start + size])
        digest = hashlib.sha256(f"{SHARD_FORMAT}|{description}{maker}".encode())
        for part in chosen:
            # A part that is not there has no identity; the worker meets it again, and says so or lists it.
            with contextlib.suppress(BadInputError):
                digest.update(maker.identity(part).encode())
        shards.append(Shard(number, building, description, maker, chosen, digest.hexdigest(), skip_bad))
    return shards


def _assemble(
    description: Description,
    shards: list[Shard],
    building: Path,
    final: Path,
    notes: dict[str, Any],
    attachments: dict[str, Path],
) -> None:
    """Bring finished shards under their final names. Links, so that a kill here loses nothing."""
    tables = [read_parquet(shard.folder / "metadata.parquet") for shard in shards]
    filled = [(shard, table) for shard, table in zip(shards, tables, strict=True) if len(table)]
    if not filled:
        raise BuildError(f"no part of {description.name!r} could be read; {len(notes['skipped'])} were left out")
    joined = building / ".joined"
    shutil.rmtree(joined, ignore_errors=True)
    builder = builder_of(description, [(shard.folder / "records", len(table)) for shard, table in filled], joined)
    # TFDS announces a download that there is not, to a folder that will not stay.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    written = Path(builder.data_path)
    metadata = pd.concat([table for _, table in filled], ignore_index=True)
    metadata.to_parquet(written / "metadata.parquet", index=False)
    checksums = np.concatenate([np.load(shard.folder / "image_checksums.npy") for shard in shards])
    np.save(written / "image_checksums.npy", checksums)
    statistics = _merge_statistics(description, shards) | {
        "fingerprint": _fingerprint(description, metadata, checksums)
    }
    (written / "statistics.json").write_text(json.dumps(statistics, indent=1) + "\n")
    (written / "build.json").write_text(json.dumps(notes, indent=1) + "\n")
    for name, path in attachments.items():
        shutil.copyfile(path, written / name)
    integrity.seal(written)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(written, final)


def _fingerprint(description: Description, metadata: pd.DataFrame, checksums: np.ndarray) -> str:
    """Of what a run is made from: pixels, their order and all that is said of them, but not where they were read."""
    hasher = xxhash.xxh3_128(checksums.tobytes())
    facts = (description.kind, description.channel_names, description.image_shape, description.dtype)
    hasher.update(repr((*facts, description.pixel_size_um)).encode())
    for name in sorted(set(metadata.columns) - {"source"}):
        hasher.update(repr((name, metadata[name].tolist())).encode())
    return hasher.hexdigest()


def building_folder(name: str, version: str, data_dir: Path) -> Path:
    """Where the parts of an unfinished set lie."""
    return data_dir / f".building-{name}-{version}"


def _merge_statistics(description: Description, shards: list[Shard]) -> dict[str, Any]:
    """Content of `statistics.json`; holds one plate's histograms at a time, beside the overall ones."""
    channels = len(description.channel_names)
    by_plate: dict[str, list[Path]] = {}
    for shard in shards:
        for path in sorted(shard.folder.glob("statistics-*.npz")):
            with np.load(path, allow_pickle=False) as file:
                by_plate.setdefault(str(file["plate"]), []).append(path)
    overall = Intensities.empty(channels, description.dtype)
    plates = {}
    for plate, paths in sorted(by_plate.items()):
        intensities = Intensities.empty(channels, description.dtype)
        for path in paths:
            with np.load(path, allow_pickle=False) as file:
                part = Intensities.empty(channels, description.dtype)
                part.histogram[file["channel"], file["value"]] = file["count"]
                part.moments, part.extremes = file["moments"], file["extremes"]
            intensities.merge(part)
        plates[plate] = intensities.summary()
        overall.merge(intensities)
    summary = overall.summary()
    pixels = int(np.prod(description.image_shape[:2]))
    return {
        "kind": description.kind,
        "channel_names": list(description.channel_names),
        "pixel_size_um": description.pixel_size_um,
        # Bits that the largest value needs: cameras of 12 and 14 bits write files of 16.
        "bit_depth": 32 if description.dtype == "float32" else max(int(max(summary["max"])).bit_length(), 1),
        "image_shape": list(description.image_shape),
        "dtype": description.dtype,
        "num_examples": summary["count"] // pixels,
        "description": description.text,
        "simulated": description.simulated,
        "overall": summary,
        "plates": plates,
    }

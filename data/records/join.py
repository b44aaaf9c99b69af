"""Finished shards become a set: their files under its names, their tables and statistics as one.

No pixel is read. The files of records are linked, and their checksums are those that were taken when they were written:
a set of any size is joined in the time that its tables take.
"""

import contextlib
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

from bie_jax.files import integrity
from bie_jax.files.parquet import read_parquet
from bie_jax.input.statistics import Intensities
from data.errors import BuildError
from data.records.description import Description
from data.records.shards import Shard
from data.records.tfds_files import builder_of, record_files


def join(
    description: Description,
    shards: Sequence[Shard],
    building: Path,
    final: Path,
    notes: dict[str, Any],
    attachments: dict[str, Path],
) -> None:
    """Bring finished shards under their final names. Links, so that a kill here loses nothing.

    Args:
        description: of the set.
        shards: all of them, in order.
        building: folder that they lie in.
        final: the set's folder, which appears whole or not at all.
        notes: content of `build.json`; `skipped` lists what was left out.
        attachments: further files to keep with the set, by name.

    Raises:
        BuildError: if no shard holds an example.
    """
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
    links = zip(record_files(written), (shard.folder / "records" for shard, _ in filled), strict=True)
    integrity.seal(written, {file.name: records for file, records in links})
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


def _merge_statistics(description: Description, shards: Sequence[Shard]) -> dict[str, Any]:
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

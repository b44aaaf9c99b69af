"""A set is written shard by shard: some parts, one file of records, and what is known of them beside it."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xxhash
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from bie_jax.files import integrity
from bie_jax.input.statistics import Intensities
from data.errors import BadInputError, BuildError
from data.records import workers
from data.records.description import Description, Maker
from data.records.tfds_files import encoder

SHARD_FORMAT = 2  # of what lies in a finished shard's folder


@dataclasses.dataclass(frozen=True)
class Shard:
    """One unit of work: some parts, one file."""

    number: int
    directory: Path
    description: Description
    maker: Maker
    parts: list[Any]
    fingerprint: str
    skip_bad: bool
    left_out: dict[int, tuple[str, str, str]] = dataclasses.field(default_factory=dict)  # as `BadInputError` has it

    @property
    def folder(self) -> Path:
        """Where it lies when it is whole."""
        return self.directory / f"shard-{self.number:05d}"

    @property
    def note(self) -> Path:
        """What its process is at."""
        return self.directory / f".reading-{self.number:05d}"

    def without(self, number: int, source: str, problem: str) -> "Shard":
        """The same without a part of which a reader dies; raises BuildError if nothing may be left out."""
        place = str(self.parts[number])
        if not self.skip_bad:
            raise BuildError(f"{source or place}: {problem} ({place}); --skip-bad=FILE.csv leaves it out")
        return dataclasses.replace(self, left_out=self.left_out | {number: (source or place, place, problem)})


def is_done(shard: Shard) -> bool:
    """Whether a finished shard of the same parts is there; one of other parts is removed."""
    folder = shard.folder
    if folder.is_dir():
        # One that a disk has damaged since is made again as well.
        if integrity.damage(folder) is None and (folder / "fingerprint").read_text() == shard.fingerprint:
            return True
        shutil.rmtree(folder)
    return False


def unfinished(shard: Shard) -> str | None:
    """Why a shard is none to join; None if it is whole.

    Of its records only the size is compared: they were hashed when they were written, the set keeps that hash, and
    whoever reads an image holds it against its own.
    """
    if not shard.folder.is_dir():
        return "not there"
    damage = integrity.damage(shard.folder, wanted=lambda name: name != "records")
    if damage is None and (shard.folder / "fingerprint").read_text() != shard.fingerprint:
        return "made from other files or options than there are now"
    return None if damage is None else f"damaged: {damage}"


def write_shard(shard: Shard, tick: workers.Tick) -> None:
    """Records, table, histograms and the list of what was left out, in a folder that is renamed when it is whole."""
    if is_done(shard):  # by a process that was ended before it could say so
        for _ in shard.parts:
            tick()
        return
    description = shard.description
    partial = shard.directory / f".partial-{shard.number:05d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    encode = encoder(description)
    # One record a group: the reader fetches single images. Uncompressed: camera noise hardly shrinks, and reading
    # would wait for it (`experiments/loading`).
    writer = array_record_module.ArrayRecordWriter(str(partial / "records"), "group_size:1,uncompressed")
    rows: list[dict[str, Any]] = []
    checksums: list[int] = []
    skipped: list[tuple[str, str, str]] = []
    without: list[str] = []  # parts that are read and give no example, as a field without cells
    statistics: dict[str, Intensities] = {}
    for number, part in enumerate(shard.parts):
        if number in shard.left_out:
            skipped.append(shard.left_out[number])
            tick()
            continue
        try:
            with workers.noted(shard.note, number):
                examples = list(shard.maker.examples(part))
            for image, metadata in examples:
                _check(description, image, metadata)
            without += [] if examples else [str(part)]
        except BadInputError as error:
            if not shard.skip_bad:
                writer.close()
                raise
            skipped.append((error.source, error.place, error.problem))
            examples = []
        for image, metadata in examples:
            plate = statistics.setdefault(
                metadata["plate"], Intensities.empty(len(description.channel_names), description.dtype)
            )
            plate.add(image)
            with _no_room():
                writer.write(encode(image, metadata))
            rows.append(metadata)
            checksums.append(xxhash.xxh3_64_intdigest(np.ascontiguousarray(image).data))
        tick()
    with _no_room():
        writer.close()
    pd.DataFrame(rows, columns=pd.Index(description.columns)).astype(description.columns).to_parquet(
        partial / "metadata.parquet", index=False
    )
    for number, (plate, intensities) in enumerate(statistics.items()):
        channel, value = intensities.histogram.nonzero()
        np.savez(
            partial / f"statistics-{number:05d}.npz",
            plate=plate,
            channel=channel.astype(np.int32),
            value=value.astype(np.uint16),
            count=intensities.histogram[channel, value],
            moments=intensities.moments,
            extremes=intensities.extremes,
        )
    np.save(partial / "image_checksums.npy", np.asarray(checksums, np.uint64))
    (partial / "skipped.json").write_text(json.dumps(skipped))
    (partial / "without.json").write_text(json.dumps(without))
    (partial / "fingerprint").write_text(shard.fingerprint)
    integrity.seal(partial)
    os.replace(partial, shard.folder)


@contextlib.contextmanager
def _no_room() -> Iterator[None]:
    """The record writer's only reason to fail is the disk; it says so in a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise BuildError(f"cannot write ({error}); make room, and the same command goes on") from None


def _check(description: Description, image: np.ndarray, metadata: dict[str, Any]) -> None:
    expected = (description.image_shape, description.dtype)
    if (image.shape, str(image.dtype)) != expected:
        raise BadInputError(
            metadata["source"],
            f"plate {metadata['plate']}, well {metadata['well']}, site {metadata['site']}",
            f"the image is {image.shape} {image.dtype}, the set's are {expected[0]} {expected[1]}",
        )
    if metadata.keys() != description.columns.keys():
        raise BuildError(f"{metadata.get('source')}: columns are {list(metadata)}, not {list(description.columns)}")

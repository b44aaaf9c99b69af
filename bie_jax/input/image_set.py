"""Reading a built set: pixels, or outlines, by row number, and everything else as a table that needs no pixel."""

import dataclasses
import functools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xxhash
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from bie_jax.files import integrity
from bie_jax.files.parquet import read_parquet
from bie_jax.input.known_sets import how_to_build
from bie_jax.input.statistics import of_channels

_REMEDY = "copy the set again, or remove its folder and build it again"
_VERSION = re.compile(r"\d+(\.\d+)*")
_SHARDS = "*-images.array_record-*-of-*"
_IMAGE_KEY = b"\x0a\x05image\x12"  # of a map entry, and the tag of its value


class SetNotBuiltError(FileNotFoundError):
    """There is no such set, or only an outdated one; the message says where, and which command builds it."""


class DamagedSetError(OSError):
    """Files of a built set are not whole."""


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A built set of images of one shape, or of outlines of one number of points.

    Random access, opened when first read: it can be handed to threads and, unopened or not, to spawned processes.

    Attributes:
        name: of the set.
        directory: where it lies.
        kind: "images", or "shapes": outlines, points by (row, column) in px.
        metadata: one row per image, in the order of the records: `plate`, `well`, `site`, `label`, `source` and more.
        channel_names: C names.
        pixel_size_um: micrometers per pixel; None where the source does not say.
        bit_depth: bits that carry information.
        image_shape: (H, W, C); of outlines (P, 2, 1).
        dtype: of the pixels.
        statistics: `overall` and `plates`, exact intensity statistics per channel.
        checksums: [N] uint64, XXH3 of each image's pixels; None in a set of an earlier version.
        fingerprint: of all pixels, their order and the metadata; "" in a set of an earlier version.
        simulated: whether no microscope was involved.
        description: a sentence on what this is.
        stored_rows: [N] which of the stored images these are; None: all of them.
        chosen: (C of the stored images, which of them these are); None: all, as they are stored.
    """

    name: str
    directory: Path
    kind: Literal["images", "shapes"]
    metadata: pd.DataFrame
    channel_names: tuple[str, ...]
    pixel_size_um: float | None
    bit_depth: int
    image_shape: tuple[int, int, int]
    dtype: str
    statistics: dict[str, Any]
    checksums: np.ndarray | None
    fingerprint: str
    simulated: bool
    description: str
    stored_rows: np.ndarray | None = None
    chosen: tuple[int, tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self.metadata)

    def __getitem__(self, row: int) -> np.ndarray:
        """Image [H, W, C] in the set's dtype, read-only or not as it comes.

        Raises:
            IndexError: if the row is not in 0 .. len - 1.
        """
        # Copied only where the pixels happen to start at an odd byte, which not every library bears.
        return np.require(self._pixels(row), requirements="A")

    def images(self, rows: Any) -> np.ndarray:
        """Images [n, H, W, C] of some rows, in their order: each is copied once, to its place."""
        images = np.empty((len(rows), *self.image_shape), self.dtype)
        for number, row in enumerate(rows):
            images[number] = self._pixels(int(row))
        return images

    def part(self, rows: np.ndarray) -> "ImageSet":
        """Some of the images, as a set of their own: its statistics and its fingerprint are still those of all."""
        stored = rows if self.stored_rows is None else self.stored_rows[rows]
        return dataclasses.replace(self, metadata=self.metadata.iloc[rows].reset_index(drop=True), stored_rows=stored)

    def _pixels(self, row: int) -> np.ndarray:
        if not 0 <= row < len(self.metadata):
            raise IndexError(f"row {row} of the set {self.name!r}, which has {len(self.metadata)}")
        source = self.metadata["source"].iloc[row]
        if self.stored_rows is not None:
            row = int(self.stored_rows[row])
        shard = int(np.searchsorted(self._ends, row, side="right"))
        try:
            record = self._readers[shard].read([row - (int(self._ends[shard - 1]) if shard else 0)])[0]
        except (ValueError, RuntimeError, IndexError) as error:  # what its own checksums say
            raise DamagedSetError(f"{self.directory}: image {row} cannot be read ({error}); {_REMEDY}") from None
        if not record:
            raise DamagedSetError(f"{self.directory}: image {row} is not there; {_REMEDY}")
        try:
            start, size = find_image(record)
            pixels = memoryview(record)[start : start + size]
            flat = np.frombuffer(pixels, self.dtype)
            whole = self.checksums is None or xxhash.xxh3_64_intdigest(pixels) == self.checksums[row]
            if self.chosen is None:
                image = flat.reshape(self.image_shape)
            else:
                stored, columns = self.chosen
                image = flat.reshape((*self.image_shape[:2], stored))[..., columns]
        except (ValueError, IndexError):
            whole = False
        if not whole:
            raise DamagedSetError(f"{self.directory}: image {row}, from {source}, is not what was written; {_REMEDY}")
        return image

    def with_channels(self, names: Mapping[str, str]) -> "ImageSet":
        """The same images with some of their channels, under other names.

        Args:
            names: as they are called here -> as they shall be, in that order; of a set as it was opened.
        """
        columns = tuple(self.channel_names.index(name) for name in names)
        plates = {plate: of_channels(summary, columns) for plate, summary in self.statistics["plates"].items()}
        return dataclasses.replace(
            self,
            channel_names=tuple(names.values()),
            image_shape=(*self.image_shape[:2], len(columns)),
            statistics={"overall": of_channels(self.statistics["overall"], columns), "plates": plates},
            chosen=(self.image_shape[2], columns),
        )

    @property
    def intensities(self) -> dict[str, Any]:
        """What `views.intensities.intensity_table` reads: `name`, `channel_names`, `overall`, `plates`."""
        return {"name": self.name, "channel_names": self.channel_names, **self.statistics}

    @functools.cached_property
    def _readers(self) -> list[Any]:
        # One reader for each shard serves all threads. No read-ahead: it costs, and gains nothing at random places.
        try:
            return [
                array_record_module.ArrayRecordReader(
                    str(shard), options="readahead_buffer_size:0", file_reader_buffer_size=4096
                )
                for shard in sorted(self.directory.glob(_SHARDS))
            ]
        except (ValueError, RuntimeError) as error:
            raise DamagedSetError(f"{self.directory}: its shards cannot be read ({error}); {_REMEDY}") from None

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """Row behind the last one of each shard."""
        ends = np.cumsum([reader.num_records() for reader in self._readers])
        # Of a file that was cut off the reader knows the rest only, without a word.
        held = int(ends[-1]) if len(ends) else 0
        if held != len(self.metadata) and self.stored_rows is None:
            raise DamagedSetError(
                f"{self.directory}: its shards hold {held} of {len(self.metadata)} images; a file was cut off or is "
                f"missing; {_REMEDY}"
            )
        return ends

    def __getstate__(self) -> dict[str, Any]:
        # An open file must not travel to another process; it is opened again there.
        return {key: value for key, value in self.__dict__.items() if key != "_readers"}


def find_image(record: bytes) -> tuple[int, int]:
    """Where the pixels stand in a record that TFDS wrote.

    TFDS's own data source decodes every column of a record, and what is not pixels is in `metadata` already. A record
    is a tf.train.Example, in protocol buffers' wire format: field 1 of every message here, so

        0A size | 0A size 0A size "name" 12 size  0A size 0A size PIXELS | 0A size 0A size "name" ...
        Example | map entry, its key     Feature  BytesList   value      | map entry, ...

    Returns:
        Offset and size in bytes.

    Raises:
        ValueError: if there is no feature "image" of bytes.
    """
    _, position = _size(record, 0)
    while position < len(record):
        size, start = _size(record, position)
        if record.startswith(_IMAGE_KEY, start):
            position = start + len(_IMAGE_KEY) - 1
            size, position = _size(record, position, tag=0x12)  # Feature
            size, position = _size(record, position)  # BytesList
            size, position = _size(record, position)  # value
            return position, size
        position = start + size
    raise ValueError("a record without an image: not written by data/records/writer.py")


def _size(record: bytes, position: int, tag: int = 0x0A) -> tuple[int, int]:
    """The size that follows a tag, a little-endian base-128 number, and the position behind it."""
    if record[position] != tag:
        raise ValueError(f"byte {position} of a record is {record[position]:#x}, expected the tag {tag:#x}")
    size, shift = 0, 0
    while True:
        position += 1
        byte = record[position]
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size, position + 1
        shift += 7


def open_image_set(name: str, data_dir: str | Path) -> ImageSet:
    """The newest version of a built set.

    Args:
        name: of the set.
        data_dir: folder of built sets.

    Raises:
        SetNotBuiltError: if there is none, or it is of a builder that did not say what is in it.
    """
    if "://" in str(data_dir):
        raise SetNotBuiltError(
            f"config.data.data_dir={data_dir}: sets are read from folders, not from addresses; mount the bucket "
            "(mount-s3, gcsfuse) or copy the set to a disk, and give that folder"
        )
    folder = Path(data_dir) / name
    how = how_to_build(name)
    versions, others = _version_folders(folder)
    for path in others:  # a copy that was put aside
        print(f"{path} is no version of a set, such as 1.0.0, and is not read: move it elsewhere", file=sys.stderr)
    if not versions:
        built = sorted(path.name for path in Path(data_dir).glob("*") if _version_folders(path)[0])
        have = f"there are {', '.join(built)}" if built else "there are no built sets"
        raise SetNotBuiltError(
            f"the set {name!r} is not built in {Path(data_dir).absolute()} ({have}). This builds it: {how.command} "
            f"It needs {how.needs}."
        )
    directory = max(versions, key=lambda path: tuple(int(part) for part in path.name.split(".")))
    wrong = damage_of_set(directory)
    if wrong is not None:
        raise DamagedSetError(f"{directory} is damaged: {wrong}; {_REMEDY}")
    described = integrity.parse_json(directory / "statistics.json", _REMEDY)
    if "kind" not in described:
        raise SetNotBuiltError(
            f"{directory}: was built by an earlier version, which did not say whether it holds images or shapes. This "
            f"builds it anew: {how.command} It needs {how.needs}."
        )
    return ImageSet(
        name=name,
        directory=directory,
        kind=described["kind"],
        metadata=_read_metadata(directory / "metadata.parquet"),
        channel_names=tuple(described["channel_names"]),
        pixel_size_um=described["pixel_size_um"],
        bit_depth=described["bit_depth"],
        image_shape=tuple(described["image_shape"]),
        dtype=described["dtype"],
        statistics={"overall": described["overall"], "plates": described["plates"]},
        checksums=np.load(directory / "image_checksums.npy") if "fingerprint" in described else None,
        fingerprint=described.get("fingerprint", ""),
        simulated=described["simulated"],
        description=described["description"],
    )


def _version_folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders in that of a set: those that are called like a version, and others."""
    folders = sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
    versions = [path for path in folders if _VERSION.fullmatch(path.name) and any(path.iterdir())]
    return versions, [path for path in folders if not _VERSION.fullmatch(path.name)]


def damage_of_set(directory: Path) -> str | None:
    """What is wrong with a set, as far as it can be seen without reading images: those are verified one by one."""
    if not (directory / integrity.CHECKSUMS).exists():
        if (directory / "image_checksums.npy").exists():
            return f"{integrity.CHECKSUMS} is missing"
        integrity.say_unverified(directory)
        return None if (directory / "statistics.json").exists() else "statistics.json is missing"
    return integrity.damage(directory, wanted=lambda name: ".array_record" not in name)


def _read_metadata(path: Path) -> pd.DataFrame:
    try:
        return read_parquet(path)
    except (OSError, ValueError) as error:
        raise DamagedSetError(f"{path} cannot be read ({str(error).splitlines()[0]}); {_REMEDY}") from None

"""Reading a built set: pixels, or outlines, by row number, and everything else as a table that needs no pixel."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from bie_jax.parquet import read_parquet

_SHARDS = "*-images.array_record-*-of-*"
_IMAGE_KEY = b"\x0a\x05image\x12"  # of a map entry, and the tag of its value

# What a person types to get a known set, and what it takes.
_HOW_TO_BUILD = {
    "simulated": ("python -m data.build simulated", "half a minute, nothing else"),
    "bbbc021": (
        "python -m data.build bbbc021 --source=FOLDER",
        "a folder with bbbc021_subset.npz and wells.csv (data/bbbc021/README.md)",
    ),
    "mnist_shapes": (
        "python -m data.build mnist --kind=shapes",
        "the network for 11.6 MB, or --source=FOLDER with them (data/mnist/README.md)",
    ),
    "osteosarcoma": (
        "python -m data.build osteosarcoma --kind=shapes --source=FOLDER",
        "a folder with cells.txt, cell_lines.txt and treatments.txt (data/osteosarcoma/README.md)",
    ),
    "idr0093": (
        "python -m data.build idr0093 --source=FOLDER --annotation=idr0093-screenA-annotation.csv.gz",
        "the study's images (1.62 TB in all; a part of the plates will do) and IDR's annotation table "
        "(data/idr0093/README.md says how each is had)",
    ),
}


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
        pixel_size_um: micrometres per pixel; None where the source does not say.
        bit_depth: bits that carry information.
        image_shape: (H, W, C); of outlines (P, 2, 1).
        dtype: of the pixels.
        statistics: `overall` and `plates`, exact intensity statistics per channel.
        simulated: whether no microscope was involved.
        description: a sentence on what this is.
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
    simulated: bool
    description: str

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

    def _pixels(self, row: int) -> np.ndarray:
        if not 0 <= row < len(self.metadata):
            raise IndexError(f"row {row} of the set {self.name!r}, which has {len(self.metadata)}")
        shard = int(np.searchsorted(self._ends, row, side="right"))
        record = self._readers[shard].read([row - (int(self._ends[shard - 1]) if shard else 0)])[0]
        if not record:
            raise DamagedSetError(
                f"{self.directory}: image {row} is not there; a file was cut off, copy or build the set again"
            )
        start, size = find_image(record)
        flat = np.frombuffer(record, self.dtype, size // np.dtype(self.dtype).itemsize, start)
        return flat.reshape(self.image_shape)

    @property
    def intensities(self) -> dict[str, Any]:
        """What `augment.intensity_table` reads: `name`, `channel_names`, `overall`, `plates`."""
        return {"name": self.name, "channel_names": self.channel_names, **self.statistics}

    @functools.cached_property
    def _readers(self) -> list[Any]:
        # One reader for each shard serves all threads. No read-ahead: it costs, and gains nothing at random places.
        return [
            array_record_module.ArrayRecordReader(
                str(shard), options="readahead_buffer_size:0", file_reader_buffer_size=4096
            )
            for shard in sorted(self.directory.glob(_SHARDS))
        ]

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """Row behind the last one of each shard."""
        ends = np.cumsum([reader.num_records() for reader in self._readers])
        # Of a file that was cut off the reader knows the rest only, without a word.
        if ends[-1] != len(self.metadata):
            raise DamagedSetError(
                f"{self.directory}: its shards hold {ends[-1]} of {len(self.metadata)} images; a file was cut off, "
                "copy or build the set again"
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
    raise ValueError("a record without an image: not written by data/records.py")


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
    folder = Path(data_dir) / name
    command, needs = _HOW_TO_BUILD.get(
        name, (f"python -m data.build {name} --source=IMAGES", "images of any common kind (data/README.md)")
    )
    versions = [path.parent for path in folder.glob("*/statistics.json")]
    if not versions:
        built = sorted({path.parent.parent.name for path in Path(data_dir).glob("*/*/statistics.json")})
        have = f"there are {', '.join(built)}" if built else "there are no built sets"
        raise SetNotBuiltError(
            f"the set {name!r} is not built in {Path(data_dir).absolute()} ({have}). This builds it: {command} "
            f"It needs {needs}."
        )
    directory = max(versions, key=lambda path: tuple(int(part) for part in path.name.split(".")))
    described = json.loads((directory / "statistics.json").read_text())
    if "kind" not in described:
        raise SetNotBuiltError(
            f"{directory}: was built by an earlier version, which did not say whether it holds images or shapes. This "
            f"builds it anew: {command} It needs {needs}."
        )
    return ImageSet(
        name=name,
        directory=directory,
        kind=described["kind"],
        metadata=read_parquet(directory / "metadata.parquet"),
        channel_names=tuple(described["channel_names"]),
        pixel_size_um=described["pixel_size_um"],
        bit_depth=described["bit_depth"],
        image_shape=tuple(described["image_shape"]),
        dtype=described["dtype"],
        statistics={"overall": described["overall"], "plates": described["plates"]},
        simulated=described["simulated"],
        description=described["description"],
    )

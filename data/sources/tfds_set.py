"""Sets that TFDS has written in its ArrayRecord format, read without TensorFlow."""

import bisect
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tensorflow_datasets as tfds

from data.annotation import column_name
from data.errors import BadInputError, BuildError
from data.fields.index import Index
from data.fields.window import Window, cut
from data.limits import reading, regular
from data.sources.entries import Entry, Value, make_index

# Any: TFDS declares its features' attributes as less than they are.
_Picture: Any = tfds.features.Image
_Tensor: Any = tfds.features.Tensor

_OURS = ("source", "split", "z", "t")  # columns that a set made of this one has itself


@dataclasses.dataclass(frozen=True)
class TfdsPlane:
    """One channel of one record.

    Attributes:
        path: of the set, where `dataset_info.json` is.
        split: its name.
        number: of the record in the split.
        channel: index into the image's last axis.
    """

    path: Path
    split: str
    number: int
    channel: int

    @property
    def source(self) -> str:
        """Set, split and record."""
        return f"{self.path}:{self.split}[{self.number}]"

    def identity(self) -> str:
        """Set, split, record, channel, size and time of last change of the file that describes the set."""
        status = regular(self.path / "dataset_info.json")
        return f"{self.source}|{self.channel}|{status.st_size}|{status.st_mtime_ns}"

    def files(self) -> tuple[Path, ...]:
        """The shard that the record is in."""
        ends, files = _shards(self.path, self.split)
        return (files[bisect.bisect_right(ends, self.number)],)

    def read(self, window: Window | None = None) -> np.ndarray:
        """As `Plane`; the whole record is read."""
        image = _image(self.path, self.split, self.number)
        if self.channel >= image.shape[2]:
            raise BadInputError(self.source, "", f"the image is {image.shape}: it has no channel {self.channel}")
        return cut(image[..., self.channel], window, self.source)


@functools.lru_cache(maxsize=1)  # the channels of a record are read one after the other
def _image(path: Path, split: str, number: int) -> np.ndarray:
    """[H, W, C] in the dtype it is stored in."""
    feature = _builder(path).info.features["image"]
    source = f"{path}:{split}[{number}]"
    # Of a truncated file ArrayRecord gives empty records, without a word; TFDS then meets None.
    with reading(source, sum(file.stat().st_size for file in _shards(path, split)[1])):
        image = _records(path, split)[number]["image"]
    if isinstance(feature, _Picture):
        with reading(source, len(image)):
            image = _decode(image, np.dtype(feature.np_dtype))
    return image if image.ndim == 3 else image[..., None]


def _decode(content: bytes, dtype: np.dtype) -> np.ndarray:
    """PNG or JPEG. Not by TFDS: without OpenCV it refuses 16 bits. It keeps float32 as a picture of four bytes."""
    decode = imagecodecs.jpeg8_decode if content[:3] == b"\xff\xd8\xff" else imagecodecs.png_decode
    image = decode(content)
    return image.view(np.float32) if dtype == np.float32 else image


@functools.lru_cache(maxsize=1)
def _builder(path: Path) -> Any:
    """The set, opened once in a process."""
    problem = "no TFDS set, a folder with dataset_info.json and features.json"
    if not all((path / name).is_file() for name in ("dataset_info.json", "features.json")):
        raise BuildError(f"{path}: {problem}")
    with reading(path, (path / "features.json").stat().st_size, problem):
        # TFDS imports whatever module is named there.
        for name in _class_names(json.loads((path / "features.json").read_text())):
            if not name.startswith("tensorflow_datasets."):
                raise BuildError(f"{path}: features.json names {name}; only TFDS's own features are read")
        return tfds.builder_from_directory(str(path))


def _class_names(part: Any) -> Iterator[str]:
    """Every class that a part of `features.json` names; old sets have JSON within JSON."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("pythonClassName", "type") and isinstance(value, str):
                yield value
            elif key == "content" and isinstance(value, str):
                yield from _class_names(json.loads(value))
            else:
                yield from _class_names(value)
    elif isinstance(part, list):
        for value in part:
            yield from _class_names(value)


@functools.lru_cache(maxsize=8)
def _records(path: Path, split: str) -> Any:
    """The records of a split by number, with pictures as the bytes they are stored as."""
    features = _builder(path).info.features
    pictures = [name for name, feature in features.items() if isinstance(feature, _Picture)]
    decoders = {name: tfds.decode.SkipDecoding() for name in pictures}
    return _builder(path).as_data_source(split=split, decoders=decoders or None)


@functools.lru_cache(maxsize=8)
def _shards(path: Path, split: str) -> tuple[list[int], list[Path]]:
    """For each shard of a split the number of the record after its last, and its file."""
    info = _builder(path).info.splits[split]
    return list(itertools.accumulate(info.shard_lengths)), [Path(file) for file in info.filepaths]


def index_tfds(path: Path) -> Index:
    """Index a set in TFDS's ArrayRecord format. Reads every record once, for what is said of the images.

    The feature "image" is [H, W, C] or [H, W]; a feature "channel_names" of texts has its channels' names, which are R,
    G, B(, A) in a picture of colors and "0", "1", ... otherwise. The features plate, well, site say where an image
    belongs; without them: the set's name, no wells, numbers from 1 over all splits. Several images may be of one site.
    Texts, numbers and labels (by name, "" for -1) are metadata, and the column `split` is the split's name. A feature
    that would be in the way, source, split, z or t, is the column `given_source` and so on: every built set has some of
    them. Other features are listed as ignored.

    Raises:
        BuildError: for what is no such set, in another format, without images, or damaged.
    """
    builder = _builder(path)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise BuildError(f"{path}: is in the format {builder.info.file_format}; only ArrayRecord is read")
    scalars, ignored = _features(path, builder.info.features)
    sources, columns, channels = _read_records(path, builder, scalars)
    count = len(sources)
    plates = [str(plate) for plate in columns.pop("plate", [builder.name] * count)]
    wells = [str(well) for well in columns.pop("well", [""] * count)]
    sites = columns.pop("site", list(range(1, count + 1)))
    if {type(site) for site in sites} != {int}:
        raise BuildError(f"{path}: the feature site is no whole number")
    below = min(map(int, sites))
    if below < 0:
        raise BuildError(f"{path}: the feature site is {below}, expected whole numbers from 0")
    entries = []
    for i, (split, number) in enumerate(sources):
        metadata = {name: values[i] for name, values in columns.items()}
        for c, channel in enumerate(channels):
            plane = TfdsPlane(path, split, number, c)
            place = (plates[i], wells[i], int(sites[i]))
            entries.append(Entry(plane, plane.source, *place, channel, metadata=metadata, crop=i))
    return make_index(entries, channels, wells_per_plate=1536, ignored=ignored)  # 1536: any well there is


def _features(path: Path, features: Any) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Feature -> column of what is a text, a number or a label, and (feature, why) of the others."""
    if not isinstance(features, tfds.features.FeaturesDict):
        raise BuildError(f"{path}: has no named features, but {features}")
    kinds: dict[str, Any] = dict(features.items())
    shape = kinds["image"].shape if isinstance(kinds.get("image"), (_Picture, _Tensor)) else ()
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] is None):
        raise BuildError(f"{path}: expected a feature image, [H, W, C] with one C for all; there is {features}")
    scalars, ignored = {}, []
    for name, feature in kinds.items():
        if isinstance(feature, _Tensor) and feature.shape == ():
            column = column_name(name)
            scalars[name] = f"given_{column}" if column in _OURS else column
        elif name not in ("image", "channel_names"):
            ignored.append((f"{path}:{name}", f"is {feature}: no text, number or label"))
    if len(set(scalars.values())) < len(scalars):
        raise BuildError(f"{path}: of the features {list(scalars)} two would be called the same")
    return scalars, ignored


def _read_records(
    path: Path, builder: Any, scalars: dict[str, str]
) -> tuple[list[tuple[str, int]], dict[str, list[Value]], tuple[str, ...]]:
    """(split, number) of every record, the values of the named features by column, and the channels' names."""
    features = builder.info.features
    sources: list[tuple[str, int]] = []
    columns: dict[str, list[Value]] = {column: [] for column in (*scalars.values(), "split")}
    channels = None
    for split in builder.info.splits:
        stored = sum(regular(file).st_size for file in _shards(path, split)[1])
        with reading(f"{path}:{split}", stored, "damaged, copy the set again"):
            records = _records(path, split)
            count = len(records)
        for number in range(count):
            with reading(f"{path}:{split}[{number}]", stored, "damaged, copy the set again"):
                record = records[number]
                for name, column in scalars.items():
                    columns[column].append(_value(features[name], record[name]))
                names = _channel_names(features["image"], record)
            columns["split"].append(split)
            sources.append((split, number))
            if channels not in (None, names):
                raise BuildError(f"{path}:{split}[{number}]: has the channels {names}, others {channels}")
            channels = names
    if channels is None:
        raise BuildError(f"{path}: has no records")
    return sources, columns, channels


def _value(feature: Any, value: Any) -> Value:
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.int2str(value) if value >= 0 else ""
    if isinstance(value, bytes):
        return value.decode()
    return int(value) if isinstance(value, bool | int) else float(value)


def _channel_names(image: Any, record: dict[str, Any]) -> tuple[str, ...]:
    count = image.shape[2] if len(image.shape) == 3 else 1
    if len(record.get("channel_names", ())) == count:
        return tuple(name.decode() for name in record["channel_names"])
    colors = isinstance(image, _Picture) and count in (3, 4)
    return tuple("RGBA"[:count]) if colors else tuple(str(channel) for channel in range(count))

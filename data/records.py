"""Writing a set: ArrayRecord through TFDS, the table of everything but pixels, and exact intensity statistics.

A built set is `<data_dir>/<name>/<version>/` with TFDS's own files (split "images", in the order given),
`metadata.parquet` and `statistics.json`. It appears under that name whole or not at all.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_datasets.core import example_serializer, registered, splits
from tqdm import tqdm

SPLIT = "images"
PERCENTILES = (0.1, 1, 50, 99, 99.9)


class BuildError(ValueError):
    """A set that cannot be built from what was given; the message says what is wrong, where, and what to do."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What is true of a whole set.

    Attributes:
        name: of the set, and of its folder.
        version: of the builder; another version, another folder.
        channel_names: C names, in the order of the last axis.
        pixel_size_um: micrometres per pixel; None where the source does not say.
        bit_depth: bits that carry information.
        image_shape: (H, W, C).
        dtype: of the pixels, "uint8" or "uint16".
        columns: metadata columns and their Python types, in order.
        num_examples: how many images will be given.
        text: a sentence or two on what this is and where it is from.
        simulated: whether no microscope was involved.
    """

    name: str
    version: str
    channel_names: tuple[str, ...]
    pixel_size_um: float | None
    bit_depth: int
    image_shape: tuple[int, int, int]
    dtype: str
    columns: dict[str, type]
    num_examples: int
    text: str
    simulated: bool


Example = tuple[np.ndarray, dict[str, Any]]


def write_set(description: Description, examples: Iterable[Example], data_dir: str | Path) -> Path:
    """Write a set; shows progress.

    Args:
        description: of the set.
        examples: (image [H, W, C], metadata with exactly `description.columns`), in the order they will be read in.
        data_dir: folder of built sets.

    Returns:
        The set's folder.

    Raises:
        BuildError: if an image or its metadata are not as described.
    """
    data_dir = Path(data_dir)
    final = data_dir / description.name / description.version
    data_dir.mkdir(parents=True, exist_ok=True)
    # Beside the final place, so that the last step is a rename on one file system.
    building = Path(tempfile.mkdtemp(prefix=f".building-{description.name}-", dir=data_dir))
    try:
        collected = _Collected(description)
        builder = _builder(description, collected.watch(examples), building)
        # TFDS announces a download that there is not, to a folder that will not stay.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=1))
        written = Path(builder.data_path)
        pd.DataFrame(collected.rows).astype(description.columns).to_parquet(written / "metadata.parquet", index=False)
        (written / "statistics.json").write_text(json.dumps(collected.statistics(), indent=1) + "\n")
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(written, final)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return final


def well_name(name: str, file: str | Path) -> str:
    """ "B2", "B02" and "b02" -> "B02", on a plate of up to 384 wells.

    Raises:
        BuildError: naming `file`, where the name stands, if it is no such well.
    """
    match = re.fullmatch(r"([A-Pa-p])0?([1-9]|1\d|2[0-4])", name.strip())
    if match is None:
        raise BuildError(f"{file}: well {name!r}: expected a row A to P and a column 1 to 24, as B02")
    return f"{match[1].upper()}{int(match[2]):02d}"


class _Collected:
    """What is learnt of a set while its images pass by: one histogram per plate and channel, and the table."""

    def __init__(self, description: Description):
        self._description = description
        self._values = np.iinfo(description.dtype).max + 1
        self._histograms: dict[str, np.ndarray] = {}  # plate -> [C, values] int64
        self.rows: list[dict[str, Any]] = []

    def watch(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The same examples, checked and counted."""
        bar = tqdm(examples, desc=f"build {self._description.name}", unit="image", total=self._description.num_examples)
        for image, metadata in bar:
            expected = (self._description.image_shape, self._description.dtype)
            if (image.shape, str(image.dtype)) != expected:
                raise BuildError(f"{metadata.get('source')}: image is {image.shape} {image.dtype}, not {expected}")
            if metadata.keys() != self._description.columns.keys():
                raise BuildError(f"{metadata.get('source')}: columns are {list(metadata)}")
            self._count(metadata["plate"], image)
            self.rows.append(metadata)
            yield image, metadata
        if len(self.rows) != self._description.num_examples:
            raise BuildError(f"{len(self.rows)} images came, {self._description.num_examples} were announced")

    def _count(self, plate: str, image: np.ndarray) -> None:
        channels = image.shape[-1]
        total = self._histograms.setdefault(plate, np.zeros((channels, self._values), np.int64))
        for c in range(channels):
            counts = np.bincount(image[..., c].ravel())
            total[c, : len(counts)] += counts

    def statistics(self) -> dict[str, Any]:
        """Content of `statistics.json`."""
        d = self._description
        return {
            "channel_names": list(d.channel_names),
            "pixel_size_um": d.pixel_size_um,
            "bit_depth": d.bit_depth,
            "image_shape": list(d.image_shape),
            "dtype": d.dtype,
            "num_examples": len(self.rows),
            "description": d.text,
            "simulated": d.simulated,
            "overall": summarize(np.sum(list(self._histograms.values()), axis=0)),
            "plates": {plate: summarize(h) for plate, h in sorted(self._histograms.items())},
        }


def summarize(histogram: np.ndarray) -> dict[str, Any]:
    """Statistics of the pixels that a histogram counts, exact to float64 rounding.

    Args:
        histogram: [C, V] int64, how often each of the values 0 .. V-1 occurs in each channel.

    Returns:
        `count`, and per channel `mean`, `std` (population), `min`, `max` and `percentiles` (linear interpolation
        between order statistics, as numpy has it).
    """
    values = np.arange(histogram.shape[1])
    count = int(histogram[0].sum())
    mean = histogram @ values / count
    # about the mean, not E[x^2] - E[x]^2, which loses its digits for a bright flat channel
    std = np.sqrt(np.stack([h @ np.square(values - m) for h, m in zip(histogram, mean, strict=True)]) / count)
    cumulative = histogram.cumsum(axis=1)

    def order_statistic(rank: int) -> np.ndarray:
        return np.asarray([np.searchsorted(c, rank, side="right") for c in cumulative])

    percentiles = {}
    for q in PERCENTILES:
        position = q / 100 * (count - 1)
        below, above = order_statistic(int(np.floor(position))), order_statistic(int(np.ceil(position)))
        percentiles[str(q)] = (below + (position % 1) * (above - below)).tolist()
    return {
        "count": count,
        "mean": mean.tolist(),
        "std": std.tolist(),
        "min": order_statistic(0).tolist(),
        "max": order_statistic(count - 1).tolist(),
        "percentiles": percentiles,
    }


def _builder(description: Description, examples: Iterator[Example], data_dir: Path) -> tfds.core.GeneratorBasedBuilder:
    """A TFDS builder for exactly these examples."""
    scalars = {str: tfds.features.Text(), int: tfds.features.Scalar(np.int64), float: tfds.features.Scalar(np.float64)}
    features = {
        "image": tfds.features.Tensor(
            shape=description.image_shape,
            dtype=np.dtype(description.dtype),
            encoding=tfds.features.Encoding.BYTES,  # the default writes every pixel as a varint
        ),
        **{column: scalars[kind] for column, kind in description.columns.items()},
    }

    def info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=description.text,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # the order of the records is the order of metadata.parquet
        )

    def write(self, dl_manager, download_config) -> None:
        """Write record by record.

        Not `_generate_examples`: TFDS keeps a split in memory until all of it is there, past 1 GB asks TensorFlow to
        spill it, compresses the shard with zstd (camera noise hardly shrinks, reading waits: `experiments/loading`),
        and serialises a map as the process happens to hash its keys, so that the same set has other bytes every time.
        """
        template = self._get_filename_template(SPLIT)
        path = template.sharded_filepath(shard_index=0, num_shards=1)
        serializer = example_serializer.ExampleSerializer(self.info.features.get_serialized_info())
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        count = size = 0
        for image, metadata in examples:
            encoded = self.info.features.encode_example({"image": image, **metadata})
            record = serializer.get_tf_example(encoded).SerializeToString(deterministic=True)
            writer.write(record)
            count, size = count + 1, size + len(record)
        writer.close()
        split = splits.SplitInfo(name=SPLIT, shard_lengths=[count], num_bytes=size, filename_template=template)
        self.info.set_splits(splits.SplitDict([split]))

    body = {
        "name": description.name,
        "VERSION": tfds.core.Version(description.version),
        "_info": info,
        "_download_and_prepare": write,
        "_split_generators": lambda self, download_manager: {},  # abstract in TFDS, not called
        "_generate_examples": lambda self: iter(()),
    }
    with registered.skip_registration():
        builder_class = type("SetBuilder", (tfds.core.GeneratorBasedBuilder,), body)
    tfds.disable_progress_bar()  # ours knows how many images come
    return builder_class(data_dir=str(data_dir), file_format="array_record")


def print_summary(directory: Path, seconds: float) -> None:
    """What was built, for the person who asked for it."""
    statistics = json.loads((directory / "statistics.json").read_text())
    metadata = pd.read_parquet(directory / "metadata.parquet")
    size = sum(path.stat().st_size for path in directory.iterdir())
    wells = metadata[["plate", "well"]].drop_duplicates()
    out = sys.stdout
    print(f"{directory}{' (SIMULATED)' if statistics['simulated'] else ''}", file=out)
    print(f"  {statistics['description']}", file=out)
    print(
        f"  {len(metadata)} images {' x '.join(map(str, statistics['image_shape']))} {statistics['dtype']} "
        f"({statistics['bit_depth']} bit), {metadata['plate'].nunique()} plates, {len(wells)} wells, "
        f"{metadata['site'].nunique()} sites; {size / 1e6:.0f} MB in {seconds:.0f} s",
        file=out,
    )
    percentiles = statistics["overall"]["percentiles"]
    for c, name in enumerate(statistics["channel_names"]):
        spread = ", ".join(f"{q} %: {percentiles[q][c]:.0f}" for q in percentiles)
        print(f"  {name}: {spread}", file=out)

"""Images/s from a built set through Grain, and from zlib TIFFs of the same images.

    python experiments/loading/compare_tiff.py

Needs the simulated set (`make demo` or `python -m data.build simulated`), 1 GB of temporary space and 2 minutes.
Prints one markdown table. README.md has its numbers and what they mean.
"""

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import grain
import numpy as np
import tensorflow_datasets as tfds
import tifffile
from absl import flags
from array_record.python import array_record_module

from bie_jax.image_set import ImageSet, open_image_set
from bie_jax.input_pipeline import eval_batches
from data.records import Description, write_set

IMAGES = {128: 960, 224: 320, 512: 64}  # side in pixels -> how many; 160 MB each
BATCH = {128: 32, 224: 32, 512: 8}  # images; 5, 16 and 21 MB
TIFF_PASSES, RECORD_PASSES = 1, 4  # over all images, in one timing; records are done too soon otherwise
REPEATS = 3


class TiffFolder:
    """One file per image with a page per channel, zlib; read like an image set."""

    def __init__(self, folder: Path):
        self._files = sorted(folder.glob("*.tif"))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, row: int) -> np.ndarray:
        # One worker: the threads are counted by whoever calls this.
        return np.moveaxis(tifffile.imread(self._files[row], maxworkers=1), 0, -1)


class TfdsSource:
    """The set as TFDS's own data source reads it, every column decoded."""

    def __init__(self, directory: Path):
        self._source = tfds.builder_from_directory(str(directory)).as_data_source("images")

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._source[row]["image"]


def mosaics(image_set: ImageSet, side: int, count: int) -> Iterator[np.ndarray]:
    """Squares of `side` pixels cut from the set's images laid side by side; the images themselves if of that size."""
    tile = image_set.image_shape[0]
    across = -(-side // tile)
    rng = np.random.default_rng(0)
    for number in range(count):
        rows = [number] if across == 1 else rng.integers(0, len(image_set), across**2)
        tiles = image_set.images(rows).reshape(across, across, *image_set.image_shape)
        yield np.concatenate(np.concatenate(tiles, axis=1), axis=1)[:side, :side]


def write_all(image_set: ImageSet, side: int, folder: Path) -> dict[str, Path]:
    """The same images as a set, as a set compressed the way TFDS does, and as TIFFs."""
    images = list(mosaics(image_set, side, IMAGES[side]))
    columns = {name: str for name in ("plate", "well", "label", "source")} | {"site": int}
    metadata = {"plate": "P1", "well": "B02", "label": "x", "source": "simulated", "site": 1}
    described = json.loads((image_set.directory / "statistics.json").read_text())
    description = Description(
        name="simulated",
        version="1.0.0",
        channel_names=image_set.channel_names,
        pixel_size_um=image_set.pixel_size_um,
        bit_depth=16,
        image_shape=images[0].shape,
        dtype=described["dtype"],
        columns=columns,
        num_examples=len(images),
        text="for timing",
        simulated=True,
    )
    records = write_set(description, [(image, metadata) for image in images], folder / "records")
    compressed = folder / "zstd" / "simulated" / "1.0.0"
    shutil.copytree(records, compressed)
    (shard,) = compressed.glob("*.array_record*")
    (uncompressed,) = records.glob("*.array_record*")
    shard.unlink()
    reader = array_record_module.ArrayRecordReader(str(uncompressed))
    writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
    for row in range(len(images)):
        writer.write(reader.read([row])[0])
    writer.close()
    reader.close()
    tiffs = folder / "tiff"
    tiffs.mkdir()
    for number, image in enumerate(images):
        tifffile.imwrite(
            tiffs / f"{number:05d}.tif", np.moveaxis(image, -1, 0), photometric="minisblack", compression="zlib"
        )
    return {"records": records, "zstd": compressed, "tiff": tiffs}


def loop(source: TiffFolder, rows: np.ndarray, batch: int, threads: int) -> Iterator[np.ndarray]:
    """Batches without Grain: a plain loop, or the same over a pool of threads."""
    if threads == 1:
        for start in range(0, len(rows), batch):
            yield np.stack([source[row] for row in rows[start : start + batch]])
    else:
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(rows), batch):
                yield np.stack(list(pool.map(source.__getitem__, rows[start : start + batch])))


def row_batches(source: ImageSet, rows: np.ndarray, batch: int, threads: int) -> Iterator[np.ndarray]:
    """Grain orders, groups and hands out row numbers alone; a batch is read in one go, each image to its place."""
    dataset = grain.MapDataset.source(rows).batch(batch, drop_remainder=True).map(source.images)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(dataset.to_iter_dataset(options))


def example_batches(source: Any, rows: np.ndarray, batch: int, threads: int) -> Iterator[dict[str, np.ndarray]]:
    """Grain as training uses it: every image is an element of its own until they are batched."""
    return eval_batches(source, rows, batch, threads)


def images_per_second(batches: Iterator, count: int) -> float:
    """Of one pass over batches of `count` images in all."""
    start = time.perf_counter()
    for _ in batches:
        pass
    return count / (time.perf_counter() - start)


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to read the images."""

    name: str
    stored_as: str
    passes: int  # over all images in one timing
    open: Callable[[Path], Any]
    batches: Callable[[Any, np.ndarray, int, int], Iterator]


def _open_set(directory: Path) -> ImageSet:
    return open_image_set("simulated", directory.parent.parent)


WAYS = (
    Way("tifffile loop", "tiff", TIFF_PASSES, TiffFolder, loop),
    Way("TIFFs, Grain", "tiff", TIFF_PASSES, TiffFolder, example_batches),
    Way("zstd records, ImageSet, Grain", "zstd", TIFF_PASSES, _open_set, example_batches),
    Way("records, TFDS's reader, Grain", "records", RECORD_PASSES, TfdsSource, example_batches),
    Way("records, ImageSet, Grain", "records", RECORD_PASSES, _open_set, example_batches),
    Way("records, ImageSet.images, Grain over rows", "records", RECORD_PASSES, _open_set, row_batches),
)


def compare(paths: dict[str, Path], side: int, threads: int) -> tuple[list[float], list[float]]:
    """Images/s of every way and how many times the first way's that is; medians over the repeats.

    The ways take turns, so that whatever else the machine does meets all of them; a ratio is taken within a turn.
    """
    count, batch = IMAGES[side], BATCH[side]
    sources = [way.open(paths[way.stored_as]) for way in WAYS]
    for way, source in zip(WAYS, sources, strict=True):
        assert np.array_equal(source[7], sources[0][7]), way.name
        images_per_second(way.batches(source, np.arange(2 * batch), batch, threads), 2 * batch)  # warms up
    rates = np.empty((REPEATS, len(WAYS)))
    for repeat in range(REPEATS):
        for w, (way, source) in enumerate(zip(WAYS, sources, strict=True)):
            rows = np.concatenate([np.random.default_rng([repeat, p]).permutation(count) for p in range(way.passes)])
            rates[repeat, w] = images_per_second(way.batches(source, rows, batch, threads), len(rows))
    ratios = rates / rates[:, :1]
    return np.median(rates, axis=0).tolist(), np.median(ratios, axis=0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="datasets")
    parser.add_argument("--sides", type=int, nargs="+", default=list(IMAGES), choices=IMAGES)
    args = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # Grain looks at absl's flags
    image_set = open_image_set("simulated", args.data_dir)
    cores = sorted(os.sched_getaffinity(0))
    print("| pixels | threads = cores | read by | images/s | MB/s | times the TIFF loop | MB on disk |")
    print("|---|---|---|---|---|---|---|")
    for side in args.sides:
        with tempfile.TemporaryDirectory() as folder:
            paths = write_all(image_set, side, Path(folder))
            megabytes = side * side * len(image_set.channel_names) * 2 / 1e6
            for threads in (1, 2):
                os.sched_setaffinity(0, cores[:threads])  # threads started from here on inherit it
                for way, rate, ratio in zip(WAYS, *compare(paths, side, threads), strict=True):
                    disk = sum(path.stat().st_size for path in paths[way.stored_as].iterdir()) / 1e6
                    print(
                        f"| {side} | {threads} | {way.name} | {rate:,.0f} | {rate * megabytes:,.0f} | "
                        f"{ratio:.1f} | {disk:.0f} |",
                        flush=True,
                    )
                os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    main()

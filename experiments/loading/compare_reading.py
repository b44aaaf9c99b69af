"""Reading batches: our pipeline against what a user would write instead, on the same images and cores.

    python -m data.build simulated
    pip install torch==2.13.0
    python experiments/loading/compare_reading.py

One table: images/s, MB/s of pixels, times the tifffile loop, MB on disk; in the page cache, ways in turn, medians of 3.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import grain
import imagecodecs
import numpy as np
import tifffile
import torch
import zarr
from absl import flags

from bie_jax.input.batches import train_batches
from bie_jax.input.image_set import ImageSet
from bie_jax.input.mixture import Mixture
from experiments.loading.files import Files, write_files

SECONDS = 1.5  # of reading, in each turn
TURNS = 3
READ_AHEAD = 6  # batches
BYTES = 80e6  # of pixels in each set
ROWS = 20_000


def read_tiff(files: Files, i: int) -> np.ndarray:
    """[H, W, C]."""
    return np.moveaxis(tifffile.imread(files.tiff(i), maxworkers=1), 0, -1)


def read_png(files: Files, i: int) -> np.ndarray:
    """[H, W, C]."""
    pages = [imagecodecs.png_decode(files.png(i, c).read_bytes()) for c in range(files.shape[2])]
    return np.stack(pages, axis=-1)


def read_zarr(files: Files, i: int) -> np.ndarray:
    """[H, W, C]."""
    return np.moveaxis(np.asarray(zarr.open_array(files.zarr(i) / "0", mode="r")[:]), 0, -1)


class TorchDataset(torch.utils.data.Dataset):
    """Of files of one kind."""

    def __init__(self, files: Files, read: Callable[[Files, int], np.ndarray]):
        self.files, self.read = files, read

    def __len__(self) -> int:
        return self.files.count

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.read(self.files, i)))


def with_loop(files: Files, read: Callable, batch_size: int, _: int) -> Iterator[int]:
    """Images of each batch, as they come."""
    for rows in _endless(files.count, batch_size):
        yield len(np.stack([read(files, int(i)) for i in rows]))


def with_torch(files: Files, read: Callable, batch_size: int, workers: int) -> Iterator[int]:
    """The same, by a DataLoader whose workers live as long as it does."""
    sampler = torch.utils.data.RandomSampler(range(files.count), replacement=True, num_samples=10**7)
    loader = torch.utils.data.DataLoader(
        TorchDataset(files, read),
        batch_size,
        sampler=sampler,
        num_workers=workers,
        multiprocessing_context="spawn",
        prefetch_factor=2,
    )
    for batch in loader:
        yield len(batch)


def with_grain(files: Files, read: Callable, batch_size: int, workers: int) -> Iterator[int]:
    """The same, by Grain's threads over files."""
    dataset = grain.MapDataset.range(files.count).seed(0).shuffle().repeat().map(lambda i: read(files, int(i)))
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers * batch_size)
    for batch in dataset.to_iter_dataset(options).batch(batch_size):
        yield len(batch)


def with_records(image_set: ImageSet, batch_size: int, threads: int) -> Iterator[int]:
    """Ours, with as many rows as a set of some size has: Grain's shuffle of 50 rows takes 850 us a row, of 1,000 30 us,
    of 10,000 and more 5 us."""
    rows = np.tile(np.arange(len(image_set)), -(-ROWS // len(image_set)))
    for batch in train_batches(Mixture((image_set,)), [rows], [1.0], batch_size, 0, 0, threads):
        yield len(batch["image"])


def with_records_alone(image_set: ImageSet, batch_size: int, _: int) -> Iterator[int]:
    """What of that is ArrayRecord's: records are read, one after the other, and their pixels put nowhere."""
    for rows in _endless(len(image_set), batch_size):
        yield sum(len(image_set[int(i)]) > 0 for i in rows)


def ways_to_read(
    files: Files, image_set: ImageSet, batch_size: int
) -> dict[str, tuple[Callable[[int], Iterator[int]], float]]:
    """Name -> (workers -> sizes of batches), and MB on disk."""
    records = sum(path.stat().st_size for path in image_set.directory.iterdir()) / 1e6
    tiff, png, plate = (files.megabytes(kind) for kind in ("tiff", "png", "plate.zarr"))
    return {
        "tifffile loop": (lambda n: with_loop(files, read_tiff, batch_size, n), tiff),
        "DataLoader, TIFF": (lambda n: with_torch(files, read_tiff, batch_size, n), tiff),
        "DataLoader, PNG": (lambda n: with_torch(files, read_png, batch_size, n), png),
        "DataLoader, OME-Zarr": (lambda n: with_torch(files, read_zarr, batch_size, n), plate),
        "Grain, TIFF": (lambda n: with_grain(files, read_tiff, batch_size, n), tiff),
        "Grain, PNG": (lambda n: with_grain(files, read_png, batch_size, n), png),
        "Grain, OME-Zarr": (lambda n: with_grain(files, read_zarr, batch_size, n), plate),
        "records alone, no batch": (lambda n: with_records_alone(image_set, batch_size, n), records),
        "**records (ours)**": (lambda n: with_records(image_set, batch_size, n), records),
    }


def _endless(count: int, batch_size: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    while True:
        yield rng.integers(0, count, batch_size)


def rate(batches: Iterator[int]) -> float:
    """Images/s, not counting what was read ahead while others had their turn."""
    for _ in range(READ_AHEAD):
        next(batches)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        images += next(batches)
    return images / (time.perf_counter() - start)


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="datasets")
    args = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # Grain looks at them
    torch.set_num_threads(1)
    print("| pixels | channels | workers | read by | images/s | MB/s | times the TIFF loop | MB on disk |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for side, channels in itertools.product((64, 224, 512), (3, 5)):
        count = max(32, round(BYTES / (side * side * channels * 2)))
        batch_size = {64: 64, 224: 32, 512: 8}[side]
        with tempfile.TemporaryDirectory() as folder:
            files, image_set = write_files(Path(folder), count, (side, side, channels), args.data_dir)
            ways = ways_to_read(files, image_set, batch_size)
            for workers in (1, 2):
                os.sched_setaffinity(0, range(workers))  # and of all processes and threads started from here on
                rates = {name: [] for name in ways}
                readers = {name: way(workers) for name, (way, _) in ways.items()}
                for _ in range(TURNS):
                    for name, reader in readers.items():
                        rates[name].append(rate(reader))
                loop = np.asarray(rates["tifffile loop"])
                for name, (_, megabytes) in ways.items():
                    images = float(np.median(rates[name]))
                    times = float(np.median(np.asarray(rates[name]) / loop))
                    pixels = images * side * side * channels * 2 / 1e6
                    print(
                        f"| {side} | {channels} | {workers} | {name} | {images:,.0f} | {pixels:,.0f} | {times:.1f} | "
                        f"{megabytes:.0f} |",
                        flush=True,
                    )
            os.sched_setaffinity(0, range(os.cpu_count() or 1))


if __name__ == "__main__":
    main()

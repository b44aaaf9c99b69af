"""Building a set: MB/s from TIFF, PNG and OME-Zarr beside loops that only read; and how it grows with the set.

    python -m data.build simulated
    python experiments/loading/compare_building.py
    python experiments/loading/compare_building.py --tables growth

MB are of pixels. The loops decode every image and keep none; a build decodes, checks, counts every value and writes.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import tifffile
import zarr

from experiments.loading.files import Files, write_files

SHAPE, COUNT = (512, 512, 5), 300  # 786 MB: what starting takes matters less
GROWTH = ((1_000, (64, 64, 1)), (10_000, (64, 64, 1)), (100_000, (64, 64, 1)), (10_000, (256, 256, 5)))


def build(*arguments: object) -> None:
    """`python -m data.build`, quietly."""
    command = [sys.executable, "-m", "data.build", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def compare(files: Files) -> None:
    """First table."""
    folder = files.folder
    places = [{"plate": "P1", "well": "B02", "site": i} for i in range(files.count)]
    tiffs = [{"path": f"tiff/{files.tiff(i).name}", **place} for i, place in enumerate(places)]
    pngs = [
        {"path": f"png/{files.png(i, c).name}", **place, "channel": str(c)}
        for i, place in enumerate(places)
        for c in range(files.shape[2])
    ]
    pd.DataFrame(tiffs).to_csv(folder / "tiff.csv", index=False)
    pd.DataFrame(pngs).to_csv(folder / "png.csv", index=False)
    megabytes = files.count * np.prod(files.shape) * 2 / 1e6

    def loop(read: Callable[[int], object]) -> float:
        start = time.perf_counter()
        for i in range(files.count):
            read(i)
        return time.perf_counter() - start

    loops = {
        "tiff": lambda i: tifffile.imread(files.tiff(i), maxworkers=1),
        "png": lambda i: [imageio.imread(files.png(i, c)) for c in range(files.shape[2])],
        "zarr": lambda i: zarr.open_array(files.zarr(i) / "0", mode="r")[:],
    }
    sources = {"tiff": "tiff.csv", "png": "png.csv", "zarr": "plate.zarr"}
    print("| source | loop that reads, MB/s | build, 1 worker, MB/s | build, 2 workers, MB/s | times the loop |")
    print("|---|---|---|---|---|", flush=True)
    for kind, source in sources.items():
        rates = [megabytes / loop(loops[kind])]
        for workers in (1, 2):
            start = time.perf_counter()
            build(f"built{workers}", f"--source={folder / source}", f"--data-dir={folder}/sets", f"--workers={workers}")
            rates.append(megabytes / (time.perf_counter() - start))
            shutil.rmtree(folder / "sets" / f"built{workers}")
        print(f"| {kind} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[2]:.0f} | {rates[2] / rates[0]:.1f} |", flush=True)


def grow(folder: Path) -> None:
    """Second table: each build (of one worker) and each start in a process of its own."""
    print(
        "\n| examples | each | build, s | its peak memory, MB | open and first batch, s | peak memory of reading, MB |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    for count, shape in GROWTH:
        source = folder / f"images{count}.npy"
        array = np.lib.format.open_memmap(source, "w+", np.uint16, (count, *shape))
        some = np.random.default_rng(0).poisson(1000, (1000, *shape)).astype(np.uint16)
        for start in range(0, count, 1000):
            array[start : start + 1000] = some
        del array, some
        arguments = ["grown", f"--source={source}", f"--data-dir={folder / str(count)}", "--workers=1"]
        command = f"from data.build import main; main({arguments})"
        built, build_memory = _measured(f"if __name__ == '__main__':\n    {command}", folder)
        command = (
            "import sys, time, resource; from absl import flags; flags.FLAGS.mark_as_parsed(); import numpy as np;"
            "from bie_jax.input.image_set import open_image_set; from bie_jax.input.mixture import Mixture;"
            "from bie_jax.input.batches import train_batches; start = time.perf_counter();"
            f"s = open_image_set('grown', '{folder}/{count}');"
            "b = train_batches(Mixture((s,)), [np.arange(len(s))], [1.0], 64, 0, 0, 2); next(b);"
            "print(time.perf_counter() - start); [next(b).clear() for _ in range(200)]"
        )
        started, read_memory = _measured(command, folder, printed=True)
        size = " x ".join(map(str, shape))
        print(
            f"| {count:,} | {size} | {built:.1f} | {build_memory:.0f} | {started:.2f} | {read_memory:.0f} |", flush=True
        )
        source.unlink()
        shutil.rmtree(folder / str(count))


def _measured(program: str, folder: Path, printed: bool = False) -> tuple[float, float]:
    """Seconds (its own, or the number it prints), and the most private memory that it and its children had, in MB.

    Private memory is without mapped files; it is looked at every 20 ms.
    """
    path = folder / "program.py"
    path.write_text(program)
    start = time.perf_counter()
    with open(folder / "said", "w+") as said, open(folder / "errors", "w+") as errors:
        process = subprocess.Popen(
            [sys.executable, str(path)], stdout=said, stderr=errors, env=_environment(), start_new_session=True
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _private_megabytes(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        for file in (said, errors):
            file.seek(0)
        if process.returncode:
            sys.exit(errors.read())
        return float(said.readline()) if printed else seconds, peak


def _private_megabytes(session: int) -> float:
    """Of all processes of a session together."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that ended meanwhile
            if os.getsid(int(folder.name)) == session:
                lines = (folder / "status").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return total / 1e3


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def main() -> None:
    """The tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="datasets")
    parser.add_argument("--tables", nargs="+", choices=("building", "growth"), default=("building", "growth"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if "building" in args.tables:
            files, _ = write_files(Path(folder) / "images", COUNT, SHAPE, args.data_dir)
            compare(files)
        if "growth" in args.tables:
            grow(Path(folder))


if __name__ == "__main__":
    main()

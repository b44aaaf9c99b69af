"""How long does it take from images on disk to a parquet file of embeddings, beside PyTorch on the same images?

    pip install torch==2.13.0 transformers==5.23.0
    python experiments/embedding/throughput.py --folder=FOLDER
    python experiments/embedding/throughput.py --folder=FOLDER --compression=none --cases resnet18

Images of 224 x 224 pixels, 3 channels, 16 bit, one TIFF file each. Ours builds a set of them (`python -m data.build`),
trains each network for one step, and is then `python launch.py --stage=embed`, pooled features. PyTorch reads the files
with tifffile in a DataLoader and runs the same network of `transformers`, float32 with random weights, in inference
mode, mean over positions. Each is a process of its own, in turns; how they do is told by medians of the turns. In the
first turn ours has to compile, in later ones it finds what it compiled.
"""

import argparse
import contextlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import numpy as np

SIDE = 224  # pixels
CHANNELS = 3
FEW = 8  # images that are trained on
LEFT_OUT = 2  # first batches, in which programs are compiled and workers start
ALONE = 9  # batches of a network alone
REST = 0.3  # seconds before each of these; threads of a library go on waiting, awake, after their last work
READINGS = 4  # of all images, alone


class Case(NamedTuple):
    """A network.

    Attributes:
        count: images that it is given, where --images does not say.
        ours: settings of a run.
        theirs: settings of `transformers`.
    """

    count: int
    ours: dict[str, Any]
    theirs: dict[str, Any]


CASES = {
    "resnet18": Case(
        256,
        {"model.encoder": "resnet", "model.resnet.depth": 18},
        {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"},
    ),
    "resnet50": Case(
        128,
        {"model.encoder": "resnet", "model.resnet.depth": 50},
        {"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"},
    ),
    "vit_s16": Case(
        128,
        {"model.encoder": "vit", "model.vit.size": "S", "model.vit.patch_size": 16},
        {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
}


def main() -> None:
    """The tables, or with --child one process of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for images, sets and runs; what is there is used")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--images", type=int, help="how many; without it 256 for ResNet-18, 128 for the others")
    parser.add_argument("--compression", choices=("zlib", "none"), default="zlib", help="of the TIFF files")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", nargs="+", type=int, default=[1], help="of the DataLoader")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.folder = asked.folder.absolute()
    if asked.child is None:
        _measure(asked)
    else:
        case, count, what, workers = json.loads(asked.child)
        CHILDREN[what](asked, case, count, workers)


def _measure(asked: argparse.Namespace) -> None:
    cases = [(case, asked.images or CASES[case].count) for case in asked.cases]
    if min(count for _, count in cases) <= LEFT_OUT * asked.batch:
        sys.exit(f"--images: more than the {LEFT_OUT} batches of {asked.batch} that are left out are needed")
    for count in sorted({FEW, *(count for _, count in cases)}):
        _write_and_build(asked, count)
    for case in asked.cases:
        _train(asked, case)
    shutil.rmtree(asked.folder / "compiled", ignore_errors=True)
    whos = {"ours": ("ours", 0)} | {f"PyTorch, workers: {workers}": ("theirs", workers) for workers in asked.workers}
    print(f"batches of {asked.batch}, TIFF compression: {asked.compression}, load {_load()}\n")
    print(
        "| network | images | who | images/s, steady | ours, times as fast | whole process, s | ours, times as fast | "
        f"until the first batch, s | first {LEFT_OUT} batches, s | other batches, s | waiting for images, s | "
        "writing, s |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for case, count in cases:
        told: dict[str, list[dict[str, float]]] = {who: [] for who in whos}
        for _ in range(asked.turns):
            for who, (what, workers) in whos.items():
                told[who].append(_run(asked, case, count, what, workers))
        cold, told["ours"] = told["ours"][0], told["ours"][1:] or told["ours"]
        rows = {
            who: {name: float(np.median([one[name] for one in runs])) for name in cold} for who, runs in told.items()
        }
        for who, row in (("ours, first time", cold), *rows.items()):
            rates = rows["ours"]["rate"] / row["rate"]
            print(
                f"| {case} | {count} | {who} | {row['rate']:.1f} | {rates:.2f} | {row['whole']:.1f} | "
                f"{row['whole'] / rows['ours']['whole']:.2f} | {row['start']:.1f} | {row['first']:.1f} | "
                f"{row['network']:.1f} | {row['waiting']:.1f} | {row['writing']:.1f} |",
                flush=True,
            )
    print(
        "\n| network | who | reading alone, images/s | network alone, images/s, median | best |\n|---|---|---|---|---|"
    )
    for case, count in cases:
        for who, alone in _run(asked, case, count, "alone", max(asked.workers)).items():
            print(
                f"| {case} | {who} | {alone['reading']:.0f} | {alone['median']:.1f} | {alone['best']:.1f} |", flush=True
            )
    print(f"\nload {_load()}")


def _load() -> str:
    """Processes that ran or waited, of the last 1, 5 and 15 minutes: above 2 there was other work on two cores."""
    return ", ".join(f"{load:.1f}" for load in os.getloadavg())


def _run(asked: argparse.Namespace, case: str, count: int, what: str, workers: int) -> dict[str, Any]:
    """A process; what it tells of itself, and its seconds from start to end."""
    child = json.dumps([case, count, what, workers])
    given = [f"--folder={asked.folder}", f"--compression={asked.compression}", f"--batch={asked.batch}"]
    begun = time.monotonic()
    _quietly([sys.executable, __file__, *given, f"--child={child}"])
    told = json.loads((asked.folder / "told.json").read_text())
    if what == "alone":
        return told
    ended, wrote = time.monotonic(), told["written"]
    starts, ends = np.asarray(told["starts"]), np.asarray(told["ends"])
    steady = slice(LEFT_OUT, None)
    network = float((ends - starts)[steady].sum())
    return {
        "rate": (count - LEFT_OUT * asked.batch) / (ends[-1] - ends[LEFT_OUT - 1]),
        "whole": ended - begun,
        "start": starts[0] - begun,
        "first": ends[LEFT_OUT - 1] - starts[0],
        "network": network,
        "waiting": ends[-1] - ends[LEFT_OUT - 1] - network,
        "writing": wrote - ends[-1],
    }


def _tiff(asked: argparse.Namespace, count: int) -> Path:
    return asked.folder / f"tiff_{asked.compression}_{count}" / "P1"


def _set(asked: argparse.Namespace, count: int) -> str:
    return f"images_{asked.compression}_{count}"


def _write_and_build(asked: argparse.Namespace, count: int) -> None:
    """Smooth light with photon noise, of as many grays as a camera of 12 bit has, and the set of these files."""
    import tifffile
    from scipy.ndimage import gaussian_filter

    folder = _tiff(asked, count)
    if not folder.exists():
        folder.mkdir(parents=True)
        rng = np.random.default_rng(count)
        smooth = gaussian_filter(rng.normal(size=(8, CHANNELS, SIDE, SIDE)), (0, 0, 6, 6), mode="wrap")
        light = 300 + 900 * np.clip(smooth / smooth.std(), 0, 3)
        for i in range(count):
            image = rng.poisson(np.roll(light[i % 8], rng.integers(SIDE, size=2), (1, 2))).astype(np.uint16)
            kept = None if asked.compression == "none" else asked.compression
            tifffile.imwrite(folder / f"{i:05d}.tif", image, photometric="minisblack", compression=kept)
    begun = time.monotonic()
    sets = asked.folder / "sets"
    source = [f"--source={folder.parent}", "--layout=folder", f"--data-dir={sets}"]
    is_new = not (sets / _set(asked, count)).exists()
    _quietly([sys.executable, "-m", "data.build", _set(asked, count), *source])
    if is_new and count != FEW:
        print(f"{count} images: the set is built in {time.monotonic() - begun:.1f} s, once")


def _workdir(asked: argparse.Namespace, case: str) -> Path:
    return asked.folder / "runs" / f"{case}_{asked.batch}_{asked.compression}"


def _train(asked: argparse.Namespace, case: str) -> None:
    """One step."""
    if (_workdir(asked, case) / "config.json").exists():
        return
    settings: dict[str, Any] = {
        "data.name": _set(asked, FEW),
        "data.data_dir": asked.folder / "sets",
        "data.read_threads": 2,
        "data.split_by": "image",
        "data.val_fraction": 0.25,
        "train.batch_size": FEW * 3 // 4,
        "train.epochs": 1,
        "optimizer.warmup_epochs": 0,
        "eval.batch_size": asked.batch,
        "eval.readout": "features",
        "eval.probe_control": "",
    }
    _quietly(
        [
            *(sys.executable, "launch.py", "--config=configs/simclr_idr0093.py", "--stage=train"),
            *(f"--workdir={_workdir(asked, case)}", f"--compilation_cache={asked.folder / 'compiled_for_training'}"),
            *(f"--config.{key}={value}" for key, value in (settings | CASES[case].ours).items()),
        ]
    )


def _quietly(command: list[str]) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


class Times:
    """When batches began and ended in a network."""

    def __init__(self) -> None:
        self.starts, self.ends = [], []

    def timed(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """The same function."""

        def run(*args: Any) -> Any:
            self.starts.append(time.monotonic())
            out = network(*args)
            self.ends.append(time.monotonic())
            return out

        return run

    def tell(self, folder: Path) -> None:
        """To the process that asked."""
        told = {"starts": self.starts, "ends": self.ends, "written": time.monotonic()}
        (folder / "told.json").write_text(json.dumps(told))


def _ours(asked: argparse.Namespace, case: str, count: int, _: int) -> None:
    """The command itself, with a clock in it."""
    from bie_jax.evaluation.embedding.embedder import Embedder

    times = Times()
    Embedder.encode_batch = times.timed(Embedder.encode_batch)
    sys.argv = [
        *("launch.py", f"--workdir={_workdir(asked, case)}", "--stage=embed"),
        *(f"--set={asked.folder / 'sets' / _set(asked, count)}", f"--compilation_cache={asked.folder / 'compiled'}"),
    ]
    with contextlib.suppress(SystemExit):
        runpy.run_path(str(REPOSITORY / "launch.py"), run_name="__main__")
    times.tell(asked.folder)


def _paths(asked: argparse.Namespace, count: int) -> list[Path]:
    return sorted(_tiff(asked, count).glob("*.tif"))


def _loader(asked: argparse.Namespace, paths: list[Path], workers: int) -> Any:
    """Batches [B, C, H, W] float32, normalized as ours are: by mean and standard deviation of the set."""
    import tifffile
    import torch

    statistics = json.loads(next((asked.folder / "sets" / _set(asked, FEW)).glob("*/statistics.json")).read_text())
    mean, std = (np.asarray(statistics["overall"][name], np.float32)[:, None, None] for name in ("mean", "std"))

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> torch.Tensor:
            return torch.from_numpy((tifffile.imread(paths[i], maxworkers=1) - mean) / std)

    return torch.utils.data.DataLoader(Files(), asked.batch, num_workers=workers)


def _network(case: str) -> Callable[[Any], np.ndarray]:
    """[B, C, H, W] -> [B, F], a mean over positions."""
    import torch
    from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

    settings: dict[str, Any] = CASES[case].theirs | {"num_channels": CHANNELS}
    model: Any
    if case.startswith("resnet"):
        # The faster ways in `experiments/throughput`: channels last here, sdpa there.
        model = ResNetModel(ResNetConfig(**settings))
        model = model.to(memory_format=torch.channels_last)
    else:
        settings |= {"image_size": SIDE, "attn_implementation": "sdpa"}
        model = ViTModel(ViTConfig(**settings), add_pooling_layer=False)
    model.eval()

    def run(image: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            if case.startswith("resnet"):
                image = image.contiguous(memory_format=torch.channels_last)
                return model(image).last_hidden_state.mean((2, 3)).numpy()
            return model(image).last_hidden_state[:, 1:].mean(1).numpy()

    return run


def _theirs(asked: argparse.Namespace, case: str, count: int, workers: int) -> None:
    """What one would write."""
    import pandas as pd

    times = Times()
    run, loader = times.timed(_network(case)), _loader(asked, _paths(asked, count), workers)
    features = np.concatenate([run(image) for image in loader])
    table = pd.DataFrame(features).add_prefix(f"{case}_")
    table["file"] = pd.Series([path.name for path in _paths(asked, count)])
    table.to_parquet(asked.folder / "theirs.parquet", index=False)
    times.tell(asked.folder)


def _alone(asked: argparse.Namespace, case: str, count: int, workers: int) -> None:
    """Reading, ours by the threads of the embed stage; and one batch in memory through both networks, in turns."""
    from absl import flags

    from bie_jax.evaluation.embedding import load_readout
    from bie_jax.input.batches import eval_batches
    from bie_jax.input.image_set import open_image_set
    from bie_jax.input.mixture import Mixture

    flags.FLAGS.mark_as_parsed()  # Grain looks at them
    paths = _paths(asked, count) * READINGS
    begun = time.monotonic()
    tensors = deque(_loader(asked, paths, workers), maxlen=1)
    told = {"PyTorch": {"reading": len(paths) / (time.monotonic() - begun)}}
    image_set = open_image_set(_set(asked, count), asked.folder / "sets")
    rows = np.tile(np.arange(count), READINGS)
    begun = time.monotonic()
    batches = eval_batches(Mixture((image_set,)), rows, asked.batch, read_threads=2)
    arrays = deque((batch["image"] for batch, _ in batches), maxlen=1)
    told["ours"] = {"reading": len(rows) / (time.monotonic() - begun)}
    embedder, theirs = load_readout(_workdir(asked, case)), _network(case)
    plates = np.zeros(asked.batch, np.int32)
    networks = {"ours": lambda: embedder.encode_batch(arrays[-1], plates), "PyTorch": lambda: theirs(tensors[-1])}
    seconds: dict[str, list[float]] = {who: [] for who in networks}
    for turn in range(LEFT_OUT + ALONE):
        for who, network in networks.items():
            time.sleep(REST)
            begun = time.monotonic()
            network()
            if turn >= LEFT_OUT:
                seconds[who].append(time.monotonic() - begun)
    for who, taken in seconds.items():
        told[who] |= {"median": asked.batch / float(np.median(taken)), "best": asked.batch / min(taken)}
    (asked.folder / "told.json").write_text(json.dumps(told))


CHILDREN = {"ours": _ours, "theirs": _theirs, "alone": _alone}


if __name__ == "__main__":
    main()

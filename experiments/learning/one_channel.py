"""One encoder for everything: trained on single channels of other sets, does it serve a set that it never saw?

    python experiments/learning/one_channel.py --set=hela_rnai_cells --learn jurkat_ifc monuseg_organs bbbc021 \
        --scored runs/learning/hela_rnai_cells-simclr-9600-0

SimCLR of the small ResNet at full resolution on images of one channel, each normalized by itself: as many of each set,
drawn over its images and channels, cut to 64 pixels (of smaller images, what lies beyond is mirrored). It embeds each
channel of `--set`; the channels' readouts stand side by side. Random weights of the same network, and hand-made
features, are beside it. Scored as in `compare.py`.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bie_jax.evaluation.embedding.embedder import Embedder
from bie_jax.evaluation.embedding.load import load_readouts, load_untrained
from bie_jax.input.image_set import ImageSet, open_image_set
from experiments.learning.compare import (
    REPOSITORY,
    SEEDS_OF_WEIGHTS,
    SETS,
    Place,
    add_place,
    build,
    calendar,
    hand_made,
    place_of,
    score,
)

READOUTS = ("features", "layers")
SIDE = 64  # pixels
BATCH = 128


def single_channels(image_set: ImageSet, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, SIDE, SIDE, 1] uint16, of images and channels drawn at random, each cut at a place drawn at random."""
    height, width, channels = image_set.image_shape
    rows = rng.choice(len(image_set), count, replace=count > len(image_set))
    cut = np.empty((count, SIDE, SIDE, 1), np.uint16)
    for number, image in enumerate(image_set.images(rows)):
        channel = image[..., rng.integers(channels)]
        channel = np.pad(channel, [(max(0, SIDE - length + 1) // 2,) * 2 for length in (height, width)], "reflect")
        y, x = (rng.integers(length - SIDE + 1) for length in channel.shape)
        cut[number, ..., 0] = channel[y : y + SIDE, x : x + SIDE]
    return cut


def build_channels(place: Place, name: str, learn: list[str], count: int) -> None:
    """A set of images of one channel, `count` in all, as many of each set that is learned from."""
    if (place.data_dir / name).exists():
        return
    rng = np.random.default_rng(0)
    parts = []
    for source in learn:
        build(place, source)
        parts.append(single_channels(open_image_set(source, str(place.data_dir)), count // len(learn), rng))
    path = place.data_dir / f"{name}.npz"
    np.savez(path, images=np.concatenate(parts))
    command = [sys.executable, "-m", "data.build", name, f"--data-dir={place.data_dir}", f"--source={path}"]
    subprocess.run([*command, "--layout=arrays"], cwd=REPOSITORY, check=True)


def train(place: Place, name: str, images: int) -> Path:
    """SimCLR as in `compare.py`."""
    workdir = place.workdir / f"{name}-{images}"
    if not (workdir / "trained").exists():
        num_train = int(0.9 * len(open_image_set(name, str(place.data_dir))))
        epochs, epoch_steps = calendar(images // BATCH, num_train // BATCH)
        options = (
            f"--config.data.name={name}",
            f"--config.data.data_dir={place.data_dir}",
            "--config.data.crop_size=(48, 48)",
            "--config.data.normalization_scope=image",
            "--config.data.split_by=image",
            "--config.model.resnet.stem=full",
            f"--config.train.epochs={epochs}",
            f"--config.train.batch_size={BATCH}",
            f"--config.train.min_epoch_steps={epoch_steps}",
            f"--config.train.eval_every_epochs={epochs}",
            "--config.optimizer.warmup_epochs=1",
        )
        command = [sys.executable, "launch.py", "--config=configs/simclr_idr0093.py:simulated", f"--workdir={workdir}"]
        subprocess.run([*command, "--stage=train", *options], cwd=REPOSITORY, check=True)
        (workdir / "trained").touch()
    return workdir


def embed(network: Embedder, image_set: ImageSet) -> list[np.ndarray]:
    """Each readout [N, D C], of every channel by itself."""
    images = image_set.images(np.arange(len(image_set)))
    found = [network.embed(images[..., [channel]]) for channel in range(images.shape[-1])]
    parts = [np.split(features, [network.widths[0]], axis=1) for features in found]
    return [np.concatenate(of_channels, axis=1) for of_channels in zip(*parts, strict=True)]


def main() -> None:
    """A row for each readout of trained and random weights, alone and beside hand-made features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS), required=True)
    parser.add_argument("--learn", choices=list(SETS), nargs="+", required=True)
    parser.add_argument("--images", type=int, default=28800, help="of one channel, that training sees")
    parser.add_argument("--scored", type=Path, required=True, help="a workdir of compare.py on the same set")
    add_place(parser)
    asked = parser.parse_args()
    place = place_of(asked)
    build(place, asked.set)
    name = "channels_of_" + "_".join(sorted(asked.learn))
    build_channels(place, name, sorted(asked.learn), 6000)
    workdir = train(place, name, asked.images)
    image_set = open_image_set(asked.set, str(place.data_dir))
    trained = [embed(load_readouts(workdir, READOUTS), image_set)]
    random = [embed(network, image_set) for network in load_untrained(workdir, SEEDS_OF_WEIGHTS, READOUTS)]
    classical = hand_made(place, asked.set, asked.scored)
    print("| weights | features | numbers | logistic regression | random forest |\n|---|---|---|---|---|")
    for weights, draws in (("trained", trained), ("random", random)):
        for number, readout in enumerate(READOUTS):
            features = np.stack([one[number] for one in draws])
            beside = np.broadcast_to(classical, (len(features), *classical.shape[1:]))
            for title, table in (
                (readout, features),
                (f"{readout} + hand-made", np.concatenate([features, beside], axis=2)),
            ):
                means = " | ".join(f"{np.mean(f1):.3f}" for f1 in score(table, asked.set, asked.scored).values())
                print(f"| {weights} | {title} | {table.shape[2]} | {means} |", flush=True)


if __name__ == "__main__":
    main()

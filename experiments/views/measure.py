"""What each random change of a view costs: milliseconds an image, in a compiled view of a batch.

    python experiments/views/measure.py
    python experiments/views/measure.py --side 256 --crop 224 --channels 5

Images of 128 x 128 pixels and 3 channels, 64 in a batch, 16 bit. Each line is a view with a window and this change;
what it costs is its difference from the first line. The last line is a gradient step of a small network. The least of
several repetitions counts: other work on the machine only adds.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.config.rules import check_config
from bie_jax.objectives import METHODS, build_model
from bie_jax.objectives.base import unlabeled_batch
from bie_jax.views.images import train_view
from bie_jax.views.intensities import IntensityTable
from configs import ae_idr0093, base

OFF = {"flip": False, "rotate90": False, "brightness": 0.0}
CASES = {
    "window alone": {},
    "flip": {"flip": True},
    "rotate90": {"rotate90": True},
    "brightness": {"brightness": 0.1},
    "area, zoomed in": {"area": (0.2, "own")},
    "area, up to all": {"area": (0.2, 1.0)},
    "area, aspect, rotate": {"area": (0.2, 1.0), "aspect": 1.33, "rotate": True},
    "rotate": {"rotate": True},
    "offset": {"offset": 0.1},
    "gamma": {"gamma": 0.3},
    "blur 1": {"blur": 1.0},
    "blur 2": {"blur": 2.0},
    "noise": {"noise": 0.1},
    "channel_dropout": {"channel_dropout": 0.2},
}
_REPEATS = 15


def main() -> None:
    """Measure them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    sizes = parser.parse_args()
    shape = (sizes.batch, sizes.side, sizes.side, sizes.channels)
    image = jnp.asarray(np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16))
    row = jnp.ones((1, sizes.channels))
    table, plate = IntensityTable(30000 * row, row / 17000, row), jnp.zeros(sizes.batch, jnp.int32)
    own = sizes.crop**2 / sizes.side**2
    first = None
    for name, changes in CASES.items():
        config = base.get_config("simulated", "base")
        area = {"area": tuple(own if end == "own" else end for end in changes["area"])} if "area" in changes else {}
        config.data.augment.update(OFF | changes | area)
        config.data.crop_size = (sizes.crop, sizes.crop)
        data = check_config(config).data
        view = jax.jit(lambda key, data=data: train_view(key, image, plate, table, data))
        ms = milliseconds(view, jax.random.key(0)) / sizes.batch
        first = ms if first is None else first
        print(f"| {name} | {ms:.3f} | {ms - first:+.3f} |", flush=True)
    ms = milliseconds(*gradient_step(sizes.crop, sizes.channels, sizes.batch)) / sizes.batch
    print(f"| gradient of ae, resnet 18 | {ms:.1f} | |")


def gradient_step(crop: int, channels: int, batch: int):
    """A compiled gradient of an autoencoder, and what it takes."""
    config = ae_idr0093.get_config("simulated")
    config.model.encoder, config.model.resnet.depth, config.data.crop_size = "resnet", 18, (crop, crop)
    checked = check_config(config)
    model = build_model(checked, channels)
    image = jax.random.normal(jax.random.key(0), (batch, crop, crop, channels))
    variables = jax.jit(lambda: model.init(jax.random.key(0), image[:1], train=False))()
    params = variables.pop("params")

    def loss(params, image):
        seen = unlabeled_batch(image, jnp.ones((batch, channels)))
        return METHODS["ae"].objective(
            model, checked.objective, params, variables, seen, 0, jax.random.key(0), train=True, teacher=None
        )[0]

    return jax.jit(jax.grad(loss)), params, image


def milliseconds(function, *arguments) -> float:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


if __name__ == "__main__":
    main()

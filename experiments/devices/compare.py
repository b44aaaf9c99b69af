"""Does the number of devices change what is learned? The same ten steps on eight CPU devices and on one.

    python experiments/devices/compare.py

Prints the largest difference of a parameter and of a codebook entry, absolute and against its array's largest value.
"""

import os
import sys
from pathlib import Path

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np

from bie_jax.config.rules import check_config
from bie_jax.input.batches import train_batches
from bie_jax.input.image_set import open_image_set
from bie_jax.input.mixture import Mixture
from bie_jax.objectives import build_model
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.sharding import data_layout, put_batch
from bie_jax.training.state import create_train_state
from bie_jax.training.step import build_train_step
from bie_jax.views.intensities import intensity_table
from configs import base

STEPS = 10


def train(config, image_set, devices) -> tuple[dict, dict]:
    """Parameters and model state after STEPS steps on these devices."""
    layout = data_layout(devices)
    channels = len(image_set.channel_names)
    model = build_model(config, channels)
    tx, _ = build_optimizer(config.optimizer, {}, steps_per_epoch=2, epochs=config.train.epochs)
    batch_size = config.train.batch_size
    init = jax.jit(lambda key: create_train_state(config, model, tx, channels, key), out_shardings=layout.host)
    state = init(jax.random.key(0))
    table = intensity_table([image_set.intensities], image_set.channel_names, config.data.normalization, "set")
    step = build_train_step(config, model, table, layout, state, 100)
    batches = train_batches(Mixture((image_set,)), [np.arange(len(image_set))], [1.0], batch_size, 0, 0, 2)
    for _ in range(STEPS):
        batch = next(batches)
        zeros = np.zeros(batch_size, np.int32)
        state, _ = step(
            state,
            put_batch(
                {"image": batch["image"], "plate": zeros, "origin": np.repeat(zeros[:, None], 4, axis=1)}, layout.batch
            ),
        )
    return jax.device_get((state.params, state.model_state))


def main() -> None:
    """One row per encoder."""
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain looks at them
    image_set = open_image_set("simulated", "datasets")
    print("| encoder | parameters: largest difference | relative | codebook, statistics: largest | relative |")
    print("|---|---|---|---|---|")
    for encoder in ("residual_stack", "resnet"):
        config = base.get_config("simulated", "base")
        config.model.encoder = encoder
        if encoder == "resnet":
            config.model.bottleneck, config.data.crop_size = "pooled", (64, 64)
            config.model.quantizer.num_groups = 8
        checked = check_config(config)
        eight, one = (train(checked, image_set, jax.devices()[:count]) for count in (8, 1))
        row = []
        for a, b in zip(eight, one, strict=True):
            pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
            row.append(max(np.abs(x - y).max() for x, y in pairs))
            row.append(max(np.abs(x - y).max() / max(np.abs(y).max(), 1e-12) for x, y in pairs))
        print(f"| {encoder} | {row[0]:.1e} | {row[1]:.1e} | {row[2]:.1e} | {row[3]:.1e} |", flush=True)


if __name__ == "__main__":
    main()

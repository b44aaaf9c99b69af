"""What lies on each device: parameters, moments and gradients of large ViTs under several meshes.

    python experiments/scale/memory.py                          the state, from its shardings
    python experiments/scale/memory.py --compile --cases L      the whole step of an MAE, by the compiler's own account

Eight CPU devices. The state of LAMB in float32 is three numbers a parameter (itself and two moments), a step adds its
gradient. The compiler's account is that of the CPU's program: temporaries of a GPU's differ.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.config.rules import check_config
from bie_jax.config.schema import MeshConfig
from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.objectives import build_model
from bie_jax.training.memory import step_bytes
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.sharding import training_layout
from bie_jax.training.state import create_train_state, initial_variables
from bie_jax.training.step import build_train_step
from bie_jax.views.intensities import intensity_table
from configs import base

CHANNELS, SIDE, BATCH = 5, 224, 64
# "2B" stands in the place of "H" while it is looked at.
CASES = {"L": SIZES["L"], "H": SIZES["H"], "2B": ViTSize(2048, 40, 16, 8192)}
MESHES = ((8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 1, 4), (2, 2, 2))


def main() -> None:
    """A row for each network and mesh."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    print("| ViT | data x fsdp x tensor | M parameters | state, GB | with gradient | step of 64 images, GB |")
    print("|---|---|---|---|---|---|")
    for case in asked.cases:
        given = base.get_config("", "base")
        given.model.name, given.model.encoder = "mae", "vit"
        given.model.vit.size = "L" if case == "L" else "H"
        SIZES[given.model.vit.size] = CASES[case]
        given.model.latent_dim = CASES[case].width
        given.data.normalization_scope, given.train.batch_size, given.train.compute_dtype = "set", BATCH, "bfloat16"
        config = check_config(given)
        model = build_model(config, CHANNELS)
        blank = jax.ShapeDtypeStruct((1, SIDE, SIDE, CHANNELS), jnp.float32)
        shapes = jax.eval_shape(
            lambda key, image, of=model: initial_variables(of, image, key), jax.random.key(0), blank
        )
        tx, _ = build_optimizer(config.optimizer, shapes["params"], steps_per_epoch=100, epochs=config.train.epochs)
        state = jax.eval_shape(
            lambda key, of=model, by=tx, c=config: create_train_state(c, of, by, CHANNELS, key), jax.random.key(0)
        )
        for mesh in MESHES:
            layout = training_layout(MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2]))
            placed = layout.abstract(state)
            held = sum(_bytes_on_a_device(leaf) for leaf in jax.tree.leaves(placed))
            gradient = sum(_bytes_on_a_device(leaf) for leaf in jax.tree.leaves(placed.params))
            count = sum(leaf.size for leaf in jax.tree.leaves(state.params)) / 1e6
            step = f"{_compiled(config, model, layout, placed) / 1e9:.2f}" if asked.compile else ""
            print(
                f"| {case} | {' x '.join(map(str, mesh))} | {count:.0f} | {held / 1e9:.2f} | "
                f"{(held + gradient) / 1e9:.2f} | {step} |",
                flush=True,
            )


def _bytes_on_a_device(leaf) -> int:
    return int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize


def _compiled(config, model, layout, placed) -> int:
    names = [f"channel {number}" for number in range(CHANNELS)]
    of_set = {"mean": [300.0] * CHANNELS, "std": [50.0] * CHANNELS}
    described = {"name": "", "channel_names": names, "overall": of_set, "plates": {}}
    table = intensity_table([described], names, "zscore", "set")
    step = build_train_step(config, model, table, layout, placed, 100)
    batch = {
        "image": ((BATCH, SIDE, SIDE, CHANNELS), np.uint16),
        "plate": ((BATCH,), np.int32),
        "origin": ((BATCH, 4), np.int32),
    }
    shaped = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=layout.batch) for name, (shape, dtype) in batch.items()}
    return step_bytes(step.lower(placed, shaped).compile())


if __name__ == "__main__":
    main()

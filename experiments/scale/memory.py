"""What lies on each device: parameters, moments and gradients of large ViTs under several meshes.

    python experiments/scale/memory.py                          the state, from its shardings
    python experiments/scale/memory.py --compile                the whole step of an MAE, by the compiler's own account
    python experiments/scale/memory.py --smallest               of 256 images a device, on 1, 2, 4 and 8

Eight CPU devices. The state of LAMB in float32 is three numbers a parameter (itself and two moments), a step adds its
gradient. The compiler's account is that of the CPU's program: temporaries of a GPU's differ.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, MeshConfig
from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.objectives import build_model
from bie_jax.training.memory import step_bytes
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.sharding import Layout, data_layout, training_layout
from bie_jax.training.state import TrainState, create_train_state, initial_variables
from bie_jax.training.step import build_train_step
from bie_jax.views.intensities import intensity_table
from configs import base

CHANNELS, BATCH, BATCH_OF_A_DEVICE = 5, 64, 256
POOL = 0.75 * 80e9  # bytes that jax takes of a device of 80 GB, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise
# "2B" stands in the place of "H" while it is looked at.
CASES = {"L": SIZES["L"], "H": SIZES["H"], "2B": ViTSize(2048, 40, 16, 8192)}
MESHES = ["8,1,1", "4,2,1", "2,4,1", "1,8,1", "4,1,2", "2,1,4", "2,2,2"]


def mae_config(case: str, batch_size: int, remat: bool = False) -> Config:
    """The checked configuration of an MAE of 224 pixels in bfloat16, as it would run on a GPU."""
    given = base.get_config("", "base")
    given.model.name, given.model.encoder, given.model.cpu_kernels = "mae", "vit", False
    given.model.vit.size = "L" if case == "L" else "H"
    SIZES[given.model.vit.size] = CASES[case]
    given.model.latent_dim = CASES[case].width
    given.train.batch_size, given.train.compute_dtype, given.train.remat = batch_size, "bfloat16", remat
    return check_config(given)


def abstract_state(config: Config) -> TrainState:
    """Shapes and dtypes of a fresh state."""
    model = build_model(config, CHANNELS)
    blank = jax.ShapeDtypeStruct((1, *config.data.crop_size, CHANNELS), jnp.float32)
    shapes = jax.eval_shape(lambda key, image: initial_variables(model, image, key), jax.random.key(0), blank)
    tx, _ = build_optimizer(config.optimizer, shapes["params"], steps_per_epoch=100, epochs=config.train.epochs)
    return jax.eval_shape(lambda key: create_train_state(config, model, tx, CHANNELS, key), jax.random.key(0))


def build_step(config: Config, state: TrainState, layout: Layout) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The training step, and a batch for it that is only described."""
    names = [f"channel {number}" for number in range(CHANNELS)]
    of_set = {"mean": [300.0] * CHANNELS, "std": [50.0] * CHANNELS}
    described = {"name": "", "channel_names": names, "overall": of_set, "plates": {}}
    table = intensity_table([described], names, "zscore", "set")
    batch_size = config.train.batch_size
    batch = {
        "image": ((batch_size, *config.data.crop_size, CHANNELS), np.uint16),
        "plate": ((batch_size,), np.int32),
        "origin": ((batch_size, 4), np.int32),
    }
    shaped = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=layout.batch) for name, (shape, dtype) in batch.items()}
    return build_train_step(config, build_model(config, CHANNELS), table, layout, state, 100), shaped


def lower_step(config: Config, state: TrainState, layout: Layout) -> Any:
    """The training step of a state that is only described, ready to be compiled."""
    step, batch = build_step(config, state, layout)
    return step.lower(layout.abstract(state), batch)


def under_meshes(cases: list[str], meshes: list[str], compiles: bool) -> None:
    """A row for each network and mesh."""
    print(f"| ViT | data x fsdp x tensor | M parameters | state, GB | with gradient | step of {BATCH} images, GB |")
    print("|---|---|---|---|---|---|")
    for case in cases:
        config = mae_config(case, BATCH)
        state = abstract_state(config)
        for mesh in meshes:
            data, fsdp, tensor = map(int, mesh.split(","))
            layout = training_layout(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
            placed = layout.abstract(state)
            held = sum(_bytes_on_a_device(leaf) for leaf in jax.tree.leaves(placed))
            gradient = sum(_bytes_on_a_device(leaf) for leaf in jax.tree.leaves(placed.params))
            count = sum(leaf.size for leaf in jax.tree.leaves(state.params)) / 1e6
            step = f"{step_bytes(lower_step(config, state, layout).compile()) / 1e9:.2f}" if compiles else ""
            print(
                f"| {case} | {mesh.replace(',', ' x ')} | {count:.0f} | {held / 1e9:.2f} | "
                f"{(held + gradient) / 1e9:.2f} | {step} |",
                flush=True,
            )


def on_few_devices(cases: list[str]) -> None:
    """A row for each network, with and without rematerialization: the whole step, up to the first count that fits."""
    counts = (1, 2, 4, 8)
    print(f"| ViT | remat | {' | '.join(f'fsdp {count}, GB' for count in counts)} |\n|---|---|" + "---|" * len(counts))
    for case in cases:
        for remat in (False, True):
            row = [""] * len(counts)
            for place, count in enumerate(counts):
                config = mae_config(case, BATCH_OF_A_DEVICE * count, remat)
                layout = data_layout(jax.devices()[:count]).with_state_in_parts()
                size = step_bytes(lower_step(config, abstract_state(config), layout).compile())
                row[place] = f"{size / 1e9:.1f}"
                if size <= POOL:
                    break
            print(f"| {case} | {'yes' if remat else 'no'} | {' | '.join(row)} |", flush=True)


def _bytes_on_a_device(leaf: jax.ShapeDtypeStruct) -> int:
    assert leaf.sharding is not None
    return int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize


def main() -> None:
    """One of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--meshes", nargs="+", default=MESHES, help="data,fsdp,tensor")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--smallest", action="store_true")
    asked = parser.parse_args()
    if asked.smallest:
        on_few_devices(asked.cases)
    else:
        under_meshes(asked.cases, asked.meshes, asked.compile)


if __name__ == "__main__":
    main()

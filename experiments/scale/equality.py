"""Does it matter for what is learned how devices share the work? The same ten steps under several meshes.

    python experiments/scale/equality.py
    python experiments/scale/equality.py --cases resnet18-small-lamb --meshes 8,1,1 2,4,1 1,8,1
    python experiments/scale/equality.py --cases resnet18-small-lamb --meshes 8,1,1 2,4,1 1,8,1 --float64

Eight CPU devices beside one. Printed is the largest difference of a parameter and of a number of the other collections
(codebook, batch statistics), against the largest number of its array, after one step and after ten. Rounding shrinks
with the number of digits, a fault does not: with --float64 every float32 that the code names is a float64, and a step
that computes with another type is refused.
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

FLOAT64 = "--float64" in sys.argv
if FLOAT64:  # before flax and our modules are imported, some of which keep the type as a default
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64

from jax.extend.core import Jaxpr, jaxprs_in_params

from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, ConfigError, MeshConfig
from bie_jax.config.set_rules import check_heads
from bie_jax.models.encoders.vit import SIZES
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.objectives import build_model
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.sharding import Layout, data_layout, put_batch, training_layout
from bie_jax.training.state import TrainState, create_train_state, initial_variables
from bie_jax.training.step import build_train_step
from bie_jax.views.intensities import intensity_table
from configs import base

STEPS = 10
MESHES = ["8,1,1", "2,4,1", "1,8,1", "2,2,2", "1,1,8"]
CHANNELS = 3
VIT = {
    "model.encoder": "vit",
    "model.vit.size": "S",
    "model.vit.decoder_width": 64,
    "model.vit.decoder_depth": 2,
    "model.vit.decoder_heads": 4,
    "model.vit.patch_size": 8,
}
MAE = {"model.name": "mae", "model.latent_dim": 384}
DINO = {
    "model.name": "dino",
    "model.decoder": "none",
    "objective.reconstruction": 0.0,
    "train.ema_decay": 0.99,
    "train.early_stopping_patience_epochs": 0,
}
# Of a ViT whose heads eight devices can share; it stands in the place of "Ti".
EIGHT_HEADS = VIT | {"model.vit.size": "Ti", "model.vit.decoder_heads": 8}
SIZES["Ti"] = ViTSize(256, 4, 8, 1024)
RESNET = {
    "model.encoder": "resnet",
    "model.bottleneck": "pooled",
    "model.quantizer.num_groups": 8,
    "data.crop_size": (64, 64),
}
NETWORKS = {
    "stack": {"model.residual_stack.num_residual_layers": 2},
    "resnet18": RESNET,
    # As deep, a quarter as wide, of fewer and smaller images: minutes in float64.
    "resnet18small": RESNET
    | {
        "model.resnet.width": 16,
        "model.resnet.stem": "small",
        "data.crop_size": (32, 32),
        "train.batch_size": 16,
    },
    "mae": VIT | MAE,
    "mae8": EIGHT_HEADS | MAE | {"model.latent_dim": 256},
    "dino": VIT | DINO,
    "dino8": EIGHT_HEADS | DINO,
}
OPTIMIZERS = {"sgd": {"optimizer.name": "sgd", "optimizer.lr": 0.05, "optimizer.min_lr": 0.0}, "lamb": {}}
CASES = [f"{network}-{optimizer}" for network in NETWORKS for optimizer in OPTIMIZERS]


def config_of(case: str, float64: bool) -> Config:
    """The checked configuration of a case."""
    network, optimizer = case.split("-")
    config = base.get_config("simulated", "base")
    config.data.normalization_scope, config.train.batch_size = "set", 32
    config.optimizer.warmup_epochs = 0
    config.update_from_flattened_dict(NETWORKS[network] | OPTIMIZERS[optimizer])
    checked = check_config(config)
    if float64:  # no type that a run may have
        checked = checked.model_copy(update={"train": checked.train.model_copy(update={"compute_dtype": "float64"})})
    return checked


def train(config: Config, layout: Layout) -> list[tuple[dict, dict]]:
    """Parameters and other collections after one step and after STEPS."""
    model = build_model(config, CHANNELS)
    height, width = config.data.crop_size
    blank = jnp.zeros((1, height, width, CHANNELS))
    shapes = jax.eval_shape(lambda key, image: initial_variables(model, image, key), jax.random.key(0), blank)
    tx, _ = build_optimizer(config.optimizer, shapes["params"], steps_per_epoch=2, epochs=config.train.epochs)

    def fresh(key: jax.Array) -> TrainState:
        return create_train_state(config, model, tx, CHANNELS, key)

    shardings = layout.of(jax.eval_shape(fresh, jax.random.key(0)))
    state = jax.jit(fresh, out_shardings=shardings)(jax.random.key(0))
    names = [f"channel {number}" for number in range(CHANNELS)]
    of_set = {"mean": [300.0] * CHANNELS, "std": [50.0] * CHANNELS}
    table = intensity_table(
        [{"name": "", "channel_names": names, "overall": of_set, "plates": {}}], names, "zscore", "set"
    )
    table = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), table)
    step = build_train_step(config, model, table, layout, state, 100)
    rng, kept = np.random.default_rng(0), []
    for number in range(STEPS):
        size = config.train.batch_size
        scale = 1 + rng.random((size, 1, 1, CHANNELS))
        images = rng.poisson(200 * scale, (size, height, width, CHANNELS)).astype(np.uint16)
        rows = np.arange(size, dtype=np.int32)
        batch = {"image": images, "plate": np.zeros(size, np.int32), "origin": np.repeat(rows[:, None], 4, axis=1)}
        placed = put_batch(batch, layout.batch)
        if FLOAT64 and number == 0:
            _refuse_other_floats(jax.make_jaxpr(step)(state, placed).jaxpr)
        state, _ = step(state, placed)
        if number in (0, STEPS - 1):
            kept.append(jax.device_get((state.params, state.model_state)))
    return kept


def _refuse_other_floats(jaxpr: Jaxpr) -> None:
    """Raise for a number anywhere in a program that is of another floating point type than float64."""
    for equation in jaxpr.eqns:
        for variable in (*equation.invars, *equation.outvars):
            dtype = getattr(variable.aval, "dtype", jnp.int32)
            if jnp.issubdtype(dtype, jnp.floating) and dtype != jnp.float64:
                raise TypeError(f"{dtype} in a step that is to be of float64: {equation}")
        for inner in jaxprs_in_params(equation.params):
            _refuse_other_floats(inner)


def largest_difference(ours: dict, theirs: dict) -> float:
    """Of any number, against the largest of its array."""
    pairs = (map(np.float64, pair) for pair in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    return max((float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)) for a, b in pairs if a.size), default=0.0)


def main() -> None:
    """A row for each case and mesh."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--meshes", nargs="+", default=MESHES, help="data,fsdp,tensor")
    parser.add_argument("--float64", action="store_true")
    asked = parser.parse_args()
    print("| case | mesh | parameters, 1 step | others, 1 step | parameters, 10 steps | others, 10 steps |")
    print("|---|---|---|---|---|---|")
    for case in asked.cases:
        config = config_of(case, asked.float64)
        one = train(config, data_layout(jax.devices()[:1]))
        for mesh in asked.meshes:
            data, fsdp, tensor = map(int, mesh.split(","))
            try:
                check_heads(config.model, tensor)
            except ConfigError:
                print(f"| {case} | {data} x {fsdp} x {tensor} | refused |" + " |" * 3, flush=True)
                continue
            found = train(config, training_layout(MeshConfig(data=data, fsdp=fsdp, tensor=tensor)))
            row = [
                f"{largest_difference(ours, theirs):.0e}"
                for after in zip(found, one, strict=True)
                for ours, theirs in zip(*after, strict=True)
            ]
            print(f"| {case} | {data} x {fsdp} x {tensor} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

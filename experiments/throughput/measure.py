"""Compile seconds, images/s and peak memory of the training step; and the three forms of a convolution.

    python experiments/throughput/measure.py                 every case, each in a process of its own
    python experiments/throughput/measure.py --case resnet-64

Needs jax, flax and optax only (no set, no Grain), so it runs on any machine that has an accelerator.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.augment import intensity_table
from bie_jax.config import check_config
from bie_jax.models import build_model
from bie_jax.models.conv import Conv
from bie_jax.objectives import OBJECTIVES
from bie_jax.optimizer import build_optimizer
from bie_jax.sharding import data_mesh, put_batch, replicated, split_batch
from bie_jax.train_state import create_train_state
from bie_jax.train_step import build_train_step
from configs import vqvae_idr0093

CASES = {
    "stack150-64": ("residual_stack", 64, 32),
    "stack150-224": ("residual_stack", 224, 8),
    "resnet-64": ("resnet", 64, 64),
    "resnet-224": ("resnet", 224, 16),
    "simulated-64": ("simulated", 64, 64),
    "simulated-224": ("simulated", 224, 16),
}
CHANNELS = 5
STEPS = 4


def measure_step(case: str) -> None:
    """Print one row of the first table."""
    encoder, size, batch_size = CASES[case]
    config = vqvae_idr0093.get_config("simulated" if encoder == "simulated" else "")
    if encoder != "simulated":
        config.model.encoder = encoder
    config.data.crop_size, config.train.batch_size = size, batch_size
    config = check_config(config)
    model = build_model(config.model, CHANNELS)
    tx, _ = build_optimizer(config.optimizer, steps_per_epoch=100, epochs=config.train.epochs)
    blank = jnp.zeros((batch_size, size, size, CHANNELS))

    def aux_of(params, model_state, image):
        return OBJECTIVES["vqvae"](model, params, model_state, image, jnp.ones((len(image), CHANNELS)), train=True)[1]

    mesh = data_mesh()
    split, everywhere = split_batch(mesh), replicated(mesh)
    state = jax.jit(lambda key: create_train_state(model, tx, aux_of, blank, key), out_shardings=everywhere)(
        jax.random.key(0)
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    ones = [1.0] * CHANNELS
    names = [f"channel {number}" for number in range(CHANNELS)]
    described = {"name": "", "channel_names": names, "overall": {"mean": ones, "std": ones}, "plates": {}}
    table = intensity_table([described], names, "zscore", "set")
    step = build_train_step(config, model, table, split, everywhere)
    counts = np.random.default_rng(0).poisson(1000, (batch_size, size, size, CHANNELS)).astype(np.uint16)
    batch = put_batch({"image": counts, "plate": np.zeros(batch_size, np.int32)}, split)
    start = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    compile_seconds = time.perf_counter() - start
    state, loss = compiled(state, batch)
    float(loss)
    start = time.perf_counter()
    for _ in range(STEPS):
        state, loss = compiled(state, batch)
    assert np.isfinite(float(loss))
    rate = STEPS * batch_size / (time.perf_counter() - start)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"| {case} | {parameters / 1e6:.2f} | {batch_size} | {compile_seconds:.1f} | {rate:.1f} | {peak_gb:.2f} |",
        flush=True,
    )


def measure_conv() -> None:
    """Print the second table: forward and both gradients of one 3 x 3 layer, as a convolution and as a product."""
    print("\n| map | channels | where | XLA convolution, ms | matrix product, ms |\n|---|---|---|---|---|")
    for size, channels in ((32, 32), (16, 32), (8, 128), (4, 256), (2, 512)):
        for layers in (0, 4):
            times = []
            for as_product in (False, True):
                times.append(_time_conv(size, channels, layers, as_product))
            where = f"scan of {layers}" if layers else "alone"
            print(f"| {size} x {size} | {channels} | {where} | {times[0]:.1f} | {times[1]:.1f} |", flush=True)


def _time_conv(size: int, channels: int, layers: int, as_product: bool) -> float:
    """Milliseconds per layer, batch 64."""
    x = jax.random.normal(jax.random.key(0), (64, size, size, channels))
    kernel = jax.random.normal(jax.random.key(1), (max(layers, 1), 3, 3, channels, channels)) * 0.01

    def conv(x, w):
        if as_product:
            layer = Conv(channels, (3, 3), padding=((1, 1), (1, 1)), use_bias=False, in_scan=True)
            return layer.apply({"params": {"kernel": w}}, x)
        return jax.lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def loss(kernel, x):
        if layers:
            x, _ = jax.lax.scan(lambda x, w: (x + conv(x, w), None), x, kernel)
        else:
            x = conv(x, kernel[0])
        return jnp.square(x).mean()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    jax.block_until_ready(gradient(kernel, x))
    start = time.perf_counter()
    for _ in range(3):
        jax.block_until_ready(gradient(kernel, x))
    return (time.perf_counter() - start) / 3 / max(layers, 1) * 1e3


def main() -> None:
    """All cases, or the one asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=[*CASES, "conv"])
    case = parser.parse_args().case
    if case == "conv":
        measure_conv()
    elif case is not None:
        measure_step(case)
    else:
        print(f"jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}, float32\n")
        print(
            "| case | M parameters | batch | compile, s | images/s | peak RSS, GB |\n|---|---|---|---|---|---|",
            flush=True,
        )
        for name in [*CASES, "conv"]:
            subprocess.run([sys.executable, __file__, "--case", name], check=True)


if __name__ == "__main__":
    main()

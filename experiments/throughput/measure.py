"""What every encoder and objective costs: parameters, FLOPs, compile seconds, images/s, share of the peak, memory.

    python experiments/throughput/measure.py                                     every case of the first table
    python experiments/throughput/measure.py --cases vqvae-resnet50 mae-vit_l16  some of them
    python experiments/throughput/measure.py --size 224 --batch 1 8 64 --dtype bfloat16

Each case runs in a process of its own, on whatever device jax finds. FLOPs are counted in the program (a multiply-add
is two); the peak is that of a matrix product of 4096 x 4096 in the same type on the same device, measured in the same
run.
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

from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config
from bie_jax.objectives import build_model
from bie_jax.training.flops import count_flops
from bie_jax.training.memory import step_bytes
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.sharding import data_layout, put_batch
from bie_jax.training.state import create_train_state, initial_variables
from bie_jax.training.step import build_train_step
from bie_jax.views.intensities import intensity_table
from configs import base

ENCODERS = {
    **{f"resnet{depth}": {"encoder": "resnet", "resnet": {"depth": depth}} for depth in (18, 34, 50, 101, 152)},
    **{
        f"vit_{size.lower()}{patch}": {"encoder": "vit", "vit": {"size": size, "patch_size": patch}}
        for size, patch in (("S", 16), ("B", 16), ("L", 16), ("H", 14))
    },
    "stack150": {"encoder": "residual_stack"},
}
# Methods that compare views, and how many small crops lie beside the two.
VIEW_METHODS = {"simclr": ("simclr", 0), "dino": ("dino", 0), "dino_crops": ("dino", 6), "lejepa": ("lejepa", 0)}
METHODS = ("ae", "vae", "vqvae", "mae", *VIEW_METHODS)
CASES = [
    f"{method}-{encoder}" for encoder in ENCODERS for method in METHODS if method != "mae" or encoder.startswith("vit")
]
CHANNELS = 5
MEAN_COUNT = 1000.0
STEPS = 3


def config_of(case: str, size: int, batch_size: int, dtype: str) -> Config:
    """The checked configuration of a case, of 16 numbers per image (of an MAE, the encoder's width)."""
    method, encoder = case.split("-")
    config = base.get_view_config("", "base") if method in VIEW_METHODS else base.get_config("", "base")
    for key, value in ENCODERS[encoder].items():
        config.model[key].update(value) if isinstance(value, dict) else config.model.update({key: value})
    config.model.name = method
    if method in VIEW_METHODS:
        config.model.name, config.objective.crops.num_local = VIEW_METHODS[method]
        config.train.ema_decay = 0.996 if config.model.name == "dino" else 0.0
        # 96 of 224 pixels as published, in whole patches and strides.
        config.objective.crops.local_size = (size * 3 // 7 // 16 * 16,) * 2
    if method == "mae":
        config.model.latent_dim = {"S": 384, "B": 768, "L": 1024, "H": 1280}[config.model.vit.size]
    config.data.crop_size = (size, size)
    config.train.batch_size, config.train.compute_dtype = batch_size, dtype
    return check_config(config)


def measure(case: str, size: int, batch_size: int, dtype: str, peak: float) -> None:
    """Print one row."""
    config = config_of(case, size, batch_size, dtype)
    model = build_model(config, CHANNELS)
    layout = data_layout()
    blank = jax.ShapeDtypeStruct((1, size, size, CHANNELS), jnp.float32)
    shapes = jax.eval_shape(lambda key, image: initial_variables(model, image, key), jax.random.key(0), blank)
    tx, _ = build_optimizer(config.optimizer, shapes["params"], steps_per_epoch=100, epochs=config.train.epochs)
    state = jax.jit(lambda key: create_train_state(config, model, tx, CHANNELS, key), out_shardings=layout.host)(
        jax.random.key(0)
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    step = build_train_step(config, model, _table(), layout, state, 100)
    counts = np.random.default_rng(0).poisson(MEAN_COUNT, (batch_size, size, size, CHANNELS)).astype(np.uint16)
    zeros = np.zeros(batch_size, np.int32)
    batch = put_batch({"image": counts, "plate": zeros, "origin": np.repeat(zeros[:, None], 4, axis=1)}, layout.batch)
    forward = count_flops(
        lambda variables, image: model.apply(variables, image, train=False, method="encode")[1]["embedding"],
        shapes,
        blank,
    )
    step_flops = count_flops(step, state, batch) / batch_size
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
    print(
        f"| {case} | {size} | {batch_size} | {dtype} | {parameters / 1e6:.2f} | {forward / 1e9:.2f} | "
        f"{step_flops / 1e9:.1f} | {compile_seconds:.1f} | {rate:.3g} | {100 * rate * step_flops / peak:.0f} % | "
        f"{step_bytes(compiled) / 1e9:.2f} | {_peak_gb():.2f} |",
        flush=True,
    )


def matmul_peak(dtype: str) -> float:
    """Floating point operations per second of a large matrix product."""
    n = 4096
    x = jnp.ones((n, n), dtype)
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(x))
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(x))
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def _table():
    """What brings the counts to mean 0 and spread 1: a network without normalization layers overflows on raw ones."""
    means, spreads = [MEAN_COUNT] * CHANNELS, [MEAN_COUNT**0.5] * CHANNELS
    names = [f"channel {number}" for number in range(CHANNELS)]
    described = {"name": "", "channel_names": names, "overall": {"mean": means, "std": spreads}, "plates": {}}
    return intensity_table([described], names, "zscore", "set")


def _peak_gb() -> float:
    """Most memory in use so far: of the device where it says so, else of this process."""
    stats = jax.devices()[0].memory_stats()
    return (stats["peak_bytes_in_use"] if stats else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1e3) / 1e9


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--size", type=int, default=224, help="side of the images, pixels; a multiple of 32 and of 14")
    parser.add_argument("--batch", type=int, nargs="+", default=[8])
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--peak", type=float, help=argparse.SUPPRESS)  # a child measures one case against this
    asked = parser.parse_args()
    if asked.peak:
        measure(asked.cases[0], asked.size, asked.batch[0], asked.dtype[0], asked.peak)
        return
    peaks = {dtype: matmul_peak(dtype) for dtype in asked.dtype}
    said = ", ".join(f"{peak / 1e9:.0f} GFLOP/s in {dtype}" for dtype, peak in peaks.items())
    print(f"jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}, matrix product {said}\n")
    print(
        "| case | px | batch | type | M parameters | embed, GFLOP/image | step, GFLOP/image | compile, s | images/s | "
        "of peak | step, GB | peak, GB |\n|" + "---|" * 12,
        flush=True,
    )
    for case in asked.cases:
        for dtype in asked.dtype:
            for batch_size in asked.batch:
                options = ["--size", str(asked.size), "--batch", str(batch_size), "--dtype", dtype]
                command = [sys.executable, __file__, "--cases", case, *options, "--peak", str(peaks[dtype])]
                if subprocess.run(command).returncode:
                    print(f"| {case} | {asked.size} | {batch_size} | {dtype} | failed |" + " |" * 7, flush=True)


if __name__ == "__main__":
    main()

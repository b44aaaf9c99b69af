"""What this project does on a GPU: one command, under eight minutes, one page of tables.

    python experiments/gpu/measure.py                  on the device that jax finds
    python experiments/gpu/measure.py --rehearse       small everything, to see on a CPU that all of it runs

Sections, each in a process of its own that is ended when its share of the time is over: training steps in bfloat16
(images/s, share of the measured peak of matrix products, memory, compile seconds), the same under other flags of XLA,
attention by cuDNN beside ours, the same step on CPU and GPU, 1-D convolutions of the outlines' encoder in bfloat16, the
largest costs of a profile, and reading images from disk beside it all.
"""

import argparse
import collections
import functools
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

TOTAL_SECONDS = 470
# Case -> batch size.
STEPS = {
    "vqvae-resnet50": 256,
    "mae-vit_s16": 512,
    "mae-vit_b16": 512,
    "mae-vit_l16": 256,
    "dino-vit_s16": 256,
    "dino_crops-vit_s16": 128,
}
XLA_FLAGS = {
    "as it is": "",
    "latency hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "no autotuning": "--xla_gpu_autotune_level=0",
    "no Triton products": "--xla_gpu_enable_triton_gemm=false",
}


def steps(rehearse: bool) -> None:
    """Images per second of training steps."""
    import jax

    from experiments.throughput import measure

    peak = measure.matmul_peak("bfloat16")
    _head_of_steps(f"Training steps in bfloat16; matrix product {peak / 1e12:.3g} TFLOP/s")
    for case, batch in STEPS.items():
        try:
            measure.measure(case, 64 if rehearse else 224, 2 if rehearse else batch, "bfloat16", peak)
        except jax.errors.JaxRuntimeError as error:  # out of memory
            print(f"| {case} | {batch} | {str(error).splitlines()[0][:120]} |" + " |" * 9, flush=True)


def flags_of_xla(rehearse: bool) -> None:
    """One case under other flags; a process for each, since they are read once."""
    _head_of_steps("ResNet-50 VQ-VAE and ViT-B MAE under flags of XLA")
    for title, text in XLA_FLAGS.items():
        for case in ("vqvae-resnet50", "mae-vit_b16"):
            print(f"| **{title}** |" + " |" * 11, flush=True)
            options = ["--size", "64", "--batch", "2"] if rehearse else ["--size", "224", "--batch", str(STEPS[case])]
            command = [sys.executable, str(REPOSITORY / "experiments/throughput/measure.py"), "--cases", case, *options]
            # A flag that this jax does not know, or none on a CPU, is said by XLA.
            subprocess.run(
                [*command, "--dtype", "bfloat16", "--peak", "1e15"],
                env=os.environ | {"XLA_FLAGS": "" if rehearse else text},
            )


def attention(rehearse: bool) -> None:
    """Ours beside jax's own, forward and backward."""
    import jax
    import jax.numpy as jnp

    from bie_jax.models.layers.transformer import attention as ours

    def by_library(implementation):
        def call(query, key, value):  # [B, heads, N, d] -> jax's [B, N, heads, d]
            parts = (part.swapaxes(1, 2) for part in (query, key, value))
            return jax.nn.dot_product_attention(*parts, implementation=implementation).swapaxes(1, 2)

        return call

    print("\n### Attention in bfloat16, forward and backward, ms\n\n| shape | ours | XLA | cuDNN |\n|---|---|---|---|")
    shapes = [(2, 2, 16, 8)] if rehearse else [(128, 12, 197, 64), (64, 16, 197, 64), (16, 16, 1025, 64)]
    for shape in shapes:
        given = [jax.random.normal(jax.random.key(number), shape, jnp.bfloat16) for number in range(3)]
        row = []
        for function in (ours, by_library("xla"), by_library("cudnn")):
            gradient = jax.jit(jax.grad(lambda *of, f=function: f(*of).astype(jnp.float32).sum(), argnums=(0, 1, 2)))
            try:
                row.append(f"{1000 * _seconds(functools.partial(gradient, *given)):.3f}")
            except RuntimeError as error:  # there is no cuDNN, or it does not take the shape
                row.append(str(error).splitlines()[0][:60])
        print(f"| {shape} | {' | '.join(row)} |", flush=True)


def equality(rehearse: bool) -> None:
    """A step on the CPU and on the GPU, in float32."""
    import jax

    from bie_jax.training.sharding import data_layout
    from experiments.scale import equality as scale

    accelerator, cpu = jax.devices()[:1], jax.devices("cpu")[:1]
    print("\n### CPU and GPU, float32: largest difference after 1 step and after 10, of each array's largest number\n")
    print("| case | parameters, 1 | others, 1 | parameters, 10 | others, 10 |\n|---|---|---|---|---|")
    # Products of float32 in TF32 are right to three digits.
    jax.config.update("jax_default_matmul_precision", "highest")
    for case in ("stack-sgd",) if rehearse else ("stack-sgd", "resnet18-sgd", "mae-sgd"):
        config = scale.config_of(case, False)
        found = [scale.train(config, data_layout(devices)) for devices in (accelerator, cpu)]
        row = [
            f"{scale.largest_difference(ours, theirs):.0e}"
            for after in zip(*found, strict=True)
            for ours, theirs in zip(*after, strict=True)
        ]
        print(f"| {case} | {' | '.join(row)} |", flush=True)


def ring(rehearse: bool) -> None:
    """The outlines' encoder, whose 1-D convolutions have strides and dilation."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bie_jax.models.encoders.ring import RingEncoder
    from bie_jax.shapes.distance_matrix import normalized_distances

    count, points = (4, 64) if rehearse else (64, 256)
    angle = 2 * np.pi * np.arange(points) / points
    radius = 10 + np.random.default_rng(0).random((count, 1)) * np.cos(3 * angle)
    outlines = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1).astype(np.float32)
    matrix = np.asarray(normalized_distances(outlines)[0])[..., None]
    encoder = RingEncoder(width=64, depth=5, kernel_size=5, keeps="nothing")
    variables = encoder.init(jax.random.key(0), matrix, train=False)
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    encode = jax.jit(lambda variables, matrix: encoder.apply(variables, matrix, train=False))
    whole, half = encode(variables, matrix), encode(halves, jnp.asarray(matrix, jnp.bfloat16))
    error = float(jnp.abs(half.astype(jnp.float32) - whole).max() / jnp.abs(whole).max())
    seconds = [
        _seconds(lambda: encode(variables, matrix)),
        _seconds(lambda: encode(halves, matrix.astype(jnp.bfloat16))),
    ]
    print(f"\n### Ring encoder, {matrix.shape}: bfloat16 differs by {error:.1e} of the largest number; ", end="")
    print(f"{1000 * seconds[0]:.2f} ms in float32, {1000 * seconds[1]:.2f} ms in bfloat16", flush=True)


def profile(rehearse: bool) -> None:
    """The largest costs of the ResNet-50 VQ-VAE's step."""
    import jax

    from experiments.throughput import measure

    print("\n### Largest costs of the ResNet-50 VQ-VAE's steps\n\n| operation | ms | share |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder, create_perfetto_trace=True)
        with open(os.devnull, "w") as nowhere:
            said, sys.stdout = sys.stdout, nowhere
            measure.measure("vqvae-resnet50", 64 if rehearse else 224, 2 if rehearse else 256, "bfloat16", 1e15)
            sys.stdout = said
        jax.profiler.stop_trace()
        (trace,) = Path(folder).rglob("perfetto_trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event.get("name") == "process_name"}
    on_device = [e for e in events if "dur" in e and "/device:" in names.get(e.get("pid"), "")]
    spent = collections.Counter()
    for event in on_device or [e for e in events if "dur" in e and "hlo_op" in e.get("args", {})]:
        spent[event["name"].rstrip("0123456789").rstrip(".")] += event["dur"] / 1000
    for name, milliseconds in spent.most_common(8):
        print(f"| {name[:80]} | {milliseconds:.1f} | {milliseconds / sum(spent.values()):.0%} |", flush=True)


def reading(rehearse: bool) -> None:
    """Batches of a built set, as training asks for them."""
    import numpy as np
    from absl import flags

    from bie_jax.input.batches import train_batches
    from bie_jax.input.image_set import open_image_set
    from bie_jax.input.mixture import Mixture
    from data.studies.simulated.build import build_simulated
    from data.studies.simulated.simulation import Design

    flags.FLAGS.mark_as_parsed()
    side = 32 if rehearse else 224
    with tempfile.TemporaryDirectory() as folder:
        design = Design(plates=1, control_wells=2, wells_per_sirna=1, sites=4 if rehearse else 12, image_size=side)
        build_simulated(folder, design, os.cpu_count())
        image_set = open_image_set("simulated", folder)
        threads = os.cpu_count()
        batches = train_batches(Mixture((image_set,)), [np.arange(len(image_set))], [1.0], 64, 0, 0, threads)
        next(batches)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < (1 if rehearse else 8):
            count += len(next(batches)["row"])
        rate = count / (time.perf_counter() - started)
    print(f"\n### Reading {side} x {side} x 5 uint16 with {threads} threads: {rate:.0f} images/s", flush=True)


SECTIONS = {  # -> seconds
    "steps": (steps, 200),
    "equality": (equality, 60),
    "attention": (attention, 30),
    "ring": (ring, 20),
    "profile": (profile, 60),
    "reading": (reading, 40),
    "flags_of_xla": (flags_of_xla, 90),
}


def _head_of_steps(title: str) -> None:
    columns = "case | px | batch | type | M parameters | embed, GFLOP/image | step, GFLOP/image | compile, s | images/s"
    print(f"\n### {title}\n\n| {columns} | of peak | step, GB | peak, GB |\n|" + "---|" * 12, flush=True)


def _seconds(function) -> float:
    """Median of ten calls."""
    import jax

    jax.block_until_ready(function())
    found = []
    for _ in range(10):
        started = time.perf_counter()
        jax.block_until_ready(function())
        found.append(time.perf_counter() - started)
    return sorted(found)[5]


def main() -> None:
    """All sections, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--section", choices=list(SECTIONS), help="only this one, without a limit")
    asked = parser.parse_args()
    if asked.section:
        SECTIONS[asked.section][0](asked.rehearse)
        return
    started = time.monotonic()
    import jaxlib

    print(f"jaxlib {jaxlib.__version__}", flush=True)
    for name, (_, seconds) in SECTIONS.items():
        left = TOTAL_SECONDS - (time.monotonic() - started)
        command = [sys.executable, __file__, "--section", name, *["--rehearse"] * asked.rehearse]
        try:
            done = subprocess.run(command, timeout=None if asked.rehearse else max(1.0, min(seconds, left)))
            if done.returncode:
                print(f"\n**{name} failed with status {done.returncode}**", flush=True)
        except subprocess.TimeoutExpired:
            print(f"\n**{name}: its {seconds} s, or all {TOTAL_SECONDS}, are over**", flush=True)
    print(f"\n{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()

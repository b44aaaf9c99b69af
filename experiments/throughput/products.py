"""The matrix products of a ViT block's dense layers, forward and both gradients: XLA's beside PyTorch's.

    python experiments/throughput/products.py
    python experiments/throughput/products.py --width 768 --tokens 394

What is left of a training step's distance to PyTorch when everything but its products is free. Medians of the rounds,
each library's in a row: threads of the other one go on waiting, awake, for longer than a product takes.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

Functions = dict[str, Callable[[], object]]  # "xla" and "torch"


def products(tokens: int, inputs: int, outputs: int) -> dict[str, Functions]:
    """The three products of one dense layer: [tokens, inputs] times [inputs, outputs], and both gradients."""
    rng = np.random.default_rng(0)
    x, w, dy = (
        rng.normal(size=shape).astype(np.float32) for shape in ((tokens, inputs), (inputs, outputs), (tokens, outputs))
    )
    # PyTorch keeps its kernels [outputs, inputs].
    tx, tw, tdy = torch.tensor(x), torch.tensor(w.T.copy()), torch.tensor(dy)
    jx, jw, jdy = jnp.asarray(x), jnp.asarray(w), jnp.asarray(dy)
    forward = jax.jit(lambda x, w: x @ w)
    of_input = jax.jit(lambda dy, w: dy @ w.T)
    of_kernel = jax.jit(lambda x, dy: x.T @ dy)
    return {
        "forward": {"xla": lambda: finish(forward, jx, jw), "torch": lambda: tx @ tw.T},
        "gradient of the input": {"xla": lambda: finish(of_input, jdy, jw), "torch": lambda: tdy @ tw},
        "gradient of the kernel": {"xla": lambda: finish(of_kernel, jx, jdy), "torch": lambda: tdy.T @ tx},
    }


def finish(program: Callable[..., object], *arrays: jax.Array) -> None:
    """Run a compiled program and wait for what it gives."""
    jax.block_until_ready(program(*arrays))


def seconds(functions: Functions, rounds: int) -> dict[str, float]:
    """Median seconds of each; the first round warms up."""
    medians = {}
    for name, function in functions.items():
        time.sleep(0.2)
        taken = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
        medians[name] = float(np.median(taken[1:]))
    return medians


def main() -> None:
    """One table, and the sum over its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=8 * 197, help="of the whole batch")
    parser.add_argument("--depth", type=int, default=12, help="blocks that the last line is for")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    width = asked.width
    layers = {
        "qkv": (width, 3 * width),
        "attention_out": (width, width),
        "mlp_in": (width, 4 * width),
        "mlp_out": (4 * width, width),
    }
    print(f"{asked.tokens} tokens, {torch.get_num_threads()} threads, jax {jax.__version__}, torch {torch.__version__}")
    print("\n| layer | product | XLA, GFLOP/s | PyTorch, GFLOP/s |\n|---|---|---|---|")
    total = {"xla": 0.0, "torch": 0.0}
    for layer, (inputs, outputs) in layers.items():
        for product, functions in products(asked.tokens, inputs, outputs).items():
            taken = seconds(functions, asked.rounds)
            gflop = 2e-9 * asked.tokens * inputs * outputs
            print(f"| {layer} | {product} | {gflop / taken['xla']:.0f} | {gflop / taken['torch']:.0f} |", flush=True)
            total = {name: total[name] + taken[name] for name in total}
    xla, pytorch = (asked.depth * total[name] for name in ("xla", "torch"))
    print(f"\n{asked.depth} blocks: XLA {xla:.3f} s, PyTorch {pytorch:.3f} s, ratio {pytorch / xla:.2f}")


if __name__ == "__main__":
    main()

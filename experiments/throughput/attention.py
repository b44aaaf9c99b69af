"""Attention and its batched products: XLA as it comes, XLA without YNNPACK, and PyTorch.

    python experiments/throughput/attention.py
    python experiments/throughput/attention.py --tokens 256 --heads 12

XLA hands products whose left side is not transposed to YNNPACK, and others to Eigen. Each program repeats its work on
memory that it has already touched, as a training step does. Medians of the rounds, each way's in a row.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax
from products import Functions, finish, seconds

from bie_jax.models.layers.transformer import attention

REPEATS = 10
WIDTH = 64  # of a head
# What XLA is told: nothing, and that no library but Eigen makes products.
OPTIONS = {"XLA": {}, "XLA without YNNPACK": {"xla_cpu_experimental_ynn_fusion_type": ""}}


def repeated(function: Callable[..., jax.Array], *arrays: jax.Array) -> dict[str, Callable[[], object]]:
    """The function `REPEATS` times in one program, with each of `OPTIONS`."""

    def run(first: jax.Array, *others: jax.Array) -> jax.Array:
        # One number of each result goes into the next input, so that none of them can be left out.
        def body(_: int, first: jax.Array) -> jax.Array:
            return first.at[0, 0, 0, 0].add(1e-9 * function(first, *others)[0, 0, 0, 0])

        return lax.fori_loop(0, REPEATS, body, first)

    ways = {}
    for name, options in OPTIONS.items():
        program = jax.jit(run).lower(*arrays).compile(compiler_options=options)
        ways[name] = functools.partial(finish, program, *arrays)
    return ways


def _whole_product(form: str, left: jax.Array, right: jax.Array) -> jax.Array:
    # Whoever asks for one number of an array may be given that number alone; behind the barrier all are wanted.
    return lax.optimization_barrier(jnp.einsum(form, left, right))


def _with_gradient(query: jax.Array, key: jax.Array, value: jax.Array, gradient: jax.Array) -> jax.Array:
    out, back = jax.vjp(attention, query, key, value)
    out, *gradients = lax.optimization_barrier((out, *back(gradient)))
    return sum(gradients, out)


def _torch_repeats(function: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(REPEATS):
            function()

    return run


def cases(images: int, heads: int, tokens: int) -> dict[str, Functions]:
    """Every row of the table."""
    rng = np.random.default_rng(0)
    query, key, value, gradient = (rng.normal(size=(images, heads, tokens, WIDTH)).astype(np.float32) for _ in range(4))
    shares = rng.random(size=(images, heads, tokens, tokens)).astype(np.float32)
    products = {
        "queries x keys": ("bhqd,bhkd->bhqk", query, key),
        "shares x values": ("bhqk,bhkd->bhqd", shares, value),
        "transposed shares x gradient": ("bhqk,bhqd->bhkd", shares, gradient),
    }
    rows = {}
    for name, (form, *sides) in products.items():
        whole = functools.partial(_whole_product, form)
        in_torch = functools.partial(torch.einsum, form, *map(torch.tensor, sides))
        rows[name] = repeated(whole, *map(jnp.asarray, sides)) | {"PyTorch": _torch_repeats(in_torch)}

    leaves = [torch.tensor(array).requires_grad_() for array in (query, key, value)]
    torch_gradient = torch.tensor(gradient)

    def pytorch() -> None:
        for leaf in leaves:
            leaf.grad = None
        torch.nn.functional.scaled_dot_product_attention(*leaves).backward(torch_gradient)

    rows["attention and its gradient"] = repeated(_with_gradient, *map(jnp.asarray, (query, key, value, gradient))) | {
        "PyTorch": _torch_repeats(pytorch)
    }
    return rows


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=197)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    print(
        f"{asked.images} images, {asked.heads} heads of {WIDTH}, {asked.tokens} tokens, {torch.get_num_threads()} "
        f"threads, jax {jax.__version__}, torch {torch.__version__}; milliseconds\n"
    )
    rows = cases(asked.images, asked.heads, asked.tokens)
    who = [*OPTIONS, "PyTorch"]
    print(f"| | {' | '.join(who)} |\n|---|" + "---|" * len(who))
    for name, functions in rows.items():
        taken = seconds(functions, asked.rounds)
        print(f"| {name} | {' | '.join(f'{1000 * taken[w] / REPEATS:.2f}' for w in who)} |", flush=True)


if __name__ == "__main__":
    main()

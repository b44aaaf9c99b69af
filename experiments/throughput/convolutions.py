"""3 x 3 convolutions of step 1, forward and both gradients: direct, by Winograd's algorithm, and PyTorch's.

    python experiments/throughput/convolutions.py
    python experiments/throughput/convolutions.py --layers 64,16,64,64 64,8,128,128

"direct" is XLA's convolution, and a product for each tap as the gradient of the kernel: what `convolve` takes where
Winograd's algorithm does not fit. Medians of the rounds, each way's in a row: threads of another library go on
waiting, awake, for longer than a layer takes.
"""

import argparse
import functools
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
import torch
from products import Functions, finish, seconds

from bie_jax.models.kernels import convolution, winograd

SAME = ((1, 1), (1, 1))
# batch, rows and columns, input and output channels: the layers of ResNet-18 at 224 px, and some of small images
LAYERS = ["8,56,64,64", "8,28,128,128", "8,14,256,256", "8,7,512,512", "2,56,64,64", "2,14,256,256", "64,16,64,64"]


def ways(batch: int, size: int, c_in: int, c_out: int) -> Functions:
    """Forward and both gradients of one layer, in each way."""
    rng = np.random.default_rng(0)
    shapes = ((batch, size, size, c_in), (3, 3, c_in, c_out), (batch, size, size, c_out))
    x, kernel, dy = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    functions: Functions = {}
    # Whatever the sizes of the layer are, one program is made of each form.
    for name, is_taken in (("direct", False), ("Winograd", True)):
        with (
            mock.patch.object(winograd, "is_faster", return_value=is_taken),
            mock.patch.object(convolution, "_has_few_positions", return_value=False),
        ):
            program = jax.jit(_all_of).lower(x, kernel, dy).compile()
        functions[name] = functools.partial(finish, program, *map(jnp.asarray, (x, kernel, dy)))
        jax.clear_caches()
    last = {"memory_format": torch.channels_last}
    tx = torch.tensor(x).permute(0, 3, 1, 2).contiguous(**last).requires_grad_()
    tk = torch.tensor(kernel).permute(3, 2, 0, 1).contiguous(**last).requires_grad_()
    tdy = torch.tensor(dy).permute(0, 3, 1, 2).contiguous(**last)

    def pytorch() -> None:
        tx.grad = tk.grad = None
        torch.nn.functional.conv2d(tx, tk, padding=1).backward(tdy)

    return functions | {"PyTorch": pytorch}


def _all_of(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, ...]:
    y, back = jax.vjp(lambda x, kernel: convolution.convolve(x, kernel, 1, SAME, cpu_kernels=True), x, kernel)
    return y, *back(dy)


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=LAYERS, help="batch,size,channels in,channels out")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, jax {jax.__version__}, torch {torch.__version__}\n")
    print("| batch | map | channels | direct, ms | Winograd, ms | PyTorch, ms |\n|---|---|---|---|---|---|")
    for layer in asked.layers:
        batch, size, c_in, c_out = map(int, layer.split(","))
        taken = seconds(ways(batch, size, c_in, c_out), asked.rounds)
        cells = " | ".join(f"{1000 * value:.1f}" for value in taken.values())
        print(f"| {batch} | {size} x {size} | {c_in} to {c_out} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

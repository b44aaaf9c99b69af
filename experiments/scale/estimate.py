"""On paper: how training steps scale over H100s or H200s, and how long the predecessor's job takes on them.

    python experiments/scale/estimate.py

Nothing is run. Operations of a step are counted in its program; every other number is one of the assumptions below.
"""

import dataclasses
import os
import sys
from pathlib import Path

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.training.flops import count_flops
from bie_jax.training.sharding import data_layout
from bie_jax.training.state import TrainState
from experiments.scale.communication import BATCH, config_of
from experiments.scale.memory import CHANNELS, abstract_state, build_step

PEAK = 989e12  # operations/s, bfloat16, dense: NVIDIA's figure for H100 and H200 with NVLink
EFFICIENCY = {"resnet50-vqvae": 0.20, "vit_l-mae": 0.45}  # share of it; what is aimed at, not measured
IMAGES = 256  # of a device in a step
REACHED = 0.8  # share of a link's own figure
NVLINK = 450e9 * REACHED  # bytes/s of a device, each way
NETWORK = 50e9 * REACHED  # bytes/s, each way: 400 Gb/s
MACHINES, DEVICES = 4, 8
# Seconds of a small all-reduce that the next layer waits for, within a machine and across machines.
LATENCY, LATENCY_ACROSS = 20e-6, 50e-6
BACKWARD = 2 / 3  # share of a step behind which gradients can be sent
# The predecessor's job: images, epochs, and what it took on 50 T4.
JOB_IMAGES, JOB_EPOCHS, JOB_SECONDS = 110_000, 7, 53 * 60


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step costs on one device.

    Attributes:
        seconds: of arithmetic.
        gradient: bytes in bfloat16.
        waits: all-reduces of batch statistics, forward and backward, that come one after the other.
    """

    seconds: float
    gradient: float
    waits: int

    def efficiency(self, sending: float, latency: float, overlap: bool) -> float:
        """Share of the step in which arithmetic is done, if gradients take `sending` seconds."""
        hidden = BACKWARD * self.seconds if overlap else 0.0
        return self.seconds / (self.seconds + self.waits * latency + max(0.0, sending - hidden))


def step_of(case: str) -> tuple[float, Step]:
    """Operations of an image, and the step."""
    config = config_of(case)
    state = abstract_state(config)
    step, batch = build_step(config, state, data_layout(jax.devices()[:1]))
    flops = count_flops(step, state, batch) / BATCH
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return flops, Step(IMAGES * flops / PEAK / EFFICIENCY[case], 2.0 * numbers, 2 * _batch_norms(state))


def _batch_norms(state: TrainState) -> int:
    """Batch normalizations of a network, those of scanned blocks one by one."""
    leaves = jax.tree_util.tree_leaves_with_path(state.model_state)
    means = [leaf for path, leaf in leaves if jax.tree_util.keystr(path).endswith("['mean']")]
    return sum(int(np.prod(leaf.shape[:-1])) for leaf in means)


def main() -> None:
    """Two tables."""
    inside = 2 * (DEVICES - 1) / DEVICES / NVLINK  # seconds a byte
    across = 2 * (MACHINES - 1) / MACHINES / NETWORK
    places = {
        "8 devices, NVLink": (inside, LATENCY),
        "4 x 8, 400 Gb/s a device": (inside + across / DEVICES, LATENCY_ACROSS),
        "4 x 8, 400 Gb/s a machine": (inside + across, LATENCY_ACROSS),
    }
    print(
        "| case | GFLOP/image | images/s, one | step, ms | gradient, MB | waits | where | sent, ms | apart | behind |"
    )
    print("|" + "---|" * 10)
    job = JOB_IMAGES * JOB_EPOCHS
    rows = []
    for case in EFFICIENCY:
        flops, step = step_of(case)
        rate = IMAGES / step.seconds
        for place, (per_byte, latency) in places.items():
            sending = per_byte * step.gradient
            shares = [step.efficiency(sending, latency, overlap) for overlap in (False, True)]
            print(
                f"| {case} | {flops / 1e9:.1f} | {rate:.0f} | {step.seconds * 1e3:.0f} | {step.gradient / 1e6:.0f} | "
                f"{step.waits} | {place} | {sending * 1e3:.1f} | {shares[0]:.1%} | {shares[1]:.1%} |"
            )
            if case == "resnet50-vqvae" and place == "8 devices, NVLink":
                rows = [("1", rate), ("8", DEVICES * rate * shares[0])]
    pixels = int(np.prod(config_of("resnet50-vqvae").data.crop_size)) * CHANNELS * jnp.uint16(0).itemsize
    print(f"\nThe predecessor: {job} images in {JOB_SECONDS} s on 50 T4, {job / JOB_SECONDS:.0f} images/s\n")
    print("| H200 | images/s | seconds | counts, GB/s |\n|---|---|---|---|")
    for count, rate in rows:
        print(f"| {count} | {rate:.0f} | {job / rate:.0f} | {rate * pixels / 1e9:.1f} |")


if __name__ == "__main__":
    main()

"""How the process of a trial is started: its command, and what its environment says of cores, GPUs and W&B."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bie_jax.tuning.sweep import Share

REPOSITORY = Path(__file__).resolve().parents[2]
_MEMORY_SHARE = 0.75  # of a whole GPU, which XLA reserves by itself


def command_of(arguments: Sequence[str], workdir: Path, cache: str) -> list[str]:
    """The command of a trial, as it could be typed."""
    launch = str(REPOSITORY / "launch.py")
    return [sys.executable, launch, *arguments, f"--workdir={workdir}", f"--compilation_cache={cache}"]


def environment_of(each: Share, group: str, name: str) -> Mapping[str, str]:
    """What a trial's process is told: how many threads, how much of a GPU, and what W&B calls it.

    Args:
        each: what a trial may take.
        group: name of the sweep.
        name: of the trial.
    """
    threads = str(each.cores)
    told = {
        # Of XLA on the CPU, OpenMP, OpenBLAS and scikit-learn's forests.
        "NPROC": threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "LOKY_MAX_CPU_COUNT": threads,
        "WANDB_RUN_GROUP": group,
        "WANDB_NAME": name,
    }
    if 0 < each.gpus < 1:
        told["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{_MEMORY_SHARE * each.gpus:.3f}"
    return told

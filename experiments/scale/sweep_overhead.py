"""What does a sweep cost beside a shell loop over the same commands? Seconds for each trial, one at a time.

python experiments/scale/sweep_overhead.py --data-dir=datasets --trials=4

Trials are `vqvae_idr0093:tiny` on the simulated plates, with seeds 0, 1, ...; both ways find the compiled programs of a
run before them.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_SWEEP = """
from bie_jax.tuning.sweep import Choice, Grid, Logged, Share, Sweep

def get_sweep():
    return Sweep(
        axes={{"model.latent_dim": Choice((16,))}},
        fixed={{}},
        search=Grid(),
        metric=Logged("val/loss", maximize=False),
        seeds=tuple(range({trials})),
        num_folds=0,
        held_out=(),
        halving=None,
        at_once=1,
        each=Share(cores={cores}, gpus=0, memory_gb=0),
    )
"""


def main() -> None:
    """A line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="where the simulated set lies")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--cores", type=int, default=2)
    asked = parser.parse_args()
    launch = [sys.executable, str(REPOSITORY / "launch.py"), "--config=configs/vqvae_idr0093.py:tiny"]
    launch.append(f"--config.data.data_dir={Path(asked.data_dir).absolute()}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "mine.py").write_text(_SWEEP.format(trials=asked.trials, cores=asked.cores))
        launch.append(f"--compilation_cache={place / 'cache'}")
        _timed([*launch, f"--workdir={place / 'first'}"])
        loop = sum(
            _timed([*launch, f"--config.train.seed={seed}", f"--workdir={place / f'loop{seed}'}"])
            for seed in range(asked.trials)
        )
        sweep = _timed([*launch, f"--sweep={place / 'mine.py'}", f"--workdir={place / 'sweep'}"])
    print("| | seconds | for each trial |\n|---|---|---|")
    for name, seconds in (("shell loop", loop), ("sweep", sweep)):
        print(f"| {name} | {seconds:.1f} | {seconds / asked.trials:.1f} |")


def _timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

"""One set by the machines of a Ray cluster: a task for each part, and one that joins them.

    RAY_ADDRESS=auto python experiments/scale/build_on_ray.py --parts=64 --cpus=8 my_screen --source=FOLDER ...

What is not of this script is of `python -m data.build`. Source, data directory and repository lie where all machines
see them under the same path; without RAY_ADDRESS Ray runs on this machine alone. A task whose machine is lost is done
again elsewhere and goes on with what was finished; one that says what is wrong stops the whole. It needs `ray`.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import ray

REPOSITORY = Path(__file__).resolve().parents[2]
LOST_MACHINES = 3  # that a part survives


def main() -> None:
    """Make the parts, then join them; ends with the message of the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, required=True, help="of the set; some times as many as machines")
    parser.add_argument(
        "--cpus", type=int, required=True, help="of each part: its workers, and what Ray reserves for it"
    )
    own, arguments = parser.parse_known_args()
    ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else os.cpu_count(), log_to_driver=False)
    try:
        task = ray.remote(num_cpus=own.cpus, max_retries=LOST_MACHINES)(build)
        unfinished = [
            task.remote([*arguments, f"--workers={own.cpus}", f"--part={number}/{own.parts}"])
            for number in range(1, own.parts + 1)
        ]
        while unfinished:
            (first,), unfinished = ray.wait(unfinished)
            print(ray.get(first), end="", flush=True)
        print(ray.get(task.remote([*arguments, "--workers=1", "--join"])), end="")
    except ray.exceptions.RayTaskError as error:
        sys.exit(str(error.cause))
    finally:
        ray.shutdown()


def build(arguments: list[str]) -> str:
    """`python -m data.build` on whichever machine; what it printed.

    Raises:
        RuntimeError: if it fails, with the last line of what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "data.build", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout


if __name__ == "__main__":
    main()

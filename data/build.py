"""Build a set that every configuration can name.

python -m data.build simulated
python -m data.build bbbc021 --source=../shared/data/bbbc021_singlecell_subset
"""

import argparse
import sys
import time
from pathlib import Path

from data.bbbc021.build import VERSION as BBBC021_VERSION
from data.bbbc021.build import build_bbbc021
from data.records import BuildError, print_summary
from data.simulated.build import VERSION as SIMULATED_VERSION
from data.simulated.build import build_simulated
from data.simulated.simulation import Design

VERSIONS = {"simulated": SIMULATED_VERSION, "bbbc021": BBBC021_VERSION}


def main(arguments: list[str]) -> None:
    """Build one set, unless it is there."""
    parser = argparse.ArgumentParser(
        prog="python -m data.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=VERSIONS)
    parser.add_argument("--data_dir", default="datasets", type=Path, help="folder of built sets (default: datasets)")
    parser.add_argument("--source", help="bbbc021: folder with the npz and the table")
    args = parser.parse_args(arguments)
    directory = args.data_dir / args.name / VERSIONS[args.name]
    if (directory / "statistics.json").exists():
        print(f"{directory} is built already; remove it to build it again")
        return
    start = time.perf_counter()
    if args.name == "simulated":
        if args.source is not None:
            parser.error("simulated takes no --source: it is made from its seed")
        build_simulated(args.data_dir, Design())
    else:
        if args.source is None:
            parser.error(f"{args.name} needs --source; data/{args.name}/README.md says what it must hold")
        build_bbbc021(args.data_dir, args.source)
    print_summary(directory, time.perf_counter() - start)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BuildError as error:
        sys.exit(f"data.build: {error}")
    except KeyboardInterrupt:
        sys.exit("data.build: stopped; nothing was left behind, the same command starts again")

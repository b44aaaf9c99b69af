"""Build a set that every configuration can name.

python -m data.build simulated
python -m data.build bbbc021 --source=../shared/data/bbbc021_singlecell_subset
python -m data.build idr0093 --source=IMAGES.csv --annotation=idr0093-screenA-annotation.csv.gz
"""

import argparse
import json
import sys
import time
from pathlib import Path

from data.bbbc021.build import VERSION as BBBC021_VERSION
from data.bbbc021.build import build_bbbc021
from data.idr0093.build import CROP_PX, build_idr0093
from data.idr0093.build import VERSION as IDR0093_VERSION
from data.records import BuildError, print_summary
from data.simulated.build import VERSION as SIMULATED_VERSION
from data.simulated.build import build_simulated
from data.simulated.simulation import Design

VERSIONS = {"simulated": SIMULATED_VERSION, "bbbc021": BBBC021_VERSION, "idr0093": IDR0093_VERSION}
NEEDED = {"simulated": (), "bbbc021": ("source",), "idr0093": ("source", "annotation")}
TAKEN = {"simulated": (), "bbbc021": ("source",), "idr0093": ("source", "annotation", "crop")}


def main(arguments: list[str]) -> None:
    """Build one set, unless it is there."""
    parser = argparse.ArgumentParser(
        prog="python -m data.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=VERSIONS)
    parser.add_argument("--data_dir", default="datasets", type=Path, help="folder of built sets (default: datasets)")
    parser.add_argument("--source", help="bbbc021: folder with the npz and the table; idr0093: table of the images")
    parser.add_argument("--annotation", help="idr0093: IDR's annotation table")
    parser.add_argument("--crop", type=int, help=f"idr0093: side of a tile in pixels (default: {CROP_PX})")
    args = parser.parse_args(arguments)
    directory = args.data_dir / args.name / VERSIONS[args.name]
    if (directory / "statistics.json").exists():
        shape = json.loads((directory / "statistics.json").read_text())["image_shape"]
        print(f"{directory} is built already (images {' x '.join(map(str, shape))}); remove it to build it again")
        return
    for flag in ("source", "annotation", "crop"):
        if flag in NEEDED[args.name] and getattr(args, flag) is None:
            parser.error(f"{args.name} needs --{flag}; data/{args.name}/README.md says what it must be")
        if flag not in TAKEN[args.name] and getattr(args, flag) is not None:
            parser.error(f"{args.name} takes no --{flag}")
    start = time.perf_counter()
    if args.name == "simulated":
        build_simulated(args.data_dir, Design())
    elif args.name == "bbbc021":
        build_bbbc021(args.data_dir, args.source)
    else:
        build_idr0093(args.data_dir, args.source, args.annotation, CROP_PX if args.crop is None else args.crop)
    print_summary(directory, time.perf_counter() - start)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BuildError, OSError) as error:  # OSError: the disk is full, or not ours to write to
        sys.exit(f"data.build: {error}")
    except KeyboardInterrupt:
        sys.exit("data.build: stopped; nothing was left behind, the same command starts again")

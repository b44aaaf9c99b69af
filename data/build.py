"""Build a set that every configuration can name.

    python -m data.build simulated
    python -m data.build bbbc021 --source=../shared/data/bbbc021_singlecell_subset
    python -m data.build idr0093 --source=FOLDER --annotation=idr0093-screenA-annotation.csv.gz --plates=001,002
    python -m data.build my_screen --source=FOLDER --layout=imagexpress --channels=w1=DNA,w2=actin --crop=256
    python -m data.build my_plate --source=https://server/plate.zarr --level=1
    python -m data.build my_cells --source=images.csv --objects=centres.csv --crop=96 --label=treatment

A build that was stopped goes on with the same command. data/README.md explains sources and flags.
"""

import argparse
import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from data.annotation import join, read_annotation
from data.bbbc010 import index as bbbc010
from data.crops import AroundMasks, AroundPoints, Cut, RandomWindows, Tiles, Whole
from data.download import bring
from data.errors import BuildError
from data.field_set import VERSION, FieldMaker, build_fields, choose_channels, estimate_illumination
from data.fields import AxisChoice, Index
from data.mnist import index as mnist
from data.object_table import attach_objects
from data.records import building_folder, print_summary
from data.simulated.build import VERSION as SIMULATED_VERSION
from data.simulated.build import build_simulated
from data.simulated.simulation import Design
from data.sources.arrays import index_arrays
from data.sources.folder import index_folder
from data.sources.layouts import index_layout, index_pattern
from data.sources.ome_tiff import index_ome_tiff
from data.sources.ome_zarr import index_ome_zarr
from data.sources.table import index_table
from data.sources.tfds_set import index_tfds
from data.studies import STUDIES
from data.study import Study
from data.wells import PLATE_FORMATS

LAYOUTS = ("table", "folder", "imagexpress", "operetta", "cellvoyager", "ome-tiff", "ome-zarr", "arrays", "tfds")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a name stands for: where its fields come from, and what is known of them beforehand."""

    index: Index
    channels: dict[str, str]  # as the source calls them -> in the set
    label: str  # column; "": none
    text: str
    version: str
    notes: dict[str, Any]


def main(arguments: list[str]) -> None:
    """Build one set, unless it is there."""
    args = _parse(arguments)
    version = _version(args.name)
    directory = args.data_dir / args.name / version
    if (directory / "statistics.json").exists():
        shape = json.loads((directory / "statistics.json").read_text())["image_shape"]
        print(f"{directory} is built already (images {' x '.join(map(str, shape))}); remove it to build it again")
        return
    start = time.perf_counter()
    if args.name == "simulated":
        build_simulated(args.data_dir, Design(), args.workers)
        print_summary(directory, time.perf_counter() - start, bytes_in=0)
        return
    building = building_folder(args.name, version, args.data_dir)
    origin = _origin(args, building)
    index = _part_of(origin.index, args.plates, args.wells)
    cut, index = _cut(args, index)
    channels = choose_channels(index.channels, args.channels) if args.channels else origin.channels
    if isinstance(cut, AroundMasks):
        channels = {source: name for source, name in channels.items() if source != cut.channel}
    maker = FieldMaker(tuple(channels), args.z, args.t, cut, args.label or origin.label, illumination=None)
    skip_bad = args.skip_bad is not None
    if args.illumination:
        light = estimate_illumination(index, maker, building, args.workers, skip_bad)
        maker = dataclasses.replace(maker, illumination=light)
    build_fields(
        args.name,
        index,
        maker,
        tuple(channels.values()),
        args.data_dir,
        num_workers=args.workers,
        skip_bad=args.skip_bad,
        text=origin.text,
        version=version,
        notes=origin.notes | {"illumination": list(maker.illumination.functions) if maker.illumination else "as it is"},
    )
    files = {plane.source for field in index.fields for plane in field.planes.values()}
    bytes_in = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
    print_summary(directory, time.perf_counter() - start, bytes_in)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    known = ", ".join(("simulated", "bbbc010", "bbbc021", "mnist", *STUDIES))
    parser.add_argument("name", help=f"of the set: {known}, or a name of yours for images of yours")
    parser.add_argument("--data-dir", default="datasets", type=Path, help="folder of built sets (default: datasets)")
    parser.add_argument("--source", help="folder, table, archive or file with the images; or their URL")
    parser.add_argument("--sha256", help="of a source that is one file")
    parser.add_argument("--layout", choices=LAYOUTS, help="how the source is organised (default: by its suffix)")
    parser.add_argument(
        "--pattern", help="regular expression for paths, instead: groups plate, well, site, channel, z, t"
    )
    parser.add_argument("--annotation", type=Path, help="table with the columns plate and well, joined to the images")
    parser.add_argument(
        "--label", default="", help="column that becomes the label (default: the set's own, or 'label')"
    )
    parser.add_argument("--channels", help="which, in this order; a,b or source=name,source=name (default: all)")
    parser.add_argument("--plates", help="a,b: only these plates")
    parser.add_argument("--wells", help="B02,C03: only these wells")
    parser.add_argument("--wells-per-plate", type=int, choices=PLATE_FORMATS, help="(default: the study's, or 384)")
    parser.add_argument(
        "--z", default="max", type=_axis, help="plane number from 0, max, mean, focus or each (default: max)"
    )
    parser.add_argument("--t", default="each", type=_axis, help="the same for time points (default: each)")
    parser.add_argument("--level", default=0, type=int, help="resolution of an OME-Zarr, 0 is the finest (default: 0)")
    parser.add_argument("--crop", type=_positive, help="side of an example in pixels (default: whole fields)")
    parser.add_argument("--overlap", default=0, type=int, help="pixels that neighbouring tiles share (default: 0)")
    parser.add_argument("--random-crops", type=_positive, metavar="N", help="N windows at random instead of tiles")
    parser.add_argument("--objects", type=Path, help="table of plate, well, site, y, x: one example for each object")
    parser.add_argument("--label-mask", metavar="CHANNEL", help="channel that numbers objects: one example for each")
    parser.add_argument("--masks", help="bbbc010: folder, archive or URL of one mask per worm, or official")
    parser.add_argument("--illumination", action="store_true", help="divide by each plate's own light")
    parser.add_argument("--seed", default=0, type=int, help="of random windows (default: 0)")
    parser.add_argument("--workers", default=os.cpu_count(), type=_positive, help="processes (default: all cores)")
    parser.add_argument("--skip-bad", type=Path, metavar="FILE.csv", help="leave out what cannot be read, and list it")
    args = parser.parse_args([_with_hyphens(argument) for argument in arguments])

    given = {
        name
        for name, value in vars(args).items()
        if value not in (None, "", False) and parser.get_default(name) != value
    }
    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.name):
        parser.error(f"the name {args.name!r}: expected small letters, digits and _, beginning with a letter")
    if args.name == "simulated" and given - {"name", "data_dir", "workers"}:
        parser.error(f"simulated takes no --{sorted(given - {'name', 'data_dir', 'workers'})[0].replace('_', '-')}")
    if not 0 <= args.overlap < (args.crop or args.overlap + 1):
        parser.error(f"--overlap={args.overlap}: expected 0 to {(args.crop or 1) - 1}, less than --crop")
    for flag in ("random_crops", "objects", "label_mask", "overlap"):
        if flag in given and args.crop is None:
            parser.error(f"--{flag.replace('_', '-')} needs --crop, the side of an example in pixels")
    ways = [flag for flag in ("random_crops", "objects", "label_mask") if flag in given]
    if len(ways) > 1 or (ways and args.overlap):
        parser.error("of --random-crops, --objects, --label-mask and --overlap only one is possible")
    if args.z == "each" and args.t in ("max", "mean", "focus"):
        parser.error(
            f"--z=each with --t={args.t}: focal planes can be kept apart only where time points are not projected"
        )
    if args.layout and args.pattern:
        parser.error("--layout and --pattern exclude each other")
    return args


def _with_hyphens(argument: str) -> str:
    """--data_dir=x -> --data-dir=x: the flags of launch.py are written so."""
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument


def _axis(text: str) -> AxisChoice:
    if text.isdecimal():
        return int(text)
    choices: dict[str, Literal["max", "mean", "focus", "each"]] = {c: c for c in ("max", "mean", "focus", "each")}
    if text not in choices:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0, max, mean, focus or each")
    return choices[text]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)


def _version(name: str) -> str:
    known = {"simulated": SIMULATED_VERSION, "bbbc010": bbbc010.VERSION, "mnist": mnist.VERSION}
    return STUDIES[name].version if name in STUDIES else known.get(name, VERSION)


def _origin(args: argparse.Namespace, building: Path) -> Origin:
    """Index what was asked for."""
    if args.name == "bbbc010":
        return _bbbc010(args)
    if args.name == "mnist" and args.source is None:
        args.source = str(mnist.fetch_mnist(args.data_dir / "downloads"))
    if args.source is None:
        readme = f"data/{args.name}/README.md" if args.name in (*STUDIES, "bbbc021") else "data/README.md"
        raise BuildError(f"{args.name} needs --source; {readme} says what it can be")
    if args.name in STUDIES:
        return _study(args, STUDIES[args.name])
    if args.name == "bbbc021":
        return _bbbc021(args)
    if args.name == "mnist":
        index, text, label = mnist.index_mnist(Path(args.source)), mnist.TEXT, mnist.LABEL
        return Origin(index, {channel: channel for channel in index.channels}, label, text, mnist.VERSION, {})
    wells_per_plate = args.wells_per_plate or 384
    index, notes = _index(args, wells_per_plate)
    if args.annotation is not None:
        table = read_annotation(args.annotation, wells_per_plate)
        index, joined = join(
            index, table, str(args.annotation), plate_pattern=None, leave_out=args.skip_bad is not None
        )
        notes |= joined
    label = "label" if "label" in index.columns else ""
    channels = {channel: channel for channel in index.channels}
    return Origin(index, channels, label, f"Images of {args.source}.", VERSION, notes)


def _study(args: argparse.Namespace, study: Study) -> Origin:
    if args.annotation is None:
        raise BuildError(f"{study.name} needs --annotation, IDR's table; data/{study.name}/README.md says where it is")
    if args.layout is None and args.pattern is None and Path(args.source).is_dir():
        args.layout, args.pattern = study.layout, study.pattern
    index, notes = _index(args, args.wells_per_plate or study.wells_per_plate)
    if index.pixel_size_um is None:
        index = dataclasses.replace(index, pixel_size_um=study.pixel_size_um)
    index, joined = join(
        index,
        study.read_annotation(args.annotation),
        str(args.annotation),
        plate_pattern=study.plate_pattern,
        leave_out=args.skip_bad is not None,
    )
    return Origin(index, study.name_channels(index.channels), study.label, study.text, study.version, notes | joined)


def _bbbc010(args: argparse.Namespace) -> Origin:
    """The worms: the official archives, or what the user gives."""
    downloads = args.data_dir / "downloads"
    if args.source is None:
        path, notes = bbbc010.fetch_bbbc010("images", downloads)
    else:
        path, notes = bring(args.source, args.sha256, downloads)
    masks = None
    if args.masks == "official":
        masks = bbbc010.fetch_bbbc010("masks", downloads)[0]
    elif args.masks is not None:
        masks = bring(args.masks, None, downloads)[0]
    index = bbbc010.index_bbbc010(path, masks)
    return Origin(index, bbbc010.CHANNELS, bbbc010.LABEL, bbbc010.TEXT, bbbc010.VERSION, notes)


def _bbbc021(args: argparse.Namespace) -> Origin:
    """The single-cell subset: arrays beside the study's table of wells."""
    folder, brought = bring(args.source, args.sha256, args.data_dir / "downloads")
    arrays, wells = folder / "bbbc021_subset.npz", folder / "wells.csv"
    for path in (arrays, wells):
        if not path.is_file():
            raise BuildError(f"{path}: no such file; --source is a folder that holds {arrays.name} and {wells.name}")
    table = read_annotation(wells, 96)
    keep = {"plate": "plate", "well": "well", "compound_name": "compound", "dose": "dose"}
    missing = [name for name in keep if name not in table]
    if missing:
        raise BuildError(f"{wells}: the columns {missing} are missing; there are {', '.join(table)}")
    index, notes = join(
        index_arrays(arrays, 96),
        table.filter(items=list(keep)).rename(columns=keep),
        str(wells),
        plate_pattern=None,
        leave_out=args.skip_bad is not None,
    )
    text = "BBBC021 single cells: DMSO or a protein-synthesis inhibitor, three plates (12-bit values times 16)."
    return Origin(index, {channel: channel for channel in index.channels}, "moa", text, VERSION, brought | notes)


def _index(args: argparse.Namespace, wells_per_plate: int) -> tuple[Index, dict[str, Any]]:
    """The fields of a source of any kind, and what `build.json` says of it."""
    layout = args.layout or _layout_of(args.source) if args.pattern is None else "pattern"
    if layout == "ome-zarr":
        return index_ome_zarr(args.source, args.level, wells_per_plate), {"source": args.source, "level": args.level}
    path, notes = bring(args.source, args.sha256, args.data_dir / "downloads")
    readers: dict[str, Callable[[], Index]] = {
        "table": lambda: index_table(path, wells_per_plate),
        "folder": lambda: index_folder(path),
        "ome-tiff": lambda: index_ome_tiff(path, wells_per_plate),
        "arrays": lambda: index_arrays(path, wells_per_plate),
        "tfds": lambda: index_tfds(path),
        "pattern": lambda: index_pattern(path, args.pattern, wells_per_plate),
    }
    if layout in readers:
        return readers[layout](), notes
    return index_layout(path, layout, wells_per_plate), notes


def _layout_of(source: str) -> str:
    name = source.rstrip("/").lower().removesuffix(".gz")
    for layout, suffixes in (
        ("table", (".csv", ".tsv", ".parquet")),
        ("ome-zarr", (".zarr",)),
        ("ome-tiff", (".ome.tif", ".ome.tiff")),
        ("arrays", (".npy", ".npz")),
    ):
        if name.endswith(suffixes):
            return layout
    raise BuildError(f"{source}: say how it is organised, --layout={'|'.join(LAYOUTS)}, or give a --pattern")


def _part_of(index: Index, plates: str | None, wells: str | None) -> Index:
    """Only some plates and wells.

    Raises:
        BuildError: if one of them is not there.
    """
    for flag, wanted, of_field in (("plates", plates, "plate"), ("wells", wells, "well")):
        if wanted is None:
            continue
        names = {name.strip() for name in wanted.split(",")}
        there = {getattr(field, of_field) for field in index.fields}
        if names - there:
            shown = ", ".join(sorted(there)[:12]) + (", ..." if len(there) > 12 else "")
            raise BuildError(
                f"--{flag}={wanted}: there are no images of {', '.join(sorted(names - there))}, but of {shown}"
            )
        fields = tuple(field for field in index.fields if getattr(field, of_field) in names)
        index = dataclasses.replace(index, fields=fields)
    return index


def _cut(args: argparse.Namespace, index: Index) -> tuple[Cut, Index]:
    if args.crop is None:
        return Whole(), index
    if args.objects is not None:
        index, extra = attach_objects(index, args.objects, args.wells_per_plate or 384)
        return AroundPoints(args.crop, extra), index
    if args.name == "bbbc010" and args.masks is not None:
        return AroundPoints(args.crop, bbbc010.WORM_COLUMNS), index
    if args.label_mask is not None:
        if args.label_mask not in index.channels:
            raise BuildError(f"--label-mask={args.label_mask}: there are the channels {', '.join(index.channels)}")
        return AroundMasks(args.crop, args.label_mask), index
    if args.random_crops is not None:
        return RandomWindows(args.crop, args.random_crops, args.seed), index
    return Tiles(args.crop, args.overlap), index


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BuildError, OSError) as error:  # OSError: the disk is full, or not ours to write to
        sys.exit(f"data.build: {error}")
    except KeyboardInterrupt:
        sys.exit("data.build: stopped; the same command goes on")

"""Build a set that every configuration can name.

    python -m data.build simulated
    python -m data.build bbbc021 --source=../shared/data/bbbc021_singlecell_subset
    python -m data.build bbbc021 --plates=Week1_22123,Week1_22141 --sha256=registry.txt
    python -m data.build idr0093 --source=FOLDER --annotation=idr0093-screenA-annotation.csv.gz --plates=001,002
    python -m data.build my_screen --source=FOLDER --layout=imagexpress --channels=w1=DNA,w2=actin --crop=256
    python -m data.build my_plate --source=https://server/plate.zarr --level=1
    python -m data.build my_cells --source=images.csv --objects=centers.csv --crop=96 --label=treatment
    python -m data.build my_shapes --source=MASKS --layout=folder --label=folder --kind=shapes --points=256

A build that was stopped goes on with the same command. data/README.md explains sources and flags.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bie_jax.files.lock import LockedError, locked
from bie_jax.input.image_set import damage_of_set
from data import limits
from data.annotation import join, read_annotation
from data.command_line import parse
from data.download import bring, is_archive
from data.errors import BuildError
from data.fields.beside import without_beside
from data.fields.crops import AroundMasks, AroundPoints, Cut, RandomWindows, Tiles, Whole
from data.fields.field_set import VERSION, FieldMaker, build_fields, bytes_read, choose_channels, estimate_illumination
from data.fields.index import Index
from data.fields.object_table import attach_objects
from data.fields.outlines import CHANNEL, OutlineOfMask, OutlinesOfLabels, ResampledContour
from data.fields.planes import IMAGE_SUFFIXES
from data.options import LAYOUTS, layout_of
from data.records.writer import building_folder, examples_in, print_summary
from data.sources.arrays import index_arrays
from data.sources.contours import ContourPlane, index_contours
from data.sources.folder import index_folder
from data.sources.formats import format_of
from data.sources.layouts import index_layout, index_pattern
from data.sources.masks import as_masks
from data.sources.ome_tiff import index_ome_tiff
from data.sources.ome_zarr import find_store, index_ome_zarr
from data.sources.table import index_table
from data.sources.tfds_set import index_tfds
from data.studies.bbbc010 import index as bbbc010
from data.studies.bbbc021 import index as bbbc021
from data.studies.known import STUDIES
from data.studies.mnist import index as mnist
from data.studies.osteosarcoma import index as osteosarcoma
from data.studies.simulated.build import VERSION as SIMULATED_VERSION
from data.studies.simulated.build import build_simulated
from data.studies.simulated.simulation import Design
from data.studies.study import Study
from data.wells import well_name


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a name stands for: where its fields come from, and what is known of them beforehand."""

    index: Index
    channels: dict[str, str]  # as the source calls them -> in the set
    label: str  # column; "": none
    text: str
    version: str
    notes: dict[str, Any]


# Where every image that is there is taken, whatever it is called; elsewhere a name or a table says what it is.
_LAYOUTS_OF_ANY_NAMES = ("folder", "ome-tiff", "ome-zarr", None)


def main(arguments: list[str]) -> None:
    """Build one set, unless it is there."""
    args = parse(arguments, __doc__)
    with limits.using(limits.Limits() if args.max_gb is None else limits.Limits(args.max_gb * limits.GB, math.inf)):
        _build_once(args)


def _build_once(args: argparse.Namespace) -> None:
    version = _version(args.name)
    directory = args.data_dir / args.set_name / version
    with locked(args.data_dir / f".building-{args.set_name}-{version}.lock"):
        if not any(directory.glob("*")):
            _build(args, version, directory)
            return
        wrong = damage_of_set(directory)
        if wrong is not None:
            raise BuildError(f"{directory} is there and damaged: {wrong}; remove it to build it again")
        statistics = json.loads((directory / "statistics.json").read_text())
        print(f"{directory} is built already ({examples_in(statistics)}); remove it to build it again")


def _build(args: argparse.Namespace, version: str, directory: Path) -> None:
    start = time.perf_counter()
    if args.name == "simulated":
        build_simulated(args.data_dir, Design(), args.workers)
        print_summary(directory, time.perf_counter() - start, bytes_in=0)
        return
    building = building_folder(args.set_name, version, args.data_dir)
    origin = _origin(args, building)
    origin = _outlined(origin, args) if args.kind == "shapes" else origin
    index = _part_of(origin.index, args.plates, args.wells)
    cut, index = _cut(args, index)
    channels = origin.channels
    if args.channels and args.kind == "images":
        channels = choose_channels(index.channels, args.channels)
    if isinstance(cut, AroundMasks):
        channels = {source: name for source, name in channels.items() if source != cut.channel}
    maker = FieldMaker(tuple(channels), args.z, args.t, cut, args.label or origin.label, illumination=None)
    skip_bad = args.skip_bad is not None
    if args.illumination:
        light = estimate_illumination(index, maker, building, args.workers, skip_bad)
        maker = dataclasses.replace(maker, illumination=light)
    light_notes = {"illumination": list(maker.illumination.functions) if maker.illumination else "as it is"}
    build_fields(
        args.set_name,
        index,
        maker,
        tuple(channels.values()),
        args.data_dir,
        num_workers=args.workers,
        skip_bad=args.skip_bad,
        text=origin.text,
        version=version,
        notes=origin.notes | (light_notes if args.kind == "images" else {}),
    )
    print_summary(directory, time.perf_counter() - start, bytes_read(index, maker))


def _version(name: str) -> str:
    known = {
        "simulated": SIMULATED_VERSION,
        "bbbc010": bbbc010.VERSION,
        "mnist": mnist.VERSION,
        "osteosarcoma": osteosarcoma.VERSION,
    }
    return STUDIES[name].version if name in STUDIES else known.get(name, VERSION)


def _origin(args: argparse.Namespace, building: Path) -> Origin:
    """Index what was asked for."""
    if args.name == "bbbc010":
        return _bbbc010(args)
    if args.name == "bbbc021":
        return _bbbc021(args)
    if args.name == "mnist" and args.source is None:
        args.source = str(mnist.fetch_mnist(args.data_dir / "downloads"))
    if args.source is None:
        own = (*STUDIES, "osteosarcoma")
        readme = f"data/{args.name}/README.md" if args.name in own else "data/README.md"
        raise BuildError(f"{args.name} needs --source; {readme} says what it can be")
    if args.name in STUDIES:
        return _study(args, STUDIES[args.name])
    if args.name == "mnist":
        index, text, label = mnist.index_mnist(Path(args.source)), mnist.TEXT, mnist.LABEL
        return Origin(index, {channel: channel for channel in index.channels}, label, text, mnist.VERSION, {})
    if args.name == "osteosarcoma":
        folder, notes = bring(args.source, args.sha256, args.data_dir / "downloads")
        index, text, label = osteosarcoma.index_osteosarcoma(folder), osteosarcoma.TEXT, osteosarcoma.LABEL
        return Origin(index, {}, label, text, osteosarcoma.VERSION, notes)
    wells_per_plate = args.wells_per_plate or 384
    index, notes = _index(args, wells_per_plate)
    if args.kind == "images" and _layout(args) in _LAYOUTS_OF_ANY_NAMES:
        index = without_beside(index)
    if args.annotation is not None and _layout(args) != "contours":
        table = read_annotation(args.annotation, wells_per_plate, args.label or "label")
        index, joined = join(
            index, table, str(args.annotation), plate_pattern=None, leave_out=args.skip_bad is not None
        )
        notes |= joined
    label = "label" if "label" in index.columns else ""
    channels = {channel: channel for channel in index.channels}
    return Origin(index, channels, label, f"{args.kind.capitalize()} of {args.source}.", VERSION, notes)


def _outlined(origin: Origin, args: argparse.Namespace) -> Origin:
    """The same fields, of one channel: masks of any colors, or contours."""
    index = as_masks(origin.index, labels=args.mask == "labels")
    channels = choose_channels(index.channels, args.channels)
    stacked = [field for field in index.fields if len({(c, z) for c, z, _ in field.planes}) > len(index.channels)]
    if args.mask == "labels" and stacked and args.z in ("max", "mean", "focus"):
        raise BuildError(
            f"{stacked[0].source}: holds label images of several focal planes, and --z={args.z} of numbers of objects "
            "means nothing; use --z=each, or --z=N for one plane"
        )
    if len(channels) > 1:
        raise BuildError(
            f"{args.source}: --kind=shapes takes one channel, that of the masks, and here are {', '.join(channels)}; "
            "choose it with --channels"
        )
    notes: dict[str, Any] = {"points": args.points, "resampling": args.resampling}
    if not _holds_contours(index):
        notes["mask"] = args.mask
    return dataclasses.replace(
        origin,
        index=index,
        channels=dict.fromkeys(channels, CHANNEL),
        text=f"Outlines of {args.points} points. {origin.text}",
        notes=origin.notes | notes,
    )


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


def _holds_contours(index: Index) -> bool:
    """Whether outlines are there already; a source has masks or contours, never both."""
    return all(isinstance(plane, ContourPlane) for plane in index.fields[0].planes.values())


def _bbbc010(args: argparse.Namespace) -> Origin:
    """The worms: the official archives, or what the user gives."""
    downloads = args.data_dir / "downloads"
    if args.kind == "shapes":
        return _worm_outlines(args, downloads)
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


def _worm_outlines(args: argparse.Namespace, downloads: Path) -> Origin:
    """The worms' masks alone."""
    if args.masks is None or args.source is not None:
        raise BuildError(
            "bbbc010 --kind=shapes needs --masks=official, or --masks=FOLDER, and no --source; "
            "data/studies/bbbc010/README.md says what they are"
        )
    if args.masks == "official":
        path, notes = bbbc010.fetch_bbbc010("masks", downloads)
    else:
        path, notes = bring(args.masks, None, downloads)
    return Origin(bbbc010.index_worm_masks(path), {}, bbbc010.LABEL, bbbc010.TEXT, bbbc010.VERSION, notes)


def _bbbc021(args: argparse.Namespace) -> Origin:
    """The plates, fetched or given; or the single-cell subset."""
    downloads = args.data_dir / "downloads"
    if args.source is None:
        if args.sha256 is None:
            raise BuildError(
                "bbbc021 needs --source, or --sha256=FILE with a line 'NAME SHA256' for each file to be fetched (their "
                "publisher gives no sums); data/studies/bbbc021/README.md says how to write one"
            )
        tables, folders, notes = bbbc021.fetch_bbbc021(Path(args.sha256), args.plates, downloads)
    else:
        folder, notes = bring(args.source, args.sha256, downloads)
        if (folder / bbbc021.SUBSET).is_file():
            index, joined = bbbc021.index_subset(folder, leave_out=args.skip_bad is not None)
            channels = {channel: channel for channel in index.channels}
            return Origin(index, channels, bbbc021.LABEL, bbbc021.SUBSET_TEXT, VERSION, notes | joined)
        tables, folders = {name: folder / name for name in bbbc021.TABLES}, [folder]
        if not tables[bbbc021.IMAGES].is_file():
            raise BuildError(
                f"{folder}: holds neither {bbbc021.SUBSET} nor {bbbc021.IMAGES}; "
                "data/studies/bbbc021/README.md says what --source is"
            )
    index, found = bbbc021.index_bbbc021(tables, folders)
    return Origin(index, bbbc021.CHANNELS, bbbc021.LABEL, bbbc021.TEXT, VERSION, notes | found)


def _index(args: argparse.Namespace, wells_per_plate: int) -> tuple[Index, dict[str, Any]]:
    """The fields of a source of any kind, and what `build.json` says of it."""
    unread = format_of(args.source.rstrip("/").rpartition("/")[2])
    if unread and not Path(args.source).is_dir() and not args.source.lower().endswith(".npy"):
        raise BuildError(f"{args.source}: is {unread}")
    layout, downloads = _layout(args), args.data_dir / "downloads"
    if layout == "ome-zarr" and not is_archive(args.source):
        if args.sha256 is not None:
            raise BuildError(
                f"--sha256={args.sha256}: is for a source that is one file, not for the many of an OME-Zarr"
            )
        return index_ome_zarr(args.source, args.level, wells_per_plate), {"source": args.source, "level": args.level}
    path, notes = bring(args.source, args.sha256, downloads)
    if layout is None or layout == "ome-zarr":
        store = find_store(path)
        if store is None:
            raise BuildError(f"{args.source}: {_HOW if layout is None else 'there is no OME-Zarr in it'}")
        return index_ome_zarr(str(store), args.level, wells_per_plate), notes | {"level": args.level}
    label = args.label or "label"
    readers: dict[str, Callable[[], Index]] = {
        "table": lambda: index_table(path, wells_per_plate, label),
        "folder": lambda: index_folder(path),
        "ome-tiff": lambda: index_ome_tiff(path, wells_per_plate, args.skip_bad is not None),
        "arrays": lambda: index_arrays(path, wells_per_plate),
        "tfds": lambda: index_tfds(path),
        "contours": lambda: index_contours(path, args.annotation, wells_per_plate, label),
        "pattern": lambda: index_pattern(path, args.pattern, wells_per_plate, label),
    }
    if layout in readers:
        return readers[layout](), notes
    return index_layout(path, layout, wells_per_plate), notes


_HOW = f"say how it is organized, --layout={'|'.join(LAYOUTS)}, or give a --pattern"


def _layout(args: argparse.Namespace) -> str | None:
    """What `--layout` or `--pattern` says, or the suffix; None of an archive, whose content may say it."""
    if args.layout is not None or args.pattern is not None:
        return args.layout or "pattern"
    layout = layout_of(args.source)
    if layout is None and args.source.lower().endswith(IMAGE_SUFFIXES) and not Path(args.source).is_dir():
        raise BuildError(
            f"{args.source}: is one image; give its folder with --layout=folder, or --layout=ome-tiff for OME-TIFF"
        )
    if layout is None and not is_archive(args.source):
        raise BuildError(f"{args.source}: {_HOW}")
    return layout


def _part_of(index: Index, plates: str | None, wells: str | None) -> Index:
    """Only some plates and wells.

    Raises:
        BuildError: if one of them is not there.
    """
    for flag, wanted, of_field in (("plates", plates, "plate"), ("wells", wells, "well")):
        if wanted is None:
            continue
        names = {name.strip() for name in wanted.split(",")}
        if flag == "wells":
            names = {well_name(name, "--wells", 1536) for name in names}
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
    if args.kind == "shapes":
        if _holds_contours(index):
            return ResampledContour(args.points, args.resampling), index
        if args.mask == "labels":
            return OutlinesOfLabels(args.points, args.resampling), index
        return OutlineOfMask(args.points, args.resampling, grey=args.mask == "grey"), index
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
    except (BuildError, LockedError, OSError) as error:  # OSError: the disk is full, or not ours to write to
        sys.exit(f"data.build: {error}")
    except MemoryError:
        sys.exit("data.build: memory ran out; free some, or give it less at once with --plates or --wells")
    except KeyboardInterrupt:
        sys.exit("data.build: stopped; the same command goes on")

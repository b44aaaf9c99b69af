"""Build a set that every configuration can name.

    python -m data.build simulated
    python -m data.build bbbc021 --source=../shared/data/bbbc021_singlecell_subset
    python -m data.build bbbc021 --plates=Week1_22123,Week1_22141 --sha256=registry.txt
    python -m data.build idr0093 --source=FOLDER --annotation=idr0093-screenA-annotation.csv.gz --plates=001,002
    python -m data.build my_screen --source=FOLDER --layout=imagexpress --channels=w1=DNA,w2=actin --crop=256
    python -m data.build my_plate --source=https://server/plate.zarr --level=1
    python -m data.build my_cells --source=images.csv --objects=centers.csv --crop=96 --label=treatment
    python -m data.build my_shapes --source=MASKS --layout=folder --label=folder --kind=shapes --points=256

Several machines with one disk make a set in parts, which a last command joins:

    python -m data.build my_screen --source=FOLDER ... --part=1/4      (and 2/4, 3/4, 4/4, at once or not)
    python -m data.build my_screen --source=FOLDER ... --join

A build that was stopped goes on with the same command. data/README.md explains sources and flags.
"""

import contextlib
import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from bie_jax.files.lock import LockedError, locked, locked_together
from bie_jax.input.image_set import damage_of_set
from data import limits
from data.command_line import parse
from data.errors import BuildError
from data.fields.channels import choose_channels
from data.fields.crops import AroundMasks, AroundPoints, Cut, RandomWindows, Tiles, Whole
from data.fields.field_set import VERSION, build_fields, bytes_read
from data.fields.index import Index
from data.fields.maker import FieldMaker
from data.fields.object_table import attach_objects
from data.fields.outlines import CHANNEL, OutlineOfMask, OutlinesOfLabels, ResampledContour
from data.options import FieldOptions, ImageOptions, Options, PlaneOptions, ShapeOptions
from data.records.share import Share
from data.records.summary import examples_in, print_summary
from data.records.writer import building_folder
from data.sources.contours import holds_contours
from data.sources.masks import as_masks
from data.sources.origin import Origin, origin_of_source
from data.studies.known import STUDIES
from data.studies.study import Simulation
from data.wells import well_name


def main(arguments: list[str]) -> None:
    """Build one set, unless it is there."""
    options = parse(arguments, __doc__)
    bounds = limits.Limits() if options.max_gb is None else limits.Limits(options.max_gb * limits.GB, math.inf)
    with limits.using(bounds):
        _build_once(options)


def _build_once(options: Options) -> None:
    study = STUDIES.get(options.fields.name)
    version = VERSION if study is None else study.version
    directory = options.data_dir / options.set_name / version
    with _alone_or_with_other_parts(options, version):
        if not any(directory.glob("*")):
            start = time.perf_counter()
            if isinstance(study, Simulation):
                study.build(options.data_dir, options.workers)
                bytes_in = 0
            else:
                origin = (origin_of_source if study is None else study.origin)(options.fields)
                bytes_in = _build(options, origin, version)
            if not isinstance(options.work, Share):
                print_summary(directory, time.perf_counter() - start, bytes_in)
            return
        wrong = damage_of_set(directory)
        if wrong is not None:
            raise BuildError(f"{directory} is there and damaged: {wrong}; remove it to build it again")
        statistics = json.loads((directory / "statistics.json").read_text())
        print(f"{directory} is built already ({examples_in(statistics)}); remove it to build it again")


@contextlib.contextmanager
def _alone_or_with_other_parts(options: Options, version: str) -> Iterator[None]:
    """Parts of a set are made beside each other, each by one process; all else is done by a process that is alone."""
    building = building_folder(options.set_name, version, options.data_dir)
    lock = building.with_name(f"{building.name}.lock")
    if not isinstance(options.work, Share):
        with locked(lock):
            yield
        return
    number = options.work.number
    with locked_together(lock), locked(building.with_name(f"{building.name}-part-{number}.lock")):
        yield


def _build(options: Options, origin: Origin, version: str) -> int | None:
    """Write the examples of an origin's fields; returns the size of what they were made from, if it is known."""
    examples, planes = options.examples, options.planes
    channels, notes = origin.channels, origin.notes
    if isinstance(examples, ShapeOptions):
        origin = _outlined(origin, options.fields, planes, examples)
        channels, notes = origin.channels, origin.notes
    elif planes.channels:
        channels = choose_channels(origin.index.channels, planes.channels)
    index = _part_of(origin.index, options.fields)
    if isinstance(examples, ShapeOptions):
        cut = _outline(index, examples)
    else:
        cut, index = _crops(index, origin.object_columns, examples, options.fields.wells_per_plate or 384)
    if isinstance(cut, AroundMasks):
        channels = {source: name for source, name in channels.items() if source != cut.channel}
    maker = FieldMaker(
        tuple(channels), planes.z, planes.t, cut, options.fields.label or origin.label, illumination=None
    )
    if isinstance(examples, ImageOptions):
        plates = list(dict.fromkeys(field.plate for field in index.fields))
        notes = notes | {"illumination": plates if examples.illumination else "as it is"}
    build_fields(
        options.set_name,
        index,
        maker,
        tuple(channels.values()),
        options.data_dir,
        num_workers=options.workers,
        skip_bad=options.skip_bad,
        text=origin.text,
        version=version,
        notes=notes,
        illumination=isinstance(examples, ImageOptions) and examples.illumination,
        work=options.work,
        asked=options.asked(),
    )
    return None if isinstance(options.work, Share) else bytes_read(index, maker)


def _outlined(origin: Origin, fields: FieldOptions, planes: PlaneOptions, shapes: ShapeOptions) -> Origin:
    """The same fields, of one channel: masks of any colors, or contours."""
    index = as_masks(origin.index, labels=shapes.mask == "labels")
    channels = choose_channels(index.channels, planes.channels)
    stacked = [field for field in index.fields if len({(c, z) for c, z, _ in field.planes}) > len(index.channels)]
    if shapes.mask == "labels" and stacked and planes.z in ("max", "mean", "focus"):
        raise BuildError(
            f"{stacked[0].source}: holds label images of several focal planes, and --z={planes.z} of numbers of "
            "objects means nothing; use --z=each, or --z=N for one plane"
        )
    if len(channels) > 1:
        raise BuildError(
            f"{fields.source}: --kind=shapes takes one channel, that of the masks, and here are {', '.join(channels)}; "
            "choose it with --channels"
        )
    notes: dict[str, Any] = {"points": shapes.points, "resampling": shapes.resampling}
    if not holds_contours(index):
        notes["mask"] = shapes.mask
    return dataclasses.replace(
        origin,
        index=index,
        channels=dict.fromkeys(channels, CHANNEL),
        text=f"Outlines of {shapes.points} points. {origin.text}",
        notes=origin.notes | notes,
    )


def _part_of(index: Index, options: FieldOptions) -> Index:
    """Only some plates and wells.

    Raises:
        BuildError: if one of them is not there.
    """
    for flag, wanted, of_field in (("plates", options.plates, "plate"), ("wells", options.wells, "well")):
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


def _outline(index: Index, shapes: ShapeOptions) -> Cut:
    """How a mask or a contour becomes outlines."""
    if holds_contours(index):
        return ResampledContour(shapes.points, shapes.resampling)
    if shapes.mask == "labels":
        return OutlinesOfLabels(shapes.points, shapes.resampling)
    return OutlineOfMask(shapes.points, shapes.resampling, grey=shapes.mask == "grey")


def _crops(
    index: Index, object_columns: dict[str, type] | None, images: ImageOptions, wells_per_plate: int
) -> tuple[Cut, Index]:
    """How an image becomes examples; and the index, with the objects that a table lists."""
    if images.crop is None:
        return Whole(), index
    if images.objects is not None:
        index, extra = attach_objects(index, images.objects, wells_per_plate)
        return AroundPoints(images.crop, extra), index
    if object_columns is not None:
        return AroundPoints(images.crop, object_columns), index
    if images.label_mask is not None:
        if images.label_mask not in index.channels:
            raise BuildError(f"--label-mask={images.label_mask}: there are the channels {', '.join(index.channels)}")
        return AroundMasks(images.crop, images.label_mask), index
    if images.random_crops is not None:
        return RandomWindows(images.crop, images.random_crops, images.seed), index
    return Tiles(images.crop, images.overlap), index


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BuildError, LockedError, OSError) as error:  # OSError: the disk is full, or not ours to write to
        sys.exit(f"data.build: {error}")
    except MemoryError:
        sys.exit("data.build: memory ran out; free some, or give it less at once with --plates or --wells")
    except KeyboardInterrupt:
        sys.exit("data.build: stopped; the same command goes on")

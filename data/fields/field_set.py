"""From an index of fields to a set: what all fields must agree in is checked, then every one is written."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import BadInputError, BuildError, naming_skip_bad
from data.fields.first_example import first_example
from data.fields.index import Field, Index
from data.fields.labels import names_alike, with_labels
from data.fields.maker import FieldMaker
from data.fields.plate_light import estimate_illumination
from data.fields.sizes import check_sizes, size_notes, sizes_of
from data.records.description import Description
from data.records.shards import unfinished
from data.records.share import Share, Work, agree, refuse_unfinished, shards_to_make
from data.records.summary import print_share
from data.records.writer import building_folder, join_set, plan_set, write_all_shards, write_shards

VERSION = "1.1.0"


def build_fields(
    name: str,
    index: Index,
    maker: FieldMaker,
    channel_names: tuple[str, ...],
    data_dir: Path,
    *,
    num_workers: int,
    skip_bad: Path | None,
    text: str,
    version: str = VERSION,
    notes: dict[str, Any],
    illumination: bool = False,
    work: Work = "all",
    asked: Mapping[str, str] | None = None,
) -> Path | None:
    """Write every field of an index, or one process's share of them, or join what others have written.

    Args:
        name: of the set.
        index: the fields.
        maker: what becomes of them.
        channel_names: in the set, one for each channel of the maker's examples.
        data_dir: folder of built sets.
        num_workers: processes.
        skip_bad: csv for what cannot be read; None: it stops the build.
        text: a sentence or two on what this is and where it is from.
        version: of the set.
        notes: what else `build.json` shall say.
        illumination: whether each plate's own light is divided away.
        work: which shards this process makes, and whether it joins them.
        asked: flag -> value, which all processes that make the set must have in common; None: there are no others.

    Returns:
        The set's folder; None after a share, which is no set yet.

    Raises:
        BuildError: naming the file, well, part or flag, and what to do.
    """
    taken = {*maker.own_columns(), "image", "channel_names"} - {"label"}
    clash = sorted(taken & set(index.columns))
    if clash:
        raise BuildError(f"the columns {clash} of source or annotation have names that a set needs itself; rename them")
    label_notes: dict[str, Any] = {}
    if maker.label:
        index, label_notes = with_labels(index, maker.label)
        maker = dataclasses.replace(maker, label="label")
    _check_planes(index, maker, skip_bad is not None)
    sizes = sizes_of(index, maker.channels[0]) if maker.cut.kind == "images" else {}
    if skip_bad is None:
        check_sizes(sizes, maker.cut)
    with naming_skip_bad(skip_bad is not None):
        shape, dtype, per_field = first_example(index, maker, skip_bad is not None)
    description = Description(
        name=name,
        version=version,
        kind=maker.cut.kind,
        channel_names=channel_names,
        pixel_size_um=index.pixel_size_um,
        image_shape=shape,
        dtype=dtype,
        columns=maker.columns(index),
        text=text,
        simulated=False,
    )
    notes = notes | {
        "z": maker.z,
        "t": maker.t,
        "missing wells": missing_wells(index),
        "ignored": [list(entry) for entry in index.ignored],
    }
    building = building_folder(name, version, data_dir)
    parts = agree(building, work, asked or {})
    # What is in which shard depends on no pixel, and so not on the light, which only the plates of a share need.
    plan = plan_set(description, index.fields, maker, data_dir, per_field, skip_bad is not None)
    numbers = shards_to_make(work, len(plan.runs))
    attachments: dict[str, Path] = {}
    if illumination:
        plates = {field.plate for number in numbers for field in plan.runs[number]}
        own = f".part-{work.number}" if isinstance(work, Share) else ""
        light = estimate_illumination(index, maker, building, num_workers, skip_bad is not None, plates, own)
        plan = dataclasses.replace(plan, maker=dataclasses.replace(maker, illumination=light))
        attachments = light.files()
    with naming_skip_bad(skip_bad is not None):
        if isinstance(work, Share):
            print_share(description.name, work, write_shards(plan, numbers, num_workers), len(plan.runs))
            return None
        shards = write_all_shards(plan, num_workers) if work == "all" else plan.shards
    if work == "none":
        problems = {shard.number: problem for shard in shards if (problem := unfinished(shard))}
        refuse_unfinished(problems, len(shards), parts)
    notes |= size_notes(sizes) | label_notes | names_alike(index)
    return join_set(plan, shards, skip_bad, index.unreadable, notes, attachments)


def bytes_read(index: Index, maker: FieldMaker) -> int | None:
    """Size of the files and chunks that the examples are made from; None: a server has them, and was not asked."""
    files: set[Path] = set()
    for field in index.fields:
        for plane in maker.planes(field):
            with contextlib.suppress(BadInputError):  # a plane that is not there was listed, or has stopped the build
                held = plane.files()
                if held is None:
                    return None
                files.update(held)
    size = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def missing_wells(index: Index) -> list[str]:
    """Wells that a plate lacks and another plate of the index has."""
    wells: dict[str, set[str]] = {}
    for field in index.fields:
        wells.setdefault(field.plate, set()).add(field.well)
    everywhere = set().union(*wells.values())
    return [f"{plate} {well}" for plate, own in sorted(wells.items()) for well in sorted(everywhere - own)]


def _check_planes(index: Index, maker: FieldMaker, skip_bad: bool) -> None:
    """Refuse a channel that fields lack before hours are spent; the index knows without opening a file."""
    lacking: dict[str, list[Field]] = {}
    for field in index.fields:
        present = {channel for channel, _, _ in field.planes}
        for channel in maker.channels:
            if channel not in present:
                lacking.setdefault(channel, []).append(field)
    if lacking and not skip_bad:
        channel, fields = next(iter(lacking.items()))
        more = f" (and {', '.join(list(lacking)[1:])} in others)" if len(lacking) > 1 else ""
        raise BuildError(
            f"channel {channel} is missing in {len(fields)} of {len(index.fields)} fields, first in {fields[0]}{more}; "
            "choose the channels that all have with --channels, or leave such fields out with --skip-bad=FILE.csv"
        )

"""From an index of fields to a set: what all fields must agree in is checked, then every one is written."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from data.errors import BadInputError, BuildError, naming_skip_bad
from data.fields.first_example import first_example
from data.fields.index import Field, Index
from data.fields.labels import names_alike, with_labels
from data.fields.maker import FieldMaker
from data.fields.sizes import check_sizes, size_notes, sizes_of
from data.records.description import Description
from data.records.writer import write_set

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
) -> Path:
    """Write every field of an index.

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

    Returns:
        The set's folder.

    Raises:
        BuildError: naming the file or well, and what to do.
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
    with naming_skip_bad(skip_bad is not None):
        return write_set(
            description,
            index.fields,
            maker,
            data_dir,
            num_workers=num_workers,
            examples_per_part=per_field,
            skip_bad=skip_bad,
            unreadable=index.unreadable,
            notes=notes | size_notes(sizes) | label_notes | names_alike(index),
            attachments={} if maker.illumination is None else maker.illumination.files(),
        )


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

"""What a name stands for: the fields of a set, and what is known of them beforehand."""

import dataclasses
from typing import Any

from data.annotation import join, read_annotation
from data.fields.beside import without_beside
from data.fields.index import Index
from data.options import FieldOptions
from data.sources.source import index_source, layout_asked_for

# Where every image that is there is taken, whatever it is called; elsewhere a name or a table says what it is.
_LAYOUTS_OF_ANY_NAMES = ("folder", "ome-tiff", "ome-zarr", None)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a set comes from.

    Attributes:
        index: its fields.
        channels: as the source calls them -> in the set, in the set's order.
        label: column that is the label unless the user chooses another; "": none.
        text: a sentence or two for the set's description.
        notes: what `build.json` says of it.
        object_columns: metadata of the objects that the fields come with; None: they come with none.
    """

    index: Index
    channels: dict[str, str]
    label: str
    text: str
    notes: dict[str, Any]
    object_columns: dict[str, type] | None = None


def same_names(index: Index) -> dict[str, str]:
    """The channels of a source under their own names."""
    return {channel: channel for channel in index.channels}


def origin_of_source(options: FieldOptions) -> Origin:
    """Fields of the user's own, joined with an annotation if there is one.

    Raises:
        BuildError: naming the file, and what to do.
    """
    wells_per_plate = options.wells_per_plate or 384
    index, notes = index_source(options, wells_per_plate)
    layout = layout_asked_for(options)
    if options.kind == "images" and layout in _LAYOUTS_OF_ANY_NAMES:
        index = without_beside(index)
    if options.annotation is not None and layout != "contours":
        table = read_annotation(options.annotation, wells_per_plate, options.label or "label")
        index, joined = join(index, table, str(options.annotation), plate_pattern=None, leave_out=options.leave_out)
        notes |= joined
    label = "label" if "label" in index.columns else ""
    return Origin(index, same_names(index), label, f"{options.kind.capitalize()} of {options.source}.", notes)

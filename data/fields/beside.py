"""What lies beside images and is none of them: masks of theirs, thumbnails, and a slide's label and overview."""

import dataclasses
import re

from data.fields.index import Field, Index

_WORDS = "labels?|masks?|macro|overview|thumb|thumbnail|preview|barcode"
# As Bio-Formats and scanners call a slide's pictures, perhaps with a number behind.
_ALONE = re.compile(rf"(.*/)?({_WORDS})([ _-]?image)?([ _#-]*[0-9]+)?", re.IGNORECASE)
# Beside an image that is called like the first part.
_BEHIND = re.compile(rf"(.+?)[ ._-]+({_WORDS})([ _-]?image)?", re.IGNORECASE)
_ENDING = re.compile(r"(\.ome)?\.(tiff?|png|jpe?g|zarr)\b.*", re.IGNORECASE)


def without_beside(index: Index) -> Index:
    """The images alone; what lies beside them goes to `ignored`.

    It is told by its name, that of the file or the one within it: "macro image", or "a_mask" beside "a". Where there is
    nothing else, it is what is meant. Images of wells are what their names say that they are.
    """
    names = [_names(field) for field in index.fields]
    all_names = set().union(*names)
    beside = [not field.well and _is_beside(of_field, all_names) for field, of_field in zip(index.fields, names)]
    if all(beside):
        return index
    why = "left out: its name is that of a mask, label, overview or thumbnail"
    return dataclasses.replace(
        index,
        fields=tuple(field for field, left_out in zip(index.fields, beside) if not left_out),
        ignored=index.ignored
        + tuple((f"{field.source}{_quoted(field)}", why) for field, left_out in zip(index.fields, beside) if left_out),
    )


def _quoted(field: Field) -> str:
    return f", {field.metadata['image_name']!r}" if "image_name" in field.metadata else ""


def _names(field: Field) -> set[str]:
    """What an image is called, without endings: the path, and the name that its metadata have."""
    return {_ENDING.sub("", name) for name in (field.source, str(field.metadata.get("image_name", ""))) if name}


def _is_beside(names: set[str], all_names: set[str]) -> bool:
    behind = [match[1] for name in names if (match := _BEHIND.fullmatch(name))]
    return any(_ALONE.fullmatch(name) for name in names) or any(name in all_names for name in behind)

"""Which label each field has: the text that the source writes, and "" where it writes none."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from data.errors import BuildError
from data.fields.index import Field, Index
from data.sources.entries import Value
from data.text import alike_but_for_case

_PLACES = ("plate", "well", "site")


def with_labels(index: Index, column: str) -> tuple[Index, dict[str, Any]]:
    """Give every field its `label`.

    Args:
        index: of any source.
        column: of the fields' metadata, or plate, well or site.

    Returns:
        The index whose fields have the column `label`, text, "" where there is none; and for `build.json`: the fields
        without a label, and what differs in letter case alone.

    Raises:
        BuildError: if there is no such column.
    """
    if column not in (*index.columns, *_PLACES):
        there = ", ".join((*index.columns, *_PLACES))
        raise BuildError(f"--label={column}: there is no such column; there are {there}")
    texts = label_texts(
        [field.metadata[column] if column in index.columns else _place(field, column) for field in index.fields]
    )
    fields = tuple(
        dataclasses.replace(field, metadata=field.metadata | {"label": text})
        for field, text in zip(index.fields, texts, strict=True)
    )
    ignored = index.ignored
    if column != "label" and "label" in index.columns:
        ignored += (("the column label", f"--label={column} takes its place"),)
    labeled = dataclasses.replace(index, fields=fields, columns=index.columns | {"label": str}, ignored=ignored)
    return labeled, {"fields without a label": [str(f) for f, text in zip(index.fields, texts) if not text]}


def _place(field: Field, column: str) -> Value:
    return getattr(field, column)


def label_texts(values: Sequence[Value]) -> list[str]:
    """The values of a column as labels.

    Text stays as it is. A number that is none (NaN) is "". Programs that know no missing whole number turn a column
    that lacks one into decimals; where all others of such a column are whole, they are written so again: 1.0 is "1".
    """
    floats = [value for value in values if isinstance(value, float)]
    present = [value for value in floats if not math.isnan(value)]
    were_whole = len(present) < len(floats) and all(value.is_integer() for value in present)
    return [_text(value, were_whole) for value in values]


def _text(value: Value, was_whole: bool) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value)) if was_whole else str(value)
    return str(value)


def names_alike(index: Index) -> dict[str, Any]:
    """For `build.json`: labels, plates and channels that differ in letter case alone; they are not the same."""
    names = {
        "label": [str(field.metadata.get("label", "")) for field in index.fields],
        "plate": [field.plate for field in index.fields],
        "channel": list(index.channels),
    }
    alike = [[what, *group] for what, found in names.items() for group in alike_but_for_case(found)]
    return {"names that differ in letter case alone": alike} if alike else {}

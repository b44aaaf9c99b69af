"""What is said of a value that the schema refuses: the key, the value, what is allowed, and how it is written.

Everything is read off the schema, so that a key's range stands in one place.
"""

import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bie_jax.config.schema import Allowed


def describe_faults(schema: type[BaseModel], given: Mapping[str, Any], faults: Sequence[Any]) -> list[str]:
    """One line for each key at fault.

    Args:
        schema: of the whole configuration.
        given: the values, nested as the schema is.
        faults: `ValidationError.errors()`.
    """
    lines = (_describe(schema, given, fault) for fault in faults)
    return list(dict.fromkeys(lines))  # a list of five words has five faults, and one line


def allowed_values(schema: type[BaseModel], key: str) -> str:
    """What may stand at a key ("data.crop_size"), with an example as the command line takes it; "" for no such key."""
    place = _find(schema, key.split("."))
    if place is None:
        return ""
    if isinstance(place, type):
        first = next(iter(_leaves(place, f"{key}.")))
        return f"expected a group of keys, which are set one by one, e.g. {_flag(*first)}"
    allowed = _allowed(key.rsplit(".", 1)[-1], place.annotation, place.metadata)
    return _expected(key, allowed)


def refusal(key: str, value: Any, allowed: Allowed) -> str:
    """The line on a value that the schema takes, of which somebody else knows that it is none of those allowed."""
    return f"config.{key}={_shown(value)}: {_expected(key, allowed)}"


def one_of(values: Sequence[Any]) -> Allowed:
    """A choice."""
    return Allowed(f"{', '.join(map(repr, values[:-1]))} or {values[-1]!r}", values[0])


def numbers_of(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, float, float]]:
    """(key, least, most) of every number of the schema, numbers in lists too."""
    for name, field in schema.model_fields.items():
        key = f"{prefix}{name}"
        if _is_group(field.annotation):
            yield from numbers_of(typing.cast(type[BaseModel], field.annotation), f"{key}.")
            continue
        of_parts = [_unwrap(part) for part in typing.get_args(field.annotation) if part is not ...]
        for kind, metadata in [(field.annotation, field.metadata), *of_parts]:
            if kind in (int, float):
                yield (key, *_ends(metadata))


def _describe(schema: type[BaseModel], given: Mapping[str, Any], fault: Any) -> str:
    # Where a fault lies within a list is no part of the key, and the whole list is what was written.
    path = [part for part in fault["loc"] if isinstance(part, str)]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        return f"config.{key}={fault['input']!r}: there is no such key"
    if fault["type"] == "missing" and fault["loc"] == tuple(path):
        return f"config.{key}: missing; every file states every key, as configs/base.py does"
    value: Any = given
    for part in path:
        value = value[part]
    return f"config.{key}={_shown(value)}: {allowed_values(schema, key)}"


def _expected(key: str, allowed: Allowed) -> str:
    return f"expected {allowed.words}, e.g. {_flag(key, allowed.example)}"


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}... ({len(shown)} characters)"


def _find(schema: type[BaseModel], path: Sequence[str]) -> FieldInfo | type[BaseModel] | None:
    place: Any = schema
    for name in path:
        if not isinstance(place, type) or name not in place.model_fields:
            return None
        field = place.model_fields[name]
        place = field.annotation if _is_group(field.annotation) else field
    return place


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _leaves(schema: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in schema.model_fields.items():
        if _is_group(field.annotation):
            yield from _leaves(typing.cast(type[BaseModel], field.annotation), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _allowed(name, field.annotation, field.metadata).example


def _flag(key: str, value: Any) -> str:
    """As a shell takes it: brackets and quotes have a meaning there."""
    if isinstance(value, str):
        return f"--config.{key}={value or chr(39) * 2}"
    if isinstance(value, tuple):
        written = repr(value).replace(" ", "")
        return f'--config.{key}="{written}"' if "'" in written else f"--config.{key}='{written}'"
    return f"--config.{key}={value}"


def _unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """A type and what is noted at it."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation, []
    kind, *notes = typing.get_args(annotation)
    return kind, [part for note in notes for part in (note.metadata if isinstance(note, FieldInfo) else [note])]


def _ends(metadata: Sequence[Any]) -> tuple[float, float]:
    low = [note.ge for note in metadata if isinstance(note, annotated_types.Ge)]
    high = [note.le for note in metadata if isinstance(note, annotated_types.Le)]
    return float(*low or [-math.inf]), float(*high or [math.inf])  # type: ignore[arg-type]


def _allowed(name: str, annotation: Any, metadata: Sequence[Any]) -> Allowed:
    noted = [note for note in metadata if isinstance(note, Allowed)]
    if noted:
        return noted[0]
    if typing.get_origin(annotation) is typing.Literal:
        return one_of(typing.get_args(annotation))
    if annotation is bool:
        return Allowed("True or False", True)
    if annotation in (int, float):
        return _number(annotation, metadata)
    if annotation is str:
        return _text(metadata)
    return _list(name, annotation, metadata)


def _number(kind: type, metadata: Sequence[Any]) -> Allowed:
    low, high = _ends(metadata)
    multiple = next(
        (int(typing.cast(int, note.multiple_of)) for note in metadata if isinstance(note, annotated_types.MultipleOf)),
        None,
    )
    what = "whole number" if kind is int else "number"
    ends = f"from {_plain(low)} to {_plain(high)}" + (f" that is a multiple of {multiple}" if multiple else "")
    example = kind(min(max(low, 1 if kind is int else 0.1), high))
    return Allowed(f"a {what} {ends}", example if not multiple else int(max(low, multiple)), f"{what}s {ends}")


def _plain(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


def _text(metadata: Sequence[Any]) -> Allowed:
    filled = any(isinstance(note, annotated_types.MinLen) for note in metadata)
    most = next(note.max_length for note in metadata if isinstance(note, annotated_types.MaxLen))
    size = f"of {1 if filled else 0} to {most} characters, in UTF-8 and without control characters"
    return Allowed(f"a text {size}", "name", f"texts {size},")


def _list(name: str, annotation: Any, metadata: Sequence[Any]) -> Allowed:
    parts = typing.get_args(annotation)
    each = _allowed(name, *_unwrap(parts[0]))
    if parts[-1] is not ...:
        two = f"two {each.several}, (height, width)"
        return Allowed(two, (32, 32))
    least = next((note.min_length for note in metadata if isinstance(note, annotated_types.MinLen)), 0)
    most = next(note.max_length for note in metadata if isinstance(note, annotated_types.MaxLen))
    return Allowed(f"{least} to {most} {each.several} in brackets", (each.example,))

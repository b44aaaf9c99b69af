"""The first example of an index, which decides shape and type of all."""

import tempfile
from pathlib import Path

import numpy as np

from data.errors import BadInputError, BuildError
from data.fields.index import Field, Index
from data.fields.maker import FieldMaker
from data.records import workers

First = tuple[tuple[int, int, int], str, int]  # shape, dtype, and how many examples the field gives


def first_example(index: Index, maker: FieldMaker, skip_bad: bool) -> First:
    """Shape and dtype of the set, which its first readable field decides, and how many examples that field gives."""
    first = _first_readable(index.fields, maker) if skip_bad else _first_of(index.fields, maker)
    if isinstance(first, str):
        raise BuildError(f"none of the {len(index.fields)} fields gives an example{first}")
    return first


def _first_of(fields: tuple[Field, ...], maker: FieldMaker) -> First | str:
    """Of the first field that gives an example, or ""; raises BadInputError for a field that cannot be read."""
    for field in fields:
        examples = [image for image, _ in maker.examples(field)]
        if examples:
            height, width, channels = examples[0].shape
            return (height, width, channels), str(np.dtype(examples[0].dtype)), len(examples)
    return ""


def _first_readable(fields: tuple[Field, ...], maker: FieldMaker) -> First | str:
    """The same, past fields that cannot be read, or of which a reader dies: they are met again, and listed.

    Returns:
        What is wrong with the last of them, if there is no other.
    """
    first: First | str = ""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "reading"
        while fields and isinstance(first, str):
            try:
                first = workers.alone(_pass_unreadable, fields[:_AT_ONCE], maker, note, note=note)
                fields = fields[_AT_ONCE:]
            except workers.DeadReaderError as error:
                if error.part is None:
                    raise BuildError(f"no process could be started ({error.problem}); try the command again") from None
                number, source = error.part
                first = f"; {source or fields[number].source}: {error.problem}"
                fields = fields[number + 1 :]
    return first


_AT_ONCE = 100  # fields that a process is told of


def _pass_unreadable(fields: tuple[Field, ...], maker: FieldMaker, note: Path) -> First | str:
    problem = ""
    for number, field in enumerate(fields):
        try:
            with workers.noted(note, number):
                first = _first_of((field,), maker)
        except BadInputError as error:
            problem = f"; {error}"
        else:
            if not isinstance(first, str):
                return first
    return problem

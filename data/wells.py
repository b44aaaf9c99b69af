"""Names of wells."""

import re

from data.errors import BuildError

# Wells on a plate -> (rows, columns).
PLATE_FORMATS = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}


def well_name(name: str, place: object, wells_per_plate: int = 384) -> str:
    """ "B2", "B02" and "b002" -> "B02".

    Args:
        name: row letters and column number.
        place: file, line or folder where the name stands, for the message.
        wells_per_plate: the plate's format; rows after Z are AA, AB, ...

    Raises:
        BuildError: naming `place`, if the plate has no such well.
    """
    rows, columns = PLATE_FORMATS[wells_per_plate]
    match = re.fullmatch(r"([A-Za-z]{1,2})0*([1-9]\d?)", name.strip())
    if match is not None:
        letters, column = match[1].upper(), int(match[2])
        row = ord(letters[-1]) - ord("A") + (26 * (ord(letters[0]) - ord("A") + 1) if len(letters) == 2 else 0)
        if row < rows and column <= columns:
            return f"{letters}{column:02d}"
    raise BuildError(
        f"{place}: well {name!r}: a plate of {wells_per_plate} wells has the rows A to {row_letters(rows - 1)} and the "
        f"columns 1 to {columns}, as in B02"
    )


def row_letters(row: int) -> str:
    """0 -> "A", 25 -> "Z", 26 -> "AA"."""
    return chr(ord("A") + row) if row < 26 else f"{chr(ord('A') + row // 26 - 1)}{chr(ord('A') + row % 26)}"

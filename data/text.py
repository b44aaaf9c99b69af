"""Text that enters a set, in one form: what looks the same to a reader is the same."""

import functools
import unicodedata
from collections.abc import Iterable

from data.errors import BuildError

# How programs write that there is no value, in the cell of a table or in an array of texts. A folder or a file that is
# called so is called so. "none" and "null gene" are values.
_MISSING = frozenset(
    ("", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN", "NULL", "null", "None", "NaT")
)  # fmt: skip


def plain(text: str, where: str) -> str:
    """A text as it is compared and kept: every name, label and column of a set, and what a user types to choose them.

    Args:
        text: of any source.
        where: a person finds it there; for the message.

    Returns:
        Unicode's composed form (NFC), without characters that are not seen (byte order marks, zero-width characters,
        marks of direction, soft hyphens), with blanks instead of other white space (non-breaking spaces, tabs, line
        breaks), and none at the ends. Letter case and blanks within stay as they are.

    Raises:
        BuildError: for a control character such as NUL, and half of a surrogate pair.
    """
    text = _plain(text)
    if not text.isprintable():
        for character in text:
            if unicodedata.category(character) in ("Cc", "Cs"):
                raise BuildError(
                    f"{where}: {text!r} has the control character U+{ord(character):04X}; correct the text"
                )
    return text


@functools.lru_cache(maxsize=1 << 12)  # the same few names stand in every line
def _plain(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(c for c in text if unicodedata.category(c) != "Cf"))
    if not text.isprintable() or not text.isascii():
        text = "".join(" " if c.isspace() else c for c in text)
    return text.strip()


def is_missing(text: str) -> bool:
    """Whether a cell or a value, in the form of `plain`, says that there is no value: empty, NA, NaN, None, NULL."""
    return text in _MISSING


def alike_but_for_case(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that differ in letter case alone, sorted."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), set()).add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)

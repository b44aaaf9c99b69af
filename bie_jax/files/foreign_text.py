"""Names that others chose (channels, labels, plates, sets), where they are shown: in figures, in pages, on the console.

A name is data. What it holds for matplotlib, HTML or a terminal (a formula between dollars, a tag, an escape sequence,
bytes of a file name that were no UTF-8) is shown as it stands and obeyed nowhere.
"""

import html
import unicodedata
import warnings
from typing import Any

# Characters of a name, and of a title that holds some; longer ones leave the picture no room.
MOST_OF_NAME, MOST_OF_TITLE = 40, 100
# Marks, embeddings, overrides and isolates that turn the text behind them round.
_TURNS_TEXT = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, separators of lines and paragraphs


def visible(text: object, keep: str = "") -> str:
    r"""Text that every terminal and file can hold: what does not print is written as an escape, a line end as \n.

    Args:
        text: of any type.
        keep: characters that stay as they are.
    """
    return "".join(
        character
        if character in keep or (unicodedata.category(character) not in _NOT_SHOWN and character not in _TURNS_TEXT)
        else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def in_figure(text: object, most: int = MOST_OF_NAME) -> str:
    """A name in a figure of matplotlib, which takes what stands between two dollars for a formula.

    Args:
        text: of any type.
        most: characters that are shown; the middle of a longer text is left out.
    """
    shown = visible(text)
    if len(shown) > most:
        half = (most - 1) // 2
        shown = f"{shown[: most - 1 - half]}…{shown[-half:]}"
    return shown.replace("$", r"\$")


def in_html(text: object) -> str:
    """A name in a page, as text or between the quotes of an attribute."""
    return html.escape(visible(text, keep="\n\t"))


def save_figure(figure: Any, target: Any, **options: Any) -> None:
    """Save a figure of matplotlib; letters that its fonts lack are boxes in a PNG, and no reason to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(target, **options)

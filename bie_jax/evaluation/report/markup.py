"""Pieces of HTML. Strings out of data and configuration are escaped: a well named `<script>` is shown as such."""

import base64
import json

import pandas as pd

from bie_jax.files.foreign_text import in_html


def svg_image(svg: str, alternative: str) -> str:
    """An SVG as an <img>: its ids cannot clash with those of another picture, nor can it run anything."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img class="figure" src="data:image/svg+xml;base64,{data}" alt="{in_html(alternative)}">'


def script_json(content: object) -> str:
    """JSON for a <script> element: `<` is written as an escape, so that no string can end the element."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def csv_link(name: str, table: pd.DataFrame) -> str:
    """A link that saves the numbers behind a picture as a file; they are inside of the page."""
    data = base64.b64encode(table.to_csv(index=False).encode()).decode()
    return f'<a download="{in_html(name)}.csv" href="data:text/csv;base64,{data}">{in_html(name)}.csv</a>'

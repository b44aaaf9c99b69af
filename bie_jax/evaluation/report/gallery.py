"""Pictures one below the other, each with its title and a sentence or two."""

from collections.abc import Sequence

from bie_jax.evaluation.report.markup import svg_image
from bie_jax.evaluation.report.style import Picture
from bie_jax.files.foreign_text import in_html


def gallery(pictures: Sequence[Picture]) -> str:
    """All pictures, in their order."""
    return "".join(
        f"<h3>{in_html(picture.title)}</h3><figure>{svg_image(picture.svg, picture.title)}"
        f"<figcaption>{in_html(picture.caption)}</figcaption></figure>"
        for picture in pictures
    )

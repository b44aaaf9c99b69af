"""What a set is and what makes its examples, before any is written."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, Protocol

import numpy as np

Example = tuple[np.ndarray, dict[str, Any]]

# What the examples of a set are: pixels, or outlines (P, 2, 1): points by (row, column), px.
Kind = Literal["images", "shapes"]


@dataclasses.dataclass(frozen=True)
class Description:
    """What is true of a whole set.

    Attributes:
        name: of the set, and of its folder.
        version: of the builder; another version, another folder.
        kind: what the examples are.
        channel_names: C names, in the order of the last axis.
        pixel_size_um: micrometers per pixel; None where the source does not say.
        image_shape: (H, W, C); of outlines (P, 2, 1).
        dtype: of the pixels, "uint8", "uint16" or "float32".
        columns: metadata columns and their Python types, in order; among them plate, well, site, label, source.
        text: a sentence or two on what this is and where it is from.
        simulated: whether no microscope was involved.
    """

    name: str
    version: str
    kind: Kind
    channel_names: tuple[str, ...]
    pixel_size_um: float | None
    image_shape: tuple[int, int, int]
    dtype: str
    columns: dict[str, type]
    text: str
    simulated: bool


class Maker(Protocol):
    """Makes a set's examples from its parts (fields, wells, ...), in any order and in any process. Picklable."""

    def identity(self, part: Any, /) -> str:
        """Changes when the part's examples may have changed; a build goes on only with what is still true."""
        ...

    def examples(self, part: Any, /) -> Iterator[Example]:
        """(image [H, W, C], metadata with exactly `Description.columns`), in the order they will be read in.

        Raises:
            BadInputError: if the part cannot be read.
        """
        ...

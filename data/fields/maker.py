"""From one field to its examples: which channels, which planes, which crops, which label."""

import dataclasses
from collections.abc import Iterator

from data.fields.crops import AroundMasks, Cut
from data.fields.illumination import Illumination
from data.fields.index import AxisChoice, Field, Index, assemble, planes_read
from data.fields.planes import Plane
from data.records.description import Example

BASE_COLUMNS = {"plate": str, "well": str, "site": int, "label": str, "source": str}  # of every set


@dataclasses.dataclass(frozen=True)
class FieldMaker:
    """Makes the examples of a field.

    Attributes:
        channels: as the source calls them, in the order of the image's last axis.
        z: which focal planes.
        t: which time points.
        cut: how an image becomes examples.
        label: column of the field's metadata that becomes `label`; "": there is none, every label is empty.
        illumination: what to divide by; None: pixels stay as they are.
    """

    channels: tuple[str, ...]
    z: AxisChoice
    t: AxisChoice
    cut: Cut
    label: str
    illumination: Illumination | None

    def identity(self, field: Field) -> str:
        """Changes with any file of the field, and with what is known of it."""
        planes = [plane.identity() for _, plane in sorted(field.planes.items())]
        return f"{field}|{planes}|{sorted(field.metadata.items())}|{field.objects}"

    def examples(self, field: Field) -> Iterator[Example]:
        """Every crop of every kept plane and time point.

        Raises:
            BadInputError: if a plane of the field cannot be read.
        """
        for image, kept in assemble(field, self.channels, self.z, self.t):
            if self.illumination is not None:
                image = self.illumination.correct(image, field.plate, field.source)
            for crop, place in self.cut(field, image):
                label = str(field.metadata[self.label]) if self.label else ""
                base = {
                    "plate": field.plate,
                    "well": field.well,
                    "site": field.site,
                    "label": label,
                    "source": field.source,
                }
                yield crop, base | {k: v for k, v in field.metadata.items() if k != "label"} | kept | place

    def planes(self, field: Field) -> Iterator[Plane]:
        """Every plane that the examples are made from, a mask's too."""
        yield from planes_read(field, self.channels, self.z, self.t)
        if isinstance(self.cut, AroundMasks):
            yield from planes_read(field, (self.cut.channel,), "max", "max")

    def own_columns(self) -> dict[str, type]:
        """Metadata that every example has whatever its source says."""
        kept = {axis: int for axis, choice in (("z", self.z), ("t", self.t)) if choice == "each"}
        return BASE_COLUMNS | kept | self.cut.columns

    def columns(self, index: Index) -> dict[str, type]:
        """Metadata of every example, with their Python types."""
        given = {name: kind for name, kind in index.columns.items() if name != "label"}
        return BASE_COLUMNS | given | self.own_columns()

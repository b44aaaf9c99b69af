"""What a public screen calls its plates, channels and annotation, so that a user need not say it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from data.annotation import join
from data.errors import BuildError
from data.options import FieldOptions
from data.sources.origin import Origin
from data.sources.source import index_source
from data.studies.study import Study


@dataclasses.dataclass(frozen=True)
class Screen:
    """One screen of the IDR; its README says where images and annotation are from, and what each column is.

    Attributes:
        name: of the study, and of the set.
        version: of the set; another version when the same files give other metadata.
        text: what it is, its license and whose it is.
        channels: names in the set's order -> what else the study's files call them, in any case.
        pixel_size_um: for images that do not say; None where the study's documents do not either.
        wells_per_plate: 96 or 384.
        layout: of the raw files, one of `data.sources.source.LAYOUTS`; None where their names do not say the plate.
        pattern: of the raw files instead, for `index_pattern`; None with a layout.
        plate_pattern: regular expression whose first group is the plate within the name of its folder.
        label: column that is the label unless the user chooses another.
        negative_control: label of the negative controls; "" where the annotation names none.
        read_annotation: its table -> `plate`, `well` ("B02") and columns of text (object) and numbers, one line a well.
    """

    name: str
    version: str
    text: str
    channels: dict[str, tuple[str, ...]]
    pixel_size_um: float | None
    wells_per_plate: int
    layout: str | None
    pattern: str | None
    plate_pattern: str
    label: str
    negative_control: str
    read_annotation: Callable[[Path], pd.DataFrame]

    @property
    def study(self) -> Study:
        """It among the known sets: images, or whatever masks somebody has made of them."""
        return Study(
            name=self.name,
            version=self.version,
            kinds=("images", "shapes"),
            layout=self.layout or "pattern",
            flags=frozenset(),
            mask="binary",
            origin=self.origin,
        )

    def origin(self, options: FieldOptions) -> Origin:
        """Its images, or any part of them, joined with its annotation.

        Raises:
            BuildError: naming the file, and what to do.
        """
        source, table = options.needed_source(), options.annotation
        if table is None:
            raise BuildError(f"{self.name} needs --annotation, IDR's table; {options.readme} says where it is")
        if options.layout is None and options.pattern is None and Path(source).is_dir():
            options = dataclasses.replace(options, layout=self.layout, pattern=self.pattern)
        index, notes = index_source(options, options.wells_per_plate or self.wells_per_plate)
        if index.pixel_size_um is None:
            index = dataclasses.replace(index, pixel_size_um=self.pixel_size_um)
        wells = self.read_annotation(table)
        index, joined = join(index, wells, str(table), plate_pattern=self.plate_pattern, leave_out=options.leave_out)
        return Origin(index, self.name_channels(index.channels), self.label, self.text, notes | joined)

    def name_channels(self, found: tuple[str, ...]) -> dict[str, str]:
        """Channels of a source -> names in the set, in the study's order.

        Args:
            found: as the source calls them. One that the study does not know keeps its name and comes last; with a
                single channel on both sides there is nothing to know.
        """
        if len(found) == len(self.channels) == 1:
            return {found[0]: next(iter(self.channels))}
        known = {}
        for name, aliases in self.channels.items():
            calls = {call.casefold() for call in (name, *aliases)}
            matching = [channel for channel in found if channel.casefold() in calls]
            if len(matching) == 1:
                known[matching[0]] = name
        return known | {channel: channel for channel in found if channel not in known}

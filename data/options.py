"""What one build is asked for: parsed and checked once (`data.command_line`), never changed."""

import dataclasses
from pathlib import Path
from typing import Literal

from data.errors import BuildError
from data.fields.index import AxisChoice
from data.records.description import Kind
from data.records.share import Work

# How a mask is read: one object of two levels or of grey in each image, or each value an object.
MaskReading = Literal["binary", "grey", "labels"]


@dataclasses.dataclass(frozen=True)
class FieldOptions:
    """Which fields there are, and what is known of them.

    Attributes:
        name: as typed, of a known set or of the user's own.
        kind: what the fields shall become.
        source: folder, table, archive or file, or a URL; None: none was given.
        readme: which says what the source can be.
        sha256: of a source that is one file, or the file of them that a study asks for.
        layout: how the source is organized, one of `data.sources.source.LAYOUTS`; None: its suffix says it.
        pattern: regular expression for whole paths instead.
        annotation: table by plate and well; of contours a line for each.
        label: column that is the label; "": the set's own, or "label".
        wells_per_plate: 96, 384 or 1536; None: the set's own, or 384.
        level: resolution of an OME-Zarr, 0 is the finest.
        masks: of single objects beside a study's images: a folder, an archive, a URL, or "official".
        plates: names with commas between; None: all.
        wells: names with commas between; None: all.
        leave_out: whether what cannot be read, or has no line in the annotation, is left out; else it stops the build.
        downloads: folder for what is fetched and unpacked.
    """

    name: str
    kind: Kind
    source: str | None
    readme: str
    sha256: str | None
    layout: str | None
    pattern: str | None
    annotation: Path | None
    label: str
    wells_per_plate: int | None
    level: int
    masks: str | None
    plates: str | None
    wells: str | None
    leave_out: bool
    downloads: Path

    def needed_source(self) -> str:
        """The source of a set that cannot be built without; raises BuildError if none was given."""
        if self.source is None:
            raise BuildError(f"{self.name} needs --source; {self.readme} says what it can be")
        return self.source


@dataclasses.dataclass(frozen=True)
class PlaneOptions:
    """Which planes of a field become one image.

    Attributes:
        channels: as `data.fields.channels.choose_channels` reads it; None: all.
        z: which focal planes.
        t: which time points.
    """

    channels: str | None
    z: AxisChoice
    t: AxisChoice


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """How an image becomes examples that are images; at most one way to cut is given.

    Attributes:
        crop: side of an example in pixels; None: whole fields.
        overlap: pixels that neighboring tiles share.
        random_crops: number of windows at random, instead of tiles.
        seed: of these windows.
        objects: table of objects, one example for each.
        label_mask: channel that numbers objects, one example for each.
        illumination: whether each plate's own light is divided away.
    """

    crop: int | None
    overlap: int
    random_crops: int | None
    seed: int
    objects: Path | None
    label_mask: str | None
    illumination: bool


@dataclasses.dataclass(frozen=True)
class ShapeOptions:
    """How a mask or a contour becomes examples that are outlines.

    Attributes:
        points: of an outline, from 3.
        resampling: how they are placed, one of `bie_jax.shapes.resample.METHODS`.
        mask: how masks are read.
    """

    points: int
    resampling: str
    mask: MaskReading


@dataclasses.dataclass(frozen=True)
class Options:
    """One build.

    Attributes:
        set_name: what the set is called.
        data_dir: folder of built sets.
        workers: processes.
        max_gb: memory that one file may take, in GB; None: by its size.
        skip_bad: csv for what is left out; None: nothing is.
        work: which shards of the set this process makes, and whether it joins them.
        fields: which fields there are.
        planes: which of their planes become an image.
        examples: what an image becomes.
    """

    set_name: str
    data_dir: Path
    workers: int
    max_gb: int | None
    skip_bad: Path | None
    work: Work
    fields: FieldOptions
    planes: PlaneOptions
    examples: ImageOptions | ShapeOptions

    def asked(self) -> dict[str, str]:
        """Flag -> value, "" where it has none, of what decides what is in the set: parts of one set agree in it."""
        # A field that one part cannot read may be left out from then on, without making the others again.
        free = ("name", "readme", "leave_out", "downloads")
        asked = {"NAME": self.fields.name}
        for group in (self.fields, self.planes, self.examples):
            for name, value in vars(group).items():
                if name not in free and value is not None and value is not False and value != "":
                    asked[f"--{name.replace('_', '-')}"] = "" if value is True else str(value)
        return asked

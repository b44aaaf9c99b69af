"""The index that Harmony (Operetta, Opera Phenix) writes beside its images."""

import re
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from data.errors import BuildError
from data.fields.planes import FilePlane
from data.limits import reading, regular
from data.sources.entries import Entry, well_of, whole
from data.sources.spelling import find_spelled

INDEX_NAMES = ("Index.idx.xml", "Index.xml", "Index.ref.xml")  # of Harmony 5 and before, 6 and 7, Columbus

# Row, column, field, plane, channel, then the time as sk or t, kinetic state, FLIM.
IMAGE_NAME = re.compile(
    r"r(?P<row>[0-9]+)c(?P<column>[0-9]+)f(?P<site>[0-9]+)p(?P<z>[0-9]+)-ch(?P<channel>[0-9]+)"
    r"(?:(?:sk|t)(?P<t>[0-9]+))?(?:fk[0-9]+)?(?:fl[0-9]+)?\.(?i:tiff?)"
)

_NEEDED = ("URL", "Row", "Col", "FieldID", "ChannelID")
_MICROMETRES = {"m": 1e6, "mm": 1e3, "um": 1.0, "µm": 1.0, "nm": 1e-3}


def read_harmony(index: Path) -> tuple[list[Entry], list[float]]:
    """What an index lists.

    Returns:
        Entries in the order of the channels' numbers, and the pixel sizes in micrometers that occur.

    Raises:
        BuildError: for XML that is cut off, has a document type, or lists no images; for an image without what its
            place needs, or outside the index's folder.
    """
    content = _Content(index)
    with reading(index, regular(index).st_size, "no whole XML, copy it again"):
        ElementTree.parse(index, ElementTree.XMLParser(target=content))
    if not content.images:
        raise BuildError(f"{index}: lists no images")
    names = _channel_names(content)
    start = _first_time(index, content.images)
    entries = []
    for image in sorted(content.images, key=lambda image: whole(image["ChannelID"], str(index), "ChannelID")):
        file = PurePosixPath(image["URL"].replace("\\", "/"))
        where = f"{index}: {file}"
        if file.is_absolute() or ".." in file.parts or ":" in file.parts[0]:
            raise BuildError(f"{where}: is outside the index's folder; such files are not read")
        plane = whole(image.get("PlaneID", "1"), where, "PlaneID")
        if plane == 0:
            raise BuildError(f"{where}: PlaneID is 0, planes count from 1")
        time = whole(image.get("TimepointID", str(start)), where, "TimepointID")
        entries.append(
            Entry(
                FilePlane(find_spelled(index.parent, str(file), where), pages=1),
                where,
                plate=content.plate,
                well=well_of(image["Row"], image["Col"]),
                site=whole(image["FieldID"], where, "FieldID"),
                channel=names[image["ChannelID"]],
                z=plane - 1,
                t=time - start,
            )
        )
    return entries, sorted(content.pixel_sizes_um)


def _first_time(index: Path, images: list[dict[str, str]]) -> int:
    """The TimepointID of the first time point, 0 or 1, whether that one is there or not.

    The images' own names count time from 1. Where they are others: Harmony 5 counts from 0, and its index has a name of
    its own; later versions count from 1.
    """
    times = [whole(image["TimepointID"], str(index), "TimepointID") for image in images if "TimepointID" in image]
    if 0 in times:
        return 0
    names = [IMAGE_NAME.fullmatch(PurePosixPath(image["URL"].replace("\\", "/")).name) for image in images]
    starts = {
        whole(image["TimepointID"], str(index), "TimepointID") - int(name["t"]) + 1
        for image, name in zip(images, names, strict=True)
        if name is not None and name["t"] and "TimepointID" in image
    }
    if len(starts) == 1 and starts <= {0, 1}:
        return starts.pop()
    return 0 if index.name == INDEX_NAMES[0] else 1


class _Content(ElementTree.TreeBuilder):
    """Keeps of every image what its place needs, as an index can have a hundred thousand of them.

    Attributes:
        plate: name, or the number where there is none.
        images: texts by tag.
        channel_names: by ChannelID; Harmony 6 and 7 have them here, in `Maps`, others in every image.
        pixel_sizes_um: that occur.
    """

    def __init__(self, index: Path):
        super().__init__()
        self.index = index
        self.plate = ""
        self.images: list[dict[str, str]] = []
        self.channel_names: dict[str, str] = {}
        self.pixel_sizes_um: set[float] = set()

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse one: it may name other files, or entities without end."""
        raise BuildError(f"{self.index}: has a document type, which Harmony does not write; it is not read")

    def end(self, tag: str) -> ElementTree.Element:
        """Take what is needed of an element that is complete, and empty it."""
        element = super().end(tag)
        texts = {_local(child.tag): (child.text or "").strip() for child in element}
        kind = _local(tag)
        if kind == "Plate":
            if self.plate:
                raise BuildError(f"{self.index}: has two plates; there must be one index for each")
            self.plate = texts.get("Name") or texts.get("PlateID", "")
        elif kind == "Image" and texts:  # a well lists its images too, by number
            missing = [name for name in _NEEDED if not texts.get(name)]
            if missing:
                raise BuildError(f"{self.index}: an image has no {', '.join(missing)}: {texts.get('id', texts)}")
            self.images.append({name: texts[name] for name in (*_NEEDED, "PlaneID", "TimepointID") if name in texts})
            self._note_channel(element, texts["ChannelID"], texts)
            element.clear()
        elif kind == "Entry":
            self._note_channel(element, element.get("ChannelID", ""), texts)
            element.clear()
        return element

    def _note_channel(self, element: ElementTree.Element, channel: str, texts: dict[str, str]) -> None:
        if texts.get("ChannelName"):
            self.channel_names[channel] = texts["ChannelName"]
        for child in element:
            if _local(child.tag) == "ImageResolutionX" and child.text:
                unit = child.get("Unit") or "m"
                try:
                    self.pixel_sizes_um.add(float(child.text) * _MICROMETRES[unit])
                except (ValueError, KeyError):
                    raise BuildError(f"{self.index}: ImageResolutionX is {child.text!r} {unit}") from None


def _channel_names(content: _Content) -> dict[str, str]:
    """ChannelID -> name, with the number where there is no name or the same one twice."""
    names = {}
    for number in {image["ChannelID"]: None for image in content.images}:
        name = content.channel_names.get(number, "ch")
        shared = sum(other == name for other in content.channel_names.values()) != 1
        names[number] = f"{name}{number}" if name == "ch" else f"{name}_{number}" if shared else name
    return names


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]

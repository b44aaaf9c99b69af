"""Where pixels are: a plane is one two-dimensional image in a file, an array or a store, opened when it is read."""

import dataclasses
import struct
from pathlib import Path
from typing import Protocol

import imagecodecs
import numpy as np
import tifffile

from data.errors import BadInputError
from data.limits import check_size, reading, regular

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


class Plane(Protocol):
    """One two-dimensional image. Picklable; holds no open file."""

    @property
    def source(self) -> str:
        """File or URL, as a person would name it."""
        ...

    def identity(self) -> str:
        """Changes when the pixels may have changed: path, size and time of a file."""
        ...

    def files(self) -> tuple[Path, ...] | None:
        """The files that hold its pixels, which may be absent; None: a server has them."""
        ...

    def read(self) -> np.ndarray:
        """[H, W] in the dtype it is stored in.

        Raises:
            BadInputError: if it cannot be read whole.
        """
        ...


@dataclasses.dataclass(frozen=True)
class FilePlane:
    """A page, or one colour, of a TIFF, PNG or JPEG.

    Attributes:
        path: the file. What it is, its first bytes say, not its name.
        page: of a TIFF.
        colour: index into R, G, B, A of a colour image; None: the image must have one sample per pixel.
        pages: that a TIFF must have, where each of them has a meaning; None: others may follow.
    """

    path: Path
    page: int = 0
    colour: int | None = None
    pages: int | None = None

    @property
    def source(self) -> str:
        """The path."""
        return str(self.path)

    def identity(self) -> str:
        """Path, page, colour, pages, size and time of last change."""
        status = regular(self.path)
        return f"{self.path}|{self.page}|{self.colour}|{self.pages}|{status.st_size}|{status.st_mtime_ns}"

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self) -> np.ndarray:
        """[H, W]; raises BadInputError if it cannot be read whole."""
        pixels = read_file(self.path, self.page, self.pages)
        if self.colour is None:
            if pixels.ndim != 2:
                raise BadInputError(
                    self.source, "", f"the image is {pixels.shape}: expected [H, W], one sample per pixel"
                )
            return pixels
        if pixels.ndim != 3 or pixels.shape[2] <= self.colour:
            raise BadInputError(self.source, "", f"the image is {pixels.shape}: it has no colour {self.colour}")
        return pixels[..., self.colour]


def read_file(path: Path, page: int = 0, pages: int | None = None) -> np.ndarray:
    """One page of a file, [H, W] or [H, W, samples], in its own dtype.

    Raises:
        BadInputError: for what is not there, empty, truncated, or none of TIFF, PNG, JPEG, and for a TIFF that has
            not as many pages as `pages` says.
    """
    source = str(path)
    stored = regular(path).st_size
    if stored == 0:
        raise BadInputError(source, "", "the file is empty")
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise BadInputError(source, "", f"cannot be opened: {error.strerror}") from None
    if start[:4] in TIFF:
        return _read_tiff(path, page, pages)
    if start != _PNG and start[:3] != _JPEG:
        raise BadInputError(source, "", f"neither TIFF, PNG nor JPEG: it begins with {start.hex(' ')}")
    with reading(source, stored):
        content = path.read_bytes()
        if start == _PNG:
            width, height = struct.unpack_from(">II", content, 16)
            check_size(source, f"an image of {width} x {height} pixels", width * height, stored)
            return imagecodecs.png_decode(content)
        # libjpeg fills the rest of a truncated picture with grey and calls that a warning.
        if not content.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise BadInputError(source, "", "truncated: the JPEG has no end")
        return imagecodecs.jpeg8_decode(content)


def _read_tiff(path: Path, page: int, pages: int | None) -> np.ndarray:
    stored = path.stat().st_size
    with reading(path, stored), tifffile.TiffFile(path) as tiff:
        refuse_loops(tiff, path)
        if pages is not None and pages != len(tiff.pages):
            raise BadInputError(str(path), "", f"has {len(tiff.pages)} pages, expected {pages}")
        if page >= len(tiff.pages):
            raise BadInputError(str(path), "", f"has {len(tiff.pages)} pages, number {page} was asked for")
        chosen = tiff.pages[page]
        refuse_truncated(chosen, path)
        check_size(path, f"a page of {' x '.join(map(str, chosen.shape))} pixels", chosen.nbytes, stored)
        # One thread: the workers of a build use the cores.
        pixels = chosen.asarray(maxworkers=1)
        if pixels.ndim not in (2, 3):
            raise BadInputError(str(path), "", f"damaged: its page {page} has the shape {pixels.shape}")
        return np.moveaxis(pixels, 0, -1) if chosen.axes == "SYX" else pixels  # colours one after the other


def refuse_loops(tiff: tifffile.TiffFile, path: Path) -> None:
    """Every page says where the next one is. tifffile would count a chain that comes back to itself for ever.

    Raises:
        BadInputError: if there is a page that comes twice.
    """
    form, file = tiff.tiff, tiff.filehandle
    seen = set()
    file.seek(4 if form.offsetsize == 4 else 8)
    (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    while offset and offset not in seen and offset + form.tagnosize <= file.size:
        seen.add(offset)
        file.seek(offset)
        (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        end = offset + form.tagnosize + tags * form.tagsize
        if end + form.offsetsize > file.size:
            return
        file.seek(end)
        (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    if offset in seen:
        raise BadInputError(str(path), "", f"damaged: its page {len(seen)} is followed by one that came before")


def refuse_truncated(page: tifffile.TiffPage | tifffile.TiffFrame, path: Path) -> None:
    """A part of a TIFF's pixels without bytes would be read as zeros, without a word.

    Raises:
        BadInputError: if pixels are announced that the file does not hold.
    """
    size = path.stat().st_size
    if any(count == 0 or offset + count > size for offset, count in zip(page.dataoffsets, page.databytecounts)):
        raise BadInputError(str(path), "", "truncated: pixels are announced that the file does not hold")


def count_colours(path: Path) -> int:
    """Samples per pixel of an image file; 1 for grey.

    Raises:
        BadInputError: if it cannot be read.
    """
    pixels = read_file(path)
    return 1 if pixels.ndim == 2 else pixels.shape[2]


def count_pages(path: Path) -> int:
    """Pages of a TIFF; 1 for PNG and JPEG.

    Raises:
        BadInputError: if it cannot be read.
    """
    stored = regular(path).st_size
    with reading(path, stored):
        with open(path, "rb") as file:
            if file.read(4) not in TIFF:
                return 1
        with tifffile.TiffFile(path) as tiff:
            refuse_loops(tiff, path)
            count = len(tiff.pages)
            # tifffile counts up to a page that lies beyond the end of the file, without a word.
            following = 0
            if tiff.pages.next_page_offset is not None:
                tiff.filehandle.seek(tiff.pages.next_page_offset)
                (following,) = struct.unpack(tiff.tiff.offsetformat, tiff.filehandle.read(tiff.tiff.offsetsize))
    if following:
        raise BadInputError(str(path), "", f"truncated: a page after number {count} is announced, and is not there")
    return count

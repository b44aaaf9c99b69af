"""Where pixels are: a plane is one two-dimensional image in a file, an array or a store, opened when it is read."""

import dataclasses
import functools
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import imagecodecs
import numpy as np
import tifffile

from data.errors import BadInputError
from data.fields.contents import Contents, of_jpeg, of_png
from data.fields.tiff import of_tiff, open_tiff
from data.limits import check_size, reading, regular
from data.sources.formats import SNIFFED, format_of

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
    """One plane of a TIFF, PNG or JPEG, or one color of it.

    Attributes:
        path: the file. What it is, its first bytes say, not its name.
        page: number of the plane, in the order that the file's description gives (see `data.contents`).
        color: index into the samples of a pixel; None: the image must have one sample per pixel.
        pages: planes that the file must hold, where each of them has a meaning; None: others may follow.
        like: the file that decides what all of its channel hold; None: this one may hold anything.
    """

    path: Path
    page: int = 0
    color: int | None = None
    pages: int | None = None
    like: Path | None = None

    @property
    def source(self) -> str:
        """The path."""
        return str(self.path)

    def identity(self) -> str:
        """Path, page, color, pages, the file that decides, size and time of last change."""
        size, changed = _state(self.path)
        return f"{self.path}|{self.page}|{self.color}|{self.pages}|{self.like}|{size}|{changed}"

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self) -> np.ndarray:
        """[H, W]; raises BadInputError if it cannot be read whole, or is not like the file that decides."""
        if self.like is not None:
            mine, first = contents(self.path), contents(self.like)
            if not mine.alike(first):
                raise BadInputError(
                    self.source,
                    "",
                    f"holds {mine}, but {self.like}, which comes first, holds {first}; all of a set must be alike: "
                    "save them so, or give them to two builds",
                )
        return one_sample(read_file(self.path, self.page, self.pages), self.color, self.source)


def one_sample(pixels: np.ndarray, color: int | None, source: str) -> np.ndarray:
    """[H, W] or [H, W, samples] -> [H, W], the only sample or the one that is asked for.

    Raises:
        BadInputError: if there are several and none is asked for, or it is not there.
    """
    if color is None:
        if pixels.ndim != 2:
            raise BadInputError(source, "", f"the image is {pixels.shape}: expected [H, W], one sample per pixel")
        return pixels
    if pixels.ndim != 3 or not 0 <= color < pixels.shape[2]:
        raise BadInputError(source, "", f"the image is {pixels.shape}: it has no color {color}")
    return pixels[..., color]


def contents(path: Path) -> Contents:
    """What a file says that it holds; those of the last files are kept.

    Raises:
        BadInputError: for what is not there, empty, damaged, none of TIFF, PNG, JPEG, or says what is not so.
    """
    return _contents(path, _state(path))


@functools.lru_cache(maxsize=16)
def _contents(path: Path, state: tuple[int, int]) -> Contents:
    """`state`, size and time of the last change, makes a changed file another one."""
    start, content = _opened(path)
    with reading(path, state[0]):
        if start in TIFF:
            with open_tiff(path) as tiff:
                _refuse_cut_off(tiff, path)
                return _said(path, lambda: of_tiff(tiff))
        return _said(path, lambda: (of_png if content.startswith(_PNG) else of_jpeg)(content))


def _said(path: Path, describe: Callable[[], Contents]) -> Contents:
    """What a whole file says of itself, and what it says that is not so."""
    try:
        return describe()
    except ValueError as error:
        raise BadInputError(str(path), "", str(error)) from None


def _state(path: Path) -> tuple[int, int]:
    status = regular(path)
    return status.st_size, status.st_mtime_ns


def _opened(path: Path) -> tuple[bytes, bytes]:
    """The first bytes, and of PNG and JPEG all of them.

    Raises:
        BadInputError: for what is not there, empty, or neither TIFF, PNG nor JPEG.
    """
    source = str(path)
    stored = regular(path).st_size
    if stored == 0:
        raise BadInputError(source, "", "the file is empty")
    try:
        with open(path, "rb") as file:
            start = file.read(SNIFFED)
        if start[:4] in TIFF:
            return start[:4], b""
        if start[:8] != _PNG and start[:3] != _JPEG:
            found = format_of(path.name, start)
            other = f"is {found}" if found else f"neither TIFF, PNG nor JPEG: it begins with {start[:8].hex(' ')}"
            raise BadInputError(source, "", other)
    except OSError as error:
        raise BadInputError(source, "", f"cannot be opened: {error.strerror}") from None
    with reading(source, stored):
        return start[:4], path.read_bytes()


def read_file(path: Path, page: int = 0, pages: int | None = None) -> np.ndarray:
    """One plane of a file, [H, W] or [H, W, samples], in its own dtype.

    Args:
        path: the file.
        page: number of the plane, in the order that the file's description gives.
        pages: planes that it must hold; None: any number.

    Raises:
        BadInputError: for what is not there, empty, truncated, or none of TIFF, PNG, JPEG; for a file that says what
            is not so, or has not as many planes as `pages` says.
    """
    found = contents(path)
    count = len(found.places)
    if pages is not None and pages != count:
        raise BadInputError(str(path), "", f"holds {planes(count)} ({found}), expected {pages}")
    if not 0 <= page < count:
        raise BadInputError(str(path), "", f"holds {planes(count)} ({found}), number {page} was asked for")
    start, content = _opened(path)
    stored = regular(path).st_size
    with reading(path, stored):
        if start in TIFF:
            with open_tiff(path) as tiff:
                return _read_place(tiff, path, *found.places[page])
        if content.startswith(_PNG):
            width, height = struct.unpack_from(">II", content, 16)
            check_size(path, f"an image of {width} x {height} pixels", width * height, stored)
            return imagecodecs.png_decode(content)
        # libjpeg fills the rest of a truncated picture with grey and calls that a warning.
        if not content.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise BadInputError(str(path), "", "truncated: the JPEG has no end")
        return imagecodecs.jpeg8_decode(content)


def planes(count: int) -> str:
    """ "1 plane", "3 planes"."""
    return f"{count} plane{'' if count == 1 else 's'}"


def read_page(path: Path, page: int, pages: int | None = None) -> np.ndarray:
    """One page of a TIFF by its number alone, whatever its description says; as `read_file`.

    Args:
        path: the file.
        page: its number, from 0.
        pages: that the file must have; None: others may follow.
    """
    start, _ = _opened(path)
    if start not in TIFF:
        raise BadInputError(str(path), "", "is no TIFF")
    with reading(path, regular(path).st_size), open_tiff(path) as tiff:
        count = len(tiff.pages)
        if not 0 <= page < count:
            raise BadInputError(str(path), "", f"has {count} pages, number {page} was asked for")
        if pages not in (None, count) and pages != sum(not one.aspage().is_reduced for one in tiff.pages):
            raise BadInputError(str(path), "", f"has {count} pages, expected {pages}")
        return _read_place(tiff, path, page, None)


def _read_place(tiff: tifffile.TiffFile, path: Path, page: int, offset: int | None) -> np.ndarray:
    chosen = tiff.pages[page].aspage()
    refuse_truncated(chosen, path)
    what = f"a page of {' x '.join(map(str, chosen.shape))} pixels"
    check_size(path, what, chosen.nbytes, path.stat().st_size)
    if offset is None:
        # One thread: the workers of a build use the cores.
        pixels = chosen.asarray(maxworkers=1)
    else:
        stored = np.dtype(contents(path).dtype).newbyteorder(tiff.byteorder)
        pixels = tiff.filehandle.read_array(stored, math.prod(chosen.shape), offset).reshape(chosen.shape)
    if pixels.ndim not in (2, 3):
        raise BadInputError(str(path), "", f"damaged: its page {page} has the shape {pixels.shape}")
    return np.moveaxis(pixels, 0, -1) if chosen.axes == "SYX" else pixels  # colors one after the other


def refuse_truncated(page: tifffile.TiffPage | tifffile.TiffFrame, path: Path) -> None:
    """A part of a TIFF's pixels without bytes would be read as zeros, without a word.

    Raises:
        BadInputError: if pixels are announced that the file does not hold.
    """
    size = path.stat().st_size
    if any(count == 0 or offset + count > size for offset, count in zip(page.dataoffsets, page.databytecounts)):
        raise BadInputError(str(path), "", "truncated: pixels are announced that the file does not hold")


def count_pages(path: Path) -> int:
    """Pages of a TIFF, whatever they hold.

    Raises:
        BadInputError: if it cannot be read, or is cut off between two of them.
    """
    with reading(path, regular(path).st_size), open_tiff(path) as tiff:
        _refuse_cut_off(tiff, path)
        return len(tiff.pages)


def _refuse_cut_off(tiff: tifffile.TiffFile, path: Path) -> None:
    """tifffile counts up to a page that lies beyond the end of the file, without a word."""
    count = len(tiff.pages)
    if tiff.pages.next_page_offset is not None:
        tiff.filehandle.seek(tiff.pages.next_page_offset)
        (following,) = struct.unpack(tiff.tiff.offsetformat, tiff.filehandle.read(tiff.tiff.offsetsize))
        if following:
            problem = f"truncated: a page after number {count} is announced, and is not there"
            raise BadInputError(str(path), "", problem)

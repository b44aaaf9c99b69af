"""Where pixels are: a plane is one two-dimensional image in a file, an array or a store, opened when it is read."""

import dataclasses
import functools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import imagecodecs
import numpy as np

from data.errors import BadInputError
from data.fields.contents import Contents, of_jpeg, of_png
from data.fields.tiff import of_tiff, open_tiff
from data.fields.tiff_pages import TIFF, read_pixels, refuse_cut_off
from data.fields.window import Window, cut
from data.limits import check_size, reading, regular
from data.sources.formats import SNIFFED, format_of

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

    def read(self, window: Window | None = None) -> np.ndarray:
        """[H, W] in the dtype it is stored in; no more of it is fetched than the format makes one fetch.

        Args:
            window: the part of it that is wanted, [height, width]; None: all of it.

        Raises:
            BadInputError: if it cannot be read whole, or the window is not inside.
        """
        ...


@dataclasses.dataclass(frozen=True)
class FilePlane:
    """One plane of a TIFF, PNG or JPEG, or one color of it.

    Attributes:
        path: the file. What it is, its first bytes say, not its name.
        page: number of the plane, in the order that the file's description gives (see `data.fields.contents`).
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

    def read(self, window: Window | None = None) -> np.ndarray:
        """As `Plane`: the strips or tiles of a TIFF; PNG and JPEG whole. It must be like the file that decides."""
        if self.like is not None:
            mine, first = contents(self.path), contents(self.like)
            if not mine.alike(first):
                raise BadInputError(
                    self.source,
                    "",
                    f"holds {mine}, but {self.like}, which comes first, holds {first}; all of a set must be alike: "
                    "save them so, or give them to two builds",
                )
        return one_sample(read_file(self.path, self.page, self.pages, window), self.color, self.source)


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
                refuse_cut_off(tiff, path)
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


def read_file(path: Path, page: int = 0, pages: int | None = None, window: Window | None = None) -> np.ndarray:
    """One plane of a file, [H, W] or [H, W, samples], in its own dtype.

    Args:
        path: the file.
        page: number of the plane, in the order that the file's description gives.
        pages: planes that it must hold; None: any number.
        window: the part of the plane that is wanted; None: all of it.

    Raises:
        BadInputError: for what is not there, empty, truncated, or none of TIFF, PNG, JPEG; for a file that says what
            is not so, or has not as many planes as `pages` says; for a window that is not inside.
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
            number, offset = found.places[page]
            with open_tiff(path) as tiff:
                return read_pixels(tiff.pages[number].aspage(), path, offset, window)
        if content.startswith(_PNG):
            width, height = struct.unpack_from(">II", content, 16)
            check_size(path, f"an image of {width} x {height} pixels", width * height, stored)
            return cut(imagecodecs.png_decode(content), window, path)
        # libjpeg fills the rest of a truncated picture with grey and calls that a warning.
        if not content.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise BadInputError(str(path), "", "truncated: the JPEG has no end")
        return cut(imagecodecs.jpeg8_decode(content), window, path)


def planes(count: int) -> str:
    """ "1 plane", "3 planes"."""
    return f"{count} plane{'' if count == 1 else 's'}"

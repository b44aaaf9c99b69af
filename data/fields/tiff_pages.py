"""Pixels of one page of a TIFF: all of them, or a window, read from the strips or tiles that it touches."""

import contextlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from data.errors import BadInputError
from data.fields.tiff import open_tiff
from data.fields.window import Window, cut
from data.limits import check_size, reading, regular

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # what one begins with
_JPEG = (6, 7, 33007, 34892)  # compressions whose segments may have their tables elsewhere in the file


@contextlib.contextmanager
def opened_page(path: Path, page: int, pages: int | None = None) -> Iterator[tifffile.TiffPage]:
    """One page of a TIFF by its number alone, whatever the file's description says.

    Args:
        path: the file.
        page: its number, from 0.
        pages: that the file must have; None: others may follow.

    Raises:
        BadInputError: for what is not there, no TIFF, or has not the pages; in the block for what cannot be read.
    """
    stored = regular(path).st_size
    with open(path, "rb") as file:
        if file.read(4) not in TIFF:
            raise BadInputError(str(path), "", "is no TIFF")
    with reading(path, stored), open_tiff(path) as tiff:
        count = len(tiff.pages)
        if not 0 <= page < count:
            raise BadInputError(str(path), "", f"has {count} pages, number {page} was asked for")
        if pages not in (None, count) and pages != sum(not one.aspage().is_reduced for one in tiff.pages):
            raise BadInputError(str(path), "", f"has {count} pages, expected {pages}")
        yield tiff.pages[page].aspage()


def read_pixels(page: tifffile.TiffPage, path: Path, offset: int | None, window: Window | None) -> np.ndarray:
    """What a page holds, [H, W] or [H, W, samples], in its own dtype.

    Args:
        page: of an open file.
        path: of that file.
        offset: first byte of the pixels, where the plane has no page of its own and this one says how it is written.
        window: None: all of the plane.

    Raises:
        BadInputError: if the file is cut off, asks for too much memory, or the window is not inside.
    """
    refuse_truncated(page, path)
    stored = path.stat().st_size
    plain = page.dataoffsets[0] if offset is None and page.is_final else offset  # one row behind the other
    if window is None or (plain is None and not _has_segments(page)):
        check_size(path, f"a page of {' x '.join(map(str, page.shape))} pixels", page.nbytes, stored)
        return cut(_whole(page, path, offset), window, path)
    rows, columns = window.within((page.imagelength, page.imagewidth), path)
    needed = window.height * window.width * page.nbytes // (page.imagelength * page.imagewidth)
    if plain is None:
        needed += math.prod(page.chunks) * page.nbytes // math.prod(page.shape)
    check_size(path, f"a window of {window.height} x {window.width} pixels in parts of {page.chunks}", needed, stored)
    if plain is not None:
        return _mapped(page, path, plain, rows, columns)
    return _from_segments(page, rows, columns)


def _whole(page: tifffile.TiffPage, path: Path, offset: int | None) -> np.ndarray:
    if offset is None:
        pixels = page.asarray(maxworkers=1)  # one thread: the workers of a build use the cores
    else:
        pixels = page.parent.filehandle.read_array(_stored_dtype(page), math.prod(page.shape), offset)
        pixels = pixels.reshape(page.shape)
    if pixels.ndim not in (2, 3):
        raise BadInputError(str(path), "", f"damaged: its page {page.index} has the shape {pixels.shape}")
    return np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels  # colors one after the other


def _stored_dtype(page: tifffile.TiffPage) -> np.dtype:
    return np.dtype(page.dtype).newbyteorder(page.parent.byteorder)


def _has_segments(page: tifffile.TiffPage) -> bool:
    """Whether its strips or tiles are decoded one by one; a slide's JPEG without tiles of its own is not."""
    return not page.is_contiguous and page.imagedepth == 1 and page.jpegheader is None


def _mapped(page: tifffile.TiffPage, path: Path, offset: int, rows: slice, columns: slice) -> np.ndarray:
    """Of plain pixels the system reads the parts of the file that the window touches."""
    plane = np.memmap(path, _stored_dtype(page), "r", offset, page.shape)
    if page.axes == "SYX":
        plane = np.moveaxis(plane, 0, -1)
    window = np.array(plane[rows, columns])
    return window.astype(window.dtype.newbyteorder("="), copy=False)


def _from_segments(page: tifffile.TiffPage, rows: slice, columns: slice) -> np.ndarray:
    """The strips or tiles that a window touches, decoded one by one."""
    separate, _, _, _, together = page.shaped  # one of both counts the samples of a pixel
    height, width = page.rowsperstrip, page.imagewidth
    if page.is_tiled:
        height, width = page.tilelength, page.tilewidth
    down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
    numbers = [
        (sample * down + row) * across + column
        for sample in range(separate)
        for row in range(rows.start // height, -(-rows.stop // height))
        for column in range(columns.start // width, -(-columns.stop // width))
    ]
    tables = {}
    if page.compression in _JPEG:
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    pixels = np.empty((separate, rows.stop - rows.start, columns.stop - columns.start, together), page.dtype)
    segments = page.parent.filehandle.read_segments(
        [page.dataoffsets[number] for number in numbers],
        [page.databytecounts[number] for number in numbers],
        indices=numbers,
        sort=True,
        flat=True,
    )
    for content, number in segments:
        part, (sample, _, top, left, _), _ = page.decode(content, number, **tables)
        assert part is not None  # no segment is without bytes, see `refuse_truncated`
        # Where the segment, which may reach beyond the image, and the window overlap.
        first, last = max(rows.start, top), min(rows.stop, top + part.shape[1])
        start, stop = max(columns.start, left), min(columns.stop, left + part.shape[2])
        place = slice(first - rows.start, last - rows.start), slice(start - columns.start, stop - columns.start)
        pixels[sample][place] = part[0, first - top : last - top, start - left : stop - left]
    pixels = np.moveaxis(pixels, 0, -1)[..., 0, :] if separate > 1 else pixels[0]
    return pixels if page.samplesperpixel > 1 else pixels[..., 0]


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
        refuse_cut_off(tiff, path)
        return len(tiff.pages)


def refuse_cut_off(tiff: tifffile.TiffFile, path: Path) -> None:
    """tifffile counts up to a page that lies beyond the end of the file, without a word.

    Raises:
        BadInputError: if a page is announced that is not there.
    """
    count = len(tiff.pages)
    if tiff.pages.next_page_offset is not None:
        tiff.filehandle.seek(tiff.pages.next_page_offset)
        (following,) = struct.unpack(tiff.tiff.offsetformat, tiff.filehandle.read(tiff.tiff.offsetsize))
        if following:
            problem = f"truncated: a page after number {count} is announced, and is not there"
            raise BadInputError(str(path), "", problem)

"""What a TIFF holds, as its own description has it: ImageJ, OME, tifffile, MetaMorph (STK), Zeiss (LSM), ScanImage.

A page is where TIFF keeps one image, and no count of pages says what is in a file: Fiji keeps any number of planes
behind one page, and pyramids and thumbnails have pages that are none of it. So every number that the file announces
is held against what is there.
"""

import logging
import math
import struct
from pathlib import Path

import tifffile

from data.errors import BadInputError
from data.fields.contents import AXES, Contents, sample_names

# What it says of a damaged file is said here in one line.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_UNNAMED = "IQ"  # of axes that a file has no name for
_SILENT = ("generic", "uniform", "shaped", "nih")  # kinds of files that have a right to such an axis: pages, no more
_ALPHA = (1, 2)  # ExtraSamples: associated, unassociated
_FORMS = {"MINISBLACK": "", "RGB": "", "YCBCR": "", "MINISWHITE": "0 is white", "PALETTE": "with a color table"}
_DESCRIBED = ("shaped", "lsm", "mmstack", "ome", "imagej", "ndtiff", "fluoview", "stk", "scanimage")
_JPEG = (6, 7)  # compressions from which YCbCr comes as RGB


def open_tiff(path: Path) -> tifffile.TiffFile:
    """A TIFF whose pages are counted one by one; of ScanImage's tifffile would guess them from the file's size.

    Raises:
        tifffile.TiffFileError and others: for what is no TIFF.
        BadInputError: for pages that follow each other for ever.
    """
    tiff = tifffile.TiffFile(path, is_scanimage=False)
    try:
        _refuse_loops(tiff, path)
    except BaseException:
        tiff.close()
        raise
    return tiff


def _refuse_loops(tiff: tifffile.TiffFile, path: Path) -> None:
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


def of_tiff(tiff: tifffile.TiffFile) -> Contents:
    """Planes, axes and samples of the one image in a file, at full size.

    Smaller copies are left out: SubIFDs and pages that say that they are reduced, and the levels of a pyramid.

    Args:
        tiff: as `open_tiff` gives it.

    Raises:
        ValueError: with both numbers, where a file announces other planes than it holds; for several images, axes that
            are none of `AXES`, and colors that are neither grey nor RGB.
    """
    if not len(tiff.pages):
        raise ValueError("a TIFF without a page")
    setattr(tiff, "is_scanimage", tiff.pages.first.is_scanimage)  # noqa: B010, no attribute that it declares
    series = _images(tiff)
    first, page = series[0], series[0].keyframe
    axes = _axes(series)
    places = tuple(place for one in series for place in _places(one, tiff))
    _check_announced(tiff, first, len(places))
    if math.prod(size for _, size in axes) != len(places):
        raise ValueError(f"announces {_sizes(axes)}, and holds {len(places)} planes")
    photometric = tifffile.PHOTOMETRIC(page.photometric).name
    if photometric not in _FORMS or (photometric == "YCBCR" and page.compression not in _JPEG):
        raise ValueError(f"colors are {photometric}, expected grey, a palette or RGB; save it as RGB")
    if page.dtype is None:
        raise ValueError(f"pixels of {page.bitspersample} bits in a form that is not read; save them as 8 or 16 bits")
    count = page.samplesperpixel
    colors = photometric in ("RGB", "YCBCR") and "C" not in _axes_of_samples(first)
    base = count - len(page.extrasamples)
    alpha = tuple(base + i for i, kind in enumerate(page.extrasamples) if kind in _ALPHA)
    return Contents(
        axes,
        sample_names(count, colors=colors, alpha=alpha),
        str(page.dtype),
        page.bitspersample,
        _FORMS[photometric],
        places,
    )


def _images(tiff: tifffile.TiffFile) -> list[tifffile.TiffPageSeries]:
    """The series that are the image: one, or single pages that are alike."""
    found = tiff.series
    flavors = [kind for kind in _DESCRIBED if getattr(tiff, f"is_{kind}")]
    if flavors and found[0].kind not in flavors:
        announced = f" announces {max(_of_imagej(tiff).values())} planes and" if flavors[0] == "imagej" else ""
        raise ValueError(
            f"its description ({flavors[0]}){announced} does not fit the {_count(len(tiff.pages), 'page')} and "
            f"{tiff.filehandle.size} bytes that there are: planes are lacking; copy it again, or save it anew"
        )
    series = [one for one in found if not one.keyframe.is_reduced] or found
    _check_pages(tiff, found)
    kinds = {(one.get_shape(False), one.get_axes(False), str(one.dtype)) for one in series}
    if len(kinds) > 1 or (len(series) > 1 and any(size > 1 for _, size in _leading(series[0]))):
        shown = ", ".join(f"{one.name or one.axes} {' x '.join(map(str, one.shape))}" for one in series[:6])
        raise ValueError(f"holds {len(series)} images ({shown}), expected one; save each as a file of its own")
    for one in series:
        if one.transform is not None or one.keyframe.imagedepth > 1 or one.keyframe.is_subifd:
            raise ValueError(f"a TIFF of a kind that is not read ({one.kind}, {one.axes}); convert it to OME-TIFF")
    return series


def _check_pages(tiff: tifffile.TiffFile, found: list[tifffile.TiffPageSeries]) -> None:
    """Every page must be a plane of one image, once."""
    used: list[int] = []
    for one in found:
        for level in one.levels:
            unflagged = one.kind in ("generic", "uniform") and level is not one and not level.keyframe.is_reduced
            if unflagged:
                raise ValueError(
                    f"holds images of {' x '.join(map(str, one.shape))} and {' x '.join(map(str, level.shape))} and "
                    "does not say that one is a smaller copy of the other; save each as a file of its own"
                )
            if level.is_truncated:
                used.append(level.keyframe.index)
            elif not level.keyframe.is_subifd:
                used += [_page(page, tiff).index for page in level]
    if sorted(used) != list(range(len(tiff.pages))):
        named = f"names {len(used)}" + (", some twice" if len(set(used)) < len(used) else "")
        raise ValueError(f"has {_count(len(tiff.pages), 'page')}, of which its description ({found[0].kind}) {named}")


def _page(page: tifffile.TiffPage | tifffile.TiffFrame | None, tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    if page is None:
        raise ValueError("announces planes that are not in it; if other files hold them, build with --layout=ome-tiff")
    if page.parent is not tiff:
        raise ValueError("is one of several files that belong together; build them with --layout=ome-tiff")
    if page.is_subifd or tiff.pages[page.index].offset != page.offset:
        raise ValueError("has a SubIFD that is not a smaller copy; save each image as a file of its own")
    return page  # pyright: ignore[reportReturnType]


def _places(series: tifffile.TiffPageSeries, tiff: tifffile.TiffFile) -> list[tuple[int, int | None]]:
    """Where each plane of a series is."""
    if not series.is_truncated:
        return [(_page(page, tiff).index, None) for page in series]
    page = series.keyframe
    announced = math.prod(series.get_shape(False)) // math.prod(page.shape)
    there = (tiff.filehandle.size - page.dataoffsets[0]) // page.nbytes
    if not page.is_final or there < announced:
        raise ValueError(f"truncated: announces {announced} planes, and holds {there} that are whole")
    return [(page.index, page.dataoffsets[0] + number * page.nbytes) for number in range(announced)]


def _axes_of_samples(series: tifffile.TiffPageSeries) -> str:
    """The letter that a series gives to what one pixel holds side by side; "" where that is one value."""
    letters, page = series.get_axes(False), series.keyframe
    if page.samplesperpixel == 1:
        return ""
    if dict(zip(letters, series.get_shape(False))).get("S") == page.samplesperpixel:
        return "S"
    return letters[letters.index("Y") - 1 if page.axes[0] == "S" else letters.index("X") + 1]


def _leading(series: tifffile.TiffPageSeries) -> list[tuple[str, int]]:
    """The axes that are not within a page."""
    within = "YX" + _axes_of_samples(series)
    return [(letter, n) for letter, n in zip(series.get_axes(False), series.get_shape(False)) if letter not in within]


def _axes(series: list[tifffile.TiffPageSeries]) -> tuple[tuple[str, int], ...]:
    """Letters of `AXES` and sizes over 1, the slowest first."""
    leading = [("I", len(series))] if len(series) > 1 else _leading(series[0])
    leading = [(letter, size) for letter, size in leading if size > 1 and letter != "S"]
    letters = "".join(letter for letter, _ in leading)
    if len(letters) == 1 and letters in _UNNAMED and series[0].kind in _SILENT:
        letters = "C"
    unknown = [letter for letter in letters if letter not in AXES]
    if unknown or len(set(letters)) < len(letters):
        named = [f"{tifffile.TIFF.AXES_NAMES.get(letter, letter)} ({size})" for letter, size in leading]
        raise ValueError(
            f"its planes lie along {', '.join(named)}; expected {', '.join(AXES.values())}, or one axis without a "
            'name: say in the file which is which (tifffile.imwrite(..., metadata={"axes": "TZCYX"})), or save parts'
        )
    if "C" in letters and series[0].keyframe.samplesperpixel > 1:
        size = dict(zip(letters, (size for _, size in leading)))["C"]
        count = series[0].keyframe.samplesperpixel
        raise ValueError(f"{size} pages of {count} colors each; only one of the two can be channels")
    return tuple(zip(letters, (size for _, size in leading)))


def _check_announced(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, planes: int) -> None:
    """ImageJ says twice how many planes there are, tifffile once; neither is kept from saying what is not so."""
    samples = series.keyframe.samplesperpixel
    if series.kind == "imagej":
        for how, announced in _of_imagej(tiff).items():
            # Some count the samples of a pixel as channels.
            if announced not in (planes, planes * samples):
                raise ValueError(f"announces {announced} planes (ImageJ: {how}), and holds {planes}")
    if series.kind == "shaped" and tiff.shaped_metadata:
        for said, one in zip(tiff.shaped_metadata, tiff.series):
            if math.prod(said["shape"]) != math.prod(one.get_shape(False)):
                raise ValueError(f"announces an image of {tuple(said['shape'])}, and holds one of {one.shape}")


def _of_imagej(tiff: tifffile.TiffFile) -> dict[str, int]:
    """How many planes ImageJ says that there are, in either way."""
    said = tiff.imagej_metadata or {}
    of_axes = math.prod(int(said[name]) for name in ("channels", "slices", "frames") if name in said)
    return {"channels x slices x frames": of_axes, "images": int(said["images"]) if "images" in said else of_axes}


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _sizes(axes: tuple[tuple[str, int], ...]) -> str:
    return " x ".join(f"{size} {AXES[letter]}" for letter, size in axes) or "1 plane"

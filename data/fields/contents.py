"""What an image file says that it holds: how many planes along which axes, and how its pixels are written."""

import dataclasses
import itertools
import struct
from collections.abc import Iterator

AXES = {"T": "time points", "Z": "focal planes", "C": "channels"}

_PNG_GREY, _PNG_COLOURS, _PNG_PALETTE, _PNG_GREY_ALPHA = 0, 2, 3, 4  # the byte at 25; 6 is RGBA
_JPEG_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


@dataclasses.dataclass(frozen=True)
class Contents:
    """What must be the same in every file of a channel, and where the planes are.

    Attributes:
        axes: letters of `AXES` and sizes over 1, the slowest first: the order of the planes in the file.
        samples: names of the values that every pixel has side by side; ("0",) where it is one.
        dtype: of the pixels.
        bits: of them that the file stores.
        form: how values mean brightness, where they do not grow with it or are numbers of colors; "" otherwise.
        places: for each plane the page of a TIFF; and the first byte, where the plane has no page of its own.
    """

    axes: tuple[tuple[str, int], ...]
    samples: tuple[str, ...]
    dtype: str
    bits: int
    form: str = ""
    places: tuple[tuple[int, int | None], ...] = ((0, None),)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names: of the samples, or numbers."""
        if len(self.samples) > 1:
            return self.samples
        return tuple(map(str, range(dict(self.axes).get("C", 1))))

    def planes(self) -> Iterator[tuple[tuple[str, int, int], int, int | None]]:
        """((channel, z, t), number of the plane in the file, which sample of it or None), channel by channel last."""
        for number, index in enumerate(itertools.product(*(range(size) for _, size in self.axes))):
            at = {"T": 0, "Z": 0, "C": 0} | dict(zip((letter for letter, _ in self.axes), index, strict=True))
            if len(self.samples) == 1:
                yield (str(at["C"]), at["Z"], at["T"]), number, None
            else:
                for sample, name in enumerate(self.samples):
                    yield (name, at["Z"], at["T"]), number, sample

    def alike(self, other: "Contents") -> bool:
        """Whether both say the same of everything but where it is."""
        return dataclasses.replace(self, places=other.places) == other

    def __str__(self) -> str:
        stacked = [f"{size} {AXES[letter]}" for letter, size in self.axes]
        colors = [", ".join(self.samples)] if len(self.samples) > 1 else []
        what = " x ".join(stacked + colors) or "1 channel"
        bits = "" if self.dtype.endswith(str(self.bits)) else f" ({self.bits} bits in use)"
        return f"{what} of {self.dtype}{bits}{f', {self.form}' if self.form else ''}"


def sample_names(count: int, *, colors: bool, alpha: tuple[int, ...] = ()) -> tuple[str, ...]:
    """Of the values of one pixel: R, G, B where these are colors, A what is transparency, numbers the rest."""
    names = [str(sample) for sample in range(count)]
    if colors and count >= 3:
        names[:3] = "RGB"
    for sample in alpha:
        names[sample] = "A" if len(alpha) == 1 else f"A{sample}"
    return tuple(names)


def of_png(content: bytes) -> Contents:
    """What a PNG's chunks say, as it is decoded: a palette becomes its colors.

    Raises:
        ValueError: for an animation.
        struct.error, IndexError: if it ends before its pixels.
    """
    bits, kind = content[24], content[25]
    position, transparent = 8, kind & 4 != 0
    while True:
        length, chunk = struct.unpack_from(">I4s", content, position)
        if chunk == b"IDAT":
            break
        if chunk == b"acTL":
            (frames,) = struct.unpack_from(">I", content, position + 8)
            raise ValueError(f"an animation of {frames} pictures, of which one would be read; save each by itself")
        transparent = transparent or chunk == b"tRNS"
        position += 12 + length
    colors = kind & 2 != 0
    count = (3 if colors else 1) + transparent
    names = sample_names(count, colors=colors, alpha=(count - 1,) if transparent else ())
    palette = kind == _PNG_PALETTE
    return Contents((), names, "uint16" if bits == 16 else "uint8", 8 if palette else bits)


def of_jpeg(content: bytes) -> Contents:
    """What a JPEG's segments say.

    Raises:
        ValueError: for CMYK, and for several pictures in one file.
        struct.error, IndexError: if it ends before its pixels.
    """
    position = 2
    while True:
        marker = content[position + 1]
        (length,) = struct.unpack_from(">H", content, position + 2)
        if marker == 0xE2 and content[position + 4 : position + 8] == b"MPF\0":
            raise ValueError("several pictures in one JPEG (MPF), of which one would be read; save each by itself")
        if marker in _JPEG_START_OF_FRAME:
            break
        position += 2 + length
    bits, count = content[position + 4], content[position + 9]
    if count not in (1, 3):
        raise ValueError(f"a JPEG of {count} inks (CMYK), expected grey or colors; save it as RGB")
    return Contents((), sample_names(count, colors=True), "uint8" if bits == 8 else "uint16", bits)

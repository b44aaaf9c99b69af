"""MNIST as an index of fields: one digit is one site of the "plate" train or test."""

import dataclasses
import functools
import gzip
import struct
from pathlib import Path

import numpy as np

from data.errors import BadInputError, BuildError
from data.fields.index import Field, Index
from data.fields.window import Window, cut
from data.limits import reading, regular
from data.sources.download import fetch

VERSION = "1.2.0"
TEXT = "MNIST: 70,000 handwritten digits of 28 x 28 pixels (LeCun, Cortes and Burges); no microscope was involved."
LABEL = "digit"
CHANNEL = "intensity"

_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"
# SHA-256 as in TensorFlow Datasets' list of checksums for this mirror.
FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
# Plate -> what precedes "-images" in IDX file names, and what follows "x_" in the npz.
_PARTS = {"train": ("train", "train"), "test": ("t10k", "test")}


@dataclasses.dataclass(frozen=True)
class DigitPlane:
    """One image of a file that holds many; the file is read once in each process.

    Attributes:
        path: an .npz, or an IDX file, packed or not.
        array: name in the .npz; "" for IDX.
        number: of the image, from 0.
    """

    path: Path
    array: str
    number: int

    @property
    def source(self) -> str:
        """Path and number."""
        return f"{self.path}[{self.array and self.array + ','}{self.number}]"

    def identity(self) -> str:
        """Path, array, number, size and time of last change."""
        status = regular(self.path)
        return f"{self.source}|{status.st_size}|{status.st_mtime_ns}"

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self, window: Window | None = None) -> np.ndarray:
        """[28, 28] uint8 or a window of it; raises BadInputError if the file cannot be read whole."""
        try:
            return cut(_read_array(self.path, self.array, 3)[self.number], window, self.source)
        except BadInputError as error:
            raise BadInputError(self.source, "", error.problem) from None
        except BuildError as error:
            raise BadInputError(self.source, "", str(error)) from None


def fetch_mnist(folder: Path) -> Path:
    """The four files from TensorFlow's mirror, checked; 11.6 MB.

    Returns:
        The folder, for `index_mnist`.

    Raises:
        BuildError: as `data.sources.download.fetch`.
    """
    for name, sha256 in FILES.items():
        fetch(_MIRROR + name, sha256, folder)
    return folder


def index_mnist(source: Path) -> Index:
    """One field for each digit: plate "train" or "test", no well, site its running number from 1.

    Args:
        source: an .npz with `x_train`, `y_train`, `x_test` and `y_test`, a folder with one, or a folder with the four
            IDX files, packed (.gz) or not.

    Raises:
        BuildError: naming the file, for what is missing, damaged, or of another form.
    """
    fields = []
    for plate, (prefix, suffix) in _PARTS.items():
        archive = source if source.is_file() else source / "mnist.npz"
        if archive.is_file():
            images, labels = (archive, f"x_{suffix}"), (archive, f"y_{suffix}")
        else:
            images = (_idx_file(source, f"{prefix}-images-idx3-ubyte"), "")
            labels = (_idx_file(source, f"{prefix}-labels-idx1-ubyte"), "")
        pixels, digits = _read_array(*images, 3), _read_array(*labels, 1)
        if len(pixels) != len(digits):
            raise BuildError(f"{source}: {len(pixels)} images and {len(digits)} labels of {plate!r}")
        fields += [
            Field(plate, "", i + 1, {(CHANNEL, 0, 0): DigitPlane(*images, i)}, {"digit": int(digit)})
            for i, digit in enumerate(digits)
        ]
    fields.sort(key=lambda field: (field.plate, field.well, field.site))
    return Index((CHANNEL,), tuple(fields), {"digit": int}, pixel_size_um=None, ignored=())


def _idx_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise BuildError(f"{folder}: there is neither mnist.npz nor {name}[.gz]; without --source they are downloaded")


@functools.lru_cache(maxsize=4)  # images and labels of both parts, 55 MB
def _read_array(path: Path, array: str, dimensions: int) -> np.ndarray:
    """[N, H, W] or [N] uint8.

    Raises:
        BuildError: for a file that is not whole or of another form.
    """
    with reading(path, regular(path).st_size, "cannot be read whole as a file of MNIST"):
        values = _read_npz(path, array) if array else _read_idx(path)
    if values.dtype != np.uint8 or values.ndim != dimensions or len(values) == 0:
        raise BuildError(
            f"{path}: {array or 'it'} is {values.shape} {values.dtype}, expected {dimensions} axes of uint8"
        )
    values.flags.writeable = False  # all planes of the process share it
    return values


def _read_npz(path: Path, array: str) -> np.ndarray:
    # Opened here, as np.load leaves a file open that turns out broken. Nothing from outside is unpickled.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        return file[array]


def _read_idx(path: Path) -> np.ndarray:
    """Four bytes (0, 0, 8 for uint8, number of axes), the axes' lengths as big-endian uint32, the values."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    zero, kind, axes = struct.unpack_from(">HBB", content)
    if (zero, kind) != (0, 8):
        raise ValueError(f"it begins with {content[:4].hex(' ')}")
    shape = struct.unpack_from(f">{axes}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)

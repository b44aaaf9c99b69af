"""Every kind of plane: a window is what a slice of the whole plane is, and of what is large only a part is read."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from data import limits
from data.errors import BadInputError
from data.fields.planes import FilePlane
from data.fields.window import Window
from data.records.description import Description
from data.records.writer import write_set
from data.sources.arrays import ArrayPlane
from data.sources.contours import ContourPlane
from data.sources.masks import MaskPlane
from data.sources.ome_tiff import index_ome_tiff
from data.sources.tfds_set import index_tfds
from data.sources.zarr_store import ZarrPlane
from data.studies.mnist.index import DigitPlane

HEIGHT, WIDTH = 75, 90  # no multiple of any tile, strip or chunk here


def _pixels(dtype=np.uint16, shape=(HEIGHT, WIDTH)):
    return np.random.default_rng(len(shape)).integers(0, 256, shape).astype(dtype)


def _tiff(path, pixels, **how):
    tifffile.imwrite(path, pixels, **how)
    return path


TIFFS = {
    "plain": ((HEIGHT, WIDTH), "u2", {}),
    "plain strips": ((HEIGHT, WIDTH), "u2", {"rowsperstrip": 8}),
    "big-endian": ((HEIGHT, WIDTH), "u2", {"byteorder": ">"}),
    "big-endian strips": ((HEIGHT, WIDTH), "f4", {"byteorder": ">", "compression": "zlib", "rowsperstrip": 7}),
    "strips": ((HEIGHT, WIDTH), "u1", {"compression": "lzw", "rowsperstrip": 16, "predictor": True}),
    "one strip": ((HEIGHT, WIDTH), "u2", {"compression": "zlib", "rowsperstrip": HEIGHT}),
    "tiles": ((HEIGHT, WIDTH), "u2", {"compression": "zlib", "tile": (16, 32)}),
    "plain tiles": ((HEIGHT, WIDTH), "f4", {"tile": (32, 16)}),
    "bits": ((HEIGHT, WIDTH), bool, {"photometric": "minisblack"}),
    "BigTIFF": ((HEIGHT, WIDTH), "u2", {"compression": "zstd", "tile": (16, 16), "bigtiff": True}),
    "colors": ((HEIGHT, WIDTH, 3), "u1", {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)}),
    "plain colors": ((HEIGHT, WIDTH, 3), "u2", {"photometric": "rgb"}),
    "colors apart": ((3, HEIGHT, WIDTH), "u1",
                     {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib", "tile": (16, 16)}),
    "plain colors apart": ((3, HEIGHT, WIDTH), "u2", {"photometric": "rgb", "planarconfig": "separate"}),
    "JPEG in tiles": ((HEIGHT, WIDTH, 3), "u1",
                      {"photometric": "ycbcr", "subsampling": (2, 2), "compression": "jpeg", "tile": (32, 32)}),
}  # fmt: skip


def _of_tiff(folder, name):
    shape, dtype, how = TIFFS[name]
    path = _tiff(folder / "a.tif", _pixels(dtype, shape), **how)
    return [FilePlane(path, color=1 if len(shape) == 3 else None)]


def _of_stack(folder):
    """As Fiji writes more than 4 GB: all planes behind one page."""
    path = _tiff(folder / "a.tif", _pixels(shape=(5, HEIGHT, WIDTH)), imagej=True, metadata={"axes": "ZYX"})
    return [FilePlane(path, number, pages=5) for number in (0, 3)]


def _of_image_file(folder):
    image = Image.fromarray(_pixels(np.uint8, (HEIGHT, WIDTH, 3)))
    image.save(folder / "a.png")
    image.save(folder / "a.jpg")
    return [FilePlane(folder / name, color=2) for name in ("a.png", "a.jpg")]


def _of_ome_tiff(folder):
    _tiff(folder / "a.ome.tif", _pixels(shape=(2, HEIGHT, WIDTH)), compression="zlib", tile=(32, 32), ome=True)
    return list(index_ome_tiff(folder / "a.ome.tif").fields[0].planes.values())


def _of_mask(folder):
    grey = _tiff(folder / "grey.tif", _pixels(), compression="zlib", tile=(16, 16))
    palette = np.zeros((3, 256), np.uint16)
    palette[1] = np.arange(256)
    indices = _tiff(folder / "p.tif", _pixels(np.uint8), photometric="palette", colormap=palette, compression="zlib")
    # Grey at the left and colored at the right: one number of three where there is a color anywhere.
    colors = np.repeat(_pixels(np.uint8)[..., None], 3, axis=-1)
    colors[:, 60:, 1] += 1
    Image.fromarray(colors).save(folder / "colors.png")
    alpha = np.dstack([colors, 255 * (_pixels(np.uint8) > 99)]).astype(np.uint8)
    Image.fromarray(alpha).save(folder / "alpha.png")
    Image.fromarray(_pixels(np.uint8)).convert("P").save(folder / "palette.png")
    paths = [grey, indices, folder / "colors.png", folder / "alpha.png", folder / "palette.png"]
    return [MaskPlane(path, 0, 1, labels) for path, labels in itertools.product(paths, (False, True))]


def _of_zarr(folder):
    """Chunks in folders of both versions, and in shards; of the last one only one chunk is there."""
    pixels, planes = _pixels(shape=(2, HEIGHT, WIDTH)), []
    for name, how in {
        "two": {"zarr_format": 2, "chunks": (1, 16, 32)},
        "three": {"zarr_format": 3, "chunks": (1, 16, 32)},
        "shards": {"zarr_format": 3, "chunks": (1, 16, 16), "shards": (1, 32, 48)},
        "sparse": {"zarr_format": 3, "chunks": (1, 16, 32), "fill_value": 7},
    }.items():
        array = zarr.create_array(folder / name, shape=pixels.shape, dtype=pixels.dtype, **how)
        if name == "sparse":
            array[1, 20:30, 40:60] = pixels[1, 20:30, 40:60]
        else:
            array[:] = pixels
        planes.append(ZarrPlane(str(folder), name, (1,)))
    zarr.create_array(folder / "flat", shape=pixels.shape[1:], dtype=pixels.dtype, chunks=(40, 40))[:] = pixels[0]
    return [*planes, ZarrPlane(str(folder), "flat", ())]


def _of_arrays(folder):
    pixels = _pixels(shape=(2, HEIGHT, WIDTH, 3))
    np.save(folder / "four.npy", pixels)
    np.savez_compressed(folder / "two.npz", image=pixels[0, ..., 0])
    return [ArrayPlane(folder / "four.npy", "", 1, 2), ArrayPlane(folder / "two.npz", "image", None, None)]


class _OneImage:
    def identity(self, part):
        return str(part)

    def examples(self, part):
        place = {"plate": "P", "well": "", "site": 1, "label": "", "source": "x"}
        yield _pixels(shape=(HEIGHT, WIDTH, 2)), place


def _of_tfds(folder):
    description = Description(
        name="one", version="1.0.0", kind="images", channel_names=("a", "b"), pixel_size_um=None,
        image_shape=(HEIGHT, WIDTH, 2), dtype="uint16",
        columns={"plate": str, "well": str, "site": int, "label": str, "source": str}, text="x", simulated=False,
    )  # fmt: skip
    written = write_set(description, ["x"], _OneImage(), folder)
    return list(index_tfds(written).fields[0].planes.values())


def _of_points(folder):
    np.save(folder / "contours.npy", np.random.default_rng(0).random((2, 40, 2)))
    return [ContourPlane(folder / "contours.npy", 1, "outline 2")]


def _of_digits(folder):
    digits = _pixels(np.uint8, (3, 28, 28))
    labels = np.zeros(3, np.uint8)
    np.savez(folder / "mnist.npz", x_train=digits, y_train=labels, x_test=digits, y_test=labels)
    return [DigitPlane(folder / "mnist.npz", "x_train", 2)]


KINDS = {
    **{f"TIFF, {name}": lambda folder, name=name: _of_tiff(folder, name) for name in TIFFS},
    "TIFF, a stack": _of_stack,
    "PNG and JPEG": _of_image_file,
    "OME-TIFF": _of_ome_tiff,
    "masks": _of_mask,
    "OME-Zarr": _of_zarr,
    "arrays": _of_arrays,
    "TFDS": _of_tfds,
    "contours": _of_points,
    "MNIST": _of_digits,
}


def _windows(height, width):
    """All of it, one pixel, those at each border and corner, and places at random."""
    yield Window(0, 0, height, width)
    tall, wide = max(height // 3, 1), max(width // 3, 1)
    for top, left in itertools.product((0, height // 2, height - tall), (0, width // 2, width - wide)):
        yield Window(top, left, min(tall, height - top), min(wide, width - left))
        yield Window(top, left, 1, 1)
    yield Window(height - 1, width - 1, 1, 1)
    rng = np.random.default_rng(height * width)
    for _ in range(20):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        yield Window(top, left, int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_is_a_slice_of_the_plane(kind, tmp_path):
    for plane in KINDS[kind](tmp_path):
        whole = plane.read()
        height, width = whole.shape
        for window in _windows(height, width):
            expected = whole[window.top : window.top + window.height, window.left : window.left + window.width]
            read = plane.read(window)
            np.testing.assert_array_equal(read, expected, err_msg=f"{plane}, {window}")
            assert read.dtype == whole.dtype, (plane, window)


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_that_is_not_inside_is_refused_with_both_sizes(kind, tmp_path):
    for plane in KINDS[kind](tmp_path):
        height, width = plane.read().shape
        for window in (
            Window(0, 0, height + 1, 1),
            Window(0, width, 1, 1),
            Window(height - 1, 0, 2, 1),
            Window(-1, 0, 1, 1),
            Window(0, 0, 1, 0),
        ):
            said = f"has {height} x {width} pixels, and a window of {window.height} x {window.width} from row"
            with pytest.raises(BadInputError, match=said) as caught:
                plane.read(window)
            assert caught.value.source.startswith(str(tmp_path))


def test_a_plane_that_is_absent_has_no_windows(tmp_path):
    """One whose chunks are there has, where none of them is, the fill value."""
    sparse = next(plane for plane in _of_zarr(tmp_path) if plane.array == "sparse")
    assert (sparse.read(Window(60, 0, 4, 4)) == 7).all()
    with pytest.raises(BadInputError, match="its pixels are absent"):
        ZarrPlane(sparse.store, sparse.array, (0,)).read(Window(60, 0, 4, 4))


def _bytes_read(function, *arguments):
    """By this process, whatever library asks for them."""

    def count():
        return int(Path("/proc/self/io").read_text().split()[1])

    before = count()
    function(*arguments)
    return count() - before


def _large_tiff(folder, **how):
    path = _tiff(folder / "a.tif", np.random.default_rng(0).integers(0, 65536, (2048, 2048), np.uint16), **how)
    return FilePlane(path)


def _large_zarr(folder, **how):
    array = zarr.create_array(folder / "a", shape=(2048, 2048), dtype=np.uint16, **how)
    array[:] = np.random.default_rng(0).integers(0, 65536, array.shape, np.uint16)
    return ZarrPlane(str(folder), "a", ())


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not say how much was read")
@pytest.mark.parametrize(
    ("make", "how", "most"),
    [
        (_large_tiff, {"compression": "zlib", "tile": (128, 128)}, 0.02),
        (_large_tiff, {"tile": (128, 128)}, 0.02),
        (_large_tiff, {"compression": "zlib", "rowsperstrip": 32}, 0.06),
        (_large_zarr, {"chunks": (128, 128)}, 0.02),
        (_large_zarr, {"chunks": (64, 64), "shards": (1024, 1024)}, 0.02),
    ],
)
def test_of_a_large_plane_only_what_the_window_touches_is_read(make, how, most, tmp_path):
    plane = make(tmp_path, **how)
    plane.read(Window(0, 0, 1, 1))  # what is kept once a file is open
    whole = _bytes_read(plane.read)
    assert whole > 8e6  # noise of 16 bits
    assert _bytes_read(plane.read, Window(1000, 1500, 64, 64)) < most * whole


def test_a_window_fits_where_the_plane_does_not(tmp_path):
    """Memory is asked for by what is read: a slide has windows."""
    tiff = _large_tiff(tmp_path, compression="zlib", tile=(128, 128))
    for plane in (tiff, _large_zarr(tmp_path, chunks=(128, 128))):
        with limits.using(limits.Limits(most_bytes=1 << 20)):
            with pytest.raises(BadInputError, match="8 MB of memory"):
                plane.read()
            assert plane.read(Window(1000, 1500, 64, 64)).shape == (64, 64)

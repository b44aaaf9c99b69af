import pickle
import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile

from data.errors import BadInputError, BuildError
from data.fields.planes import FilePlane, contents, read_file
from data.fields.tiff_pages import count_pages


def _pixels(shape=(20, 31), dtype=np.uint16):
    """Noise with values that an 8-bit reader would lose."""
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    pixels.flat[:3] = np.array([300, 65535, 256]).astype(dtype)
    return pixels


def _tiff_pages(path, pages, **options):
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, contiguous=False, **options)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_tiff(tmp_path, byteorder, bigtiff, compression):
    pixels = _pixels()
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels, byteorder=byteorder, bigtiff=bigtiff, compression=compression)
    np.testing.assert_array_equal(FilePlane(path, pages=1).read(), pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(20, 31), (20, 31, 3), (20, 31, 4)])
def test_png(tmp_path, dtype, shape):
    pixels = _pixels(shape, dtype)
    path = tmp_path / "image.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    np.testing.assert_array_equal(read_file(path), pixels)
    for color in range(shape[2] if len(shape) == 3 else 0):
        np.testing.assert_array_equal(FilePlane(path, color=color).read(), pixels[..., color])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colors_of_a_tiff_however_they_are_stored(tmp_path, planar):
    pixels = _pixels((20, 31, 3))
    path = tmp_path / "image.tif"
    stored = np.moveaxis(pixels, -1, 0) if planar == "separate" else pixels
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    assert contents(path).samples == ("R", "G", "B")
    np.testing.assert_array_equal(FilePlane(path, color=2).read(), pixels[..., 2])


def test_jpeg(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(np.full((16, 24, 3), 77, np.uint8), level=100))
    assert contents(path).samples == ("R", "G", "B")
    assert np.abs(FilePlane(path, color=1).read().astype(int) - 77).max() <= 2


def test_the_first_bytes_say_what_a_file_is_not_its_name(tmp_path):
    pixels = _pixels()
    path = tmp_path / "image.jpg"
    tifffile.imwrite(path, pixels)
    np.testing.assert_array_equal(FilePlane(path).read(), pixels)


def test_pages(tmp_path):
    pages = [_pixels() + np.uint16(i) for i in range(3)]
    path = tmp_path / "stack.tif"
    _tiff_pages(path, pages)
    assert count_pages(path) == 3
    for number, page in enumerate(pages):
        np.testing.assert_array_equal(FilePlane(path, number, pages=3).read(), page)
    with pytest.raises(BadInputError, match=r"holds 3 planes \(3 channels of uint16\), number 3 was asked for"):
        FilePlane(path, 3).read()
    with pytest.raises(BadInputError, match=r"holds 3 planes \(3 channels of uint16\), expected 1"):
        FilePlane(path, pages=1).read()


def test_a_page_that_is_cut_off_is_not_left_out(tmp_path):
    path = tmp_path / "stack.tif"
    _tiff_pages(path, [_pixels()] * 3)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(BadInputError, match=r"stack.tif: truncated: a page after number 2"):
        count_pages(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("rows_per_strip", [60, 8])
@pytest.mark.parametrize("kept", [0.95, 0.5, 0.05])
def test_a_truncated_tiff_is_named_and_never_filled_with_zeros(tmp_path, compression, rows_per_strip, kept):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, _pixels((60, 60)), compression=compression, rowsperstrip=rows_per_strip)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    # Of the last, not even the description of the pixels is whole.
    with pytest.raises(BadInputError, match=f"image.tif: {'truncated' if kept > 0.05 else 'damaged|truncated'}"):
        FilePlane(path).read()


def test_a_tile_without_bytes_is_no_black_tile(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, _pixels((64, 64)), tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        counts.overwrite([*counts.value[:3], 0])
    with pytest.raises(BadInputError, match="truncated"):
        FilePlane(path).read()


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.1])
def test_a_truncated_png_or_jpeg_is_named(tmp_path, kept):
    noise = _pixels((60, 60), np.uint8)
    for name, content in (("a.png", imagecodecs.png_encode(noise)), ("a.jpg", imagecodecs.jpeg8_encode(noise))):
        path = tmp_path / name
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(BadInputError, match=rf"{name}: (truncated|damaged)"):
            FilePlane(path).read()


def test_a_changed_byte_in_a_png_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    content = bytearray(imagecodecs.png_encode(_pixels()))
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"a.png: damaged"):
        FilePlane(path).read()


def test_what_is_no_image(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "text.tif").write_bytes(b"not an image")
    for name, problem in [
        ("folder.tif", "is a folder"),
        ("empty.tif", "the file is empty"),
        ("text.tif", "neither TIFF, PNG nor JPEG: it begins with 6e 6f 74"),
        ("absent.tif", "cannot be opened: No such file"),
    ]:
        with pytest.raises(BadInputError, match=f"{name}: {problem}"):
            FilePlane(tmp_path / name).read()
    with pytest.raises(BadInputError, match="cannot be opened"):
        FilePlane(tmp_path / "absent.tif").identity()
    with pytest.raises(BadInputError):
        count_pages(tmp_path / "absent.tif")


def test_colors_where_there_are_none_and_none_where_there_are(tmp_path):
    for name, shape in (("grey.png", (8, 8)), ("color.png", (8, 8, 3))):
        (tmp_path / name).write_bytes(imagecodecs.png_encode(_pixels(shape)))
    with pytest.raises(BadInputError, match=r"the image is \(8, 8\): it has no color 0"):
        FilePlane(tmp_path / "grey.png", color=0).read()
    with pytest.raises(BadInputError, match=r"the image is \(8, 8, 3\): it has no color 3"):
        FilePlane(tmp_path / "color.png", color=3).read()
    with pytest.raises(BadInputError, match=r"expected \[H, W\]"):
        FilePlane(tmp_path / "color.png").read()


def test_identity_changes_with_the_file(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, _pixels())
    before = FilePlane(path).identity()
    assert before == FilePlane(path).identity()
    assert len({before, FilePlane(path, 1).identity(), FilePlane(path, color=0).identity()}) == 3
    tifffile.imwrite(path, _pixels((8, 8)))
    assert FilePlane(path).identity() != before


def test_planes_and_their_errors_travel_between_processes(tmp_path):
    plane = FilePlane(tmp_path / "absent.tif", 2, 1)
    assert pickle.loads(pickle.dumps(plane)) == plane
    error = pickle.loads(pickle.dumps(BadInputError("a.tif", "plate P", "is empty")))
    assert (error.source, error.place, error.problem) == ("a.tif", "plate P", "is empty")
    assert isinstance(error, BuildError)
    assert str(error) == "a.tif: is empty (plate P)"


def _with_tag(path, name, value):
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags[name].overwrite(value)


def test_one_bit_of_a_height_asks_for_no_memory(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, _pixels((32, 32)), compression="zlib", metadata=None)
    _with_tag(path, "ImageLength", 32 | 1 << 30)
    with pytest.raises(BadInputError, match=r"image.tif: announces a page of 1073741856 x 32 pixels, 64 GB of memory"):
        FilePlane(path).read()


def test_a_png_of_one_color_is_no_way_to_fill_the_memory(tmp_path):
    """40000 x 40000 pixels of 1 bit; the header is enough to see it."""
    path = tmp_path / "image.png"
    header = struct.pack(">IIBBBBB", 40000, 40000, 1, 0, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(BadInputError, match=r"announces an image of 40000 x 40000 pixels, 1.49 GB of memory from 57 b"):
        FilePlane(path).read()


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say how much memory is in use")
@pytest.mark.parametrize("within", ["jpeg", "tiff"])
def test_a_jpeg_that_says_it_is_larger(tmp_path, within):
    """65500 x 65500 pixels of three colors are 12 GB. A TIFF says 16 x 24, and the JPEG within says otherwise."""
    pixels = np.full((16, 24, 3), 77, np.uint8)
    path = tmp_path / "image"
    if within == "tiff":
        tifffile.imwrite(path, pixels, photometric="rgb", compression="jpeg")
    else:
        path.write_bytes(imagecodecs.jpeg8_encode(pixels))
    content = bytearray(path.read_bytes())
    size = content.index(b"\xff\xc0") + 5  # start of frame: marker, length, bits; height, width
    content[size : size + 4] = struct.pack(">HH", 65500, 65500)
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"asks for more memory from \S+ (bytes|kB); at most 256 MB|damaged"):
        FilePlane(path, color=0).read()


def test_pages_that_follow_each_other_for_ever(tmp_path):
    """tifffile looks for a loop among the first hundred pages only."""
    path = tmp_path / "stack.tif"
    _tiff_pages(path, [_pixels((2, 2))] * 120)
    with tifffile.TiffFile(path) as tiff:
        back, last = tiff.pages[110].offset, tiff.pages[119]
        end = last.offset + 2 + 12 * len(last.tags)
    with open(path, "r+b") as file:
        file.seek(end)
        file.write(struct.pack("<I", back))
    for read in (count_pages, FilePlane(path, 0, pages=120).read, lambda path=path: read_file(path)):
        with pytest.raises(BadInputError, match=r"damaged: its page 120 is followed by one that came before"):
            read(path) if read is count_pages else read()


@pytest.mark.parametrize("kind", ["zlib", "lzw", "jpeg", "tiled", "png", "jpg"])
def test_no_flipped_bit_is_more_than_one_bad_file(tmp_path, kind):
    """Whatever it makes of a file, reading it gives pixels or says that it is bad."""
    smooth = np.add.outer(np.arange(40), np.arange(40) * 3).astype(np.uint8)
    path = tmp_path / "image"
    if kind == "png":
        path.write_bytes(imagecodecs.png_encode(smooth))
    elif kind == "jpg":
        path.write_bytes(imagecodecs.jpeg8_encode(smooth))
    else:
        options = {"tile": (16, 16), "compression": "zlib"} if kind == "tiled" else {"compression": kind}
        tifffile.imwrite(path, smooth, **options)
    content = path.read_bytes()
    rng = np.random.default_rng(7)
    bad = 0
    for _ in range(100):
        flipped = bytearray(content)
        # Half of them in the beginning, where what is announced is.
        bit = rng.integers(8 * (300 if rng.random() < 0.5 else len(content)))
        flipped[min(bit // 8, len(content) - 1)] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        try:
            FilePlane(path, pages=None).read()
            count_pages(path)
            contents(path)
        except BadInputError:
            bad += 1
    assert bad > 5

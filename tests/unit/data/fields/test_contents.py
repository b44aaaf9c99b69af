"""What PNG and JPEG say that they hold, against what Pillow wrote and what is decoded."""

import numpy as np
import pytest
from PIL import Image

from data.errors import BadInputError
from data.fields.contents import Contents
from data.fields.planes import contents, read_file


def _picture(mode, dtype=np.uint8):
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, bands), dtype)
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("mode", "save", "names"),
    [
        ("L", {}, ("0",)),
        ("LA", {}, ("0", "A")),
        ("RGB", {}, ("R", "G", "B")),
        ("RGBA", {}, ("R", "G", "B", "A")),
        ("L", {"transparency": 5}, ("0", "A")),
        ("RGB", {"transparency": (1, 2, 3)}, ("R", "G", "B", "A")),
    ],
)
def test_samples_are_those_that_are_decoded(tmp_path, mode, save, names):
    path = tmp_path / "a.png"
    _picture(mode).save(path, **save)
    assert contents(path) == Contents((), names, "uint8", 8)
    assert np.atleast_3d(read_file(path)).shape == (16, 24, len(names))
    if not save:
        np.testing.assert_array_equal(read_file(path), np.asarray(_picture(mode)))


def test_a_palette_becomes_its_colors(tmp_path):
    path = tmp_path / "a.png"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)).quantize(7)
    picture.save(path)
    assert contents(path) == Contents((), ("R", "G", "B"), "uint8", 8)
    np.testing.assert_array_equal(read_file(path), np.asarray(picture.convert("RGB")))
    picture.save(path, transparency=0)
    assert contents(path).samples == ("R", "G", "B", "A")
    assert read_file(path).shape == (16, 24, 4)


def test_bits(tmp_path):
    grey = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) * 170
    Image.fromarray(grey).save(tmp_path / "16.png")
    Image.fromarray(grey > 300).save(tmp_path / "1.png")
    assert contents(tmp_path / "16.png") == Contents((), ("0",), "uint16", 16)
    assert contents(tmp_path / "1.png") == Contents((), ("0",), "uint8", 1)
    np.testing.assert_array_equal(read_file(tmp_path / "16.png"), grey)


@pytest.mark.parametrize(("mode", "names"), [("L", ("0",)), ("RGB", ("R", "G", "B"))])
def test_jpeg(tmp_path, mode, names):
    Image.new(mode, (24, 16)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + bytes(500), progressive=mode == "L")
    assert contents(tmp_path / "a.jpg") == Contents((), names, "uint8", 8)


def _refused(path, *parts):
    for read in (contents, read_file):
        with pytest.raises(BadInputError) as caught:
            read(path)
        for part in (str(path), *parts):
            assert part in str(caught.value)


def test_several_pictures_and_four_inks_are_refused(tmp_path):
    grey = [Image.new("L", (24, 16), value) for value in range(3)]
    grey[0].save(tmp_path / "animated.png", save_all=True, append_images=grey[1:])
    _refused(tmp_path / "animated.png", "an animation of 3 pictures, of which one would be read")
    colors = [picture.convert("RGB") for picture in grey]
    colors[0].save(tmp_path / "several.jpg", format="MPO", save_all=True, append_images=colors[1:])
    _refused(tmp_path / "several.jpg", "several pictures in one JPEG")
    Image.new("CMYK", (24, 16)).save(tmp_path / "inks.jpg")
    _refused(tmp_path / "inks.jpg", "a JPEG of 4 inks (CMYK)")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("length", [9, 20, 30, 40])
def test_a_header_that_is_cut_off(tmp_path, name, length):
    Image.new("RGB", (24, 16)).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:length])
    _refused(tmp_path / name, "damaged")


def test_what_a_file_holds_in_words():
    stack = Contents((("T", 2), ("Z", 4)), ("R", "G", "B"), "uint16", 12, "0 is white")
    assert str(stack) == "2 time points x 4 focal planes x R, G, B of uint16 (12 bits in use), 0 is white"
    assert str(Contents((), ("0",), "uint8", 8)) == "1 channel of uint8"

"""What TIFFs say that they hold, as the programs write them that users have."""

import itertools
import struct

import numpy as np
import pytest
import tifffile

from data.errors import BadInputError
from data.fields.contents import Contents
from data.fields.index import assemble
from data.fields.planes import FilePlane, contents, read_file
from data.fields.tiff_pages import count_pages, opened_page, read_pixels
from data.sources.folder import index_folder


def _pixels(*shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def _write(path, pixels, **options):
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack"} | options)


def _pages(path, pages, description=None, **options):
    """Pages as they come, with a description that may say what it likes."""
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(pages):
            said = description if number == 0 else None
            writer.write(page, description=said, metadata=None, contiguous=False, **options)


def _read(folder):
    """[T, Z, H, W, C] of the one image in a folder, and the names of its channels."""
    index = index_folder(folder)
    (field,) = index.fields
    images = [image for image, _ in assemble(field, index.channels, "each", "each")]
    times = len({t for _, _, t in field.planes})
    return np.stack(images).reshape(times, -1, *images[0].shape), index.channels


def _refused(path, *parts):
    with pytest.raises(BadInputError) as caught:
        FilePlane(path).read()
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message


@pytest.mark.parametrize("behind_one_page", [False, True])
@pytest.mark.parametrize("kind", ["imagej", "shaped"])
@pytest.mark.parametrize("axes", ["CYX", "ZYX", "TYX", "TZCYX"])
def test_axes_are_read_as_the_file_names_them(tmp_path, kind, axes, behind_one_page):
    sizes = {"T": 2, "Z": 4, "C": 3, "Y": 8, "X": 9}
    pixels = _pixels(*(sizes[letter] for letter in axes))
    options = {"imagej": True, "photometric": None} if kind == "imagej" else {}
    _write(tmp_path / "a.tif", pixels, metadata={"axes": axes}, truncate=behind_one_page, **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert (len(tiff.pages) == 1) == behind_one_page
    read, channels = _read(tmp_path)
    whole = pixels.reshape([sizes[letter] if letter in axes else 1 for letter in "TZCYX"])
    assert channels == tuple(map(str, range(whole.shape[2])))
    np.testing.assert_array_equal(read, np.moveaxis(whole, 2, -1))


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_plane_without_a_page_of_its_own_in_either_byte_order(tmp_path, byteorder):
    pixels = _pixels(3, 8, 9)
    _write(tmp_path / "a.tif", pixels, byteorder=byteorder, truncate=True)
    np.testing.assert_array_equal([FilePlane(tmp_path / "a.tif", i, pages=3).read() for i in range(3)], pixels)


def test_focal_planes_of_colors(tmp_path):
    pixels = _pixels(4, 8, 9, 3, dtype=np.uint8)
    _write(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": "ZYXS"}, photometric="rgb")
    read, channels = _read(tmp_path)
    assert channels == ("R", "G", "B")
    np.testing.assert_array_equal(read[0], pixels)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("count", "options", "names"),
    [
        (12, {}, tuple(map(str, range(12)))),
        (40, {}, tuple(map(str, range(40)))),
        (2, {"extrasamples": ["unassalpha"]}, ("0", "A")),
        (12, {"photometric": "rgb"}, ("R", "G", "B", *map(str, range(3, 12)))),
        (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}, ("R", "G", "B", "3")),
        (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}, ("R", "G", "B", "A")),
        (5, {"photometric": "rgb", "extrasamples": ["unspecified", "unassalpha"]}, ("R", "G", "B", "3", "A")),
    ],
)
def test_any_number_of_samples(tmp_path, planar, count, options, names):
    pixels = _pixels(8, 9, count)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    _write(tmp_path / "a.tif", stored, planarconfig=planar, **options)
    read, channels = _read(tmp_path)
    assert channels == names
    np.testing.assert_array_equal(read[0, 0], pixels)


@pytest.mark.parametrize("letter", ["C", "S"])
def test_samples_side_by_side_by_whatever_letter(tmp_path, letter):
    pixels = _pixels(8, 9, 4)
    options = {"planarconfig": "contig", "photometric": "minisblack"}
    _write(tmp_path / "a.tif", pixels, metadata={"axes": f"YX{letter}"}, **options)
    read, channels = _read(tmp_path)
    assert channels == ("0", "1", "2", "3")
    np.testing.assert_array_equal(read[0, 0], pixels)


def test_samples_that_imagej_calls_channels(tmp_path):
    """As Bio-Formats writes them."""
    pixels = _pixels(3, 8, 9)
    _write(tmp_path / "a.tif", pixels, planarconfig="separate", description="ImageJ=1\nchannels=3\n", metadata=None)
    read, channels = _read(tmp_path)
    assert channels == ("0", "1", "2")
    np.testing.assert_array_equal(read[0, 0], np.moveaxis(pixels, 0, -1))


def test_an_imagej_file_that_is_cut_off(tmp_path):
    path = tmp_path / "a.tif"
    _write(path, _pixels(3, 8, 9), imagej=True, photometric=None, metadata={"axes": "CYX"}, truncate=True)
    path.write_bytes(path.read_bytes()[:-9])
    _refused(path, "(imagej) announces 3 planes and does not fit the 1 page")


def test_a_shaped_file_that_is_cut_off(tmp_path):
    path = tmp_path / "a.tif"
    _write(path, _pixels(3, 8, 9), truncate=True)
    path.write_bytes(path.read_bytes()[: -2 * 8 * 9 - 9])
    _refused(path, "truncated: announces 3 planes, and holds 1 that are whole")


@pytest.mark.parametrize(
    ("pages", "said", "problem"),
    [
        (1, "images=5\n", "announces 5 planes (ImageJ: images), and holds 1"),
        (1, "images=5\nslices=5\n", "announces 5 planes and does not fit the 1 page"),
        (3, "images=5\nslices=5\n", "announces 5 planes (ImageJ: channels x slices x frames), and holds 3"),
        (6, "images=3\nslices=3\n", "announces 3 planes (ImageJ: channels x slices x frames), and holds 6"),
        (4, "images=3\nslices=4\n", "announces 3 planes (ImageJ: images), and holds 4"),
    ],
)
def test_imagej_that_announces_other_planes_than_there_are(tmp_path, pages, said, problem):
    _pages(tmp_path / "a.tif", _pixels(pages, 8, 9), f"ImageJ=1.54f\n{said}")
    _refused(tmp_path / "a.tif", problem)


def test_pages_that_no_description_names_are_channels(tmp_path):
    pixels = _pixels(3, 8, 9)
    _pages(tmp_path / "a.tif", pixels)
    read, channels = _read(tmp_path)
    assert channels == ("0", "1", "2")
    np.testing.assert_array_equal(read[0, 0], np.moveaxis(pixels, 0, -1))


@pytest.mark.parametrize(
    ("shape", "options", "problem"),
    [
        ((2, 3, 8, 9), {}, "its planes lie along other (2), other (3); expected time points, focal planes, channels"),
        ((2, 8, 9), {"metadata": {"axes": "PYX"}}, "its planes lie along phase (2)"),
        ((2, 3, 8, 9), {"metadata": {"axes": "RCYX"}}, "its planes lie along tile (2), channel (3)"),
        ((2, 8, 9, 3), {"photometric": "rgb", "metadata": {"axes": "CYXS"}}, "2 pages of 3 colors each"),
        ((5, 16, 16), {"volumetric": True, "tile": (5, 16, 16)}, "a TIFF of a kind that is not read"),
        ((8, 9, 4), {"photometric": "separated"}, "colors are SEPARATED, expected grey, a palette or RGB"),
        ((8, 9, 3), {"photometric": "ycbcr"}, "colors are YCBCR"),
        ((8, 9, 3), {"photometric": "cielab"}, "colors are CIELAB"),
    ],
)
def test_what_has_no_place_in_a_field(tmp_path, shape, options, problem):
    _write(tmp_path / "a.tif", _pixels(*shape, dtype=np.uint8), **options)
    _refused(tmp_path / "a.tif", problem)


def test_smaller_copies_are_no_channels(tmp_path):
    pixels = _pixels(2, 32, 32)
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(pixels, subifds=1, photometric="minisblack", metadata={"axes": "CYX"})
        writer.write(pixels[:, ::2, ::2], subfiletype=1, photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "thumbnail.tif") as writer:
        writer.write(pixels[0], metadata=None)
        writer.write(pixels[0, :9, :7], subfiletype=1, metadata=None)
    assert contents(tmp_path / "pyramid.tif") == Contents((("C", 2),), ("0",), "uint16", 16, "", ((0, None), (1, None)))
    np.testing.assert_array_equal(read_file(tmp_path / "pyramid.tif", 1), pixels[1])
    assert contents(tmp_path / "thumbnail.tif") == Contents((), ("0",), "uint16", 16)


@pytest.mark.parametrize("second", [(16, 16), (20, 30)])
def test_images_of_two_sizes_where_neither_is_said_to_be_a_copy(tmp_path, second):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(_pixels(32, 32), metadata=None)
        writer.write(_pixels(*second), metadata=None)
    _refused(tmp_path / "a.tif", "32 x 32", " x ".join(map(str, second)), "save each as a file of its own")


def test_several_stacks_in_one_file(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for _ in range(2):
            writer.write(_pixels(3, 8, 9), photometric="minisblack", metadata={"axes": "ZYX"})
    _refused(tmp_path / "a.tif", "holds 2 images (ZYX 3 x 8 x 9, ZYX 3 x 8 x 9), expected one")


def test_a_subifd_that_is_no_smaller_copy(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(_pixels(8, 9), subifds=1, metadata=None)
        writer.write(_pixels(8, 9), metadata=None)
    _refused(tmp_path / "a.tif", "a SubIFD that is not a smaller copy")


def _ome(path, planes, xml_planes, data="", uuid=""):
    sizes = f'SizeX="9" SizeY="8" SizeC="{xml_planes}" SizeZ="1" SizeT="1" DimensionOrder="XYCZT" Type="uint16"'
    namespace = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    data = data or f'<TiffData IFD="0" PlaneCount="{planes}"/>'
    image = f'<Image ID="Image:0"><Pixels ID="Pixels:0" {sizes}>{data}</Pixels></Image>'
    description = f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{namespace}" {uuid}>{image}</OME>'
    _pages(path, _pixels(planes, 8, 9), description.encode())


@pytest.mark.parametrize(
    ("pages", "said", "data", "problem"),
    [
        (2, 3, "", "announces planes that are not in it"),
        (3, 2, '<TiffData IFD="0" PlaneCount="2"/>', "has 3 pages, of which its description (ome) names 2"),
        (2, 2, '<TiffData IFD="0"/><TiffData FirstC="1" IFD="0"/>', "names 2, some twice"),
        (2, 3, '<TiffData IFD="0" PlaneCount="2"/><TiffData FirstC="2" IFD="7"/>', "announces planes that are not in"),
    ],
)
def test_an_ome_tiff_in_a_folder_whose_xml_announces_other_planes(tmp_path, pages, said, data, problem):
    _ome(tmp_path / "a.tif", pages, said, data)
    _refused(tmp_path / "a.tif", problem)


@pytest.mark.parametrize("beside", [False, True])
def test_one_of_several_files_of_an_ome_tiff(tmp_path, beside):
    parts = [
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{c}.ome.tif">urn:uuid:{c}</UUID></TiffData>'
        for c in range(2)
    ]
    for c in range(1 + beside):
        _ome(tmp_path / f"{c}.ome.tif", 1, 2, "".join(parts), f'UUID="urn:uuid:{c}"')
    _refused(tmp_path / "0.ome.tif", "--layout=ome-tiff")


def test_metamorph_keeps_its_planes_behind_one_page(tmp_path):
    """A stack of MetaMorph: as many planes as its tag UIC2 has entries, which is said there alone."""
    path, pixels = tmp_path / "a.stk", _pixels(3, 8, 9)
    times = list(itertools.chain.from_iterable((1, 1, 2_450_000, 1000 * z, 2_450_000, 0) for z in range(3)))
    tags = [(33628, 4, 2, (0, 0), True), (33629, 5, 9, times, True)]
    tifffile.imwrite(
        path, pixels, byteorder="<", truncate=True, metadata=None, photometric="minisblack", extratags=tags
    )
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
        entry = tiff.pages[0].tags[33629].offset
    content = bytearray(path.read_bytes())
    content[entry + 4 : entry + 8] = struct.pack("<I", 3)  # of 24 bytes each, which no other TIFF has
    path.write_bytes(content)
    assert contents(path).axes == (("Z", 3),)
    np.testing.assert_array_equal([read_file(path, z, 3) for z in range(3)], pixels)
    path.write_bytes(content[: -2 * 8 * 9])
    _refused(path, "announces 3 planes, and holds 2 that are whole")


def test_scanimage_that_does_not_say_what_its_pages_are(tmp_path):
    """Its channels come by turns, and tifffile takes the number of pages from the size of the file."""
    path, pixels = tmp_path / "a.tif", _pixels(6, 8, 9)
    _pages(path, pixels, software="SI.hChannels.channelSave = [1;2]\n")
    assert count_pages(path) == 6
    with opened_page(path, 5) as page:
        np.testing.assert_array_equal(read_pixels(page, path, None, None), pixels[5])
    _refused(path, "its planes lie along sequence (6)")
    _pages(path, pixels[:1], software="SI.hChannels.channelSave = [1]\n")
    np.testing.assert_array_equal(FilePlane(path, pages=1).read(), pixels[0])

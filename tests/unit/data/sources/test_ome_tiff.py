import csv
import itertools
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BadInputError, BuildError
from data.fields.index import assemble
from data.limits import Limits, using
from data.sources.ome_tiff import index_ome_tiff


def _pixels(seed, shape, dtype=np.uint16):
    pixels = ((np.arange(np.prod(shape)) * 37 + 1000 * seed) % 65536).astype(np.uint16).reshape(shape)
    pixels[..., 0, 0], pixels[..., 0, 1] = 300, 65535
    return pixels if dtype == np.uint16 else pixels.astype(dtype) / 7


def _write(path, pages, xml, **options):
    """Pages [N, Y, X] or [N, Y, X, S], and the XML as it is."""
    description = xml.encode() if xml else None
    with tifffile.TiffWriter(path) as tiff:
        for i, page in enumerate(pages):
            tiff.write(page, description=description if i == 0 else None, metadata=None, contiguous=False, **options)
    return path


def _xml(body, uuid="urn:uuid:a"):
    namespace = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{namespace}" UUID="{uuid}">{body}</OME>'


def _image_xml(data, c=1, z=1, t=1, order="XYCZT", number=0, more="", channels=None, size=(16, 12)):
    channels = "".join(f'<Channel ID="Channel:{i}" Name="c{i}"/>' for i in range(c)) if channels is None else channels
    return (
        f'<Image ID="Image:{number}" Name="i{number}"><Pixels ID="Pixels:{number}" DimensionOrder="{order}" '
        f'Type="uint16" SizeX="{size[0]}" SizeY="{size[1]}" SizeC="{c}" SizeZ="{z}" SizeT="{t}" {more}>'
        f"{channels}{data}</Pixels></Image>"
    )


def _refused(source, *parts):
    with pytest.raises(BuildError) as caught:
        index_ome_tiff(source)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(source), *parts):
        assert part in message


def _unreadable(plane, *parts):
    with pytest.raises(BadInputError) as caught:
        plane.read()
    message = str(caught.value)
    assert "\n" not in message
    for part in (plane.source, *parts):
        assert part in message


def _is_read_as(field, pixels, channels):
    """Every plane of [T, C, Z, Y, X], and the same through `assemble`."""
    times, _, steps = pixels.shape[:3]
    assert set(field.planes) == set(itertools.product(channels, range(steps), range(times)))
    for (channel, z, t), plane in field.planes.items():
        read = plane.read()
        assert read.dtype == pixels.dtype
        np.testing.assert_array_equal(read, pixels[t, channels.index(channel), z])
    every = [image for image, _ in assemble(field, channels[::-1], "each", "each")]
    expected = np.moveaxis(pixels[:, ::-1], 1, -1).reshape(-1, *pixels.shape[-2:], len(channels))
    np.testing.assert_array_equal(every, expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}, {"bigtiff": True}])
def test_what_tifffile_writes(tmp_path, dtype, options):
    pixels = _pixels(0, (2, 3, 4, 12, 16), dtype)
    metadata = {
        "axes": "TCZYX",
        "Name": "cells",
        "Channel": {"Name": ["DNA", "RNA", "DNA"]},
        "PhysicalSizeX": 650.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 650.0,
        "PhysicalSizeYUnit": "nm",
    }
    (tmp_path / "day 1").mkdir()
    path = tmp_path / "day 1" / "a.ome.tif"
    tifffile.imwrite(path, pixels, ome=True, metadata=metadata, **options)
    index = index_ome_tiff(path)
    assert index.channels == ("DNA", "RNA", "DNA (2)")
    assert index.pixel_size_um == pytest.approx(0.65)
    assert index.ignored == ()
    (field,) = index.fields
    assert (field.plate, field.well, field.site) == ("day 1", "", 1)
    assert field.metadata == {"image_name": "cells"}
    assert index.columns == {"image_name": str}
    _is_read_as(field, pixels, index.channels)


def test_a_folder_of_files_with_several_images_each(tmp_path):
    expected = []
    for name in ("b.ome.tif", "a.OME.TIFF", "c.ome.tiff"):
        with tifffile.TiffWriter(tmp_path / name, ome=True) as tiff:
            for i in range(2):
                pixels = _pixels(len(expected), (2, 12, 16))
                tiff.write(pixels, photometric="minisblack", metadata={"axes": "CYX", "Name": f"{name} {i}"})
                expected.append((f"{name} {i}", pixels[None, :, None]))
    (tmp_path / "notes.txt").touch()
    tifffile.imwrite(tmp_path / "d.tif", np.zeros((4, 4), "u1"))
    index = index_ome_tiff(tmp_path)
    assert index.channels == ("0", "1")
    assert index.pixel_size_um is None
    assert [(field.plate, field.well, field.site) for field in index.fields] == [
        (tmp_path.name, "", site) for site in range(1, 7)
    ]
    for field, (name, pixels) in zip(index.fields, sorted(expected), strict=True):
        assert field.metadata["image_name"] == name
        _is_read_as(field, pixels, index.channels)
    why = "not called *.ome.tif, *.ome.tiff, *.companion.ome"
    assert index.ignored == ((str(tmp_path / "d.tif"), why), (str(tmp_path / "notes.txt"), why))


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("CZT")])
@pytest.mark.parametrize("how", ["count", "nothing", "each"])
def test_every_order_of_pages(tmp_path, order, how):
    extent = {"C": 2, "Z": 3, "T": 4}
    pixels = _pixels(0, (4, 2, 3, 12, 16))
    # [slowest, ..., fastest], as the pages lie in the file
    pages = pixels.transpose(*("TCZ".index(axis) for axis in order[::-1]), 3, 4).reshape(-1, 12, 16)
    if how == "each":  # one by one, from the last to the first
        data = ""
        for n in range(24):
            index = np.unravel_index(n, [extent[axis] for axis in order], order="F")
            first = " ".join(f'First{axis}="{i}"' for axis, i in zip(order, index, strict=True))
            data += f'<TiffData {first} IFD="{23 - n}"/>'
        pages = pages[::-1]
    else:
        data = '<TiffData IFD="0" PlaneCount="24"/>' if how == "count" else "<TiffData/>"
    xml = _xml(_image_xml(data, **{axis.lower(): n for axis, n in extent.items()}, order="XY" + order))
    path = _write(tmp_path / "a.ome.tif", pages, xml)
    index = index_ome_tiff(path)
    _is_read_as(index.fields[0], pixels, ("c0", "c1"))


def _plate_xml(wells):
    """Wells: (row, column, ((index, number of the image), ...))."""
    xml = ""
    for row, column, samples in wells:
        references = "".join(
            f'<WellSample ID="s{row}{column}{i}" Index="{i}"><ImageRef ID="Image:{image}"/></WellSample>'
            for i, image in samples
        )
        xml += f'<Well ID="w{row}{column}" Row="{row}" Column="{column}">{references}</Well>'
    return f'<Plate ID="Plate:0" Name="P7">{xml}</Plate>'


def test_plate_and_wells(tmp_path):
    pages = _pixels(0, (5, 12, 16))
    images = "".join(_image_xml(f'<TiffData IFD="{i}"/>', number=i) for i in range(5))
    # Image 3 comes before image 1, image 4 is in no well, image 9 is not there.
    plate = _plate_xml([(1, 11, ((5, 1), (4, 3))), (0, 0, ((0, 0), (1, 9), (2, 2)))])
    path = _write(tmp_path / "a.ome.tif", pages, _xml(plate + images))
    index = index_ome_tiff(path, 96)
    assert [(field.plate, field.well, field.site, field.metadata["image_name"]) for field in index.fields] == [
        ("P7", "A01", 1, "i0"),
        ("P7", "A01", 3, "i2"),  # the field that is not there was number 2
        ("P7", "B12", 1, "i3"),
        ("P7", "B12", 2, "i1"),
        (tmp_path.name, "", 1, "i4"),
    ]
    assert index.ignored == ((str(path), "a field of well A01 that is listed and has no image of its own"),)
    for field, page in zip(index.fields, (0, 2, 3, 1, 4), strict=True):
        _is_read_as(field, pages[page][None, None, None], ("c0",))
    with pytest.raises(BuildError, match=f"^{path}: well 'B12': a plate of 24 wells"):
        index_ome_tiff(path, 24)


def test_sites_go_on_in_the_next_file(tmp_path):
    for i, name in enumerate("ab"):
        xml = _xml(_plate_xml([(0, 0, ((0, 0),))]) + _image_xml('<TiffData IFD="0"/>'), uuid=name)
        _write(tmp_path / f"{name}.ome.tif", _pixels(i, (1, 12, 16)), xml)
    index = index_ome_tiff(tmp_path)
    assert [(field.plate, field.well, field.site) for field in index.fields] == [("P7", "A01", 1), ("P7", "A01", 2)]
    _is_read_as(index.fields[1], _pixels(1, (1, 1, 1, 12, 16)), ("c0",))


def _several_files(folder, others="all"):
    """Three channels in three files. The XML is in all of them, in the last only, or in a companion."""
    pixels = _pixels(0, (2, 3, 1, 12, 16))
    data = "".join(
        f'<TiffData FirstC="{c}" FirstT="{t}" IFD="{t}"><UUID FileName="c{c}.ome.tif">urn:uuid:{c}</UUID></TiffData>'
        for t in range(2)
        for c in range(3)
    )
    body = _image_xml(data, c=3, t=2)
    holder = "all.companion.ome" if others == "companion" else "c2.ome.tif"
    for c in range(3):
        xml = _xml(body, uuid=f"urn:uuid:{c}")
        if others != "all" and f"c{c}.ome.tif" != holder:
            xml = _xml(f'<BinaryOnly MetadataFile="{holder}" UUID="urn:uuid:x"/>', uuid=f"urn:uuid:{c}")
        _write(folder / f"c{c}.ome.tif", pixels[:, c, 0], xml)
    if others == "companion":
        (folder / holder).write_text(_xml(body, uuid="urn:uuid:x"), "utf-8")
    return pixels


@pytest.mark.parametrize("others", ["all", "one", "companion"])
def test_an_image_in_several_files(tmp_path, others):
    pixels = _several_files(tmp_path, others)
    for source in (tmp_path, tmp_path / "c0.ome.tif"):
        index = index_ome_tiff(source)
        assert index.ignored == ()
        (field,) = index.fields
        _is_read_as(field, pixels, ("c0", "c1", "c2"))
    (tmp_path / "c1.ome.tif").unlink()
    (field,) = index_ome_tiff(tmp_path).fields
    np.testing.assert_array_equal(field.planes["c2", 0, 1].read(), pixels[1, 2, 0])
    _unreadable(field.planes["c1", 0, 1], "c1.ome.tif", "cannot be opened")
    with pytest.raises(BadInputError, match=r"c1\.ome\.tif.*site 1, channel c1, t 1"):
        next(assemble(field, ("c0", "c1"), 0, 1))


def test_metadata_that_are_elsewhere_and_files_that_no_image_has(tmp_path):
    _several_files(tmp_path, "companion")
    stray = _xml('<BinaryOnly MetadataFile="all.companion.ome" UUID="urn:uuid:x"/>', uuid="urn:uuid:9")
    _write(tmp_path / "stray.ome.tif", _pixels(0, (1, 12, 16)), stray)
    index = index_ome_tiff(tmp_path)
    assert len(index.fields) == 1
    assert index.ignored == ((str(tmp_path / "stray.ome.tif"), "no image is in it"),)
    (tmp_path / "all.companion.ome").unlink()
    _refused(tmp_path, "c0.ome.tif: what it holds is said in all.companion.ome, which is not beside it")


def test_a_renamed_file_is_itself(tmp_path):
    data = '<TiffData IFD="0" PlaneCount="1"><UUID FileName="old.ome.tif">urn:uuid:a</UUID></TiffData>'
    path = _write(tmp_path / "new.ome.tif", _pixels(0, (1, 12, 16)), _xml(_image_xml(data)))
    _is_read_as(index_ome_tiff(path).fields[0], _pixels(0, (1, 1, 1, 12, 16)), ("c0",))


def test_planes_that_are_announced_and_not_there(tmp_path):
    data = '<TiffData FirstZ="0" IFD="0"/><TiffData FirstZ="2" IFD="7"/>'
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (2, 12, 16)), _xml(_image_xml(data, z=3)))
    (field,) = index_ome_tiff(path).fields
    assert len(field.planes) == 3
    np.testing.assert_array_equal(field.planes["c0", 0, 0].read(), _pixels(0, (2, 12, 16))[0])
    _unreadable(field.planes["c0", 1, 0], "announces this plane, and has no page for it")
    _unreadable(field.planes["c0", 2, 0], "has 2 pages, number 7 was asked for")
    with pytest.raises(BadInputError, match=r"no page for it \(plate .*, well , site 1, channel c0, z 1\)"):
        next(assemble(field, ("c0",), "max", 0))
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (2, 12, 16)), _xml(_image_xml("", z=1)))
    _unreadable(index_ome_tiff(path).fields[0].planes["c0", 0, 0], "has no page for it")


@pytest.mark.parametrize(("cut", "words"), [(1, "truncated"), (12 * 16 * 2, "truncated"), (500, "damaged")])
def test_a_truncated_file_fails_where_it_is_cut(tmp_path, cut, words):
    pixels = _pixels(0, (3, 12, 16))
    path = _write(tmp_path / "a.ome.tif", pixels, _xml(_image_xml('<TiffData PlaneCount="3"/>', z=3)))
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages[2].dataoffsets[0]
    content = path.read_bytes()
    assert len(content) == last + 12 * 16 * 2
    path.write_bytes(content[:-cut])
    (field,) = index_ome_tiff(path).fields
    np.testing.assert_array_equal(field.planes["c0", 1, 0].read(), pixels[1])
    _unreadable(field.planes["c0", 2, 0], words)


def test_a_plane_is_read_without_the_others(tmp_path):
    pixels = _pixels(0, (3, 12, 16))
    data = '<TiffData PlaneCount="3"/>'
    path = _write(tmp_path / "a.ome.tif", pixels, _xml(_image_xml(data, z=3)), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        first, second = (tiff.pages[i].dataoffsets[0] for i in (0, 1))
    content = bytearray(path.read_bytes())
    content[first : first + 20], content[second : second + 20] = b"x" * 20, b"x" * 20
    path.write_bytes(content)
    (field,) = index_ome_tiff(path).fields
    np.testing.assert_array_equal(field.planes["c0", 2, 0].read(), pixels[2])
    _unreadable(field.planes["c0", 1, 0], "damaged")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('PhysicalSizeX="0.65" PhysicalSizeY="0.65"', 0.65),
        ('PhysicalSizeX="0.65" PhysicalSizeXUnit="\N{MICRO SIGN}m" PhysicalSizeY="0.65"', 0.65),
        ('PhysicalSizeX="0.65" PhysicalSizeXUnit="\N{GREEK SMALL LETTER MU}m" PhysicalSizeY="0.65"', 0.65),
        ('PhysicalSizeX="2" PhysicalSizeXUnit="mm" PhysicalSizeY="2" PhysicalSizeYUnit="mm"', 2000.0),
        ('PhysicalSizeX="2" PhysicalSizeXUnit="pixel" PhysicalSizeY="2" PhysicalSizeYUnit="pixel"', None),
        ("", None),
    ],
)
def test_pixel_size_in_micrometers(tmp_path, more, expected):
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (1, 12, 16)), _xml(_image_xml("<TiffData/>", more=more)))
    index = index_ome_tiff(path)
    assert index.pixel_size_um == expected
    assert index.ignored == ()


def test_pixels_that_are_not_square_and_images_of_another_size(tmp_path):
    more = 'PhysicalSizeX="0.5" PhysicalSizeY="0.7"'
    sizes = [(16, 12), (16, 12), (10, 12)]
    images = "".join(
        _image_xml(f'<TiffData IFD="{i}"/>', number=i, more=more, size=size) for i, size in enumerate(sizes)
    )
    pages = [_pixels(i, (y, x)) for i, (x, y) in enumerate(sizes)]
    path = _write(tmp_path / "a.ome.tif", pages, _xml(images))
    index = index_ome_tiff(path)
    assert index.pixel_size_um is None
    assert [(field.site, field.size) for field in index.fields] == [(1, (12, 16)), (2, (12, 16)), (3, (12, 10))]
    assert index.ignored == ((str(path), "the pixel size, as it is not one: ['0.5', '0.7'] um"),)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_channels_of_one_page_and_channels_of_their_own(tmp_path, planar):
    pixels = _pixels(0, (3, 2, 12, 16))  # color, z
    channels = '<Channel ID="Channel:0" Name="color" SamplesPerPixel="3"/>'
    xml = _xml(_image_xml("<TiffData/>", c=3, z=2, channels=channels))
    path = _write(
        tmp_path / "a.ome.tif",
        np.moveaxis(pixels, 0, -1 if planar == "contig" else 1),
        xml,
        photometric="rgb",
        planarconfig=planar,
    )
    index = index_ome_tiff(path)
    assert index.channels == ("color 0", "color 1", "color 2")
    _is_read_as(index.fields[0], pixels[None], index.channels)
    _write(path, pixels[0], xml)
    _unreadable(
        index_ome_tiff(path).fields[0].planes["color 1", 0, 0], "of 1 samples, where the OME-XML says (12, 16) of 3"
    )


def test_a_page_of_another_size_than_its_xml_says(tmp_path):
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (1, 12, 15)), _xml(_image_xml("<TiffData/>")))
    _unreadable(index_ome_tiff(path).fields[0].planes["c0", 0, 0], "has (12, 15) pixels", "(12, 16)")


def test_what_is_no_ome_tiff(tmp_path):
    path = tmp_path / "a.ome.tif"
    _refused(tmp_path / "nothing.ome.tif", "no such file or folder")
    _refused(tmp_path, "no file in it is called *.ome.tif")
    path.write_bytes(b"")
    _refused(path, "cannot be opened as an OME-TIFF")
    path.write_bytes(b"II*\0\x08\0\0\0")
    _refused(path, "no OME-XML in it, so it is a plain TIFF or a truncated one")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 10)
    _refused(path, "cannot be opened as an OME-TIFF")
    tifffile.imwrite(path, np.zeros((4, 4), "u1"), ome=False)
    _refused(path, "no OME-XML in it, so it is a plain TIFF", "a folder of images")
    _refused(tmp_path, "a.ome.tif: there is no OME-XML in it")


_WELL = (
    '<Plate ID="Plate:0"><Well ID="Well:0" Row="{}" Column="{}"><WellSample ID="S:0"><ImageRef ID="Image:0"/>'
    "</WellSample></Well></Plate>"
)


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (_xml(_image_xml("<TiffData/>")).replace("<OME", "<!DOCTYPE OME><OME"), "DOCTYPE"),
        (_xml(_image_xml("<TiffData>")), "its OME-XML is damaged"),
        (_xml(_image_xml("<TiffData/>").replace("SizeX", "Size")), "not valid (KeyError: 'SizeX')"),
        (_xml(_image_xml("<TiffData/>").replace('SizeT="1"', 'SizeT="one"')), "not valid (ValueError"),
        (_xml(_image_xml('<TiffData FirstC="3"/>')), "a TiffData has FirstC 3, expected 0 to 0"),
        (_xml(_image_xml("<TiffData/>", c=2, channels='<Channel ID="Channel:0"/>')), "SizeC is 2, its channels have 1"),
        (_xml(_image_xml('<TiffData IFD="-1"/>')), "IFD of TiffData is -1, expected a whole number from 0"),
        (_xml(_image_xml('<TiffData FirstC="-1"/>', c=2)), "FirstC of TiffData is -1"),
        (_xml(_image_xml('<TiffData FirstZ="-1"/>', z=2)), "FirstZ of TiffData is -1"),
        (_xml(_image_xml('<TiffData FirstT="2"/>', t=2)), "a TiffData has FirstT 2, expected 0 to 1"),
        (_xml(_image_xml('<TiffData PlaneCount="2"/>')), "a TiffData has the PlaneCount 2, where 1 planes are left"),
        (_xml(_image_xml('<TiffData PlaneCount="-1"/>')), "PlaneCount of TiffData is -1"),
        (_xml(_image_xml("<TiffData/>").replace('SizeZ="1"', 'SizeZ="0"')), "SizeZ of Pixels is 0"),
        (_xml(_image_xml("<TiffData/>").replace('SizeT="1"', 'SizeT="-1"')), "SizeT of Pixels is -1"),
        (
            _xml(_image_xml("<TiffData/>", channels='<Channel ID="Channel:0" SamplesPerPixel="-1"/>')),
            "SamplesPerPixel of Channel is -1",
        ),
        (_xml(_image_xml("<TiffData/>") + _WELL.format(-1, 0)), "well '@1'"),
        (_xml(_image_xml("<TiffData/>") + _WELL.format(0, -1)), "well 'A0'"),
        (
            _xml(_image_xml('<TiffData IFD="0"/><TiffData IFD="0" FirstC="1"/>', c=2)),
            "page 0 of a.ome.tif is channel 1, z 0, t 0, and another plane too",
        ),
        (
            _xml(_image_xml('<TiffData IFD="0"/><TiffData IFD="1"/>')),
            "channel 0, z 0, t 0 is page 0 of a.ome.tif and page 1 of a.ome.tif",
        ),
        (_xml(""), "there is no image"),
    ],
)
def test_xml_that_cannot_be_used(tmp_path, xml, words):
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (1, 12, 16)), xml)
    _refused(path, words)


def test_a_plane_travels_and_its_identity_changes_with_the_file(tmp_path):
    data = '<TiffData IFD="0" PlaneCount="2"/>'
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (2, 12, 16)), _xml(_image_xml(data, z=2)))
    field = index_ome_tiff(path).fields[0]
    plane, other = field.planes["c0", 0, 0], field.planes["c0", 1, 0]
    copy = pickle.loads(pickle.dumps(plane))
    assert copy == plane
    np.testing.assert_array_equal(copy.read(), _pixels(0, (2, 12, 16))[0])
    before = plane.identity()
    assert before == copy.identity() != other.identity()
    path.write_bytes(path.read_bytes() + b"x")
    assert plane.identity() != before
    path.unlink()
    with pytest.raises(BadInputError, match="cannot be opened"):
        plane.identity()


def test_pages_that_no_image_has(tmp_path):
    xml = _xml(_image_xml('<TiffData IFD="0" PlaneCount="2"/>', z=2))
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (3, 12, 16)), xml)
    _unreadable(index_ome_tiff(path).fields[0].planes["c0", 0, 0], "has 3 pages, expected 2")
    with tifffile.TiffWriter(path) as tiff:  # a thumbnail behind them, which says that it is one
        for number, page in enumerate(_pixels(0, (2, 12, 16))):
            said = xml.encode() if number == 0 else None
            tiff.write(page, description=said, metadata=None, contiguous=False)
        tiff.write(_pixels(0, (6, 8)), subfiletype=1, metadata=None)
    _is_read_as(index_ome_tiff(path).fields[0], _pixels(0, (1, 1, 2, 12, 16)), ("c0",))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_twelve_samples_in_a_pixel(tmp_path, planar):
    pixels = _pixels(0, (12, 12, 16))
    path = tmp_path / "a.ome.tif"
    stored, axes = (pixels, "SYX") if planar == "separate" else (np.moveaxis(pixels, 0, -1), "YXS")
    tifffile.imwrite(path, stored, ome=True, photometric="minisblack", planarconfig=planar, metadata={"axes": axes})
    index = index_ome_tiff(path)
    assert len(index.channels) == 12
    _is_read_as(index.fields[0], pixels[None, :, None], index.channels)
    fewer = _xml(_image_xml("<TiffData/>", c=3, channels='<Channel ID="Channel:0" SamplesPerPixel="3"/>'))
    _write(path, stored[None], fewer, photometric="minisblack", planarconfig=planar)
    _unreadable(index_ome_tiff(path).fields[0].planes["0", 0, 0], "of 12 samples, where the OME-XML says (12, 16) of 3")


def test_planes_without_end_are_not_believed(tmp_path):
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (1, 12, 16)), _xml(_image_xml("<TiffData/>", z=300_000_000)))
    _refused(path, "announces 1 channels, 300000000 focal planes and 1 time points, 286 GB of memory", "--max-gb=287")
    many = '<Channel ID="Channel:0" SamplesPerPixel="300000000"/>'
    path = _write(tmp_path / "b.ome.tif", _pixels(0, (1, 12, 16)), _xml(_image_xml("<TiffData/>", channels=many)))
    _refused(path, "its channels have more samples than SizeC, 1")


def test_planes_that_are_named_again_and_again(tmp_path):
    again = '<TiffData IFD="0" PlaneCount="1000"/>' * 3
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (1, 12, 16)), _xml(_image_xml(again, z=1000)))
    with using(Limits(2 << 20)):
        _refused(path, "announces 3000 planes in its TiffData elements, 2.93 MB of memory")


def test_two_files_that_refer_to_each_other(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        binary = f'<BinaryOnly MetadataFile="{other}.companion.ome" UUID="urn:uuid:x"/>'
        (tmp_path / f"{name}.companion.ome").write_text(_xml(binary))
    with pytest.raises(BuildError, match=r"b.companion.ome: says that what it holds is said in a.companion.ome, which"):
        index_ome_tiff(tmp_path / "a.companion.ome")


def test_elements_within_each_other(tmp_path):
    path = tmp_path / "a.companion.ome"
    path.write_text(_xml("<a>" * 100_000 + "</a>" * 100_000))
    _refused(path, "there is no image")


def test_entities_that_laugh_are_not_resolved(tmp_path):
    path = tmp_path / "a.companion.ome"
    path.write_text('<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><OME>&b;</OME>')
    _refused(path, "has a DOCTYPE")


def test_a_pipe_is_no_ome_tiff(tmp_path):
    os.mkfifo(tmp_path / "a.ome.tif")
    with pytest.raises(BuildError, match=r"a.ome.tif: "):
        index_ome_tiff(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("axis", ["c", "z", "t"])
def test_an_image_without_pixels(tmp_path, axis):
    path = _write(tmp_path / "a.ome.tif", _pixels(0, (1, 12, 16)), _xml(_image_xml("<TiffData/>", **{axis: 0})))
    _refused(path, f"Size{axis.upper()} of Pixels is 0, expected a whole number from 1")


def test_with_skip_bad_a_file_that_cannot_be_opened_is_listed(tmp_path):
    pixels = _pixels(0, (1, 12, 16))
    (tmp_path / "scans").mkdir()
    good = _write(tmp_path / "scans/a.ome.tif", pixels, _xml(_image_xml("<TiffData/>")))
    (tmp_path / "scans/b.ome.tif").write_bytes(good.read_bytes()[:20])
    _write(tmp_path / "scans/c.ome.tif", pixels, _xml("<Image>"))
    arguments = ["scans", f"--source={tmp_path / 'scans'}", "--layout=ome-tiff", f"--data-dir={tmp_path / 'sets'}"]
    with pytest.raises(BadInputError, match=r"b.ome.tif: cannot be opened as an OME-TIFF"):
        main(arguments)
    main([*arguments, f"--skip-bad={tmp_path / 'bad.csv'}"])
    np.testing.assert_array_equal(open_image_set("scans", str(tmp_path / "sets"))[0][..., 0], pixels[0])
    with open(tmp_path / "bad.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [Path(line["source"]).name for line in listed] == ["b.ome.tif", "c.ome.tif"]
    assert "its OME-XML is damaged" in listed[1]["problem"]

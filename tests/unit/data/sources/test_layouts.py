import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
import tifffile

from data.errors import BadInputError, BuildError
from data.fields.index import PROJECTED, assemble
from data.sources import layouts
from data.sources.layouts import index_layout, index_pattern

REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "hcs_imagexpress_layout"


def _write(path, value):
    """A small big-endian TIFF of 16 bits; the value tells files apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((4, 6), value, np.uint16)
    pixels[1] = 65535
    tifffile.imwrite(path, pixels, byteorder=">")


def _image(field, channels, z=0, t=0):
    return next(assemble(field, channels, z, t))[0]


def _names(index, root):
    """Field, channel, z, t -> the file's path below the root."""
    return {
        (str(field), *key): str(Path(plane.source).relative_to(root))
        for field in index.fields
        for key, plane in field.planes.items()
    }


def _stand_in(root):
    """The names of `shared/data/hcs_imagexpress_layout`, with other GUIDs, and pixels that tell files apart."""
    names = ["NOTE.md"]
    for t in (1, 2):
        for end in (f"s{site}_w{channel}" for site in (1, 2) for channel in (1, 2, 3)):
            names.append(f"1well-3C-2S-Zmix-T/2024-04-22/1697/TimePoint_{t}/1well-3C-2S-Zmix-T_C07_{end}")
    for well, site in (("E07", 1), ("E07", 2), ("E08", 1), ("E08", 2)):
        folder, start = "Projection-Mix/2023-02-21/1334/", f"Projection-Mix_{well}_s{site}_w"
        names += [f"{folder}{start}{channel}{thumb}" for channel in (1, 2, 3) for thumb in ("", "_thumb")]
        names += [f"{folder}ZStep_{z}/{start}{channel}" for z in (1, 2, 3) for channel in (1, 2)]
        names.append(f"{folder}ZStep_1/{start}4")
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        if name.endswith(".md"):
            root.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("about these files")
        else:
            guid = uuid.UUID(bytes=rng.bytes(16), version=4)
            _write(root / f"{name}{str(guid).upper()}.tif", 300 + number)


@pytest.fixture(scope="module", params=["stand-in", "real"])
def imagexpress(request, tmp_path_factory):
    """Two MetaXpress plates: with projections and focal planes, ragged; and with time points."""
    if request.param == "real":
        if not REAL.is_dir():
            pytest.skip(f"{REAL} is not there")
        return REAL
    root = tmp_path_factory.mktemp("imagexpress")
    _stand_in(root)
    return root


def _only(root, pattern):
    (found,) = root.glob(pattern)
    return found


def test_imagexpress_fields_and_planes(imagexpress):
    index = index_layout(imagexpress, "imagexpress")
    assert index.channels == ("w1", "w2", "w3", "w4")
    assert [(field.plate, field.well, field.site) for field in index.fields] == [
        ("1well-3C-2S-Zmix-T", "C07", 1),
        ("1well-3C-2S-Zmix-T", "C07", 2),
        *(("Projection-Mix", well, site) for well in ("E07", "E08") for site in (1, 2)),
    ]
    assert (index.columns, index.pixel_size_um) == ({}, None)
    for field in index.fields[:2]:
        assert set(field.planes) == {(f"w{channel}", 0, t) for channel in (1, 2, 3) for t in (0, 1)}
    for field in index.fields[2:]:
        assert set(field.planes) == {
            *((f"w{channel}", z, 0) for channel in (1, 2) for z in (PROJECTED, 0, 1, 2)),
            ("w3", PROJECTED, 0),
            ("w4", 0, 0),
        }


def test_imagexpress_lists_thumbnails_and_what_channels_lack(imagexpress):
    ignored = index_layout(imagexpress, "imagexpress").ignored
    assert sum(why == "thumbnail" for _, why in ignored) == 12
    assert ("NOTE.md", "no image") in ignored
    place = "plate Projection-Mix, well E07, site 1"
    assert [why for where, why in ignored if where == place] == [
        "channel w3: only the microscope's projection, no z steps",
        "channel w4: 2 planes lacking: z 1, z 2",
    ]
    place = "plate 1well-3C-2S-Zmix-T, well C07, site 2"
    assert [why for where, why in ignored if where == place] == ["channel w4: no image"]
    assert len(ignored) == 12 + 1 + 4 * 2 + 2


def test_imagexpress_pixels(imagexpress):
    fields = {str(field): field for field in index_layout(imagexpress, "imagexpress").fields}
    field = fields["plate Projection-Mix, well E08, site 2"]
    top = "Projection-Mix/2023-02-21/1334"
    name = "Projection-Mix_E08_s2"
    step = [tifffile.imread(_only(imagexpress, f"{top}/ZStep_{z}/{name}_w2*.tif")) for z in (1, 2, 3)]
    np.testing.assert_array_equal(_image(field, ("w2",), z=1)[..., 0], step[1])
    np.testing.assert_array_equal(_image(field, ("w2",), z="max")[..., 0], np.max(step, axis=0))
    # Of w3 there is the microscope's own projection only, which stands for ours.
    own = tifffile.imread(_only(imagexpress, f"{top}/{name}_w3[0-9A-F]*.tif"))
    np.testing.assert_array_equal(_image(field, ("w3", "w2"), z="max"), np.stack([own, np.max(step, axis=0)], axis=-1))
    np.testing.assert_array_equal(_image(field, ("w3",), z=PROJECTED)[..., 0], own)
    with pytest.raises(BadInputError, match=r"its plane is missing; .* well E08, site 2, channel w3\)"):
        _image(field, ("w3",), z=0)
    field = fields["plate 1well-3C-2S-Zmix-T, well C07, site 1"]
    last = "1well-3C-2S-Zmix-T/2024-04-22/1697/TimePoint_2/1well-3C-2S-Zmix-T_C07_s1_w"
    expected = [tifffile.imread(_only(imagexpress, f"{last}{channel}*.tif")) for channel in (3, 1)]
    np.testing.assert_array_equal(_image(field, ("w3", "w1"), t=1), np.stack(expected, axis=-1))
    assert expected[0].dtype == np.uint16


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Plate 7_B02_s2_w3.TIF", ("Plate 7", "B02", 2, "w3", 0, 0)),
        ("Week1_150607_B02_s4_w107447158-AC92-4844-8201-0F90C8F45F91.tif", ("Week1_150607", "B02", 4, "w1", 0, 0)),
        ("P_B02_s4_w1207447158-ac92-4844-8201-0f90c8f45f91.tif", ("P", "B02", 4, "w12", 0, 0)),
        ("P_B02_w2.tif", ("P", "B02", 1, "w2", 0, 0)),
        ("P_B02_s3.tif", ("P", "B02", 3, "w1", 0, 0)),
        ("P_B02.tif", ("P", "B02", 1, "w1", 0, 0)),
        ("P_B02_s1_w1_z3.tif", ("P", "B02", 1, "w1", 2, 0)),
        ("P_B02_z3_w1_t2.tif", ("P", "B02", 1, "w1", 2, 1)),
        ("TimePoint_3/ZStep_2/P_A01_w1.tif", ("P", "A01", 1, "w1", 1, 2)),
        ("ZStep_0/P_A01_w1.tif", ("P", "A01", 1, "w1", PROJECTED, 0)),
        ("run_A01_x_B02_s1.tif", ("run_A01_x", "B02", 1, "w1", 0, 0)),
    ],
)
def test_imagexpress_names_of_other_versions(tmp_path, name, expected):
    _write(tmp_path / name, 5)
    (field,) = index_layout(tmp_path, "imagexpress").fields
    ((channel, z, t),) = field.planes
    assert (field.plate, field.well, field.site, channel, z, t) == expected
    assert _image(field, (channel,), z, t)[0, 0, 0] == 5


def test_channels_are_in_their_natural_order(tmp_path):
    for channel in (10, 2, 1):
        _write(tmp_path / f"P_A01_s1_w{channel}.tif", channel)
    assert index_layout(tmp_path, "imagexpress").channels == ("w1", "w2", "w10")


@pytest.mark.parametrize(
    ("layout", "names", "problem"),
    [
        ("imagexpress", ["P_Q25_s1_w1.tif"], "P_Q25_s1_w1.tif: well 'Q25'"),
        ("imagexpress", ["a/P_A01_w1.tif", "b/P_A01_w1.tif"], r"b/P_A01_w1.tif: .* is .*a/P_A01_w1.tif already"),
        ("imagexpress", ["TimePoint_0/P_A01_w1.tif"], "TimePoint_0/P_A01_w1.tif: time point 0, they count from 1"),
        ("imagexpress", ["x.tif", "y.txt"], r"nothing is named .*there is x.tif \(2 files\)"),
        ("imagexpress", [], "there is no file"),
        ("operetta", ["r33c01f01p01-ch1sk1fk1fl1.tiff"], "well '3301'"),
        ("operetta", ["r00c01f01p01-ch1sk1fk1fl1.tiff"], "well '0001'"),
        ("operetta", ["r01c01f01p00-ch1sk1fk1fl1.tiff"], "plane 0, they count from 1"),
        (
            "operetta",
            ["r01c01f01p01-ch1sk1fk1fl1.tiff", "r01c01f01p01-ch1sk1fk2fl1.tiff"],
            "fk2fl1.tiff: .*fk1fl1.tiff",
        ),
        ("cellvoyager", ["P_A25_T0001F001L01A01Z01C01.tif"], "A25_T0001F001L01A01Z01C01.tif: well 'A25'"),
        ("cellvoyager", ["P_A01_T0001F001L01A01Z00C01.tif"], "focal plane 0"),
        ("cellvoyager", ["MeasurementData.mlf"], r"PLATE_B02_T0001F001L01A01Z01C01.tif; there is MeasurementData.mlf"),
        ("nikon", [], "there is no layout 'nikon'; there are imagexpress, operetta, cellvoyager"),
    ],
)
def test_layouts_that_are_refused(tmp_path, layout, names, problem):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BuildError, match=problem):
        index_layout(tmp_path, layout)


def test_layouts_leave_the_folder_alone(tmp_path):
    root = tmp_path / "plate"
    _write(tmp_path / "elsewhere" / "P_A01_s1_w1.tif", 1)
    _write(root / "P_A02_s1_w1.tif", 2)
    (root / "ZStep_1").symlink_to(tmp_path / "elsewhere")
    index = index_layout(root, "imagexpress")
    assert [field.well for field in index.fields] == ["A02"]
    assert index.ignored[0][0] == "ZStep_1"


def test_plates_of_1536_wells(tmp_path):
    _write(tmp_path / "P_AF48_s1_w1.tif", 2)
    assert index_layout(tmp_path, "imagexpress", wells_per_plate=1536).fields[0].well == "AF48"


def test_operetta_without_an_index(tmp_path):
    _write(tmp_path / "Plate A__2024-Measurement 1" / "Images" / "r02c03f04p01-ch2sk1fk1fl1.tiff", 300)
    _write(tmp_path / "Plate A__2024-Measurement 1" / "Images" / "r02c03f04p02-ch2sk3fk1fl1.tiff", 301)
    _write(tmp_path / "B" / "images" / "r16c24" / "r16c24f01p01-ch01t02.tiff", 302)
    _write(tmp_path / "r16c24f01p01-ch10.tiff", 303)
    _write(tmp_path / "B" / "images" / "flatfield.tiff", 304)
    index = index_layout(tmp_path, "operetta")
    assert index.channels == ("ch1", "ch2", "ch10")
    folder = "Plate A__2024-Measurement 1"
    assert _names(index, tmp_path) == {
        ("plate B, well P24, site 1", "ch1", 0, 1): "B/images/r16c24/r16c24f01p01-ch01t02.tiff",
        (f"plate {folder}, well B03, site 4", "ch2", 0, 0): f"{folder}/Images/r02c03f04p01-ch2sk1fk1fl1.tiff",
        (f"plate {folder}, well B03, site 4", "ch2", 1, 2): f"{folder}/Images/r02c03f04p02-ch2sk3fk1fl1.tiff",
        (f"plate {tmp_path.name}, well P24, site 1", "ch10", 0, 0): "r16c24f01p01-ch10.tiff",
    }
    assert ("B/images/flatfield.tiff", "not named as Harmony does") in index.ignored
    assert index.pixel_size_um is None


HARMONY_5 = "http://www.perkinelmer.com/PEHH/HarmonyV5"
HARMONY_7 = "43B2A954-E3C3-47E1-B392-6635266B0DD3/HarmonyV7"


def _harmony(namespace, plate, images, maps="", head='<?xml version="1.0" encoding="utf-8"?>'):
    """An index; `images` are the elements within each Image."""
    listed = "".join(f'<Image Version="1">{image}</Image>' for image in images)
    xmlns = f' xmlns="{namespace}"' if namespace else ""
    return (
        f"\ufeff{head}<EvaluationInputData{xmlns}><Plates><Plate>{plate}</Plate></Plates>"
        f'<Wells><Well><id>0203</id><Row>2</Row><Col>3</Col><Image id="0203K1F4P1R2" /></Well></Wells>'
        f"<Maps>{maps}</Maps><Images>{listed}</Images></EvaluationInputData>"
    )


def _harmony_image(url, place, more=""):
    tags = ("Row", "Col", "FieldID", "PlaneID", "TimepointID", "ChannelID")
    return f"<URL>{url}</URL>" + "".join(f"<{tag}>{n}</{tag}>" for tag, n in zip(tags, place, strict=True)) + more


def _write_index(folder, text, name="Index.idx.xml"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("namespace", [HARMONY_5, "http://www.perkinelmer.com/PEHH/HarmonyV3", ""])
def test_operetta_index(tmp_path, namespace):
    images = tmp_path / "m" / "Images"
    size = '<ImageResolutionX Unit="m">2.9802322387695312E-07</ImageResolutionX>'
    _write_index(
        images,
        _harmony(
            namespace,
            "<PlateID>17</PlateID><Name>Plate &amp; co</Name>",
            [
                _harmony_image("b.tiff", (2, 3, 4, 1, 0, 2), f"<ChannelName>Alexa 488</ChannelName>{size}"),
                _harmony_image("a.tiff", (2, 3, 4, 2, 1, 1), f"<ChannelName>DAPI</ChannelName>{size}"),
                _harmony_image("deep/c.tiff", (2, 3, 4, 1, 0, 1), f"<ChannelName>DAPI</ChannelName>{size}"),
                _harmony_image("absent.tiff", (16, 24, 9, 1, 0, 1), f"<ChannelName>DAPI</ChannelName>{size}"),
            ],
        ),
    )
    for number, name in enumerate(("a.tiff", "b.tiff", "deep/c.tiff", "unlisted.tiff")):
        _write(images / name, 300 + number)
    index = index_layout(tmp_path, "operetta")
    assert index.channels == ("DAPI", "Alexa 488")
    assert index.pixel_size_um == pytest.approx(0.29802322387695312)
    first, second = index.fields
    assert (str(first), str(second)) == (
        "plate Plate & co, well B03, site 4",
        "plate Plate & co, well P24, site 9",
    )
    assert set(first.planes) == {("DAPI", 0, 0), ("DAPI", 1, 1), ("Alexa 488", 0, 0)}
    assert _image(first, ("Alexa 488", "DAPI"))[0, 0].tolist() == [301, 302]
    assert ("m/Images/unlisted.tiff", "not in the index") in index.ignored
    with pytest.raises(BadInputError, match=r"absent.tiff: cannot be opened.*well P24, site 9, channel DAPI"):
        _image(second, ("DAPI",))


def test_operetta_index_of_newer_versions(tmp_path):
    entry = (
        '<Entry ChannelID="{}"><ChannelName>{}</ChannelName><ImageResolutionX Unit="m">3E-07</ImageResolutionX></Entry>'
    )
    maps = f"<Map>{entry.format(1, 'DAPI')}{entry.format(2, 'Brightfield')}{entry.format(3, 'Brightfield')}</Map>"
    places = [(1, 1, 1, 1, time, channel) for time in (1, 2) for channel in (1, 2, 3, 4)]
    listed = [_harmony_image(f"r01c01/{i}.tiff", place) for i, place in enumerate(places)]
    _write_index(tmp_path, _harmony(HARMONY_7, "<PlateID>MOCK</PlateID>", listed, maps), "Index.xml")
    for i in range(len(places)):
        _write(tmp_path / "r01c01" / f"{i}.tiff", i)
    index = index_layout(tmp_path, "operetta")
    # Names that are not there, or twice, are told apart by their numbers; time begins at 0.
    assert index.channels == ("DAPI", "Brightfield_2", "Brightfield_3", "ch4")
    assert index.pixel_size_um == pytest.approx(0.3)
    assert index.fields[0].plate == "MOCK"
    assert _image(index.fields[0], index.channels, t=0)[0, 0].tolist() == [0, 1, 2, 3]
    assert _image(index.fields[0], index.channels, t=1)[0, 0].tolist() == [4, 5, 6, 7]


def test_operetta_plates_of_other_pixel_sizes(tmp_path):
    for plate, size in (("P1", 3e-7), ("P2", 6e-7)):
        more = f"<ImageResolutionX>{size}</ImageResolutionX>"
        text = _harmony(HARMONY_5, f"<Name>{plate}</Name>", [_harmony_image("a.tiff", (1, 1, 1, 1, 0, 1), more)])
        _write_index(tmp_path / plate, text)
    index = index_layout(tmp_path, "operetta")
    assert [field.plate for field in index.fields] == ["P1", "P2"]
    assert index.pixel_size_um is None
    assert index.ignored[0] == (str(tmp_path), "pixels of 0.3, 0.6 um: no one size")


def _one_image(place=(1, 1, 1, 1, 0, 1), url="a.tiff", more=""):
    return _harmony(HARMONY_5, "<Name>P</Name>", [_harmony_image(url, place, more)])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (_one_image()[:-30], "Index.idx.xml: no whole XML"),
        ("", "Index.idx.xml: no whole XML"),
        (_harmony(HARMONY_5, "<Name>P</Name>", []), "Index.idx.xml: lists no images"),
        (
            _harmony("", "", [], head='<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]>'),
            "Index.idx.xml: has a document type",
        ),
        (_harmony(HARMONY_5, "<Name>P</Name>", ["<id>7</id><URL>a.tiff</URL><Row>1</Row>"]), "no Col, FieldID, .*: 7"),
        (_one_image((33, 1, 1, 1, 0, 1)), "Index.idx.xml: a.tiff: well '331'"),
        (_one_image((1, 1, "x", 1, 0, 1)), "Index.idx.xml: a.tiff: FieldID is 'x'"),
        (_one_image((1, 1, 1, 0, 0, 1)), "Index.idx.xml: a.tiff: PlaneID is 0"),
        (_one_image(url="../a.tiff"), "Index.idx.xml: ../a.tiff: is outside the index's folder"),
        (_one_image(url="/etc/a.tiff"), "is outside the index's folder"),
        (_one_image(url="C:\\images\\a.tiff"), "is outside the index's folder"),
        (_one_image(url="https://example.org/a.tiff"), "is outside the index's folder"),
        (_one_image(more="<ImageResolutionX>wide</ImageResolutionX>"), "ImageResolutionX is 'wide' m"),
        (
            _harmony(HARMONY_5, "<Name>P</Name>", [_harmony_image(f"{i}.tiff", (1, 1, 1, 1, 0, 1)) for i in (1, 2)]),
            "Index.idx.xml: 2.tiff: .* is .*Index.idx.xml: 1.tiff already",
        ),
        (_harmony(HARMONY_5, "", [_harmony_image("a.tiff", (1, 1, 1, 1, 0, 1))]), "a.tiff: the plate has no name"),
        (_harmony(HARMONY_5, "<Name>P</Name></Plate><Plate><Name>Q</Name>", []), "Index.idx.xml: has two plates"),
    ],
)
def test_operetta_indices_that_are_refused(tmp_path, text, problem):
    _write_index(tmp_path, text)
    with pytest.raises(BuildError, match=problem):
        index_layout(tmp_path, "operetta")


def test_cellvoyager(tmp_path):
    plate = "AssayPlate_Greiner_#655090"
    for number, (well, t, z, channel) in enumerate(
        [("C02", 1, 1, 1), ("C02", 1, 2, 1), ("C02", 2, 1, 1), ("C02", 1, 1, 3), ("P24", 1, 1, 1)]
    ):
        name = f"{plate}_{well}_T{t:04d}F007L01A{channel:02d}Z{z:02d}C{channel:02d}.tif"
        _write(tmp_path / plate / name, 300 + number)
    others = {
        "MeasurementData.mlf": "no image",
        "MeasurementDetail.mrf": "no image",
        "DC_sCMOS #1_CAM1.tif": "correction image",
        "SC_BP445-45_40x_M10_CH01.tif": "correction image",
        "overview.png": "not named as CellVoyager does",
    }
    for name in others:
        (tmp_path / plate / name).write_bytes(b"x")
    index = index_layout(tmp_path, "cellvoyager")
    assert index.channels == ("C01", "C03")
    first, second = index.fields
    assert (str(first), str(second)) == (f"plate {plate}, well C02, site 7", f"plate {plate}, well P24, site 7")
    assert set(first.planes) == {("C01", 0, 0), ("C01", 1, 0), ("C01", 0, 1), ("C03", 0, 0)}
    assert _image(first, ("C03", "C01"))[0, 0].tolist() == [303, 300]
    assert _image(first, ("C01",), z="max")[0, 0, 0] == 301
    assert _image(first, ("C01",), t=1)[0, 0, 0] == 302
    assert {file.split("/")[-1]: why for file, why in index.ignored if "/" in file} == others


def test_a_layouts_file_of_several_pages_is_no_single_plane(tmp_path):
    tifffile.imwrite(tmp_path / "P_A01_s1_w1.tif", np.zeros((2, 4, 6), np.uint16), photometric="minisblack")
    with pytest.raises(BadInputError, match=r"holds 2 planes \(2 channels of uint16\), expected 1"):
        _image(index_layout(tmp_path, "imagexpress").fields[0], ("w1",))


def test_pattern(tmp_path):
    for number, (well, channel, z, dose) in enumerate(
        [("b2", "w10", 3, "0.5"), ("b2", "w2", 3, "0.5"), ("b2", "w2", 4, "0.5"), ("C03", "w10", 3, "1")]
    ):
        _write(tmp_path / "P 1" / f"{well}_{dose}uM" / f"f4_{channel}_z{z}.tif", 300 + number)
    _write(tmp_path / "P 1" / "overview.tif", 1)
    # The pattern is of the whole path.
    _write(tmp_path / "P 1" / "C03_1uM" / "f4_w10_z3.tiff", 1)
    pattern = r"(?P<plate>[^/]+)/(?P<well>\w+?)_(?P<Dose>[^/]+)uM/f(?P<site>\d+)_(?P<channel>w\d+)_z(?P<z>\d+)\.tif"
    index = index_pattern(tmp_path, pattern)
    assert index.channels == ("w2", "w10")
    assert index.columns == {"dose": float}
    assert [(str(field), field.metadata) for field in index.fields] == [
        ("plate P 1, well B02, site 4", {"dose": 0.5}),
        ("plate P 1, well C03, site 4", {"dose": 1.0}),
    ]
    assert _image(index.fields[0], ("w10", "w2"), z=3)[0, 0].tolist() == [300, 301]
    assert _image(index.fields[0], ("w2",), z=4)[0, 0, 0] == 302
    assert index.ignored[:2] == (
        ("P 1/C03_1uM/f4_w10_z3.tiff", "does not match the pattern"),
        ("P 1/overview.tif", "does not match the pattern"),
    )


def test_pattern_of_rows_and_columns_and_without_the_rest(tmp_path):
    root = tmp_path / "P9"
    for name, value in (("2-3.tif", 300), ("H-12.tif", 301)):
        _write(root / name, value)
    index = index_pattern(root, r"(?P<row>\w+)-(?P<column>\d+)\.tif")
    assert [str(field) for field in index.fields] == ["plate P9, well B03, site 1", "plate P9, well H12, site 1"]
    assert index.channels == ("0",)
    assert [_image(field, ("0",))[0, 0, 0] for field in index.fields] == [300, 301]


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (r"(?P<well>", "is no regular expression"),
        (r"(?P<site>\d)\.tif", "needs the group .*it has site"),
        (r".*", "it has none"),
        (r"(?P<row>.)(?P<site>.*)", "needs the group"),
        (r"(?P<well>.)(?P<column>.*)", "needs the group"),
        (r"(?P<well>A01)(?P<Dose>_)(?P<dose>x)", "no name twice"),
        (
            r"(?P<well>\w+)\.png",
            r"a whole path.*there is A01_x.tif \(2 files\), of which it matches 'A01_x.' at the start",
        ),
        (r"(?P<well>[^_]+)_.\.tif", r"A01_y.tif: .* is .*A01_x.tif already"),
        (r"(?P<well>[^_]+)_(?P<channel>x)?y?\.tif", "A01_y.tif: the pattern finds no channel in it"),
        (r"(?P<well>[^_]+)_(?P<site>.)\.tif", "A01_[xy].tif: site is '[xy]'"),
        (r"(?P<well>A)01_(?P<channel>.)\.tif", "A01_x.tif: well 'A'"),
    ],
)
def test_patterns_that_are_refused(tmp_path, pattern, problem):
    for name in ("A01_x.tif", "A01_y.tif"):
        _write(tmp_path / name, 1)
    with pytest.raises(BuildError, match=problem):
        index_pattern(tmp_path, pattern)


def test_a_real_tree_by_pattern(imagexpress, tmp_path):
    plate = tmp_path / "tree"
    shutil.copytree(imagexpress / "1well-3C-2S-Zmix-T", plate)
    pattern = r".*/TimePoint_(?P<t>\d+)/(?P<plate>.+)_(?P<well>[A-P]\d\d)_s(?P<site>\d)_(?P<channel>w\d).{36}\.tif"
    by_pattern, by_layout = index_pattern(plate, pattern), index_layout(plate, "imagexpress")
    assert [str(field) for field in by_pattern.fields] == [str(field) for field in by_layout.fields]
    for ours, theirs in zip(by_pattern.fields, by_layout.fields, strict=True):
        for t in (0, 1):
            np.testing.assert_array_equal(_image(ours, ("w1", "w3"), t=t + 1), _image(theirs, ("w1", "w3"), t=t))


@pytest.mark.parametrize(
    ("name", "url", "first"),
    [
        ("Index.idx.xml", "r02c03f04p01-ch1sk{}fk1fl1.tiff", 0),
        ("Index.xml", "r02c03f04p01-ch1sk{}fk1fl1.tiff", 1),
        ("Index.xml", "r02c03f04p01-ch1t{}.tiff", 0),  # the names say more than the version
        ("Index.idx.xml", "{}.tiff", 0),
        ("Index.xml", "{}.tiff", 1),
    ],
)
def test_an_operetta_plate_whose_first_time_point_is_missing(tmp_path, name, url, first):
    """Time points and planes keep their numbers, whether the index says them or the names do."""
    listed = [_harmony_image(url.format(t + 1), (2, 3, 4, 2, t + first, 1)) for t in (1, 3)]
    _write_index(tmp_path, _harmony(HARMONY_5, "<Name>P</Name>", listed), name)
    (field,) = index_layout(tmp_path, "operetta").fields
    assert sorted(field.planes) == [("ch1", 1, 1), ("ch1", 1, 3)]


def test_a_pattern_that_matches_a_part_says_which(tmp_path):
    _write(tmp_path / "plate 1" / "A01_x.tif", 1)
    with pytest.raises(BuildError, match=r"whole path.*of which it matches 'A01_x.tif', and not the 'plate 1/' before"):
        index_pattern(tmp_path, r"(?P<well>[A-Z]\d+)_x\.tif")
    with pytest.raises(BuildError, match=r"it matches 'plate 1/A01_' at the start, and not 'x.tif'"):
        index_pattern(tmp_path, r"(?P<plate>[^/]+)/(?P<well>[A-Z]\d+)_(?P<channel>w\d)\.tif")


def test_a_file_of_an_index_in_the_other_unicode_form(tmp_path):
    _write(tmp_path / "Pla\u0302te.tiff", 7)
    _write_index(tmp_path, _one_image(url="Pl\u00e2te.tiff"))
    assert _image(index_layout(tmp_path, "operetta").fields[0], ("ch1",))[0, 0, 0] == 7


def test_a_pattern_that_finds_no_end(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "PATTERN_SECONDS", 0.2)
    _write(tmp_path / f"B02_{'a' * 40}!.tif", 1)
    pattern = r"(?P<well>B02)_(a+)+\.tif"
    with pytest.raises(BuildError, match=r"the pattern '.*' takes more than 0 s; it may repeat what repeats") as caught:
        index_pattern(tmp_path, pattern)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("(" * 3000 + ")" * 3000, "maximum recursion depth exceeded"),
        ("a{99999999999999999999}", "the repetition number is too large"),
    ],
)
def test_a_pattern_that_cannot_be_compiled(tmp_path, more, problem):
    _write(tmp_path / "B02.tif", 1)
    with pytest.raises(BuildError, match=f"is no regular expression: {problem}"):
        index_pattern(tmp_path, f"(?P<well>B02){more}")


def test_a_pipe_among_the_images_is_a_bad_file(tmp_path):
    _write(tmp_path / "P_B02_s1_w1.tif", 1)
    os.mkfifo(tmp_path / "P_B02_s2_w1.tif")
    index = index_layout(tmp_path, "imagexpress")
    assert _image(index.fields[0], index.channels)[0, 0, 0] == 1
    with pytest.raises(BadInputError, match=r"P_B02_s2_w1.tif: is a pipe, a file is needed"):
        _image(index.fields[1], index.channels)


def test_harmonys_index_may_not_grow_while_it_is_read(tmp_path):
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    (tmp_path / "Index.idx.xml").write_text(f'<!DOCTYPE l [<!ENTITY e0 "ha">{entities}]><E><Name>&e11;</Name></E>')
    with pytest.raises(BuildError, match="has a document type"):
        index_layout(tmp_path, "operetta")

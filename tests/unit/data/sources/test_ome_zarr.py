import json
import os
import pickle
import shutil
import threading
import warnings
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import Blosc
from ome_zarr.format import FormatV04, FormatV05

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BadInputError, BuildError
from data.fields.index import assemble
from data.sources import ome_zarr, zarr_store
from data.sources.ome_zarr import index_ome_zarr
from data.sources.zarr_store import ZarrPlane

pytestmark = pytest.mark.slow

with warnings.catch_warnings():  # ome-zarr 0.18 warns of its own default arguments
    warnings.simplefilter("ignore", DeprecationWarning)
    from ome_zarr.writer import write_image, write_plate_metadata, write_well_metadata

FORMATS = {"0.4": FormatV04(), "0.5": FormatV05()}
WELLS = {"A/1": 2, "B/2": 1}  # and their fields
PLACES = [("P1", "A01", 1), ("P1", "A01", 2), ("P1", "B02", 1)]


class _Handler(SimpleHTTPRequestHandler):
    """Answers as `server.answers` says of what a path ends with: a status, "hang", "cut"; else with the file.

    A part of a file is given where `server.ranges`, else the whole file, as Python's own server does.
    """

    server: "_Server"

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.requested.append(path)
        answer = next((answer for end, answer in self.server.answers.items() if path.endswith(end)), None)
        if answer == "hang":
            self.server.released.wait(10)
        elif answer == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"x" * 100)
        elif answer is not None:
            self.send_error(answer)
        elif "Range" in self.headers and self.server.ranges and Path(self.translate_path(path)).is_file():
            content = Path(self.translate_path(path)).read_bytes()
            start, stop = self.headers["Range"].removeprefix("bytes=").split("-")
            first = int(start) if start else max(0, len(content) - int(stop))
            last = min(int(stop), len(content) - 1) if start and stop else len(content) - 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            self.wfile.write(content[first : last + 1])
        else:
            super().do_GET()

    def log_message(self, format, *args):
        pass


class _Server(ThreadingHTTPServer):
    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=folder))
        self.answers, self.requested, self.ranges, self.released = {}, [], True, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(tmp_path):
    server = _Server(str(tmp_path))
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(zarr_store, "RETRIES", 1)
    zarr_store._open_store.cache_clear()
    zarr_store.open_array.cache_clear()


def _pixels(seed, shape=(2, 2, 2, 24, 32)):
    pixels = ((np.arange(np.prod(shape)) * 37 + 1000 * seed) % 65536).astype(np.uint16).reshape(shape)
    pixels[..., 0, 0], pixels[..., 0, 1] = 300, 65535
    return pixels


def _write_plate(folder, version):
    fmt = FORMATS[version]
    plate = zarr.open_group(folder, mode="w", zarr_format=fmt.zarr_format)
    write_plate_metadata(plate, ["A", "B"], ["1", "2"], list(WELLS), fmt=fmt, name="P1", acquisitions=[{"id": 3}])
    seed = 0
    for path, count in WELLS.items():
        well = plate.require_group(path)
        write_well_metadata(well, [{"path": str(i), "acquisition": 3} for i in range(count)], fmt=fmt)
        for i in range(count):
            _write_image(well.require_group(str(i)), _pixels(seed), version)
            seed += 1


def _write_image(group, pixels, version, axes="tczyx", unit="micrometer", labels=("DNA", "RNA"), scale=0.65, name="i"):
    white = {"color": "FFFFFF", "window": {"start": 0, "end": 1, "min": 0, "max": 1}}
    write_image(
        pixels,
        group,
        fmt=FORMATS[version],
        axes=axes,
        scale_factors=[2],
        scale={axis: scale if axis in "yx" else 1.0 for axis in axes},
        axes_units={axis: unit for axis in "yx"} if unit else None,
        storage_options={"chunks": tuple({"t": 2, "y": 16, "x": 16}.get(axis, 1) for axis in axes)},
        name=name,
        **({"omero": {"channels": [white | {"label": label} for label in labels]}} if labels else {}),
    )


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Version -> a plate that the real library wrote; tests copy it."""
    folders = {version: tmp_path_factory.mktemp("plates") / f"{version}.zarr" for version in FORMATS}
    for version, folder in folders.items():
        _write_plate(folder, version)
    return folders


@pytest.fixture(params=FORMATS)
def version(request):
    return request.param


@pytest.fixture
def plate(plates, version, tmp_path):
    """A copy of the plate, for a test to spoil."""
    return shutil.copytree(plates[version], tmp_path / "plate.zarr")


@pytest.fixture(params=["folder", "http"])
def source(request, plate, server):
    """The same plate, as a folder and behind a server."""
    return str(plate) if request.param == "folder" else f"{server.url}/plate.zarr"


def _edit(group, change):
    """Change the OME metadata of a group."""
    path = group / ".zattrs" if (group / ".zattrs").exists() else group / "zarr.json"
    content = json.loads(path.read_text())
    change(content if path.name == ".zattrs" else content["attributes"]["ome"])
    path.write_text(json.dumps(content))


def _image(folder, pixels, version="0.5", **options):
    """A store of one image."""
    group = zarr.open_group(folder, mode="w", zarr_format=FORMATS[version].zarr_format)
    _write_image(group, pixels, version, **options)
    return folder


def _chunks(array):
    """Every chunk of the first channel, time and focal plane, by its place."""
    start = array / "c" / "0/0/0" if (array / "zarr.json").exists() else array / "0/0/0"
    return {str(path.relative_to(start)): path for path in sorted(start.rglob("*")) if path.is_file()}


def _refused(source, *parts, level=0):
    with pytest.raises(BuildError) as caught:
        index_ome_zarr(str(source), level)
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


def _first(source):
    return index_ome_zarr(str(source), 0).fields[0].planes["DNA", 0, 0]


def test_plate_is_read_exactly(source):
    index = index_ome_zarr(source, 0)
    assert index.channels == ("DNA", "RNA")
    assert index.pixel_size_um == 0.65
    assert index.ignored == ()
    assert [(field.plate, field.well, field.site) for field in index.fields] == PLACES
    for seed, field in enumerate(index.fields):
        expected = _pixels(seed)
        assert field.metadata == {"image_name": "i", "acquisition": "3"}
        assert field.metadata.keys() == index.columns.keys()
        assert len(field.planes) == 8
        for (channel, z, t), plane in field.planes.items():
            pixels = plane.read()
            assert pixels.dtype == np.uint16
            np.testing.assert_array_equal(pixels, expected[t, ("DNA", "RNA").index(channel), z])
        each = list(assemble(field, ("RNA", "DNA"), "each", "each"))
        assert [kept for _, kept in each] == [{"t": t, "z": z} for t in (0, 1) for z in (0, 1)]
        np.testing.assert_array_equal(each[2][0], np.moveaxis(expected[1, ::-1, 0], 0, -1))
        image, _ = next(assemble(field, ("RNA",), "max", 1))
        np.testing.assert_array_equal(image[..., 0], expected[1, 1].max(axis=0))


def test_indexing_asks_for_metadata_only_and_an_array_is_opened_once(plate, server):
    index = index_ome_zarr(f"{server.url}/plate.zarr", 0)
    assert {path.rpartition("/")[2] for path in server.requested} <= {"zarr.json", ".zattrs", ".zarray"}
    server.requested.clear()
    for plane in index.fields[0].planes.values():
        plane.read()
    assert len([path for path in server.requested if path.endswith("s0/zarr.json")]) == 1


def test_a_level_of_the_pyramid(source, plate):
    index = index_ome_zarr(source, 1)
    assert index.pixel_size_um == 1.3
    expected = zarr.open_array(plate / "B/2/0/s1", mode="r")
    assert expected.shape == (2, 2, 2, 12, 16)
    np.testing.assert_array_equal(index.fields[2].planes["RNA", 1, 0].read(), expected[0, 1, 1])


@pytest.mark.parametrize("level", [2, -1])
def test_a_level_that_is_not_there(source, level):
    _refused(
        source, "A/1/0", f"no level {level}; there are 2: 0 (2 x 2 x 2 x 24 x 32), 1 (2 x 2 x 2 x 12 x 16)", level=level
    )


@pytest.mark.parametrize("axes", ["yx", "zyx", "cyx", "tyx", "tzyx"])
def test_single_images_with_any_axes(tmp_path, version, axes):
    pixels = _pixels(0, (3,) * (len(axes) - 2) + (24, 32)).astype(np.float32) / 7
    folder = _image(tmp_path / "cells.ome.zarr", pixels, version, axes=axes, labels=None)
    index = index_ome_zarr(f"{folder}/", 0)
    (field,) = index.fields
    assert (field.plate, field.well, field.site) == ("cells", "", 1)
    assert index.channels == (("0", "1", "2") if "c" in axes else ("0",))
    sizes = [3 if axis in axes else 1 for axis in "tcz"]
    assert len(field.planes) == np.prod(sizes)
    for (channel, z, t), plane in field.planes.items():
        read = plane.read()
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, pixels.reshape(*sizes, 24, 32)[t, int(channel), z])
    image, _ = next(assemble(field, index.channels, "max", "max"))
    expected = pixels if "c" in axes else pixels.reshape(-1, 1, 24, 32).max(axis=0)
    np.testing.assert_array_equal(image, np.moveaxis(expected.reshape(-1, 24, 32), 0, -1))


@pytest.mark.parametrize(
    ("labels", "channels"),
    [(("DNA", "DNA"), ("DNA", "DNA (1)")), (("", "1 (1)"), ("0", "1 (1)")), (("DNA",), ("0", "1"))],
)
def test_channels_without_names_of_their_own(tmp_path, labels, channels):
    folder = _image(tmp_path / "i.zarr", _pixels(0), labels=labels)
    index = index_ome_zarr(str(folder), 0)
    assert index.channels == channels
    np.testing.assert_array_equal(index.fields[0].planes[channels[1], 0, 0].read(), _pixels(0)[0, 1, 0])


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("nanometer", 0.00065), ("millimeter", 650.0), ("micrometer", 0.65), (None, None), ("inch", None)],
)
def test_pixel_size_in_micrometers(tmp_path, unit, expected):
    index = index_ome_zarr(str(_image(tmp_path / "i.zarr", _pixels(0), unit=unit)), 0)
    assert index.pixel_size_um == (None if expected is None else pytest.approx(expected))
    assert index.ignored == ()


def test_the_scale_of_all_levels_counts_too(tmp_path, version):
    folder = _image(tmp_path / "i.zarr", _pixels(0), version)
    scale = {"type": "scale", "scale": [1, 1, 1, 2.0, 2.0]}
    _edit(folder, lambda ome: ome["multiscales"][0].update(coordinateTransformations=[scale]))
    assert index_ome_zarr(str(folder), 1).pixel_size_um == 2.6


def test_pixel_sizes_that_differ_are_none(plate):
    def wider(ome):
        ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"][-1] = 0.5

    _edit(plate / "A/1/1", wider)
    index = index_ome_zarr(str(plate), 0)
    assert index.pixel_size_um is None
    assert index.ignored == ((str(plate), "the pixel size, as it is not one: ['0.5', '0.65'] um"),)


def test_what_is_listed_and_not_there_is_told(source, plate, version):
    shutil.rmtree(plate / "B/2")
    shutil.rmtree(plate / "A/1/0")
    index = index_ome_zarr(source, 0)
    assert [(field.well, field.site) for field in index.fields] == [("A01", 2)]
    assert index.ignored == (
        (f"{source}/B/2", "a well that the plate lists and that is not there"),
        (f"{source}/A/1/0", "an image that is listed and not there"),
    )
    shutil.rmtree(plate / "A/1/1/s0")
    _refused(source, "there is no image; ")


def test_a_set_by_the_command(source, plate, version, tmp_path, capsys):
    """A folder, or behind a server; a field of another size stops it, or is left out and listed."""
    for path, pixels in (("A/1/0", _pixels(0)), ("B/2/0", _pixels(2, (2, 2, 1, 20, 32)))):
        group = zarr.open_group(plate / path, mode="w", zarr_format=FORMATS[version].zarr_format)
        _write_image(group, pixels, version)
    command = [
        "mine",
        f"--source={source}",
        "--channels=RNA",
        "--t=1",
        f"--data-dir={tmp_path / 'sets'}",
        "--workers=1",
    ]
    sizes = rf"of 2 sizes: 24 x 32 \(2 fields, e.g. {source}/A/1/0/s0\), 20 x 32 \(1 field, e.g. {source}/B/2/0/s0\)"
    with pytest.raises(BuildError, match=sizes):
        main(command)
    capsys.readouterr()
    main([*command, f"--skip-bad={tmp_path / 'bad.csv'}"])
    said = capsys.readouterr().out
    read = open_image_set("mine", str(tmp_path / "sets"))
    assert (read.channel_names, read.pixel_size_um) == (("RNA",), 0.65)
    assert read.metadata[["plate", "well", "site", "image_name"]].to_numpy().tolist() == [
        ["P1", "A01", 1, "i"],
        ["P1", "A01", 2, "i"],
    ]
    for row in range(2):
        np.testing.assert_array_equal(read[row][..., 0], _pixels(row)[1, 1].max(axis=0))
    assert f"skipped: 1, e.g. {source}/B/2/0/s0: plate P1, well B02, site 1: the image is (20, 32, 1) uint16" in said
    if "://" in source:
        assert "  read from a server, how many bytes is not known; " in said
    else:
        chunks = [path for site in "01" for path in (plate / "A/1" / site / "s0").rglob("*") if path.is_file()]
        chunks += [path for path in (plate / "B/2/0/s0").rglob("*") if path.is_file()]
        assert f"  {sum(path.stat().st_size for path in chunks if _channel(path) == '1'):,} bytes read; " in said


def _channel(chunk):
    """Number of the channel in the path of a chunk, of chunks by (t, c, z, y, x)."""
    return chunk.parts[-4] if chunk.parts[-1].isdecimal() else ""


def test_a_field_of_another_size_stays(plate, version):
    group = zarr.open_group(plate / "A/1/0", mode="w", zarr_format=FORMATS[version].zarr_format)
    _write_image(group, _pixels(0, (1, 2, 1, 20, 32)), version)
    group = zarr.open_group(plate / "A/1/1", mode="w", zarr_format=FORMATS[version].zarr_format)
    _write_image(group, _pixels(0, (1, 2, 5, 24, 32)), version)
    index = index_ome_zarr(str(plate), 0)
    assert [(field.well, field.site, len(field.planes), field.size) for field in index.fields] == [
        ("A01", 1, 2, (20, 32)),
        ("A01", 2, 10, (24, 32)),
        ("B02", 1, 8, (24, 32)),
    ]
    assert index.ignored == ()


@pytest.mark.parametrize("series", [True, False])
def test_a_collection(tmp_path, server, version, series):
    fmt = FORMATS[version].zarr_format
    ome = {"bioformats2raw.layout": 3}
    root = zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=fmt)
    root.attrs.update(ome if fmt == 2 else {"ome": ome})
    for i in range(3):
        _write_image(root.require_group(str(i)), _pixels(i), version, name=f"image {i}")
    if series:
        names = {"series": ["2", "0"]}
        root.require_group("OME").attrs.update(names if fmt == 2 else {"ome": names})
    for source in (str(tmp_path / "c.zarr"), f"{server.url}/c.zarr"):
        index = index_ome_zarr(source, 0)
        order = [0, 2] if series else [0, 1, 2]
        assert [(field.plate, field.well, field.site) for field in index.fields] == [("c", "", i + 1) for i in order]
        for i, field in zip(order, index.fields, strict=True):
            assert field.metadata["image_name"] == f"image {i}"
            np.testing.assert_array_equal(field.planes["RNA", 1, 1].read(), _pixels(i)[1, 1, 1])


def test_a_folder_of_stores(tmp_path, plates):
    folder = tmp_path / "screen"
    for i, version in enumerate(FORMATS):
        shutil.copytree(plates[version], folder / f"{i}.zarr")
        _edit(folder / f"{i}.zarr", lambda ome: ome["plate"].pop("name"))
        _image(folder / f"x{i}.zarr", _pixels(i), version)
    index = index_ome_zarr(str(folder), 0)
    expected = [(plate, well, site) for plate in "01" for _, well, site in PLACES]
    assert [(field.plate, field.well, field.site) for field in index.fields] == [
        *expected,
        ("screen", "", 1),
        ("screen", "", 2),
    ]
    np.testing.assert_array_equal(index.fields[-1].planes["DNA", 0, 0].read(), _pixels(1)[0, 0, 0])


def test_what_is_no_ome_zarr(tmp_path, plate, server):
    _refused(tmp_path / "nothing", "no such folder")
    _refused("ftp://host/plate.zarr", "http://, https:// and s3:// are read")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    _refused(tmp_path / "photos", "it holds a.jpg", "give a plate, an image with multiscales")
    _refused(plate / "A/1", "'well']", "give a plate, an image with multiscales")
    _refused(f"{server.url}/photos", "there is neither zarr.json nor .zattrs", "give a plate")
    zarr.create_array(tmp_path / "bare", shape=(4, 4), dtype="u1", zarr_format=3)
    _refused(tmp_path / "bare", "the attributes in its zarr.json are none of OME")
    (tmp_path / "photos" / ".zattrs").write_text('{"plate"')
    _refused(tmp_path / "photos", "photos/.zattrs: no JSON")
    (tmp_path / "photos" / ".zattrs").write_text("[]")
    _refused(tmp_path / "photos", "photos/.zattrs: no JSON")


def test_metadata_of_another_kind(plate):
    _edit(plate / "A/1/0", lambda ome: ome["multiscales"][0].update(axes=list("tczyx")))
    _refused(plate, "A/1/0: its metadata are not those of OME-Zarr 0.4 or 0.5")
    for axes in ("xyzct", "tzcyx", "tcsyx", "tcz"):
        _edit(plate / "A/1/0", lambda ome: ome["multiscales"][0].update(axes=[{"name": name} for name in axes]))  # noqa: B023
        _refused(plate, f"A/1/0: its axes are {list(axes)}")
    _edit(plate / "A/1/0", lambda ome: ome["multiscales"][0].update(axes=[{"name": name} for name in "czyx"]))
    _refused(plate, "A/1/0: an array of (2, 2, 2, 24, 32) for the axes ['c', 'z', 'y', 'x']")
    _edit(plate / "A/1", lambda ome: ome.pop("well"))
    _refused(plate, "A/1: its metadata are not those of OME-Zarr 0.4 or 0.5 (KeyError: 'well')")
    _edit(plate, lambda ome: ome["plate"].pop("wells"))
    _refused(plate, "KeyError: 'wells'")


def test_wells_of_another_plate_and_wells_twice(plate):
    _edit(plate, lambda ome: ome["plate"]["wells"].append({"path": "A/1"}))
    _refused(plate, "plate P1, well A01, site 1", "give them to two builds")
    _edit(plate, lambda ome: ome["plate"]["wells"].append({"path": "C/1"}))
    with pytest.raises(BuildError, match="C/1: well 'C1': a plate of 6 wells"):
        index_ome_zarr(str(plate), 0, 6)


FAILURES = {
    500: "the server answered 500 Internal Server Error; check the address",
    403: "the server answered 403 Forbidden; check the address and your rights",
    "hang": "the server did not answer within 1 s, asked 2 times",
    "cut": "request or response body error",
}


@pytest.mark.parametrize(
    ("path", "answer"),
    [*(("", answer) for answer in FAILURES), ("A/1/", 500), ("A/1/1/", 403), *(("A/1/1/s0/", a) for a in FAILURES)],
)
def test_a_server_that_fails_while_it_is_indexed(plates, tmp_path, server, monkeypatch, path, answer):
    version = "0.4" if path in ("", "A/1/1/s0/") else "0.5"
    shutil.copytree(plates[version], tmp_path / "plate.zarr")
    file = "zarr.json" if version == "0.5" else ".zarray" if path.endswith("s0/") else ".zattrs"
    if answer == "hang":
        monkeypatch.setattr(zarr_store, "TIMEOUT_S", 1)
    server.answers[f"plate.zarr/{path}{file}"] = answer
    _refused(
        f"{server.url}/plate.zarr", f"{path}{file}: {FAILURES[answer] if answer != 'cut' else ''}", FAILURES[answer]
    )
    assert server.requested.count(f"/plate.zarr/{path}{file}") == (2 if answer in (500, "hang") else 1)


def test_a_server_that_recovers(plate, server):
    class Once(dict):
        def items(self):
            return [(key, self.pop(key)) for key in list(self)]

    server.answers = Once({"zarr.json": 503})
    assert len(index_ome_zarr(f"{server.url}/plate.zarr", 0).fields) == 3


def test_nobody_answers(plate, server):
    url = f"{server.url}/plate.zarr"
    plane = _first(url)
    server.shutdown()
    server.server_close()
    _refused(url, "no connection: the address is wrong, or nobody answers there")
    _unreadable(plane, "no connection")


def test_a_bucket_that_says_forbidden_of_what_is_not_there(plates, tmp_path, server):
    shutil.copytree(plates["0.4"], tmp_path / "plate.zarr")
    url = f"{server.url}/plate.zarr"
    server.answers["plate.zarr/zarr.json"] = 403
    assert len(index_ome_zarr(url, 0).fields) == 3
    server.answers["plate.zarr/.zattrs"] = 403
    _refused(url, "403 Forbidden")


def test_a_bucket(plate, server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    (plate.parent / "bucket" / "of").mkdir(parents=True)
    plate.rename(plate.parent / "bucket" / "of" / "plate.zarr")
    index = index_ome_zarr("s3://bucket/of/plate.zarr", 0)
    np.testing.assert_array_equal(index.fields[1].planes["RNA", 0, 1].read(), _pixels(1)[1, 1, 0])
    assert server.requested[0] == "/bucket/of/plate.zarr/zarr.json"


@pytest.mark.parametrize("answer", FAILURES)
def test_a_chunk_that_a_server_fails_to_give_is_an_error(plate, server, monkeypatch, version, answer):
    if answer == "hang":
        monkeypatch.setattr(zarr_store, "TIMEOUT_S", 1)
    plane = _first(f"{server.url}/plate.zarr")
    key = {"0.4": "s0/0/0/0/1/1", "0.5": "s0/c/0/0/0/1/1"}[version]
    server.answers[f"A/1/0/{key}"] = answer
    _unreadable(plane, f"its pixels cannot be read: {FAILURES[answer] if answer != 'cut' else ''}", FAILURES[answer])
    server.answers.clear()
    np.testing.assert_array_equal(plane.read(), _pixels(0)[0, 0, 0])


def test_an_array_that_a_server_fails_to_give_is_an_error(plate, server):
    plane = _first(f"{server.url}/plate.zarr")
    for file in ("s0/zarr.json", "s0/.zarray"):
        server.answers[file] = 500
    _unreadable(plane, "the array cannot be opened: the server answered 500")


def test_some_absent_chunks_are_filled_and_all_absent_are_an_error(source, plate):
    plane = _first(source)
    chunks = _chunks(plate / "A/1/0/s0")
    assert list(chunks) == ["0/0", "0/1", "1/0", "1/1"]
    expected = _pixels(0)[0, 0, 0].copy()
    for place in ("0/0", "0/1", "1/0"):
        chunks[place].unlink()
        y, x = (16 * int(i) for i in place.split("/"))
        expected[y : y + 16, x : x + 16] = 0
        np.testing.assert_array_equal(plane.read(), expected)
    chunks["1/1"].unlink()
    _unreadable(plane, "its pixels are absent: no chunk of its plane (0, 0, 0) is there")
    field = index_ome_zarr(source, 0).fields[0]
    with pytest.raises(BadInputError, match=r"absent.*plate P1, well A01, site 1, channel DNA"):
        next(assemble(field, ("DNA",), "max", "max"))


@pytest.mark.parametrize("fill_value", [0, 1, 7])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plane_of_one_value_is_no_absent_one(tmp_path, zarr_format, fill_value):
    options = {"shape": (2, 8, 8), "chunks": (1, 4, 8), "dtype": "u2", "fill_value": fill_value}
    array = zarr.create_array(tmp_path / "a", zarr_format=zarr_format, config={"write_empty_chunks": True}, **options)
    array[0, :4] = fill_value
    np.testing.assert_array_equal(ZarrPlane(str(tmp_path), "a", (0,)).read(), np.full((8, 8), fill_value))
    _unreadable(ZarrPlane(str(tmp_path), "a", (1,)), "absent")


def test_a_plane_that_its_shard_lacks_is_absent(tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=(3, 8, 8), chunks=(1, 4, 4), shards=(3, 8, 8), dtype="u2")
    array[0] = np.arange(64).reshape(8, 8)
    array[2, :4, :4] = 5
    np.testing.assert_array_equal(ZarrPlane(str(tmp_path), "a", (0,)).read(), np.arange(64).reshape(8, 8))
    assert ZarrPlane(str(tmp_path), "a", (2,)).read().sum() == 16 * 5
    _unreadable(ZarrPlane(str(tmp_path), "a", (1,)), "absent")


def test_a_store_that_is_written_anew(tmp_path):
    for version, seed in (("0.4", 1), ("0.5", 2)):
        shutil.rmtree(tmp_path / "i.zarr", ignore_errors=True)
        plane = _first(_image(tmp_path / "i.zarr", _pixels(seed), version))
        np.testing.assert_array_equal(plane.read(), _pixels(seed)[0, 0, 0])


def test_shards_of_a_server(tmp_path, server):
    pixels = _pixels(0, (3, 64, 64))
    shards = {"chunks": (1, 32, 32), "shards": (3, 64, 64)}
    zarr.create_array(tmp_path / "a", data=pixels, **shards)
    plane = ZarrPlane(server.url, "a", (1,))
    np.testing.assert_array_equal(plane.read(), pixels[1])
    assert server.requested.count("/a/c/0/0/0") == 5  # the index and four chunks, not the planes beside
    content = (tmp_path / "a/c/0/0/0").read_bytes()
    for length in (0, 1000, len(content) - 100):
        (tmp_path / "a/c/0/0/0").write_bytes(content[:length])
        _unreadable(plane, "its pixels cannot be read")
    (tmp_path / "a/c/0/0/0").write_bytes(content)
    server.ranges = False
    _unreadable(plane, "its pixels cannot be read")


CODECS = {
    "nothing, v2": {"compressors": None, "zarr_format": 2},
    "blosc, v2": {"compressors": Blosc("lz4"), "zarr_format": 2},
    "nothing": {"compressors": None},
    "blosc": {"compressors": zarr.codecs.BloscCodec(cname="lz4")},
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "zstd": {"compressors": zarr.codecs.ZstdCodec()},
    "blosc in shards": {"compressors": zarr.codecs.BloscCodec(), "shards": (64, 64), "chunks": (32, 32)},
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_truncated_or_damaged_chunk(tmp_path, codec):
    # Noise: Blosc stores it as it is, and does not notice where it ends.
    pixels = np.random.default_rng(0).integers(0, 65536, (64, 64), np.uint16)
    array = zarr.create_array(
        tmp_path / "a", **({"shape": (64, 64), "chunks": (64, 64), "dtype": "u2"} | CODECS[codec])
    )
    array[:] = pixels
    plane = ZarrPlane(str(tmp_path), "a", ())
    np.testing.assert_array_equal(plane.read(), pixels)
    (chunk,) = (path for path in (tmp_path / "a").rglob("*") if path.is_file() and path.name[0] not in ".z")
    content = chunk.read_bytes()
    for length in (0, 10, 17, 1000, len(content) // 2, len(content) - 1):
        chunk.write_bytes(content[:length])
        _unreadable(plane, "its pixels cannot be read")
    if "blosc" in codec:  # the length of its content is below zero
        chunk.write_bytes(content[:7] + b"\xff" + content[8:])
        _unreadable(plane, "its pixels cannot be read")
    chunk.write_bytes(b"not found\n" * 100)
    _unreadable(plane, "its pixels cannot be read")


def test_a_truncated_shard_whose_index_comes_first(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (2, 64, 64), np.uint16)
    codecs = (zarr.codecs.BytesCodec(), zarr.codecs.BloscCodec())
    sharding = zarr.codecs.ShardingCodec(chunk_shape=(1, 32, 32), codecs=codecs, index_location="start")
    zarr.create_array(tmp_path / "a", data=pixels, chunks=pixels.shape, serializer=sharding, compressors=None)
    plane = ZarrPlane(str(tmp_path), "a", (1,))
    np.testing.assert_array_equal(plane.read(), pixels[1])
    shard = tmp_path / "a/c/0/0/0"
    content = shard.read_bytes()
    for length in (100, len(content) - 1000, len(content) - 1):
        shard.write_bytes(content[:length])
        _unreadable(plane, "is truncated to")


def test_an_array_that_goes_away_or_is_damaged(plate):
    plane = _first(plate)
    folder = plate / "A/1/0/s0"
    metadata = next(path for path in (folder / "zarr.json", folder / ".zarray") if path.exists())
    metadata.write_text("{")
    _unreadable(plane, "the array cannot be opened")
    metadata.unlink()
    _unreadable(plane, "the array cannot be opened")
    with pytest.raises(BadInputError, match="cannot be opened"):
        plane.identity()


def test_identity_changes_with_the_chunks_of_the_plane(plate):
    field = index_ome_zarr(str(plate), 0).fields[0]
    plane, other = field.planes["DNA", 0, 0], field.planes["DNA", 1, 0]
    chunk = _chunks(plate / "A/1/0/s0")["1/1"]
    before, others = plane.identity(), other.identity()
    assert before == plane.identity() != others
    chunk.write_bytes(chunk.read_bytes() + b"x")
    changed = plane.identity()
    chunk.unlink()
    assert len({before, changed, plane.identity()}) == 3
    assert other.identity() == others


def test_a_plane_travels_and_names_its_url(plate, server):
    url = f"{server.url}/plate.zarr"
    plane = _first(url)
    plane.read()
    copy = pickle.loads(pickle.dumps(plane))
    assert copy == plane
    assert len(pickle.dumps(plane)) < 300
    assert copy.identity() == plane.identity()
    assert plane.source == f"{url}/A/1/0/s0"
    assert plane.source in plane.identity()
    np.testing.assert_array_equal(copy.read(), _pixels(0)[0, 0, 0])


@pytest.mark.parametrize(("name", "within"), [("P.zarr.zip", ""), ("P.ozx", ""), ("any.zip", "P.zarr/")])
def test_a_zipped_store(tmp_path, name, within):
    _image(tmp_path / "P.zarr", _pixels(3))
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for path in sorted((tmp_path / "P.zarr").rglob("*")):
            if path.is_file():
                archive.write(path, within + path.relative_to(tmp_path / "P.zarr").as_posix())
    command = ["mine", f"--source={tmp_path / name}", "--z=0", "--t=1", f"--data-dir={tmp_path / 'sets'}"]
    main([*command, "--workers=1"])
    read = open_image_set("mine", str(tmp_path / "sets"))
    np.testing.assert_array_equal(read[0], np.moveaxis(_pixels(3)[1, :, 0], 0, -1))
    assert read.metadata["plate"].tolist() == ["P"]


def test_a_zipped_store_that_would_leave_its_folder_and_one_that_is_none(tmp_path):
    for name, member in (("a.zarr.zip", "../zarr.json"), ("b.zip", "x.txt"), ("c.ozx", "x.txt")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, "{}")
    for name, problem in (
        ("a.zarr.zip", "would leave the folder"),
        ("b.zip", "say how it is organized"),
        ("c.ozx", "there is no OME-Zarr in it"),
    ):
        with pytest.raises(BuildError, match=problem):
            main(["mine", f"--source={tmp_path / name}", f"--data-dir={tmp_path / 'sets'}"])


def test_numbers_of_fields_and_images_stay_where_the_first_is_missing(plate, version, tmp_path):
    """A well that lists fields 1 and 2, and a collection without its images 0 and 2."""
    fmt = FORMATS[version].zarr_format
    _edit(plate / "A/1", lambda ome: ome["well"].update(images=[{"path": "1"}]))
    sites = [(field.well, field.site) for field in index_ome_zarr(str(plate), 0).fields]
    assert sites == [("A01", 2), ("B02", 1)]
    root = zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=fmt)
    ome = {"bioformats2raw.layout": 3}
    root.attrs.update(ome if fmt == 2 else {"ome": ome})
    for i in (1, 3):
        _write_image(root.require_group(str(i)), _pixels(i), version)
    index = index_ome_zarr(str(tmp_path / "c.zarr"), 0)
    assert [field.site for field in index.fields] == [2, 4]
    assert index.ignored == tuple(
        (f"{tmp_path / 'c.zarr'}/{i}", "an image that is listed and not there") for i in (0, 2)
    )


def test_label_images_beside_images_are_left_out(tmp_path):
    for name in ("a", "b"):
        _image(tmp_path / "s" / f"{name}.zarr", _pixels(0))
    group = zarr.open_group(tmp_path / "s" / "b.zarr", mode="r+")
    group.attrs.update({"ome": {**group.attrs["ome"], "image-label": {}}})
    index = index_ome_zarr(str(tmp_path / "s"), 0)
    assert len(index.fields) == 1
    assert index.ignored == ((f"{tmp_path / 's' / 'b.zarr'}", "left out: it numbers objects"),)


def _sparse(folder, shape, chunks, axes):
    """An image of which no chunk is written."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1] * len(shape)}]}
    multiscale = {"axes": [{"name": name, "type": "space"} for name in axes], "datasets": [dataset]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    group.create_array("0", shape=shape, chunks=chunks, dtype=np.uint8)
    return str(folder)


def _plane(source):
    return index_ome_zarr(source, 0).fields[0].planes["0", 0, 0]


def test_what_is_announced_is_not_believed(tmp_path):
    times = _sparse(tmp_path / "t.zarr", (100_000_000, 8, 8), (1, 8, 8), "tyx")
    _refused(times, "announces 100000000 time points, 1 channels and 1 focal planes, 95.4 GB of memory")
    chunks = _plane(_sparse(tmp_path / "c.zarr", (10_000, 10_000), (1, 1), "yx"))
    _unreadable(chunks, "announces a plane of 100000000 chunks, 95.4 GB of memory")
    with pytest.raises(BadInputError, match="announces a plane of 100000000 chunks"):
        chunks.identity()
    pixels = _plane(_sparse(tmp_path / "p.zarr", (1_000_000, 1_000_000), (100_000, 100_000), "yx"))
    _unreadable(pixels, "announces a plane of 1000000 x 1000000 pixels of uint8, 931 GB of memory")


def test_brackets_within_each_other(tmp_path):
    store = _sparse(tmp_path / "a.zarr", (8, 8), (8, 8), "yx")
    (tmp_path / "a.zarr/zarr.json").write_text('{"attributes": ' + "[" * 100_000 + "]" * 100_000 + "}")
    _refused(store, "zarr.json: no JSON")


def test_metadata_without_end(tmp_path, server, monkeypatch):
    monkeypatch.setattr(zarr_store, "METADATA_BYTES", 100)
    store = _sparse(tmp_path / "a.zarr", (8, 8), (8, 8), "yx")
    for source in (store, f"{server.url}/a.zarr"):
        _refused(source, "zarr.json: has ", " bytes; what says what is in a store has 100 bytes at most")


def test_a_chunk_that_is_longer_than_it_can_be(tmp_path, server, monkeypatch):
    monkeypatch.setattr(zarr_store, "METADATA_BYTES", 2000)
    zarr_store.open_array.cache_clear()
    store = _sparse(tmp_path / "a.zarr", (8, 8), (8, 8), "yx")
    zarr.open_array(f"{store}/0", mode="r+")[:] = 7
    chunk = tmp_path / "a.zarr/0/c/0/0"
    chunk.write_bytes(chunk.read_bytes() + bytes(3000))
    _unreadable(_plane(f"{server.url}/a.zarr"), "c/0/0 has 2.9", "kB at most")


def test_a_pipe_is_no_chunk_and_no_metadata(tmp_path):
    store = _sparse(tmp_path / "a.zarr", (8, 8), (8, 8), "yx")
    plane = _plane(store)
    (tmp_path / "a.zarr/0/c/0").mkdir(parents=True)
    os.mkfifo(tmp_path / "a.zarr/0/c/0/0")
    with pytest.raises(BadInputError, match=r"a.zarr/0/c/0/0: is a pipe, a file is needed"):
        plane.read()
    (tmp_path / "a.zarr/zarr.json").unlink()
    os.mkfifo(tmp_path / "a.zarr/zarr.json")
    _refused(store, "zarr.json: is a pipe, a file is needed")


def test_a_folder_that_lies_in_itself(tmp_path):
    (tmp_path / ".zattrs").write_text("{}")
    (tmp_path / "a").symlink_to(tmp_path)
    _refused(str(tmp_path), "a: is a link to a folder that it lies in; remove it")


def test_a_server_that_has_everything(tmp_path, server, monkeypatch):
    """A collection whose images are 0, 1, ... up to the first that is not there, and each is."""
    monkeypatch.setattr(ome_zarr, "PLANE_BYTES", 64 << 20)
    for folder in (tmp_path / "a.zarr", *(tmp_path / f"a.zarr/{number}" for number in range(9))):
        folder.mkdir()
        (folder / "zarr.json").write_text('{"attributes": {"ome": {"bioformats2raw.layout": 3}}}')
    _refused(f"{server.url}/a.zarr", "announces more than 5 images")


def test_an_array_without_pixels(tmp_path):
    store = _sparse(tmp_path / "a.zarr", (0, 8, 8), (1, 8, 8), "tyx")
    _refused(store, "an array of (0, 8, 8), which has no pixels")

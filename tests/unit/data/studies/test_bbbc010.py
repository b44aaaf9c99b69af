import functools
import hashlib
import http.server
import shutil
import threading
import uuid
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from bie_jax.input.image_set import open_image_set
from data.errors import BuildError
from data.fields.crops import AroundPoints, Whole
from data.fields.field_set import build_fields
from data.fields.maker import FieldMaker
from data.sources.download import bring
from data.studies.bbbc010 import index as bbbc010
from data.studies.bbbc010.index import CHANNELS, LABEL, WORM_COLUMNS, fetch_bbbc010, index_bbbc010

PLATE = "1649_1109_0003_Amp5-1_B_20070424"
WELLS = ("A01", "A12", "A13", "D24", "E04")
SIZE = (52, 70)


def _pixels(well, channel):
    return np.random.default_rng([*well.encode(), *channel.encode()]).integers(0, 4096, SIZE, np.uint16)


def _name(well, channel):
    return f"{PLATE}_{well}_{channel}_{str(uuid.uuid5(uuid.NAMESPACE_URL, well + channel)).upper()}.tif"


@pytest.fixture
def source(tmp_path):
    """As unpacked: one folder in the folder."""
    folder = tmp_path / "source" / "BBBC010_v2_images"
    folder.mkdir(parents=True)
    for well in WELLS:
        for channel in CHANNELS:
            tifffile.imwrite(folder / _name(well, channel), _pixels(well, channel))
    (folder / ".DS_Store").write_bytes(b"x")
    return tmp_path / "source"


@pytest.fixture
def masks(tmp_path):
    """Two worms in A01 that cross, one in E04."""
    folder = tmp_path / "masks"
    folder.mkdir()
    places = {("A01", 1): (slice(10, 14), slice(20, 31)), ("A01", 2): (slice(5, 26), slice(25, 26))}
    places["E04", 1] = (slice(50, 52), slice(0, 2))
    for (well, worm), place in places.items():
        mask = np.zeros(SIZE, np.uint8)
        mask[place] = 255
        Image.fromarray(mask).save(folder / f"{well}_{worm:02d}_ground_truth.png")
    return folder


def _refused(message, *args):
    with pytest.raises(BuildError, match=message) as caught:
        index_bbbc010(*args)
    assert "\n" not in str(caught.value)


def test_index(source):
    index = index_bbbc010(source, None)
    assert [(field.plate, field.well, field.site) for field in index.fields] == [(PLATE, well, 1) for well in WELLS]
    assert [field.metadata["outcome"] for field in index.fields] == ["live", "live", "dead", "dead", "live"]
    assert [field.metadata["treatment"] for field in index.fields][1:3] == ["ampicillin", "untreated"]
    assert index.channels == ("w1", "w2")
    assert index.ignored == ((str(source / "BBBC010_v2_images" / ".DS_Store"), "not named as an image of BBBC010"),)
    for field in index.fields:
        for channel in index.channels:
            np.testing.assert_array_equal(field.planes[channel, 0, 0].read(), _pixels(field.well, channel))


def _build(index, cut, data_dir, skip_bad=None):
    maker = FieldMaker(tuple(CHANNELS), "max", "max", cut, LABEL, None)
    build_fields(
        "bbbc010", index, maker, tuple(CHANNELS.values()), data_dir,
        num_workers=1, skip_bad=skip_bad, text=bbbc010.TEXT, version=bbbc010.VERSION, notes={},
    )  # fmt: skip
    return open_image_set("bbbc010", str(data_dir))


def test_build(source, tmp_path):
    built = _build(index_bbbc010(source, None), Whole(), tmp_path / "datasets")
    assert built.channel_names == ("GFP", "brightfield")
    assert built.metadata["label"].tolist() == ["live", "live", "dead", "dead", "live"]
    expected = np.stack([np.stack([_pixels(well, channel) for channel in CHANNELS], axis=-1) for well in WELLS])
    np.testing.assert_array_equal(built.images(range(5)), expected)


def test_archives_are_unpacked(source, masks, tmp_path):
    archives = [shutil.make_archive(str(tmp_path / folder.name), "zip", folder) for folder in (source, masks)]
    folders = [bring(archive, None, tmp_path / "downloads")[0] for archive in archives]
    assert [field.objects for field in index_bbbc010(*folders).fields] == [
        field.objects for field in index_bbbc010(source, masks).fields
    ]


def test_crops_around_worms(source, masks, tmp_path):
    index = index_bbbc010(source, masks)
    assert index.fields[0].objects == (
        (11.5, 25.0, {"worm": 1, "worm_area_px": 44}),
        (15.0, 25.0, {"worm": 2, "worm_area_px": 21}),
    )
    assert index.fields[1].objects == ()
    built = _build(index, AroundPoints(8, WORM_COLUMNS), tmp_path / "datasets")
    assert built.metadata[["well", "worm", "worm_area_px", "label"]].to_numpy().tolist() == [
        ["A01", 1, 44, "live"],
        ["A01", 2, 21, "live"],
        ["E04", 1, 4, "live"],
    ]
    np.testing.assert_array_equal(built[0][..., 1], _pixels("A01", "w2")[8:16, 21:29])
    np.testing.assert_array_equal(built[2][..., 0], _pixels("E04", "w1")[-8:, :8])


def test_the_first_edition_lacks_an_image(source, tmp_path):
    (source / "BBBC010_v2_images" / _name("D24", "w2")).unlink()
    index = index_bbbc010(source, None)
    with pytest.raises(
        BuildError, match=r"channel w2 is missing in 1 of 5 fields, first in plate .*, well D24, site 1"
    ):
        _build(index, Whole(), tmp_path / "datasets")
    built = _build(index, Whole(), tmp_path / "datasets", tmp_path / "skipped.csv")
    assert built.metadata["well"].tolist() == ["A01", "A12", "A13", "E04"]


def test_what_is_refused(source, masks, tmp_path):
    _refused("nowhere: no such folder", tmp_path / "nowhere", None)
    _refused("nowhere: no such folder", source, tmp_path / "nowhere")
    _refused("masks: no image is named as those of BBBC010", masks, None)
    _refused("source: no mask is named after a well and a worm", source, source)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(masks / "A12_01_ground_truth.png")
    _refused("A12_01_ground_truth.png: the mask is empty", source, masks)
    (masks / "A12_01_ground_truth.png").rename(masks / "B01_01_ground_truth.png")
    Image.fromarray(np.ones(SIZE, np.uint8)).save(masks / "B01_01_ground_truth.png")
    _refused("masks of the wells B01, of which there are no images", source, masks)


def test_two_files_of_one_channel(source):
    (source / "copy").mkdir()
    for path in sorted((source / "BBBC010_v2_images").glob("*_A13_w1_*")):
        (source / "copy" / path.name).write_bytes(path.read_bytes())
    _refused("a second w1 of well A13; the first is", source, None)


def test_a_well_that_the_plate_has_not(source):
    path = source / "BBBC010_v2_images" / _name("A01", "w1")
    path.rename(path.with_name(_name("A25", "w1")))
    _refused("well 'A25': a plate of 384 wells", source, None)


def test_the_official_archives_come_from_a_mirror(source, masks, tmp_path, monkeypatch):
    """A loopback server with generated archives under the official names; another sum is refused."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for folder, name in ((source, "images.zip"), (masks, "masks.zip")):
        with zipfile.ZipFile(mirror / name, "w") as archive:
            for path in sorted(folder.rglob("*.*")):
                archive.write(path, path.relative_to(folder.parent))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(mirror))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        files = {
            what: (
                f"http://127.0.0.1:{server.server_port}/{what}.zip",
                hashlib.sha256((mirror / f"{what}.zip").read_bytes()).hexdigest(),
            )
            for what in ("images", "masks")
        }
        monkeypatch.setattr(bbbc010, "FILES", files)
        paths = [fetch_bbbc010(what, tmp_path / "downloads") for what in ("images", "masks")]
        monkeypatch.setattr(bbbc010, "FILES", {"images": (files["images"][0], "0" * 64)})
        with pytest.raises(BuildError, match=f"images.zip: what came has the SHA-256 {files['images'][1]}"):
            fetch_bbbc010("images", tmp_path / "others")
        server.shutdown()
    assert paths[0][1] == {"source": files["images"][0], "sha256": files["images"][1]}
    index = index_bbbc010(paths[0][0], paths[1][0])
    assert [field.planes.keys() for field in index.fields] == [
        f.planes.keys() for f in index_bbbc010(source, masks).fields
    ]
    assert any(field.objects for field in index.fields)

"""BBBC021's plates from a loopback mirror and from a folder; what is generated has the official names and columns."""

import csv
import functools
import hashlib
import http.server
import json
import shutil
import threading
import uuid

import numpy as np
import pooch
import pytest
import tifffile

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BuildError
from data.sources import download

# Plate, week of its files, well, compound, micromolar.
WELLS = [
    ("Week1_22123", "Week1_150607", "B02", "DMSO", "0"),
    ("Week1_22123", "Week1_150607", "B03", "taxol", "0.3"),
    ("Week1_22123", "Week1_150607", "G11", "taxol", "30.0"),
    ("Week2_24121", "Week2_180607", "B02", "ALLN", "3"),
]
CHANNELS = {"DAPI": "w1", "Tubulin": "w2", "Actin": "w4"}
TABLES = ("BBBC021_v1_image.csv", "BBBC021_v1_compound.csv", "BBBC021_v1_moa.csv")


def _name(plate, start, well, site, channel):
    guid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{plate}{well}{site}{channel}")).upper()
    return f"{start}_{well}_s{site}_{CHANNELS[channel]}{guid}.tif"


def _pixels(plate, well, site, channel):
    rng = np.random.default_rng([*f"{plate}{well}{channel}".encode(), site])
    return rng.integers(0, 65536, (6, 8), np.uint16)


def _write_csv(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def folder(tmp_path):
    """As unpacked, beside the tables: 4 wells on 2 plates, 2 sites; a third plate is only in the table."""
    folder = tmp_path / "folder"
    names = [f"Image_{kind}Name_{channel}" for channel in CHANNELS for kind in ("File", "Path")]
    header = ["TableNumber", "ImageNumber", *names, "Image_Metadata_Plate_DAPI", "Image_Metadata_Well_DAPI"]
    header += ["Replicate", "Image_Metadata_Compound", "Image_Metadata_Concentration"]
    rows = [header]
    for number, (plate, start, well, compound, dose) in enumerate([*WELLS, ("Week9_1", "Week9_0", "B02", "DMSO", "0")]):
        for site in (1, 2):
            files = []
            for channel in CHANNELS:
                name = _name(plate, start, well, site, channel)
                files += [name, f"{plate.split('_')[0]}/{plate}"]
                if plate != "Week9_1":
                    (folder / plate).mkdir(parents=True, exist_ok=True)
                    tifffile.imwrite(folder / plate / name, _pixels(plate, well, site, channel))
            rows.append([4, 200 + number, *files, plate, well, 1 + number % 2, compound, dose])
    _write_csv(folder / TABLES[0], rows)
    _write_csv(folder / TABLES[1], [("compound", "smiles"), ("taxol", "CC1=C2"), ("ALLN", "C, C")])
    moas = [("taxol", "0.30", "Microtubule stabilizers"), ("ALLN", "3.0", "Protein degradation"), ("DMSO", "0", "DMSO")]
    _write_csv(folder / TABLES[2], [("compound", "concentration", "moa"), *moas])
    return folder


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(folder, tmp_path, monkeypatch):
    """A server with the tables and an archive for each plate, and a registry that names it; gives both."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "WAIT_S", 0.01)
    files = tmp_path / "mirror"
    files.mkdir()
    for name in TABLES:
        shutil.copy(folder / name, files)
    for plate in {plate for plate, *_ in WELLS}:
        shutil.make_archive(str(files / f"BBBC021_v1_images_{plate}"), "zip", folder, plate)
    handler = functools.partial(_Handler, directory=str(files))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.asked, server.files = [], files
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    pooch.make_registry(str(files), str(tmp_path / "sums.txt"))
    sums = (tmp_path / "sums.txt").read_text().splitlines()
    lines = [f"{line} http://127.0.0.1:{server.server_port}/{line.split()[0]}" for line in sums]
    server.registry = tmp_path / "registry.txt"
    server.registry.write_text("# of the mirror\n" + "\n".join(lines))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _build(tmp_path, *arguments):
    main(["bbbc021", *arguments, f"--data-dir={tmp_path / 'sets'}", "--workers=1"])
    return open_image_set("bbbc021", str(tmp_path / "sets"))


def _refused(tmp_path, *arguments):
    with pytest.raises(BuildError) as caught:
        _build(tmp_path, *arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sets/bbbc021").exists()
    return str(caught.value)


def _check(built, wells):
    assert built.channel_names == ("DNA", "Tubulin", "Actin")
    places = [(plate, well, site) for plate, _, well, _, _ in wells for site in (1, 2)]
    assert list(built.metadata[["plate", "well", "site"]].itertuples(index=False, name=None)) == places
    for row, place in enumerate(places):
        expected = np.stack([_pixels(*place, channel) for channel in CHANNELS], axis=-1)
        np.testing.assert_array_equal(built[row], expected)


def test_a_plate_from_a_mirror(mirror, tmp_path, capsys):
    built = _build(tmp_path, "--plates=Week1_22123", f"--sha256={mirror.registry}")
    _check(built, WELLS[:3])
    wells = built.metadata[::2]
    assert wells["label"].tolist() == ["DMSO", "Microtubule stabilizers", "not given"]
    assert wells["compound"].tolist() == ["DMSO", "taxol", "taxol"]
    assert wells["concentration_micromolar"].tolist() == [0.0, 0.3, 30.0]
    assert wells["control_type"].tolist() == ["negative control", "", ""]
    assert wells["replicate"].tolist() == [1, 2, 1]
    assert wells["smiles"].tolist() == ["", "CC1=C2", "CC1=C2"]
    archive = "/BBBC021_v1_images_Week1_22123.zip"
    assert sorted(mirror.asked) == sorted([archive, *(f"/{name}" for name in TABLES)])  # of the other plate nothing
    fetched = dict(json.loads((built.directory / "build.json").read_text())["fetched"])
    for path in mirror.asked:
        content = (mirror.files / path[1:]).read_bytes()
        assert fetched[f"http://127.0.0.1:{mirror.server_port}{path}"] == hashlib.sha256(content).hexdigest()
    assert "plates without images: 2, e.g. Week2_24121" in capsys.readouterr().out


def test_every_plate_of_the_registry_and_nothing_twice(mirror, tmp_path):
    _build(tmp_path, "--plates=Week1_22123", f"--sha256={mirror.registry}")
    shutil.rmtree(tmp_path / "sets/bbbc021")
    mirror.asked.clear()
    _check(_build(tmp_path, f"--sha256={mirror.registry}"), WELLS)
    assert mirror.asked == ["/BBBC021_v1_images_Week2_24121.zip"]


def test_a_mirror_that_has_something_else_or_nothing(mirror, tmp_path):
    archive = mirror.files / "BBBC021_v1_images_Week2_24121.zip"
    expected = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    said = _refused(tmp_path, f"--sha256={mirror.registry}")
    assert f"Week2_24121.zip: what came has the SHA-256 {found}, expected {expected}; it was not kept" in said
    archive.unlink()
    assert "Week2_24121.zip: the server answers 404" in _refused(tmp_path, f"--sha256={mirror.registry}")
    assert not list((tmp_path / "sets/downloads").glob("*Week2*"))
    _check(_build(tmp_path, "--plates=Week1_22123", f"--sha256={mirror.registry}"), WELLS[:3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "sums.txt: expected lines 'NAME SHA256', as pooch.make_registry writes"),
        ("a b c d", "sums.txt: expected lines 'NAME SHA256'"),
        ("", "lists no BBBC021_v1_image.csv, BBBC021_v1_compound.csv, BBBC021_v1_moa.csv"),
        ("\n".join(f"{name} {'0' * 64}" for name in TABLES), "lists no archives, as BBBC021_v1_images_Week1_22123.zip"),
        ("\n".join(f"{name} md5:0" for name in (*TABLES, "BBBC021_v1_images_a.zip")), "md5:0: a SHA-256 has 64 digits"),
    ],
)
def test_registries_that_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "sums.txt").write_text(content)
    assert message in _refused(tmp_path, f"--sha256={tmp_path / 'sums.txt'}")


def test_a_plate_that_the_registry_lacks(tmp_path):
    (tmp_path / "sums.txt").write_text("\n".join(f"{name} {'0' * 64}" for name in TABLES))
    said = _refused(tmp_path, f"--sha256={tmp_path / 'sums.txt'}", "--plates=Week1_22123")
    assert "sums.txt: lists no BBBC021_v1_images_Week1_22123.zip; one line for each file is needed" in said


def test_without_sums_nothing_is_fetched(tmp_path):
    said = _refused(tmp_path, "--plates=Week1_22123")
    assert "bbbc021 needs --source, or --sha256=FILE with a line 'NAME SHA256' for each file" in said


def test_a_folder(folder, tmp_path, capsys):
    (folder / "Week1").mkdir()
    (folder / "Week1_22123").rename(folder / "Week1/Week1_22123")
    (folder / "Week2_24121/Thumbs.db").write_text("")
    (folder / "notes.txt").write_text("")
    _check(_build(tmp_path, f"--source={folder}"), WELLS)
    said = capsys.readouterr().out
    assert "plates without images: 1, e.g. Week9_1" in said
    assert "ignored: 2" in said


def test_what_is_missing_stops_the_build_or_is_listed(folder, tmp_path):
    lost = folder / "Week1_22123" / _name("Week1_22123", "Week1_150607", "B03", 2, "Tubulin")
    lost.unlink()
    said = _refused(tmp_path, f"--source={folder}")
    assert said.startswith(f"{lost}: cannot be opened")
    assert "plate Week1_22123, well B03, site 2, channel Tubulin" in said
    built = _build(tmp_path, f"--source={folder}", f"--skip-bad={tmp_path / 'bad.csv'}")
    assert len(built) == 7
    assert str(lost) in (tmp_path / "bad.csv").read_text()


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        (0, "Image_FileName_Actin", "Actin", r"the columns ['Image_FileName_Actin'] are missing"),
        (0, ",taxol,0.3", ",taxol,much", "line 4: Image_Metadata_Concentration 'much' is no number"),
        (0, ",B03,", ",A0,", "line 4: well 'A0': a plate of 96 wells"),
        (0, "Week1_150607_B03_s1_w1", "../Week1_150607_B03_s1_w1", "line 4: Image_FileName_DAPI is '../Week1"),
        (0, "_B03_s2_", "_B03_s1_", "BBBC021_v1_image.csv, line 4 already"),
        (0, "Week", "Month", "no folder is called as a plate of BBBC021_v1_image.csv, e.g. Month"),
        (1, "smiles", "x", "the columns ['smiles'] are missing; it has compound, x"),
        (2, "ALLN,3.0,", "taxol,0.3,", "line 3: taxol at 0.3 is 'Protein degradation', and another in a line above"),
        (2, "moa", "mechanism", "the columns ['moa'] are missing"),
    ],
)
def test_tables_that_are_refused(folder, tmp_path, table, old, new, message):
    path = folder / TABLES[table]
    path.write_text(path.read_text().replace(old, new))
    assert message in _refused(tmp_path, f"--source={folder}")


def test_a_plate_in_two_folders(folder, tmp_path):
    shutil.copytree(folder / "Week1_22123", folder / "copy/Week1_22123")
    assert "plate Week1_22123 is in" in _refused(tmp_path, f"--source={folder}")
    assert "holds neither bbbc021_subset.npz nor BBBC021_v1_image.csv" in _refused(tmp_path, f"--source={tmp_path}")

import functools
import gzip
import hashlib
import http.server
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BadInputError, BuildError
from data.fields.crops import Whole
from data.fields.field_set import build_fields
from data.fields.maker import FieldMaker
from data.studies.mnist import index as mnist
from data.studies.mnist.index import DigitPlane, index_mnist

REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "mnist"
IDX = {
    "x_train": "train-images-idx3",
    "y_train": "train-labels-idx1",
    "x_test": "t10k-images-idx3",
    "y_test": "t10k-labels-idx1",
}


def _arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (6, 28, 28), np.uint8),
        "y_train": np.array([5, 0, 4, 1, 9, 2], np.uint8),
        "x_test": rng.integers(0, 256, (3, 28, 28), np.uint8),
        "y_test": np.array([7, 2, 1], np.uint8),
    }


def _idx(values):
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def _write(folder, form, arrays):
    folder.mkdir()
    if form == "npz":
        np.savez_compressed(folder / "mnist.npz", allow_pickle=False, **arrays)
    for name, values in arrays.items():
        if form == "idx.gz":
            (folder / f"{IDX[name]}-ubyte.gz").write_bytes(gzip.compress(_idx(values)))
        elif form == "idx":
            (folder / f"{IDX[name]}-ubyte").write_bytes(_idx(values))
    return folder


@pytest.mark.parametrize("form", ["npz", "idx", "idx.gz"])
def test_every_form_gives_the_same_index(tmp_path, form):
    arrays = _arrays()
    index = index_mnist(_write(tmp_path / "source", form, arrays))
    assert (index.channels, index.columns, index.pixel_size_um) == (("intensity",), {"digit": int}, None)
    found = [(field.plate, field.well, field.site, field.metadata["digit"]) for field in index.fields]
    test = [("test", "", i + 1, digit) for i, digit in enumerate([7, 2, 1])]
    assert found == test + [("train", "", i + 1, digit) for i, digit in enumerate([5, 0, 4, 1, 9, 2])]
    for field in index.fields:
        expected = arrays[f"x_{field.plate}"][field.site - 1]
        np.testing.assert_array_equal(field.planes["intensity", 0, 0].read(), expected)


def test_the_archive_itself_can_be_named(tmp_path):
    folder = _write(tmp_path / "source", "npz", _arrays())
    assert index_mnist(folder / "mnist.npz").fields == index_mnist(folder).fields


def test_a_file_is_read_once(tmp_path, monkeypatch):
    index = index_mnist(_write(tmp_path / "source", "npz", _arrays()))
    monkeypatch.setattr(mnist, "_read_npz", None)  # would fail
    for field in index.fields:
        field.planes["intensity", 0, 0].read()


def _build(index, data_dir):
    maker = FieldMaker(index.channels, "max", "max", Whole(), mnist.LABEL, None)
    build_fields(
        "mnist", index, maker, index.channels, data_dir,
        num_workers=1, skip_bad=None, text=mnist.TEXT, version=mnist.VERSION, notes={},
    )  # fmt: skip
    return open_image_set("mnist", str(data_dir))


def test_build(tmp_path):
    arrays = _arrays()
    built = _build(index_mnist(_write(tmp_path / "source", "idx.gz", arrays)), tmp_path / "datasets")
    np.testing.assert_array_equal(built.images(range(9))[..., 0], np.concatenate([arrays["x_test"], arrays["x_train"]]))
    assert built.metadata["label"].tolist() == list("721504192")
    assert built.metadata["site"].tolist() == [1, 2, 3, 1, 2, 3, 4, 5, 6]
    assert built.image_shape == (28, 28, 1)


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/mnist is not here")
def test_real_data(tmp_path):
    index = index_mnist(REAL)
    with np.load(REAL / "mnist.npz") as arrays:
        pixels, digits = arrays["x_train"], arrays["y_train"]
    assert len(index.fields) == 70_000
    train = index.fields[10_000:]
    assert {field.plate for field in train} == {"train"}
    assert [field.metadata["digit"] for field in train] == digits.tolist()
    for number in (0, 59_999):
        np.testing.assert_array_equal(train[number].planes["intensity", 0, 0].read(), pixels[number])
    # The unpacked official train-images-idx3-ubyte has this sum.
    official = "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    assert hashlib.sha256(_idx(pixels)).hexdigest() == official


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "t10k-labels-idx1-ubyte").unlink(),
            r"neither mnist.npz nor t10k-labels-idx1-ubyte\[.gz\]",
        ),
        (
            lambda folder: (folder / "t10k-labels-idx1-ubyte").write_bytes(b""),
            "t10k-labels-idx1-ubyte: cannot be read whole",
        ),
        (lambda folder: _cut(folder / "train-images-idx3-ubyte", -1), "train-images-idx3-ubyte: cannot be read whole"),
        (
            lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(b"<html>no</html>"),
            "begins with 3c 68 74 6d",
        ),
        (
            lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(_idx(np.zeros(6, np.uint8))),
            r"it is \(6,\) uint8, expected 3 axes",
        ),
        (
            lambda folder: (folder / "train-labels-idx1-ubyte").write_bytes(_idx(np.zeros(5, np.uint8))),
            "6 images and 5 labels of 'train'",
        ),
    ],
    ids=["missing", "empty", "cut off", "html", "labels for images", "lengths"],
)
def test_bad_idx(tmp_path, change, message):
    folder = _write(tmp_path / "source", "idx", _arrays())
    change(folder)
    with pytest.raises(BuildError, match=message) as caught:
        index_mnist(folder)
    assert "\n" not in str(caught.value)


def _cut(path, end):
    path.write_bytes(path.read_bytes()[:end])


@pytest.mark.parametrize("kind", ["cut off", "missing", "pickle", "float"])
def test_bad_npz(tmp_path, kind):
    arrays = _arrays()
    if kind == "missing":
        del arrays["y_test"]
    if kind == "float":
        arrays["x_test"] = arrays["x_test"] / 255
    if kind == "pickle":
        arrays["y_test"] = np.array([{}, 1, 2], dtype=object)
    (tmp_path / "source").mkdir()
    np.savez_compressed(tmp_path / "source" / "mnist.npz", allow_pickle=True, **arrays)
    if kind == "cut off":
        _cut(tmp_path / "source" / "mnist.npz", -100)
    with pytest.raises(BuildError, match=r"mnist.npz: (cannot be read whole|x_test is \(3, 28, 28\) float64)"):
        index_mnist(tmp_path / "source")


def test_a_plane_of_a_file_that_went_away(tmp_path):
    plane = DigitPlane(tmp_path / "gone.npz", "x_train", 3)
    assert plane.source == f"{tmp_path}/gone.npz[x_train,3]"
    with pytest.raises(BadInputError, match=r"gone.npz\[x_train,3\]: cannot be opened: No such file"):
        plane.read()
    with pytest.raises(BadInputError, match="cannot be opened: No such file"):
        plane.identity()


def test_the_four_files_come_from_a_mirror(tmp_path, monkeypatch):
    """A loopback server with generated files under the official names, by the command; another sum is refused."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    arrays = _arrays()
    mirror = _write(tmp_path / "mirror", "idx.gz", arrays)
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in mirror.iterdir()}
    assert sums.keys() == mnist.FILES.keys()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(mirror))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(mnist, "_MIRROR", f"http://127.0.0.1:{server.server_port}/")
        with pytest.raises(BuildError, match=r"train-images-idx3-ubyte\.gz: what came has the SHA-256 "):
            main(["mnist", f"--data-dir={tmp_path / 'sets'}", "--workers=1"])
        monkeypatch.setattr(mnist, "FILES", sums)
        main(["mnist", f"--data-dir={tmp_path / 'sets'}", "--workers=1"])
        server.shutdown()
    built = open_image_set("mnist", str(tmp_path / "sets"))
    np.testing.assert_array_equal(built.images(range(9))[..., 0], np.concatenate([arrays["x_test"], arrays["x_train"]]))


def test_the_official_addresses():
    assert mnist._MIRROR.startswith("https://")
    assert list(mnist.FILES) == [f"{name}-ubyte.gz" for name in IDX.values()]
    assert all(len(sha256) == 64 for sha256 in mnist.FILES.values())

import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from data.errors import BadInputError, BuildError
from data.fields.index import assemble
from data.sources.arrays import ArrayPlane, index_arrays


def _images(shape=(3, 5, 7, 2), dtype=np.uint16):
    images = np.random.default_rng(0).integers(0, 65536, shape).astype(dtype)
    images.flat[:2] = np.array([300, 65535]).astype(dtype)
    return images


def _read(index, i):
    (found,) = assemble(index.fields[i], index.channels, 0, 0)
    return found[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, dtype, order):
    images = _images(dtype=dtype)
    np.save(tmp_path / "cells.npy", np.asarray(images, order=order))
    index = index_arrays(tmp_path / "cells.npy")
    assert index.channels == ("0", "1")
    assert [str(field) for field in index.fields] == [f"plate cells, well , site {site}" for site in (1, 2, 3)]
    assert index.columns == {}
    for i in range(3):
        np.testing.assert_array_equal(_read(index, i), images[i])


def test_one_channel(tmp_path):
    images = _images((2, 5, 7))
    np.save(tmp_path / "cells.npy", images)
    index = index_arrays(tmp_path / "cells.npy")
    assert index.channels == ("0",)
    np.testing.assert_array_equal(_read(index, 1)[..., 0], images[1])
    plane = index.fields[1].planes["0", 0, 0]
    assert plane.source == f"{tmp_path}/cells.npy[1]"
    assert pickle.loads(pickle.dumps(plane)) == plane


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    images = _images()
    save(
        tmp_path / "cells.npz",
        images=images,
        masks=images[..., 0],
        channels=["DNA", "RNA"],
        plate=["P2", "P1", "P1"],
        well=["b3", "A1", "A02"],
        site=[4, 2, 1],
        compound=["x", "", "ä"],
        dose=[0.5, 0, 1],
        batch=np.array([1, 2, 3], np.uint8),
        control=[True, False, False],
        edges=[0.1, 0.2],
    )
    index = index_arrays(tmp_path / "cells.npz")
    assert index.channels == ("DNA", "RNA")
    assert index.columns == {"compound": str, "dose": float, "batch": int, "control": int}
    assert [str(field) for field in index.fields] == [
        "plate P1, well A01, site 2",
        "plate P1, well A02, site 1",
        "plate P2, well B03, site 4",
    ]
    assert index.fields[1].metadata == {"compound": "ä", "dose": 1.0, "batch": 3, "control": 0}
    for i, number in enumerate((1, 2, 0)):
        np.testing.assert_array_equal(_read(index, i), images[number])
    assert index.ignored == (
        (f"{tmp_path}/cells.npz:masks", "is (3, 5, 7): no value for each of 3 images"),
        (f"{tmp_path}/cells.npz:edges", "is (2,): no value for each of 3 images"),
    )


def test_npz_with_one_array_of_another_name(tmp_path):
    images = _images()
    np.savez(tmp_path / "cells.npz", pictures=images)
    np.testing.assert_array_equal(_read(index_arrays(tmp_path / "cells.npz"), 2), images[2])


def test_a_site_may_have_several_images(tmp_path):
    np.savez(tmp_path / "cells.npz", images=_images(), well=["A2", "A1", "A1"], site=[4, 4, 4])
    index = index_arrays(tmp_path / "cells.npz")
    assert [(field.well, field.site) for field in index.fields] == [("A01", 4), ("A01", 4), ("A02", 4)]
    for number, image in zip(range(3), _images()[[1, 2, 0]], strict=True):
        np.testing.assert_array_equal(_read(index, number), image)


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    trap = np.array([Trap()] * 3, dtype=object)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "b.npz", images=_images(), compound=trap)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(BuildError, match=rf"{name}.*nothing is unpickled"):
            index_arrays(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.01, 0])
def test_a_truncated_file(tmp_path, kept):
    for name, save in (("a.npy", np.save), ("b.npz", lambda path, images: np.savez(path, images=images))):
        save(tmp_path / name, _images((9, 20, 20)))
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(BuildError, match=rf"{name}: (is truncated|no whole|neither)"):
            index_arrays(tmp_path / name)


def test_damage_within_is_met_when_it_is_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=_images((9, 20, 20)))
    index = index_arrays(path)
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(content)
    with pytest.raises(
        BadInputError, match=r"a.npz:images: damaged: BadZipFile: Bad CRC-32.*\(plate a, .* site 1, channel 0\)"
    ):
        _read(index, 0)
    path.unlink()
    with pytest.raises(BadInputError, match="cannot be opened"):
        _read(index, 0)


def test_a_file_that_is_replaced_is_read_again(tmp_path):
    path = tmp_path / "a.npz"
    for value in (1, 2):
        np.savez(path, images=np.full((2, 4 + value, 4), value, np.uint8))
        assert _read(index_arrays(path), 0)[0, 0, 0] == value
    plane = ArrayPlane(path, "images", 0, None)
    before = plane.identity()
    np.savez(path, images=np.zeros((1, 2, 2), np.uint8))
    assert plane.identity() != before
    with pytest.raises(BadInputError, match=r"a.npz:images\[1\]: is not there"):
        ArrayPlane(path, "images", 1, None).read()


def test_nan(tmp_path):
    images = _images((2, 4, 4), np.float32)
    images[1, 2, 2] = np.nan
    np.save(tmp_path / "a.npy", images)
    index = index_arrays(tmp_path / "a.npy")
    _read(index, 0)
    with pytest.raises(BadInputError, match=r"a.npy\[1\]: 1 pixels are NaN"):
        _read(index, 1)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"images": np.zeros((4, 3, 8, 8))}, r"as if \[N, C, H, W\]"),
        ({"points": np.zeros((40, 2))}, r"expected one array of images.*points \(40, 2\)"),
        ({"features": np.zeros((4, 8)), "label": np.zeros(4)}, r"or one image, \[H, W\]; there is features \(4, 8\)"),
        ({"a": np.zeros((4, 8, 8)), "b": np.zeros((4, 8, 8))}, "expected one array of images"),
        ({}, "there is none"),
        ({"images": np.zeros((0, 8, 8))}, r"images are \(0, 8, 8\)"),
        ({"images": np.full((2, 3, 3), "x")}, "expected numbers"),
        ({"images": np.zeros((2, 3, 3), complex)}, "expected numbers"),
        ({"images": np.zeros((2, 3, 3)), "site": [0.5, 1]}, "site is of type float64"),
        (
            {"images": np.zeros((2, 3, 3)), "site": [1, -1]},
            "site is -1 of images number 1, expected whole numbers from 0",
        ),
        ({"images": np.zeros((2, 3, 3)), "x": np.zeros(2, complex)}, "x is of type complex128"),
        ({"images": np.zeros((2, 3, 3)), "well": ["A01", "Q25"]}, r"a.npz:images\[1\]: well 'Q25'"),
        ({"images": np.zeros((2, 3, 3)), "well": ["A01", ""]}, r"images\[1\]: has no well"),
        ({"images": np.zeros((2, 3, 3)), "plate": ["", "P"]}, r"images\[0\]: the plate has no name"),
        ({"images": np.zeros((2, 3, 3, 2)), "channels": ["a"]}, "expected 2 different names"),
        ({"images": np.zeros((2, 3, 3, 2)), "channels": ["a", "a"]}, "expected 2 different names"),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, problem):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BuildError, match=problem):
        index_arrays(tmp_path / "a.npz")


def test_what_is_no_array_file(tmp_path):
    with pytest.raises(BuildError, match=r"a.npy: cannot be opened: No such file"):
        index_arrays(tmp_path / "a.npy")
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(BuildError, match=r"a.npy: is a folder, a file is needed"):
        index_arrays(tmp_path / "a.npy")


def _announcing(path, shape, dtype="|u1", key="images.npy"):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(key, b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(100))
    return path


def test_a_header_of_two_thousand_million_images(tmp_path):
    path = _announcing(tmp_path / "a.npz", (2_000_000_000, 16, 16))
    with pytest.raises(BadInputError, match=r"a.npz: announces images.npy, \(2000000000, 16, 16\) of uint8, 477 GB"):
        index_arrays(path)


def test_a_header_of_more_than_there_is(tmp_path):
    path = _announcing(tmp_path / "a.npz", (2, 16, 16))
    with pytest.raises(BuildError, match=r"a.npz: announces images.npy, \(2, 16, 16\) of uint8, and holds \d+ bytes"):
        index_arrays(path)


def test_a_pipe_is_no_array(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(BadInputError, match=r"a.npy: is a pipe, a file is needed"):
        index_arrays(tmp_path / "a.npy")


def test_no_flipped_bit_is_more_than_one_line(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=_images((2, 12, 12)), plate=np.array(["P", "Q"]))
    content = path.read_bytes()
    rng = np.random.default_rng(7)
    refused = 0
    for bit in rng.integers(8 * len(content), size=100):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        try:
            _read(index_arrays(path), 0)
        except BuildError:
            refused += 1
    assert refused > 50

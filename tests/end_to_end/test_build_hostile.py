"""The command on a folder in which every file but one is out to harm it."""

import csv
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BadInputError

REPOSITORY = Path(__file__).resolve().parents[2]

# Of addresses: what is loaded takes a third of it, and what starts processes inherits it to them.
COMMAND = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30,) * 2)
sys.argv[0] = "data.build"
runpy.run_module("data.build", run_name="__main__")
"""


def _png_of_one_color(size):
    header = struct.pack(">IIBBBBB", size, size, 1, 0, 0, 0, 0)
    packed = zlib.compress(bytes((size // 8 + 1) * size), 1)
    chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def _harmful_folder(folder, good):
    """Two good images, of which one is the first, and what harms."""
    folder.mkdir()
    for name in ("a_good.tif", "z_good.tif"):
        tifffile.imwrite(folder / name, good, compression="zlib")
    tifffile.imwrite(folder / "height.tif", good, compression="zlib", metadata=None)
    with tifffile.TiffFile(folder / "height.tif", mode="r+b") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(len(good) | 1 << 30)
    (folder / "color.png").write_bytes(_png_of_one_color(40_000))
    jpeg = bytearray(imagecodecs.jpeg8_encode(good))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = struct.pack(">HH", 65500, 65500)
    (folder / "frame.jpg").write_bytes(jpeg)
    tifffile.imwrite(folder / "strip.tif", good, compression="zlib")
    with tifffile.TiffFile(folder / "strip.tif") as tiff:
        end = tiff.filehandle.size
    packed = zlib.compress(bytes(64 << 20))
    with open(folder / "strip.tif", "ab") as file:
        file.write(packed)
    with tifffile.TiffFile(folder / "strip.tif", mode="r+b") as tiff:
        tiff.pages[0].tags["StripOffsets"].overwrite(end)
        tiff.pages[0].tags["StripByteCounts"].overwrite(len(packed))
    os.mkfifo(folder / "pipe.tif")
    (folder / "zero.tif").mkdir()  # a folder is not taken for an image, whatever its name


def test_with_skip_bad_a_build_survives_whatever_lies_in_a_folder(tmp_path):
    good = np.random.default_rng(0).integers(0, 256, (24, 24), np.uint8)
    _harmful_folder(tmp_path / "images", good)
    arguments = [f"--source={tmp_path / 'images'}", "--layout=folder", f"--data-dir={tmp_path / 'sets'}", "--workers=1"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "mine", *arguments, f"--skip-bad={tmp_path / 'bad.csv'}"],
        capture_output=True, text=True, timeout=120, cwd=REPOSITORY, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    read = open_image_set("mine", str(tmp_path / "sets"))
    np.testing.assert_array_equal(read.images(range(len(read)))[..., 0], [good, good])
    with open(tmp_path / "bad.csv", newline="") as file:
        listed = {Path(line["source"]).name: line["problem"] for line in csv.DictReader(file)}
    assert listed.keys() == {"color.png", "frame.jpg", "height.tif", "pipe.tif", "strip.tif"}
    assert listed["height.tif"].startswith("announces a page of 1073741848 x 24 pixels, 24 GB of memory from")
    assert listed["color.png"].startswith("holds 1 channel of uint8 (1 bits in use), but ")  # before it is unpacked
    assert listed["frame.jpg"].startswith("damaged: its reader asks for more memory from")
    assert listed["pipe.tif"] == "is a pipe, a file is needed"
    assert listed["strip.tif"].startswith("damaged: ")


def test_max_gb_allows_what_its_size_forbids(tmp_path):
    """An image of one color, 276 MB from 40 kB, read by other processes."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(_png_of_one_color(17_000))
    arguments = ["mine", f"--source={tmp_path / 'images'}", "--layout=folder", f"--data-dir={tmp_path / 'sets'}"]
    arguments += ["--crop=16", "--random-crops=1", "--workers=1"]
    with pytest.raises(BadInputError, match=r"a.png: announces an image of 17000 x 17000 pixels, 276 MB of memory"):
        main(arguments)
    main([*arguments, "--max-gb=1", f"--skip-bad={tmp_path / 'bad.csv'}"])
    np.testing.assert_array_equal(open_image_set("mine", str(tmp_path / "sets"))[0], np.zeros((16, 16, 1)))

"""The command in a process of its own: Ctrl-C, a full disk, a server that fails in between, and that nothing forks."""

import csv
import functools
import http.server
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from bie_jax.input.image_set import SetNotBuiltError, open_image_set
from data.build import main
from data.sources import zarr_store

REPOSITORY = Path(__file__).resolve().parents[2]

# What a shell does before it starts the command. What runs these tests may ignore Ctrl-C, and its children would too.
COMMAND = """
import os, resource, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.argv[1] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv[:2] = ["data.build"]
runpy.run_module("data.build", run_name="__main__")
"""


def _started(limit, *arguments):
    command = [sys.executable, "-c", COMMAND, str(limit), *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def images(tmp_path):
    """Four fields of one channel and their table."""
    rows = []
    for site in range(4):
        tifffile.imwrite(tmp_path / f"{site}.tif", _pixels(site))
        rows.append({"path": f"{site}.tif", "plate": "P", "well": "B02", "site": site, "channel": "a"})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


def _pixels(number):
    return np.random.default_rng(number).integers(0, 65536, (64, 64), np.uint16)


def _arguments(images):
    return "mine", f"--source={images / 'table.csv'}", f"--data-dir={images / 'sets'}", "--workers=1"


def _not_there(images):
    with pytest.raises(SetNotBuiltError):
        open_image_set("mine", str(images / "sets"))


def _goes_on(images):
    main(list(_arguments(images)))
    read = open_image_set("mine", str(images / "sets"))
    np.testing.assert_array_equal(read.images(range(4))[..., 0], [_pixels(site) for site in range(4)])
    assert [path.name for path in (images / "sets").iterdir()] == ["mine"]


def test_ctrl_c(images):
    """While a file gives nothing: a chunk for which a server has no answer when it is asked again, to write the set."""
    _write_store(images / "server/b.zarr", 2)
    handler = functools.partial(_Silent, directory=str(images / "server"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.answered, server.asked, server.released = (threading.Event() for _ in range(3))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        source = f"--source=http://127.0.0.1:{server.server_port}/b.zarr"
        with _started(0, "mine", source, f"--data-dir={images / 'sets'}", "--workers=1") as process:
            assert server.asked.wait(60)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        server.released.set()
        server.shutdown()
        thread.join()
    assert process.returncode == 1
    assert said.splitlines()[-1] == "data.build: stopped; the same command goes on"
    assert "Traceback" not in said
    _not_there(images)
    _goes_on(images)


def test_a_full_disk(images):
    """A limit on the size of files stands in for the disk: the system answers a write in the same way."""
    with _started(10_000, *_arguments(images)) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    last = said.splitlines()[-1]
    assert last.startswith("data.build: cannot write (")
    assert last.endswith("make room, and the same command goes on")
    assert "Traceback" not in said
    _not_there(images)
    _goes_on(images)


def _write_store(folder, count):
    """One OME-Zarr image with a time point for each number."""
    axes = [{"name": name, "type": kind} for name, kind in (("t", "time"), ("y", "space"), ("x", "space"))]
    scale = {"type": "scale", "scale": [1, 1, 1]}
    dataset = {"path": "0", "coordinateTransformations": [scale]}
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}
    array = group.create_array("0", shape=(count, 64, 64), chunks=(1, 64, 64), dtype=np.uint16)
    array[:] = np.stack([_pixels(number) for number in range(count)])


PROGRAM = """
import os, sys
import data.records.writer
from data.build import main
data.records.writer.SHARD_BYTES = 1
os.register_at_fork(before=lambda: print("a fork of", os.getpid(), flush=True))
if __name__ == "__main__":
    main(sys.argv[1:])
"""


def test_zarr_is_read_by_processes_that_were_not_forked(tmp_path):
    """The parent has opened the store; a fork would take its threads' locks along, and hang."""
    for name in "ab":
        _write_store(tmp_path / f"plates/{name}.zarr", 2)
    (tmp_path / "program.py").write_text(PROGRAM)
    arguments = [f"--source={tmp_path / 'plates'}", "--layout=ome-zarr", f"--data-dir={tmp_path / 'sets'}"]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), "mine", *arguments, "--workers=2"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "a fork of" not in done.stdout
    read = open_image_set("mine", str(tmp_path / "sets"))
    np.testing.assert_array_equal(read.images(range(4))[..., 0], [_pixels(number) for number in (0, 1, 0, 1)])


class _Failing(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/b.zarr/0/c/1/"):
            self.send_error(500)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


class _Silent(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/b.zarr/0/c/1/"):
            if self.server.answered.is_set():
                self.server.asked.set()
                self.server.released.wait(60)
            self.server.answered.set()
        super().do_GET()

    def log_message(self, *args):
        pass


def test_a_server_that_fails_in_between(tmp_path, monkeypatch):
    """One chunk of an image: the build stops and says which one, or leaves the field out and lists it."""
    monkeypatch.setattr(zarr_store, "RETRIES", 0)
    zarr_store._open_store.cache_clear()
    _write_store(tmp_path / "server/b.zarr", 2)
    handler = functools.partial(_Failing, directory=str(tmp_path / "server"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        source = f"http://127.0.0.1:{server.server_port}/b.zarr"
        arguments = ["mine", f"--source={source}", f"--data-dir={tmp_path / 'sets'}", "--workers=1"]
        with pytest.raises(ValueError, match=r"/b\.zarr/0: its pixels cannot be read: the server answered 500"):
            main(arguments)
        _not_there(tmp_path)
        with pytest.raises(ValueError, match="none of the 1 fields gives an example"):
            main([*arguments, f"--skip-bad={tmp_path / 'bad.csv'}"])
        main([*arguments, "--t=0"])
        server.shutdown()
        thread.join()
    zarr_store._open_store.cache_clear()
    np.testing.assert_array_equal(open_image_set("mine", str(tmp_path / "sets"))[0][..., 0], _pixels(0))


def test_what_was_left_out_is_listed(images):
    """Each kind of damage with its file, its place and its problem; what is whole is built."""
    (images / "0.tif").write_bytes((images / "0.tif").read_bytes()[:3000])
    (images / "1.tif").unlink()
    (images / "1.tif").mkdir()
    (images / "2.tif").write_bytes(b"")
    main([*_arguments(images), f"--skip-bad={images / 'bad.csv'}"])
    with open(images / "bad.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [Path(line["source"]).name for line in listed] == ["0.tif", "1.tif", "2.tif"]
    assert [line["place"] for line in listed] == [f"plate P, well B02, site {site}, channel a" for site in range(3)]
    problems = ["truncated", "is a folder, a file is needed", "the file is empty"]
    assert all(problem in line["problem"] for problem, line in zip(problems, listed, strict=True))
    np.testing.assert_array_equal(open_image_set("mine", str(images / "sets"))[0][..., 0], _pixels(3))

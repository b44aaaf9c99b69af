"""Files are written whole or not at all, and one that is not what was written is refused."""

import json
import os
import random
import subprocess
import sys

import pytest

from bie_jax.files import integrity
from bie_jax.files.integrity import DamagedFileError, DiskError, StaleFileError


def flip_bit(path, seed=0):
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    bit = random.Random(seed).randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_what_was_written_is_read(tmp_path):
    integrity.write_json(tmp_path / "a" / "x.json", {"µm": [1.5, None]}, made_from={"the set": "ab"})
    assert integrity.read_json(tmp_path / "a" / "x.json", "", made_from={"the set": "ab"}) == {"µm": [1.5, None]}
    integrity.write_json(tmp_path / "a" / "x.json", {"b": 2})  # over the former
    assert integrity.read_json(tmp_path / "a" / "x.json", "") == {"b": 2}
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["checksums.json", "x.json"]


@pytest.mark.parametrize("seed", range(5))
def test_one_bit_is_seen_in_the_file_and_in_the_checksums(tmp_path, seed):
    path = tmp_path / "x.json"
    integrity.write_json(path, {"a": list(range(20))}, made_from={"the set": "ab"})
    whole = path.read_bytes()
    flip_bit(path, seed)
    with pytest.raises(DamagedFileError, match=r"x\.json is damaged \(its bytes are not .* written\): copy it again"):
        integrity.verify(path, "copy it again")
    path.write_bytes(whole)
    integrity.verify(path, "")
    flip_bit(tmp_path / "checksums.json", seed)
    with pytest.raises(DamagedFileError, match=r"checksums\.json is damaged"):
        integrity.verify(path, "")


@pytest.mark.parametrize("kept", [0, 10])
def test_a_file_that_was_cut_is_refused_with_both_lengths(tmp_path, kept):
    integrity.write_text(tmp_path / "x.txt", "0123456789abcdef")
    os.truncate(tmp_path / "x.txt", kept)
    with pytest.raises(DamagedFileError, match=rf"it has {kept} bytes, 16 were written"):
        integrity.verify(tmp_path / "x.txt", "")


def test_a_file_to_which_something_was_added_is_refused(tmp_path):
    integrity.write_text(tmp_path / "x.txt", "0123")
    with open(tmp_path / "x.txt", "a") as file:
        file.write("4")
    with pytest.raises(DamagedFileError, match="it has 5 bytes, 4 were written"):
        integrity.verify(tmp_path / "x.txt", "")


def test_missing_and_foreign_files_are_named(tmp_path):
    integrity.write_text(tmp_path / "x.txt", "x")
    with pytest.raises(FileNotFoundError, match=r"y\.txt is missing: make it"):
        integrity.verify(tmp_path / "y.txt", "make it")
    (tmp_path / "y.txt").write_text("y")
    with pytest.raises(DamagedFileError, match=r"y\.txt is damaged \(it has no checksum in checksums\.json"):
        integrity.verify(tmp_path / "y.txt", "")


def test_what_was_made_from_something_else_is_refused(tmp_path):
    integrity.write_text(tmp_path / "x.txt", "x", made_from={"the set": "ab", "config.eval.readout": "embedding"})
    integrity.verify(tmp_path / "x.txt", "", made_from={"the set": "ab"})
    with pytest.raises(
        StaleFileError, match=r"made from config\.eval\.readout = embedding, which is features now: again"
    ):
        integrity.verify(tmp_path / "x.txt", "again", made_from={"config.eval.readout": "features"})


def test_a_kill_between_checksum_and_name_leaves_a_file_that_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    integrity.write_text(path, "before")
    replace = os.replace

    def killed(source, target):
        if target == path:
            raise KeyboardInterrupt
        replace(source, target)

    for text in ("after", "once more"):
        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            integrity.write_text(path, text)
        integrity.verify(path, "")
        assert path.read_text() == "before"
        monkeypatch.undo()
    integrity.write_text(path, "after")
    integrity.verify(path, "")


def test_a_log_is_verified_as_far_as_it_was_entered(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\n")
    integrity.enter_log(path, 4, integrity.hash_bytes(b"one\n"))
    assert integrity.read_log(path, "") == b"one\n"
    path.write_bytes(b"onE\ntwo\n")
    with pytest.raises(DamagedFileError, match="its bytes are not those"):
        integrity.read_log(path, "")
    path.write_bytes(b"one")
    with pytest.raises(DamagedFileError, match="it has 3 bytes, 4 were written"):
        integrity.read_log(path, "")


def test_a_folder_of_an_earlier_version_is_taken_as_it_is_and_verified_from_then_on(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    integrity.verify(tmp_path / "x.json", "", made_from={"the set": "ab"})
    assert "its files are not verified" in capsys.readouterr().err
    integrity.adopt(tmp_path, ("x.json", "absent"), logs=())
    assert "taken as it is" in capsys.readouterr().err
    integrity.verify(tmp_path / "x.json", "", made_from={"the set": "ab"})
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DamagedFileError):
        integrity.verify(tmp_path / "x.json", "")


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00" * 9, "[" * 100_000])
def test_a_json_file_that_holds_something_else_is_one_line(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DamagedFileError, match=r"^.*x\.json is damaged \(.*\): restore it$"):
        integrity.read_json(tmp_path / "x.json", "restore it")


def test_every_file_of_a_sealed_folder_counts(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "a").write_bytes(b"a" * 100)
    (tmp_path / "d" / "b").write_bytes(b"b" * 100)
    assert integrity.damage(tmp_path) == "checksums.json is missing"
    integrity.seal(tmp_path)
    assert integrity.damage(tmp_path) is None
    before = integrity.fingerprint(tmp_path)
    flip_bit(tmp_path / "d" / "b")
    assert integrity.damage(tmp_path) == "d/b: its bytes are not those that were written"
    assert integrity.damage(tmp_path, wanted=lambda name: name == "a") is None  # of others only the length is looked at
    (tmp_path / "d" / "b").unlink()
    assert integrity.damage(tmp_path, wanted=lambda name: name == "a") == "d/b is missing"
    (tmp_path / "d" / "b").write_bytes(b"b" * 100)
    assert integrity.damage(tmp_path) is None
    integrity.seal(tmp_path)
    assert integrity.fingerprint(tmp_path) == before


def test_a_link_keeps_the_checksum_of_what_was_written(tmp_path):
    """It is not read again, so that what a disk did meanwhile is not taken for what was written."""
    (tmp_path / "part").mkdir()
    (tmp_path / "whole").mkdir()
    (tmp_path / "part" / "records").write_bytes(b"a" * 100)
    integrity.seal(tmp_path / "part")
    os.link(tmp_path / "part" / "records", tmp_path / "whole" / "shard")
    (tmp_path / "whole" / "table").write_bytes(b"t")
    integrity.seal(tmp_path / "whole", {"shard": tmp_path / "part" / "records"})
    assert integrity.damage(tmp_path / "whole") is None
    linked = (tmp_path / "whole" / "checksums.json").read_bytes()
    integrity.seal(tmp_path / "whole")
    assert (tmp_path / "whole" / "checksums.json").read_bytes() == linked
    flip_bit(tmp_path / "part" / "records")
    integrity.seal(tmp_path / "whole", {"shard": tmp_path / "part" / "records"})
    assert integrity.damage(tmp_path / "whole") == "shard: its bytes are not those that were written"


_WRITE = """
import resource, sys
from pathlib import Path
from bie_jax.files import integrity
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    integrity.write_bytes(path, bytes(50_000))
except integrity.DiskError as error:
    print(error)
"""


def test_a_disk_without_room_is_one_line_and_leaves_the_file_as_it_was(tmp_path):
    """A limit on the size of files stands for a full disk: the system says so in the same way."""
    path = tmp_path / "x.npz"
    integrity.write_bytes(path, b"before")
    done = subprocess.run([sys.executable, "-c", _WRITE, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: no room to write: 50 kB is needed, ")
    assert done.stdout.endswith("are free; make room, and the same command goes on\n")
    assert path.read_bytes() == b"before"
    integrity.verify(path, "")
    assert not list(tmp_path.glob(".partial-*"))


def test_what_libraries_say_of_a_full_disk_is_understood(tmp_path):
    with (
        pytest.raises(DiskError, match=r"x: no room to write: 2 GB is needed"),
        integrity.disk_errors(tmp_path / "x", 2 * 10**9),
    ):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: [OS error 28: ENOSPC No space left on device]")
    with (
        pytest.raises(DiskError, match=r"x: cannot be written \(Read-only file system"),
        integrity.disk_errors(tmp_path / "x", 0),
    ):
        raise OSError(30, "Read-only file system")
    with pytest.raises(ValueError, match="another"), integrity.disk_errors(tmp_path / "x", 0):
        raise ValueError("another")


def test_checksums_of_nonsense_are_one_line(tmp_path):
    integrity.write_text(tmp_path / "x.txt", "x")
    for content in ("", "{}", '{"files": 3, "xxh3_128": "0"}', "null"):
        (tmp_path / "checksums.json").write_text(content)
        with pytest.raises(DamagedFileError, match=r"checksums\.json is damaged: restore it"):
            integrity.verify(tmp_path / "x.txt", "")
    assert json.loads((tmp_path / "checksums.json").read_text()) is None

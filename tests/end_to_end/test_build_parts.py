"""One set by several processes: parts that are stopped and go on, and a join to the bytes that one process makes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from bie_jax.files.lock import locked, locked_together
from bie_jax.input.image_set import DamagedSetError, open_image_set
from data.fields.field_set import VERSION
from data.records import writer
from tests.end_to_end.commands import REPOSITORY, build

FIELDS = (2, 9, 4, 7)  # of each plate
BUILDING = f".building-screen-{VERSION}"

# Three fields a shard, so that parts begin and end within plates; what is slow can be killed in between.
PROGRAM = """
import sys, time
import data.records.writer, data.fields.maker
from data.build import main
data.records.writer.SHARD_BYTES = 9_000
examples = data.fields.maker.FieldMaker.examples
def slowly(maker, field):
    time.sleep(0.3)
    return examples(maker, field)
if sys.argv.pop(1) == "slow":
    data.fields.maker.FieldMaker.examples = slowly
if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(writer, "SHARD_BYTES", 9_000)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Four plates of several sizes, two channels."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for plate, count in enumerate(FIELDS):
        for site in range(count):
            for channel in "ab":
                path = folder / f"{plate}-{site}-{channel}.tif"
                pixels = np.random.default_rng([plate, site, ord(channel)]).integers(0, 4000, (24, 28))
                tifffile.imwrite(path, pixels.astype(np.uint16))
                rows.append({"path": path.name, "plate": f"P{plate}", "well": "B02", "site": site, "channel": channel})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def _arguments(table, folder):
    return "screen", f"--source={table}", f"--data-dir={folder / 'sets'}", "--illumination", "--workers=1"


def _contents(folder):
    """Of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_four_processes_of_which_one_is_killed_make_the_bytes_of_one(table, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    parts, one = tmp_path / "parts", tmp_path / "one"
    processes = [
        subprocess.Popen(
            [sys.executable, program, speed, *_arguments(table, parts), f"--part={number}/4"],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.PIPE, text=True,
        )
        for number, speed in enumerate(("fast", "fast", "slow", "fast"), start=1)
    ]  # fmt: skip
    done = build(*_arguments(table, one))
    assert done.returncode == 0, done.stderr[-2000:]
    building = parts / "sets" / BUILDING
    _wait_for((building / "shard-00004").exists)  # the first of the slow part's
    processes[2].send_signal(signal.SIGKILL)
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, -9, 0], errors
    assert not (building / "shard-00005").exists()

    early = build(*_arguments(table, parts), "--join")
    assert early.returncode == 1
    last = early.stderr.splitlines()[-1]
    assert (
        "--join: 7 of 8 shards are there; unfinished: 3/4 (1 shard, not there); the same command with --part=3/4"
        in last
    )
    kept = {path: path.stat().st_mtime_ns for path in building.glob("shard-*/records")}
    again = build(*_arguments(table, parts), "--part=3/4")
    assert again.returncode == 0, again.stderr
    assert "going on: 3 of 6 pieces are written already" in again.stdout
    assert "part 3/4 of screen is made: 2 of 8 shards" in again.stdout
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in building.glob("shard-*/records")}.items()

    joined = build(*_arguments(table, parts), "--join")
    assert joined.returncode == 0, joined.stderr
    assert _contents(parts) == _contents(one)
    assert os.listdir(parts / "sets") == ["screen"]
    assert len(open_image_set("screen", parts / "sets")) == sum(FIELDS)


def test_more_parts_than_shards(table, tmp_path):
    """A surplus part has nothing to do, which is no failure."""
    for number in range(1, 10):
        done = build(*_arguments(table, tmp_path), f"--part={number}/9")
        assert done.returncode == 0, done.stderr
    assert (
        sum("nothing to do" in build(*_arguments(table, tmp_path), f"--part={k}/9").stdout for k in range(1, 10)) == 1
    )
    assert build(*_arguments(table, tmp_path), "--join").returncode == 0
    late = build(*_arguments(table, tmp_path), "--part=2/9")
    assert (late.returncode, "is built already" in late.stdout) == (0, True)


def _refused(result, *texts):
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    for text in texts:
        assert text in last


def test_parts_that_do_not_fit_together_are_refused(table, tmp_path):
    arguments = _arguments(table, tmp_path)
    _refused(build(*arguments, "--join"), "0 of 8 shards are there", "not begun in parts", "--part=1/N")
    assert build(*arguments, "--part=1/2").returncode == 0
    # Of the light of the four plates it has that of its own fields: 2 + 9 and the first of the third plate.
    assert len(list((tmp_path / "sets" / BUILDING).glob("illumination-????.npy"))) == 3
    _refused(build(*arguments, "--part=2/3"), "was begun in 2 parts", "--part=1/2", "remove", "parts.json")
    for others in (("--part=2/2",), ("--join",), ()):  # without a flag it would make everything anew
        _refused(
            build(*arguments, "--crop=16", *others), "begun with no --crop, and here is --crop=16", "type the same"
        )
    _refused(build(*arguments, "--join"), "4 of 8 shards are there", "2/2 (4 shards, not there)", "--part=2/2")
    # The plain command makes what is missing, and joins.
    assert build(*arguments).returncode == 0
    assert os.listdir(tmp_path / "sets") == ["screen"]


def test_what_the_parts_left_out_is_listed_by_the_join(tmp_path):
    arguments = _six_fields(tmp_path)
    for site in (1, 5):
        (tmp_path / f"{site}.tif").write_bytes(b"")
    listed = [f"--skip-bad={tmp_path / 'bad.csv'}"]
    for part in ("1/2", "2/2"):
        done = build(*arguments, *listed, f"--part={part}")
        assert done.returncode == 0, done.stderr
        assert "; 1 left out, which --join lists; " in done.stdout
        assert not (tmp_path / "bad.csv").exists()
    _refused(build(*arguments, "--join"), "2 fields were left out", "1.tif: the file is empty; --skip-bad=FILE.csv")
    assert build(*arguments, *listed, "--join").returncode == 0
    lines = (tmp_path / "bad.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["source", f"{tmp_path / '1.tif'}", f"{tmp_path / '5.tif'}"]


def _six_fields(folder):
    """The files of one plate; the arguments that build it, in two shards."""
    for site in range(6):
        tifffile.imwrite(folder / f"{site}.tif", np.full((32, 42), site, np.uint16))
    rows = [{"path": f"{site}.tif", "plate": "P", "well": "B02", "site": site} for site in range(6)]
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return "screen", f"--source={folder / 'table.csv'}", f"--data-dir={folder / 'sets'}", "--workers=1"


def test_other_files_than_a_part_was_made_from(tmp_path):
    arguments = _six_fields(tmp_path)
    for part in ("1/2", "2/2"):
        assert build(*arguments, f"--part={part}").returncode == 0
    tifffile.imwrite(tmp_path / "5.tif", np.full((32, 42), 9, np.uint16))
    _refused(build(*arguments, "--join"), "2/2 (1 shard, made from other files or options than there are now)")


def test_a_part_that_another_process_makes(table, tmp_path):
    lock = tmp_path / "sets" / f"{BUILDING}-part-2.lock"
    with locked_together(lock):  # a part holds its own alone, and would not get this one
        _refused(build(*_arguments(table, tmp_path), "--part=2/4"), f"{lock}: process {os.getpid()} on ", "works there")
        assert build(*_arguments(table, tmp_path), "--part=1/4").returncode == 0
    with locked(tmp_path / "sets" / f"{BUILDING}.lock"):
        _refused(build(*_arguments(table, tmp_path), "--part=2/4"), f"{BUILDING}.lock: process {os.getpid()} on ")


def test_a_join_reads_no_records(table, tmp_path):
    """What a disk has done to them since is seen by whoever reads the image, as in any set."""
    arguments = _arguments(table, tmp_path)
    assert build(*arguments, "--part=1/1").returncode == 0
    records = tmp_path / "sets" / BUILDING / "shard-00000" / "records"
    content = bytearray(records.read_bytes())
    content[len(content) // 2] ^= 1
    records.write_bytes(content)
    assert build(*arguments, "--join").returncode == 0
    read = open_image_set("screen", tmp_path / "sets")
    with pytest.raises(DamagedSetError):
        read.images(range(3))


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["mine", "--part=5/4"], ["--part", "'5/4': expected K/N with K from 1 to N, such as 2/4"]),
        (["mine", "--part=0/4"], ["'0/4': expected K/N with K from 1"]),
        (["mine", "--part=x"], ["'x': expected K/N"]),
        (["mine", "--part=1/4", "--join"], ["--part=1/4 and --join exclude each other"]),
        (["simulated", "--part=1/4"], ["simulated takes no --part"]),
        (["simulated", "--join"], ["simulated takes no --join"]),
        (
            ["mine", "--data-dir=s3://bucket/sets"],
            ["s3://bucket/sets: a set is written to a folder, not to an address"],
        ),
    ],
)
def test_flags_that_mean_nothing(arguments, texts, tmp_path):
    _refused(build(*arguments, "--source=x.csv") if "mine" in arguments else build(*arguments), *texts)


def test_shards_may_lie_in_several_folders(table, tmp_path):
    """Symbolic links in the set's folder, to wherever there is room."""
    assert build(*_arguments(table, tmp_path)).returncode == 0
    images = open_image_set("screen", tmp_path / "sets").images(range(22))
    for number, path in enumerate(sorted((tmp_path / "sets/screen" / VERSION).glob("*.array_record-*"))):
        elsewhere = tmp_path / f"disk{number % 2}" / path.name
        elsewhere.parent.mkdir(exist_ok=True)
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    np.testing.assert_array_equal(open_image_set("screen", tmp_path / "sets").images(range(22)), images)
    assert Path(path).is_symlink()

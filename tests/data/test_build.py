import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bie_jax.image_set import open_image_set

REPOSITORY = Path(__file__).resolve().parents[2]


def _run(*arguments):
    command = [sys.executable, "-m", "data.build", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)


def _refused(result, *parts):
    """Exit status not 0, and one line that says why."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    for part in parts:
        assert part in last
    return last


@pytest.fixture(scope="module")
def bbbc021_source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    np.savez_compressed(
        folder / "bbbc021_subset.npz",
        images=np.arange(2 * 4 * 4 * 3, dtype=np.uint16).reshape(2, 4, 4, 3),
        channels=np.array(["DAPI", "Tubulin", "Actin"]),
        moa=np.array(["DMSO", "x"]),
        plate=np.array(["P1", "P1"]),
        well=np.array(["B02", "B03"]),
        site=np.array([1, 1]),
        cell=np.array([0, 0]),
    )
    (folder / "wells.csv").write_text("Plate,Well,Compound Name,Dose\nP1,B2,DMSO,\nP1,B3,a,1\n")
    return folder


def test_builds_then_says_that_it_is_there(bbbc021_source, tmp_path):
    first = _run("bbbc021", f"--source={bbbc021_source}", f"--data_dir={tmp_path}")
    assert first.returncode == 0, first.stderr
    for part in ("2 images 4 x 4 x 3 uint16 (12 bit), 1 plates, 2 wells, 1 sites", "DAPI: 0.1 %: 0"):
        assert part in first.stdout
    assert "build bbbc021: 100%" in first.stderr  # the progress bar
    assert open_image_set("bbbc021", tmp_path)[1][0, 0].tolist() == [48, 49, 50]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    start = time.perf_counter()
    second = _run("bbbc021", f"--data_dir={tmp_path}")  # needs no source to say so
    seconds = time.perf_counter() - start
    assert second.returncode == 0
    assert "is built already (images 4 x 4 x 3)" in second.stdout
    assert seconds < 10  # 1.5 s on an idle machine
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_damaged_source(bbbc021_source, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "wells.csv").write_bytes((bbbc021_source / "wells.csv").read_bytes())
    (source / "bbbc021_subset.npz").write_bytes((bbbc021_source / "bbbc021_subset.npz").read_bytes()[:300])
    result = _run("bbbc021", f"--source={source}", f"--data_dir={tmp_path / 'datasets'}")
    line = _refused(result, "data.build: ", "bbbc021_subset.npz: not a whole .npz file")
    assert result.stderr.strip() == line
    assert not (tmp_path / "datasets").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    result = _run("simulated", f"--data_dir={tmp_path / 'file' / 'datasets'}")
    assert result.stderr.strip() == _refused(result, "data.build: ", "Not a directory")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["cifar10"], ["invalid choice: 'cifar10'", "simulated", "bbbc021", "idr0093"]),
        (["bbbc021"], ["bbbc021 needs --source", "data/bbbc021/README.md"]),
        (["bbbc021", "--source=nowhere"], ["nowhere/bbbc021_subset.npz: no such file"]),
        (["bbbc021", "--source=nowhere", "--crop=8"], ["bbbc021 takes no --crop"]),
        (["simulated", "--source=x"], ["simulated takes no --source"]),
        (["idr0093", "--source=x.csv"], ["idr0093 needs --annotation", "data/idr0093/README.md"]),
        (["idr0093", "--source=x.csv", "--annotation=y.csv"], ["x.csv: no such file"]),
        (["idr0093", "--source=x.csv", "--annotation=y.csv", "--crop=big"], ["--crop", "invalid int value: 'big'"]),
    ],
)
def test_what_cannot_be_built(tmp_path, arguments, parts):
    _refused(_run(*arguments, f"--data_dir={tmp_path / 'datasets'}"), *parts)
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize("name", ["simulated", "bbbc021", "idr0093"])
def test_readme_of_each_set(name):
    """The messages send people there."""
    assert (REPOSITORY / "data" / name / "README.md").is_file()

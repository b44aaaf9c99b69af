import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bie_jax.input.image_set import SetNotBuiltError, open_image_set
from data.errors import BadInputError, BuildError
from data.records import writer as records
from data.records.description import Description
from data.records.writer import write_set
from data.studies.simulated.build import VERSION, build_simulated
from data.studies.simulated.simulation import Design

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[4]
COLUMNS = {"plate": str, "well": str, "site": int, "label": str, "source": str, "dose": float}


def _description(shape=(4, 6, 2), dtype="uint16"):
    return Description(
        name="simulated",
        version="1.0.0",
        kind="images",
        channel_names=("a", "b"),
        pixel_size_um=0.5,
        image_shape=shape,
        dtype=dtype,
        columns=COLUMNS,
        text="numbers",
        simulated=True,
    )


def _metadata(i):
    return {"plate": f"P{i % 2}", "well": "B02", "site": i, "label": "x", "source": f"image {i}", "dose": i / 3}


def _images(n, shape=(4, 6, 2), dtype=np.uint16):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (n, *shape), dtype, endpoint=True)


@dataclasses.dataclass(frozen=True)
class Given:
    """A maker whose parts are lists of examples; a part may be an exception instead."""

    def identity(self, part):
        return repr(part)

    def examples(self, part):
        if isinstance(part, Exception):
            raise part
        yield from part


def _parts(images, size=1):
    examples = [(image, _metadata(i)) for i, image in enumerate(images)]
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def _nothing_there(data_dir):
    with pytest.raises(SetNotBuiltError):
        open_image_set("simulated", data_dir)


@pytest.fixture
def small_shards(monkeypatch):
    """Four parts of (4, 6, 2) uint16 in each shard."""
    monkeypatch.setattr(records, "SHARD_BYTES", 4 * 96)


def test_statistics_of_a_set_by_plate_and_overall(tmp_path, small_shards):
    images = _images(11)
    write_set(_description(), _parts(images), Given(), tmp_path)
    found = open_image_set("simulated", tmp_path).statistics
    assert sorted(found["plates"]) == ["P0", "P1"]
    for statistics, chosen in (
        (found["overall"], images),
        (found["plates"]["P0"], images[::2]),
        (found["plates"]["P1"], images[1::2]),
    ):
        pixels = chosen.reshape(-1, 2)
        assert statistics["count"] == len(pixels)
        np.testing.assert_allclose(statistics["mean"], pixels.mean(axis=0))
        np.testing.assert_allclose(statistics["std"], pixels.std(axis=0))
        np.testing.assert_allclose(statistics["percentiles"]["99.9"], np.percentile(pixels, 99.9, axis=0))


def test_order_and_metadata_are_kept_over_shards(tmp_path, small_shards):
    images = _images(11)
    parts = _parts(images, size=2)
    directory = write_set(_description(), parts, Given(), tmp_path)
    assert directory == tmp_path / "simulated" / "1.0.0"
    assert len(list(directory.glob("*.array_record-*-of-00002"))) == 2
    read = open_image_set("simulated", tmp_path)
    np.testing.assert_array_equal(read.images(range(11)), images)
    np.testing.assert_array_equal(read.images([10, 0, 7]), images[[10, 0, 7]])
    assert read.metadata.to_dict("records") == [metadata for part in parts for _, metadata in part]
    assert [path.name for path in tmp_path.iterdir()] == ["simulated"]


def test_tfds_reads_it_too(tmp_path, small_shards):
    images = _images(6)
    directory = write_set(_description(), _parts(images), Given(), tmp_path)
    source = tfds.builder_from_directory(directory).as_data_source(split="images")
    assert len(source) == 6
    for i, example in enumerate(source):
        np.testing.assert_array_equal(example["image"], images[i])
        assert [name.decode() for name in example["channel_names"]] == ["a", "b"]
        assert example["source"].decode() == f"image {i}"


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_value_survives(tmp_path, dtype):
    """All 65,536 values of a uint16, both bytes of each."""
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    image = np.stack([values, values[::-1]], axis=-1).reshape(16, -1, 2)
    write_set(_description(image.shape, dtype), _parts([image]), Given(), tmp_path)
    read = open_image_set("simulated", tmp_path)
    assert read[0].dtype == dtype
    np.testing.assert_array_equal(read[0], image)
    assert read.statistics["overall"]["min"] == [0, 0]
    assert read.statistics["overall"]["max"] == [values[-1], values[-1]]
    assert read.bit_depth == (8 if dtype == "uint8" else 16)


def test_floats_survive_to_the_bit(tmp_path):
    image = np.random.default_rng(0).normal(scale=1e6, size=(4, 6, 2)).astype(np.float32)
    write_set(_description(dtype="float32"), _parts([image]), Given(), tmp_path)
    read = open_image_set("simulated", tmp_path)
    np.testing.assert_array_equal(read[0].view(np.uint32), image.view(np.uint32))
    np.testing.assert_allclose(read.statistics["overall"]["mean"], image.mean(axis=(0, 1)), rtol=1e-6)


def test_twelve_bits_in_sixteen_are_seen(tmp_path):
    image = np.full((4, 6, 2), 4095, np.uint16)
    write_set(_description(), _parts([image]), Given(), tmp_path)
    assert open_image_set("simulated", tmp_path).bit_depth == 12


@pytest.mark.parametrize(
    ("image", "metadata", "message"),
    [
        (
            _images(1, (6, 4, 2))[0],
            _metadata(0),
            r"image 0: the image is \(6, 4, 2\) uint16, the set's are \(4, 6, 2\)",
        ),
        (_images(1)[0].astype(np.int32), _metadata(0), r"image 0: the image is \(4, 6, 2\) int32.*plate P0, well B02"),
        (_images(1)[0], {**_metadata(0), "extra": 1}, "image 0: columns are .*extra"),
        (_images(1)[0], {"plate": "P0", "source": "image 0"}, "image 0: columns are"),
    ],
    ids=["shape", "dtype", "column too many", "columns missing"],
)
def test_what_is_not_as_described_is_refused(tmp_path, image, metadata, message):
    with pytest.raises(BuildError, match=message):
        write_set(_description(), [[(image, metadata)]], Given(), tmp_path)
    _nothing_there(tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_to_write_is_refused(tmp_path):
    with pytest.raises(BuildError, match="nothing to write into 'simulated'"):
        write_set(_description(), [], Given(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_bad_part_stops_the_build_or_is_listed(tmp_path, small_shards):
    images = _images(10)
    parts = _parts(images)
    parts[6] = BadInputError("f6.tif", "plate P0, well B02", "damaged")
    with pytest.raises(BadInputError, match=r"f6.tif: damaged \(plate P0, well B02\)"):
        write_set(_description(), parts, Given(), tmp_path)
    _nothing_there(tmp_path)

    listed = tmp_path / "skipped.csv"
    directory = write_set(_description(), parts, Given(), tmp_path, skip_bad=listed)
    assert listed.read_text().splitlines() == ["source,place,problem", 'f6.tif,"plate P0, well B02",damaged']
    assert json.loads((directory / "build.json").read_text())["skipped"] == [
        ["f6.tif", "plate P0, well B02", "damaged"]
    ]
    read = open_image_set("simulated", tmp_path)
    np.testing.assert_array_equal(read.images(range(9)), np.delete(images, 6, axis=0))


def test_only_bad_parts_make_no_set(tmp_path):
    with pytest.raises(BuildError, match="no part of 'simulated' could be read; 1 were left out"):
        write_set(_description(), [BadInputError("f", "", "x")], Given(), tmp_path, skip_bad=tmp_path / "s.csv")
    _nothing_there(tmp_path)


def test_a_mended_part_is_gone_on_with(tmp_path, small_shards):
    """What was finished before the bad part is not done again."""
    images = _images(10)
    parts = _parts(images)
    broken = [*parts[:6], BadInputError("f6.tif", "", "damaged"), *parts[7:]]
    with pytest.raises(BadInputError):
        write_set(_description(), broken, Given(), tmp_path)
    (first,) = (tmp_path / ".building-simulated-1.0.0").glob("shard-*")
    before = (first / "records").stat().st_mtime_ns
    directory = write_set(_description(), parts, Given(), tmp_path)
    assert (directory / "simulated-images.array_record-00000-of-00003").stat().st_mtime_ns == before
    np.testing.assert_array_equal(open_image_set("simulated", tmp_path).images(range(10)), images)


def test_a_changed_part_is_written_again(tmp_path, small_shards):
    images = _images(10)
    parts = _parts(images)
    with pytest.raises(BadInputError):
        write_set(_description(), [*parts[:6], BadInputError("f6.tif", "", "damaged")], Given(), tmp_path)
    images[1] += 1
    write_set(_description(), _parts(images), Given(), tmp_path)
    np.testing.assert_array_equal(open_image_set("simulated", tmp_path).images(range(10)), images)


def test_the_number_of_processes_changes_no_byte(tmp_path, small_shards):
    """Two builds in one process and one in two, each in its own folder."""
    design = Design(plates=2, control_wells=2, wells_per_sirna=1, sites=1, image_size=32)
    contents = []
    for number, num_workers in enumerate((1, 1, 2)):
        directory = build_simulated(tmp_path / str(number), design, num_workers)
        contents.append({path.name: path.read_bytes() for path in sorted(directory.iterdir())})
    assert len([name for name in contents[0] if "array_record" in name]) > 3
    assert contents[0] == contents[1] == contents[2]


# Workers import it too, so they are as slow as it is told to be.
PROGRAM = """
import resource, signal, sys, time
import data.records.writer, data.studies.simulated.build as build
from data.studies.simulated.simulation import Design
data.records.writer.SHARD_BYTES = 1 << 16  # see `_build`
simulate = build.simulate_site
def slowly(design, well, site):
    if well.index >= 15:
        time.sleep(0.5)
    return simulate(design, well, site)
build.simulate_site = slowly
if __name__ == "__main__":
    # What runs these tests in the background may ignore Ctrl-C, and its children would too. Set here and not between
    # fork and exec: where jax has threads, a fork that runs Python is warned of.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.argv[1] == "limited":
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    design = Design(plates=1, control_wells=2, wells_per_sirna=1, sites=1, image_size=32)
    try:
        build.build_simulated(sys.argv[2], design, num_workers=int(sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(3)
"""


def _started(program, *arguments):
    """A build in a process group of its own, as a shell starts one."""
    command = [sys.executable, program, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )


def _build(data_dir):
    """The set of `PROGRAM` in this process, where no image is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "SHARD_BYTES", 1 << 16)
        build_simulated(data_dir, Design(plates=1, control_wells=2, wells_per_sirna=1, sites=1, image_size=32), 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A build that nothing has stopped."""
    data_dir = tmp_path_factory.mktemp("whole")
    _build(data_dir)
    return data_dir


def _wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def _is_running(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["kill", "term", "ctrl-c"])
def test_a_stopped_build_goes_on_to_the_same_bytes(tmp_path, whole, how, num_workers):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    stopped = tmp_path / "stopped"
    with _started(program, "slow", stopped, num_workers) as process:
        building = stopped / f".building-simulated-{VERSION}"
        _wait_for(lambda: any(building.glob("shard-*")))
        process.send_signal(how)
        process.wait()
        # No worker outlives its parent.
        _wait_for(lambda: not _is_running(process.pid))
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 3, signal.SIGINT: 3}[how]
    _nothing_there(stopped)
    kept = {(path / "records").stat().st_mtime_ns for path in building.glob("shard-*")}
    assert kept

    _build(stopped)
    assert [path.name for path in stopped.iterdir()] == ["simulated"]
    sets = [top / "simulated" / VERSION for top in (whole, stopped)]
    files = [{path.name: path.read_bytes() for path in directory.iterdir()} for directory in sets]
    assert files[0] == files[1]
    assert kept <= {path.stat().st_mtime_ns for path in sets[1].iterdir()}


def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path):
    """A limit on the size of files stands in for the disk: the system answers a write in the same way."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), "limited", str(tmp_path / "sets"), "1"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode not in (0, 3)
    assert result.stderr.splitlines()[-1].startswith(
        "data.errors.BuildError: cannot write (write() failed: File too large"
    )
    _nothing_there(tmp_path / "sets")


def test_a_set_is_read_whatever_its_columns_are_called(tmp_path):
    """The reader looks for the pixels among the columns: names and contents that look like them must not mislead it."""
    columns = {**COLUMNS, "a": str, "imag": int, "image_name": str, "zz": float}
    description = dataclasses.replace(_description(), columns=columns)
    images = _images(3)
    parts = [
        [(image, {**_metadata(i), "a": "\n\x05image\x12" * 40, "imag": -1, "image_name": "image" * i, "zz": 0.0})]
        for i, image in enumerate(images)
    ]
    write_set(description, parts, Given(), tmp_path)
    np.testing.assert_array_equal(open_image_set("simulated", tmp_path).images(range(3)), images)

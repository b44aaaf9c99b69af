import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bie_jax.image_set import SetNotBuiltError, open_image_set
from data.records import PERCENTILES, BuildError, Description, summarize, write_set

REPOSITORY = Path(__file__).resolve().parents[2]
COLUMNS = {"plate": str, "well": str, "site": int, "label": str, "source": str, "dose": float}


def _description(n, shape=(4, 6, 2), dtype="uint16"):
    return Description(
        name="simulated",
        version="1.0.0",
        channel_names=("a", "b"),
        pixel_size_um=0.5,
        bit_depth=16,
        image_shape=shape,
        dtype=dtype,
        columns=COLUMNS,
        num_examples=n,
        text="numbers",
        simulated=True,
    )


def _metadata(i):
    return {"plate": f"P{i % 2}", "well": "B02", "site": i, "label": "x", "source": f"image {i}", "dose": i / 3}


def _images(n, shape=(4, 6, 2), dtype=np.uint16):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (n, *shape), dtype, endpoint=True)


def _nothing_there(data_dir):
    with pytest.raises(SetNotBuiltError):
        open_image_set("simulated", data_dir)


def _histogram(pixels):
    """[N, C] values -> [C, 65536]."""
    return np.stack([np.bincount(channel, minlength=65536) for channel in pixels.T])


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 12345])
def test_statistics_are_those_of_all_pixels(count):
    rng = np.random.default_rng(count)
    pixels = np.stack(
        [
            rng.integers(0, 65536, count),  # spread out, gaps between values
            rng.poisson(100, count),  # many ties
            np.full(count, 65000),  # constant and bright, where E[x^2] - E[x]^2 loses its digits
            np.zeros(count, int),
        ],
        axis=1,
    )
    found = summarize(_histogram(pixels))
    assert found["count"] == count
    np.testing.assert_allclose(found["mean"], pixels.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found["std"], pixels.std(axis=0), rtol=1e-12)
    assert found["std"][2:] == [0.0, 0.0]
    assert found["min"] == pixels.min(axis=0).tolist()
    assert found["max"] == pixels.max(axis=0).tolist()
    for q in PERCENTILES:
        np.testing.assert_allclose(found["percentiles"][str(q)], np.percentile(pixels, q, axis=0), rtol=1e-12)


def test_statistics_of_a_set_by_plate_and_overall(tmp_path):
    images = _images(5)
    write_set(_description(5), ((image, _metadata(i)) for i, image in enumerate(images)), tmp_path)
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


def test_order_and_metadata_are_kept(tmp_path):
    images = _images(11)
    examples = [(image, _metadata(i)) for i, image in enumerate(images)]
    directory = write_set(_description(11), examples, tmp_path)
    assert directory == tmp_path / "simulated" / "1.0.0"
    read = open_image_set("simulated", tmp_path)
    np.testing.assert_array_equal(read.images(range(11)), images)
    assert read.metadata.to_dict("records") == [metadata for _, metadata in examples]
    assert [path.name for path in tmp_path.iterdir()] == ["simulated"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_value_survives(tmp_path, dtype):
    """All 65,536 values of a uint16, both bytes of each."""
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    image = np.stack([values, values[::-1]], axis=-1).reshape(16, -1, 2)
    write_set(_description(1, image.shape, dtype), [(image, _metadata(0))], tmp_path)
    read = open_image_set("simulated", tmp_path)
    assert read[0].dtype == dtype
    np.testing.assert_array_equal(read[0], image)
    assert read.statistics["overall"]["min"] == [0, 0]
    assert read.statistics["overall"]["max"] == [values[-1], values[-1]]


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([(_images(1, (6, 4, 2))[0], _metadata(0))], r"image 0: image is \(6, 4, 2\) uint16, not"),
        ([(_images(1)[0].astype(np.int32), _metadata(0))], r"image 0: image is \(4, 6, 2\) int32, not"),
        ([(_images(1)[0], {**_metadata(0), "extra": 1})], "image 0: columns are .*extra"),
        ([(_images(1)[0], {"plate": "P0", "source": "image 0"})], "image 0: columns are"),
        ([], "0 images came, 1 were announced"),
        ([(_images(1)[0], _metadata(i)) for i in range(2)], "2 images came, 1 were announced"),
    ],
    ids=["shape", "dtype", "column too many", "columns missing", "too few", "too many"],
)
def test_what_is_not_as_described_is_refused(tmp_path, examples, message):
    with pytest.raises(BuildError, match=message):
        write_set(_description(1), examples, tmp_path)
    _nothing_there(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_stopped_build_leaves_nothing(tmp_path):
    def examples():
        yield _images(1)[0], _metadata(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(_description(2), examples(), tmp_path)
    _nothing_there(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["while images come", "before the rename"])
def test_a_killed_build_leaves_no_set_that_can_be_read(tmp_path, moment):
    """SIGKILL gives no chance to tidy up: what it leaves must neither look like a set nor stop the next try."""
    program = f"""
import os, time
import data.records, data.simulated.build as build
from data.simulated.simulation import Design
def stop(*arguments, **keywords):
    os.write(1, b"now\\n")  # not print: stdout is silenced while TFDS writes
    time.sleep(60)
if {moment!r} == "before the rename":
    data.records.pd.DataFrame.to_parquet = stop
else:
    simulate = build.simulate_site
    build.simulate_site = lambda design, well, site: stop() if well.index == 3 else simulate(design, well, site)
build.build_simulated({str(tmp_path)!r}, Design(plates=1, control_wells=2, wells_per_sirna=1, sites=1, image_size=32))
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        reached = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert reached == b"now\n"
    assert [path.name.startswith(".building-simulated-") for path in tmp_path.iterdir()] == [True]
    _nothing_there(tmp_path)
    write_set(_description(1), [(_images(1)[0], _metadata(0))], tmp_path)
    assert len(open_image_set("simulated", tmp_path)) == 1


def test_a_set_is_read_whatever_its_columns_are_called(tmp_path):
    """The reader looks for the pixels among the columns: names and contents that look like them must not mislead it."""
    columns = {**COLUMNS, "a": str, "imag": int, "image_name": str, "zz": float}
    description = dataclasses.replace(_description(3), columns=columns)
    images = _images(3)
    examples = [
        (image, {**_metadata(i), "a": "\n\x05image\x12" * 40, "imag": -1, "image_name": "image" * i, "zz": 0.0})
        for i, image in enumerate(images)
    ]
    write_set(description, examples, tmp_path)
    np.testing.assert_array_equal(open_image_set("simulated", tmp_path).images(range(3)), images)

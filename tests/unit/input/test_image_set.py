import concurrent.futures
import json
import multiprocessing
import pickle
import re
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bie_jax.input.image_set import DamagedSetError, SetNotBuiltError, find_image, open_image_set


@pytest.fixture(scope="module")
def tfds_source(tiny_set):
    """The same set as TFDS itself reads it: the oracle."""
    return tfds.builder_from_directory(str(tiny_set.directory)).as_data_source("images")


def test_reads_what_tfds_reads(tiny_set, tfds_source):
    assert len(tiny_set) == len(tfds_source) == len(tiny_set.metadata)
    for row in range(len(tiny_set)):
        expected = tfds_source[row]
        image = tiny_set[row]
        assert image.dtype == expected["image"].dtype == tiny_set.dtype
        assert image.shape == tiny_set.image_shape
        assert image.flags.aligned
        np.testing.assert_array_equal(image, expected["image"])
        line = tiny_set.metadata.iloc[row]
        assert set(line.index) == expected.keys() - {"image", "channel_names"}
        for name, value in line.items():
            if isinstance(value, str):
                assert expected[name].decode() == value
            else:  # a tf.train.Example keeps floats in 32 bits, the table in 64
                assert expected[name] == (np.float32(value) if isinstance(value, float) else value)


def test_rows_in_any_order(tiny_set):
    rows = [5, 0, 5, len(tiny_set) - 1]
    images = tiny_set.images(np.array(rows))
    assert images.shape == (4, *tiny_set.image_shape)
    for image, row in zip(images, rows, strict=True):
        np.testing.assert_array_equal(image, tiny_set[row])


@pytest.mark.parametrize("row", [-1, 10**6])
def test_rows_that_are_not_there(tiny_set, row):
    with pytest.raises(IndexError, match=f"row {row} of the set 'simulated', which has {len(tiny_set)}"):
        tiny_set[row]


def test_iteration_ends(tiny_set):
    assert sum(1 for _ in tiny_set) == len(tiny_set)


@pytest.mark.parametrize("read_before", [False, True])
def test_pickle(datasets, read_before):
    image_set = open_image_set("simulated", datasets)
    if read_before:
        image_set[0]
    copy = pickle.loads(pickle.dumps(image_set))
    np.testing.assert_array_equal(copy[3], image_set[3])
    assert copy.metadata.equals(image_set.metadata)
    assert copy.channel_names == image_set.channel_names


def test_threads(datasets, tiny_set):
    """Eight at once, on a set that none has opened yet."""
    expected = tiny_set.images(range(len(tiny_set)))
    rows = np.random.default_rng(0).integers(0, len(tiny_set), 800).tolist()
    image_set = open_image_set("simulated", datasets)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for row, image in zip(rows, pool.map(image_set.__getitem__, rows), strict=True):
            np.testing.assert_array_equal(image, expected[row])


def _total(image_set, row):
    return int(image_set[row].sum())


def test_spawned_process(tiny_set):
    tiny_set[0]  # opened here; the other process must open it itself
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(_total, tiny_set, 7).result() == tiny_set[7].sum(dtype=int)


def test_records_without_an_image():
    label = b"\x0a\x05label\x12\x05\x0a\x03\x0a\x01x"
    body = b"\x0a" + bytes([len(label)]) + label
    with pytest.raises(ValueError, match="without an image"):
        find_image(b"\x0a" + bytes([len(body)]) + body)
    with pytest.raises(ValueError, match="expected the tag 0xa"):
        find_image(b"\x08\x01")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("bbbc021", "python -m data.build bbbc021 --source="),
        ("idr0093", "python -m data.build idr0093 --source=FOLDER --annotation="),
    ],
)
def test_a_set_that_is_not_built(datasets, name, command):
    with pytest.raises(SetNotBuiltError, match=re.escape(command)) as caught:
        open_image_set(name, datasets)
    message = str(caught.value)
    for part in (repr(name), datasets, "there are simulated", f"data/studies/{name}/README.md"):
        assert part in message
    assert "\n" not in message


def test_a_folder_without_sets(tmp_path):
    with pytest.raises(SetNotBuiltError, match=r"no built sets.*python -m data.build simulated"):
        open_image_set("simulated", tmp_path / "nowhere")


def test_a_name_that_no_builder_has(datasets):
    with pytest.raises(
        SetNotBuiltError, match=r"'imagenet' is not built.*python -m data.build imagenet --source=IMAGES"
    ):
        open_image_set("imagenet", datasets)


def test_a_half_built_set_is_not_built(tmp_path):
    """What a killed build can leave under another name is not taken for a set, nor is an empty version."""
    (tmp_path / ".building-simulated-x" / "simulated" / "1.0.0").mkdir(parents=True)
    (tmp_path / "simulated" / "1.0.0").mkdir(parents=True)
    with pytest.raises(SetNotBuiltError, match="no built sets"):
        open_image_set("simulated", tmp_path)


def test_the_newest_version_is_opened(datasets, tiny_set, tmp_path):
    for version in ("1.0.0", "1.9.0", "1.10.0"):
        (tmp_path / "simulated").mkdir(exist_ok=True)
        (tmp_path / "simulated" / version).symlink_to(tiny_set.directory)
    assert open_image_set("simulated", tmp_path).directory.name == "1.10.0"


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_shard_that_was_cut_off_is_never_read_as_images(tiny_set, tmp_path, kept):
    folder = tmp_path / "simulated" / "1.0.0"
    shutil.copytree(tiny_set.directory, folder)
    (shard,) = folder.glob("*.array_record*")
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content))])

    def read_all():
        for row in range(len(image_set)):
            np.testing.assert_array_equal(image_set[row], tiny_set[row])

    with pytest.raises(DamagedSetError, match=rf"1\.0\.0 is damaged: {shard.name}: it has .* bytes, .* were written;"):
        open_image_set("simulated", tmp_path)
    # Of a set that an earlier version wrote neither lengths nor checksums are known.
    (folder / "checksums.json").unlink()
    (folder / "image_checksums.npy").unlink()
    statistics = json.loads((folder / "statistics.json").read_text())
    del statistics["fingerprint"]
    (folder / "statistics.json").write_text(json.dumps(statistics))
    image_set = open_image_set("simulated", tmp_path)
    with pytest.raises(DamagedSetError, match=r"1\.0\.0: .*; copy the set again, or remove its folder and build it"):
        read_all()


@pytest.mark.parametrize("data_dir", ["gs://bucket/sets", "s3://bucket/sets", "https://server/sets"])
def test_an_address_is_no_folder(data_dir):
    with pytest.raises(SetNotBuiltError, match=rf"config\.data\.data_dir={data_dir}: .* mount the bucket .* or copy"):
        open_image_set("simulated", data_dir)


def test_some_channels_in_another_order_under_other_names(tiny_set):
    third, first = tiny_set.channel_names[2], tiny_set.channel_names[0]
    chosen = tiny_set.with_channels({third: "x", first: first})
    assert (chosen.channel_names, chosen.image_shape) == (("x", first), (*tiny_set.image_shape[:2], 2))
    rows = [7, 0]
    np.testing.assert_array_equal(chosen.images(rows), tiny_set.images(rows)[..., [2, 0]])
    np.testing.assert_array_equal(chosen[7], tiny_set[7][..., [2, 0]])
    for ours, whole in (
        (chosen.statistics["overall"], tiny_set.statistics["overall"]),
        (chosen.intensities["plates"]["SIM002"], tiny_set.statistics["plates"]["SIM002"]),
    ):
        assert ours["mean"] == [whole["mean"][2], whole["mean"][0]]
        assert ours["percentiles"]["99"] == [whole["percentiles"]["99"][2], whole["percentiles"]["99"][0]]
        assert ours["count"] == whole["count"]


def test_a_part_is_the_images_of_its_rows_and_a_part_of_it_too(tiny_set):
    rows = np.array([9, 2, 5, 11])
    part = tiny_set.part(rows)
    assert len(part) == 4
    assert part.metadata["source"].tolist() == tiny_set.metadata["source"].iloc[rows].tolist()
    np.testing.assert_array_equal(part.metadata.index, range(4))
    np.testing.assert_array_equal(part.images(np.arange(4)), tiny_set.images(rows))
    np.testing.assert_array_equal(part[3], tiny_set[11])
    of_part = part.part(np.array([3, 1]))
    np.testing.assert_array_equal(of_part.images(np.arange(2)), tiny_set.images(np.array([11, 2])))
    assert part.statistics == tiny_set.statistics
    assert part.fingerprint == tiny_set.fingerprint
    with pytest.raises(IndexError, match="row 4 of the set 'simulated', which has 4"):
        part[4]
    third = tiny_set.channel_names[2]
    np.testing.assert_array_equal(part.with_channels({third: "x"})[0], tiny_set[9][..., [2]])

import io
import json
import pickle
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

from data.errors import BadInputError, BuildError
from data.fields.index import assemble
from data.records.description import Description
from data.records.writer import write_set
from data.sources.tfds_set import TfdsPlane, index_tfds

COUNTS = {"train": 3, "test": 2}


def _write(data_dir, features, make, file_format="array_record"):
    """A set as anybody may have written one: `make(i)` is an example; splits as in `COUNTS`."""

    def info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True, description="numbers"
        )

    def examples(self, start, stop):
        return ((i, make(i)) for i in range(start, stop))

    def splits(self, download_manager):
        ends = np.cumsum(list(COUNTS.values())).tolist()
        return {name: examples(self, end - COUNTS[name], end) for name, end in zip(COUNTS, ends, strict=True)}

    body = {
        "name": "anybodys",
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_split_generators": splits,
        "_generate_examples": examples,
    }
    with registered.skip_registration():
        builder = type("Anybodys", (tfds.core.GeneratorBasedBuilder,), body)(
            data_dir=str(data_dir), file_format=file_format
        )
    tfds.disable_progress_bar()
    builder.download_and_prepare()
    return Path(builder.data_path)


IMAGES = np.random.default_rng(0).integers(0, 65536, (5, 4, 6, 2), np.uint16)
IMAGES[0, 0, 0] = 300, 65535
FEATURES = {
    "image": tfds.features.Tensor(shape=(4, 6, 2), dtype=np.uint16, encoding=tfds.features.Encoding.BYTES),
    "label": tfds.features.ClassLabel(names=["cat", "dog"]),
    "Gene Symbol": tfds.features.Text(),
    "dose": tfds.features.Scalar(np.float64),
    "control": tfds.features.Scalar(np.bool_),
    "source": tfds.features.Text(),
    "box": tfds.features.BBoxFeature(),
}


def _example(i):
    return {
        "image": IMAGES[i],
        "label": i % 2 if i else -1,
        "Gene Symbol": f"ä{i}",
        "dose": i / 4,
        "control": i == 1,
        "source": f"file {i}",
        "box": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
    }


@pytest.fixture(scope="module")
def anybodys(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("tfds"), FEATURES, _example)


def test_fields_metadata_and_pixels(anybodys):
    index = index_tfds(anybodys)
    assert index.channels == ("0", "1")
    assert [str(field) for field in index.fields] == [f"plate anybodys, well , site {site}" for site in range(1, 6)]
    kinds = {"label": str, "gene_symbol": str, "dose": float, "control": int, "given_source": str, "split": str}
    assert index.columns == kinds
    assert index.fields[1].metadata == {
        "label": "dog",
        "gene_symbol": "ä1",
        "dose": 0.25,
        "control": 1,
        "given_source": "file 1",
        "split": "train",
    }
    assert [field.metadata["label"] for field in index.fields] == ["", "dog", "cat", "dog", "cat"]
    assert [field.metadata["split"] for field in index.fields] == ["train"] * 3 + ["test"] * 2
    assert [file for file, _ in index.ignored] == [f"{anybodys}:box"]
    for field, image in zip(index.fields, IMAGES, strict=True):
        np.testing.assert_array_equal(next(assemble(field, ("0", "1"), 0, 0))[0], image)
    plane = index.fields[4].planes["1", 0, 0]
    assert plane.source == f"{anybodys}:test[1]"
    assert pickle.loads(pickle.dumps(plane)) == plane


@pytest.mark.parametrize(
    ("dtype", "count", "names"),
    [(np.uint8, 3, ("R", "G", "B")), (np.uint16, 4, ("R", "G", "B", "A")), (np.uint16, 1, ("0",))],
)
def test_pictures(tmp_path, dtype, count, names):
    pixels = (IMAGES[:, :, :, [0, 1, 0, 1]][..., :count] >> (8 if dtype == np.uint8 else 0)).astype(dtype)
    stored = pixels[..., 0] if count == 1 else pixels
    path = _write(
        tmp_path,
        {"image": tfds.features.Image(shape=(None, None, count), dtype=dtype)},
        lambda i: {"image": io.BytesIO(imagecodecs.png_encode(np.ascontiguousarray(stored[i])))},
    )
    index = index_tfds(path)
    assert index.channels == names
    for field, image in zip(index.fields, pixels, strict=True):
        np.testing.assert_array_equal(next(assemble(field, names, 0, 0))[0], image)


def test_a_picture_of_fewer_colors_than_said(tmp_path):
    path = _write(
        tmp_path,
        {"image": tfds.features.Image(shape=(None, None, 3))},
        lambda i: {"image": io.BytesIO(imagecodecs.jpeg8_encode(np.full((8, 8), 9, np.uint8)))},
    )
    with pytest.raises(BadInputError, match=r"train\[0\]: the image is \(8, 8, 1\): it has no channel 1"):
        next(assemble(index_tfds(path).fields[0], ("R", "G", "B"), 0, 0))


class Given:
    """Makes what it is given."""

    def identity(self, part):
        return repr(part)

    def examples(self, part):
        yield part


@pytest.mark.parametrize("site", [7, None])
def test_a_set_of_our_own(tmp_path, site):
    columns = {"plate": str, "well": str, "site": int, "label": str, "source": str}
    parts = [
        (
            IMAGES[i],
            {"plate": f"P{i % 2}", "well": "AF48", "site": site or i, "label": "x", "source": f"{i}.tif"},
        )
        for i in range(5)
    ]
    description = Description(
        "ours", "1.0.0", "images", ("DNA", "RNA"), None, (4, 6, 2), "uint16", columns, "numbers", False
    )
    index = index_tfds(write_set(description, parts, Given(), tmp_path))
    assert index.channels == ("DNA", "RNA")
    order = [0, 2, 4, 1, 3]  # by plate
    assert [field.plate for field in index.fields] == ["P0"] * 3 + ["P1"] * 2
    assert [field.site for field in index.fields] == [site or i for i in order]  # a site may have several images
    assert [field.metadata["given_source"] for field in index.fields] == [f"{i}.tif" for i in order]
    for field, i in zip(index.fields, order, strict=True):
        assert field.well == "AF48"
        np.testing.assert_array_equal(next(assemble(field, ("DNA", "RNA"), 0, 0))[0], IMAGES[i])


def test_a_truncated_set(anybodys, tmp_path):
    path = tmp_path / "1.0.0"
    shutil.copytree(anybodys, path)
    index = index_tfds(path)
    (shard,) = path.glob("*test*")
    content = shard.read_bytes()
    broken = tmp_path / "broken" / "1.0.0"
    shutil.copytree(anybodys, broken)
    (broken / shard.name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BuildError, match=r"broken/1.0.0:test\[0\]: damaged"):
        index_tfds(broken)
    field = index.fields[4]
    plane = TfdsPlane(broken, "test", 1, 0)
    with pytest.raises(BadInputError, match=r"test\[1\]: damaged"):
        plane.read()
    before = field.planes["0", 0, 0].identity()
    (path / "dataset_info.json").write_text("{} ")
    assert field.planes["0", 0, 0].identity() != before
    (broken / shard.name).unlink()
    absent = tmp_path / "absent" / "1.0.0"
    shutil.copytree(broken, absent)
    with pytest.raises(BuildError, match=r"absent/1.0.0/.*: cannot be opened: No such file"):
        index_tfds(absent)


def test_records_of_other_channels_are_refused(tmp_path):
    names = tfds.features.Sequence(tfds.features.Text())
    path = _write(
        tmp_path,
        {"image": FEATURES["image"], "channel_names": names},
        lambda i: {"image": IMAGES[i], "channel_names": ["DNA", "RNA" if i < 4 else "ER"]},
    )
    with pytest.raises(BuildError, match=r"test\[1\]: has the channels \('DNA', 'ER'\), others \('DNA', 'RNA'\)"):
        index_tfds(path)


@pytest.mark.parametrize("key", ["pythonClassName", "type"])
def test_no_module_of_anybody_is_imported(anybodys, tmp_path, key):
    path = tmp_path / "1.0.0"
    shutil.copytree(anybodys, path)
    features = json.loads((path / "features.json").read_text())
    features["featuresDict"]["features"]["dose"][key] = "antigravity.Feature"
    (path / "features.json").write_text(json.dumps(features))
    with pytest.raises(BuildError, match=r"features.json names antigravity.Feature"):
        index_tfds(path)
    inner = {"content": json.dumps({key: "antigravity.Feature"})}
    (path / "features.json").write_text(json.dumps([inner]))
    with pytest.raises(BuildError, match=r"features.json names antigravity.Feature"):
        index_tfds(path)


SQUARE = tfds.features.Tensor(shape=(2, 2), dtype=np.uint8)


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        ({"image": tfds.features.Tensor(shape=(5,), dtype=np.uint8)}, "expected a feature image"),
        ({"picture": SQUARE}, "expected a feature image"),
        ({"image": tfds.features.Text()}, "expected a feature image"),
        ({"image": SQUARE, "site": tfds.features.Text()}, "no whole number"),
        ({"image": SQUARE, "well": tfds.features.Text()}, r"train\[0\]: well 'text'"),
        ({"image": SQUARE, "Dose": tfds.features.Text(), "dose": tfds.features.Text()}, "two would be called the same"),
    ],
)
def test_sets_that_are_refused(tmp_path, features, problem):
    def example(i):
        return {name: np.zeros(f.shape, np.uint8) if f.shape else "text" for name, f in features.items()}

    with pytest.raises(BuildError, match=problem):
        index_tfds(_write(tmp_path, features, example))


def test_a_site_below_zero(tmp_path):
    features = {"image": SQUARE, "site": tfds.features.Scalar(np.int64)}
    path = _write(tmp_path, features, lambda i: {"image": np.zeros((2, 2), np.uint8), "site": i - 1})
    with pytest.raises(BuildError, match="the feature site is -1, expected whole numbers from 0"):
        index_tfds(path)


def test_what_is_no_set(anybodys, tmp_path):
    with pytest.raises(BuildError, match=r"no TFDS set, a folder with dataset_info.json"):
        index_tfds(tmp_path)
    path = tmp_path / "1.0.0"
    shutil.copytree(anybodys, path)
    info = json.loads((path / "dataset_info.json").read_text())
    (path / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(BuildError, match="only ArrayRecord is read"):
        index_tfds(path)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "features.json").write_text('{"a"')
    with pytest.raises(BuildError, match="no TFDS set"):
        index_tfds(tmp_path / "half")

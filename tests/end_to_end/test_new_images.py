"""Images that a run was not trained on: sets, folders, arrays; whose intensities they get, and what a kill leaves."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile

import bie_jax
from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.embedding import (
    Controls,
    Embedder,
    embed_image_set,
    parts,
    read_embeddings,
    write_embeddings,
    write_new_embeddings,
)
from bie_jax.files import integrity
from bie_jax.input.image_set import open_image_set
from bie_jax.training.writers.stop_signal import Interrupted
from data.records.writer import Description, write_set
from tests.end_to_end.commands import REPOSITORY
from tests.once import made_once

_COLUMNS = {"plate": str, "well": str, "site": int, "label": str, "source": str}
_BRIGHTER = (2, 100)  # gain and offset, counts


@dataclasses.dataclass(frozen=True)
class _Again:
    """The images of a set once more: other plates, counts and channels."""

    images: np.ndarray
    metadata: pd.DataFrame
    prefix: str
    gain: int = 1
    offset: int = 0

    def identity(self, part):
        return str(part)

    def examples(self, part):
        known = self.metadata.iloc[part]
        image = (self.images[part].astype(np.int64) * self.gain + self.offset).astype(np.uint16)
        place = {name: kind(known[name]) for name, kind in _COLUMNS.items()}
        yield image, place | {"plate": self.prefix + known["plate"]}


def _write(folder, name, channel_names, maker, pixel_size_um=0.65):
    shape = maker.images.shape[1:]
    description = Description(
        name, "1.0.0", "images", channel_names, pixel_size_um, shape, "uint16", _COLUMNS, "again", True
    )
    write_set(description, range(len(maker.images)), maker, folder)


@pytest.fixture(scope="module")
def new_sets(tiny_set, tmp_path_factory):
    """A folder with "renamed", "brighter" and "turned": its channels come backwards, one has no name in training."""

    def make(folder):
        images, names = tiny_set.images(range(len(tiny_set))), tiny_set.channel_names
        _write(folder, "renamed", names, _Again(images, tiny_set.metadata, "new"))
        _write(folder, "brighter", names, _Again(images, tiny_set.metadata, "new", *_BRIGHTER))
        more = np.concatenate([images[..., ::-1], images[..., :1] // 3], axis=-1)
        called = ("membrane", "protein", "PCNA", "nascent RNA", "Hoechst", "brightfield")
        _write(folder, "turned", called, _Again(more, tiny_set.metadata, "new"), pixel_size_um=0.325)

    return made_once(tmp_path_factory, "new_sets", make)[0]


@pytest.fixture(scope="module")
def embedder(trained_workdir):
    return bie_jax.load(trained_workdir[0])


@pytest.fixture(scope="module")
def known(embedder, tiny_set):
    """Features of the training set as the run's own stage has them."""
    return embed_image_set(embedder, tiny_set, progress=False)


@pytest.fixture
def workdir(trained_workdir, tmp_path):
    return shutil.copytree(trained_workdir[0], tmp_path / "run")


def _same_names(image_set):
    return {name: name for name in image_set.channel_names}


def _features(table):
    return table.loc[:, [not name.startswith("Metadata_") for name in table]].to_numpy()


def test_a_plate_that_is_renamed_is_embedded_as_the_plate_it_is(workdir, new_sets, known, tiny_set, capsys):
    renamed = open_image_set("renamed", new_sets)
    table = write_new_embeddings(workdir, renamed, _same_names(renamed), None)
    np.testing.assert_allclose(_features(table), known, atol=1e-6)
    assert set(table["Metadata_split"]) == {"new"}
    assert set(table["Metadata_Plate"]) == {"newSIM001", "newSIM002"}
    said = capsys.readouterr().out
    assert "renamed: normalized by its own 36 images\n" in said
    metadata, features, model = read_embeddings(workdir / "embeddings-renamed.parquet")
    np.testing.assert_array_equal(features, _features(table))
    assert metadata["well"].tolist() == tiny_set.metadata["well"].tolist()
    assert model == "vqvae"
    stored = anndata.read_h5ad(workdir / "embeddings-renamed.h5ad")
    np.testing.assert_array_equal(np.asarray(stored.X), features)
    told = {"newSIM001": "its own 36 images", "newSIM002": "its own 36 images"}
    assert json.loads(stored.uns["normalized_by"]) == told
    read = pd.read_parquet(workdir / "embeddings-renamed.parquet")
    assert json.loads(read.attrs["normalized_by"]) == told
    assert not list(workdir.glob("*.parts"))
    with pytest.raises(integrity.StaleFileError, match="the set renamed"):
        read_embeddings(workdir / "embeddings-renamed.parquet", {"the set renamed": "another"})


def test_the_runs_own_set_is_told_as_such(workdir, known, tiny_set, capsys):
    table = write_new_embeddings(workdir, tiny_set, _same_names(tiny_set), None)
    np.testing.assert_allclose(_features(table), known, atol=1e-6)
    assert set(table["Metadata_split"]) == {"train", "val"}
    assert "normalized by SIM001: plate SIM001 of the training set simulated; SIM002: plate" in capsys.readouterr().out


def test_a_brighter_plate_is_embedded_alike_by_its_own_intensities(embedder, new_sets, known):
    brighter = open_image_set("brighter", new_sets)
    rows = embed_image_set(embedder.for_set(brighter), brighter, progress=False)
    spread = np.linalg.norm(known - known.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(rows - known, axis=1).max() < 1e-4 * spread
    as_training = embedder.embed(brighter.images(range(len(brighter))))
    assert np.linalg.norm(as_training - known, axis=1).mean() > 0.3 * spread
    assert embedder.normalized_by == {"": "the whole training set simulated"}


def test_channels_are_found_by_name_and_others_left_out(workdir, new_sets, known, capsys):
    turned = open_image_set("turned", new_sets)
    with pytest.raises(ConfigError, match=r"'turned' has the channels membrane, .* say which is which, e\.g\."):
        write_new_embeddings(workdir, turned, _same_names(turned), None)
    table = write_new_embeddings(workdir, turned, _same_names(turned) | {"Hoechst": "DNA"}, None)
    np.testing.assert_allclose(_features(table), known, atol=1e-6)
    said = capsys.readouterr().out
    assert "turned: the run has no channel brightfield, which is left out" in said
    assert "its pixels are 0.325 um, those of simulated 0.65: everything looks 2 times as large" in said


def test_controls_stand_for_their_plate(workdir, embedder, new_sets):
    """What the network looks at, by hand."""
    renamed = open_image_set("renamed", new_sets)
    controls = Controls("label", "scrambled")
    ours = embedder.for_set(renamed, controls)
    is_control = (renamed.metadata["label"] == "scrambled").to_numpy()
    plates = renamed.metadata["plate"]
    images = renamed.images(range(len(renamed)))
    for plate in ("newSIM001", "newSIM002"):
        mine = images[is_control & (plates == plate)].astype(float)
        assert ours.normalized_by[plate] == f"its own {len(mine)} images with label = scrambled"
        row = int(np.flatnonzero(plates == plate)[-1])
        seen, _ = ours.reconstruct_batch(
            np.repeat(images[[row]], 16, 0), np.repeat(ours.rows_of_set(renamed)[[row]], 16)
        )
        expected = (images[row] - mine.mean(axis=(0, 1, 2))) / mine.std(axis=(0, 1, 2))
        np.testing.assert_allclose(seen[0], expected, atol=1e-4)
    for wrong, message in (
        (Controls("compound", "DMSO"), r"'compound' is no column of 'renamed'; there are plate, well"),
        (Controls("label", "DMSO"), r"there are none on 'newSIM001', 'newSIM002', of 2 plates of 'renamed'"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_new_embeddings(workdir, renamed, _same_names(renamed), wrong)


def test_arrays_of_an_unknown_plate(embedder, new_sets, tiny_set, known):
    brighter = open_image_set("brighter", new_sets)
    images, plates = brighter.images(range(len(brighter))), brighter.metadata["plate"].tolist()
    spread = np.linalg.norm(known - known.mean(axis=0), axis=1).mean()
    measured = embedder.measure(images, plates)
    for plate, summary in brighter.statistics["plates"].items():  # the builder's own, of the same pixels
        assert measured["plates"][plate] == summary | {"images": 36}
    json.dumps(measured)
    rows = embedder.embed(images, plates=plates)
    assert np.abs(rows - known).max() < 1e-4 * spread
    assert embedder.normalized_by == dict.fromkeys(sorted(set(plates)), "its own 36 images of this call")
    few = [3, 40, 5]
    names = list(tiny_set.channel_names)[::-1]
    backwards = {
        plate: {key: summary[key][::-1] for key in ("mean", "std")} for plate, summary in measured["plates"].items()
    }
    for statistics in (
        {"channel_names": names, "plates": backwards},
        brighter.intensities,
        embedder.measure(images[..., ::-1], plates, names),
    ):
        some = embedder.embed(images[few][..., ::-1], names, [plates[row] for row in few], statistics)
        np.testing.assert_allclose(some, rows[few], atol=1e-6)
    assert embedder.normalized_by["newSIM001"] == "the statistics that were given, of 36 images"
    mixed = embedder.embed(
        np.concatenate([images[few], tiny_set.images([0])]), None, [plates[r] for r in few] + ["SIM001"], measured
    )
    np.testing.assert_allclose(mixed[-1], known[0], atol=1e-6)
    assert embedder.normalized_by["SIM001"] == "plate SIM001 of the training set simulated"
    with pytest.raises(ValueError, match="the statistics are of the channels DNA, the images of DNA, nascent RNA"):
        embedder.embed(images[few], None, ["p"] * 3, {"channel_names": ["DNA"], "plates": measured["plates"]})


def test_a_run_that_knows_no_plates_reads_all_as_its_set(workdir, new_sets, tiny_set, capsys):
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["normalization_scope"] = "set"
    integrity.write_json(workdir / "config.json", config)
    embedder = bie_jax.load(workdir)
    brighter = open_image_set("brighter", new_sets)
    table = write_new_embeddings(workdir, brighter, _same_names(brighter), None)
    said = capsys.readouterr().out
    assert "brighter: normalized by the whole training set simulated\n" in said
    mean, std = (np.asarray(tiny_set.statistics["overall"][key])[0] for key in ("mean", "std"))
    assert f"its standard deviation over that: DNA {(mean + 100) / std:+.2f}, 2.00; nascent RNA" in said
    images = brighter.images([0, 50])
    np.testing.assert_allclose(_features(table)[[0, 50]], embedder.embed(images, plates=["x", "y"]), atol=1e-6)
    np.testing.assert_allclose(_features(table)[[0, 50]], embedder.embed(images), atol=1e-6)
    with pytest.raises(
        ConfigError, match=r"--controls=label=x: .*normalization_scope='set', no plate is normalized by"
    ):
        write_new_embeddings(workdir, brighter, _same_names(brighter), Controls("label", "x"))
    with pytest.raises(ValueError, match="statistics of plates mean nothing here"):
        embedder.embed(images, plates=["x", "y"], statistics=brighter.intensities)


class _StopError(Exception):
    pass


def _stopping(monkeypatch, after, stop):
    """Counts batches, and does something when some are embedded."""
    embedded = []
    encode = Embedder.encode_batch

    def counting(self, image, plate):
        if len(embedded) == after:
            stop()
        embedded.append(len(image))
        return encode(self, image, plate)

    monkeypatch.setattr(Embedder, "encode_batch", counting)
    return embedded


def _raise():
    raise _StopError


def test_an_embedding_that_broke_off_goes_on_to_the_same_bits(workdir, monkeypatch, capsys):
    whole = write_embeddings(workdir)
    codes = dict(np.load(workdir / "codebook.npz"))
    assert not list(workdir.glob("*.parts"))
    monkeypatch.setattr(parts, "SECONDS", 0.0)
    with monkeypatch.context() as patch:
        _stopping(patch, 3, _raise)
        with pytest.raises(_StopError):
            write_embeddings(workdir)
    folder = workdir / "embeddings.parts"
    names = [f"rows-{16 * k:09d}-{16 * (k + 1):09d}.npz" for k in range(3)]
    assert sorted(path.name for path in folder.glob("rows*")) == names
    with monkeypatch.context() as patch:
        embedded = _stopping(patch, 99, _raise)
        again = write_embeddings(workdir)
    assert embedded == [16, 16]  # 72 images are five batches
    assert "going on: 48 of 72 images are embedded already" in capsys.readouterr().out
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    for name, values in np.load(workdir / "codebook.npz").items():
        np.testing.assert_array_equal(values, codes[name])
    assert not folder.exists()


@pytest.mark.parametrize("harm", ["damaged", "missing", "of other images"])
def test_parts_that_cannot_be_trusted_are_made_again(workdir, new_sets, monkeypatch, harm, capsys):
    renamed, brighter = (open_image_set(name, new_sets) for name in ("renamed", "brighter"))
    monkeypatch.setattr(parts, "SECONDS", 0.0)
    whole = write_new_embeddings(workdir, renamed, _same_names(renamed), None)
    with monkeypatch.context() as patch:
        _stopping(patch, 3, _raise)
        with pytest.raises(_StopError):
            write_new_embeddings(workdir, renamed, _same_names(renamed), None)
    folder = workdir / "embeddings-renamed.parts"
    part = folder / "rows-000000016-000000032.npz"
    if harm != "of other images":
        if harm == "damaged":
            part.write_bytes(part.read_bytes()[:-1])
        else:
            part.unlink()
        expected, said = whole, "going on: 16 of 72"
    else:
        renamed = dataclasses.replace(brighter, name="renamed")
        expected, said = None, "is of another network or of other images, and is not gone on with"
    again = write_new_embeddings(workdir, renamed, _same_names(renamed), None)
    assert said in capsys.readouterr().out
    if expected is not None:
        pd.testing.assert_frame_equal(again, expected, check_exact=True)
    assert not folder.exists()


def test_sigterm_ends_an_embedding_with_what_is_done(workdir, new_sets, monkeypatch):
    renamed = open_image_set("renamed", new_sets)
    with monkeypatch.context() as patch:
        _stopping(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=r"stopped by SIGTERM at image 32 of 72; the same command goes on"):
            write_new_embeddings(workdir, renamed, _same_names(renamed), None)
    assert [path.name for path in (workdir / "embeddings-renamed.parts").glob("rows*")] == [
        "rows-000000000-000000032.npz"
    ]
    embedded = _stopping(monkeypatch, 99, _raise)
    write_new_embeddings(workdir, renamed, _same_names(renamed), None)
    assert embedded == [16] * 3


_KILLED = """
import sys, time
from absl import flags
flags.FLAGS.mark_as_parsed()
from bie_jax.evaluation.embedding import Embedder, parts, write_embeddings
parts.SECONDS = 0.0
encode, count = Embedder.encode_batch, []
def slow(self, image, plate):
    count.append(0)
    if len(count) > 3:
        print("here", flush=True)
        time.sleep(300)
    return encode(self, image, plate)
Embedder.encode_batch = slow
write_embeddings(sys.argv[1])
"""


def test_a_killed_process_leaves_what_it_has_done(workdir, known, monkeypatch):
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(workdir)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        os.kill(process.pid, signal.SIGKILL)
    embedded = _stopping(monkeypatch, 99, _raise)
    table = write_embeddings(workdir)
    assert embedded == [16, 16]
    np.testing.assert_allclose(_features(table), known, atol=1e-6)


@pytest.fixture
def plate(tiny_set, tmp_path):
    """A folder of TIFF files with all channels of one plate, and its rows."""
    folder = tmp_path / "Plate 7"
    folder.mkdir()
    rows = np.flatnonzero(tiny_set.metadata["plate"] == "SIM001")
    for row in rows:
        pixels = np.moveaxis(tiny_set[int(row)], -1, 0)
        tifffile.imwrite(folder / f"{row:03d}.tif", pixels, imagej=True, metadata={"axes": "CYX"})
    return folder, rows


def test_a_folder_of_images_is_embedded_by_one_command(launches, workdir, plate, known, tiny_set):
    folder, rows = plate
    arguments = [f"--workdir={workdir}", "--stage=embed", f"--images={folder}"]
    done = launches.run(*arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "has the channels 0, 1, 2, 3, 4; the run takes DNA, nascent RNA" in done.stderr
    assert "--channels='0=DNA,1=nascent RNA,2=PCNA,3=protein,4=membrane'" in done.stderr
    assert not (workdir / "sets").exists()
    arguments.append(f"--channels={','.join(tiny_set.channel_names)}")
    done = launches.run(*arguments)
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(workdir / "embeddings-plate_7.parquet")
    np.testing.assert_allclose(_features(table), known[rows], atol=1e-6)
    assert "plate_7: normalized by its own 36 images" in done.stdout


def test_one_line_says_why_new_images_are_not_embedded(launches, workdir, new_sets, datasets):
    files_before = sorted(path.name for path in workdir.iterdir())
    for arguments, message in (
        (["--set=simulated"], "--set goes with --stage=embed"),
        (["--images=x", "--stage=evaluate"], "--images goes with --stage=embed"),
        (["--stage=embed", "--set=a", "--images=b"], "--set and --images exclude each other"),
        (["--stage=embed", "--channels=DNA"], "--channels needs --set or --images"),
        (["--stage=embed", "--set=a", "--layout=folder"], "--layout is for --images"),
        (["--stage=embed", "--set=a", "--controls=DMSO"], "--controls='DMSO': expected COLUMN=VALUE"),
        (["--stage=embed", "--images=a", "--distributed=auto"], "--images: one process reads them"),
        (["--stage=embed", "--set=a/B c"], "--set='a/B c': expected NAME of a set, or FOLDER/NAME"),
        (["--stage=embed", "--set=a\x07"], "--set='a\\x07': expected NAME of a set"),
        (["--stage=embed", "--set=nothing"], f"the set 'nothing' is not built in {datasets} (there are simulated)"),
        (["--stage=embed", f"--set={new_sets}/renamed", "--channels=DMA"], "--channels=DMA: 1 names for 5 channels"),
        (["--stage=embed", f"--set={new_sets}/renamed", "--channels=DNA"], "the set 'renamed' has the channels DNA;"),
        (
            ["--stage=embed", f"--set={new_sets}/renamed", "--controls=moa=DMSO"],
            "--controls=moa=DMSO: 'moa' is no column",
        ),
        (["--stage=embed", "--images=http://127.0.0.1:9/plate.zarr"], "http://127.0.0.1:9/plate.zarr"),
    ):
        done = launches.run(f"--workdir={workdir}", *arguments)
        assert done.returncode == 1, (arguments, done)
        assert message in done.stderr, (arguments, done.stderr)
        assert done.stderr.startswith("launch.py: ")
        assert done.stderr.count("\n") == 1, (arguments, done.stderr)
    assert sorted(path.name for path in workdir.iterdir()) == files_before

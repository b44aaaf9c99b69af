"""A run whose files were damaged, or whose set or configuration changed, says so before it does anything."""

import json
import os
import shutil
from typing import ClassVar

import jax
import numpy as np
import pytest

import bie_jax
from bie_jax.config.schema import ConfigError
from bie_jax.config.stored import load_config, save_config
from bie_jax.evaluation.embedding import write_embeddings
from bie_jax.evaluation.evaluate import evaluate
from bie_jax.files import integrity
from bie_jax.files.integrity import DamagedFileError, StaleFileError
from bie_jax.input.image_set import DamagedSetError, open_image_set
from bie_jax.train import train_and_evaluate
from bie_jax.training.checkpoint import checkpoint_fingerprint, find_checkpoints
from configs import vqvae_idr0093
from tests.unit.files.test_integrity import flip_bit


@pytest.fixture(scope="module")
def embedded(trained_workdir, tmp_path_factory):
    """The tiny run with its embeddings; tests take copies."""
    workdir = tmp_path_factory.mktemp("embedded") / "run"
    shutil.copytree(trained_workdir[0], workdir)
    write_embeddings(workdir)
    return workdir


@pytest.fixture
def run(embedded, tmp_path):
    return shutil.copytree(embedded, tmp_path / "run")


def _steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize("name", ["config.json", "dataset.json", "metrics.jsonl", "checksums.json"])
@pytest.mark.parametrize("kind", ["flipped", "cut", "empty"])
def test_a_damaged_file_stops_training_before_a_step(run, tiny_config, name, kind):
    path = run / name
    if kind == "flipped":
        flip_bit(path)
    else:
        os.truncate(path, path.stat().st_size // 2 if kind == "cut" else 0)
    with pytest.raises((DamagedFileError, ConfigError), match=rf"^[^\n]*{name}[^\n]* damaged[^\n]*$"):
        train_and_evaluate(tiny_config, run)


@pytest.mark.parametrize(
    "name",
    ["config.json", "dataset.json", "metrics.jsonl", "embeddings.parquet", "reconstructions.npz", "codebook.npz"],
)
def test_a_damaged_file_stops_the_scores_before_the_first(run, name):
    flip_bit(run / name)
    with pytest.raises(DamagedFileError, match=rf"{name} is damaged \(its bytes are not those that were written\)"):
        evaluate(run)


def test_every_file_of_a_checkpoint_counts(run):
    """One bit anywhere in what an embedder reads of the best checkpoint, or the length of what it does not."""
    folder = run / "checkpoints" / str(_steps(run)[-1])
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        whole = path.read_bytes()
        if not whole:
            continue
        is_read = "training" not in path.relative_to(folder).parts[0]
        flip_bit(path) if is_read else os.truncate(path, len(whole) - 1)
        with pytest.raises(DamagedFileError, match=r"checkpoint \d+ is damaged \(.*--stage=train"):
            bie_jax.load(run)
        path.write_bytes(whole)
    bie_jax.load(run)


@pytest.mark.parametrize("kind", ["flipped", "cut", "file missing", "empty folder"])
def test_a_run_goes_on_from_the_older_checkpoint_to_the_same_bits(run, tiny_config, capsys, kind):
    last = _steps(run)[-1]
    folder = run / "checkpoints" / str(last)
    before = jax.tree.map(np.asarray, bie_jax.load(run)._variables)
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 100]
    damaged = last
    if kind == "flipped":
        flip_bit(max(files, key=lambda path: path.stat().st_size))
    elif kind == "cut":
        os.truncate(files[0], 50)
    elif kind == "file missing":
        files[0].unlink()
    else:
        damaged = last + 5
        (run / "checkpoints" / str(damaged)).mkdir()
    train_and_evaluate(tiny_config, run)
    said = [line for line in capsys.readouterr().err.splitlines() if "put aside" in line]
    assert len(said) == 1
    assert f"checkpoint {damaged} is damaged" in said[0]
    assert said[0].endswith(f"goes on from checkpoint {_steps(run)[-2] if damaged == last else last}")
    assert (run / "damaged-checkpoints" / str(damaged)).is_dir()
    assert _steps(run)[-1] == last
    after = jax.tree.map(np.asarray, bie_jax.load(run)._variables)
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_without_a_whole_checkpoint_nothing_is_begun_anew(run, tiny_config):
    for step in _steps(run):
        flip_bit(run / "checkpoints" / str(step) / "checksums.json")
    with pytest.raises(DamagedFileError, match=r"no checkpoint is whole \(\d+: checksums.json is not what was written"):
        train_and_evaluate(tiny_config, run)


def test_a_first_checkpoint_that_was_not_finished_is_none(run):
    first, *others = _steps(run)
    for step in others:
        shutil.rmtree(run / "checkpoints" / str(step))
    (run / "checkpoints" / str(first) / "checksums.json").unlink()
    found = find_checkpoints(run)
    assert (found.whole, list(found.damaged)) == ((), [first])


@pytest.mark.parametrize("name", ["config.json", "dataset.json"])
def test_checkpoints_without_their_configuration_or_set_are_no_fresh_start(run, tiny_config, name):
    (run / name).unlink()
    with pytest.raises((ConfigError, FileNotFoundError), match=rf"{name} is missing"):
        train_and_evaluate(tiny_config, run)


def test_a_log_that_was_removed_begins_anew_where_the_run_goes_on(run, tiny_config, capsys):
    (run / "metrics.jsonl").unlink()
    tiny_config.train.epochs = load_config(run).train.epochs
    train_and_evaluate(tiny_config, run)
    assert "the log begins anew" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_bytes() == b""


def test_embeddings_of_another_configuration_are_not_scored(run):
    config = load_config(run)
    changed = config.model_copy(update={"eval": config.eval.model_copy(update={"readout": "features"})})
    save_config(changed, run)
    wanted = (
        r"embeddings\.parquet was made from config\.eval\.readout = embedding, which is features now: .*--stage=embed"
    )
    with pytest.raises(StaleFileError, match=wanted):
        evaluate(run)


def test_embeddings_of_another_checkpoint_are_not_scored(run, tiny_config):
    best = _steps(run)[-1]
    was = checkpoint_fingerprint(run, best)
    shutil.rmtree(run / "checkpoints" / str(best))
    shutil.copytree(run / "checkpoints" / str(_steps(run)[-1]), run / "checkpoints" / str(best))
    integrity.seal(run / "checkpoints" / str(best))
    assert checkpoint_fingerprint(run, best) != was
    with pytest.raises(StaleFileError, match=r"was made from the checkpoint = .*, which is .* now"):
        evaluate(run)


def test_a_set_that_was_built_again_to_something_else_is_refused_by_every_stage(run, datasets, tmp_path):
    """Images and labels in the reverse order; the statistics of the pixels are the same."""
    from data.records.writer import Description, write_set

    old = open_image_set("simulated", datasets)

    class Reversed:
        def identity(self, part):
            return str(part)

        def examples(self, part):
            row = old.metadata.iloc[len(old) - 1 - part]
            yield np.array(old[len(old) - 1 - part]), dict(row.items()) | {"plate": old.metadata["plate"][part]}

    columns = {name: {"O": str, "i": int, "f": float}[old.metadata[name].dtype.kind] for name in old.metadata}
    description = Description(
        "simulated", old.directory.name, "images", old.channel_names, old.pixel_size_um, old.image_shape, old.dtype,
        columns, old.description, True,
    )  # fmt: skip
    write_set(description, range(len(old)), Reversed(), tmp_path / "sets")
    config = load_config(run)
    changed = config.model_copy(update={"data": config.data.model_copy(update={"data_dir": str(tmp_path / "sets")})})
    save_config(changed, run)
    for stage in (write_embeddings, evaluate):
        with pytest.raises(StaleFileError, match=r"is not the set that .* was trained on"):
            stage(run)
    again = vqvae_idr0093.get_config("tiny")
    again.data.data_dir = str(tmp_path / "sets")
    with pytest.raises(ConfigError, match=r"is not the set that .* was trained on \(.*fingerprint.* differ\)"):
        train_and_evaluate(again, run)


def test_a_run_that_an_earlier_version_wrote_is_read_and_goes_on(run, tiny_config, capsys):
    for path in run.rglob("checksums.json"):
        path.unlink()
    bie_jax.load(run)
    train_and_evaluate(tiny_config, run)
    assert "without checksums; it is taken as it is" in capsys.readouterr().err
    flip_bit(run / "dataset.json")
    with pytest.raises(DamagedFileError, match=r"dataset\.json is damaged"):
        bie_jax.load(run)


def test_early_stopping_between_two_validations_leaves_a_run_that_can_be_used(tiny_config, tmp_path):
    tiny_config.train.early_stopping_patience_epochs = 1
    tiny_config.train.eval_every_epochs = 2
    tiny_config.train.epochs = 4
    tiny_config.optimizer.warmup_epochs = 0
    result = train_and_evaluate(tiny_config, tmp_path / "run")
    assert np.isfinite(result["val/loss"])
    bie_jax.load(tmp_path / "run")


def test_an_image_that_is_damaged_stops_a_run_which_keeps_what_it_learned(tiny_config, datasets, tmp_path):
    (tmp_path / "sets").mkdir()
    shutil.copytree(os.path.join(datasets, "simulated"), tmp_path / "sets" / "simulated")
    image_set = open_image_set("simulated", tmp_path / "sets")
    (shard,) = image_set.directory.glob("*.array_record*")
    content = shard.read_bytes()
    # The file has marks of its own every 64 kB; an image without one in it lies there as it is.
    place = max(content.find(image_set[row].tobytes()) for row in range(len(image_set))) + 1000
    assert place > 1000
    shard.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    tiny_config.data.data_dir = str(tmp_path / "sets")
    tiny_config.train.checkpoint_every_steps = 1000  # what is saved is saved because the run ends
    with pytest.raises(DamagedSetError, match=r"image \d+.* (is not what was written|cannot be read)"):
        train_and_evaluate(tiny_config, tmp_path / "run")
    last = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][-1]
    assert find_checkpoints(tmp_path / "run").whole[-1] >= last > 0


def test_shards_of_another_set_are_not_read(tmp_path):
    """Whole files, of the same length and the same number of images."""
    from tests.conftest import _OneImage, _write_numbers

    class Others(_OneImage):
        def examples(self, part):
            for image, metadata in super().examples(part):
                yield image[::-1], metadata

    for folder, maker in (("a", _OneImage()), ("b", Others())):
        _write_numbers(tmp_path / folder, "other", ("actin", "DNA"), maker)
    (shard,) = (tmp_path / "a").rglob("*.array_record*")
    shutil.copy(next((tmp_path / "b").rglob("*.array_record*")), shard)
    image_set = open_image_set("other", tmp_path / "a")
    with pytest.raises(DamagedSetError, match=r"image 3, from other 3, is not what was written; copy the set again"):
        image_set[3]


@pytest.mark.parametrize("name", ["statistics.json", "metadata.parquet", "image_checksums.npy", "dataset_info.json"])
def test_a_damaged_file_of_a_set_is_named(datasets, tmp_path, name):
    shutil.copytree(os.path.join(datasets, "simulated"), tmp_path / "simulated")
    directory = open_image_set("simulated", tmp_path).directory
    flip_bit(directory / name)
    with pytest.raises(DamagedSetError, match=rf"is damaged: {name}: .*; copy the set again, or remove its folder"):
        open_image_set("simulated", tmp_path)
    (directory / name).unlink()
    with pytest.raises(DamagedSetError, match=rf"is damaged: {name} is missing"):
        open_image_set("simulated", tmp_path)


def test_a_copy_beside_the_versions_of_a_set_is_not_read_and_named(datasets, tmp_path, capsys):
    shutil.copytree(os.path.join(datasets, "simulated"), tmp_path / "simulated")
    directory = open_image_set("simulated", tmp_path).directory
    shutil.copytree(directory, directory.with_name(directory.name + ".bak"))
    assert open_image_set("simulated", tmp_path).directory == directory
    assert f"{directory}.bak is no version of a set" in capsys.readouterr().err


def test_a_set_is_the_same_wherever_it_is_built_and_another_with_other_labels(datasets, tmp_path):
    from tests.conftest import _OneImage, _write_numbers

    class Renamed(_OneImage):
        def examples(self, part):
            for image, metadata in super().examples(part):
                yield image, metadata | self.changed

    class Moved(Renamed):
        changed: ClassVar = {"source": "elsewhere"}

    class Relabeled(Renamed):
        changed: ClassVar = {"label": "y"}

    for folder, maker in (("a", _OneImage()), ("b", Moved()), ("c", Relabeled())):
        _write_numbers(tmp_path / folder, "other", ("actin", "DNA"), maker)
    _write_numbers(tmp_path / "d", "other", ("actin", "dna"), _OneImage())
    a, b, c, d = (open_image_set("other", tmp_path / folder).fingerprint for folder in "abcd")
    assert a == b
    assert len({a, c, d}) == 3
    stored = json.loads(next((tmp_path / "a").rglob("statistics.json")).read_text())
    assert stored["fingerprint"] == a

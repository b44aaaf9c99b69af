import dataclasses
import json
import shutil

import anndata
import jax
import numpy as np
import pandas as pd
import pytest

import bie_jax
from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding import embed_image_set, load_untrained, write_embeddings
from bie_jax.files import integrity
from bie_jax.input.pixels import NonFiniteRowsError
from bie_jax.models.encoders.residual_stack import ResidualStackEncoder
from bie_jax.objectives import build_model
from bie_jax.training.state import initial_variables


@pytest.fixture(scope="module")
def embedder(trained_workdir):
    return bie_jax.load(trained_workdir[0])


def test_one_row_of_latent_dim_numbers_per_image_in_order(embedder, tiny_set):
    features = embedder.embed(tiny_set.images(range(21)))
    assert features.shape == (21, 16)
    assert features.dtype == np.float32
    alone = np.concatenate([embedder.embed(tiny_set.images([i])) for i in (0, 7, 20)])
    np.testing.assert_allclose(alone, features[[0, 7, 20]], atol=1e-6)


def test_embedding_is_deterministic(embedder, trained_workdir, tiny_set):
    images = tiny_set.images(range(10))
    np.testing.assert_array_equal(embedder.embed(images), bie_jax.load(trained_workdir[0]).embed(images))


def test_embedding_is_the_root_of_the_usage_of_codes(embedder, tiny_set):
    """Formed in numpy from the encoder's features: its own projection, its own softmax."""
    images = tiny_set.images(range(16))
    features = embedder.embed(images)
    np.testing.assert_allclose(np.square(features).sum(axis=1), 1, rtol=1e-5)
    view, _ = embedder.reconstruct_batch(images, np.zeros(16, np.int32))
    variables = jax.device_get(embedder._variables)
    encoder = ResidualStackEncoder(8, 8, 2, 2)
    h = np.asarray(encoder.apply({"params": variables["params"]["encoder"]}, view, train=False), float)
    projection = variables["params"]["bottleneck"]["Conv_0"]
    z_e = h @ projection["kernel"][0, 0] + projection["bias"]
    learned = variables["codebook"]["bottleneck"]["quantizer"]
    distance = np.square(z_e[..., None, :] - learned["codebook"][0]).sum(-1)
    distortion = learned["distortion"][0]
    share = np.exp(-distance / (4 * distortion))
    expected = np.sqrt((share / share.sum(-1, keepdims=True)).mean((1, 2)))
    np.testing.assert_allclose(features, expected, atol=1e-3)


def test_channels_come_in_any_order_by_name(embedder, tiny_set):
    images = tiny_set.images(range(5))
    names = list(tiny_set.channel_names)
    order = [3, 1, 4, 0, 2]
    shuffled = embedder.embed(images[..., order], channels=[names[i] for i in order])
    np.testing.assert_array_equal(shuffled, embedder.embed(images, channels=names))


@pytest.mark.parametrize(
    ("images", "channels", "message"),
    [
        (np.zeros((1, 32, 32, 3)), None, "3 channels, the model takes 5: DNA, nascent RNA"),
        (np.zeros((1, 32, 32, 2)), ["DNA", "actin"], r"DNA, actin; the model takes DNA, nascent RNA"),
        (np.zeros((1, 32, 32, 5)), ["DNA"] * 5, "said to have the channels DNA, DNA"),
        (np.zeros((32, 32, 5)), None, r"expected \[N, H, W, C\]"),
        (np.full((2, 32, 32, 5), np.nan, np.float32), None, r"images \[0, 1\] hold NaN"),
        (np.zeros((1, 2, 32, 5)), None, "2 x 32 pixels are too small"),
        (np.full((2, 32, 32, 5), 2**32 + 7), None, r"images \[0, 1\] hold int64 values that float32 does not"),
        (np.full((1, 32, 32, 5), 1e300), None, r"images \[0\] hold float64 values that float32 does not"),
        (np.zeros((1, 32, 32, 5), complex), None, "images of complex128"),
        ([np.zeros((32, 32, 5)), np.zeros((32, 31, 5))], None, "images of several sizes"),
    ],
)
def test_other_images_than_the_models_are_refused(embedder, images, channels, message):
    with pytest.raises(ValueError, match=message):
        embedder.embed(images, channels=channels)


def test_rows_that_are_no_numbers_are_refused_and_named(embedder, tiny_set):
    """Finite counts, and finite in single precision; divided by a deviation and convolved, they are not."""
    images = tiny_set.images(range(3)).astype(np.float32)
    images[1] = 3e38
    steep = embedder.with_variables(jax.tree.map(lambda leaf: 1e3 * leaf, embedder._variables))
    with pytest.raises(NonFiniteRowsError, match=r"the embedding: 1 of 3 rows hold NaN or infinity, rows 1; "):
        steep.embed(images)


def test_the_type_of_the_same_counts_is_of_no_account(embedder, tiny_set):
    images = tiny_set.images(range(3))
    expected = embedder.embed(images)
    for dtype in (">u2", np.int64, np.uint32, np.float64):
        np.testing.assert_allclose(embedder.embed(images.astype(dtype)), expected, atol=1e-6)


def test_a_set_whose_rows_are_no_numbers_is_not_written(trained_workdir, tiny_set, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(trained_workdir[0], workdir)
    dataset = json.loads((workdir / "dataset.json").read_text())
    for plate in dataset["sets"][0]["plates"].values():
        plate["std"] = [1e-37 for _ in plate["std"]]  # counts become larger than single precision goes
    integrity.write_json(workdir / "dataset.json", dataset)
    with pytest.raises(NonFiniteRowsError, match=r"of 'simulated': \d+ of 72 rows hold NaN or infinity, rows 0 \("):
        write_embeddings(workdir)
    assert not (workdir / "embeddings.parquet").exists()


def test_as_many_plates_as_images(embedder, tiny_set):
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"{count} plates for 2 images: one for each"):
            embedder.embed(tiny_set.images(range(2)), plates=[""] * count)


def test_one_image_does_not_say_what_its_plate_is_like(embedder, tiny_set):
    message = r"plate 'nowhere' was not trained on, and one image of it is given.*: SIM001, SIM002"
    with pytest.raises(ValueError, match=message):
        embedder.embed(tiny_set.images([0, 1]), plates=["nowhere", "SIM001"])
    table_rows = embedder.rows_of_set(tiny_set)
    assert set(table_rows) == {1, 2}
    other = dataclasses.replace(tiny_set, metadata=tiny_set.metadata.assign(plate="nowhere"), fingerprint="")
    with pytest.raises(ValueError, match=r"no intensity statistics for plates \['nowhere'\] of 'simulated'"):
        embedder.rows_of_set(other)


def test_plates_choose_the_statistics(embedder, tiny_set):
    """What the network looks at is each plate by its own mean and spread, or all by the set's."""
    rows = [0, len(tiny_set) - 1]
    plates = tiny_set.metadata["plate"].iloc[rows].tolist()
    images = tiny_set.images(rows)
    for table_rows, statistics in (
        (embedder.rows_of_set(tiny_set)[rows], [tiny_set.statistics["plates"][plate] for plate in plates]),
        ([0, 0], [tiny_set.statistics["overall"]] * 2),
    ):
        padded = np.resize(np.asarray(table_rows, np.int32), 16)
        seen, _ = embedder.reconstruct_batch(np.resize(images, (16, *images.shape[1:])), padded)
        for i, s in enumerate(statistics):
            expected = (images[i] - np.asarray(s["mean"])) / np.asarray(s["std"])
            np.testing.assert_allclose(seen[i], expected, atol=1e-4)


def test_untrained_network_is_another_one_and_depends_on_its_seed(embedder, trained_workdir, tiny_set):
    images = tiny_set.images(range(4))
    networks = list(load_untrained(trained_workdir[0], (1, 1, 2)))
    one, same, two = (network.embed(images) for network in networks)
    np.testing.assert_array_equal(one, same)
    assert networks[0].widths == (16, 8)
    assert one.shape == (4, networks[0].dim) == (4, 24)
    assert (np.abs(one - two).max(axis=0) > 0).all()


def test_an_untrained_network_is_read_at_its_bottleneck_and_before_it(trained_workdir, tiny_set):
    """By the network itself, on images normalized by hand."""
    config, names = load_config(trained_workdir[0]), tiny_set.channel_names
    images, plates = tiny_set.images(range(2)), tiny_set.metadata["plate"].iloc[:2].tolist()
    statistics = [tiny_set.statistics["plates"][plate] for plate in plates]
    mean, std = (np.asarray([s[key] for s in statistics], np.float32)[:, None, None] for key in ("mean", "std"))
    model = build_model(config, len(names))
    blank = np.zeros((1, *config.data.crop_size, len(names)), np.float32)
    variables = jax.jit(lambda key: initial_variables(model, blank, key))(jax.random.key(3))
    _, out = model.apply(variables, (images - mean) / std, train=False, method="encode")
    expected = np.concatenate([out["embedding"], out["features"]], axis=1)
    # The second of two: the program was compiled for the weights of the first.
    _, embedder = load_untrained(trained_workdir[0], (2, 3))
    rows = embedder.embed(images, plates=plates)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_a_part_larger_than_what_training_sees_is_embedded(trained_workdir, embedder, tiny_set, tmp_path):
    """The same network in a run that was trained on smaller windows."""
    workdir = shutil.copytree(trained_workdir[0], tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["crop_size"], config["eval"]["image_size"] = [16, 16], [24, 24]
    integrity.write_json(workdir / "config.json", config)
    images = tiny_set.images(range(3))
    expected = embedder.embed(images[:, 4:28, 4:28])
    np.testing.assert_allclose(bie_jax.load(workdir).embed(images), expected, atol=1e-6)


def test_files_hold_what_was_embedded(trained_workdir, embedder, tiny_set, tmp_path):
    workdir = shutil.copytree(trained_workdir[0], tmp_path / "run")
    table = write_embeddings(workdir)
    read = pd.read_parquet(workdir / "embeddings.parquet")
    pd.testing.assert_frame_equal(read, table)
    assert list(read.columns[:3]) == ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    assert read["Metadata_source"].tolist() == tiny_set.metadata["source"].tolist()
    assert set(read["Metadata_split"]) == {"train", "val"}
    features = [column for column in read if not column.startswith("Metadata_")]
    assert features == [f"vqvae_{i:04d}" for i in range(16)]
    expected = embed_image_set(embedder, tiny_set, progress=False)
    np.testing.assert_array_equal(read[features].to_numpy(), expected)
    stored = anndata.read_h5ad(workdir / "embeddings.h5ad")
    np.testing.assert_array_equal(np.asarray(stored.X), expected)
    assert stored.obs["Metadata_Well"].tolist() == tiny_set.metadata["well"].tolist()
    codebook = np.load(workdir / "codebook.npz")
    assert codebook["code_counts"].sum() == len(tiny_set) * 8 * 8  # each image's 32 x 32 pixels at stride 4
    assert codebook["capacity_bits"] == 64 * 4
    pictures = np.load(workdir / "reconstructions.npz")
    assert pictures["image"].shape == pictures["reconstruction"].shape == (4, 32, 32, 5)
    assert not list(workdir.glob(".partial*"))


def test_a_network_without_a_decoder_leaves_no_reconstructions(trained_workdir, tmp_path, monkeypatch):
    workdir = shutil.copytree(trained_workdir[0], tmp_path / "run")
    monkeypatch.setattr("bie_jax.evaluation.embedding.write.has_decoder", lambda config: False)
    write_embeddings(workdir)
    assert (workdir / "embeddings.parquet").exists()
    assert not (workdir / "reconstructions.npz").exists()


def test_a_column_with_a_slash_is_in_both_files(trained_workdir, tmp_path):
    """HDF5 would begin a group at the slash; a column that the set got after training is no other pixel."""
    workdir, data_dir = tmp_path / "run", tmp_path / "datasets"
    shutil.copytree(trained_workdir[0], workdir)
    config = json.loads((workdir / "config.json").read_text())
    shutil.copytree(config["data"]["data_dir"], data_dir)
    (metadata,) = data_dir.glob("simulated/*/metadata.parquet")
    table = pd.read_parquet(metadata)
    table.assign(**{"moa/target": [f"t{row}" for row in range(len(table))]}).to_parquet(metadata)
    integrity.seal(metadata.parent)
    config["data"]["data_dir"] = str(data_dir)
    integrity.write_json(workdir / "config.json", config)
    write_embeddings(workdir)
    read = pd.read_parquet(workdir / "embeddings.parquet")
    stored = anndata.read_h5ad(workdir / "embeddings.h5ad").obs
    assert read["Metadata_moa/target"].tolist() == stored["Metadata_moa_target"].tolist()
    assert stored["Metadata_moa_target"].iloc[-1] == f"t{len(table) - 1}"

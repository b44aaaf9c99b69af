"""Outlines go through the one loop: trained, embedded, scored, and drawn as they come back out of the latent space."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.evaluation import embedding
from bie_jax.evaluation.baselines.shape_features import shape_features
from bie_jax.evaluation.evaluate import evaluate
from bie_jax.evaluation.report.shape_pictures import latent_to_outline
from bie_jax.evaluation.scores import invariance as shape_invariance
from bie_jax.input.image_set import open_image_set
from bie_jax.shapes import embed_masks
from bie_jax.shapes.contour import mask_to_contour
from bie_jax.shapes.distance_matrix import cyclic_diagonal_spectrum, normalized_distances
from bie_jax.shapes.polygon import contour_to_mask, signed_area
from bie_jax.train import train_and_evaluate
from configs import shape_vae_cells, shape_vae_mnist, shape_vqvae_mnist
from data.records.writer import Description, write_set

POINTS, PER_CLASS = 128, 40


def _mask(number):
    """A bent ellipse (even numbers) or a three-armed star, 48 x 48 px, of any size and turned by any angle."""
    rng = np.random.default_rng(number)
    angle = 2 * np.pi * np.arange(300) / 300
    turned = angle + rng.uniform(0, 2 * np.pi)
    radius = 1 + (0.45 * np.cos(3 * turned) if number % 2 else 0.2 * np.cos(2 * turned) + 0.1 * np.sin(3 * turned))
    radius = radius * rng.uniform(9, 13)
    return contour_to_mask(np.stack([24 + radius * np.sin(angle), 24 + radius * np.cos(angle)], axis=1), (48, 48))


@dataclasses.dataclass(frozen=True)
class _Outline:
    def identity(self, part):
        return repr(part)

    def examples(self, part):
        mask = _mask(part)
        contour = mask_to_contour(mask, POINTS)
        row = {
            "plate": "p",
            "well": "",
            "site": part + 1,
            "label": ("blob", "star")[part % 2],
            "source": f"mask {part}",
        }
        size = {"area_px": float(mask.sum()), "scale_px": float(np.sqrt(2 * contour.var(axis=0).sum()))}
        yield contour.astype(np.float32)[..., None], row | size


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A data directory with the same set under the names that the configurations have."""
    folder = tmp_path_factory.mktemp("shapes")
    columns = {"plate": str, "well": str, "site": int, "label": str, "source": str, "area_px": float, "scale_px": float}
    for name in ("mnist_shapes", "osteosarcoma"):
        description = Description(
            name=name,
            version="1.0.0",
            kind="shapes",
            channel_names=("outline",),
            pixel_size_um=None,
            image_shape=(POINTS, 2, 1),
            dtype="float32",
            columns=columns,
            text="blobs and stars",
            simulated=True,
        )
        write_set(description, range(2 * PER_CLASS), _Outline(), folder)
    return str(folder)


def _tiny(module, shapes):
    config = module.get_config("tiny")
    config.data.data_dir = shapes
    config.data.crop_size = (32, 32)
    config.train.batch_size = 16
    config.train.epochs, config.train.checkpoint_every_steps = 1, 1000
    config.optimizer.warmup_epochs = config.optimizer.cooldown_epochs = 0
    config.objective.reconstruction = 0.005  # the cells' step is the digits', and compiled once
    config.eval.umap, config.eval.trees, config.eval.folds, config.eval.bootstrap = False, 3, 2, 10
    config.eval.invariance_objects = 16
    return config


RUNS = {
    "vae": (shape_vae_mnist, {}, {"val/recon", "val/kl", "val/contrastive"}),
    "vqvae": (shape_vqvae_mnist, {}, {"val/vq", "val/perplexity"}),
    "cells": (shape_vae_cells, {"eval.components": 12}, {"val/nll"}),
    "matrices": (
        shape_vae_mnist,
        {
            "model.encoder": "vit",
            "model.vit.size": "Ti",
            "model.vit.patch_size": 8,
            "model.decoder": "matrix",
            "objective.matrix.diagonal": 1.0,
            "objective.matrix.symmetry": 1.0,
            "objective.matrix.non_negativity": 1.0,
            "objective.matrix.triangle": 1.0,
            "objective.contrastive.weight": 0.0,
        },
        {"val/diagonal", "val/symmetry", "val/non_negativity", "val/triangle"},
    ),
}


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """Workdirs by name, each trained when first asked for."""
    done = {}

    def workdir_of(name):
        if name not in done:
            module, changes, _ = RUNS[name]
            config = _tiny(module, shapes)
            for key, value in changes.items():
                config.update_from_flattened_dict({key: value})
            done[name] = tmp_path_factory.mktemp("runs") / name
            train_and_evaluate(config, done[name])
        return done[name]

    return workdir_of


@pytest.mark.parametrize("name", RUNS)
def test_a_configuration_trains_and_embeds(name, trained):
    workdir = trained(name)
    module, _, terms = RUNS[name]
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert terms <= last.keys()
    assert len(list((workdir / "reconstructions").glob("*.png"))) == 1
    table = embedding.write_embeddings(workdir)
    features = table.filter(regex="^(ae|vae|vqvae)_").to_numpy()
    cells = module is shape_vae_cells
    # Components and size, the mean of the ViT's tokens, or the ring's mean, greatest and deviation.
    assert features.shape == (2 * PER_CLASS, {"cells": 12 + 10, "matrices": 192}.get(name, 3 * 16))
    if cells:
        np.testing.assert_allclose(features[:, -1], table["Metadata_scale_px"], rtol=1e-5)
        assert np.abs(features[:, 12] / table["Metadata_area_px"] - 1).max() < 0.2  # of the polygon, and of pixels
        train = features[table["Metadata_split"] == "train", :12]
        correlations = np.corrcoef(train[:, :10], rowvar=False)
        np.testing.assert_allclose(correlations, np.eye(10), atol=1e-2)


def test_a_run_is_scored_and_drawn(trained):
    workdir = trained("cells")
    embedding.write_embeddings(workdir)
    scores = evaluate(workdir)
    assert scores["set"]["kind"] == "shapes"
    expected = {"trained_encoder", "random_encoder", "matrix_pca", "spectrum_pca", "elliptic_fourier", "majority"}
    assert expected | {"region_properties", "region_properties_size", "all_classical"} <= scores["feature_sets"].keys()
    for key in ("trained_encoder", "random_encoder", "random_encoder_pooled"):
        assert scores["feature_sets"][key]["dim"] == 12 + 10
    region = scores["feature_sets"]["region_properties"]["classifiers"]["random_forest"]["stratified_k_fold"]
    assert region["macro_f1"] > 0.95  # blobs and stars are not hard
    assert scores["interval_over"] == "images"  # nobody named a well
    rows = {(row["of"], row["change"]): row for row in scores["invariances"]}
    for change in ("none", "turned by every 7 degrees, 7 to 357", "moved by 1000 px", "in the other direction"):
        assert rows["outline", change]["embedding_max"] < 0.01, change
    page = (workdir / "report" / "index.html").read_text()
    for title in ("Neighbors in latent space", "From one object to another", "Shapes that nobody drew"):
        assert title in page
    assert "80 outlines of 128 points" in page
    assert "outline: in the other direction" in page


def test_scores_and_report_are_kept_when_the_table_of_invariances_is_stopped(trained, monkeypatch):
    workdir = trained("vae")
    embedding.write_embeddings(workdir)
    shutil.rmtree(workdir / "report", ignore_errors=True)

    def two_rows(*arguments, **how):
        rows = shape_invariance.invariances(*arguments, **how)
        yield next(rows)
        yield next(rows)
        raise KeyboardInterrupt

    monkeypatch.setattr("bie_jax.evaluation.kinds.invariances", two_rows)
    with pytest.raises(KeyboardInterrupt):
        evaluate(workdir)
    scores = json.loads((workdir / "scores.json").read_text())
    assert [row["change"] for row in scores["invariances"]] == ["none", "turned by every 7 degrees, 7 to 357"]
    assert "trained_encoder" in scores["feature_sets"]
    assert "Neighbors in latent space" in (workdir / "report" / "index.html").read_text()


def test_back_from_a_latent_vector_to_a_mask(trained):
    embedder = embedding.load_latents(trained("vae"))
    latents = np.random.default_rng(0).normal(size=(4, embedder.dim)).astype(np.float32)
    outlines = latent_to_outline(embedder, latents)
    d = embedder.decode(latents)[..., 0]
    np.testing.assert_allclose(normalized_distances(outlines)[0], d, atol=1e-4)
    for outline in outlines:
        mask = contour_to_mask(100 * (outline - outline.min(axis=0)) + 2, (500, 500))
        # Where an outline crosses itself, what it goes round twice counts once.
        assert mask.sum() == pytest.approx(100**2 * abs(signed_area(outline)), rel=0.1)


def test_where_an_outline_starts_and_how_it_lies_is_not_in_the_embedding(trained, shapes):
    embedder = embedding.load(trained("vae"))
    outlines = open_image_set("mnist_shapes", shapes).images(np.arange(8))
    expected = embedder.embed(outlines)
    turn = np.array([[0.6, 0.8], [0.8, -0.6]], np.float32)
    spread = expected.std(axis=0).mean()
    for shift in (21, 1, 2, 3, 64):  # every fourth point is seen: all phases
        other = np.roll(outlines[:, ::-1, :, 0], shift, axis=1) @ turn * 2.5 + 30
        np.testing.assert_allclose(embedder.embed(other[..., None]), expected, atol=1e-3 * spread)
    assert np.abs(expected[0] - expected[1]).max() > spread


def _untrained(trained, folder, seen, keeps="nothing"):
    """Random weights that look at `seen` points."""
    workdir = trained("vae")
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["crop_size"] = [seen, seen]
    config["model"]["ring"]["keeps"] = keeps
    config["data"]["outline"]["reindex"] = "none"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "dataset.json").write_bytes((workdir / "dataset.json").read_bytes())
    return next(embedding.load_untrained(folder, (0,)))


@pytest.mark.parametrize("keeps", ["nothing", "direction"])
@pytest.mark.parametrize(("stored", "seen"), [(256, 64), (240, 48), (64, 64)])
def test_every_stored_point_is_as_good_a_start_as_any(stored, seen, keeps, trained, tmp_path):
    """Points between those that are seen too: taking every fourth moved an embedding by a fifth of the spread."""
    embedder = _untrained(trained, tmp_path / "run", seen, keeps)
    outlines = np.stack([mask_to_contour(_mask(number), stored) for number in range(8)]).astype(np.float32)
    expected = embedder.embed(outlines[..., None])
    spread = np.sqrt(2 * expected.var(axis=0).sum())

    def moved(points):
        return np.linalg.norm(embedder.embed(points[..., None]) - expected, axis=1) / spread

    views = [embedder.embed(outlines[:, start :: stored // seen, :, None]) for start in range(stored // seen)]
    before = slice(embedder.widths[0], None)  # the encoder's features, of which the mean is taken
    np.testing.assert_allclose(expected[:, before], np.mean(views, axis=0)[:, before], atol=1e-5)
    for shift in (*range(1, min(stored // seen, 5)), stored // 2 + 1):
        assert moved(np.roll(outlines, shift, axis=1)).max() < 1e-4
    other_way = np.roll(outlines[:, ::-1], 2, axis=1)
    mirrored = outlines * np.asarray([1, -1], np.float32)
    if keeps == "nothing":
        assert moved(other_way).max() < 1e-4
        assert moved(mirrored).max() < 1e-4
    else:  # mirrored and traced the same way round is told apart; mirrored as it is runs the other way round
        assert moved(other_way).min() > 1e-2
        assert moved(other_way * np.asarray([1, -1], np.float32)).min() > 1e-2


def test_where_the_start_is_kept_one_view_is_seen(trained, tmp_path):
    embedder = _untrained(trained, tmp_path / "run", 32, "start")
    outlines = np.stack([mask_to_contour(_mask(number), 64) for number in range(4)]).astype(np.float32)[..., None]
    np.testing.assert_allclose(embedder.embed(outlines), embedder.embed(outlines[:, ::2]), atol=1e-5)


def test_masks_are_embedded_as_the_set_was(trained):
    workdir = trained("vae")
    table = embedding.write_embeddings(workdir)
    expected = table.filter(regex="^vae_").to_numpy()[:6]
    masks = np.stack([_mask(number) for number in range(6)])
    np.testing.assert_allclose(embed_masks(masks, workdir), expected, atol=1e-5)
    of_any_size = [np.pad(mask, number) for number, mask in enumerate(masks)]
    np.testing.assert_allclose(embed_masks(of_any_size, workdir), expected, atol=1e-4)
    with pytest.raises(ValueError, match="mask 1: "):
        embed_masks([masks[0], np.zeros((9, 9))], workdir)
    half_hidden = np.ma.array(masks[1], mask=masks[1] > 0)
    with pytest.raises(ValueError, match=r"mask 1 holds masked values; fill them"):
        embed_masks([masks[0], half_hidden], workdir)
    with pytest.raises(ValueError, match=r"got .* of complex128"):
        embed_masks(masks.astype(complex), workdir)


def test_masks_need_a_run_on_shapes(trained_workdir):
    with pytest.raises(
        ConfigError, match=r"was trained on images; embed_masks needs a run with config.data.kind='shape"
    ):
        embed_masks(np.ones((1, 8, 8)), trained_workdir[0])
    with pytest.raises(
        ConfigError, match=r"nothing was trained in nowhere; [^$]* data.build my_masks .* --layout=folder"
    ):
        embed_masks(np.ones((1, 8, 8)), "nowhere")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.crop_size", (48, 48), r"crop_size=\(48, 48\): the outlines of 'mnist_shapes' have 128 points"),
        ("data.crop_size", (32, 64), r"crop_size=\(32, 64\).* with kind='shapes'"),
        ("data.kind", "images", "model.encoder='ring', model.decoder='points' with data.kind='images'"),
        ("model.decoder", "mirror", "decoder='mirror' with encoder='ring': 'points' and 'matrix' are possible"),
        ("model.name", "mae", "encoder='ring' with name='mae'"),
        ("model.channels", "independent", "it makes one matrix of one latent vector"),
        ("model.ring.keeps", "start", "what it keeps would be random"),
        ("model.ring.kernel_size", 4, "kernel_size"),
        (
            "eval.append",
            ("scale",),
            r"eval.append=\('scale',\): 'scale' is no number known of .* scale_px, .*feret_min_px",
        ),
        ("data.name", "osteo", "the set 'osteo' is not built"),
    ],
)
def test_what_cannot_run_is_refused(key, value, message, shapes, tmp_path):
    config = _tiny(shape_vae_mnist, shapes)
    config.update_from_flattened_dict({key: value})
    with pytest.raises((ConfigError, FileNotFoundError), match=message):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.name": "mae", "model.encoder": "vit", "model.decoder": "mirror"},
            "model.name='mae' with data.kind='shapes': all other methods are possible",
        ),
        ({"model.name": "vqvae", "model.bottleneck": "grid", "model.encoder": "vit"}, "'pooled' is possible"),
        ({"model.encoder": "resnet", "model.decoder": "mirror", "model.channels": "independent"}, "is one channel"),
        ({"model.decoder": "matrix", "data.crop_size": (20, 20)}, "model.decoder='matrix': .* a multiple of 8"),
        (
            {"model.ring.keeps": "start", "data.outline.reindex": "none", "data.crop_size": (40, 40)},
            "model.ring.keeps='start': .* a multiple of 16",
        ),
    ],
)
def test_what_an_outline_cannot_have_is_refused(changes, message, shapes):
    config = _tiny(shape_vae_mnist, shapes)
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_other_numbers_of_points_are_refused_not_thinned(trained):
    embedder = embedding.load(trained("vae"))
    with pytest.raises(ValueError, match=r"outlines have shape \(3, 100, 2, 1\); expected .* a multiple of 32"):
        embedder.embed(np.ones((3, 100, 2, 1), np.float32))


def test_baselines_of_few_points(shapes):
    class Few:
        images = staticmethod(lambda rows: open_image_set("mnist_shapes", shapes).images(rows)[:, ::8])
        __len__ = staticmethod(lambda: 2 * PER_CLASS)

    made = shape_features(Few(), np.arange(2), classical=True)
    assert {"all_classical", "fourier_magnitudes"} <= {one.key for one in made.feature_sets}


def test_folds_take_their_components_of_the_readout_not_of_the_table(trained, monkeypatch):
    """The components in embeddings.parquet are fitted to the run's training images, which are tested in other folds."""
    workdir = trained("cells")
    table = embedding.write_embeddings(workdir)
    handed = []

    def keep(feature_sets, *_):
        handed.extend(feature_sets)
        raise InterruptedError

    monkeypatch.setattr("bie_jax.evaluation.evaluate.score_features", keep)
    with pytest.raises(InterruptedError):
        evaluate(workdir)
    first, random = handed[:2]
    assert table.filter(regex=r"^vae_").shape[1] == 12 + 10
    assert first.components[0].columns == embedding.load_readout(workdir).dim > 12
    for one in (first, random):
        assert [block.components for block in one.components] == [12, None]  # what is appended stays as it is
        assert one.draws.shape[-1] == sum(block.columns for block in one.components)


def test_all_classical_hands_every_fold_matrices_and_spectra_to_take_components_of(shapes):
    class Few:
        images = staticmethod(lambda rows: open_image_set("mnist_shapes", shapes).images(rows)[:, ::2])
        __len__ = staticmethod(lambda: PER_CLASS)

    made = {one.key: one for one in shape_features(Few(), np.arange(1), classical=True).feature_sets}["all_classical"]
    known, matrices, spectra = made.components
    assert known.components is None
    assert (matrices.components, spectra.components) == (64, 64)
    assert matrices.standardized
    assert spectra.standardized
    outlines = Few.images(range(PER_CLASS))[..., 0].astype(np.float64)
    d = normalized_distances(outlines)[0]
    found = made.features[:, known.columns : known.columns + matrices.columns]
    np.testing.assert_allclose(found, [m[np.triu_indices(64, 1)] for m in d], rtol=1e-5)
    spectrum = cyclic_diagonal_spectrum(d).reshape(PER_CLASS, -1)
    np.testing.assert_allclose(made.features[:, known.columns + matrices.columns :], spectrum, rtol=1e-5)
    assert made.dim == known.columns + 2 * 64


def test_a_set_of_images_is_no_set_of_shapes(tiny_config, shapes, tmp_path):
    tiny_config.data.data_dir, tiny_config.data.name = shapes, "mnist_shapes"
    tiny_config.data.crop_size = (32, 32)
    with pytest.raises(ConfigError, match=r"data.kind='images', but 'mnist_shapes' is a set of shapes"):
        train_and_evaluate(tiny_config, tmp_path / "run")

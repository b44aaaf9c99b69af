"""Names that others may have written into their code: each still imports from where it was, and does what it did."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bie_jax
from bie_jax import shapes
from bie_jax.config.schema import ConfigError
from bie_jax.losses import shape as shape_losses
from bie_jax.models.pretrained import load_huggingface
from bie_jax.models.quantizer import VectorQuantizer
from bie_jax.optimizer import build_optimizer
from bie_jax.shapes import contour, descriptors, distance_matrix, mds, polygon, resample
from bie_jax.train import train_and_evaluate
from configs import base

pytestmark = pytest.mark.slow

POINTS = 32
ANGLE = 2 * np.pi * np.arange(POINTS) / POINTS
RADIUS = 5 + np.cos(2 * ANGLE + 1) + 0.5 * np.cos(3 * ANGLE)
OUTLINE = np.stack([10 + RADIUS * np.sin(ANGLE), 12 + RADIUS * np.cos(ANGLE)], axis=1)  # [P, 2] px
MATRIX = distance_matrix.pairwise_distances(OUTLINE)
DISK = np.hypot(*np.mgrid[-10:11, -10:11]) < 7


def test_load_says_that_a_folder_without_a_run_has_none(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no config.json: nothing was trained there"):
        bie_jax.load(tmp_path)


def test_train_and_evaluate_takes_a_configuration_and_a_workdir(tmp_path):
    assert list(inspect.signature(train_and_evaluate).parameters) == ["config", "workdir"]
    with pytest.raises(ConfigError, match=r"is a ml_collections.ConfigDict, not a dict"):
        train_and_evaluate({}, tmp_path)  # type: ignore[arg-type]


def test_vector_quantizer_has_the_mean_commitment_as_its_loss():
    """Against a loop over vectors."""
    quantizer = VectorQuantizer(num_codes=5, code_dim=3, commitment_cost=0.25)
    z = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    variables = quantizer.init(jax.random.key(0), z, train=False)
    z_q, out = quantizer.apply(variables, z, train=False)
    codes = np.asarray(variables["codebook"]["codebook"])[0]
    costs = [0.25 * min(sum((vector - code) ** 2) for code in codes) for vector in z.reshape(-1, 3)]
    assert out["loss"].shape == ()
    np.testing.assert_allclose(out["loss"], np.mean(costs), rtol=1e-5)
    np.testing.assert_allclose(out["loss"], out["commitment"].mean(), rtol=1e-6)
    np.testing.assert_array_equal(z_q, codes[np.asarray(out["codes"])[..., 0]])


def test_build_optimizer_makes_a_step():
    config = base.get_config("tiny", "base").optimizer
    params = {"layer": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
    tx, schedule = build_optimizer(config, params, steps_per_epoch=10, epochs=5)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    assert float(moved["layer"]["kernel"].max()) < 1
    np.testing.assert_allclose(schedule(0), config.warmup_init_lr, rtol=1e-3)


def test_load_huggingface_says_that_a_folder_holds_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*model.safetensors. save_pretrained of"):
        load_huggingface(tmp_path, {}, {})


def test_losses_of_true_distances_are_zero():
    d = jnp.asarray(MATRIX, jnp.float32)[None]
    for term in (
        shape_losses.zero_diagonal,
        shape_losses.symmetry,
        shape_losses.non_negativity,
        shape_losses.triangle_inequality,
    ):
        assert float(term(d)) < 1e-9
        assert float(term(d - 3 + jnp.arange(POINTS)[None, :, None])) > 1e-3
    turned = distance_matrix.reindex(d, 5, True)
    np.testing.assert_allclose(shape_losses.reindexed_mse(d, turned), [0], atol=1e-8)
    shift, flip = shape_losses.best_reindexing(d, turned)
    np.testing.assert_array_equal(shift % POINTS, [5])
    np.testing.assert_array_equal(flip, [True])


def test_masks_become_outlines_and_outlines_masks():
    outline = contour.mask_to_contour(DISK, POINTS)
    np.testing.assert_array_equal(contour.masks_to_contours(DISK[None], POINTS), outline[None])
    labels, outlines = contour.label_image_to_contours(3 * DISK, POINTS)
    np.testing.assert_array_equal(labels, [3])
    np.testing.assert_allclose(outlines[0], outline)
    np.testing.assert_array_equal(polygon.contour_to_mask(contour.outer_boundary(DISK), DISK.shape), DISK)
    (found,) = contour.objects(3 * DISK)
    assert (found.label, found.mask.sum()) == (3, DISK.sum())
    assert contour.largest_object(DISK).mask.sum() == DISK.sum()


def test_matrices_become_points_and_points_matrices():
    normalized, scale = distance_matrix.normalized_distances(OUTLINE)
    for ours, expected in zip(distance_matrix.normalize_scale(MATRIX), (normalized, scale), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-12)
    points = mds.classical_mds(MATRIX)
    np.testing.assert_allclose(distance_matrix.pairwise_distances(points), MATRIX, atol=1e-8)
    np.testing.assert_allclose(mds.smacof(MATRIX, points, 1), points, atol=1e-8)
    exact = mds.points_of_exact(jnp.asarray(MATRIX, jnp.float32)[None])[0]
    np.testing.assert_allclose(distance_matrix.pairwise_distances(exact), MATRIX, atol=1e-3)
    assert mds.residual_energy(MATRIX) < 1e-12
    np.testing.assert_allclose(polygon.align(points, OUTLINE), OUTLINE, atol=1e-6)


def test_other_starts_and_directions_are_the_same_matrix():
    turned = distance_matrix.reindex(MATRIX, 5, True)
    order = distance_matrix.reindexing(POINTS, 5, True)
    np.testing.assert_allclose(turned, distance_matrix.pairwise_distances(OUTLINE[order]))
    canonical = [distance_matrix.reindex(d, *distance_matrix.canonical_start(d)) for d in (MATRIX, turned)]
    np.testing.assert_array_equal(*canonical)
    spectra = [distance_matrix.cyclic_diagonal_spectrum(d) for d in (MATRIX, distance_matrix.reindex(MATRIX, 5, False))]
    np.testing.assert_allclose(*spectra, atol=1e-9)


def test_outlines_are_measured_and_resampled():
    area = 0.5 * sum(RADIUS * np.roll(RADIUS, -1) * np.sin(2 * np.pi / POINTS))
    np.testing.assert_allclose(np.abs(polygon.signed_area(OUTLINE)), area)
    assert np.abs(polygon.centroid(OUTLINE) - OUTLINE.mean(axis=0)).max() < 1
    for features in (
        descriptors.region_properties(OUTLINE[None]),
        descriptors.elliptic_fourier(OUTLINE[None], 4),
        descriptors.fourier_magnitudes(OUTLINE[None], 6),
    ):
        assert features.values.shape == (1, len(features.names))
        assert np.isfinite(features.values).all()
    assert descriptors.elliptic_coefficients(OUTLINE[None], 4, normalize=False).shape == (1, 4, 4)
    again = resample.resample_contour(OUTLINE, 2 * POINTS)
    np.testing.assert_allclose(np.abs(polygon.signed_area(again)), area, rtol=0.02)
    np.testing.assert_array_equal(resample.resample_linear(OUTLINE, np.asarray([POINTS]), 2 * POINTS)[0], again)
    assert resample.resample_curve(OUTLINE, POINTS, "spline").shape == (POINTS, 2)
    with pytest.raises(ValueError, match="num_points"):
        resample.check_resampling(2, "linear")


def test_masks_without_a_run_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing was trained in"):
        shapes.embed_masks(DISK[None], tmp_path)

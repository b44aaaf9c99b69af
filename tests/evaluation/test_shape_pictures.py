"""What the pictures of shapes are made of."""

import numpy as np
import pytest

from bie_jax.evaluation.shape_pictures import LEAST_FOR_MIXTURE, in_one_pose, sample_latents


def test_a_row_in_one_pose_is_one_outline():
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(32) / 32
    radius = 1 + 0.3 * np.cos(2 * angle) + 0.2 * np.sin(3 * angle)
    outline = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    outline = (outline - outline.mean(axis=0)) / np.sqrt(2 * outline.var(axis=0).sum())  # in RMS distances
    row = [outline]
    for number in range(5):
        turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
        row.append(np.roll(outline[:: (-1) ** number], 3 * number, axis=0) @ turn)
    np.testing.assert_allclose(in_one_pose(np.stack(row)), np.stack([outline] * 6), atol=1e-5)


@pytest.mark.parametrize(("count", "correlation"), [(LEAST_FOR_MIXTURE - 1, 0.0), (5000, 0.9)])
def test_samples_are_spread_as_the_latents_are(count, correlation):
    """Of few, axes are taken to be independent: a full covariance of few points is mostly noise."""
    rng = np.random.default_rng(0)
    covariance = np.array([[4.0, 1.8], [1.8, 1.0]])
    latents = rng.multivariate_normal([3.0, -1.0], covariance, size=count)
    drawn = sample_latents(latents, 4000, seed=1)
    assert drawn.shape == (4000, 2)
    np.testing.assert_allclose(drawn.mean(axis=0), latents.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(drawn.std(axis=0), latents.std(axis=0), rtol=0.1)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(correlation, abs=0.05)


def test_samples_of_two_groups_lie_in_either():
    rng = np.random.default_rng(0)
    latents = np.concatenate([rng.normal(-10, 1, (200, 3)), rng.normal(10, 1, (200, 3))])
    drawn = sample_latents(latents, 400, seed=0)
    assert (np.abs(np.abs(drawn.mean(axis=1)) - 10) < 3).all()
    assert 0.3 < (drawn[:, 0] > 0).mean() < 0.7


def test_latents_near_a_plane_are_drawn_from_without_a_warning():
    """32 numbers of which 2 are free, in single precision: warnings are errors in these tests."""
    rng = np.random.default_rng(0)
    latents = (rng.normal(size=(650, 2)) * [300, 30]) @ rng.normal(size=(2, 32))
    drawn = sample_latents(latents.astype(np.float32), 8, seed=0)
    assert drawn.dtype == np.float32
    axes = np.linalg.svd(latents - latents.mean(axis=0), full_matrices=False)[2]
    outside = (drawn - latents.mean(axis=0)) @ axes[2:].T
    assert np.abs(outside).max() < 0.1  # the floor under a variance is 0.01 squared

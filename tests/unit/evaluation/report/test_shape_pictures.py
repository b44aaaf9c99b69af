"""What the pictures of shapes are made of."""

from types import SimpleNamespace

import numpy as np
import pytest

from bie_jax.evaluation.report.shape_pictures import (
    COLUMNS,
    LEAST_FOR_MIXTURE,
    ROWS,
    _neighbors,
    _reconstructions,
    _walks,
    in_one_pose,
    sample_latents,
)
from bie_jax.shapes.distance_matrix import normalized_distances

pytestmark = pytest.mark.slow


def _blob():
    """[32, 2], centered, in RMS distances."""
    angle = 2 * np.pi * np.arange(32) / 32
    radius = 1 + 0.3 * np.cos(2 * angle) + 0.2 * np.sin(3 * angle)
    outline = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return (outline - outline.mean(axis=0)) / np.sqrt(2 * outline.var(axis=0).sum())


def _distances(outline):
    return normalized_distances(outline[None])[0][0]


def test_a_row_in_one_pose_is_one_outline():
    rng = np.random.default_rng(0)
    outline = _blob()
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


def test_neighbors_are_those_of_standardized_numbers_and_count_where_a_label_is_known():
    """Two numbers of very different spread; a third of the objects has no label, and is nobody's query."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(30, 2)) * (1e-3, 1e2)
    names = np.array(["a", "b", ""] * 10)
    outlines = rng.normal(size=(30, 16, 2))
    caption = _neighbors(latents, lambda rows: outlines[rows], names, np.random.default_rng(0)).caption
    standard = latents / latents.std(axis=0)
    same = []
    queries = np.random.default_rng(0).choice(30, ROWS + 2, replace=False)
    assert 0 < np.sum(names[queries] == "") < len(queries)
    for query in queries[names[queries] != ""]:
        order = sorted(range(len(names)), key=lambda row: np.linalg.norm(standard[row] - standard[query]))
        same += [names[row] == names[query] for row in order[1:COLUMNS]]
    assert f"{np.mean(same):.0%} of the neighbors shown carry its label" in caption


def test_an_axis_says_its_share_of_the_variance():
    """Deviations of 3 and 1: nine tenths of the variance lie along the first axis."""
    latents = np.array([[3, 0], [-3, 0], [0, 1], [0, -1]], np.float32)
    picture = _walks(
        SimpleNamespace(decode=lambda walk: np.stack([_distances(_blob())] * len(walk))[..., None]), latents
    )
    assert "axis 1 (90%)" in picture.svg
    assert "axis 2 (10%)" in picture.svg


def test_what_is_left_out_of_the_plane_is_told(tmp_path):
    """The share of the squares of all eigenvalues but the two largest, of matrices as predicted."""
    rng = np.random.default_rng(0)
    outline = _blob()
    d = _distances(outline)
    noise = rng.normal(scale=0.1, size=(2, *d.shape)) * (1 - np.eye(len(d)))
    d_hat = d + noise
    np.savez(
        tmp_path / "reconstructions.npz",
        image=np.stack([d, d])[..., None],
        reconstruction=d_hat[..., None],
        index=[4, 5],
    )
    image_set = SimpleNamespace(images=lambda rows: np.stack([outline] * len(rows))[..., None])
    shares = []
    for matrix in (d_hat + d_hat.swapaxes(1, 2)) / 2:
        centering = np.eye(len(d)) - 1 / len(d)
        squares = np.sort(np.square(np.linalg.eigvalsh(-0.5 * centering @ matrix**2 @ centering)))
        shares.append(squares[:-2].sum() / squares.sum())
    caption = _reconstructions(tmp_path, image_set, 1).caption
    assert f"{np.mean(shares):.1%} of the predicted matrices' energy" in caption


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


@pytest.mark.parametrize("count", [1, 2, COLUMNS - 1, COLUMNS, COLUMNS + 1])
def test_neighbors_of_few_objects_are_as_many_as_there_are(count):
    outlines = np.stack([_blob() * (1 + number) for number in range(count)])
    names = np.array(["$a$"] * count)
    latents = np.random.default_rng(0).normal(size=(count, 3))
    picture = _neighbors(latents, lambda rows: outlines[rows], names, np.random.default_rng(0))
    assert (f"nearest {min(count, COLUMNS) - 1}" in picture.svg) == (count > 1)
    assert f"nearest {min(count, COLUMNS)}" not in picture.svg
    assert ("100% of the neighbors" in picture.caption) == (count > 1)
    assert "$a$" in picture.svg

"""The table of invariances, of embeddings whose invariances are known."""

import numpy as np
import pytest

from bie_jax.evaluation.scores.invariance import invariances
from bie_jax.shapes.polygon import signed_area
from bie_jax.shapes.resample import resample_contour

pytestmark = pytest.mark.slow

TURNED = "turned by every 7 degrees, 7 to 357"
WITHOUT_LOSS = (
    "none",
    TURNED,
    "moved by 1000 px",
    "0.5 times the size",
    "2 times the size",
    "mirrored, and traced the same way round",
    "in the other direction",
    "from another start point",
)


@pytest.fixture(scope="module")
def outlines():
    """[24, 32, 2] ellipses of two elongations, and their labels."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(200) / 200
    made = []
    for number in range(24):
        long, wide = rng.uniform(14, 18), rng.uniform(11, 13) if number % 2 else rng.uniform(5, 6)
        made.append(resample_contour(np.stack([long * np.sin(angle), wide * np.cos(angle)], axis=1) + 40, 32))
    return np.stack(made), np.where(np.arange(24) % 2, "round", "long")


def _table(embed, outlines, labels, most_side_px=256):
    how = {"num_objects": 8, "most_training": 100, "most_side_px": most_side_px, "components": None, "seed": 0}
    rows = list(invariances(embed, outlines, embed(outlines[..., None]), labels, **how))
    table = {(row["of"], row["change"]): row for row in rows}
    assert len(table) == len(rows)
    return table


def _elongation(outline):
    """[n, P, 2, 1] -> [n, 1]: ratio of the principal axes, whatever pose, size and start."""
    points = outline[..., 0].astype(np.float64)
    values = np.linalg.svd(points - points.mean(axis=1, keepdims=True), compute_uv=False)
    return values[:, :1] / values[:, 1:]


def test_an_invariant_embedding_does_not_change(outlines):
    table = _table(_elongation, *outlines)
    for change in WITHOUT_LOSS:
        row = table["outline", change]
        assert row["embedding_max"] < 1e-4
        assert row["macro_f1"] == 1.0
        assert row["lost"] == 0
    drawn = table["mask", TURNED]
    assert 1e-3 < drawn["embedding"] < drawn["embedding_max"] < 0.2  # pixels cost something, little
    assert (
        table["mask", "2 times the pixels along each side"]["embedding"] < table["mask", "drawn as it is"]["embedding"]
    )
    noise = [table["outline", f"boundary displaced smoothly by {percent}% of the radius"] for percent in (1, 2, 5)]
    assert 0 < noise[0]["embedding"] < noise[1]["embedding"] < noise[2]["embedding"]


@pytest.mark.parametrize(
    ("embed", "changed", "kept"),
    [
        (lambda o: np.abs(signed_area(o[..., 0]))[:, None], ["2 times the size"], [TURNED, "moved by 1000 px"]),
        (lambda o: np.sign(signed_area(o[..., 0]))[:, None] * _elongation(o), ["in the other direction"], [TURNED]),
        (lambda o: o[:, 0, :, 0], ["from another start point", "moved by 1000 px", TURNED], ["none"]),
    ],
)  # fmt: skip
def test_what_an_embedding_depends_on_changes_it(outlines, embed, changed, kept):
    table = _table(embed, *outlines)
    for change in changed:
        assert table["outline", change]["embedding"] > 0.1
    for change in kept:
        assert table["outline", change]["embedding"] < 1e-3


def test_objects_too_thin_to_be_drawn_are_counted(outlines):
    points, labels = outlines
    thin = points.copy()
    thin[::2, :, 1] = 40.5 + (thin[::2, :, 1] - 40) / 30  # between two columns of pixels
    table = _table(_elongation, thin, labels)
    assert table["mask", "0.5 times the pixels along each side"]["lost"] > 0
    assert table["outline", TURNED]["lost"] == 0


def test_without_labels_there_is_no_f1(outlines):
    table = _table(_elongation, outlines[0], np.full(24, ""))
    assert {row["macro_f1"] for row in table.values()} == {None}


def test_outlines_in_other_units_than_pixels_lose_the_masks_alone(outlines):
    points, labels = outlines
    table = _table(_elongation, points / 500, labels)
    assert table["outline", TURNED]["embedding_max"] < 1e-4
    drawn = table["mask", "drawn as it is"]
    assert (drawn["embedding"], drawn["embedding_max"], drawn["macro_f1"], drawn["lost"]) == (None, None, None, 8)


def test_large_outlines_are_drawn_small_and_the_changes_themselves_are_not(outlines):
    points, labels = outlines
    lengths = []

    def embed(some):
        lengths.append(np.ptp(some[..., 0], axis=1).max())
        return _elongation(some)

    large = 100 * points  # 2,200 to 3,600 px long
    table = _table(embed, large, labels, most_side_px=48)
    assert table["outline", TURNED]["embedding_max"] < 1e-4
    assert 0 < table["mask", TURNED]["embedding"] < 0.2
    assert table["mask", TURNED]["embedding"] == pytest.approx(
        _table(_elongation, points * 48 / 36, labels, most_side_px=48)["mask", TURNED]["embedding"], rel=0.5
    )
    # The masks come last: 51 angles, as it is, mirrored, and at most twice the size.
    assert max(lengths[-56:]) < 2.1 * 48
    assert max(lengths) > 4000


def test_rows_come_one_by_one(outlines):
    points, labels = outlines
    asked = []
    rows = invariances(
        lambda some: asked.append(1) or _elongation(some),
        points,
        _elongation(points[..., None]),
        labels,
        num_objects=8,
        most_training=100,
        most_side_px=256,
        components=None,
        seed=0,
    )
    assert next(rows)["change"] == "none"
    assert len(asked) == 2  # the objects as they are, and this row
    rows.close()

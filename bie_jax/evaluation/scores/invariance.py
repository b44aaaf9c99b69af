"""How much an embedding of outlines changes where a shape does not, or hardly: the table of invariances.

Two kinds of change. An outline itself is moved, turned, enlarged, mirrored, and started elsewhere: what is left there
is rounding and the choice of points. And the object is drawn as a mask again, turned or at another size, and traced
anew, as another picture of it would be: what is left there is the cost of pixels.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypedDict

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from bie_jax.evaluation.feature_set import Reduction
from bie_jax.evaluation.scores.preparation import build_preparation
from bie_jax.shapes.contour import mask_to_contour
from bie_jax.shapes.polygon import contour_to_mask
from bie_jax.views.outlines import random_noise

DEGREES = tuple(range(7, 360, 7))
SIZES = (0.5, 0.71, 1.41, 2.0)
NOISES = (0.01, 0.02, 0.05)
MOST_TRAINING = 5000  # objects that the classifier learns from: enough for one that says what changes


class Invariance(TypedDict):
    """What one change does; see `invariances`."""

    change: str
    of: Literal["outline", "mask"]
    embedding: float | None
    embedding_max: float | None
    macro_f1: float | None
    lost: int


def invariances(
    embed: Callable[[np.ndarray], np.ndarray],
    outlines: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_objects: int,
    most_training: int,
    most_side_px: int,
    components: Reduction | None,
    seed: int,
) -> Iterator[Invariance]:
    """What each change does to the embedding of objects drawn at random, and to the F1 of a classifier of the others.

    Args:
        embed: outlines [n, P', 2, 1] px -> [n, D].
        outlines: [N, P', 2] px, of the whole set.
        features: [N, D], their embeddings.
        labels: [N] str, "" where there is none.
        num_objects: how many objects are drawn, of those with a label if there are any.
        most_training: others that the classifier (logistic regression) learns from, at most.
        most_side_px: an outline that is longer or wider is shrunk to this before it is drawn as a mask. Pixels matter
            more to a small mask than to a large one, and drawing takes time as their number does.
        components: what the classifier takes of the embeddings, fitted to those that it learns from.
        seed: of what is drawn.

    Yields:
        A row for each change, when it is measured: `change`, its name; `of`, "outline" or "mask"; `embedding` and
        `embedding_max`, the distance of the changed object's embedding from its own, as a share of the RMS distance
        between two objects, mean over objects and angles and the greatest mean of an angle; `macro_f1`, or None
        without two labels; and `lost`, how many objects had too few pixels to be drawn, and are left out. None where
        all of them had, as those of outlines in other units than pixels. The first row is no change.
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(labels != "") if len(np.unique(labels[labels != ""])) > 1 else np.arange(len(labels))
    drawn = rng.choice(known, min(num_objects, max(len(known) // 2, 1)), replace=False)
    others = np.setdiff1d(known, drawn)
    learned = rng.choice(others, min(most_training, len(others)), replace=False)
    classifier = None
    if len(np.unique(labels[learned])) > 1 and (labels[learned] != "").all():
        preparation = build_preparation(len(learned), features.shape[1], components, seed)
        classifier = make_pipeline(preparation, LogisticRegression(class_weight="balanced", max_iter=1000))
        with threadpool_limits(1, user_api="blas"):
            classifier.fit(features[learned], labels[learned])
    originals = outlines[drawn].astype(np.float64)
    own = embed(originals[..., None].astype(np.float32))
    # Twice the summed variance is the mean squared distance between two objects drawn independently.
    spread = np.sqrt(2 * features.astype(np.float64).var(axis=0).sum())
    changes = _changes(originals, rng, most_side_px)
    total = sum(count for *_, count in changes)
    bar = tqdm(total=total, desc="invariances", unit="version", mininterval=1.0)
    for of, name, versions, _ in changes:
        distances, scores, lost = [], [], 0
        for version in versions:
            bar.update()
            there = np.isfinite(version).all(axis=(1, 2))
            lost = max(lost, int((~there).sum()))
            if not there.any():
                continue
            changed = embed(version[there, ..., None].astype(np.float32))
            distances.append(np.linalg.norm(changed - own[there], axis=1).mean() / max(spread, 1e-12))
            if classifier is not None:
                guessed = classifier.predict(changed)
                scores.append(f1_score(labels[drawn][there], guessed, average="macro", zero_division=0))  # type: ignore[reportArgumentType]
        yield {
            "change": name,
            "of": of,
            "embedding": float(np.mean(distances)) if distances else None,
            "embedding_max": float(np.max(distances)) if distances else None,
            "macro_f1": float(np.mean(scores)) if scores else None,
            "lost": lost,
        }
    bar.close()


_Change = tuple[Literal["outline", "mask"], str, Iterable[np.ndarray], int]


def _changes(points: np.ndarray, rng: np.random.Generator, most_side_px: int) -> list[_Change]:
    """Of what, the change's name, and the changed outlines [n, P', 2]: of a change of many degrees several, and how
    many."""
    count, num_points, _ = points.shape
    every_seventh = f"turned by every 7 degrees, {DEGREES[0]} to {DEGREES[-1]}"

    def one(of: Literal["outline", "mask"], name: str, version: Callable[[], np.ndarray]) -> _Change:
        return of, name, (version() for _ in range(1)), 1  # made when it is its turn

    # The other way round, from the same point.
    reversed_points = np.roll(points[:, ::-1], 1, axis=1)
    shifts = rng.integers(1, num_points, count)
    order = (np.arange(num_points)[None] + shifts[:, None]) % num_points
    center = points.mean(axis=1, keepdims=True)

    def noisy(amount: float) -> np.ndarray:
        key = jax.random.key(int(rng.integers(2**31)))
        return np.asarray(random_noise(key, jax.numpy.asarray(points - center, jax.numpy.float32), amount)) + center

    drawn = points * np.minimum(1, most_side_px / np.maximum(np.ptp(points, axis=1).max(axis=1), 1))[:, None, None]
    return [
        one("outline", "none", lambda: points),
        ("outline", every_seventh, (_turned(points, angle) for angle in DEGREES), len(DEGREES)),
        one("outline", "moved by 1000 px", lambda: points + 1000.0),
        one("outline", "0.5 times the size", lambda: 0.5 * points),
        one("outline", "2 times the size", lambda: 2.0 * points),
        one("outline", "mirrored, and traced the same way round", lambda: reversed_points * [1.0, -1.0]),
        one("outline", "in the other direction", lambda: reversed_points),
        one(
            "outline",
            "from another start point",
            lambda: np.take_along_axis(points, order[..., None], axis=1),
        ),
        *(
            one(
                "outline",
                f"boundary displaced smoothly by {amount:.0%} of the radius",
                functools.partial(noisy, amount),
            )
            for amount in NOISES
        ),
        one("mask", "drawn as it is", lambda: _traced_again(drawn)),
        ("mask", every_seventh, (_traced_again(_turned(drawn, angle)) for angle in DEGREES), len(DEGREES)),
        one("mask", "mirrored", lambda: _traced_again(drawn * [1.0, -1.0])),
        *(
            one(
                "mask",
                f"{size:g} times the pixels along each side",
                functools.partial(lambda size: _traced_again(size * drawn), size),
            )
            for size in SIZES
        ),
    ]


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    center = points.mean(axis=1, keepdims=True)
    return (points - center) @ turn + center


def _traced_again(points: np.ndarray) -> np.ndarray:
    """Each outline filled with pixels, and the outline of those; NaN where no pixel's center is inside."""
    traced = np.full_like(points, np.nan)
    for number, outline in enumerate(points):
        corner = np.floor(outline.min(axis=0)) - 1
        mask = contour_to_mask(outline - corner, tuple(np.ptp(outline, axis=0).astype(int) + 4))
        if mask.any():
            traced[number] = mask_to_contour(mask, points.shape[1]) + corner
    return traced

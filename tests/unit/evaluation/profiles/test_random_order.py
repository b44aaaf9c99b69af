import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from bie_jax.evaluation.profiles import random_order as module
from bie_jax.evaluation.profiles.random_order import draw_random_orders


def scores(*pairs):
    table = pd.DataFrame(pairs, columns=pd.Index(["n_pos_pairs", "n_total_pairs"]))
    table["average_precision"] = np.where(table["n_pos_pairs"] > 0, 0.5, np.nan)
    return table


@pytest.mark.parametrize("draw", ["permute", "choose"])
def test_every_order_is_as_likely_as_the_next(draw):
    """All 10 places of 2 among 5: their average precisions differ, so that each can be counted."""
    null = draw_random_orders(scores((2, 5), (0, 9), (2, 5)), 20_000, 0, draw)
    np.testing.assert_array_equal(null.configurations, [[2, 5]])
    every = np.array([(1 / a + 2 / b) / 2 for a, b in itertools.combinations(range(1, 6), 2)])
    assert len(np.unique(every.round(9))) == 10
    counts = (np.abs(null.values[0][:, None] - every) < 1e-9).sum(axis=0)
    assert counts.sum() == 20_000
    assert chisquare(counts).pvalue > 1e-3


def test_blocks_are_one_stream_of_random_numbers(monkeypatch):
    table = scores((3, 40), (1, 7), (40, 300))
    whole = draw_random_orders(table, 50, 3, "permute")
    monkeypatch.setattr(module, "_PLACES_HELD", 100)
    np.testing.assert_array_equal(draw_random_orders(table, 50, 3, "permute").values, whole.values)
    np.testing.assert_array_equal(whole.configurations, [[1, 7], [3, 40], [40, 300]])


def test_what_cannot_be_drawn_is_told():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        draw_random_orders(scores((1, 2)), 0, 0, "permute")
    with pytest.raises(ValueError, match="nothing to draw for"):
        draw_random_orders(scores((0, 2)), 10, 0, "permute")
    with pytest.raises(ValueError, match="one of permute, choose, got 'all'"):
        draw_random_orders(scores((1, 2)), 10, 0, "all")  # pyright: ignore[reportArgumentType]


def test_draws_are_those_of_copairs(tmp_path):
    compute = pytest.importorskip("copairs.compute")
    table = scores((3, 40), (1, 7), (40, 300))
    found = draw_random_orders(table, 50, 3, "permute")
    theirs = compute.get_null_dists(found.configurations, 50, seed=3, cache_dir=tmp_path, progress_bar=False)
    np.testing.assert_allclose(found.values, theirs, atol=1e-6)

import numpy as np
import pytest

from bie_jax.evaluation.report.codebook import codebook_statistics


def test_codebook_statistics_in_closed_form():
    assert codebook_statistics(np.full((1, 8), 5)) == (8, 8, pytest.approx(8))
    assert codebook_statistics(np.array([[0, 0, 9, 0]])) == (1, 4, pytest.approx(1))
    shares = np.array([0.5, 0.25, 0.25])
    used, there, perplexity = codebook_statistics(np.array([[2, 1, 1], [4, 4, 0]]))
    assert (used, there) == (5, 6)
    np.testing.assert_allclose(perplexity, (2 ** -(shares * np.log2(shares)).sum() + 2) / 2)

"""Sweeps that the tests make."""

from bie_jax.tuning.sweep import Choice, Grid, Score, Share, Sweep

SCORE = Score("per_plate", "leave_plate_out", "logistic_regression", "macro_f1", maximize=True)


def sweep(**changes):
    """Two values, two seeds, nothing held out, but for the changes."""
    fields = {
        "axes": {"model.latent_dim": Choice((8, 16))},
        "fixed": {},
        "search": Grid(),
        "metric": SCORE,
        "seeds": (0, 1),
        "num_folds": 0,
        "held_out": (),
        "halving": None,
        "at_once": 2,
        "each": Share(1, 0, 0),
    }
    return Sweep(**(fields | changes))

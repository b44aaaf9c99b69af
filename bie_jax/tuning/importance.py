"""How much of what the trials differ by comes from each axis, and how much from the seed."""

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from bie_jax.tuning.ranking import Row
from bie_jax.tuning.search import as_param, distribution_of
from bie_jax.tuning.sweep import Sweep

_LEAST = 4  # units; fewer say nothing
SEED, HELD_OUT = "seed", "held out"


def importances(sweep: Sweep, rows: Sequence[Row]) -> dict[str, float]:
    """Shares of the variance of the metric, by axis, seed and held-out part, largest first; they sum to 1.

    By functional ANOVA (Hutter et al. 2014) of a random forest over all units, as Optuna computes it. What the seed has
    is noise: an axis with less than the seed has not been shown to matter.

    Args:
        sweep: whose axes.
        rows: of its ranking.

    Returns:
        Nothing with fewer than four units, or where all are alike.
    """
    units = [(row, key, unit) for row in rows if not row.stopped for key, unit in row.units.items()]
    values = np.array([unit.value for _, _, unit in units])
    if len(units) < _LEAST or np.ptp(values) == 0:
        return {}
    parts = sorted({held_out for _, (held_out, _), _ in units})
    distributions = {name: distribution_of(axis) for name, axis in sweep.axes.items()}
    if len(sweep.seeds) > 1:
        distributions[SEED] = CategoricalDistribution(range(len(sweep.seeds)))
    if len(parts) > 1:
        distributions[HELD_OUT] = CategoricalDistribution(range(len(parts)))
    study = optuna.create_study()
    for row, (held_out, seed), unit in units:
        params = {name: as_param(axis, row.setting[name]) for name, axis in sweep.axes.items()}
        params |= {SEED: list(sweep.seeds).index(seed), HELD_OUT: parts.index(held_out)}
        study.add_trial(
            optuna.trial.create_trial(
                params={name: params[name] for name in distributions}, distributions=distributions, value=unit.value
            )
        )
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))

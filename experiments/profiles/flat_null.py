"""How many treatments without any effect get a small p-value of activity?

    python experiments/profiles/flat_null.py

1,000 treatments of noise in 32 features, one replicate a plate; 1,000 random orders.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.activity import activity_average_precision
from bie_jax.evaluation.profiles.mean_average_precision import mean_average_precision
from bie_jax.evaluation.profiles.random_order import draw_random_orders

TREATMENTS, SETS, DIM, SIZE = 250, 4, 32, 1000


def p_values(plates, controls, count_ties, seed):
    treatment = np.tile(np.concatenate([np.arange(TREATMENTS), np.full(controls, -1)]), plates)
    metadata = pd.DataFrame({"treatment": treatment, "plate": np.repeat(np.arange(plates), TREATMENTS + controls)})
    features = np.random.default_rng(seed).normal(size=(len(metadata), DIM))
    scores = activity_average_precision(features, metadata, ["treatment"], treatment < 0, ["plate"], [])
    null = draw_random_orders(scores, SIZE, seed, "choose")
    return mean_average_precision(scores, metadata, ["treatment"], null, count_ties)["p_value"]


def main():
    print("| replicates, controls a plate | ties | p <= .05 | p <= .01 | p <= .002 |\n|---|---|---|---|---|")
    for plates, controls in ((2, 8), (4, 16), (6, 32)):
        for count_ties in (False, True):
            found = np.concatenate([p_values(plates, controls, count_ties, seed) for seed in range(SETS)])
            shares = " | ".join(f"{(found <= bound).mean():.4f}" for bound in (0.05, 0.01, 0.002))
            ties = "count" if count_ties else "do not count, as in copairs"
            print(f"| {plates}, {controls} | {ties} | {shares} |", flush=True)


if __name__ == "__main__":
    main()

"""Seconds and peak memory of activity and consistency of N profiles, ours or copairs'.

    /usr/bin/time -v python experiments/profiles/average_precision.py ours 20000

Plates of 384 wells with 32 controls each, 6 replicates of every treatment on 6 plates, 20 treatments a mechanism;
128 features of noise, with a shift for each mechanism and each treatment.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.activity import activity_average_precision
from bie_jax.evaluation.profiles.consistency import consistency_average_precision
from bie_jax.evaluation.profiles.mean_average_precision import mean_average_precision
from bie_jax.evaluation.profiles.random_order import draw_random_orders

CONTROLS, TREATED, REPLICATES, PER_MECHANISM = 32, 352, 6, 20


def make(rows, dim, seed):
    rng = np.random.default_rng(seed)
    plate = np.arange(rows) // (CONTROLS + TREATED)
    well = np.arange(rows) % (CONTROLS + TREATED)
    controls = well < CONTROLS
    # Six plates in a row hold the same treatments, in the same wells.
    treatment = (plate // REPLICATES) * TREATED + well - CONTROLS
    mechanism = treatment // PER_MECHANISM
    features = rng.normal(size=(rows, dim))
    features += 0.2 * rng.normal(size=(mechanism.max() + 2, dim))[mechanism] * ~controls[:, None]
    features += 0.4 * rng.normal(size=(treatment.max() + 2, dim))[treatment] * ~controls[:, None]
    metadata = pd.DataFrame({"plate": plate, "treatment": np.where(controls, -1, treatment), "mechanism": mechanism})
    metadata["reference"] = np.where(controls, np.arange(rows), -1)
    return features, metadata, controls


def ours(features, metadata, controls, size, draw, clock):
    scores = activity_average_precision(features, metadata, ["treatment"], controls, ["plate"], [])
    clock("activity, average precision")
    null = draw_random_orders(scores, size, 0, draw)
    clock(f"activity, {size} random orders for each of {len(null.values)} numbers of pairs")
    active = mean_average_precision(scores, metadata, ["treatment"], null, True)
    clock(f"activity, p-values of {len(active)} treatments, {(active['corrected_p_value'] < 0.05).mean():.3f} active")
    treated = np.flatnonzero(~controls)
    features, metadata = features[treated], metadata.iloc[treated]
    scores = consistency_average_precision(features, metadata, "mechanism", ["treatment"])
    clock("consistency, average precision")
    null = draw_random_orders(scores, size, 0, draw)
    clock(f"consistency, {size} random orders for each of {len(null.values)} numbers of pairs")
    found = mean_average_precision(scores, metadata, ["mechanism"], null, True)
    clock(f"consistency, p-values of {len(found)} mechanisms, {(found['corrected_p_value'] < 0.05).mean():.3f} found")


def theirs(features, metadata, controls, size, clock):
    from copairs import map as copairs

    with tempfile.TemporaryDirectory() as cache:
        more = {"null_size": size, "threshold": 0.05, "seed": 0, "progress_bar": False, "cache_dir": cache}
        pairs = (["treatment", "reference"], [], ["plate"], ["treatment", "reference"])
        scores = copairs.average_precision(metadata, features, *pairs, progress_bar=False)
        clock("activity, average precision")
        copairs.mean_average_precision(scores[scores["reference"] == -1], ["treatment"], **more)
        clock("activity, random orders and p-values")
        treated = np.flatnonzero(~controls)
        features, metadata = features[treated], metadata.iloc[treated]
        pairs = (["mechanism"], ["treatment"], [], ["mechanism"])
        scores = copairs.average_precision(metadata, features, *pairs, progress_bar=False)
        clock("consistency, average precision")
        copairs.mean_average_precision(scores, ["mechanism"], **more)
        clock("consistency, random orders and p-values")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whose", choices=["ours", "copairs"])
    parser.add_argument("rows", type=int)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--null-size", type=int, default=1000)
    parser.add_argument("--draw", choices=["permute", "choose"], default="permute")
    args = parser.parse_args()
    features, metadata, controls = make(args.rows, args.dim, seed=0)
    start = last = time.perf_counter()

    def clock(what):
        nonlocal last
        now = time.perf_counter()
        print(f"{now - last:8.2f} s  {what}", flush=True)
        last = now

    if args.whose == "ours":
        ours(features, metadata, controls, args.null_size, args.draw, clock)
    else:
        theirs(features, metadata, controls, args.null_size, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{args.whose}: {args.rows} x {args.dim}, {time.perf_counter() - start:.1f} s, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()

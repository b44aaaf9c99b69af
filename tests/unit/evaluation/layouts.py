import numpy as np
import pandas as pd

from bie_jax.evaluation.feature_set import FeatureSet
from bie_jax.evaluation.scores.keys import TRAINED


def layout(plates=3, wells=6, images=3):
    """Metadata with two labels in every plate, three wells each, and features that hold the label."""
    rows = [(f"P{p}", f"B{w:02d}", i, "ab"[w % 2]) for p in range(plates) for w in range(wells) for i in range(images)]
    metadata = pd.DataFrame(rows, columns=["plate", "well", "site", "label"])
    metadata["split"] = np.where(metadata["site"] == 0, "val", "train")
    noise = np.random.default_rng(0).normal(size=(len(rows), 3))
    features = noise + 5 * (metadata["label"] == "a").to_numpy()[:, None]
    return metadata, features


def feature_set(features, key=TRAINED):
    return FeatureSet(key, key, "", features)

"""A small screen: images of wells on plates, with controls, replicates, mechanisms and doses."""

import numpy as np
import pandas as pd

from bie_jax.config.rules import check_config
from configs import vqvae_idr0093


def screen(plates=3, compounds=6, doses=(1.0, 10.0), controls=6, images=2, dim=6, effect=3.0, seed=0):
    """Metadata and features of images: compounds c0, c1, ... of mechanisms m0 to m2, stronger at a higher dose."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(3, dim))
    rows, features = [], []
    for plate in range(plates):
        well = 0
        for compound in range(compounds):
            for dose in doses:
                well += 1
                mechanism = compound % 3
                place = effect * directions[mechanism] * np.log10(10 * dose) / 2 + 0.5 * rng.normal(size=dim)
                for site in range(images):
                    rows.append((f"P{plate}", f"B{well:02d}", site, f"m{mechanism}", f"c{compound}", str(dose)))
                    features.append(place + 0.3 * rng.normal(size=dim))
        for _ in range(controls):
            well += 1
            place = 0.5 * rng.normal(size=dim)
            for site in range(images):
                rows.append((f"P{plate}", f"B{well:02d}", site, "dmso", "", ""))
                features.append(place + 0.3 * rng.normal(size=dim))
    names = ["plate", "well", "site", "label", "compound", "dose"]
    metadata = pd.DataFrame(rows, columns=pd.Index(names))
    metadata["split"] = "train"
    order = rng.permutation(len(metadata))
    return np.array(features)[order], metadata.iloc[order].reset_index(drop=True)


def settings(**changes):
    """The `eval` group for it."""
    config = vqvae_idr0093.get_config("tiny")
    config.eval.probe_control = "dmso"
    config.eval.profile.update(
        {
            "treatment": ("compound", "dose"),
            "mechanism": "label",
            "compound": "compound",
            "concentration": "dose",
            "null_size": 200,
        }
    )
    for key, value in changes.items():
        config.eval.update_from_flattened_dict({key.replace("__", "."): value})
    return check_config(config).eval

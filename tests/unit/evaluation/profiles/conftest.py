import numpy as np
import pandas as pd
import pytest


def make_plates(plates=3, treatments=8, controls=6, dim=5, effect=2.0, seed=0):
    """One well of each treatment and some controls a plate: features, metadata, controls."""
    rng = np.random.default_rng(seed)
    rows = [
        {"plate": f"p{plate}", "compound": compound, "mechanism": mechanism}
        for plate in range(plates)
        for compound, mechanism in [
            *((f"c{t}", f"m{t % 3}") for t in range(treatments)),
            *((f"dmso{c}", "none") for c in range(controls)),
        ]
    ]
    metadata = pd.DataFrame(rows)
    metadata["well"] = [f"w{i}" for i in range(len(metadata))]
    controls_of = metadata["mechanism"].to_numpy() == "none"
    metadata.loc[controls_of, "compound"] = "dmso"
    shift = {compound: effect * rng.normal(size=dim) for compound in metadata["compound"].unique()}
    shift["dmso"] = np.zeros(dim)
    features = np.stack([shift[c] for c in metadata["compound"]]) + rng.normal(size=(len(metadata), dim))
    order = rng.permutation(len(metadata))
    return features[order], metadata.iloc[order].reset_index(drop=True), controls_of[order]


@pytest.fixture
def plates():
    return make_plates()

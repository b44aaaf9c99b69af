"""Plates that the encoder never saw, beside plates that it saw without their labels.

    python experiments/learning/unseen.py --set=hela_rnai_cells --run=simclr --images=9600

One encoder for every plate, trained on the others; classifiers learn from the others, too, and are tested on the plate.
Scored as in `compare.py`, whose run of the same name, which has seen all plates, stands beside.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding.read import read_embedded_set
from bie_jax.evaluation.scores.classification import cross_validate
from bie_jax.evaluation.scores.folds import Fold
from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION, RANDOM_FOREST
from bie_jax.evaluation.scores.normalization import PER_PLATE, normalize
from experiments.learning.compare import RUNS, add_place, build, place_of, score, train

READOUTS = ("embedding", "layers")


def main() -> None:
    """A row for each readout, seen and unseen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("simulated", "bbbc021", "hela_rnai_cells"), required=True)
    parser.add_argument("--run", choices=list(RUNS), required=True)
    parser.add_argument("--images", type=int, required=True)
    add_place(parser)
    asked = parser.parse_args()
    place = place_of(asked)
    build(place, asked.set)
    seen = train(place, asked.set, asked.run, asked.images, 0)
    metadata = read_embedded_set(seen, load_config(seen)).metadata
    labels, plates = (metadata[column].astype(str).to_numpy().astype("U") for column in ("label", "plate"))
    predicted = {key: np.full_like(labels, "") for key in _keys()}
    num_plates = len(np.unique(plates))
    for number in range(num_plates):
        folds = (f"--config.data.num_folds={num_plates}", f"--config.data.fold={number}")
        workdir = train(place, asked.set, asked.run, asked.images, 0, ("--config.data.split_by=plate", *folds))
        held_out = read_embedded_set(workdir, load_config(workdir)).metadata["split"].to_numpy() == "val"
        fold = Fold(plates[held_out][0], np.flatnonzero(~held_out), np.flatnonzero(held_out))
        assert set(plates[fold.test]).isdisjoint(plates[fold.train])
        with np.load(workdir / "readouts.npz") as readouts:
            for readout in READOUTS:
                features = normalize(readouts[readout][0], plates, PER_PLATE)
                for classifier, prediction in cross_validate(features, labels, [fold]).items():
                    predicted[readout, classifier][fold.test] = prediction.values[fold.test]
    print("| features | test plates | logistic regression | random forest |\n|---|---|---|---|")
    with np.load(seen / "readouts.npz") as readouts:
        for readout in READOUTS:
            of_seen = " | ".join(f"{f1:.3f}" for (f1,) in score(readouts[readout], asked.set, seen).values())
            print(f"| {readout} | seen, without labels | {of_seen} |")
            of_unseen = (
                f1_score(labels, predicted[readout, classifier], average="macro")
                for classifier in (LOGISTIC_REGRESSION, RANDOM_FOREST)
            )
            print(f"| {readout} | never seen | {' | '.join(f'{f1:.3f}' for f1 in of_unseen)} |")


def _keys() -> list[tuple[str, str]]:
    return [(readout, classifier) for readout in READOUTS for classifier in (LOGISTIC_REGRESSION, RANDOM_FOREST)]


if __name__ == "__main__":
    main()

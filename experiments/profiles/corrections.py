"""What does each correction of wells do to treatments, and to how far plates can be told?

python experiments/profiles/corrections.py --workdir=runs/vqvae_idr0093-simulated

Of a run on the simulated plates (`make demo`): its embeddings, and intensity, texture and regions of the same images.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bie_jax.config.schema import EvalConfig
from bie_jax.config.stored import load_config
from bie_jax.evaluation.baselines.image_features import CLASSICAL, image_features
from bie_jax.evaluation.embedding.read import read_embedded_set
from bie_jax.evaluation.feature_set import FeatureSet
from bie_jax.evaluation.scores.keys import SHARE_SIGNIFICANT, TRAINED
from bie_jax.evaluation.treatments.plan import plan_treatments
from bie_jax.evaluation.treatments.score import score_treatments

# What is done to wells, and further keys of config.eval.profile.
CORRECTIONS = (
    ("nothing", (), "controls"),
    ("normalize, controls", ("normalize",), "controls"),
    ("normalize, all wells", ("normalize",), "all"),
    ("normalize, all; select", ("normalize", "select"), "all"),
    ("normalize, controls; select; sphere", ("normalize", "select", "sphere"), "controls"),
    ("normalize, all; select; sphere", ("normalize", "select", "sphere"), "all"),
    ("12 components; tvn", ("components", "tvn"), "all"),
    ("normalize, all; 12 components; tvn", ("normalize", "components", "tvn"), "all"),
)
SCORES = ("activity", "consistency", "not_same_compound", "replicating", "plate_separability")


def main() -> None:
    """A line for each set of features and correction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    workdir = parser.parse_args().workdir
    config = load_config(workdir)
    embedded = read_embedded_set(workdir, config)
    by_hand = image_features(embedded.image_set, np.arange(1), classical=True).feature_sets
    feature_sets = [
        FeatureSet(TRAINED, f"{embedded.model}", "", embedded.features),
        *(feature_set for feature_set in by_hand if feature_set.key == CLASSICAL),
    ]
    print(f"| features | correction | {' | '.join(SCORES)} |")
    print("|---" * (2 + len(SCORES)) + "|")
    for name, steps, rows in CORRECTIONS:
        settings = _settings(config.eval, steps, rows)
        plan = plan_treatments(embedded.metadata, embedded.metadata["split"].to_numpy(), settings)
        if plan is None:
            sys.exit(f"{workdir}: config.eval.profile.treatment names no column")
        scores = score_treatments(feature_sets, plan, settings).scores
        last = scores["steps"][-1]
        for feature_set in feature_sets:
            found = {
                result["score"]: f"{result['value']:.3f}"
                for result in scores["results"]
                if result["feature_set"] == feature_set.key
                and result["steps"] == last
                and result["metric"] != SHARE_SIGNIFICANT
            }
            cells = " | ".join(found.get(score, "–") for score in SCORES)
            print(f"| {feature_set.title} | {name} | {cells} |")
        for note in scores["notes"]:
            print(f"note on {name}: {note}", file=sys.stderr)


def _settings(settings: EvalConfig, steps: tuple[str, ...], rows: str) -> EvalConfig:
    profile = settings.profile
    changed = {
        "steps": steps,
        "components": 12,
        "normalize": profile.normalize.model_copy(update={"rows": rows}),
        "tvn_regularization": 0.5,
    }
    return settings.model_copy(update={"profile": profile.model_copy(update=changed)})


if __name__ == "__main__":
    main()

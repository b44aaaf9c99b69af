"""What should the embedding of a grid of codes be? Several readouts of one trained network, and of random weights.

    python launch.py --config=configs/vqvae_idr0093.py:simulated --workdir=runs/simulated
    python experiments/embedding/compare_readouts.py --workdir=runs/simulated

Leave-plate-out macro F1 of logistic regression (three strengths of regularization) and of a random forest.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bie_jax.config.stored import load_config
from bie_jax.input.image_set import open_image_set
from bie_jax.objectives import build_model
from bie_jax.training import run_files
from bie_jax.training.checkpoint import load_model
from bie_jax.training.sharding import on_first_device
from bie_jax.training.state import initial_variables
from bie_jax.views import images as augment
from bie_jax.views import intensities

SOFTNESS = (0.3, 1.0, 1.4, 4.0, 7.0)  # widths of the soft assignment, in units of the distortion
STRENGTHS = (0.03, 0.3, 1.0)  # C of the logistic regression


def read_out(model, variables, image_set, data_config, table, plate_rows) -> dict[str, np.ndarray]:
    """Name of a readout -> [N, D]."""
    learned = variables["codebook"]["bottleneck"]["quantizer"]
    quantizer = {name: learned[name][0] for name in ("codebook", "distortion")}
    projection = variables["params"]["bottleneck"]["Conv_0"]

    @jax.jit
    def features(image, plate):
        view = augment.eval_view(image, plate, table, image.shape[1:3], data_config)
        h = model.apply(variables, view, method=lambda model, x: model.encoder(x, train=False))
        z_e = h @ projection["kernel"][0, 0] + projection["bias"]
        distance = jnp.square(z_e[..., None, :] - quantizer["codebook"][None, None, None]).sum(-1)
        codes = jax.nn.one_hot(distance.argmin(-1), distance.shape[-1])
        out = {
            "pooled encoder features": h.mean((1, 2)),
            "mean of z_e": z_e.mean((1, 2)),
            "mean of z_q": (codes @ quantizer["codebook"]).mean((1, 2)),
            "share of codes": codes.mean((1, 2)),
            "root of share of codes": jnp.sqrt(codes.mean((1, 2))),
        }
        for width in SOFTNESS:
            soft = jax.nn.softmax(-distance / (width * quantizer["distortion"]), axis=-1)
            out[f"root of soft share, width {width}"] = jnp.sqrt(soft.mean((1, 2)))
        return out

    parts = []
    for start in range(0, len(image_set), 20):
        rows = range(start, min(start + 20, len(image_set)))
        parts.append(jax.device_get(features(image_set.images(rows), plate_rows[np.asarray(rows)])))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def leave_plate_out(features: np.ndarray, labels: np.ndarray, plates: np.ndarray, classifier) -> float:
    """Macro F1 of out-of-fold predictions."""
    predicted = np.empty_like(labels)
    for plate in np.unique(plates):
        held_out = plates == plate
        fitted = make_pipeline(StandardScaler(), classifier).fit(features[~held_out], labels[~held_out])
        predicted[held_out] = fitted.predict(features[held_out])
    return f1_score(labels, predicted, average="macro")


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=Path)
    workdir = parser.parse_args().workdir
    flags.FLAGS.mark_as_parsed()  # Grain looks at them
    config = load_config(workdir)
    image_set = open_image_set(config.data.name, config.data.data_dir)
    labels, plates = (image_set.metadata[column].to_numpy() for column in ("label", "plate"))
    sets = run_files.read_dataset(workdir)["sets"]
    table_rows = intensities.table_rows(sets)
    plate_rows = np.asarray([table_rows[image_set.name, plate] for plate in plates], np.int32)
    table = intensities.intensity_table(
        sets, image_set.channel_names, config.data.normalization, config.data.normalization_scope
    )
    model = build_model(config, len(image_set.channel_names))
    blank = jnp.zeros((1, *config.data.crop_size, len(image_set.channel_names)))
    untrained = jax.jit(lambda key: initial_variables(model, blank, key))(jax.random.key(0))
    params = untrained.pop("params")
    loaded, _ = load_model(workdir, on_first_device({"params": params, **untrained}))
    heads = " | ".join(f"LR, C = {strength}" for strength in STRENGTHS)
    print(f"| weights | readout | numbers | {heads} | random forest |\n|---|---|---|{'---|' * (len(STRENGTHS) + 1)}")
    for weights, variables in (
        ("trained", loaded),
        ("random", {"params": params, **untrained}),
    ):
        for name, features in read_out(model, variables, image_set, config.data, table, plate_rows).items():
            classifiers = [LogisticRegression(max_iter=3000, C=strength) for strength in STRENGTHS]
            classifiers.append(RandomForestClassifier(200, random_state=0))
            row = [f"{leave_plate_out(features, labels, plates, c):.3f}" for c in classifiers]
            print(f"| {weights} | {name} | {features.shape[1]} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

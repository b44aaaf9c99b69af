"""Is an image better read window by window than as a whole, by a network that was trained on windows?

    python experiments/quality/windows.py runs/quality/simulated-mae-vit runs/quality/simulated-vae-vit

For each workdir, trained and with random weights of the report's three seeds: every image is cut into windows of
training's size, each is embedded, and their mean is scored like the embedding of the whole image, whose scores stand in
the workdir's `scores.json`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding import Embedder, load, load_untrained, read_embeddings
from bie_jax.evaluation.encoders import RANDOM_DRAWS
from bie_jax.evaluation.feature_set import FeatureSet
from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION, RANDOM_FOREST, leave_out
from bie_jax.evaluation.scores.normalization import TITLES
from bie_jax.evaluation.scores.plan import plan_scores
from bie_jax.evaluation.scores.score import score_features
from bie_jax.input.image_set import ImageSet, open_image_set


def windows(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """[N, H, W, C] -> [N, n, height, width, C], row by row, without the rest at the right and below."""
    count, rows, columns = len(images), images.shape[1] // height, images.shape[2] // width
    cut = images[:, : rows * height, : columns * width].reshape(count, rows, height, columns, width, -1)
    return cut.swapaxes(2, 3).reshape(count, rows * columns, height, width, -1)


def mean_of_windows(embedder: Embedder, image_set: ImageSet, size: tuple[int, int]) -> np.ndarray:
    """[N, D]: what the network says of the windows of each image, on average; all images are in memory at once."""
    cut = windows(image_set.images(np.arange(len(image_set))), *size)
    plates = np.repeat(image_set.metadata["plate"], cut.shape[1]).tolist()
    features = embedder.embed(cut.reshape(-1, *cut.shape[2:]), image_set.channel_names, plates)
    return features.reshape(*cut.shape[:2], -1).mean(axis=1)


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", type=Path)
    asked = parser.parse_args()
    print("| run | weights | normalized | logistic regression | random forest |\n|---|---|---|---|---|")
    for workdir in asked.workdirs:
        config = load_config(workdir)
        image_set = open_image_set(config.data.name, config.data.data_dir)
        metadata, _, _ = read_embeddings(workdir / "embeddings.parquet")
        sets = {"trained": mean_of_windows(load(workdir), image_set, config.data.crop_size)}
        draws = []
        for untrained in load_untrained(workdir, range(config.eval.seed, config.eval.seed + RANDOM_DRAWS)):
            both = mean_of_windows(untrained, image_set, config.data.crop_size)
            draws.append(np.split(both, [untrained.widths[0]], axis=1))
        sets |= dict(zip(("random", "random, pooled"), map(np.stack, zip(*draws))))
        features = [FeatureSet(key=name, title=name, description="", features=f) for name, f in sets.items()]
        plan = plan_scores(metadata, metadata["split"].to_numpy(), config.eval)
        scores = score_features(features, plan, config.eval)["feature_sets"]
        for entry in scores.values():
            if entry["feature_set"] not in sets:
                continue
            kinds = entry["classifiers"]
            cells = [
                f"{kinds[kind][leave_out(config.eval.group)]['macro_f1']:.3f}"
                for kind in (LOGISTIC_REGRESSION, RANDOM_FOREST)
            ]
            of = [workdir.name, entry["feature_set"], TITLES[entry["normalization"]]]
            print(f"| {' | '.join([*of, *cells])} |", flush=True)


if __name__ == "__main__":
    main()

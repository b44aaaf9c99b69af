"""The ceiling: what the network of a run tells apart when it is trained with the labels that the scores ask for.

    python experiments/learning/supervised.py --set=hela_rnai_cells "runs/learning/hela_rnai_cells-simclr-9600-0"

For a workdir of `compare.py`: the same encoder, views, optimizer and number of images, once for every fold, on the
fold's training images and their labels alone; it predicts the fold's test images, seen whole. Scored as there.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.metrics import f1_score

from bie_jax.config.schema import Config
from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding.inputs import size_of_images
from bie_jax.evaluation.embedding.read import read_embedded_set
from bie_jax.models.encoders.resnet import ResNetEncoder
from bie_jax.training.optimizer import build_optimizer
from bie_jax.views.images import eval_view, train_view
from bie_jax.views.intensities import IntensityTable, intensity_table, table_rows
from experiments.learning.compare import SETS


class Classifier(nn.Module):
    """[B, H, W, C] -> [B, number of classes]: the run's encoder, the mean over positions, one dense layer."""

    config: Config
    num_classes: int

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Logits."""
        settings = self.config.model.resnet
        encoder = ResNetEncoder(depth=settings.depth, width=settings.width, stem=settings.stem)
        return nn.Dense(self.num_classes)(encoder(image, train=train).mean(axis=(1, 2)))


def predict(
    config: Config, images: np.ndarray, plate: np.ndarray, table: IntensityTable, labels: np.ndarray, train: np.ndarray
) -> np.ndarray:
    """[N] labels as numbers of all images, by a network that was trained on those of `train`."""
    model = Classifier(config, int(labels.max()) + 1)
    blank = jnp.zeros((1, *config.data.crop_size, images.shape[-1]))
    variables = jax.jit(lambda key: model.init(key, blank, train=False))(jax.random.key(config.train.seed))
    params, statistics = variables["params"], variables["batch_stats"]
    epochs, epoch_steps = config.train.epochs, config.train.min_epoch_steps
    tx, _ = build_optimizer(config.optimizer, params, steps_per_epoch=epoch_steps, epochs=epochs)
    state = (params, statistics, tx.init(params))

    @jax.jit
    def step(state, key, image, plate, label):
        params, statistics, slots = state

        def loss_of(params):
            view = train_view(key, image, plate, table, config.data)
            variables = {"params": params, "batch_stats": statistics}
            logits, changed = model.apply(variables, view, train=True, mutable=["batch_stats"])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
            return loss, changed["batch_stats"]

        gradient, statistics = jax.grad(loss_of, has_aux=True)(params)
        change, slots = tx.update(gradient, slots, params)
        return optax.apply_updates(params, change), statistics, slots

    rng = np.random.default_rng(config.train.seed)
    for number in range(epochs * epoch_steps):
        rows = rng.choice(train, config.train.batch_size)
        state = step(state, jax.random.key(number), images[rows], plate[rows], labels[rows])
    params, statistics, _ = state
    size = size_of_images(images.shape[1], images.shape[2], config)

    @jax.jit
    def logits(image, plate):
        view = eval_view(image, plate, table, size, config.data)
        return model.apply({"params": params, "batch_stats": statistics}, view, train=False)

    parts = np.array_split(np.arange(len(images)), -(-len(images) // 128))
    return np.concatenate([np.argmax(logits(images[rows], plate[rows]), axis=1) for rows in parts])


def main() -> None:
    """One row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS), required=True)
    parser.add_argument("workdir", type=Path)
    asked = parser.parse_args()
    config = load_config(asked.workdir)
    image_set = read_embedded_set(asked.workdir, config).image_set
    metadata = image_set.metadata
    names, labels = np.unique(metadata["label"].astype(str), return_inverse=True)
    groups = metadata[config.eval.group].astype(str).to_numpy().astype("U")
    sets = [image_set.intensities]
    numbers = table_rows(sets)
    plate = np.asarray([numbers[image_set.name, name] for name in metadata["plate"]], np.int32)
    table = intensity_table(sets, image_set.channel_names, config.data.normalization, config.data.normalization_scope)
    images = image_set.images(np.arange(len(image_set)))
    predicted, started = np.full(len(labels), -1), time.perf_counter()
    for fold in SETS[asked.set].folds(names[labels], groups):
        predicted[fold.test] = predict(config, images, plate, table, labels, fold.train)[fold.test]
        tested = predicted >= 0
        f1 = f1_score(labels[tested], predicted[tested], average="macro")
        print(f"{fold.name}: macro F1 so far {f1:.3f}, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""What could be known at most: the ring encoder taught with labels, on the same views of the same outlines.

    python experiments/shapes/supervised.py --workdir=runs/shapes/mnist_test-both

The network and the views are those of the run (random start and direction, and its changes of form), with one
layer of classes behind the encoder, taught by cross entropy on four fifths of the objects; macro F1 on the last fifth.
Beside it the run's own embedding with logistic regression, on the same fifth: its share of the ceiling.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from quality import f1

from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding import read_embeddings
from bie_jax.evaluation.scores.classification import cross_validate
from bie_jax.evaluation.scores.folds import Fold, stratified_folds
from bie_jax.input.image_set import open_image_set
from bie_jax.models.encoders.ring import RingEncoder
from bie_jax.views.outlines import eval_view, train_view

EMBEDDED = 500  # outlines at once


class Classifier(nn.Module):
    """[B, P, P, 1] matrices -> [B, classes] logits."""

    encoder: nn.Module
    num_classes: int

    @nn.compact
    def __call__(self, matrices: jax.Array, *, train: bool) -> jax.Array:
        """Encode, two layers, classes."""
        features = self.encoder(matrices, train=train).reshape(len(matrices), -1)
        return nn.Dense(self.num_classes)(nn.gelu(nn.Dense(256)(features)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="of a trained and embedded run")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch_size", type=int, default=256)
    arguments = parser.parse_args()
    config = load_config(arguments.workdir)
    image_set = open_image_set(config.data.name, config.data.data_dir)
    labels = image_set.metadata["label"].to_numpy().astype("U")
    fold = stratified_folds(labels, 5, 0)[0]

    start = time.perf_counter()
    guessed = taught(image_set.images(np.arange(len(image_set))), labels, fold, config, arguments)
    ceiling = f1(labels[fold.test], guessed)
    print(f"with labels, {arguments.steps} steps: {ceiling:.4f} ({time.perf_counter() - start:.0f} s)", flush=True)
    features = read_embeddings(arguments.workdir / "embeddings.parquet")[1]
    for name, found in cross_validate(features, labels, [fold]).items():
        score = f1(labels[fold.test], found.values[fold.test])
        print(f"{arguments.workdir.name}, {name}: {score:.4f}, {score / ceiling:.1%} of it", flush=True)


def taught(outlines: np.ndarray, labels: np.ndarray, fold: Fold, config, arguments) -> np.ndarray:
    """The test objects' labels, as a network says that has learned from the training objects'."""
    classes, numbers = np.unique(labels, return_inverse=True)
    model = Classifier(RingEncoder(**dict(config.model.ring)), len(classes))
    size = config.data.crop_size
    key, init_key = jax.random.split(jax.random.key(0))
    variables = jax.jit(lambda k: model.init(k, jnp.zeros((1, *size, 1)), train=False))(init_key)
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, arguments.steps // 20, arguments.steps, 1e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
    params, state = variables["params"], optimizer.init(variables["params"])

    @jax.jit
    def step(params, state, images, targets, key):
        matrices = train_view(key, images, None, None, config.data)

        def loss(params):
            logits = model.apply({"params": params}, matrices, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

        gradient = jax.grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def classify(params, images):
        return model.apply({"params": params}, eval_view(images, None, None, size, config.data), train=False).argmax(1)

    rng = np.random.default_rng(0)
    waiting = np.empty(0, int)
    for number in range(arguments.steps):
        if len(waiting) < arguments.batch_size:
            waiting = rng.permutation(fold.train)
        rows, waiting = waiting[: arguments.batch_size], waiting[arguments.batch_size :]
        params, state = step(params, state, outlines[rows], numbers[rows], jax.random.fold_in(key, number))
        if (number + 1) % 50 == 0:
            print(f"{number + 1} of {arguments.steps} steps", file=sys.stderr, flush=True)
    parts = [fold.test[i : i + EMBEDDED] for i in range(0, len(fold.test), EMBEDDED)]
    return classes[np.concatenate([np.asarray(classify(params, outlines[rows])) for rows in parts])]


if __name__ == "__main__":
    main()

"""The trained encoder, and the same network with random weights, as sets of features of one set of examples."""

from pathlib import Path

import numpy as np

from bie_jax.config.schema import Config
from bie_jax.evaluation.embedding import embed_image_set, load_readout, load_untrained
from bie_jax.evaluation.embedding.load import second_readout
from bie_jax.evaluation.embedding.read import EmbeddedSet
from bie_jax.evaluation.feature_set import Block, FeatureSet
from bie_jax.evaluation.scores.keys import RANDOM, RANDOM_POOLED, TRAINED
from bie_jax.input.image_set import ImageSet

_READ = {
    "embedding": "what its bottleneck says",
    "features": "the mean over positions",
    "statistics": "mean, maximum and standard deviation over positions",
    "layers": "mean, maximum and standard deviation over positions, of several layers",
}
RANDOM_DRAWS = 3  # seeds of the random weights: a single one is better or worse by luck


def read_out(workdir: Path, embedded: EmbeddedSet, num_components: int) -> np.ndarray:
    """[N, D] of the trained network, as a fold of the scores starts from it.

    Components of the table are fitted to the run's training images; a fold fits its own, to what they are of.
    """
    if not num_components:
        return embedded.embedding
    return embed_image_set(load_readout(workdir), embedded.image_set)


def encoder_features(workdir: Path, embedded: EmbeddedSet, readout: np.ndarray, config: Config) -> list[FeatureSet]:
    """The trained encoder first, then its random weights, read in two ways; beside each stands what is appended.

    Args:
        workdir: of the run.
        embedded: its set.
        readout: see `read_out`.
        config: of the run.
    """
    untrained, untrained_pooled = embed_untrained(workdir, embedded.image_set, config.eval.seed)
    seeds = f"mean of {RANDOM_DRAWS} seeds"
    components = f"{config.num_components} principal components of " if config.num_components else ""
    described = (
        (
            TRAINED,
            f"Trained encoder ({embedded.model})",
            f"The embeddings of this run: {components}{_READ[config.eval.readout]}.",
            readout,
        ),
        (
            RANDOM,
            "Random encoder",
            f"The same network with random weights, read at the bottleneck, {seeds}.",
            untrained,
        ),
        (
            RANDOM_POOLED,
            "Random encoder, pooled",
            f"The same random weights, read before the bottleneck: {_READ[second_readout(config.eval)]}, {seeds}.",
            untrained_pooled,
        ),
    )
    appended = embedded.appended
    feature_sets = []
    for key, title, description, values in described:
        beside = np.broadcast_to(appended, (*values.shape[:-1], appended.shape[1]))
        table = np.concatenate([values, beside], axis=-1)
        feature_sets.append(
            FeatureSet(key, title, description, table, encoder_blocks(values, appended, config.num_components))
        )
    return feature_sets


def embed_untrained(workdir: Path, image_set: ImageSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What random weights of `RANDOM_DRAWS` seeds make of the images, at the bottleneck and pooled before it.

    Returns:
        Two arrays [RANDOM_DRAWS, N, *].
    """
    draws = []
    for embedder in load_untrained(workdir, range(seed, seed + RANDOM_DRAWS)):
        both = embed_image_set(embedder, image_set)
        draws.append(np.split(both, [embedder.widths[0]], axis=1))
    at_bottleneck, pooled = (np.stack(parts) for parts in zip(*draws))
    return at_bottleneck, pooled


def encoder_blocks(values: np.ndarray, appended: np.ndarray, num_components: int) -> tuple[Block, ...] | None:
    """What a fold fits to a readout [..., N, D] with numbers [N, A] beside it: components of the first part."""
    if not num_components:
        return None
    beside = (Block(appended.shape[1]),) if appended.shape[1] else ()
    return (Block(values.shape[-1], num_components, standardized=True), *beside)

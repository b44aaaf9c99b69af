"""All images of a set, batch by batch."""

import numpy as np
from tqdm import tqdm

from bie_jax.evaluation.embedding.code_use import CodeUse
from bie_jax.evaluation.embedding.embedder import Embedder
from bie_jax.input.batches import eval_batches
from bie_jax.input.image_set import ImageSet
from bie_jax.input.mixture import Mixture
from bie_jax.input.pixels import check_finite_rows


def embed_image_set(embedder: Embedder, image_set: ImageSet, progress: bool = True) -> np.ndarray:
    """Features of every image of a set, in its order: [N, D] float32."""
    return embed_and_count(embedder, image_set, progress)[0]


def embed_and_count(
    embedder: Embedder, image_set: ImageSet, progress: bool = True
) -> tuple[np.ndarray, CodeUse | None]:
    """The same, and how often each code of a VQ-VAE occurs.

    Raises:
        NonFiniteRowsError: for rows that hold NaN or infinity.
    """
    rows = np.arange(len(image_set))
    plates = embedder.rows_of_set(image_set)
    features = np.empty((len(image_set), embedder.dim), np.float32)
    code_use = None
    with tqdm(total=len(rows), desc="embed", unit="image", disable=not progress, mininterval=1.0) as bar:
        batch_size = embedder.batch_of(len(rows))
        share = embedder.share(batch_size)
        for batch, seen in eval_batches(Mixture((image_set,)), rows, batch_size, read_threads=2, share=share):
            image = embedder.join_channels(batch["image"], image_set.channel_names)
            out, codes = embedder.encode_batch(image, plates[batch["row"]])
            features[seen] = out[: len(seen)]
            if codes is not None:
                if code_use is None:
                    code_use = CodeUse(embedder.num_codes, codes.shape)
                code_use.add(codes[: len(seen)])
            bar.update(len(seen))
    check_finite_rows(features, f"the embedding of {image_set.name!r}", image_set.metadata["source"])
    return features, code_use

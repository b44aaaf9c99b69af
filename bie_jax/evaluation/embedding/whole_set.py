"""All images of a set, batch by batch."""

import contextlib

import numpy as np
from tqdm import tqdm

from bie_jax.evaluation.embedding.code_use import CodeUse
from bie_jax.evaluation.embedding.embedder import Embedder
from bie_jax.evaluation.embedding.parts import Parts
from bie_jax.input.batches import eval_batches
from bie_jax.input.image_set import ImageSet
from bie_jax.input.mixture import Mixture
from bie_jax.input.pixels import check_finite_rows
from bie_jax.training.writers.stop_signal import StopSignal


def embed_image_set(embedder: Embedder, image_set: ImageSet, progress: bool = True) -> np.ndarray:
    """Features of every image of a set, in its order: [N, D] float32."""
    return embed_and_count(embedder, image_set, None, progress)[0]


def embed_and_count(
    embedder: Embedder, image_set: ImageSet, parts: Parts | None, progress: bool = True
) -> tuple[np.ndarray, CodeUse | None]:
    """The same, and how often each code of a VQ-VAE occurs.

    Args:
        embedder: of that set, or `Embedder.for_set`.
        image_set: what is embedded.
        parts: where what is done is kept, to go on from after a kill; None: nowhere.
        progress: whether it is shown.

    Raises:
        NonFiniteRowsError: for rows that hold NaN or infinity.
        Interrupted: after SIGTERM or Ctrl-C, once what is done is kept in `parts`.
    """
    features = np.empty((len(image_set), embedder.dim), np.float32)
    done, code_use = (0, None) if parts is None else parts.read(features)
    kept = done  # rows that are in parts
    since: CodeUse | None = None  # the codes of the others
    plates = embedder.rows_of_set(image_set)
    with (
        StopSignal() if parts is not None else contextlib.nullcontext() as stop,
        tqdm(
            total=len(image_set), initial=done, desc="embed", unit="image", disable=not progress, mininterval=1.0
        ) as bar,
    ):
        batch_size = embedder.batch_of(len(image_set))
        share = embedder.share(batch_size)
        rows = np.arange(done, len(image_set))
        batches = (
            eval_batches(Mixture((image_set,)), rows, batch_size, read_threads=2, share=share) if len(rows) else ()
        )
        for number, (batch, seen) in enumerate(batches, start=1):
            image = embedder.join_channels(batch["image"], image_set.channel_names)
            out, codes = embedder.encode_batch(image, plates[batch["row"]])
            features[seen] = out[: len(seen)]
            if codes is not None:
                if since is None:
                    since = CodeUse.none_of(embedder.num_codes, codes.shape)
                since.add(codes[: len(seen)])
            done += len(seen)
            bar.update(len(seen))
            if parts is None or stop is None:
                continue
            stop.hear(number)
            if parts.is_due() or stop.number:
                parts.write(kept, features[kept:done], since)
                code_use, since, kept = _joined(code_use, since), None, done
                stop.check(done, len(image_set), "image")
    check_finite_rows(features, f"the embedding of {image_set.name!r}", image_set.metadata["source"])
    return features, _joined(code_use, since)


def _joined(one: CodeUse | None, other: CodeUse | None) -> CodeUse | None:
    if one is None or other is None:
        return one or other
    return CodeUse(one.counts + other.counts, one.positions)

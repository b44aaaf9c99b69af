"""A published encoder, frozen: what a user would otherwise download, as one more baseline (`eval.published`).

Each channel of an image goes through it alone, as a gray image: published encoders know three colors, and no stains.
Channels reach it in 0..1, from their 0.1 % to their 99.9 % on the scope that the run's own encoder is normalized by
(`data.normalization_scope`), clipped, and then in the intensities that its weights were trained on
(`preprocessor_config.json`). A z-score alone would show it what it never saw: bright cells on a dark ground lie tens of
standard deviations out, where photographs end at three.
"""

import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from bie_jax.config.schema import Config, DataConfig
from bie_jax.evaluation.embedding.read import EmbeddedSet
from bie_jax.evaluation.encoders import encoder_blocks
from bie_jax.evaluation.feature_set import FeatureSet
from bie_jax.evaluation.scores.keys import PUBLISHED
from bie_jax.files import integrity
from bie_jax.files.integrity import MadeFrom
from bie_jax.input.batches import eval_batches
from bie_jax.input.image_set import ImageSet
from bie_jax.input.mixture import Mixture
from bie_jax.input.pixels import check_finite_rows
from bie_jax.models.pretrained.encoder import PublishedEncoder
from bie_jax.models.pretrained.files import CONFIG, WEIGHTS
from bie_jax.models.pretrained.preprocessor import PREPROCESSOR
from bie_jax.training import run_files, sharding
from bie_jax.views.intensities import intensity_table, normalize, scaling, table_rows


def published_features(
    workdir: Path, embedded: EmbeddedSet, encoder: PublishedEncoder | None, config: Config
) -> list[FeatureSet]:
    """What an encoder makes of all images of a set, with what is appended beside it; nothing of None.

    Kept in the run's folder: of the same images and the same files it is not computed again.

    Args:
        workdir: of the run.
        embedded: its set.
        encoder: see `open_published`.
        config: of the run.
    """
    if encoder is None:
        return []
    folder, image_set = Path(config.eval.published), embedded.image_set
    rows = image_set.stored_rows
    made_from = {
        f"the set {image_set.name}": image_set.fingerprint,
        "the images": "all" if rows is None else integrity.hash_bytes(rows.astype(np.int64).tobytes()),
        **{name: integrity.hash_bytes((folder / name).read_bytes()) for name in (WEIGHTS, CONFIG, PREPROCESSOR)},
    }
    of_channels = _kept(workdir, made_from)
    if of_channels is None:
        of_channels = encode_channels(encoder, image_set, config.data, config.eval.batch_size)
        content = io.BytesIO()
        np.savez(content, features=of_channels)
        integrity.write_bytes(workdir / run_files.PUBLISHED, content.getvalue(), made_from)
    joined, how = of_channels.mean(axis=1), "averaged"
    if config.eval.published_channels == "concatenate":
        joined, how = of_channels.reshape(len(of_channels), -1), "side by side"
    components = config.eval.published_components
    fitted = f", {components} principal components of them, fitted in each training fold" if components else ""
    height, width = encoder.preprocessor.size
    description = (
        f"A {encoder.name} with the weights of {folder.name}, not trained here: {encoder.reads} of each channel by "
        f"itself, seen as a gray image of {height} x {width} pixels, its 0.1 % to 99.9 % "
        f"({_SCOPES[config.data.normalization_scope]}) as 0..1 in the intensities that it was trained on; channels "
        f"{how}{fitted}."
    )
    appended = embedded.appended
    return [
        FeatureSet(
            PUBLISHED,
            f"Published encoder, frozen ({folder.name})",
            description,
            np.concatenate([joined, appended], axis=1),
            encoder_blocks(joined, appended, components),
        )
    ]


_SCOPES = {"set": "of the set", "plate": "of its plate", "image": "of the image"}


def encode_channels(encoder: PublishedEncoder, image_set: ImageSet, data: DataConfig, batch_size: int) -> np.ndarray:
    """Features of every channel of every image: [N, C, D] float32.

    Args:
        encoder: the network.
        image_set: of N images of C channels.
        data: the checked `data` group; its `normalization_scope` is read.
        batch_size: images, over all devices.

    Raises:
        NonFiniteRowsError: for rows that hold NaN or infinity.
    """
    described = [image_set.intensities]
    scope = data.normalization_scope
    table = intensity_table(described, image_set.channel_names, "percentile_clip", scope)
    places = table_rows(described)
    plates = np.asarray([places[image_set.name, plate] for plate in image_set.metadata["plate"]], np.int32)
    unit_range = data.model_copy(update={"normalization": "percentile_clip"})

    def encode(variables: dict[str, Any], image: jax.Array, plate: jax.Array) -> jax.Array:
        offset, gain = scaling(image, plate, table, unit_range)
        channels = jnp.moveaxis(normalize(image, offset, gain, clip=True), -1, 0)
        # One channel after the other: all at once would need the memory of as many batches.
        return jax.lax.map(lambda gray: encoder.features(variables, gray), channels)  # [C, B, D]

    layout = sharding.data_layout()
    variables = jax.device_put(encoder.variables, layout.of(encoder.variables))
    run = jax.jit(encode, in_shardings=(layout.of(variables), layout.batch, layout.batch), out_shardings=layout.host)
    rows = np.arange(len(image_set))
    shared = -(-min(batch_size, len(rows)) // layout.shares) * layout.shares
    features = np.empty((len(rows), len(image_set.channel_names), encoder.dim), np.float32)
    with tqdm(total=len(rows), desc="published encoder", unit="image", mininterval=1.0) as bar:
        for batch, seen in eval_batches(Mixture((image_set,)), rows, shared, read_threads=2):
            placed = sharding.put_batch({"image": batch["image"], "plate": plates[batch["row"]]}, layout.batch)
            out = np.asarray(run(variables, placed["image"], placed["plate"]))
            features[seen] = np.moveaxis(out, 0, 1)[: len(seen)]
            bar.update(len(seen))
    what = f"what the published encoder makes of {image_set.name!r}"
    check_finite_rows(features.reshape(len(rows), -1), what, image_set.metadata["source"])
    return features


def _kept(workdir: Path, made_from: MadeFrom) -> np.ndarray | None:
    """What an earlier evaluation computed of the same; None if there is none that is whole."""
    path = workdir / run_files.PUBLISHED
    try:
        integrity.verify(path, run_files.EVALUATE_AGAIN, made_from)
    except OSError:
        return None
    with np.load(path, allow_pickle=False) as stored:
        return stored["features"]

"""What is said and drawn of each kind of set, images or shapes: one record a kind, and nobody else asks which it is.

How examples of a kind are embedded stands in `bie_jax.evaluation.embedding.inputs`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from bie_jax.config.schema import Config
from bie_jax.evaluation.baselines.image_features import image_features, image_tiles
from bie_jax.evaluation.baselines.shape_features import outline_tiles, shape_features
from bie_jax.evaluation.embedding import load_readout
from bie_jax.evaluation.embedding.decoder import has_decoder
from bie_jax.evaluation.embedding.read import EmbeddedSet
from bie_jax.evaluation.encoders import encoder_blocks
from bie_jax.evaluation.feature_set import HandMade
from bie_jax.evaluation.report.content import Content
from bie_jax.evaluation.report.gallery import gallery
from bie_jax.evaluation.report.invariance_table import invariance_table
from bie_jax.evaluation.report.reconstructions import NO_DECODER, reconstruction_section
from bie_jax.evaluation.report.shape_pictures import shape_pictures
from bie_jax.evaluation.report.style import Picture
from bie_jax.evaluation.scores.file import SetFacts
from bie_jax.evaluation.scores.invariance import MOST_TRAINING, Invariance, invariances
from bie_jax.files.foreign_text import in_html
from bie_jax.input.image_set import ImageSet
from bie_jax.training.writers.composites import channel_colors


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of set.

    Attributes:
        hand_made: (set, rows that get a thumbnail, whether the classical features are among them) -> its baselines.
        tiles: (set, rows, most px a side) -> a square thumbnail of each row.
        pictures: (workdir, embedded set, [N] labels of any type, seed) -> what is drawn of the embedding.
        invariances: (workdir, embedded set, [N, D] readout, [N] labels, checked configuration) -> what leaves the
            readout as it is, row by row when it is measured.
        facts: a sentence on what the set is; plain text.
        thumbnail_key: how thumbnails are to be read; HTML.
        pictures_title: title of the section of pictures.
        pictures_section: its content; HTML.
    """

    hand_made: Callable[[ImageSet, np.ndarray, bool], HandMade]
    tiles: Callable[[ImageSet, np.ndarray, int], list[Image.Image]]
    pictures: Callable[[Path, EmbeddedSet, np.ndarray, int], list[Picture]]
    invariances: Callable[[Path, EmbeddedSet, np.ndarray, np.ndarray, Config], Iterator[Invariance]]
    facts: Callable[[SetFacts], str]
    thumbnail_key: Callable[[SetFacts], str]
    pictures_title: str
    pictures_section: Callable[[Content], str]


def _no_pictures(workdir: Path, embedded: EmbeddedSet, labels: np.ndarray, seed: int) -> list[Picture]:
    return []


def _no_invariances(
    workdir: Path, embedded: EmbeddedSet, readout: np.ndarray, labels: np.ndarray, config: Config
) -> Iterator[Invariance]:
    return iter(())


def _facts_of_images(facts: SetFacts) -> str:
    height, width, count = facts["image_shape"]
    um = facts["pixel_size_um"]
    extent = "pixel size unknown" if um is None else f"{width * um:.4g} × {height * um:.4g} µm"
    return (
        f"{facts['images']} images of {facts['plates']} plates and {facts['wells']} wells; {width} × {height} px "
        f"({extent}), {count} channels: {', '.join(facts['channels'])}."
    )


def _colors_of_channels(facts: SetFacts) -> str:
    colors = "".join(
        f'<span><i style="background:{color}"></i>{in_html(name)}</span>'
        for name, color in zip(facts["channels"], channel_colors(len(facts["channels"])))
    )
    return (
        f"<b>Colors of the thumbnails:</b> {colors} Every channel is scaled alike in all images, from the "
        "set's 1st to its 99.9th percentile; the channels are joined by screen blending."
    )


def _shape_pictures(workdir: Path, embedded: EmbeddedSet, labels: np.ndarray, seed: int) -> list[Picture]:
    return shape_pictures(workdir, embedded.image_set, embedded.embedding, labels, seed)


def _shape_invariances(
    workdir: Path, embedded: EmbeddedSet, readout: np.ndarray, labels: np.ndarray, config: Config
) -> Iterator[Invariance]:
    """Of the readout itself: without what is appended to it, and before components are taken of it."""
    settings = config.eval
    if not settings.invariance_objects:
        return iter(())
    image_set = embedded.image_set
    return invariances(
        load_readout(workdir).embed,
        image_set.images(np.arange(len(image_set)))[..., 0],
        readout,
        labels,
        num_objects=settings.invariance_objects,
        most_training=MOST_TRAINING,
        most_side_px=settings.invariance_side_px,
        components=encoder_blocks(readout, readout[:, :0], config.num_components),
        seed=settings.seed,
    )


def _facts_of_shapes(facts: SetFacts) -> str:
    return f"{facts['images']} outlines of {facts['image_shape'][0]} points."


def _key_of_outlines(facts: SetFacts) -> str:
    return "<b>Thumbnails:</b> each outline, filled, at one size; the yellow dot is its first point."


def _shape_section(content: Content) -> str:
    table = invariance_table(content.scores["invariances"], content.config.eval.invariance_side_px)
    return gallery(content.pictures) + ("" if has_decoder(content.config) else NO_DECODER) + table


KINDS = {
    "images": Kind(
        hand_made=image_features,
        tiles=image_tiles,
        pictures=_no_pictures,
        invariances=_no_invariances,
        facts=_facts_of_images,
        thumbnail_key=_colors_of_channels,
        pictures_title="Reconstructions, channel by channel",
        pictures_section=reconstruction_section,
    ),
    "shapes": Kind(
        hand_made=shape_features,
        tiles=outline_tiles,
        pictures=_shape_pictures,
        invariances=_shape_invariances,
        facts=_facts_of_shapes,
        thumbnail_key=_key_of_outlines,
        pictures_title="Shapes, and back from the embedding",
        pictures_section=_shape_section,
    ),
}

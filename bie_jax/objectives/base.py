"""What a method is: what it sees of a batch, what it hands back, and the record that the rest of the house knows it by.

    objective(model, config, params, model_state, batch, step, key, *, train, teacher) -> (loss, Aux)

`loss` is the scalar to differentiate. A method is one file beside this one and one line in `objectives/__init__.py`;
nothing else knows anything about it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.config.schema import Config, DataConfig, ObjectiveConfig
from bie_jax.losses.contrastive import Origin


@flax.struct.dataclass
class Batch:
    """What an objective sees of a batch.

    Attributes:
        image: [B, H, W, C] float, normalized: the first view of every example, as the `data` group describes it.
        weight: [B, C] float, 1 for a channel of an image; 0 for one that the image's set does not have, and for all
            channels of what pads a last batch.
        channel_mask: `weight` > 0 for the model, or None where all channels of all images are known to be there.
        origin: of the images, for a loss that compares them.
        other_views: further random views of the same examples, [B, *size, C] each, as `Method.other_views` has them.
    """

    image: jax.Array
    weight: jax.Array
    channel_mask: jax.Array | None
    origin: Origin
    other_views: tuple[jax.Array, ...] = ()


def unlabeled_batch(image: jax.Array, weight: jax.Array) -> Batch:
    """Images [B, H, W, C] with their `weight` [B, C], of one plate, a well each, and of no known treatment."""
    number = jnp.arange(len(image))
    return Batch(image, weight, weight > 0, Origin(number, number, 0 * number, 0 * number - 1))


@flax.struct.dataclass
class Aux:
    """What an objective hands back beside its loss.

    Attributes:
        metrics: scalars to log, unweighted term values under the names they get in `metrics.jsonl`.
        totals: arrays that are summed over the batches of an epoch; the method's `summarize` makes numbers of them.
        model_state: batch statistics and codebooks after this batch (unchanged when not training).
        reconstruction: [B, H, W, C] float, normalized like the input; None of a method that has no decoder.
    """

    metrics: dict[str, jax.Array]
    totals: dict[str, jax.Array]
    model_state: Any
    reconstruction: jax.Array | None


@flax.struct.dataclass
class Teacher:
    """The moving average of the network that is trained; nothing is learned through it.

    Attributes:
        params: its parameters.
        model_state: its other collections.
    """

    params: Any
    model_state: Any


def no_summary(totals: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of a method that keeps no totals."""
    del totals
    return {}


def no_other_views(config: Config) -> tuple[DataConfig, ...]:
    """Of a method that looks at one view of every example."""
    del config
    return ()


def no_treatment(config: ObjectiveConfig) -> str | None:
    """Of a method that does not compare treatments."""
    del config
    return None


def nothing_across_images(config: Config) -> tuple[str, ...]:
    """Of a method whose terms look at every image by itself."""
    del config
    return ()


def never_collapsed(metrics: dict[str, float]) -> str | None:
    """Of a method that a reconstruction keeps from making all embeddings alike."""
    del metrics
    return None


def settled_at_once(config: ObjectiveConfig) -> int:
    """Of a method whose terms weigh the same in every step."""
    del config
    return 0


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to learn embeddings.

    Attributes:
        build: (checked `model` group, number of channels, *, image_size, remat, num_microbatches) -> network; see
            `models.build_autoencoder`. Of the network the house asks `init`, and `encode(image, channel_mask, *,
            train)` -> (anything, `out`) with `out["embedding"]` [B, latent_dim] and `out["features"]` [B, F].
        objective: see the top of this file.
        summarize: host copies of `Aux.totals` -> numbers to log.
        other_views: configuration -> a `data` group for each further view that the objective wants of every example:
            its `crop_size` is the view's size, its `augment` or `outline` what is random.
        treatment: `objective` group -> the column by which the objective compares treatments; None: it does not.
        settled_step: `objective` group -> the step from which on every term has its final weight. Validations are as of
            then, so that two of them compare.
        across_images: configuration -> what looks at several images of a batch together, each the beginning of a
            sentence ("the contrastive term takes its negatives"): microbatches show it fewer.
        terms: keys of the `objective` group that nobody else reads; 0 turns each off.
        collapse: metrics of a validation -> a line that says how embeddings have become all alike; None: they have not.
        has_teacher: whether the objective is handed a `Teacher`, which `train.ema_decay` makes.
        has_decoder: whether it can have a decoder, whose reconstructions are looked at.
        needs_decoder: whether it does nothing without one (`model.decoder` = "none").
        newest_is_best: whether networks are better the longer they learned, whatever their validation loss: that of
            methods that are their own target says how hard the target is.
        has_codes: whether the network's `out` has `codes`.
    """

    build: Callable[..., nn.Module]
    objective: Callable[..., tuple[jax.Array, Aux]]
    summarize: Callable[[dict[str, np.ndarray]], dict[str, Any]] = no_summary
    other_views: Callable[[Config], tuple[DataConfig, ...]] = no_other_views
    treatment: Callable[[ObjectiveConfig], str | None] = no_treatment
    settled_step: Callable[[ObjectiveConfig], int] = settled_at_once
    across_images: Callable[[Config], tuple[str, ...]] = nothing_across_images
    terms: tuple[str, ...] = ()
    collapse: Callable[[dict[str, float]], str | None] = never_collapsed
    has_teacher: bool = False
    has_decoder: bool = True
    needs_decoder: bool = True
    newest_is_best: bool = False
    has_codes: bool = False

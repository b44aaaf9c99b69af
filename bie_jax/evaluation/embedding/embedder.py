"""Features of images, by a network with its weights.

Deterministic: no augmentation, no sampling, a fixed order, statistics from the workdir. The row of an image does not
depend on which other images are embedded with it.
"""

import copy
from collections.abc import Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.config.schema import Config
from bie_jax.evaluation.embedding.components import Components
from bie_jax.evaluation.embedding.network import Network
from bie_jax.input.image_set import ImageSet
from bie_jax.input.pixels import as_pixels, check_finite_rows
from bie_jax.training import sharding
from bie_jax.views.intensities import intensity_table, table_rows


class Embedder:
    """A network with its weights and the intensities it was trained on; made by `load` or `load_untrained`.

    Attributes:
        model_name: e.g. "vqvae"; the prefix of feature columns.
        channel_names: the channels the network takes, in its order.
        dim: numbers per image.
        widths: how many of these each readout has, where there are several.
        image_shape: (H, W, C) of the images of the set that is embedded; (P, 2, 1) of outlines.
        num_codes: K of each codebook; of a VQ-VAE only.
    """

    def __init__(
        self,
        config: Config,
        dataset: dict[str, Any],
        model: nn.Module,
        variables: dict[str, Any],
        readouts: tuple[str, ...],
        components: Components | None,
    ):
        """Ready to embed; `readouts` are the entries of the model's `out` that are, side by side, an image's row, or
        what `components` are taken of."""
        self.model_name: str = config.model.name
        self.channel_names: tuple[str, ...] = tuple(dataset["channel_names"])
        self.num_codes: int = config.model.quantizer.num_codes
        self._config = config
        self._components = components
        self._sets = dataset["sets"]
        self.image_shape: tuple[int, int, int] = tuple(self._sets[0]["image_shape"])
        self._table_rows = table_rows(self._sets)
        self._layout = sharding.embedding_layout(config.train.mesh)
        self._variables = jax.device_put(variables, self._layout.of(variables))
        table = intensity_table(
            self._sets, self.channel_names, config.data.normalization, config.data.normalization_scope
        )
        network = Network(config, model, table, readouts)
        self._inputs = network.inputs
        size = config.eval.image_size if config.eval.image_size != (0, 0) else config.data.crop_size
        blank = jnp.zeros((1, *size, len(self.channel_names)))
        read = jax.eval_shape(network.encode, self._variables, blank, jnp.zeros(1, jnp.int32))[0]
        self.widths: tuple[int, ...] = tuple(part.shape[-1] for part in read)
        self.dim: int = sum(self.widths) if components is None else components.axes.shape[1]
        batch = self._layout.batch
        shardings = {
            "in_shardings": (self._layout.of(self._variables), batch, batch),
            "out_shardings": self._layout.host,
        }
        apart = self._layout.with_examples_apart
        self._encode = jax.jit(apart(network.encode), **shardings)
        self._reconstruct = jax.jit(apart(network.reconstruct), **shardings)
        self._decode = jax.jit(network.decode)

    def embed(
        self, images: np.ndarray, channels: Sequence[str] | None = None, plates: Sequence[str] | None = None
    ) -> np.ndarray:
        """Features of images.

        Args:
            images: [N, H, W, C] camera counts, as the training images were before any normalization: uint8, uint16,
                float, or other whole numbers up to 2^24 (`bie_jax.input.pixels.as_pixels`); of shapes closed outlines
                [N, P', 2, 1], px, P' a multiple of `data.crop_size[0]`. Which of the P' points is the first changes
                nothing unless `model.ring.keeps` says so: an embedding is the mean of what the encoder says of every
                k-th point from each of k starts.
            channels: names of the C channels; they may come in any order. None: they are in the model's order. A model
                of several sets takes the channels of any one of them.
            plates: name of each image's plate, if they come from plates of the training set; matters only for
                `data.normalization_scope = "plate"`. None: read against the whole set's statistics.

        Returns:
            [N, D] float32.

        Raises:
            ValueError: for other channels than the model's, images too small, an unknown plate, values that are not
                finite or that float32 does not hold, and rows that are not finite.
        """
        images = as_pixels(images)
        if images.ndim != 4:
            raise ValueError(f"images have shape {images.shape}; expected [N, H, W, C]")
        self._inputs.check(images, self._config.data)
        described = self._set_of(images.shape[-1], channels)
        images = self.join_channels(images, self.channel_names if channels is None else channels)
        if plates is not None and len(plates) != len(images):
            raise ValueError(f"{len(plates)} plates for {len(images)} images: one for each")
        rows = self._rows_of(described, [""] * len(images) if plates is None else plates)
        batch_size = self.batch_size
        share = self.share(batch_size)
        out = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), batch_size):
            chosen = np.arange(start, min(start + batch_size, len(images)))
            padded = np.resize(chosen, batch_size)  # repeats images, so that every batch has one shape
            features, _ = self.encode_batch(images[padded[share]], rows[padded[share]])
            out[chosen] = features[: len(chosen)]
        check_finite_rows(out, "the embedding")
        return out

    @property
    def batch_size(self) -> int:
        """`eval.batch_size`, rounded up so that all devices share it."""
        return self._shared(self._config.eval.batch_size)

    def batch_of(self, count: int) -> int:
        """The same, of no more than all `count` images of a set."""
        return min(self.batch_size, self._shared(count))

    def share(self, batch_size: int) -> np.ndarray:
        """Places in a batch that this process's devices hold: what it gives to `encode_batch`; alone, all of them."""
        return self._layout.share(batch_size)

    def encode_batch(self, image: np.ndarray, plate: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The share [b, H, W, C] of a batch, counts, and [b] rows of the intensity table -> of the whole batch [B, D],
        and codes [B, ..., G] of a VQ-VAE."""
        placed = sharding.put_batch({"image": image, "plate": plate}, self._layout.batch)
        parts, codes = jax.device_get(self._encode(self._variables, placed["image"], placed["plate"]))
        features = np.concatenate(parts, axis=1)
        return features if self._components is None else self._components(features), codes

    def reconstruct_batch(self, image: np.ndarray, plate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same share -> of the whole batch normalized images and reconstructions, the part that is looked at."""
        placed = sharding.put_batch({"image": image, "plate": plate}, self._layout.batch)
        return jax.device_get(self._reconstruct(self._variables, placed["image"], placed["plate"]))

    def decode(self, embeddings: np.ndarray) -> np.ndarray:
        """What the decoder makes of any points [N, D] of the latent space: [N, H, W, C], normalized as its input is.

        Of autoencoders whose bottleneck has one vector per image.
        """
        return np.asarray(self._decode(self._variables, jnp.asarray(embeddings, jnp.float32)), np.float32)

    def with_variables(self, variables: dict[str, Any]) -> Self:
        """The same network with other weights; what was compiled for this one serves it too."""
        other = copy.copy(self)
        other._variables = jax.device_put(variables, self._layout.of(variables))
        return other

    def join_channels(self, images: np.ndarray, channels: Sequence[str]) -> np.ndarray:
        """[N, H, W, c] -> [N, H, W, C] in the model's order; a channel that is not there is 0, also normalized."""
        if tuple(channels) == self.channel_names:
            return images
        joined = np.zeros((*images.shape[:-1], len(self.channel_names)), images.dtype)
        joined[..., [self.channel_names.index(name) for name in channels]] = images
        return joined

    def rows_of_set(self, image_set: ImageSet) -> np.ndarray:
        """[N] int32: the row of the intensity table of each image of a set that the network was trained on."""
        described = self._set_of(len(image_set.channel_names), image_set.channel_names)
        return self._rows_of(described, image_set.metadata["plate"].tolist())

    def _set_of(self, count: int, channels: Sequence[str] | None) -> dict[str, Any]:
        """The first of the training sets that has these channels."""
        given = self.channel_names if channels is None else channels
        for described in self._sets:
            if count == len(given) and sorted(given) == sorted(described["channel_names"]):
                return described
        possible = " or ".join(", ".join(described["channel_names"]) for described in self._sets)
        if channels is None:
            raise ValueError(f"the images have {count} channels, the model takes {len(self.channel_names)}: {possible}")
        raise ValueError(
            f"the images ({count} channels) are said to have the channels {', '.join(channels)}; the model takes "
            f"{possible} (in any order)"
        )

    def _rows_of(self, described: dict[str, Any], plates: Sequence[str]) -> np.ndarray:
        """Rows of the intensity table; plate "" is the whole set."""
        unknown = sorted({plate for plate in plates if (described["name"], plate) not in self._table_rows})
        if unknown:
            raise ValueError(
                f"no intensity statistics for plates {unknown}; the model knows {sorted(described['plates'])}"
            )
        return np.asarray([self._table_rows[described["name"], plate] for plate in plates], np.int32)

    def _shared(self, count: int) -> int:
        """Rounded up so that all parts of a batch are as large."""
        shares = self._layout.shares
        return -(-count // shares) * shares

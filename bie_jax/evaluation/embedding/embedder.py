"""Features of images, by a network with its weights.

Deterministic: no augmentation, no sampling, a fixed order. The row of an image does not depend on which other images
are embedded with it, unless these are asked to say what its plate is like (`Embedder.embed`, `plates`).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.config.schema import Config
from bie_jax.evaluation.embedding.components import Components
from bie_jax.evaluation.embedding.network import Network
from bie_jax.evaluation.embedding.normalization import (
    Controls,
    Normalization,
    of_images,
    of_set,
    of_training,
    trained_like,
)
from bie_jax.input.image_set import ImageSet
from bie_jax.input.pixels import as_pixels, check_finite_rows
from bie_jax.input.statistics import of_plates
from bie_jax.training import sharding
from bie_jax.views.intensities import IntensityTable, intensity_table, table_rows


class Embedder:
    """A network with its weights and the intensities it was trained on; made by `load` or `load_untrained`.

    Attributes:
        model_name: e.g. "vqvae"; the prefix of feature columns.
        channel_names: the channels the network takes, in its order.
        dim: numbers per image.
        widths: how many of these each readout has, where there are several.
        image_shape: (H, W, C) of the images of the set that is embedded; (P, 2, 1) of outlines.
        num_codes: K of each codebook; of a VQ-VAE only.
        normalized_by: plate -> whose intensities its images were normalized by, of the last call of `embed`, or of the
            set that `for_set` was given: "plate SIM001 of the training set simulated", "its own 240 images", ...;
            plate "" stands for images of no plate. Empty before.
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
        self.normalized_by: dict[str, str] = {}
        self._config = config
        self._components = components
        self._trained = dataset["sets"]
        self.image_shape: tuple[int, int, int] = tuple(self._trained[0]["image_shape"])
        self._layout = sharding.embedding_layout(config.train.mesh)
        self._variables = jax.device_put(variables, self._layout.of(variables))
        self._table_rows, self._table = self._table_of(self._trained)
        network = Network(config, model, len(self.channel_names), readouts)
        self._inputs = network.inputs
        size = config.eval.image_size if config.eval.image_size != (0, 0) else config.data.crop_size
        blank = jnp.zeros((1, *size, len(self.channel_names)))
        read = jax.eval_shape(network.encode, self._variables, self._table, blank, jnp.zeros(1, jnp.int32))[0]
        self.widths: tuple[int, ...] = tuple(part.shape[-1] for part in read)
        self.dim: int = sum(self.widths) if components is None else components.axes.shape[1]
        batch = self._layout.batch
        shardings = {
            "in_shardings": (self._layout.of(self._variables), self._layout.host, batch, batch),
            "out_shardings": self._layout.host,
        }
        apart = self._layout.with_examples_apart
        self._encode = jax.jit(apart(network.encode), **shardings)
        self._reconstruct = jax.jit(apart(network.reconstruct), **shardings)
        self._decode = jax.jit(network.decode)

    def embed(
        self,
        images: np.ndarray,
        channels: Sequence[str] | None = None,
        plates: Sequence[str] | None = None,
        statistics: Mapping[str, Any] | None = None,
    ) -> np.ndarray:
        """Features of images; `normalized_by` says afterwards by whose intensities each plate was normalized.

        Args:
            images: [N, H, W, C] camera counts, as the training images were before any normalization: uint8, uint16,
                float, or other whole numbers up to 2^24 (`bie_jax.input.pixels.as_pixels`); of shapes closed outlines
                [N, P', 2, 1], px, P' a multiple of `data.crop_size[0]`. Which of the P' points is the first changes
                nothing unless `model.ring.keeps` says so: an embedding is the mean of what the encoder says of every
                k-th point from each of k starts.
            channels: names of the C channels; they may come in any order. None: they are in the model's order. A model
                of several sets takes the channels of any one of them.
            plates: name of each image's plate; matters only for `data.normalization_scope = "plate"`. Of a plate that
                was trained on, the intensities are those of then. A plate that is in neither `statistics` nor the
                training set is normalized by its images in this call: give them all, or `measure` them once. None: all
                are read against the whole training set's intensities, and a brighter plate looks brighter.
            statistics: intensities of plates by their names, as `measure` returns them and a set has them
                (`ImageSet.intensities`); they count before those of training.

        Returns:
            [N, D] float32.

        Raises:
            ValueError: for other channels than the model's, images too small, a single image of an unknown plate,
                statistics where nothing is normalized by plates, values that are not finite or that float32 does not
                hold, and rows that are not finite.
        """
        images, described = self._checked(images, channels)
        if plates is None:
            plates = [""] * len(images)
        elif len(plates) != len(images):
            raise ValueError(f"{len(plates)} plates for {len(images)} images: one for each")
        used = self._normalization_of(images, described, plates, statistics)
        table_row, table = self._table_of([used.intensities])
        rows = np.asarray([table_row[used.intensities["name"], plate] for plate in plates], np.int32)
        batch_size = self.batch_size
        share = self.share(batch_size)
        out = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), batch_size):
            chosen = np.arange(start, min(start + batch_size, len(images)))
            padded = np.resize(chosen, batch_size)  # repeats images, so that every batch has one shape
            features, _ = self._encode_batch(images[padded[share]], rows[padded[share]], table)
            out[chosen] = features[: len(chosen)]
        check_finite_rows(out, "the embedding")
        self.normalized_by = used.told
        return out

    def measure(
        self, images: np.ndarray, plates: Sequence[str], channels: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Intensities of plates, to `embed` any of their images by, together or not.

        Args:
            images: [N, H, W, C], as `embed` takes them: all of a plate, or its controls.
            plates: name of each image's plate.
            channels: as of `embed`.

        Returns:
            `channel_names`, and by its name in `plates` what a set holds of each plate (`mean`, `std`, `percentiles`,
            ...) and how many `images` it was measured of; numbers and texts, ready for JSON.

        Raises:
            ValueError: as `embed`.
        """
        images, described = self._checked(images, channels)
        if len(plates) != len(images):
            raise ValueError(f"{len(plates)} plates for {len(images)} images: one for each")
        names = list(described["channel_names"])
        return {"channel_names": names, "plates": self._measured(images, names, plates)}

    def for_set(self, image_set: ImageSet, controls: Controls | None = None) -> Self:
        """The same network for another set, whose plates have their own intensities where the run's have.

        Args:
            image_set: of channels that the network takes.
            controls: whose intensities stand for their plate; None: all its images.

        Raises:
            ValueError: for other channels.
            ConfigError: as `normalization.of_set`.
        """
        used = of_set(image_set, self._trained_like(image_set), self._config.data, controls)
        return self.normalizing_by(used, image_set)

    def normalizing_by(self, used: Normalization, image_set: ImageSet) -> Self:
        """`for_set`, where it is known already what that makes of the intensities."""
        other = copy.copy(self)
        other.normalized_by, other.image_shape = used.told, image_set.image_shape
        other._table_rows, other._table = self._table_of([used.intensities])
        return other

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
        return self._encode_batch(image, plate, self._table)

    def _encode_batch(
        self, image: np.ndarray, plate: np.ndarray, table: IntensityTable
    ) -> tuple[np.ndarray, np.ndarray | None]:
        placed = sharding.put_batch({"image": image, "plate": plate}, self._layout.batch)
        parts, codes = jax.device_get(self._encode(self._variables, table, placed["image"], placed["plate"]))
        features = np.concatenate(parts, axis=1)
        return features if self._components is None else self._components(features), codes

    def reconstruct_batch(self, image: np.ndarray, plate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same share -> of the whole batch normalized images and reconstructions, the part that is looked at."""
        placed = sharding.put_batch({"image": image, "plate": plate}, self._layout.batch)
        return jax.device_get(self._reconstruct(self._variables, self._table, placed["image"], placed["plate"]))

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
        """[N] int32: the row of the intensity table of each image of a set, the one that the network was trained on or
        that of `for_set`."""
        names = {name for name, _ in self._table_rows}
        name = image_set.name if image_set.name in names else self._trained_like(image_set)["name"]
        plates = image_set.metadata["plate"].tolist()
        unknown = sorted({plate for plate in plates if (name, plate) not in self._table_rows})
        if unknown:
            raise ValueError(f"no intensity statistics for plates {unknown} of {image_set.name!r}; see `for_set`")
        return np.asarray([self._table_rows[name, plate] for plate in plates], np.int32)

    def _checked(self, images: np.ndarray, channels: Sequence[str] | None) -> tuple[np.ndarray, dict[str, Any]]:
        """Images in the model's channels, and the training set that has them."""
        images = as_pixels(images)
        if images.ndim != 4:
            raise ValueError(f"images have shape {images.shape}; expected [N, H, W, C]")
        self._inputs.check(images, self._config.data)
        described = self._set_of(images.shape[-1], channels)
        return self.join_channels(images, self.channel_names if channels is None else channels), described

    def _normalization_of(
        self,
        images: np.ndarray,
        described: dict[str, Any],
        plates: Sequence[str],
        statistics: Mapping[str, Any] | None,
    ) -> Normalization:
        """Of images in the model's channels."""
        data = self._config.data
        given = {} if statistics is None else statistics["plates"]
        names = sorted(set(plates))
        unknown = [plate for plate in names if plate not in {"", *given, *described["plates"]}]
        if data.normalization_scope != "plate" or data.kind != "images":
            if statistics is not None:
                raise ValueError(
                    "statistics of plates mean nothing here: the run was trained with data.normalization_scope="
                    f"{data.normalization_scope!r}"
                )
            unknown = []
        elif statistics is None and not unknown:
            return of_training(described, names, data)
        chosen = np.isin(plates, unknown)
        for plate in unknown:
            if list(plates).count(plate) == 1:
                raise ValueError(
                    f"plate {plate!r} was not trained on, and one image of it is given, which cannot say what its "
                    "plate is like; give the plate's images together, or measure them and give "
                    f"statistics=embedder.measure(...); plates trained on: {', '.join(sorted(described['plates']))}"
                )
        measured = self._measured(
            images[chosen], described["channel_names"], [plate for plate in plates if plate in unknown]
        )
        return of_images(described, statistics, measured, names, data)

    def _measured(self, images: np.ndarray, names: Sequence[str], plates: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Intensities of each plate in some of the model's channels."""
        columns = [self.channel_names.index(name) for name in names]
        examples = ((plate, image[..., columns]) for plate, image in zip(plates, images, strict=True))
        return of_plates(examples, len(columns), str(images.dtype))

    def _set_of(self, count: int, channels: Sequence[str] | None) -> dict[str, Any]:
        """The first of the training sets that has these channels."""
        given = self.channel_names if channels is None else channels
        for described in self._trained:
            if count == len(given) and sorted(given) == sorted(described["channel_names"]):
                return described
        possible = " or ".join(", ".join(described["channel_names"]) for described in self._trained)
        if channels is None:
            raise ValueError(f"the images have {count} channels, the model takes {len(self.channel_names)}: {possible}")
        raise ValueError(
            f"the images ({count} channels) are said to have the channels {', '.join(channels)}; the model takes "
            f"{possible} (in any order)"
        )

    def _trained_like(self, image_set: ImageSet) -> dict[str, Any]:
        found = trained_like(self._trained, image_set)
        return self._set_of(len(image_set.channel_names), image_set.channel_names) if found is None else found

    def _table_of(self, sets: Sequence[dict[str, Any]]) -> tuple[dict[tuple[str, str], int], IntensityTable]:
        """(set, plate) -> row, and the table, filled up to a power of two: other plates seldom compile anew."""
        data = self._config.data
        table = intensity_table(sets, self.channel_names, data.normalization, data.normalization_scope)
        free = (1 << (table.gain.shape[0] - 1).bit_length()) - table.gain.shape[0]
        filled = jax.tree.map(lambda rows: np.pad(rows, ((0, free), (0, 0))), table)
        return table_rows(sets), jax.device_put(filled, self._layout.host)

    def _shared(self, count: int) -> int:
        """Rounded up so that all parts of a batch are as large."""
        shares = self._layout.shares
        return -(-count // shares) * shares

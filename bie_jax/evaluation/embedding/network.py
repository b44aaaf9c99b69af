"""A network without its weights, and what it sees of an image: pure functions, to be compiled."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.config.schema import Config
from bie_jax.evaluation.embedding.inputs import INPUTS, Inputs
from bie_jax.models import readouts
from bie_jax.views.intensities import IntensityTable
from bie_jax.views.kinds import VIEWS


@dataclasses.dataclass(frozen=True)
class Network:
    """The passes through a network.

    Attributes:
        config: of the run.
        model: without variables.
        num_channels: that it takes.
        readouts: the entries of the model's `out`, or "layers", that are side by side an image's row.
    """

    config: Config
    model: nn.Module
    num_channels: int
    readouts: tuple[str, ...]

    @property
    def inputs(self) -> Inputs:
        """How examples of the run's kind are looked at."""
        return INPUTS[self.config.data.kind]

    def view(self, table: IntensityTable, image: jax.Array, plate: jax.Array) -> jax.Array:
        """The intensities of plates, [B, H, W, C] counts, [B] rows of the table -> [B, h, w, C], normalized."""
        height, width = image.shape[1:3]
        size = self.inputs.size(height, width, self.config)
        return VIEWS[self.config.data.kind].evaluate(image, plate, table, size, self.config.data)

    def encode(
        self, variables: dict[str, Any], table: IntensityTable, image: jax.Array, plate: jax.Array
    ) -> tuple[list[jax.Array], jax.Array | None]:
        """Arguments as `view` -> each readout [B, *] float32, and codes [B, ..., G] of a VQ-VAE."""
        present = _present(table, plate)
        num_views = self.inputs.num_views(image.shape[1], self.config)
        layers = "layers" in self.readouts
        if num_views == 1:
            (_, out), noted = readouts.look(
                self.model, variables, self.view(table, image, plate), present, "encode", layers
            )
        else:

            def look_from(start: jax.Array) -> tuple[jax.Array, jax.Array]:
                view = self.view(table, jnp.roll(image, -start, axis=1), plate)
                return readouts.look(self.model, variables, view, present, "look", layers)

            # One after the other: all at once would need the memory of as many batches.
            features, noted = (part.mean(axis=0) for part in jax.lax.map(look_from, jnp.arange(num_views)))
            _, out = self._apply(variables, features, present, train=False, method="read")
        out = out | {"layers": noted}
        return [out[name].astype(jnp.float32) for name in self.readouts], out.get("codes")

    def reconstruct(
        self, variables: dict[str, Any], table: IntensityTable, image: jax.Array, plate: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Arguments as `view` -> the view, and what the decoder makes of its embedding."""
        view = self.view(table, image, plate)
        noise = {"noise": jax.random.key(self.config.train.seed)}  # patches to remove, of a method that does
        return view, self._apply(variables, view, _present(table, plate), train=False, rngs=noise)[0]

    def decode(self, variables: dict[str, Any], embedding: jax.Array) -> jax.Array:
        """Points [N, D] of the latent space -> [N, h, w, C]."""
        return self._apply(variables, embedding, *self.map_size(variables), method="decode")

    def map_size(self, variables: dict[str, Any]) -> tuple[int, ...]:
        """(height, width) of what the encoder makes of an image of the size of training."""
        blank = jnp.zeros((1, *self.config.data.crop_size, self.num_channels))
        encoded = jax.eval_shape(lambda of: self._apply(of, blank, train=False, method="encode")[0], variables)
        return encoded.shape[1:3]

    def _apply(self, *arrays: Any, **how: Any) -> Any:
        return self.model.apply(*arrays, **how)  # what comes back depends on `method`, which no type says


def _present(table: IntensityTable, plate: jax.Array) -> jax.Array:
    """[B, C] bool: the channels that an image's set has."""
    return table.present[plate] > 0

"""The sets that a run is trained on, as one: channels joined, rows numbered through, images cut to one size.

A run on one set is a mixture of one, and its images come as they are.
"""

import dataclasses
import functools

import numpy as np
import pandas as pd

from bie_jax.config.schema import DataConfig
from bie_jax.input.image_set import ImageSet, open_image_set
from bie_jax.input.wells import names_of_wells


def open_mixture(config: DataConfig) -> "Mixture":
    """The sets that a configuration names, opened."""
    return Mixture(tuple(open_image_set(name, config.data_dir) for name in (config.name, *config.mix_with)))


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One or more sets.

    Attributes:
        sets: the first one is what is embedded and scored.
    """

    sets: tuple[ImageSet, ...]

    def __len__(self) -> int:
        return len(self.metadata)

    @functools.cached_property
    def name(self) -> str:
        """For titles."""
        return " + ".join(image_set.name for image_set in self.sets)

    @functools.cached_property
    def channel_names(self) -> tuple[str, ...]:
        """The channels of all sets: the first set's, then what the others add."""
        return tuple(dict.fromkeys(name for image_set in self.sets for name in image_set.channel_names))

    @functools.cached_property
    def metadata(self) -> pd.DataFrame:
        """The sets' tables below each other, with the column `set`; a column that a set lacks is empty there."""
        tables = [image_set.metadata.assign(set=image_set.name) for image_set in self.sets]
        return pd.concat(tables, ignore_index=True)

    def origins(self, treatment: str | None, same: str | None = None) -> np.ndarray:
        """Where each image is from, as numbers: what `losses.contrastive.Origin` says of a batch.

        Plates and wells are told apart by their names: those of the same name in two sets are the same.

        Args:
            treatment: column; None: no treatment is known.
            same: column; wells in which it has the same value count as one, as nothing is to tell them apart.

        Returns:
            [N, 4] int32: its own number, its well's, its plate's, its treatment's; -1 for one of no treatment.
        """
        wells, plates = (pd.factorize(names)[0] for names in (names_of_wells(self.metadata), self.metadata["plate"]))
        if same is not None:
            values = self.metadata[same].fillna("").astype(str)
            wells = np.where(values == "", wells, wells.max() + 1 + pd.factorize(values)[0])
        treatments = np.full(len(self), -1)
        if treatment is not None:
            names = self.metadata[treatment]
            treatments = np.where(names == "", -1, pd.factorize(names)[0])
        return np.stack([np.arange(len(self)), wells, plates, treatments], axis=1).astype(np.int32)

    @functools.cached_property
    def first_rows(self) -> np.ndarray:
        """[S + 1] number of each set's first row, and of none."""
        return np.cumsum([0, *(len(image_set) for image_set in self.sets)])

    @functools.cached_property
    def window(self) -> tuple[int, int]:
        """Pixels: the height and width that all images have."""
        height, width = (min(image_set.image_shape[axis] for image_set in self.sets) for axis in (0, 1))
        return height, width

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """The smallest type that holds every set's pixels."""
        return np.result_type(*(image_set.dtype for image_set in self.sets))

    def images(self, rows: np.ndarray, places: np.ndarray | None) -> np.ndarray:
        """Some images; channels that an image's set lacks are 0.

        Args:
            rows: [n], over all sets.
            places: [n, 2] in [0, 1): where in a larger image the window is cut, from the top left to the bottom right
                end of its free play; None: the middle.

        Returns:
            [n, *window, C].
        """
        if len(self.sets) == 1:
            return self.sets[0].images(rows)
        images = np.zeros((len(rows), *self.window, len(self.channel_names)), self.dtype)
        members = np.searchsorted(self.first_rows, rows, side="right") - 1
        height, width = self.window
        for number, (row, member) in enumerate(zip(rows, members, strict=True)):
            image = self.sets[member][int(row - self.first_rows[member])]
            free = image.shape[0] - height, image.shape[1] - width
            # The middle as `views.images.center_crop` has it, one pixel nearer the origin.
            top, left = (
                (size // 2 for size in free)
                if places is None
                else (int(place * (size + 1)) for place, size in zip(places[number], free, strict=True))
            )
            images[number][..., self._channels[member]] = image[top : top + height, left : left + width]
        return images

    @functools.cached_property
    def _channels(self) -> list[list[int]]:
        return [[self.channel_names.index(name) for name in image_set.channel_names] for image_set in self.sets]

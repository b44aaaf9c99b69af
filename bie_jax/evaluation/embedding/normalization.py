"""By whose intensities images are normalized that a network was perhaps not trained on.

A network sees an image as it saw those of training: `data.normalization_scope` decides. Of "plate" every plate has its
own intensities, a plate that training never saw too; of "set" they stay those of the set that was trained on, since
that is what the weights fit; of "image" nothing but the image counts.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bie_jax.config.schema import ConfigError, DataConfig
from bie_jax.input.image_set import ImageSet
from bie_jax.input.statistics import of_channels, of_plates

# Fewer images than this say more of themselves than of their plate (`experiments/embedding`).
FEW_IMAGES = 16


@dataclasses.dataclass(frozen=True)
class Normalization:
    """The intensities that some images are normalized by.

    Attributes:
        intensities: `name`, `channel_names`, `overall` and `plates`, as `views.intensities.intensity_table` reads them.
        told: plate -> whose intensities these are, a few words; "" stands for images of no plate.
        counts: plate -> of how many images they are; of plates that were not trained on.
    """

    intensities: dict[str, Any]
    told: dict[str, str]
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Controls:
    """The images of a set whose intensities stand for their plate.

    Attributes:
        column: of the set's table.
        value: that the controls have in it.
    """

    column: str
    value: str

    def rows(self, image_set: ImageSet) -> np.ndarray:
        """Row numbers of the controls, some of every plate.

        Raises:
            ConfigError: if there is no such column, or a plate without controls.
        """
        if self.column not in image_set.metadata:
            raise ConfigError(
                f"--controls={self.column}={self.value}: {self.column!r} is no column of {image_set.name!r}; there are "
                f"{', '.join(image_set.metadata.columns)}"
            )
        is_control = image_set.metadata[self.column].astype(str) == self.value
        plates = image_set.metadata["plate"]
        without = sorted(set(plates) - set(plates[is_control]))
        if without:
            more = f" and {len(without) - 6} more" if len(without) > 6 else ""
            raise ConfigError(
                f"--controls={self.column}={self.value}: there are none on {', '.join(map(repr, without[:6]))}{more}, "
                f"of {plates.nunique()} plates of {image_set.name!r}; without --controls a plate is normalized by all "
                "its images"
            )
        return np.flatnonzero(is_control)


def trained_like(sets: Sequence[dict[str, Any]], image_set: ImageSet) -> dict[str, Any] | None:
    """The training set that a set is, or else the first that has its channels; None: no one has them.

    Args:
        sets: that were trained on, as `dataset.json` describes them.
        image_set: any.
    """
    same = [one for one in sets if _is(image_set, one)]
    alike = [one for one in sets if sorted(one["channel_names"]) == sorted(image_set.channel_names)]
    return next(iter([*same, *alike]), None)


def of_training(trained: Mapping[str, Any], plates: Sequence[str], data: DataConfig) -> Normalization:
    """For images of plates that were trained on; "" is the whole set.

    Args:
        trained: the set, as `dataset.json` describes it.
        plates: names.
        data: the checked group.
    """
    if data.normalization_scope == "plate" and data.kind == "images":
        told = {plate: _trained_plate(trained, plate) for plate in plates}
    else:
        told = dict.fromkeys(plates, _not_by_plate(trained, data))
    return Normalization(_form(trained), told)


def of_set(
    image_set: ImageSet, trained: Mapping[str, Any], data: DataConfig, controls: Controls | None
) -> Normalization:
    """For a set, trained on or not.

    Args:
        image_set: with the channels that the network takes.
        trained: the training set of the same channels, as `dataset.json` describes it.
        data: the checked group.
        controls: whose intensities stand for their plate; None: all its images.

    Raises:
        ConfigError: for controls that a plate does not have, or where no plate is normalized by its own intensities.
    """
    counts = image_set.metadata["plate"].value_counts().to_dict()
    plates = sorted(counts)
    if data.normalization_scope != "plate" or data.kind != "images":
        if controls is not None:
            raise ConfigError(
                f"--controls={controls.column}={controls.value}: this run was trained with "
                f"config.data.normalization_scope={data.normalization_scope!r}, no plate is normalized by its own"
            )
        told = dict.fromkeys(plates, _not_by_plate(trained, data))
        overall = {"name": image_set.name, "plates": dict.fromkeys(plates, trained["overall"])}
        return Normalization(_form(trained) | overall, told)
    own = image_set.intensities
    if controls is not None:
        rows = controls.rows(image_set)
        names = image_set.metadata["plate"]
        measured = of_plates(
            ((names.iloc[row], image_set[row]) for row in rows), len(image_set.channel_names), image_set.dtype
        )
        counts = {plate: measured[plate]["images"] for plate in plates}
        told = {
            plate: f"its own {count_of(counts[plate])} with {controls.column} = {controls.value}" for plate in plates
        }
        overall = measured.get("", own["overall"])  # what images of no plate are read against
        return Normalization(own | {"overall": overall, "plates": measured}, told, counts)
    if _is(image_set, trained):
        return Normalization(own, {plate: _trained_plate(trained, plate) for plate in plates})
    told = {plate: f"its own {count_of(counts[plate])}" for plate in plates}
    if "" in told:
        told[""] = f"the {count_of(len(image_set))} of {image_set.name}, as no plate is known"
    return Normalization(own, told, counts)


def of_images(
    trained: Mapping[str, Any],
    given: Mapping[str, Any] | None,
    measured: Mapping[str, dict[str, Any]],
    plates: Sequence[str],
    data: DataConfig,
) -> Normalization:
    """For images without a set: what was given counts, then what was trained on, then the images themselves.

    Args:
        trained: the training set of the same channels, as `dataset.json` describes it.
        given: intensities of plates, as `ImageSet.intensities` has them.
        measured: of the images themselves, for the plates that are known neither here nor there; channels in the order
            of `trained`.
        plates: the names that occur.
        data: the checked group.

    Raises:
        ValueError: for given intensities of other channels.
    """
    if data.normalization_scope != "plate" or data.kind != "images":
        told = dict.fromkeys(plates, _not_by_plate(trained, data))
        return Normalization(_form(trained) | {"plates": dict.fromkeys(plates, trained["overall"])}, told)
    names = list(trained["channel_names"])
    known = dict(trained["plates"])
    told = {plate: _trained_plate(trained, plate) for plate in plates if plate == "" or plate in known}
    if given is not None:
        if sorted(given["channel_names"]) != sorted(names):
            raise ValueError(
                f"the statistics are of the channels {', '.join(given['channel_names'])}, the images of "
                f"{', '.join(names)}"
            )
        columns = [list(given["channel_names"]).index(name) for name in names]
        known |= {plate: of_channels(summary, columns) for plate, summary in given["plates"].items()}
        told |= {plate: _given(given["plates"][plate]) for plate in plates if plate in given["plates"]}
    known |= measured
    told |= {plate: f"its own {count_of(summary['images'])} of this call" for plate, summary in measured.items()}
    return Normalization(_form(trained) | {"plates": known}, told)


def count_of(images: int) -> str:
    """ "1 image", "240 images"."""
    return f"{images} image{'s' * (images != 1)}"


def _is(image_set: ImageSet, trained: Mapping[str, Any]) -> bool:
    return bool(image_set.fingerprint) and image_set.fingerprint == trained.get("fingerprint")


def _form(described: Mapping[str, Any]) -> dict[str, Any]:
    """What `intensity_table` reads of a set, and no more."""
    return {name: described[name] for name in ("name", "channel_names", "overall", "plates")}


def _trained_plate(trained: Mapping[str, Any], plate: str) -> str:
    return f"plate {plate} of the training set {trained['name']}" if plate else _whole(trained)


def _given(summary: Mapping[str, Any]) -> str:
    of = f", of {count_of(summary['images'])}" if "images" in summary else ""
    return f"the statistics that were given{of}"


def _whole(trained: Mapping[str, Any]) -> str:
    return f"the whole training set {trained['name']}"


def _not_by_plate(trained: Mapping[str, Any], data: DataConfig) -> str:
    if data.kind != "images":
        return "nothing: outlines have no intensities"
    return "each image by itself" if data.normalization_scope == "image" else _whole(trained)

"""Fall-off of light towards the corners: estimated per plate and channel from the plate's own fields, and divided away.

Retrospective, as CellProfiler's CorrectIlluminationCalculate and DeepProfiler have it (Singh et al. 2014, "Pipeline for
illumination correction of images for high-throughput microscopy"): mean over fields, smoothing, division.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy import ndimage

from data.errors import BadInputError, BuildError

# Of the field's shorter side: wide enough to smooth cells away, narrow enough for the lamp.
SMOOTHING = 0.1
FIELDS_PER_PLATE = 200  # evenly spread over the plate; more change little


@dataclasses.dataclass(frozen=True)
class Illumination:
    """Functions to divide by, one file per plate, [H, W, C] float32 with mean 1 over each channel.

    Attributes:
        functions: plate -> .npy file.
    """

    functions: dict[str, Path]

    def files(self) -> dict[str, Path]:
        """What is kept with the set: file name -> file. `build.json` lists the plates in their order."""
        return {path.name: path for path in self.functions.values()}

    def correct(self, image: np.ndarray, plate: str, source: str) -> np.ndarray:
        """[H, W, C] counts -> counts of the same dtype as if every place had had the mean light.

        Raises:
            BadInputError: if the image has another size than those the function is of.
        """
        function = np.load(self.functions[plate], mmap_mode="r", allow_pickle=False)
        if function.shape != image.shape:
            raise BadInputError(
                source, f"plate {plate}", f"the image is {image.shape}, the plate's illumination {function.shape}"
            )
        corrected = image / function
        if image.dtype.kind == "u":
            # Saturated pixels in a dark corner would pass the type's end.
            corrected = np.minimum(np.rint(corrected), np.iinfo(image.dtype).max)
        return corrected.astype(image.dtype)


def estimate_function(images: Iterable[np.ndarray]) -> np.ndarray:
    """[H, W, C] fields of one plate -> [H, W, C] float32 light at each place, mean 1 over each channel.

    Raises:
        BuildError: for fields of different sizes, or a channel without any light.
    """
    total: np.ndarray | None = None
    for image in images:
        if total is None:
            total = np.zeros(image.shape)
        if image.shape != total.shape:
            raise BuildError(
                f"fields of {total.shape} and {image.shape} pixels on one plate have no common illumination"
            )
        total += image
    if total is None:
        raise BuildError("no field of the plate can be read")
    sigma = SMOOTHING * min(total.shape[:2])
    smooth = ndimage.gaussian_filter(total, (sigma, sigma, 0), mode="nearest")
    mean = smooth.mean(axis=(0, 1))
    # A constant channel is flat light.
    return np.divide(smooth, mean, out=np.ones_like(smooth), where=mean > 0).astype(np.float32)

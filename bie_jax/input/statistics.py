"""Intensity statistics of a stream of images: one pass, one histogram per channel, mergeable.

A set has them of all its images and of each plate since it was built (`data.records.join`); what is embedded without a
set is measured in the same way.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

PERCENTILES = (0.1, 1, 50, 99, 99.9)
BINS = 65536


@dataclasses.dataclass
class Intensities:
    """What is known of the pixels that passed by.

    Whole numbers up to 65535 are counted one by one, so every statistic is exact. Of float32 the upper 16 bits are
    counted (sign, exponent, 7 bits of the mantissa): percentiles are right to 1/128 of their value, while mean,
    standard deviation, least and greatest value come from sums over all pixels and are exact.

    Attributes:
        histogram: [C, 65536] int64.
        moments: [C, 3] float64: count, mean, sum of squared deviations from it. Of floats only.
        extremes: [C, 2] float64: least and greatest value. Of floats only.
        is_float: whether the pixels are float32.
    """

    histogram: np.ndarray
    moments: np.ndarray
    extremes: np.ndarray
    is_float: bool

    @classmethod
    def empty(cls, channels: int, dtype: str) -> "Intensities":
        """Of no pixels yet."""
        extremes = np.tile([np.inf, -np.inf], (channels, 1))
        return cls(np.zeros((channels, BINS), np.int64), np.zeros((channels, 3)), extremes, dtype == "float32")

    def add(self, image: np.ndarray) -> None:
        """Count [H, W, C] pixels."""
        for c in range(image.shape[-1]):
            values = image[..., c].ravel()
            if self.is_float:
                self.extremes[c] = min(self.extremes[c, 0], values.min()), max(self.extremes[c, 1], values.max())
                mean = values.mean(dtype=np.float64)
                self._add_moments(c, values.size, mean, np.square(values - mean, dtype=np.float64).sum())
                values = _bin_of(values)
            counts = np.bincount(values)
            self.histogram[c, : len(counts)] += counts

    def merge(self, other: "Intensities") -> None:
        """Count what another one has counted. Not commutative to the last bit for floats: keep an order."""
        self.histogram += other.histogram
        self.extremes[:, 0] = np.minimum(self.extremes[:, 0], other.extremes[:, 0])
        self.extremes[:, 1] = np.maximum(self.extremes[:, 1], other.extremes[:, 1])
        for c, (count, mean, squares) in enumerate(other.moments):
            self._add_moments(c, count, mean, squares)

    def _add_moments(self, c: int, count: float, mean: float, squares: float) -> None:
        # Chan, Golub and LeVeque 1983, eq. 1.5: sums about the mean, so that bright flat pixels lose no digits.
        if count == 0:
            return
        total = self.moments[c, 0] + count
        difference = mean - self.moments[c, 1]
        self.moments[c, 2] += squares + difference**2 * self.moments[c, 0] * count / total
        self.moments[c, 1] += difference * count / total
        self.moments[c, 0] = total

    def summary(self) -> dict[str, Any]:
        """`count`, and per channel `mean`, `std` (population), `min`, `max` and `percentiles` (linear interpolation).

        A channel in which nothing was counted is not possible; every image counts every channel.
        """
        values = _value_of(np.arange(BINS)) if self.is_float else np.arange(BINS, dtype=float)
        count = int(self.histogram[0].sum())
        cumulative = self.histogram.cumsum(axis=1)

        def order_statistic(rank: int) -> np.ndarray:
            return values[[np.searchsorted(c, rank, side="right") for c in cumulative]]

        percentiles = {}
        for q in PERCENTILES:
            position = q / 100 * (count - 1)
            below, above = order_statistic(int(np.floor(position))), order_statistic(int(np.ceil(position)))
            percentiles[str(q)] = (below + (position % 1) * (above - below)).tolist()
        if self.is_float:
            mean, std = self.moments[:, 1], np.sqrt(self.moments[:, 2] / count)
            low, high = self.extremes.T
        else:
            mean = self.histogram @ values / count
            squares = [h @ np.square(values - m) for h, m in zip(self.histogram, mean, strict=True)]
            std = np.sqrt(np.stack(squares) / count)
            low, high = order_statistic(0), order_statistic(count - 1)
        return {
            "count": count,
            "mean": mean.tolist(),
            "std": std.tolist(),
            "min": low.tolist(),
            "max": high.tolist(),
            "percentiles": percentiles,
        }


def of_plates(examples: Iterable[tuple[str, np.ndarray]], channels: int, dtype: str) -> dict[str, dict[str, Any]]:
    """Intensities of each plate, of (plate, image [H, W, C]), as a set has them, and in `images` how many these were.

    Args:
        examples: in any order; they may be made one by one.
        channels: C.
        dtype: of the images: "uint8", "uint16" or "float32".
    """
    counted: dict[str, Intensities] = {}
    images: dict[str, int] = {}
    for plate, image in examples:
        counted.setdefault(plate, Intensities.empty(channels, dtype)).add(image)
        images[plate] = images.get(plate, 0) + 1
    return {plate: counted[plate].summary() | {"images": images[plate]} for plate in sorted(counted)}


def of_channels(summary: dict[str, Any], columns: Sequence[int]) -> dict[str, Any]:
    """Of some channels, in their order, what `Intensities.summary` says of all."""

    def chosen(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: chosen(of) for name, of in value.items()}
        return [value[column] for column in columns] if isinstance(value, list) else value

    return chosen(summary)


def _bin_of(values: np.ndarray) -> np.ndarray:
    """Finite float32 -> the upper 16 bits of a whole number that sorts as they do."""
    bits = (values + np.float32(0)).view(np.uint32)  # + 0: there are two zeros
    return (np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> 16).astype(np.uint16)


def _value_of(bins: np.ndarray) -> np.ndarray:
    """The middle of each bin, float64; 0 for bins of no finite number."""
    ordered = (bins.astype(np.uint32) << 16) | np.uint32(1 << 15)
    bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered)
    values = bits.astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(values), values, 0).astype(np.float64)

"""From masks, label images and contours to outlines: the cuts whose examples are shapes.

An example is an outline [P, 2, 1] float32: points by (row, column) in pixels of the field it came from, clockwise on
the screen; where it starts, `bie_jax.shapes.contour` and `bie_jax.shapes.resample` say.
"""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from bie_jax.shapes.contour import label_image_to_contours, largest_object, mask_to_contour, objects
from bie_jax.shapes.polygon import centroid, signed_area
from bie_jax.shapes.resample import resample_contour
from data.errors import BadInputError
from data.fields.crops import Crop
from data.fields.index import Field
from data.fields.mask_checks import problem_of_binary, problem_of_grey, problem_of_labels
from data.records.description import Kind

CHANNEL = "outline"  # of every set of shapes

# Centroid and area are of what is outlined: of a component's pixels, or of what a contour encloses. The scale is the
# root mean square of all P^2 distances between the outline's points, that of `bie_jax.shapes.distance_matrix`.
_COLUMNS = {"object": int, "centroid_row_px": float, "centroid_col_px": float, "area_px": float, "scale_px": float}


@dataclasses.dataclass(frozen=True)
class OutlineOfMask:
    """One outline for each image: that of the largest component above half of the image's maximum.

    Attributes:
        num_points: P.
        method: "linear", "spline" or "ray", see `bie_jax.shapes.resample`.
        grey: whether a mask may have more than two levels, and other objects beside the largest.
    """

    kind: ClassVar[Kind] = "shapes"
    num_points: int
    method: str
    grey: bool

    @property
    def columns(self) -> dict[str, type]:
        """Metadata of each example."""
        return _COLUMNS

    def __call__(self, field: Field, image: np.ndarray) -> Iterator[Crop]:
        """[H, W, 1] -> one example; raises BadInputError if no pixel is above 0, and for what is no such mask."""
        mask = image[..., 0]
        if mask.max() <= 0:
            raise BadInputError(field.source, str(field), "the mask is empty: no pixel is above 0, which is background")
        if problem := (problem_of_grey if self.grey else problem_of_binary)(mask):
            raise BadInputError(field.source, str(field), f"the mask {problem}")
        contour = mask_to_contour(mask, self.num_points, self.method)
        found = largest_object(mask)
        yield _example(contour, found.label, *_centroid_and_area(found.mask, found.origin))


@dataclasses.dataclass(frozen=True)
class OutlinesOfLabels:
    """One outline for each label of a label image; of a label in several components, that of the largest.

    Attributes:
        num_points: P.
        method: "linear", "spline" or "ray", see `bie_jax.shapes.resample`.
    """

    kind: ClassVar[Kind] = "shapes"
    num_points: int
    method: str

    @property
    def columns(self) -> dict[str, type]:
        """Metadata of each example."""
        return _COLUMNS

    def __call__(self, field: Field, image: np.ndarray) -> Iterator[Crop]:
        """[H, W, 1] -> one example for each label, in ascending order; none of an empty image.

        Raises:
            BadInputError: if values are not whole numbers from 0, or do not number objects.
        """
        labels = image[..., 0].astype(np.int64)
        if (labels != image[..., 0]).any() or labels.min() < 0:
            raise BadInputError(field.source, str(field), "is no label image: expected whole numbers from 0")
        if not labels.any():
            return  # a field without cells
        if problem := problem_of_labels(labels):
            raise BadInputError(field.source, str(field), f"the label image {problem}")
        contours = label_image_to_contours(labels, self.num_points, self.method)[1]
        for contour, whole in zip(contours, objects(labels), strict=True):
            found = largest_object(whole.mask)
            row, column = (a + b for a, b in zip(whole.origin, found.origin, strict=True))
            yield _example(contour, whole.label, *_centroid_and_area(found.mask, (row, column)))


@dataclasses.dataclass(frozen=True)
class ResampledContour:
    """One outline for each contour.

    Attributes:
        num_points: P.
        method: "linear", "spline" or "ray", see `bie_jax.shapes.resample`.
    """

    kind: ClassVar[Kind] = "shapes"
    num_points: int
    method: str

    @property
    def columns(self) -> dict[str, type]:
        """Metadata of each example."""
        return _COLUMNS

    def __call__(self, field: Field, image: np.ndarray) -> Iterator[Crop]:
        """[V, 2, 1] (row, column) -> one example; raises BadInputError if the points are no outline."""
        points = image[..., 0].astype(np.float64)
        try:
            contour = resample_contour(points, self.num_points, self.method)
        except ValueError as error:
            raise BadInputError(field.source, str(field), str(error)) from None
        row, column = centroid(points)
        yield _example(contour, 1, float(row), float(column), float(abs(signed_area(points))))


def _centroid_and_area(mask: np.ndarray, origin: tuple[int, int]) -> tuple[float, float, float]:
    """Row, column and number of the pixels of a mask whose first pixel is at `origin`."""
    rows, columns = np.nonzero(mask)
    return float(rows.mean() + origin[0]), float(columns.mean() + origin[1]), float(len(rows))


def _example(contour: np.ndarray, number: int, row: float, column: float, area: float) -> Crop:
    # The sum of all squared distances is 2 P times that of the points from their mean.
    scale = float(np.sqrt(2 * contour.var(axis=0).sum()))
    values = (number, row, column, area, scale)
    return contour.astype(np.float32)[..., None], dict(zip(_COLUMNS, values, strict=True))

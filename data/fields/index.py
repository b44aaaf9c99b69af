"""Fields of view: which planes belong together, and how channels, focus and time become one image."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
from scipy import ndimage

from data.errors import BadInputError
from data.fields.planes import Plane

PROJECTED = -1  # the z of a plane that the microscope itself projected

# One plane by its index; a projection over all; or every one an example of its own.
AxisChoice = int | Literal["max", "mean", "focus", "each"]


@dataclasses.dataclass(frozen=True)
class Field:
    """One site of one well.

    Attributes:
        plate: its name.
        well: e.g. "B02".
        site: number of the field within the well.
        planes: (channel as the source calls it, z, t) -> plane; z is `PROJECTED` for the microscope's own projection.
        metadata: what the source or an annotation says of it, by column.
        objects: (y, x, further columns) of the objects in it, pixels; where a table says so.
        size: pixels, height and width, where the source says it beside the pixels; else None.
    """

    plate: str
    well: str
    site: int
    planes: dict[tuple[str, int, int], Plane]
    metadata: dict[str, str | int | float] = dataclasses.field(default_factory=dict)
    objects: tuple[tuple[float, float, dict[str, str | int | float]], ...] = ()
    size: tuple[int, int] | None = None

    @property
    def source(self) -> str:
        """File or URL of its first plane."""
        return self.planes[min(self.planes)].source

    def __str__(self) -> str:
        return f"plate {self.plate}, well {self.well}, site {self.site}"


@dataclasses.dataclass(frozen=True)
class Index:
    """Everything a source holds, before any pixel is read.

    Attributes:
        channels: as the source calls them, in its order.
        fields: sorted by plate, well, site.
        columns: of every field's metadata, with their Python types.
        pixel_size_um: micrometers per pixel; None where the source does not say.
        ignored: (file, why) of what lies there and is not part of it: thumbnails, missing wells.
        unreadable: (file, place, why) of what may be part of it, and cannot be read; only with `--skip-bad`.
    """

    channels: tuple[str, ...]
    fields: tuple[Field, ...]
    columns: dict[str, type]
    pixel_size_um: float | None
    ignored: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str, str], ...] = ()


def assemble(
    field: Field, channels: tuple[str, ...], z: AxisChoice, t: AxisChoice
) -> Iterator[tuple[np.ndarray, dict[str, int]]]:
    """The images of one field.

    Args:
        field: what to read.
        channels: as the source calls them, in the order of the image's last axis.
        z: which focal planes; a projection uses the planes there are, the microscope's own where there are no others.
        t: which time points.

    Yields:
        [H, W, C] in the planes' dtype, and `z`, `t` where these are kept apart.

    Raises:
        BadInputError: for a plane that is missing, unreadable, not finite, or unlike its siblings in size or dtype.
    """
    times = sorted({t_ for _, _, t_ in field.planes})
    if isinstance(t, int):
        if t not in times:
            raise BadInputError(field.source, str(field), f"there is no time point {t}, only {times}")
        times = [t]
    if t == "each" or isinstance(t, int):
        for time in times:
            for image, kept in _over_z(field, channels, z, time):
                yield image, kept | ({"t": time} if t == "each" else {})
        return
    if z == "each":
        raise ValueError("z cannot be kept apart while t is projected")
    images = [image for time in times for image, _ in _over_z(field, channels, z, time)]
    stack = _stack(field, images, [f"time point {time}" for time in times], axis=0)
    yield np.stack([project(stack[..., c], t) for c in range(len(channels))], axis=-1), {}


def planes_read(field: Field, channels: tuple[str, ...], z: AxisChoice, t: AxisChoice) -> Iterator[Plane]:
    """The planes that `assemble` reads of a field where none is missing."""
    stepped = {(channel, t_) for channel, z_, t_ in field.planes if z_ != PROJECTED}
    for (channel, z_, t_), plane in field.planes.items():
        of_z = z_ == z if isinstance(z, int) else z_ != PROJECTED or (channel, t_) not in stepped
        if channel in channels and of_z and (t_ == t or not isinstance(t, int)):
            yield plane


def _over_z(
    field: Field, channels: tuple[str, ...], z: AxisChoice, t: int
) -> Iterator[tuple[np.ndarray, dict[str, int]]]:
    if z == "each":
        steps = sorted({z_ for _, z_, t_ in field.planes if t_ == t and z_ != PROJECTED}) or [PROJECTED]
        for step in steps:
            planes = [_read(field, channel, step, t) for channel in channels]
            yield _stack(field, planes, [field.planes[channel, step, t].source for channel in channels]), {"z": step}
        return
    images, sources = [], []
    for channel in channels:
        if isinstance(z, int):
            images.append(_read(field, channel, z, t))
            sources.append(field.planes[channel, z, t].source)
            continue
        steps = sorted(z_ for c, z_, t_ in field.planes if c == channel and t_ == t)
        steps = [step for step in steps if step != PROJECTED] or steps or [PROJECTED]
        planes = [_read(field, channel, step, t) for step in steps]
        of_steps = [field.planes[channel, step, t].source for step in steps]
        images.append(planes[0] if len(planes) == 1 else project(_stack(field, planes, of_steps, axis=0), z))
        sources.append(of_steps[0])
    yield _stack(field, images, sources), {}


def _read(field: Field, channel: str, z: int, t: int) -> np.ndarray:
    place = f"{field}, channel {channel}" + (f", z {z}" if z > 0 else "") + (f", t {t}" if t else "")
    plane = field.planes.get((channel, z, t))
    if plane is None:
        there = sorted(f"{c} z {'projected' if z_ == PROJECTED else z_} t {t_}" for c, z_, t_ in field.planes)
        raise BadInputError(field.source, place, f"its plane is missing; there are {', '.join(there[:12])}")
    try:
        pixels = plane.read()
    except BadInputError as error:
        raise BadInputError(error.source, place, error.problem) from None
    if pixels.ndim != 2 or pixels.size == 0:
        raise BadInputError(plane.source, place, f"the plane is {pixels.shape}, expected [H, W]")
    return to_stored(pixels, plane.source, place)


def to_stored(pixels: np.ndarray, source: str, place: str) -> np.ndarray:
    """The same values as uint8, uint16 or float32, whichever a set can hold without loss.

    Raises:
        BadInputError: for values that are not finite or that none of the three holds exactly.
    """
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype.kind not in "iuf":
        raise BadInputError(source, place, f"pixels of type {pixels.dtype}")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise BadInputError(source, place, f"{(~np.isfinite(pixels)).sum()} pixels are NaN or infinite")
    stored = pixels.astype(np.float32)
    # Of a double the last digits are given up; of a count none.
    if pixels.dtype.kind in "iu" and not (stored.astype(pixels.dtype) == pixels).all():
        raise BadInputError(source, place, f"{pixels.dtype} values over 2^24, which float32 does not hold exactly")
    if not np.isfinite(stored).all():
        raise BadInputError(source, place, f"{pixels.dtype} values beyond float32's range")
    return stored


def _stack(field: Field, planes: list[np.ndarray], sources: list[str], axis: int = -1) -> np.ndarray:
    """Planes one behind the other; those that differ are refused, two of them named."""
    first = planes[0]
    for plane, source in zip(planes, sources, strict=True):
        if (plane.shape, plane.dtype) != (first.shape, first.dtype):
            raise BadInputError(
                field.source,
                str(field),
                f"its planes differ in size or type: {source} is {plane.shape} {plane.dtype}, {sources[0]} is "
                f"{first.shape} {first.dtype}",
            )
    return np.stack(planes, axis=axis)


def project(stack: np.ndarray, how: AxisChoice) -> np.ndarray:
    """[Z, H, W] -> [H, W] in the same dtype: the maximum, the (rounded) mean, or the sharpest plane.

    Sharpness is the variance of the Laplacian (Pertuz et al. 2013, "Analysis of focus measure operators", LAP4).
    """
    if how == "max":
        return stack.max(axis=0)
    if how == "mean":
        mean = stack.mean(axis=0, dtype=np.float64)
        return (np.rint(mean) if stack.dtype.kind == "u" else mean).astype(stack.dtype)
    if how == "focus":
        return stack[int(np.argmax([ndimage.laplace(plane.astype(np.float64)).var() for plane in stack]))]
    raise ValueError(f"{how!r} is no projection")

"""The same images as TIFF, PNG, OME-Zarr and as a built set, for the comparisons of this folder."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
import zarr

from bie_jax.input.image_set import ImageSet, open_image_set
from data.records.writer import Description, write_set


@dataclasses.dataclass(frozen=True)
class Files:
    """Where the images lie; image i is well B02, site i of one plate."""

    folder: Path
    count: int
    shape: tuple[int, int, int]

    def tiff(self, i: int) -> Path:
        """zlib, one page per channel."""
        return self.folder / "tiff" / f"{i:05d}.tif"

    def png(self, i: int, channel: int) -> Path:
        """16 bit, one file per channel, as PNG has it."""
        return self.folder / "png" / f"{i:05d}_{channel}.png"

    def zarr(self, i: int) -> Path:
        """One OME-Zarr image per field, one chunk per channel, zarr's default compression (zstd)."""
        return self.folder / "plate.zarr" / "B" / "2" / str(i)

    def megabytes(self, kind: str) -> float:
        """On disk."""
        return sum(path.stat().st_size for path in (self.folder / kind).rglob("*") if path.is_file()) / 1e6


@dataclasses.dataclass(frozen=True)
class _Mosaic:
    """Images of any size from those of the simulated set, which is small: [H, W, C] pieces beside each other."""

    source: ImageSet
    shape: tuple[int, int, int]

    def identity(self, part: int, /) -> str:
        return str(part)

    def image(self, part: int) -> np.ndarray:
        height, width, channels = self.shape
        side = self.source.image_shape[0]
        rng = np.random.default_rng(part)
        out = np.empty(self.shape, np.uint16)
        for top in range(0, height, side):
            for left in range(0, width, side):
                tile = self.source[int(rng.integers(len(self.source)))][..., :channels]
                out[top : top + side, left : left + side] = tile[: height - top, : width - left]
        return out

    def examples(self, part: int, /) -> Iterator[tuple[np.ndarray, dict[str, str | int]]]:
        place = {"plate": "P1", "well": "B02", "site": part, "label": "", "source": str(part)}
        yield self.image(part), place


def write_files(folder: Path, count: int, shape: tuple[int, int, int], data_dir: str) -> tuple[Files, ImageSet]:
    """Write every form.

    Args:
        folder: empty.
        count: images.
        shape: (H, W, C).
        data_dir: where the simulated set is.
    """
    files = Files(folder, count, shape)
    mosaic = _Mosaic(open_image_set("simulated", data_dir), shape)
    for kind in ("tiff", "png"):
        (folder / kind).mkdir(parents=True)
    root = zarr.open_group(folder / "plate.zarr", mode="w", zarr_format=3)
    root.attrs["ome"] = {
        "version": "0.5",
        "plate": {
            "name": "P1",
            "rows": [{"name": "B"}],
            "columns": [{"name": "2"}],
            "wells": [{"path": "B/2", "rowIndex": 0, "columnIndex": 0}],
        },
    }
    well = root.create_group("B/2")
    well.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": str(i)} for i in range(count)]}}
    for i in range(count):
        planes = np.moveaxis(mosaic.image(i), -1, 0)
        tifffile.imwrite(files.tiff(i), planes, compression="zlib", photometric="minisblack")
        for channel, plane in enumerate(planes):
            files.png(i, channel).write_bytes(imagecodecs.png_encode(np.ascontiguousarray(plane)))
        image = well.create_group(str(i))
        image.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [
                {
                    "axes": [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "yx")],
                    "datasets": [
                        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}
                    ],
                }
            ],
        }
        image.create_array("0", data=planes, chunks=(1, *planes.shape[1:]))
    description = Description(
        name="records",
        version="1.0.0",
        kind="images",
        channel_names=tuple(str(channel) for channel in range(shape[2])),
        pixel_size_um=None,
        image_shape=shape,
        dtype="uint16",
        columns={"plate": str, "well": str, "site": int, "label": str, "source": str},
        text="Mosaics of simulated images.",
        simulated=True,
    )
    write_set(description, range(count), mosaic, folder / "sets", num_workers=2)
    return files, open_image_set("records", folder / "sets")

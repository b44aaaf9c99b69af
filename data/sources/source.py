"""A source of any layout as an index of fields."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.errors import BuildError
from data.fields.index import Index
from data.fields.planes import IMAGE_SUFFIXES
from data.options import FieldOptions
from data.sources.arrays import index_arrays
from data.sources.contours import index_contours
from data.sources.download import bring, is_archive
from data.sources.folder import index_folder
from data.sources.formats import format_of
from data.sources.layouts import index_layout, index_pattern
from data.sources.ome_tiff import index_ome_tiff
from data.sources.ome_zarr import find_store, index_ome_zarr
from data.sources.table import index_table
from data.sources.tfds_set import index_tfds

LAYOUTS = (
    "table", "folder", "imagexpress", "operetta", "cellvoyager", "ome-tiff", "ome-zarr", "arrays", "tfds", "contours"
)  # fmt: skip
_SUFFIXES = {
    "table": (".csv", ".tsv", ".parquet"),
    "ome-zarr": (".zarr", ".zarr.zip", ".ozx"),
    "ome-tiff": (".ome.tif", ".ome.tiff"),
    "arrays": (".npy", ".npz"),
}
_HOW = f"say how it is organized, --layout={'|'.join(LAYOUTS)}, or give a --pattern"


def layout_of(source: str) -> str | None:
    """The layout that the suffix of a path or URL says; None where it says none."""
    name = source.rstrip("/").lower().removesuffix(".gz")
    return next((layout for layout, suffixes in _SUFFIXES.items() if name.endswith(suffixes)), None)


def layout_asked_for(options: FieldOptions) -> str | None:
    """What `--layout` or `--pattern` says, or the suffix; None of an archive, whose content may say it.

    Raises:
        BuildError: if there is no source, or nothing says how it is organized.
    """
    source = options.needed_source()
    if options.layout is not None or options.pattern is not None:
        return options.layout or "pattern"
    layout = layout_of(source)
    if layout is None and source.lower().endswith(IMAGE_SUFFIXES) and not Path(source).is_dir():
        raise BuildError(
            f"{source}: is one image; give its folder with --layout=folder, or --layout=ome-tiff for OME-TIFF"
        )
    if layout is None and not is_archive(source):
        raise BuildError(f"{source}: {_HOW}")
    return layout


def index_source(options: FieldOptions, wells_per_plate: int) -> tuple[Index, dict[str, Any]]:
    """The fields of a source, and what `build.json` says of it.

    Raises:
        BuildError: naming the source or a file of it, and what to do.
    """
    source = options.needed_source()
    unread = format_of(source.rstrip("/").rpartition("/")[2])
    if unread and not Path(source).is_dir() and not source.lower().endswith(".npy"):
        raise BuildError(f"{source}: is {unread}")
    layout = layout_asked_for(options)
    if layout == "ome-zarr" and not is_archive(source):
        if options.sha256 is not None:
            raise BuildError(
                f"--sha256={options.sha256}: is for a source that is one file, not for the many of an OME-Zarr"
            )
        return index_ome_zarr(source, options.level, wells_per_plate), {"source": source, "level": options.level}
    path, notes = bring(source, options.sha256, options.downloads)
    if layout is None or layout == "ome-zarr":
        store = find_store(path)
        if store is None:
            raise BuildError(f"{source}: {_HOW if layout is None else 'there is no OME-Zarr in it'}")
        return index_ome_zarr(str(store), options.level, wells_per_plate), notes | {"level": options.level}
    label, pattern = options.label or "label", options.pattern or ""
    readers: dict[str, Callable[[], Index]] = {
        "table": lambda: index_table(path, wells_per_plate, label),
        "folder": lambda: index_folder(path),
        "ome-tiff": lambda: index_ome_tiff(path, wells_per_plate, options.leave_out),
        "arrays": lambda: index_arrays(path, wells_per_plate),
        "tfds": lambda: index_tfds(path),
        "contours": lambda: index_contours(path, options.annotation, wells_per_plate, label),
        "pattern": lambda: index_pattern(path, pattern, wells_per_plate, label),
    }
    if layout in readers:
        return readers[layout](), notes
    return index_layout(path, layout, wells_per_plate), notes

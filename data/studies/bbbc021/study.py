"""BBBC021 among the known sets: its plates, fetched or given, or the single-cell subset."""

from pathlib import Path

from data.errors import BuildError
from data.fields.field_set import VERSION
from data.options import FieldOptions
from data.sources.download import bring
from data.sources.origin import Origin, same_names
from data.studies.bbbc021.index import (
    CHANNELS,
    IMAGES,
    LABEL,
    SUBSET,
    SUBSET_TEXT,
    TABLES,
    TEXT,
    fetch_bbbc021,
    index_bbbc021,
    index_subset,
)
from data.studies.study import FLAGS_OF_PIXELS, Study


def origin(options: FieldOptions) -> Origin:
    """Without a source the plates are fetched; a folder holds the plates and their tables, or the subset."""
    if options.source is None:
        if options.sha256 is None:
            raise BuildError(
                "bbbc021 needs --source, or --sha256=FILE with a line 'NAME SHA256' for each file to be fetched (their "
                f"publisher gives no sums); {options.readme} says how to write one"
            )
        tables, folders, notes = fetch_bbbc021(Path(options.sha256), options.plates, options.downloads)
    else:
        folder, notes = bring(options.source, options.sha256, options.downloads)
        if (folder / SUBSET).is_file():
            index, joined = index_subset(folder, leave_out=options.leave_out)
            return Origin(index, same_names(index), LABEL, SUBSET_TEXT, notes | joined)
        tables, folders = {name: folder / name for name in TABLES}, [folder]
        if not tables[IMAGES].is_file():
            raise BuildError(f"{folder}: holds neither {SUBSET} nor {IMAGES}; {options.readme} says what --source is")
    index, found = index_bbbc021(tables, folders)
    return Origin(index, CHANNELS, LABEL, TEXT, notes | found)


BBBC021 = Study(
    name="bbbc021",
    version=VERSION,
    kinds=("images", "shapes"),
    layout=None,
    flags=FLAGS_OF_PIXELS | {"sha256"},
    mask="binary",
    origin=origin,
)

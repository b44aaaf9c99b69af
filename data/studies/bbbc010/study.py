"""The worms of BBBC010 among the known sets: the official archives, or what the user gives."""

from data.errors import BuildError
from data.options import FieldOptions
from data.sources.download import bring
from data.sources.origin import Origin
from data.studies.bbbc010.index import (
    CHANNELS,
    LABEL,
    TEXT,
    VERSION,
    WORM_COLUMNS,
    fetch_bbbc010,
    index_bbbc010,
    index_worm_masks,
)
from data.studies.study import FLAGS_OF_PIXELS, Study


def origin(options: FieldOptions) -> Origin:
    """The images, with the worms as objects if there are masks; or the masks alone, as shapes."""
    if options.kind == "shapes":
        return _outlines(options)
    if options.source is None:
        path, notes = fetch_bbbc010("images", options.downloads)
    else:
        path, notes = bring(options.source, options.sha256, options.downloads)
    if options.masks is None:
        return Origin(index_bbbc010(path, None), CHANNELS, LABEL, TEXT, notes)
    if options.masks == "official":
        masks, _ = fetch_bbbc010("masks", options.downloads)
    else:
        masks, _ = bring(options.masks, None, options.downloads)
    return Origin(index_bbbc010(path, masks), CHANNELS, LABEL, TEXT, notes, WORM_COLUMNS)


def _outlines(options: FieldOptions) -> Origin:
    if options.masks is None or options.source is not None:
        raise BuildError(
            "bbbc010 --kind=shapes needs --masks=official, or --masks=FOLDER, and no --source; "
            f"{options.readme} says what they are"
        )
    if options.masks == "official":
        path, notes = fetch_bbbc010("masks", options.downloads)
    else:
        path, notes = bring(options.masks, None, options.downloads)
    return Origin(index_worm_masks(path), {}, LABEL, TEXT, notes)


BBBC010 = Study(
    name="bbbc010",
    version=VERSION,
    kinds=("images", "shapes"),
    layout=None,
    flags=FLAGS_OF_PIXELS | {"sha256", "masks"},
    mask="binary",
    origin=origin,
)

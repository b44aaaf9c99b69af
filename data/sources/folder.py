"""A folder tree of images whose names mean nothing."""

import dataclasses
from pathlib import Path, PurePosixPath

from data.errors import BuildError
from data.fields.index import Index
from data.fields.planes import IMAGE_SUFFIXES
from data.sources.entries import Entry, Value, make_index
from data.sources.files import alike, find_files, no_image, planes_within, what_is_there


def index_folder(path: Path) -> Index:
    """Every PNG, JPEG and TIFF below a folder is a field.

    The plate is the folder's name, there are no wells, and the site is the image's number in the order of the relative
    paths. The column `folder` is the relative parent ("" for none), so that `--label=folder` reads a tree with one
    folder per class; `file` is the name. What the first readable image holds (see `planes_within`), all must hold.

    Raises:
        BuildError: if there is no image, or none that can be read.
    """
    files, ignored = find_files(path)
    images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
    ignored += [(file, no_image(file)) for file in files if not file.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise BuildError(
            f"{path}: no file in it or below ends in {', '.join(IMAGE_SUFFIXES)}; there is {what_is_there(files)}"
        )
    within = planes_within(path / file for file in images)
    entries = []
    for site, file in enumerate(images, start=1):
        parent = PurePosixPath(file).parent.as_posix()
        metadata: dict[str, Value] = {"folder": "" if parent == "." else parent, "file": PurePosixPath(file).name}
        for (channel, z, t), plane in within.items():
            plane = dataclasses.replace(plane, path=path / file)
            place = (path.resolve().name, "", site, channel, z, t)
            entries.append(Entry(plane, str(path / file), *place, metadata=metadata))
    channels = tuple(dict.fromkeys(channel for channel, _, _ in within))
    return make_index(alike(entries), channels, wells_per_plate=384, ignored=ignored)

"""A folder tree of images whose names mean nothing."""

import dataclasses
from pathlib import Path, PurePosixPath

from data.errors import BuildError
from data.fields import Index
from data.planes import IMAGE_SUFFIXES
from data.sources.entries import Entry, Value, make_index
from data.sources.files import channels_within, find_files


def index_folder(path: Path) -> Index:
    """Every PNG, JPEG and TIFF below a folder is a field.

    The plate is the folder's name, there are no wells, and the site is the image's number in the order of the relative
    paths. The column `folder` is the relative parent ("" for none), so that `--label=folder` reads a tree with one
    folder per class; `file` is the name. What the first readable image holds (see `channels_within`), all must hold.

    Raises:
        BuildError: if there is no image, or none that can be read.
    """
    files, ignored = find_files(path)
    images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
    ignored += [(file, "no image") for file in files if not file.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise BuildError(f"{path}: no file in it or below ends in {', '.join(IMAGE_SUFFIXES)}")
    channels = channels_within(path / file for file in images)
    entries = []
    for site, file in enumerate(images, start=1):
        parent = PurePosixPath(file).parent.as_posix()
        metadata: dict[str, Value] = {"folder": "" if parent == "." else parent, "file": PurePosixPath(file).name}
        for channel, plane in channels.items():
            plane = dataclasses.replace(plane, path=path / file)
            entries.append(Entry(plane, str(path / file), path.resolve().name, "", site, channel, metadata=metadata))
    return make_index(entries, tuple(channels), wells_per_plate=384, ignored=ignored)

"""Image files on disk: which are there, what one of them holds, and how they become an index."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data.errors import BadInputError, BuildError
from data.fields import Index
from data.limits import MOST_FOLDERS
from data.planes import FilePlane, count_colours, count_pages
from data.sources.entries import Entry, make_index, typed, whole


def find_files(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Every file below a folder but hidden ones; links are followed to files within the folder only.

    Returns:
        Paths relative to the folder, with /, sorted; and (path, why) of links that are not followed.

    Raises:
        BuildError: if it is no folder or cannot be read.
    """
    if not root.is_dir():
        raise BuildError(f"{root}: is {'a file, a folder is needed' if root.exists() else 'not there'}")
    inside = root.resolve()
    files, ignored = [], []
    for folder, subfolders, names in os.walk(root, onerror=_refuse):
        relative = Path(folder).relative_to(root)
        if len(relative.parts) > MOST_FOLDERS:
            raise BuildError(
                f"{root}: has more than {MOST_FOLDERS} folders within each other; give one of the inner ones"
            )
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in (*subfolders, *names):
            file = (relative / name).as_posix()
            try:
                file.encode()
            except UnicodeEncodeError:
                raise BuildError(f"{root}: the name {file!r} is not UTF-8; rename it") from None
            link = os.path.islink(root / file)
            if link and (name in subfolders or inside not in Path(os.path.realpath(root / file)).parents):
                ignored.append((file, "a link to a folder, or out of this one, is not followed"))
            elif name not in subfolders and not name.startswith("."):
                files.append(file)
    return sorted(files), sorted(ignored)


def _refuse(error: OSError) -> None:
    raise BuildError(f"{error.filename}: cannot be read ({error.strerror})")


def channels_within(files: Iterable[Path]) -> dict[str, FilePlane]:
    """What the first readable file holds: pages are the channels "0", "1", ...; colours are R, G, B(, A).

    Returns:
        Channel -> plane of that file; `dataclasses.replace(plane, path=...)` is the same of another.

    Raises:
        BadInputError: if none of the files can be read.
        BuildError: for several pages of several colours.
    """
    first_error = None
    for path in files:
        try:
            pages, colours = count_pages(path), count_colours(path)
        except BadInputError as error:
            first_error = first_error or error
            continue
        if pages > 1 and colours > 1:
            raise BuildError(f"{path}: {pages} pages of {colours} colours each; only one of the two can be channels")
        if colours > 1:
            names = "RGBA" if colours in (3, 4) else "0123456789"[:colours]
            return {names[i]: FilePlane(path, colour=i, pages=1) for i in range(colours)}
        return {str(page): FilePlane(path, page, pages=pages) for page in range(pages)}
    raise first_error or BuildError("there is no image")


def index_files(
    files: Sequence[Path],
    where: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    wells_per_plate: int,
    ignored: Sequence[tuple[str, str]] = (),
) -> Index:
    """Index files by the texts that say where each belongs.

    Args:
        files: at least one.
        where: for each file, what says so, as a message names it.
        columns: one text for each file: plate, well, site, and if need be channel, z, t; every other column is
            metadata of the field. Without `channel` see `channels_within`.
        wells_per_plate: the plates' format.
        ignored: (file, why) of what is left out.

    Raises:
        BuildError: for a number that is none, a channel without a name, and all that `make_index` refuses.
    """
    places = ("plate", "well", "site", "channel", "z", "t")
    metadata = {name: typed(texts) for name, texts in columns.items() if name not in places}
    within = {} if "channel" in columns else channels_within(files)
    entries = []
    for i, (file, said) in enumerate(zip(files, where, strict=True)):
        site, z, t = (whole(columns[name][i], said, name) if name in columns else 0 for name in ("site", "z", "t"))
        if within:
            planes = {channel: dataclasses.replace(plane, path=file) for channel, plane in within.items()}
        elif columns["channel"][i]:
            planes = {columns["channel"][i]: FilePlane(file, pages=1)}
        else:
            raise BuildError(f"{said}: the channel has no name")
        values = {name: cells[i] for name, cells in metadata.items()}
        entries += [
            Entry(plane, said, columns["plate"][i], columns["well"][i], site, channel, z, t, values)
            for channel, plane in planes.items()
        ]
    channels = tuple(within) or tuple(dict.fromkeys(columns["channel"]))
    return make_index(entries, channels, wells_per_plate, ignored=ignored)

"""Image files on disk: which are there, what one of them holds, and how they become an index."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from data.errors import BadInputError, BuildError
from data.fields.index import Index
from data.fields.planes import IMAGE_SUFFIXES, FilePlane, contents
from data.limits import MOST_FOLDERS
from data.sources.entries import Entry, make_index, typed, whole
from data.sources.formats import format_of
from data.text import plain


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


def no_image(file: str) -> str:
    """Why a file is not part of a source of images; with the way out where its format is known."""
    return format_of(PurePosixPath(file).name) or "no image"


def what_is_there(files: Sequence[str]) -> str:
    """What there is where nothing fits: a file that says most, what it is if it is not read, and how many there are."""
    unread = [(file, found) for file in files if (found := format_of(PurePosixPath(file).name))]
    images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
    if unread and not images:
        return f"{unread[0][0]}, {unread[0][1]} ({len(files)} files)"
    return f"{(images or files)[0]} ({len(files)} files)" if files else "no file"


def planes_within(files: Iterable[Path]) -> dict[tuple[str, int, int], FilePlane]:
    """What the first readable file holds, by channel, z and t.

    The file's own description says which planes are channels, focal planes and time points; pages that it says nothing
    of are the channels "0", "1", ..., and so are the samples of a pixel that are no colors. Colors are R, G, B(, A).

    Returns:
        Planes of that file; `dataclasses.replace(plane, path=...)` is the same of another.

    Raises:
        BadInputError: if none of the files can be read.
    """
    first_error = None
    for path in files:
        try:
            found = contents(path)
        except BadInputError as error:
            first_error = first_error or error
            continue
        count = len(found.places)
        return {place: FilePlane(path, number, sample, count, path) for place, number, sample in found.planes()}
    raise first_error or BuildError("there is no image")


def alike(entries: Sequence[Entry]) -> list[Entry]:
    """The same entries; what the first readable file of a channel holds, all of its files must hold.

    Whatever it is that files differ in (channels, alpha, focal planes, type and bits of pixels, the meaning of their
    values), it is refused when they are read, and whichever comes first.
    """
    first: dict[str, Path | None] = {}
    for entry in entries:
        if isinstance(entry.plane, FilePlane) and first.get(entry.channel) is None:
            first[entry.channel] = entry.plane.path if _is_readable(entry.plane.path) else None
    return [
        dataclasses.replace(entry, plane=dataclasses.replace(entry.plane, like=first[entry.channel]))
        if isinstance(entry.plane, FilePlane)
        else entry
        for entry in entries
    ]


def _is_readable(path: Path) -> bool:
    try:
        contents(path)
    except BadInputError:
        return False
    return True


def index_files(
    files: Sequence[Path],
    where: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    wells_per_plate: int,
    ignored: Sequence[tuple[str, str]] = (),
    label: str = "label",
) -> Index:
    """Index files by the texts that say where each belongs.

    Args:
        files: at least one.
        where: for each file, what says so, as a message names it.
        columns: one text for each file: plate, well, site, and if need be channel, z, t; every other column is
            metadata of the field. Without `channel` see `planes_within`.
        wells_per_plate: the plates' format.
        ignored: (file, why) of what is left out.
        label: column of metadata that stays text, as it is written.

    Raises:
        BuildError: for a number that is none, a channel without a name, a file of several focal planes or time points
            where z or t is said of it too, and all that `make_index` refuses.
    """
    places = ("plate", "well", "site", "channel", "z", "t")
    columns = {
        name: [plain(text, said) for text, said in zip(texts, where, strict=True)] for name, texts in columns.items()
    }
    metadata = {name: texts if name == label else typed(texts) for name, texts in columns.items() if name not in places}
    within = {} if "channel" in columns else planes_within(files)
    for axis, name in ((1, "z"), (2, "t")):
        if name in columns and len({place[axis] for place in within}) > 1:
            file = next(iter(within.values())).path
            raise BuildError(f"{file}: holds {contents(file)}, and {where[0]} gives it one {name}; leave {name} out")
    entries = []
    for i, (file, said) in enumerate(zip(files, where, strict=True)):
        site, z, t = (whole(columns[name][i], said, name) if name in columns else 0 for name in ("site", "z", "t"))
        if within:
            planes = {place: dataclasses.replace(plane, path=file) for place, plane in within.items()}
        elif columns["channel"][i]:
            planes = {(columns["channel"][i], 0, 0): FilePlane(file, pages=1)}
        else:
            raise BuildError(f"{said}: the channel has no name")
        values = {name: cells[i] for name, cells in metadata.items()}
        entries += [
            Entry(
                plane, said, columns["plate"][i], columns["well"][i], site, channel, z + z_within, t + t_within, values
            )
            for (channel, z_within, t_within), plane in planes.items()
        ]
    channels = tuple(dict.fromkeys(entry.channel for entry in entries))
    return make_index(alike(entries), channels, wells_per_plate, ignored=ignored)

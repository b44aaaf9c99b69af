"""Trees of image files whose names say plate, well, site, channel, focal plane and time."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from data.annotation import column_name
from data.errors import BuildError
from data.fields.index import PROJECTED, Index
from data.fields.planes import IMAGE_SUFFIXES, FilePlane
from data.limits import PATTERN_SECONDS, PATTERN_SECONDS_PER_PATH, at_most_seconds
from data.sources.entries import Entry, make_index, natural, well_of
from data.sources.files import alike, find_files, index_files, no_image, what_is_there
from data.sources.harmony import IMAGE_NAME, INDEX_NAMES, read_harmony

LAYOUTS = {
    "imagexpress": "PLATE_B02_s1_w1<GUID>.tif, in folders TimePoint_1, ZStep_1 or none",
    "operetta": "Index.idx.xml or r02c03f04p01-ch2sk1fk1fl1.tiff",
    "cellvoyager": "PLATE_B02_T0001F001L01A01Z01C01.tif",
}

# <plate>_<well>, then any of _s<site> _w<channel> _z<focal plane> _t<time>, then _thumb, then a GUID.
_IMAGEXPRESS = re.compile(
    r"(?P<plate>.+?)_(?P<well>[A-Z]{1,2}[0-9]{2})(?P<numbers>(?:_[swzt][0-9]+)*)(?P<thumbnail>_thumb)?"
    r"(?:[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12})?\.(?i:tiff?)"
)
_IMAGEXPRESS_FOLDER = re.compile(r"(ZStep|TimePoint)_([0-9]+)")
# Time, field, time line, action, focal plane, channel.
_CELLVOYAGER = re.compile(
    r"(?P<plate>.+)_(?P<well>[A-Z]{1,2}[0-9]{2})_T(?P<t>[0-9]+)F(?P<site>[0-9]+)L[0-9]+A[0-9]+Z(?P<z>[0-9]+)"
    r"(?P<channel>C[0-9]+)\.(?i:tiff?|png)"
)
_CELLVOYAGER_CORRECTION = re.compile(r"(DC|SC)_.*")

_PLACES = ("plate", "well", "row", "column", "site", "channel", "z", "t")

# What a file's name says, as arguments of `Entry`; or why it is not part of the source.
_Place = Callable[[PurePosixPath], dict[str, Any] | str]


def layouts_of_names(files: Sequence[str]) -> list[str]:
    """The layouts of microscopes that a file is named by, of paths relative to a folder."""
    names = [PurePosixPath(file).name for file in files]
    patterns = {"imagexpress": _IMAGEXPRESS, "operetta": IMAGE_NAME, "cellvoyager": _CELLVOYAGER}
    found = {layout for layout, pattern in patterns.items() if any(pattern.fullmatch(name) for name in names)}
    if set(names) & set(INDEX_NAMES):
        found.add("operetta")
    return sorted(found)


def index_layout(path: Path, layout: str, wells_per_plate: int = 384) -> Index:
    """Index what a microscope's software has written, one plate or several below one folder.

    Args:
        path: the folder.
        layout: "imagexpress" (MetaXpress), "operetta" (Harmony; Opera Phenix too) or "cellvoyager" (CV7000, CV8000).
        wells_per_plate: the plates' format.

    Raises:
        BuildError: if nothing there is named as the layout has it, for a well that there cannot be, and for two files
            of one plate, well, site, channel, z and t.
    """
    if layout not in LAYOUTS:
        raise BuildError(f"there is no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    files, ignored = find_files(path)
    pixel_size_um = None
    if layout == "imagexpress":
        entries = _named(path, files, _imagexpress(files), ignored)
    elif layout == "cellvoyager":
        entries = _named(path, files, _cellvoyager, ignored)
    else:
        entries, pixel_size_um = _operetta(path, files, ignored)
    if not entries:
        raise BuildError(
            f"{path}: nothing is named as {layout} has it, {LAYOUTS[layout]}; there is {what_is_there(files)}"
        )
    channels = tuple(dict.fromkeys(entry.channel for entry in entries))
    return make_index(alike(entries), channels, wells_per_plate, pixel_size_um, ignored)


def _named(root: Path, files: list[str], place: _Place, ignored: list[tuple[str, str]]) -> list[Entry]:
    """Entries in the order of the channels; what is none is added to `ignored`."""
    entries = []
    for file in files:
        found = place(PurePosixPath(file)) if file.lower().endswith(IMAGE_SUFFIXES) else no_image(file)
        if isinstance(found, str):
            ignored.append((file, found))
        else:
            entries.append(Entry(FilePlane(root / file, pages=1), str(root / file), **found))
    return sorted(entries, key=lambda entry: natural(entry.channel))


def _imagexpress(files: list[str]) -> _Place:
    folders = {parent for file in files for parent in PurePosixPath(file).parents}
    stacks = {folder.parent for folder in folders if folder.name.startswith("ZStep_")}

    def place(file: PurePosixPath) -> dict[str, Any] | str:
        match = _IMAGEXPRESS.fullmatch(file.name)
        if match is None:
            return "not named as MetaXpress does"
        if match["thumbnail"]:
            return "thumbnail"
        numbers = dict(re.findall("_([swzt])([0-9]+)", match["numbers"]))
        for folder in file.parts[:-1]:
            if found := _IMAGEXPRESS_FOLDER.fullmatch(folder):
                numbers["z" if found[1] == "ZStep" else "t"] = found[2]
        if "z" in numbers:
            # MetaXpress counts steps from 1; projections made afterwards are in ZStep_0.
            z = PROJECTED if int(numbers["z"]) == 0 else int(numbers["z"]) - 1
        else:
            z = PROJECTED if file.parent in stacks else 0
        return {
            "plate": match["plate"],
            "well": match["well"],
            "site": int(numbers.get("s", "1")),
            "channel": f"w{numbers.get('w', '1')}",
            "z": z,
            "t": _from_one(numbers.get("t", "1"), file, "time point"),
        }

    return place


def _cellvoyager(file: PurePosixPath) -> dict[str, Any] | str:
    match = _CELLVOYAGER.fullmatch(file.name)
    if match is None:
        correction = _CELLVOYAGER_CORRECTION.fullmatch(file.name)
        return "correction image" if correction else "not named as CellVoyager does"
    return {
        "plate": match["plate"],
        "well": match["well"],
        "site": int(match["site"]),
        "channel": match["channel"],
        "z": _from_one(match["z"], file, "focal plane"),
        "t": _from_one(match["t"], file, "time point"),
    }


def _operetta(root: Path, files: list[str], ignored: list[tuple[str, str]]) -> tuple[list[Entry], float | None]:
    """What an index lists where there is one, what the names say elsewhere; and micrometers per pixel."""
    indices: dict[PurePosixPath, str] = {}
    for name in INDEX_NAMES:
        for file in map(PurePosixPath, files):
            if file.name == name:
                indices.setdefault(file.parent, name)
    entries, sizes = [], set()
    for folder, name in sorted(indices.items()):
        found, found_sizes = read_harmony(root / folder / name)
        entries += found
        sizes.update(found_sizes)
    listed = {entry.plane.source for entry in entries}
    elsewhere = []
    for file in files:
        if not indices.keys() & set(PurePosixPath(file).parents):
            elsewhere.append(file)
        elif str(root / file) not in listed and PurePosixPath(file).name not in INDEX_NAMES:
            ignored.append((file, "not in the index"))
    if len(sizes) > 1:
        ignored.append((str(root), f"pixels of {', '.join(f'{size:.4g}' for size in sorted(sizes))} um: no one size"))
    entries += _named(root, elsewhere, lambda file: _operetta_name(root, file), ignored)
    return entries, sizes.pop() if len(sizes) == 1 else None


def _operetta_name(root: Path, file: PurePosixPath) -> dict[str, Any] | str:
    match = IMAGE_NAME.fullmatch(file.name)
    if match is None:
        return "not named as Harmony does"
    # The plate is the folder above `Images`, and above folders of wells.
    above = [part for part in file.parts[:-1] if part.lower() != "images" and not re.fullmatch("r[0-9]+c[0-9]+", part)]
    return {
        "plate": above[-1] if above else root.resolve().name,
        "well": well_of(match["row"], match["column"]),
        "site": int(match["site"]),
        "channel": f"ch{int(match['channel'])}",
        "z": _from_one(match["z"], file, "plane"),
        "t": _from_one(match["t"] or "1", file, "time point"),
    }


def _from_one(text: str, file: PurePosixPath, what: str) -> int:
    """A number that counts from 1 -> one that counts from 0."""
    if int(text) == 0:
        raise BuildError(f"{file}: {what} 0, they count from 1")
    return int(text) - 1


def index_pattern(path: Path, pattern: str, wells_per_plate: int = 384, label: str = "label") -> Index:
    """Index files by a regular expression with named groups.

    Args:
        path: the folder.
        pattern: of the whole path relative to the folder, with /. Groups: `well`, or `row` (letters, or a number from
            1) and `column`; `plate` (without it, the folder's name), `site` (1), `channel`, `z` (0) and `t` (0), the
            last two as they are written. Without `channel` every file must hold what the first readable one holds (see
            `planes_within`). Any other group is metadata of the field. Files that do not match are left out, and
            listed.
        wells_per_plate: the plates' format.
        label: group that stays text, as it is written.

    Raises:
        BuildError: for a pattern that is none, lacks a group, or matches nothing; for a well that there cannot be, and
            for two files of one plate, well, site, channel, z and t.
    """
    files, ignored = find_files(path)
    seconds = PATTERN_SECONDS + PATTERN_SECONDS_PER_PATH * len(files)
    problem = f"the pattern {pattern!r} takes more than {seconds:.0f} s; it may repeat what repeats, as (a+)+ does"
    with at_most_seconds(seconds, problem):
        compiled = _compiled(pattern)
        found = {file: compiled.fullmatch(file) for file in files}
    groups = {column_name(group): number for group, number in compiled.groupindex.items()}
    if (
        len(groups) < len(compiled.groupindex)
        or ("well" in groups) == ("row" in groups)
        or ("row" in groups) != ("column" in groups)
    ):
        raise BuildError(
            f"the pattern {pattern!r} needs the group (?P<well>...), or (?P<row>...) and (?P<column>...), and no name "
            f"twice; it has {', '.join(compiled.groupindex) or 'none'}"
        )
    matches = [(file, match) for file, match in found.items() if match is not None]
    ignored += [(file, "does not match the pattern") for file, match in found.items() if match is None]
    if not matches:
        with at_most_seconds(seconds, problem):
            how_far = _how_far(pattern, files)
        raise BuildError(
            f"{path}: the pattern {pattern!r} matches nothing; it must match a whole path below the folder; there is "
            f"{what_is_there(files)}{how_far}"
        )
    if "channel" in groups:  # w2 before w10
        matches.sort(key=lambda found: natural(found[1][groups["channel"]] or ""))
    columns = {name: [match[number] or "" for _, match in matches] for name, number in groups.items()}
    where = [str(path / file) for file, _ in matches]
    for group in _PLACES:
        if "" in columns.get(group, ()):
            raise BuildError(f"{where[columns[group].index('')]}: the pattern finds no {group} in it")
    if "row" in columns:
        columns["well"] = [well_of(row, column) for row, column in zip(columns.pop("row"), columns.pop("column"))]
    defaults = {"plate": path.resolve().name, "site": "1"}
    columns = {name: [value] * len(matches) for name, value in defaults.items()} | columns
    return index_files([path / file for file, _ in matches], where, columns, wells_per_plate, ignored, label)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BuildError(f"the pattern {pattern!r:.200} is no regular expression: {error}") from None


def _first(files: list[str]) -> str:
    return next((file for file in files if file.lower().endswith(IMAGE_SUFFIXES)), files[0])


def _how_far(pattern: str, files: list[str]) -> str:
    """Which part of the example a pattern matches, by its longest beginning that matches any, and which it does not."""
    if not files:
        return ""
    path = _first(files)
    within = re.compile(pattern).search(path)
    if within is not None:
        before, after = path[: within.start()], path[within.end() :]
        left = " and ".join(f"the {part!r} {side} it" for part, side in ((before, "before"), (after, "behind")) if part)
        return f", of which it matches {within[0]!r}, and not {left}"
    matched = 0
    for end in range(1, len(pattern)):
        try:
            match = re.compile(pattern[:end]).match(path)
        except re.error:  # cut within a group
            continue
        matched = max(matched, match.end() if match else 0)
    return f", of which it matches {path[:matched]!r} at the start, and not {path[matched:]!r}"

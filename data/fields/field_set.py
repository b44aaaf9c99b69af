"""From an index of fields to a set: which channels, which planes, which crops, which label."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.errors import BadInputError, BuildError
from data.fields.crops import AroundMasks, Cut
from data.fields.illumination import FIELDS_PER_PLATE, Illumination, estimate_function
from data.fields.index import AxisChoice, Field, Index, assemble, planes_read
from data.fields.labels import names_alike, with_labels
from data.fields.planes import Plane
from data.fields.sizes import check_sizes, size_notes, sizes_of
from data.records import workers
from data.records.writer import Description, Example, write_set

VERSION = "1.1.0"
BASE_COLUMNS = {"plate": str, "well": str, "site": int, "label": str, "source": str}  # of every set


@dataclasses.dataclass(frozen=True)
class FieldMaker:
    """Makes the examples of a field.

    Attributes:
        channels: as the source calls them, in the order of the image's last axis.
        z: which focal planes.
        t: which time points.
        cut: how an image becomes examples.
        label: column of the field's metadata that becomes `label`; "": there is none, every label is empty.
        illumination: what to divide by; None: pixels stay as they are.
    """

    channels: tuple[str, ...]
    z: AxisChoice
    t: AxisChoice
    cut: Cut
    label: str
    illumination: Illumination | None

    def identity(self, field: Field) -> str:
        """Changes with any file of the field, and with what is known of it."""
        planes = [plane.identity() for _, plane in sorted(field.planes.items())]
        return f"{field}|{planes}|{sorted(field.metadata.items())}|{field.objects}"

    def examples(self, field: Field) -> Iterator[Example]:
        """Every crop of every kept plane and time point.

        Raises:
            BadInputError: if a plane of the field cannot be read.
        """
        for image, kept in assemble(field, self.channels, self.z, self.t):
            if self.illumination is not None:
                image = self.illumination.correct(image, field.plate, field.source)
            for crop, place in self.cut(field, image):
                label = str(field.metadata[self.label]) if self.label else ""
                base = {
                    "plate": field.plate,
                    "well": field.well,
                    "site": field.site,
                    "label": label,
                    "source": field.source,
                }
                yield crop, base | {k: v for k, v in field.metadata.items() if k != "label"} | kept | place

    def planes(self, field: Field) -> Iterator[Plane]:
        """Every plane that the examples are made from, a mask's too."""
        yield from planes_read(field, self.channels, self.z, self.t)
        if isinstance(self.cut, AroundMasks):
            yield from planes_read(field, (self.cut.channel,), "max", "max")

    def own_columns(self) -> dict[str, type]:
        """Metadata that every example has whatever its source says."""
        kept = {axis: int for axis, choice in (("z", self.z), ("t", self.t)) if choice == "each"}
        return BASE_COLUMNS | kept | self.cut.columns

    def columns(self, index: Index) -> dict[str, type]:
        """Metadata of every example, with their Python types."""
        given = {name: kind for name, kind in index.columns.items() if name != "label"}
        return BASE_COLUMNS | given | self.own_columns()


def choose_channels(found: tuple[str, ...], wanted: str | None) -> dict[str, str]:
    """What `--channels` means: the source's channels -> names in the set, in the set's order.

    Args:
        found: channels of the source.
        wanted: None: all as they are. "a,b": some of them in this order, or, if none of the names is the source's, new
            names for all of them in order. "w1=DNA,w2=RNA": some of them, renamed.

    Raises:
        BuildError: for anything else.
    """
    if wanted is None:
        return {channel: channel for channel in found}
    entries = [entry.strip() for entry in wanted.split(",")]
    pairs = [entry.split("=") for entry in entries]
    sources = [pair[0] for pair in pairs]
    there = f"the source has the channels {', '.join(found)}"
    if any(len(pair) > 2 or not all(pair) for pair in pairs):
        raise BuildError(f"--channels={wanted}: expected a,b or source=name,source=name; {there}")
    if all(len(pair) == 1 for pair in pairs) and not set(sources) & set(found):
        if len(sources) != len(found):
            raise BuildError(f"--channels={wanted}: {len(sources)} names for {len(found)} channels; {there}")
        chosen = dict(zip(found, sources, strict=True))
    else:
        unknown = [name for name in sources if name not in found]
        if unknown:
            raise BuildError(f"--channels={wanted}: there is no {', '.join(unknown)}; {there}")
        chosen = {pair[0]: pair[-1] for pair in pairs}
    if len(chosen) < len(entries) or len(set(chosen.values())) < len(chosen):
        raise BuildError(f"--channels={wanted}: a channel is named twice")
    return chosen


def build_fields(
    name: str,
    index: Index,
    maker: FieldMaker,
    channel_names: tuple[str, ...],
    data_dir: Path,
    *,
    num_workers: int,
    skip_bad: Path | None,
    text: str,
    version: str = VERSION,
    notes: dict[str, Any],
) -> Path:
    """Write every field of an index.

    Args:
        name: of the set.
        index: the fields.
        maker: what becomes of them.
        channel_names: in the set, one for each channel of the maker's examples.
        data_dir: folder of built sets.
        num_workers: processes.
        skip_bad: csv for what cannot be read; None: it stops the build.
        text: a sentence or two on what this is and where it is from.
        version: of the set.
        notes: what else `build.json` shall say.

    Returns:
        The set's folder.

    Raises:
        BuildError: naming the file or well, and what to do.
    """
    taken = {*maker.own_columns(), "image", "channel_names"} - {"label"}
    clash = sorted(taken & set(index.columns))
    if clash:
        raise BuildError(f"the columns {clash} of source or annotation have names that a set needs itself; rename them")
    label_notes: dict[str, Any] = {}
    if maker.label:
        index, label_notes = with_labels(index, maker.label)
        maker = dataclasses.replace(maker, label="label")
    _check_planes(index, maker, skip_bad is not None)
    sizes = sizes_of(index, maker.channels[0]) if maker.cut.kind == "images" else {}
    if skip_bad is None:
        check_sizes(sizes, maker.cut)
    with _naming_skip_bad(skip_bad is not None):
        shape, dtype, per_field = _first_examples(index, maker, skip_bad is not None)
    description = Description(
        name=name,
        version=version,
        kind=maker.cut.kind,
        channel_names=channel_names,
        pixel_size_um=index.pixel_size_um,
        image_shape=shape,
        dtype=dtype,
        columns=maker.columns(index),
        text=text,
        simulated=False,
    )
    notes = notes | {
        "z": maker.z,
        "t": maker.t,
        "missing wells": missing_wells(index),
        "ignored": [list(entry) for entry in index.ignored],
    }
    with _naming_skip_bad(skip_bad is not None):
        return write_set(
            description,
            index.fields,
            maker,
            data_dir,
            num_workers=num_workers,
            examples_per_part=per_field,
            skip_bad=skip_bad,
            unreadable=index.unreadable,
            notes=notes | size_notes(sizes) | label_notes | names_alike(index),
            attachments={} if maker.illumination is None else maker.illumination.files(),
        )


@contextlib.contextmanager
def _naming_skip_bad(skip_bad: bool) -> Iterator[None]:
    """What stops a build for one field can be passed by, and the message says how."""
    try:
        yield
    except BadInputError as error:
        if skip_bad:
            raise
        problem = f"{error.problem}; --skip-bad=FILE.csv leaves such fields out and lists them"
        raise BadInputError(error.source, error.place, problem) from None


def estimate_illumination(
    index: Index, maker: FieldMaker, folder: Path, num_workers: int, skip_bad: bool
) -> Illumination:
    """The light of every plate, from its own fields; what an earlier call left in the folder is kept.

    Raises:
        BuildError: as `write_set`.
    """
    plates: dict[str, list[Field]] = {}
    for field in index.fields:
        plates.setdefault(field.plate, []).append(field)
    folder.mkdir(parents=True, exist_ok=True)
    functions = {plate: folder / f"illumination-{number:04d}.npy" for number, plate in enumerate(plates)}
    jobs = [
        _PlateLight(functions[plate], tuple(fields[:: -(-len(fields) // FIELDS_PER_PLATE)]), maker, skip_bad)
        for plate, fields in plates.items()
        if not functions[plate].exists()
    ]
    bar = tqdm(total=len(plates), initial=len(plates) - len(jobs), desc="illumination", unit="plate")
    with bar, _naming_skip_bad(skip_bad):
        workers.run(_estimate_plate, jobs, num_workers, bar.update, isolated=skip_bad)
    return Illumination(functions)


@dataclasses.dataclass(frozen=True)
class _PlateLight:
    path: Path
    fields: tuple[Field, ...]
    maker: FieldMaker
    skip_bad: bool

    @property
    def note(self) -> Path:
        """What its process is at."""
        return self.path.with_suffix(".reading")

    def without(self, number: int, source: str, problem: str) -> "_PlateLight":
        """The same without a field of which a reader dies; raises BuildError if nothing may be left out."""
        field = self.fields[number]
        if not self.skip_bad:
            raise BuildError(f"{source or field.source}: {problem} ({field}); --skip-bad=FILE.csv leaves it out")
        return dataclasses.replace(self, fields=(*self.fields[:number], *self.fields[number + 1 :]))


def _estimate_plate(job: _PlateLight, tick: workers.Tick) -> None:
    def images() -> Iterator[np.ndarray]:
        for number, field in enumerate(job.fields):
            try:
                with workers.noted(job.note, number):
                    for image, _ in assemble(field, job.maker.channels, job.maker.z, job.maker.t):
                        yield image
            except BadInputError:
                if not job.skip_bad:
                    raise

    partial = job.path.with_suffix(".partial.npy")
    np.save(partial, estimate_function(images()))
    partial.replace(job.path)
    tick()


def bytes_read(index: Index, maker: FieldMaker) -> int | None:
    """Size of the files and chunks that the examples are made from; None: a server has them, and was not asked."""
    files: set[Path] = set()
    for field in index.fields:
        for plane in maker.planes(field):
            with contextlib.suppress(BadInputError):  # a plane that is not there was listed, or has stopped the build
                held = plane.files()
                if held is None:
                    return None
                files.update(held)
    size = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def missing_wells(index: Index) -> list[str]:
    """Wells that a plate lacks and another plate of the index has."""
    wells: dict[str, set[str]] = {}
    for field in index.fields:
        wells.setdefault(field.plate, set()).add(field.well)
    everywhere = set().union(*wells.values())
    return [f"{plate} {well}" for plate, own in sorted(wells.items()) for well in sorted(everywhere - own)]


def _check_planes(index: Index, maker: FieldMaker, skip_bad: bool) -> None:
    """Refuse a channel that fields lack before hours are spent; the index knows without opening a file."""
    lacking: dict[str, list[Field]] = {}
    for field in index.fields:
        present = {channel for channel, _, _ in field.planes}
        for channel in maker.channels:
            if channel not in present:
                lacking.setdefault(channel, []).append(field)
    if lacking and not skip_bad:
        channel, fields = next(iter(lacking.items()))
        more = f" (and {', '.join(list(lacking)[1:])} in others)" if len(lacking) > 1 else ""
        raise BuildError(
            f"channel {channel} is missing in {len(fields)} of {len(index.fields)} fields, first in {fields[0]}{more}; "
            "choose the channels that all have with --channels, or leave such fields out with --skip-bad=FILE.csv"
        )


_First = tuple[tuple[int, int, int], str, int]  # shape, dtype, and how many examples the field gives


def _first_examples(index: Index, maker: FieldMaker, skip_bad: bool) -> _First:
    """Shape and dtype of the set, which its first readable field decides, and how many examples that field gives."""
    first = _first_readable(index.fields, maker) if skip_bad else _first_of(index.fields, maker)
    if isinstance(first, str):
        raise BuildError(f"none of the {len(index.fields)} fields gives an example{first}")
    return first


def _first_of(fields: tuple[Field, ...], maker: FieldMaker) -> _First | str:
    """Of the first field that gives an example, or ""; raises BadInputError for a field that cannot be read."""
    for field in fields:
        examples = [image for image, _ in maker.examples(field)]
        if examples:
            height, width, channels = examples[0].shape
            return (height, width, channels), str(np.dtype(examples[0].dtype)), len(examples)
    return ""


def _first_readable(fields: tuple[Field, ...], maker: FieldMaker) -> _First | str:
    """The same, past fields that cannot be read, or of which a reader dies: they are met again, and listed.

    Returns:
        What is wrong with the last of them, if there is no other.
    """
    first: _First | str = ""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "reading"
        while fields and isinstance(first, str):
            try:
                first = workers.alone(_pass_unreadable, fields[:_AT_ONCE], maker, note, note=note)
                fields = fields[_AT_ONCE:]
            except workers.DeadReaderError as error:
                if error.part is None:
                    raise BuildError(f"no process could be started ({error.problem}); try the command again") from None
                number, source = error.part
                first = f"; {source or fields[number].source}: {error.problem}"
                fields = fields[number + 1 :]
    return first


_AT_ONCE = 100  # fields that a process is told of


def _pass_unreadable(fields: tuple[Field, ...], maker: FieldMaker, note: Path) -> _First | str:
    problem = ""
    for number, field in enumerate(fields):
        try:
            with workers.noted(note, number):
                first = _first_of((field,), maker)
        except BadInputError as error:
            problem = f"; {error}"
        else:
            if not isinstance(first, str):
                return first
    return problem

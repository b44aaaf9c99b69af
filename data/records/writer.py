"""Writing a set: ArrayRecord shards through TFDS, the table of everything but pixels, and exact intensity statistics.

A built set is `<data_dir>/<name>/<version>/` with TFDS's own files (split "images", in the order given),
`metadata.parquet`, `statistics.json`, `build.json`, `image_checksums.npy` (XXH3 of 64 bits of each image's pixels) and
`checksums.json` (of every other file, see `bie_jax.files.integrity`). It appears under that name whole or not at all.
Until then its finished shards lie in `<data_dir>/.building-<name>-<version>/`, where the same command finds them and
goes on.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import tensorflow_datasets as tfds
import xxhash
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_datasets.core import example_serializer, registered, splits
from tqdm import tqdm

from bie_jax.files import integrity
from bie_jax.files.parquet import read_parquet
from data.errors import BadInputError, BuildError
from data.records import workers
from data.records.statistics import PERCENTILES, Intensities

SPLIT = "images"
_SHARD_FORMAT = 2  # of what lies in a finished shard's folder
SHARD_BYTES = 16 << 20  # least size of a shard: what a kill can cost each worker
MOST_SHARDS = 500  # of a set; each is an open file of the reader

Example = tuple[np.ndarray, dict[str, Any]]

# What the examples of a set are: pixels, or outlines (P, 2, 1): points by (row, column), px.
Kind = Literal["images", "shapes"]


@dataclasses.dataclass(frozen=True)
class Description:
    """What is true of a whole set.

    Attributes:
        name: of the set, and of its folder.
        version: of the builder; another version, another folder.
        kind: what the examples are.
        channel_names: C names, in the order of the last axis.
        pixel_size_um: micrometers per pixel; None where the source does not say.
        image_shape: (H, W, C); of outlines (P, 2, 1).
        dtype: of the pixels, "uint8", "uint16" or "float32".
        columns: metadata columns and their Python types, in order; among them plate, well, site, label, source.
        text: a sentence or two on what this is and where it is from.
        simulated: whether no microscope was involved.
    """

    name: str
    version: str
    kind: Kind
    channel_names: tuple[str, ...]
    pixel_size_um: float | None
    image_shape: tuple[int, int, int]
    dtype: str
    columns: dict[str, type]
    text: str
    simulated: bool


class Maker(Protocol):
    """Makes a set's examples from its parts (fields, wells, ...), in any order and in any process. Picklable."""

    def identity(self, part: Any, /) -> str:
        """Changes when the part's examples may have changed; a build goes on only with what is still true."""
        ...

    def examples(self, part: Any, /) -> Iterator[Example]:
        """(image [H, W, C], metadata with exactly `Description.columns`), in the order they will be read in.

        Raises:
            BadInputError: if the part cannot be read.
        """
        ...


@dataclasses.dataclass(frozen=True)
class _Shard:
    """One unit of work: some parts, one file."""

    number: int
    directory: Path
    description: Description
    maker: Maker
    parts: list[Any]
    fingerprint: str
    skip_bad: bool
    left_out: dict[int, tuple[str, str, str]] = dataclasses.field(default_factory=dict)  # as `BadInputError` has it

    @property
    def note(self) -> Path:
        """What its process is at."""
        return self.directory / f".reading-{self.number:05d}"

    def without(self, number: int, source: str, problem: str) -> "_Shard":
        """The same without a part of which a reader dies; raises BuildError if nothing may be left out."""
        place = str(self.parts[number])
        if not self.skip_bad:
            raise BuildError(f"{source or place}: {problem} ({place}); --skip-bad=FILE.csv leaves it out")
        return dataclasses.replace(self, left_out=self.left_out | {number: (source or place, place, problem)})


def write_set(
    description: Description,
    parts: Sequence[Any],
    maker: Maker,
    data_dir: str | Path,
    *,
    num_workers: int = 1,
    examples_per_part: int = 1,
    skip_bad: Path | None = None,
    unreadable: Sequence[tuple[str, str, str]] = (),
    notes: dict[str, Any] | None = None,
    attachments: dict[str, Path] | None = None,
) -> Path:
    """Write a set, or go on with one that was stopped; shows progress. The number of workers changes no byte.

    Args:
        description: of the set.
        parts: picklable, in order.
        maker: makes the examples of a part.
        data_dir: folder of built sets.
        num_workers: processes, started afresh (never forked) when more than 1.
        examples_per_part: about how many, to size the shards.
        skip_bad: csv to list the parts in that cannot be read and are left out, also where a reader dies of one: then
            even a single worker is another process. None: the first one stops the build.
        unreadable: (source, place, problem) of what is left out already, to list with these.
        notes: what else `build.json` shall say.
        attachments: further files to keep with the set, by name.

    Returns:
        The set's folder.

    Raises:
        BuildError: if an image or its metadata are not as described, or a part cannot be read.
    """
    data_dir = Path(data_dir)
    final = data_dir / description.name / description.version
    building = building_folder(description.name, description.version, data_dir)
    shards = _plan(description, parts, maker, building, examples_per_part, skip_bad is not None)
    building.mkdir(parents=True, exist_ok=True)
    todo = [shard for shard in shards if not _is_done(shard)]
    done = len(parts) - sum(len(shard.parts) for shard in todo)
    if done:
        print(f"going on: {done} of {len(parts)} parts are written already")
    bar = tqdm(total=len(parts), initial=done, desc=f"build {description.name}", unit="part", mininterval=0.5)
    try:
        with bar:
            workers.run(_write_shard, todo, num_workers, progress=bar.update, isolated=skip_bad is not None)
    finally:
        # Nothing finished is nothing to go on with.
        if not any(building.glob("shard-*")):
            shutil.rmtree(building)
    skipped = [list(row) for row in unreadable]
    skipped += [row for shard in shards for row in json.loads((_folder(shard) / "skipped.json").read_text())]
    without = [part for shard in shards for part in json.loads((_folder(shard) / "without.json").read_text())]
    if skip_bad is not None:
        with open(skip_bad, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["source", "place", "problem"])
            writer.writerows(skipped)
    _assemble(
        description,
        shards,
        building,
        final,
        (notes or {}) | {"skipped": skipped, "without an example": without},
        attachments or {},
    )
    shutil.rmtree(building)
    return final


def _plan(
    description: Description,
    parts: Sequence[Any],
    maker: Maker,
    building: Path,
    examples_per_part: int,
    skip_bad: bool,
) -> list[_Shard]:
    if not parts:
        raise BuildError(f"there is nothing to write into {description.name!r}")
    part_bytes = int(np.prod(description.image_shape)) * np.dtype(description.dtype).itemsize * examples_per_part
    size = max(1, SHARD_BYTES // part_bytes, -(-len(parts) // MOST_SHARDS))
    shards = []
    for number, start in enumerate(range(0, len(parts), size)):
        chosen = list(parts[start : start + size])
        digest = hashlib.sha256(f"{_SHARD_FORMAT}|{description}{maker}".encode())
        for part in chosen:
            # A part that is not there has no identity; the worker meets it again, and says so or lists it.
            with contextlib.suppress(BadInputError):
                digest.update(maker.identity(part).encode())
        shards.append(_Shard(number, building, description, maker, chosen, digest.hexdigest(), skip_bad))
    return shards


def _folder(shard: _Shard) -> Path:
    return shard.directory / f"shard-{shard.number:05d}"


def _is_done(shard: _Shard) -> bool:
    """Whether a finished shard of the same parts is there; one of other parts is removed."""
    folder = _folder(shard)
    if folder.is_dir():
        # One that a disk has damaged since is made again as well.
        if integrity.damage(folder) is None and (folder / "fingerprint").read_text() == shard.fingerprint:
            return True
        shutil.rmtree(folder)
    return False


def _write_shard(shard: _Shard, tick: workers.Tick) -> None:
    """Records, table, histograms and the list of what was left out, in a folder that is renamed when it is whole."""
    if _is_done(shard):  # by a process that was ended before it could say so
        for _ in shard.parts:
            tick()
        return
    description = shard.description
    partial = shard.directory / f".partial-{shard.number:05d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    encode = _encoder(description)
    # One record a group: the reader fetches single images. Uncompressed: camera noise hardly shrinks, and reading
    # would wait for it (`experiments/loading`).
    writer = array_record_module.ArrayRecordWriter(str(partial / "records"), "group_size:1,uncompressed")
    rows: list[dict[str, Any]] = []
    checksums: list[int] = []
    skipped: list[tuple[str, str, str]] = []
    without: list[str] = []  # parts that are read and give no example, as a field without cells
    statistics: dict[str, Intensities] = {}
    for number, part in enumerate(shard.parts):
        if number in shard.left_out:
            skipped.append(shard.left_out[number])
            tick()
            continue
        try:
            with workers.noted(shard.note, number):
                examples = list(shard.maker.examples(part))
            for image, metadata in examples:
                _check(description, image, metadata)
            without += [] if examples else [str(part)]
        except BadInputError as error:
            if not shard.skip_bad:
                writer.close()
                raise
            skipped.append((error.source, error.place, error.problem))
            examples = []
        for image, metadata in examples:
            plate = statistics.setdefault(
                metadata["plate"], Intensities.empty(len(description.channel_names), description.dtype)
            )
            plate.add(image)
            with _no_room():
                writer.write(encode(image, metadata))
            rows.append(metadata)
            checksums.append(xxhash.xxh3_64_intdigest(np.ascontiguousarray(image).data))
        tick()
    with _no_room():
        writer.close()
    pd.DataFrame(rows, columns=pd.Index(description.columns)).astype(description.columns).to_parquet(
        partial / "metadata.parquet", index=False
    )
    for number, (plate, intensities) in enumerate(statistics.items()):
        channel, value = intensities.histogram.nonzero()
        np.savez(
            partial / f"statistics-{number:05d}.npz",
            plate=plate,
            channel=channel.astype(np.int32),
            value=value.astype(np.uint16),
            count=intensities.histogram[channel, value],
            moments=intensities.moments,
            extremes=intensities.extremes,
        )
    np.save(partial / "image_checksums.npy", np.asarray(checksums, np.uint64))
    (partial / "skipped.json").write_text(json.dumps(skipped))
    (partial / "without.json").write_text(json.dumps(without))
    (partial / "fingerprint").write_text(shard.fingerprint)
    integrity.seal(partial)
    os.replace(partial, _folder(shard))


@contextlib.contextmanager
def _no_room() -> Iterator[None]:
    """The record writer's only reason to fail is the disk; it says so in a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise BuildError(f"cannot write ({error}); make room, and the same command goes on") from None


def _check(description: Description, image: np.ndarray, metadata: dict[str, Any]) -> None:
    expected = (description.image_shape, description.dtype)
    if (image.shape, str(image.dtype)) != expected:
        raise BadInputError(
            metadata["source"],
            f"plate {metadata['plate']}, well {metadata['well']}, site {metadata['site']}",
            f"the image is {image.shape} {image.dtype}, the set's are {expected[0]} {expected[1]}",
        )
    if metadata.keys() != description.columns.keys():
        raise BuildError(f"{metadata.get('source')}: columns are {list(metadata)}, not {list(description.columns)}")


def _features(description: Description) -> tfds.features.FeaturesDict:
    scalars = {str: tfds.features.Text(), int: tfds.features.Scalar(np.int64), float: tfds.features.Scalar(np.float64)}
    image = tfds.features.Tensor(
        shape=description.image_shape,
        dtype=np.dtype(description.dtype),
        encoding=tfds.features.Encoding.BYTES,  # the default writes every pixel as a varint
    )
    columns = {column: scalars[kind] for column, kind in description.columns.items()}
    names = tfds.features.Sequence(tfds.features.Text())
    return tfds.features.FeaturesDict({"image": image, "channel_names": names, **columns})


def _encoder(description: Description) -> Any:
    """(image, metadata) -> bytes of a tf.train.Example, the same ones every time."""
    features = _features(description)
    specs: Any = features.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(specs)
    names = list(description.channel_names)

    def encode(image: np.ndarray, metadata: dict[str, Any]) -> bytes:
        encoded = features.encode_example({"image": image, "channel_names": names, **metadata})
        # TFDS serializes a map as the process happens to hash its keys.
        return serializer.get_tf_example(encoded).SerializeToString(deterministic=True)

    return encode


def _assemble(
    description: Description,
    shards: list[_Shard],
    building: Path,
    final: Path,
    notes: dict[str, Any],
    attachments: dict[str, Path],
) -> None:
    """Bring finished shards under their final names. Links, so that a kill here loses nothing."""
    tables = [read_parquet(_folder(shard) / "metadata.parquet") for shard in shards]
    filled = [(shard, table) for shard, table in zip(shards, tables, strict=True) if len(table)]
    if not filled:
        raise BuildError(f"no part of {description.name!r} could be read; {len(notes['skipped'])} were left out")
    joined = building / ".joined"
    shutil.rmtree(joined, ignore_errors=True)
    builder = _builder(description, [(_folder(shard) / "records", len(table)) for shard, table in filled], joined)
    # TFDS announces a download that there is not, to a folder that will not stay.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    written = Path(builder.data_path)
    metadata = pd.concat([table for _, table in filled], ignore_index=True)
    metadata.to_parquet(written / "metadata.parquet", index=False)
    checksums = np.concatenate([np.load(_folder(shard) / "image_checksums.npy") for shard in shards])
    np.save(written / "image_checksums.npy", checksums)
    statistics = _merge_statistics(description, shards) | {
        "fingerprint": _fingerprint(description, metadata, checksums)
    }
    (written / "statistics.json").write_text(json.dumps(statistics, indent=1) + "\n")
    (written / "build.json").write_text(json.dumps(notes, indent=1) + "\n")
    for name, path in attachments.items():
        shutil.copyfile(path, written / name)
    integrity.seal(written)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(written, final)


def _fingerprint(description: Description, metadata: pd.DataFrame, checksums: np.ndarray) -> str:
    """Of what a run is made from: pixels, their order and all that is said of them, but not where they were read."""
    hasher = xxhash.xxh3_128(checksums.tobytes())
    facts = (description.kind, description.channel_names, description.image_shape, description.dtype)
    hasher.update(repr((*facts, description.pixel_size_um)).encode())
    for name in sorted(set(metadata.columns) - {"source"}):
        hasher.update(repr((name, metadata[name].tolist())).encode())
    return hasher.hexdigest()


def building_folder(name: str, version: str, data_dir: Path) -> Path:
    """Where the parts of an unfinished set lie."""
    return data_dir / f".building-{name}-{version}"


def _merge_statistics(description: Description, shards: list[_Shard]) -> dict[str, Any]:
    """Content of `statistics.json`; holds one plate's histograms at a time, beside the overall ones."""
    channels = len(description.channel_names)
    by_plate: dict[str, list[Path]] = {}
    for shard in shards:
        for path in sorted(_folder(shard).glob("statistics-*.npz")):
            with np.load(path, allow_pickle=False) as file:
                by_plate.setdefault(str(file["plate"]), []).append(path)
    overall = Intensities.empty(channels, description.dtype)
    plates = {}
    for plate, paths in sorted(by_plate.items()):
        intensities = Intensities.empty(channels, description.dtype)
        for path in paths:
            with np.load(path, allow_pickle=False) as file:
                part = Intensities.empty(channels, description.dtype)
                part.histogram[file["channel"], file["value"]] = file["count"]
                part.moments, part.extremes = file["moments"], file["extremes"]
            intensities.merge(part)
        plates[plate] = intensities.summary()
        overall.merge(intensities)
    summary = overall.summary()
    pixels = int(np.prod(description.image_shape[:2]))
    return {
        "kind": description.kind,
        "channel_names": list(description.channel_names),
        "pixel_size_um": description.pixel_size_um,
        # Bits that the largest value needs: cameras of 12 and 14 bits write files of 16.
        "bit_depth": 32 if description.dtype == "float32" else max(int(max(summary["max"])).bit_length(), 1),
        "image_shape": list(description.image_shape),
        "dtype": description.dtype,
        "num_examples": summary["count"] // pixels,
        "description": description.text,
        "simulated": description.simulated,
        "overall": summary,
        "plates": plates,
    }


def _builder(
    description: Description, records: list[tuple[Path, int]], data_dir: Path
) -> tfds.core.GeneratorBasedBuilder:
    """A TFDS builder whose split "images" is exactly these files."""

    def info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=description.text,
            features=_features(description),
            disable_shuffling=True,  # the order of the records is the order of metadata.parquet
        )

    def link(self, dl_manager, download_config) -> None:
        # Not `_generate_examples`: TFDS writes a split in one process and keeps it in memory until all of it is there.
        template = self._get_filename_template(SPLIT)
        for number, (path, _) in enumerate(records):
            os.link(path, str(template.sharded_filepath(shard_index=number, num_shards=len(records))))
        lengths, size = [count for _, count in records], sum(path.stat().st_size for path, _ in records)
        split = splits.SplitInfo(name=SPLIT, shard_lengths=lengths, num_bytes=size, filename_template=template)
        self.info.set_splits(splits.SplitDict([split]))

    body = {
        "name": description.name,
        "VERSION": tfds.core.Version(description.version),
        "_info": info,
        "_download_and_prepare": link,
        "_split_generators": lambda self, download_manager: {},  # abstract in TFDS, not called
        "_generate_examples": lambda self: iter(()),
    }
    with registered.skip_registration():
        builder_class = type("SetBuilder", (tfds.core.GeneratorBasedBuilder,), body)
    tfds.disable_progress_bar()  # ours knows how many parts come
    return builder_class(data_dir=str(data_dir), file_format="array_record")


def print_summary(directory: Path, seconds: float, bytes_in: int | None) -> None:
    """What was built, for the person who asked for it.

    Args:
        directory: of the set.
        seconds: it took.
        bytes_in: size of what was read; None where that is not known.
    """
    statistics = json.loads((directory / "statistics.json").read_text())
    notes = json.loads((directory / "build.json").read_text())
    metadata = read_parquet(directory / "metadata.parquet")
    size = sum(path.stat().st_size for path in directory.iterdir())
    wells, sites = (len(metadata[keys].drop_duplicates()) for keys in (["plate", "well"], ["plate", "well", "site"]))
    out = sys.stdout
    print(f"{directory}{' (SIMULATED)' if statistics['simulated'] else ''}", file=out)
    print(f"  {statistics['description']}", file=out)
    bits = ""
    if statistics["kind"] == "images":
        stored = 8 * np.dtype(statistics["dtype"]).itemsize
        bits = f" {statistics['dtype']} ({statistics['bit_depth']} of {stored} bits in use)"
    print(
        f"  {len(metadata)} {examples_in(statistics)}{bits}, {metadata['plate'].nunique()} plates, {wells} wells, "
        f"{sites} sites",
        file=out,
    )
    read = "read from a server, how many bytes is not known" if bytes_in is None else f"{bytes_in:,} bytes read"
    print(
        f"  {read}; {size:,} bytes written, {seconds:.0f} s, {size / 1e6 / seconds:.0f} MB/s",
        file=out,
    )
    for name, percentiles in _spreads(statistics, metadata):
        print(f"  {name}: {', '.join(f'{q} %: {value:.5g}' for q, value in percentiles.items())}", file=out)
    for key, value in notes.items():
        if isinstance(value, list):
            print(f"  {key}: {len(value)}" + (f", e.g. {_shown(value[0])}" if value else ""), file=out)
        else:
            print(f"  {key}: {value}", file=out)


def examples_in(statistics: dict[str, Any]) -> str:
    """The examples of `statistics.json`: "images 24 x 32 x 2" or "outlines of 256 points"."""
    shape = statistics["image_shape"]
    if statistics["kind"] == "shapes":
        return f"outlines of {shape[0]} points"
    return f"images {' x '.join(map(str, shape))}"


def _spreads(statistics: dict[str, Any], metadata: pd.DataFrame) -> Iterator[tuple[str, dict[str, float]]]:
    """Percentiles of each channel's pixels, or of the outlines' sizes."""
    if statistics["kind"] == "shapes":
        for column in ("area_px", "scale_px"):
            yield column, {str(q): float(metadata[column].quantile(q / 100)) for q in PERCENTILES}
        return
    for c, name in enumerate(statistics["channel_names"]):
        yield name, {q: values[c] for q, values in statistics["overall"]["percentiles"].items()}


def _shown(entry: Any) -> str:
    return ": ".join(str(part) for part in entry if part) if isinstance(entry, list) else str(entry)

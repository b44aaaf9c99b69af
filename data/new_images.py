"""Images that a trained network shall embed, wherever they lie, as a set to be built: what `launch.py --images` does.

They are read as `python -m data.build` reads them, once, into a set of their own. What their names and suffixes do not
say is asked for, never guessed.
"""

import dataclasses
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from bie_jax.files import integrity
from bie_jax.input.image_set import damage_of_set
from data.command_line import options_of
from data.errors import BuildError
from data.fields.channels import choose_channels
from data.fields.field_set import VERSION
from data.fields.planes import IMAGE_SUFFIXES
from data.sources.files import find_files
from data.sources.layouts import layouts_of_names
from data.sources.origin import origin_of_source
from data.sources.source import LAYOUTS, layout_of
from data.studies.known import STUDIES
from data.text import plain

_NOTE = "images.json"  # beside the versions of a set: what it was built from
_OME_TIFF = (".ome.tif", ".ome.tiff")


@dataclasses.dataclass(frozen=True)
class NewImages:
    """A source that was looked at.

    Attributes:
        name: of its set.
        data_dir: folder of the set.
        source: absolute path, or address.
        layout: as `--layout` of the builder; None: the suffix says it.
        channels: as the source calls them -> as they shall be called.
        state: of the files, another one when any is; "" of what a server has.
    """

    name: str
    data_dir: Path
    source: str
    layout: str | None
    channels: dict[str, str]
    state: str

    def arguments(self, wanted: Mapping[str, str]) -> list[str]:
        """What is typed after `python -m data.build` to build the set.

        Args:
            wanted: those of the channels that are built.
        """
        said = [] if self.layout is None else [f"--layout={self.layout}"]
        if wanted.keys() != self.channels.keys() or any(source != name for source, name in wanted.items()):
            said.append(f"--channels={','.join(f'{source}={name}' for source, name in wanted.items())}")
        return [self.name, f"--source={self.source}", f"--data-dir={self.data_dir}", *said]

    def is_built(self, arguments: list[str]) -> bool:
        """Whether the set is there, whole, and of these images as they are; one of other states of them is removed.

        What a server has is not asked for again.

        Raises:
            BuildError: if a set of other images has that name.
        """
        folder = self.data_dir / self.name
        now = {"source": self.source, "state": self.state, "arguments": arguments}
        if (folder / _NOTE).exists():
            before = integrity.read_json(folder / _NOTE, f"remove {folder}")
            if before["source"] != self.source:
                raise BuildError(
                    f"{folder} holds images of {before['source']}, whose name is that of {self.source}: rename one of "
                    f"them, or build this one as another set, {by_hand(f'{self.name}_2', self.source, self.layout)}, "
                    f"and then --set={self.name}_2"
                )
            version = folder / VERSION
            if before == now and version.exists() and damage_of_set(version) is None:
                return True
            shutil.rmtree(version, ignore_errors=True)
        integrity.write_json(folder / _NOTE, now)
        return False


def by_hand(name: str, source: str, layout: str | None) -> str:
    """The command that builds images as a set, to which more can be added."""
    said = [name, f"--source={source}", *([] if layout is None else [f"--layout={layout}"])]
    return f"python -m data.build {shlex.join(said)}"


def find_images(source: str, layout: str | None, channels: str | None, data_dir: Path) -> NewImages:
    """Look at a source, as far as it takes to know its channels.

    Args:
        source: folder, table, archive or file, or an address.
        layout: how it is organized; None: suffixes say it, and a folder of images is one (`folder`).
        channels: as `data.fields.channels.choose_channels` reads it; None: as they are called.
        data_dir: folder for the set.

    Raises:
        BuildError: naming the source, and what to say of it.
    """
    source = plain(source, "--images")
    if not source:
        raise BuildError("--images: expected a folder, a file or an address")
    if layout is not None and layout not in LAYOUTS:
        raise BuildError(f"--layout={layout}: expected one of {', '.join(LAYOUTS)}")
    path = None if "://" in source else Path(source).absolute()
    if path is not None:
        if not path.exists():
            raise BuildError(f"--images={source}: no such file or folder")
        source = str(path)
        if layout is None and path.is_dir() and layout_of(source) is None:
            layout = _layout_of_folder(path)
    name = name_of(source)
    said = [] if layout is None else [f"--layout={layout}"]
    said += [] if channels is None else [f"--channels={channels}"]
    options = options_of([name, f"--source={source}", f"--data-dir={data_dir}", *said])
    index = origin_of_source(options.fields).index
    chosen = choose_channels(index.channels, options.planes.channels)
    return NewImages(name, data_dir, source, layout, chosen, "" if path is None else _state(path))


def name_of(source: str) -> str:
    """A name for the set of a source, from its last part: "/data/Plate 7.zarr" -> "plate_7"."""
    last = source.rstrip("/").rpartition("/")[2].lower()
    stem = re.sub(r"(\.ome)?\.(zarr|zip|ozx|tiff?|npy|npz|csv|tsv|parquet|gz)\b.*", "", last)
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")
    if not name or not name[0].isalpha():
        name = f"images_{name}".rstrip("_")
    return f"{name}_images" if name in STUDIES else name


def _layout_of_folder(path: Path) -> str:
    files, _ = find_files(path)
    named = layouts_of_names(files)
    if named:
        raise BuildError(
            f"{path}: files are named as {' and '.join(named)} has it: say --layout={named[0]}, or --layout=folder if "
            "each file is an image of all channels"
        )
    images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
    return "ome-tiff" if images and all(file.lower().endswith(_OME_TIFF) for file in images) else "folder"


def _state(path: Path) -> str:
    """Of a file, or of all below a folder: names, sizes and times."""
    digest = hashlib.sha256()
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names) if path.is_dir() else [path]
    for file in sorted(files):
        known = file.lstat()
        digest.update(
            f"{file.relative_to(path)}|{known.st_size}|{known.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()

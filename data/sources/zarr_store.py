"""Files of a Zarr store in a folder or behind a URL, and planes of its arrays.

A server that fails is never taken for one that has no such file: only "not found" means that something is not there.
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import obstore
import zarr
from obstore.exceptions import BaseError
from obstore.store import HTTPStore, LocalStore, S3Store
from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from data.errors import BadInputError, BuildError
from data.fields.window import Window
from data.limits import METADATA_BYTES, PLANE_BYTES, check_size, reading, regular, size_text

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

TIMEOUT_S = 20  # for one answer of a server, its body included
RETRIES = 2  # after a time-out, a lost connection or a 5xx, each after a longer wait


@dataclasses.dataclass(frozen=True)
class ZarrPlane:
    """One channel, focal plane and time point of an image. What it opens is kept for others, once in every process.

    Attributes:
        store: folder or URL of the whole.
        array: path of the array in it, e.g. "A/1/0/0".
        index: of t, c and z, as far as the array has them.
    """

    store: str
    array: str
    index: tuple[int, ...]

    @property
    def source(self) -> str:
        """Folder or URL of the array."""
        return f"{self.store}/{self.array}"

    def identity(self) -> str:
        """In a folder: size and time of the plane's chunks and of the array's metadata too. Of a URL: itself."""
        states = []
        if "://" not in self.store:
            for key in ("zarr.json", ".zarray", *self._all_keys()):
                try:
                    status = Path(self.store, self.array, key).stat()
                    states.append((key, status.st_size, status.st_mtime_ns))
                except FileNotFoundError:
                    states.append((key, "absent"))
        return f"{self.source}|{self.index}|{states}"

    def files(self) -> tuple[Path, ...] | None:
        """The plane's chunks or shards; of a URL None."""
        if "://" in self.store:
            return None
        return tuple(Path(self.store, self.array, key) for key in self._all_keys())

    def read(self, window: Window | None = None) -> np.ndarray:
        """As `Plane`, by chunks; raises BadInputError if every chunk of the plane is absent, too."""
        array = self._open()
        height, width = array.shape[-2:]
        what, rows, columns = f"a plane of {height} x {width}", slice(0, height), slice(0, width)
        if window is not None:
            what = f"a window of {window.height} x {window.width}"
            rows, columns = window.within((height, width), self.source)
        stored = self._stored(array, rows, columns)
        check_size(self.source, f"{what} pixels of {array.dtype}", _decoded_bytes(array, rows, columns), stored)
        place = (*self.index, rows, columns)
        with reading(self.source, stored, "its pixels cannot be read", why):
            pixels = np.asarray(array[place])
            # Of a plane some of whose chunks are there, the others hold the fill value.
            absent = _is_absent(array, place, pixels) and (window is None or _is_all_absent(self))
        if absent:
            raise BadInputError(self.source, "", f"its pixels are absent: no chunk of its plane {self.index} is there")
        return pixels

    def _all_keys(self) -> list[str]:
        array = self._open()
        return _chunk_keys(array, self.index, slice(0, array.shape[-2]), slice(0, array.shape[-1]))

    def _open(self) -> zarr.Array[Any]:
        with reading(self.source, None, "the array cannot be opened", why):
            array = open_array(self.store, self.array)
        if 0 in array.chunks:
            raise BadInputError(self.source, "", f"the array cannot be opened: its chunks are {array.chunks}")
        chunks = math.prod(-(-extent // size) for extent, size in zip(array.shape[-2:], array.chunks[-2:], strict=True))
        check_size(self.source, f"a plane of {chunks} chunks", PLANE_BYTES * chunks, 0)
        return array

    def _stored(self, array: zarr.Array[Any], rows: slice, columns: slice) -> int | None:
        """Bytes of the chunks that some rows and columns touch; None: a server has them."""
        if "://" in self.store:
            return None
        paths = [Path(self.store, self.array, key) for key in _chunk_keys(array, self.index, rows, columns)]
        return sum(regular(path).st_size for path in paths if path.exists())


def read_json(store: str, key: str) -> dict[str, Any] | None:
    """A metadata file; None if it is not there.

    Args:
        store: folder or URL.
        key: path of the file in it.

    Raises:
        BuildError: naming the file; its cause is the store's own error.
    """
    try:
        content = _get(store, key)
    except FileNotFoundError:
        return None
    except (BaseError, OSError, ValueError) as error:
        if isinstance(error, BuildError):
            raise
        raise BuildError(f"{store}/{key}: {why(error)}") from error
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # RecursionError: ten thousand brackets within each other
        found = None
    if not isinstance(found, dict):
        raise BuildError(
            f"{store}/{key}: no JSON; the file is damaged, copy it again, or the server answers with a page"
        )
    return found


def _get(store: str, key: str) -> bytes:
    """A metadata file; raises FileNotFoundError, what obstore raises, and BadInputError for one that is too large."""
    if "://" not in store and Path(store, key).exists():
        regular(Path(store, key))
    found = obstore.get(_open_store(store), key)
    if found.meta["size"] > METADATA_BYTES:
        size, most = size_text(found.meta["size"]), size_text(METADATA_BYTES)
        raise BadInputError(f"{store}/{key}", "", f"has {size}; what says what is in a store has {most} at most")
    return bytes(found.bytes())


def why(error: BaseException) -> str:
    """One line; obstore's errors have a dozen, and the reason is in the last of them."""
    text = str(error) or repr(error)
    if "kind: Timeout" in text:
        return f"the server did not answer within {TIMEOUT_S} s, asked {RETRIES + 1} times; try again when it does"
    if "kind: Connect" in text:
        return "no connection: the address is wrong, or nobody answers there; check it, or try again later"
    if "incorrectly configured region" in text:
        return "the bucket is in another region; set AWS_REGION to its own"
    status = re.search(r"status code: (\d+[ A-Za-z]*)", text)
    if status is not None:
        return f"the server answered {status[1].strip()}; check the address and your rights, or try again later"
    return text.splitlines()[0]


class _Chunks(ObjectStore):
    """Refuses what is shorter than it must be, or longer than it can be.

    Without a word, Blosc decodes what happens to lie in memory behind a truncated chunk, and Zarr makes up the pixels
    of an empty shard.
    """

    blosc = False  # whether every chunk begins with Blosc's header
    most_bytes = METADATA_BYTES

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if byte_range is None:
            found = await self._get_whole(key, prototype)
        else:
            found = await super().get(key, prototype, byte_range)
        if found is None:
            return None
        needed = 1
        if isinstance(byte_range, RangeByteRequest):
            needed = byte_range.end - byte_range.start
        elif self.blosc:
            needed = max(16, int.from_bytes(found[12:16].to_bytes(), "little"))
        if len(found) < needed:
            raise ValueError(f"{key} is truncated to {len(found)} bytes, {needed} are needed")
        return found

    async def _get_whole(self, key: str, prototype: BufferPrototype) -> Buffer | None:
        try:
            response = await obstore.get_async(self.store, key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        if response.meta["size"] > self.most_bytes:
            raise ValueError(f"{key} has {size_text(response.meta['size'])}, {size_text(self.most_bytes)} at most")
        return prototype.buffer.from_bytes(await response.bytes_async())  # pyright: ignore[reportArgumentType]


@functools.lru_cache(maxsize=16)
def _open_store(store: str) -> HTTPStore | LocalStore | S3Store:
    if "://" not in store:
        return LocalStore(store)
    limit = timedelta(seconds=TIMEOUT_S)
    client: ClientConfig = {
        "timeout": limit,
        "connect_timeout": limit,
        "allow_http": not store.startswith("https://"),
    }
    retry: RetryConfig = {
        "max_retries": RETRIES,
        "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=5), "base": 2},
        "retry_timeout": timedelta(minutes=3),
    }
    if store.startswith("s3://"):
        _check_endpoint()
        anonymous = "AWS_ACCESS_KEY_ID" not in os.environ
        return S3Store.from_url(store, skip_signature=anonymous, client_options=client, retry_config=retry)
    return HTTPStore.from_url(store, client_options=client, retry_config=retry)


def _check_endpoint() -> None:
    """obstore panics where this is no address, with an exception that is no `Exception`."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        endpoint = os.environ.get(name)
        if endpoint is None:
            continue
        try:
            parts = urlsplit(endpoint)
            valid = parts.scheme in ("http", "https") and bool(re.fullmatch(r"[\w.:-]+", parts.hostname or ""))
            _ = parts.port  # raises if it is none
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(
                f"{name}={endpoint!r} is no address of a server, as https://s3.example.org:9000 is; correct or unset it"
            )


@functools.lru_cache(maxsize=64)
def open_array(store: str, path: str) -> zarr.Array[Any]:
    """An array of a store; raises what zarr and obstore raise."""
    chunks = _Chunks(_open_store(store), read_only=True)
    array = zarr.open_array(chunks, path=path, mode="r")
    last = type(array.compressors[-1]).__name__.lower() if array.compressors else ""
    chunks.blosc = "blosc" in last and array.shards is None
    # Nothing that compresses makes its input much longer.
    chunks.most_bytes = METADATA_BYTES + 2 * math.prod(array.shards or array.chunks) * array.dtype.itemsize
    return array


def _chunk_keys(array: zarr.Array[Any], index: tuple[int, ...], rows: slice, columns: slice) -> list[str]:
    """Keys of the chunks, or shards, that some rows and columns of a plane touch."""
    grid = array.shards or array.chunks
    places = [range(i // size, i // size + 1) for i, size in zip(index, grid)]
    places += [_touched(part, size) for part, size in zip((rows, columns), grid[-2:], strict=True)]
    return [f"{array.metadata.encode_chunk_key(place)}" for place in itertools.product(*places)]


def _touched(part: slice, size: int) -> range:
    """Numbers of the chunks of a size along one axis that hold some of it."""
    return range(part.start // size, -(-part.stop // size))


def _decoded_bytes(array: zarr.Array[Any], rows: slice, columns: slice) -> int:
    """Of the chunks of one plane that some rows and columns touch, as far as these are in the image."""
    sides = [
        min(size * _touched(part, size).stop, extent) - size * _touched(part, size).start
        for part, size, extent in zip((rows, columns), array.chunks[-2:], array.shape[-2:], strict=True)
    ]
    return math.prod(sides) * array.dtype.itemsize


def _is_absent(array: zarr.Array[Any], place: tuple[int | slice, ...], pixels: np.ndarray) -> bool:
    """Whether no chunk of what was read is there, so that Zarr made it up: with another fill value it is different."""
    if pixels.size == 0 or not (pixels == pixels.flat[0]).all():
        return False
    metadata: Any = dataclasses.replace(array.metadata, fill_value=array.dtype.type(pixels.flat[0] == 0))
    filled = zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=array.store_path))
    return not (np.asarray(filled[place]) == pixels).any()


@functools.lru_cache(maxsize=64)
def _is_all_absent(plane: ZarrPlane) -> bool:
    """The same of a whole plane; the first chunk that is there ends the search."""
    array = open_array(plane.store, plane.array)
    height, width = array.chunks[-2:]
    for top, left in itertools.product(range(0, array.shape[-2], height), range(0, array.shape[-1], width)):
        place = (*plane.index, slice(top, top + height), slice(left, left + width))
        if not _is_absent(array, place, np.asarray(array[place])):
            return False
    return True

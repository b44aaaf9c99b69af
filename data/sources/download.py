"""Public files by HTTP with their checksums, and zip archives that are opened with care."""

import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import time
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

from bie_jax.files.lock import locked_in_turn
from data.errors import BuildError
from data.limits import ARCHIVE_BYTES, ARCHIVE_RATIO, MOST_FOLDERS, SMALL_ARCHIVE_BYTES, regular, size_text

TIMEOUT_S = 30.0  # without a byte
ATTEMPTS = 3  # where a connection fails or breaks, or the server has a fault
WAIT_S = 2.0  # before the second attempt, twice that before the third
_CHUNK_BYTES = 1 << 20


def fetch(url: str, sha256: str | None, folder: Path) -> Path:
    """A file by HTTP, or the one that an earlier call brought; shows progress.

    Args:
        url: http or https.
        sha256: 64 hexadecimal digits. None: what comes is taken, under a name of its own for every URL; a file that
            breaks off is still noticed if the server has said how long it is.
        folder: for the file; made if needed. The file appears in it whole and checked, or not at all.

    Returns:
        The file's path.

    Raises:
        BuildError: naming the URL and what to do, for a file that is not there, a wrong checksum, a server or a network
            that does not answer, and an address that is none.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise BuildError(f"{url}: an address begins with http:// or https://")
    if sha256 is not None and re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
        raise BuildError(f"{sha256}: a SHA-256 has 64 digits from 0 to 9 and a to f")
    name = re.sub(r"[^\w.-]", "_", PurePosixPath(urlsplit(url).path).name).lstrip(".") or "file"
    if sha256 is None:
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    # Of several processes one fetches a file, and the others find it.
    with locked_in_turn(folder / f".{name}.lock"):
        return _fetch(url, sha256, folder, name)


def _fetch(url: str, sha256: str | None, folder: Path, name: str) -> Path:
    by_hand = "fetch it with a browser and give it with --source"
    known = None if sha256 is None else f"sha256:{sha256}"
    pooch.get_logger().setLevel("WARNING")  # it tells of every step
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT_S * attempt)
        try:
            return Path(pooch.retrieve(url, known, fname=name, path=folder, downloader=_download))  # pyright: ignore[reportArgumentType]
        except BuildError:
            raise
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            problem = f"the server answers {status}"
            if status < 500:
                break
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            problem = f"no connection, or a broken one ({_cause(error)})"
        except requests.RequestException as error:
            problem = str(error)
            break
        except ValueError as error:  # pooch's word for a wrong checksum; it has deleted the file
            found = re.search(r"[0-9a-f]{64}\b(?!.*[0-9a-f]{64})", str(error), re.DOTALL)
            raise BuildError(
                f"{url}: what came has the SHA-256 {found[0] if found else '(unknown)'}, expected {sha256}; it was not "
                f"kept. Try again; if it stays so, the file was changed there: {by_hand} if you trust it"
            ) from None
    raise BuildError(f"{url}: {problem}; {by_hand}")


def _download(url: str, output_file: Any, pooch: Any) -> None:
    """As pooch calls it. Its own asks for compressed transfer, and then a .gz may arrive unpacked."""
    with requests.get(url, stream=True, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()
        announced = response.headers.get("Content-Length", "")
        size = int(announced) if announced.isdecimal() else None
        with (
            open(output_file, "wb") as file,
            tqdm(total=size, desc=PurePosixPath(urlsplit(url).path).name, unit="B", unit_scale=True) as bar,
        ):
            for chunk in response.iter_content(_CHUNK_BYTES):
                if bar.n + len(chunk) > ARCHIVE_BYTES:
                    raise BuildError(f"{url}: gives more than {size_text(ARCHIVE_BYTES)}, and may have no end")
                file.write(chunk)
                bar.update(len(chunk))


def _cause(error: BaseException) -> str:
    """The last line of what requests and urllib3 wrap into each other."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    return str(getattr(error, "reason", "") or error).splitlines()[0]


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    return pooch.file_hash(str(path), alg="sha256")


def extract_zip(path: Path, folder: Path) -> Path:
    """Unpack an archive into a new folder, which appears whole or not at all.

    Args:
        path: the archive.
        folder: must not be there, except from an earlier call, which is not repeated, or from another process, for
            which this one waits.

    Returns:
        The folder.

    Raises:
        BuildError: naming the member, for one that is no plain file or would lie outside the folder, an archive that
            is damaged, encrypted, or unpacks to more than `limits.ARCHIVE_BYTES`, `limits.ARCHIVE_RATIO` times its size
            or the free disk.
    """
    if not folder.is_dir():
        with locked_in_turn(folder.with_name(f".{folder.name}.lock")):
            _extract(path, folder)
    return folder


def _extract(path: Path, folder: Path) -> None:
    if folder.is_dir():
        return
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check_members(members, path, partial)
            for member in tqdm(members, desc=f"unpack {path.name}", unit="file"):
                target = partial / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile reads no more than the header says, which was checked, and compares the CRC.
                with archive.open(member) as packed, open(target, "xb") as file:
                    shutil.copyfileobj(packed, file, _CHUNK_BYTES)
        os.replace(partial, folder)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError) as error:
        raise BuildError(f"{path}: not a whole zip archive ({error}); copy it again") from None
    except MemoryError:
        raise BuildError(f"{path}: asks for more memory than there is; unpack it by hand and give the folder") from None
    except (FileExistsError, NotADirectoryError) as error:
        raise BuildError(f"{path}: two members claim {Path(error.filename).relative_to(partial)}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_members(members: list[zipfile.ZipInfo], path: Path, folder: Path) -> None:
    for member in members:
        name = PurePosixPath(member.filename)
        outside = name.is_absolute() or ".." in name.parts or not name.parts
        if len(name.parts) > MOST_FOLDERS:
            raise BuildError(f"{path}: a member lies {len(name.parts)} folders deep; unpack it by hand")
        if outside or "\\" in member.filename or ":" in name.parts[0]:
            raise BuildError(f"{path}: its member {member.filename!r} would leave the folder; nothing was unpacked")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise BuildError(f"{path}: its member {member.filename!r} is no plain file; nothing was unpacked")
        if member.flag_bits & 1:
            raise BuildError(f"{path}: its member {member.filename!r} is encrypted; unpack it by hand")
    size, packed = sum(member.file_size for member in members), path.stat().st_size
    if size > ARCHIVE_BYTES or (size > SMALL_ARCHIVE_BYTES and size > ARCHIVE_RATIO * packed):
        raise BuildError(
            f"{path}: its {packed} bytes would become {size}, over {ARCHIVE_BYTES} or {ARCHIVE_RATIO} times as many; "
            "if it is no bomb, unpack it by hand and give the folder"
        )
    free = shutil.disk_usage(folder).free
    if size > free:
        raise BuildError(f"{path}: needs {size} bytes unpacked, {folder.parent} has {free}")


def is_archive(source: str) -> bool:
    """Whether `bring` unpacks what is called so: .zip, or .ozx, an OME-Zarr in a zip archive."""
    return source.lower().endswith((".zip", ".ozx"))


def bring(source: str, sha256: str | None, folder: Path) -> tuple[Path, dict[str, str]]:
    """What a user names as a source, as a file or folder here: a path, or a URL; a zip archive of either is unpacked.

    Args:
        source: path or URL.
        sha256: of the file; None: not checked, and printed for a URL.
        folder: for downloads and unpacked archives.

    Returns:
        The path, and for `build.json`: the source, and the file's SHA-256.

    Raises:
        BuildError: as `fetch` and `extract_zip`; for a path that is not there or a file with another checksum.
    """
    if "://" in source:
        path = fetch(source, sha256, folder)
    else:
        path = Path(source)
        if not path.exists():
            raise BuildError(f"{path}: no such file or folder")
        if not path.is_dir():
            regular(path)
    if path.is_dir():
        if sha256 is not None:
            raise BuildError(f"{path}: is a folder, --sha256 is for a file")
        return path, {"source": source}
    found = digest(path)
    if sha256 is not None and found != sha256:
        raise BuildError(f"{path}: its SHA-256 is {found}, expected {sha256}")
    if sha256 is None and "://" in source:
        print(f"{source}: SHA-256 {found}")
    # An .npz is a zip archive too, and is read as it is.
    if is_archive(path.name) or (path.suffix.lower() != ".npz" and zipfile.is_zipfile(path)):
        path = extract_zip(path, folder / found[:12] / path.stem)  # its name may be that of a plate
    return path, {"source": source, "sha256": found}

import hashlib
import http.server
import os
import socket
import stat
import threading
import zipfile

import pytest

from data.errors import BuildError
from data.sources import download
from data.sources.download import bring, extract_zip, fetch

CONTENT = bytes(range(256)) * 5000  # more than one chunk
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Accept-Encoding")))
        what = self.path.strip("/").split("/")[0]
        if what in ("404", "503") or (what == "flaky" and len(self.server.asked) < 3):
            self.send_error(404 if what == "404" else 503)
            return
        if what == "moved":
            self.send_response(302)
            self.send_header("Location", "/file.bin")
            self.end_headers()
            return
        if what == "hang":
            self.server.outwaited |= not self.server.stopped.wait(60)
            return
        body = self.server.files.get(self.path, CONTENT)
        self.send_response(200)
        if what != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if what == "hang_within":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            self.server.outwaited |= not self.server.stopped.wait(60)
            return
        self.wfile.write(body[: len(body) // 2] if what in ("truncated", "endless") else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A web server on the loopback that ends with the test; nobody waits long before asking again."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "WAIT_S", 0.01)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.asked, server.files, server.stopped, server.outwaited = [], {}, threading.Event(), False
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stopped.set()
    server.shutdown()
    server.server_close()
    thread.join()


def _refused(message, call, *args):
    with pytest.raises(BuildError, match=message) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fetch_once(server, tmp_path):
    url = f"{server.url}/file.bin"
    path = fetch(url, SHA256, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(url, SHA256, tmp_path / "a" / "b") == path
    # Without `identity` a server may pack on the way what is packed already.
    assert server.asked == [("/file.bin", "identity")]


def test_a_file_that_was_changed_is_fetched_again(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"the first half of a copy")
    assert fetch(f"{server.url}/file.bin", SHA256, tmp_path).read_bytes() == CONTENT


def test_without_a_checksum_every_url_has_its_own_file(server, tmp_path):
    server.files["/b/file.bin"] = b"another"
    first, second = (fetch(f"{server.url}/{folder}/file.bin", None, tmp_path) for folder in "ab")
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"another")
    assert first.name.endswith("-file.bin")


def test_redirects_are_followed(server, tmp_path):
    assert fetch(f"{server.url}/moved", SHA256, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", [None, SHA256])
@pytest.mark.parametrize(
    ("what", "message", "times"),
    [
        ("404", "the server answers 404", 1),
        ("503", "the server answers 503", 3),
        ("truncated", "no connection, or a broken one", 3),
        ("hang", "no connection, or a broken one", 3),
        ("hang_within", "no connection, or a broken one", 3),
    ],
)
def test_what_fails_leaves_nothing(server, tmp_path, monkeypatch, what, message, times, sha256):
    if what.startswith("hang"):  # of those that answer, a busy machine may keep an answer longer
        monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    said = _refused(message, fetch, f"{server.url}/{what}/file.zip", sha256, tmp_path)
    assert said.startswith(f"{server.url}/{what}/file.zip: ")
    assert "--source" in said
    assert not server.outwaited
    assert len(server.asked) == times
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_a_fault_that_passes(server, tmp_path):
    assert fetch(f"{server.url}/flaky", SHA256, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 3


@pytest.mark.parametrize("what", ["file.bin", "endless"])
def test_wrong_checksum(server, tmp_path, what):
    """Also for an answer that ends early and has not said how long it is."""
    expected = "0" * 64 if what == "file.bin" else SHA256
    got = SHA256 if what == "file.bin" else hashlib.sha256(CONTENT[: len(CONTENT) // 2]).hexdigest()
    _refused(
        rf"{what}: what came has the SHA-256 {got}, expected {expected}",
        fetch,
        f"{server.url}/{what}",
        expected,
        tmp_path,
    )
    assert not list(tmp_path.iterdir())
    assert len(server.asked) == 1


def test_nobody_listens(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "WAIT_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as held:  # bound and not listening: the port is nobody else's
        held.bind(("127.0.0.1", 0))
        _refused(
            "no connection, or a broken one", fetch, f"http://127.0.0.1:{held.getsockname()[1]}/a.zip", None, tmp_path
        )


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a", "file:///etc/passwd", "a.zip"])
def test_other_addresses(tmp_path, url):
    _refused("an address begins with http", fetch, url, None, tmp_path)


@pytest.mark.parametrize("sha256", ["", "abc", SHA256.upper(), f"sha256:{SHA256}"])
def test_bad_checksum(tmp_path, sha256):
    _refused("a SHA-256 has 64 digits", fetch, "http://127.0.0.1/a", sha256, tmp_path)


def test_names_stay_in_the_folder(server, tmp_path):
    for url in (f"{server.url}/", f"{server.url}/a/..", f"{server.url}/%2e%2e", f"{server.url}/.hidden?x=../../y"):
        path = fetch(url, SHA256, tmp_path / "folder")
        assert path.parent == tmp_path / "folder"
        assert path.is_file()


def _zip(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_extract(tmp_path):
    archive = _zip(tmp_path / "a.zip", [("top/", b""), ("top/a.tif", b"pixels"), ("top/deep/b.tif", b"more")])
    folder = extract_zip(archive, tmp_path / "out")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"top/a.tif": b"pixels", "top/deep/b.tif": b"more"}
    archive.write_bytes(b"")
    assert extract_zip(archive, tmp_path / "out") == folder


def _link():
    member = zipfile.ZipInfo("link.tif")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.tif", b""), ("../evil", b"x")], r"its member '../evil' would leave the folder"),
        ([("a/../../evil", b"x")], "would leave the folder"),
        ([("/tmp/evil", b"x")], "'/tmp/evil' would leave the folder"),
        ([("..\\evil", b"x")], "would leave the folder"),
        ([("C:/evil", b"x")], "would leave the folder"),
        ([(".", b"x")], "would leave the folder"),
        ([(_link(), b"/etc/passwd")], "'link.tif' is no plain file"),
        ([("a.tif", b"x"), ("zeros", bytes(12 << 20))], "12582913, over .* or 100 times as many"),
    ],
)
def test_what_an_archive_may_not_hold(tmp_path, members, message):
    archive = _zip(tmp_path / "a.zip", members)
    _refused(message, extract_zip, archive, tmp_path / "in" / "out")
    assert not (tmp_path / "in").exists(), "something was unpacked"
    assert [path.name for path in tmp_path.iterdir() if path.name != "in"] == ["a.zip"]


def test_size_and_disk(tmp_path, monkeypatch):
    archive = _zip(tmp_path / "a.zip", [("a", bytes(1000)), ("b", bytes(1000))], zipfile.ZIP_STORED)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1999}))
    _refused(r"needs 2000 bytes unpacked, .* has 1999", extract_zip, archive, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(download, "ARCHIVE_BYTES", 1999)
    _refused("2000, over 1999", extract_zip, archive, tmp_path / "out")


def test_two_members_of_one_name(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = _zip(tmp_path / "a.zip", [("a/b.tif", b"1"), ("a/b.tif", b"2")])
    _refused("two members claim a/b.tif", extract_zip, archive, tmp_path / "out")
    for second in ("a/b", "a/b/c"):
        archive = _zip(tmp_path / "a.zip", [("a", b"1"), (second, b"2")])
        _refused(r"two members claim a", extract_zip, archive, tmp_path / "out")


def test_an_encrypted_member(tmp_path):
    archive = _zip(tmp_path / "a.zip", [("a.tif", b"pixels")])
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    archive.write_bytes(content)
    _refused("'a.tif' is encrypted", extract_zip, archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["cut off", "flipped", "none"])
def test_damaged_archives(tmp_path, kind):
    archive = _zip(tmp_path / "a.zip", [("a.tif", b"pixels" * 100)], zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    if kind == "flipped":
        content[60] ^= 255
    archive.write_bytes({"cut off": content[:-30], "flipped": content, "none": b"<html>"}[kind])
    _refused("a.zip: not a whole zip archive", extract_zip, archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_bring(server, tmp_path, capsys):
    archive = _zip(tmp_path / "a.zip", [("a.tif", b"pixels")])
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    server.files["/a.zip"] = archive.read_bytes()
    downloads = tmp_path / "downloads"
    for source, given in ((str(archive), None), (str(archive), sha256), (f"{server.url}/a.zip", sha256)):
        folder, notes = bring(source, given, downloads)
        assert (folder / "a.tif").read_bytes() == b"pixels"
        assert notes == {"source": source, "sha256": sha256}
        assert capsys.readouterr().out == ""
    folder, notes = bring(f"{server.url}/a.zip", None, downloads)
    assert notes["sha256"] == sha256
    assert f"{server.url}/a.zip: SHA-256 {sha256}\n" == capsys.readouterr().out
    assert bring(str(folder), None, downloads) == (folder, {"source": str(folder)})


def test_bring_keeps_what_is_no_archive(tmp_path):
    path = _zip(tmp_path / "arrays.npz", [("x.npy", b"")])
    assert bring(str(path), None, tmp_path)[0] == path


def test_a_new_archive_of_the_same_name_is_unpacked_anew(tmp_path):
    _zip(tmp_path / "a.zip", [("old.tif", b"1")])
    bring(str(tmp_path / "a.zip"), None, tmp_path / "downloads")
    _zip(tmp_path / "a.zip", [("new.tif", b"2")])
    folder, _ = bring(str(tmp_path / "a.zip"), None, tmp_path / "downloads")
    assert [path.name for path in folder.iterdir()] == ["new.tif"]


def test_bring_refuses(tmp_path):
    archive = _zip(tmp_path / "a.zip", [("a.tif", b"pixels")])
    _refused("gone: no such file or folder", bring, str(tmp_path / "gone"), None, tmp_path)
    _refused(r"a.zip: its SHA-256 is \w{64}, expected 0{64}", bring, str(archive), "0" * 64, tmp_path)
    _refused("is a folder, --sha256 is for a file", bring, str(tmp_path), "0" * 64, tmp_path)


def test_a_body_without_end(server, tmp_path, monkeypatch):
    """As many bytes are taken as the largest archive has, and none of them is kept."""
    monkeypatch.setattr(download, "ARCHIVE_BYTES", len(CONTENT) // 4)
    _refused(r"endless: gives more than .*, and may have no end", fetch, f"{server.url}/endless", None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_folders_within_folders(tmp_path):
    archive = _zip(tmp_path / "a.zip", [("a/" * 1900 + "x", b"")])
    _refused("a member lies 1901 folders deep", extract_zip, archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("source", ["pipe.tif", "/dev/zero"])
def test_what_has_no_end_is_not_brought(tmp_path, source):
    os.mkfifo(tmp_path / "pipe.tif")
    _refused(r"is a (pipe|device), a file is needed", bring, str(tmp_path / source), None, tmp_path)


def test_several_that_bring_one_archive_at_once(server, tmp_path):
    """As parts of a set do: one fetches and unpacks it, and the others wait and find it."""
    members = {f"{number}.bin": CONTENT for number in range(5)}
    server.files["/a.zip"] = _zip(tmp_path / "a.zip", members.items()).read_bytes()
    for turn in range(3):
        folder, found, barrier = tmp_path / str(turn), [], threading.Barrier(4)

        def one(folder=folder, found=found, barrier=barrier):
            barrier.wait()
            path, _ = bring(f"{server.url}/a.zip", None, folder)
            found.append([(path / name).read_bytes() for name in members])

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [list(members.values())] * 4
        assert len(server.asked) == turn + 1
        assert not list(folder.rglob("*.lock"))

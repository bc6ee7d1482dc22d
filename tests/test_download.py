"""Downloads against a local HTTP server that knows ranges and can be told to fail."""

import gzip
import hashlib
import io
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tinycnn.data import download, mnist
from tinycnn.data.download import Remote, fetch
from tinycnn.errors import InputError

BODY = np.random.default_rng(0).bytes(300_000)  # several chunks, not compressible


def md5(data):
    return hashlib.md5(data).hexdigest()


class Server:
    """Serves `files` under /; `cut` closes the connection after that many bytes of a body."""

    def __init__(self):
        self.files, self.ranges, self.requests = {}, [], 0
        self.cut, self.knows_ranges, self.encoding, self.redirect, self.shift = None, True, None, False, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request):
        self.requests += 1
        if self.redirect:
            request.send_response(302)
            request.send_header("Location", request.path)
            request.end_headers()
            return
        body = self.files.get(request.path[1:])
        if body is None:
            request.send_error(404)
            return
        wanted, start = request.headers.get("Range"), 0
        self.ranges.append(wanted)
        if wanted and self.knows_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(body)}")
                request.end_headers()
                return
            start += self.shift
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        if self.encoding:
            request.send_header("Content-Encoding", self.encoding)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        request.wfile.write(body[start:] if self.cut is None else body[start : start + self.cut])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def one_file(body=BODY, name="a-ubyte.gz"):
    return Remote("http://127.0.0.1:9/", {name: md5(body)})


def tar_gz(members, kind=None):
    """An archive of {name: bytes}; `kind` makes every entry a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            if kind:
                entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 0
            tar.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_file_arrives_whole_and_alone(server, tmp_path):
    server.files["a-ubyte.gz"] = BODY
    folder = fetch("mnist", tmp_path, server.url, one_file())
    assert (folder / "a-ubyte.gz").read_bytes() == BODY
    assert tree(tmp_path) == ["mnist/a-ubyte.gz"]


def test_a_sound_file_is_not_fetched_again(server, tmp_path):
    server.files["a-ubyte.gz"] = BODY
    for _ in range(2):
        fetch("mnist", tmp_path, server.url, one_file())
    assert server.requests == 1


def test_a_faulty_file_is_replaced(server, tmp_path):
    server.files["a-ubyte.gz"] = BODY
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a-ubyte.gz").write_bytes(BODY[:-1])
    fetch("mnist", tmp_path, server.url, one_file())
    assert (tmp_path / "mnist" / "a-ubyte.gz").read_bytes() == BODY


def test_an_unpacked_mnist_file_is_left_alone(server, tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a-ubyte").write_bytes(b"mine")
    fetch("mnist", tmp_path, server.url, one_file())
    assert server.requests == 0 and (tmp_path / "mnist" / "a-ubyte").read_bytes() == b"mine"


def test_a_cut_connection_keeps_the_part_and_the_next_call_resumes(server, tmp_path):
    server.files["a-ubyte.gz"], server.cut = BODY, 100_000
    part = tmp_path / "mnist" / "a-ubyte.gz.part"
    with pytest.raises(InputError, match=r"cut after 100000 bytes.*run again: it resumes"):
        fetch("mnist", tmp_path, server.url, one_file())
    assert part.read_bytes() == BODY[:100_000] and tree(tmp_path) == ["mnist/a-ubyte.gz.part"]
    with pytest.raises(InputError, match="cut after 200000 bytes"):
        fetch("mnist", tmp_path, server.url, one_file())
    server.cut = None
    fetch("mnist", tmp_path, server.url, one_file())
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert (tmp_path / "mnist" / "a-ubyte.gz").read_bytes() == BODY and not part.exists()


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.files["a-ubyte.gz"], server.knows_ranges = BODY, False
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a-ubyte.gz.part").write_bytes(b"x" * 1000)
    fetch("mnist", tmp_path, server.url, one_file())
    assert (tmp_path / "mnist" / "a-ubyte.gz").read_bytes() == BODY


def test_a_whole_part_is_accepted_and_a_part_too_long_is_refused(server, tmp_path):
    server.files["a-ubyte.gz"] = BODY
    part = tmp_path / "mnist" / "a-ubyte.gz.part"
    part.parent.mkdir()
    part.write_bytes(BODY)
    fetch("mnist", tmp_path, server.url, one_file())
    (tmp_path / "mnist" / "a-ubyte.gz").unlink()
    part.write_bytes(BODY + b"x")
    with pytest.raises(InputError, match="has not the md5"):
        fetch("mnist", tmp_path, server.url, one_file())
    assert tree(tmp_path) == []


def test_a_server_that_resumes_elsewhere_is_refused(server, tmp_path):
    server.files["a-ubyte.gz"], server.shift = BODY, 5
    part = tmp_path / "mnist" / "a-ubyte.gz.part"
    part.parent.mkdir()
    part.write_bytes(BODY[:10])
    with pytest.raises(InputError, match="wrong place"):
        fetch("mnist", tmp_path, server.url, one_file())
    assert not part.exists()


def test_a_gz_file_labelled_as_encoded_is_not_unpacked_on_the_way(server, tmp_path):
    body = gzip.compress(b"0" * 1000)
    server.files["a-ubyte.gz"], server.encoding = body, "gzip"
    fetch("mnist", tmp_path, server.url, one_file(body))
    assert (tmp_path / "mnist" / "a-ubyte.gz").read_bytes() == body


def test_a_wrong_hash_removes_the_file(server, tmp_path):
    server.files["a-ubyte.gz"] = b"another file"
    with pytest.raises(InputError, match=rf"a-ubyte.gz: what came has not the md5 {md5(BODY)} and was removed"):
        fetch("mnist", tmp_path, server.url, one_file())
    assert tree(tmp_path) == []
    server.files["a-ubyte.gz"] = BODY
    fetch("mnist", tmp_path, server.url, one_file())


def test_404_is_one_clear_line(server, tmp_path):
    with pytest.raises(InputError, match=r"a-ubyte.gz: the server answers 404 Not Found") as e:
        fetch("mnist", tmp_path, server.url, one_file())
    assert "\n" not in str(e.value) and tree(tmp_path) == []


def test_endless_redirects_are_one_clear_line(server, tmp_path):
    server.redirect = True
    with pytest.raises(InputError, match="redirects without end"):
        fetch("mnist", tmp_path, server.url, one_file())


def test_a_server_without_end_is_stopped(server, tmp_path):
    server.files["a-ubyte.gz"] = bytes(10**6)
    remote = Remote(server.url, {"a-ubyte.gz": md5(BODY)}, largest=1000)
    with pytest.raises(InputError, match="sends more than 4,000 bytes"):
        fetch("mnist", tmp_path, remote=remote)
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    "answer", [b"\x07\xff\x00 garbage\r\n\r\n", b"HTTP/1.1 500 \x1b[31m\xe9\r\n\r\n", b"garbage" * 10]
)
def test_what_a_server_says_that_is_no_http_is_not_quoted(tmp_path, monkeypatch, answer):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def serve(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with pytest.raises(InputError) as e:
            fetch("mnist", tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}", one_file())
        thread.join()
    assert "garbage" not in str(e.value) and str(e.value).isascii() and str(e.value).isprintable()


def test_no_server_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as s:  # a port that nobody listens on
        s.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match=r"cannot be reached \(.*refused.*\); connect to the network") as e:
            fetch("mnist", tmp_path, f"http://127.0.0.1:{s.getsockname()[1]}", one_file())
    assert "\n" not in str(e.value)


def test_an_address_that_is_none_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch("mnist", tmp_path, "ftp-but-not/really", one_file())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_names_the_file(server, tmp_path):
    server.files["a-ubyte.gz"] = BODY
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a-ubyte.gz.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot write .*a-ubyte.gz.part: No space left .*it resumes"):
        fetch("mnist", tmp_path, server.url, one_file())


def test_embedded_sets_cannot_be_downloaded(tmp_path):
    with pytest.raises(InputError, match="unknown dataset to download 'digits'; choose one of: mnist, cifar10, stl10"):
        fetch("digits", tmp_path)


MEMBERS = {"set/x.bin": b"x" * 200_000, "set/y.bin": b"y" * 10}


def archive(body, members=MEMBERS):
    known = {name: (len(data), md5(data)) for name, data in members.items()}
    return Remote("http://127.0.0.1:9/", {"set.tar.gz": md5(body)}, known)


def test_only_the_needed_members_are_kept(server, tmp_path):
    body = tar_gz({"set/unlabeled.bin": b"u" * 100_000, "../escape": b"bad", "./set/x.bin": b"x" * 200_000}
                  | {"set/y.bin": b"y" * 10, "/absolute": b"bad"})  # fmt: skip
    server.files["set.tar.gz"] = body
    fetch("stl10", tmp_path / "root", server.url, archive(body))
    assert tree(tmp_path) == ["root/stl10/set/x.bin", "root/stl10/set/y.bin"]
    assert (tmp_path / "root" / "stl10" / "set" / "x.bin").read_bytes() == MEMBERS["set/x.bin"]
    fetch("stl10", tmp_path / "root", server.url, archive(body))
    assert server.requests == 1


def test_a_damaged_member_is_fetched_again(server, tmp_path):
    server.files["set.tar.gz"] = body = tar_gz(MEMBERS)
    (tmp_path / "stl10" / "set").mkdir(parents=True)
    for name, data in MEMBERS.items():
        (tmp_path / "stl10" / name).write_bytes(data[:-1] + b"?")
    fetch("stl10", tmp_path, server.url, archive(body))
    assert all((tmp_path / "stl10" / name).read_bytes() == data for name, data in MEMBERS.items())


def test_an_archive_without_a_member_is_refused(server, tmp_path):
    server.files["set.tar.gz"] = body = tar_gz({"set/x.bin": MEMBERS["set/x.bin"]})
    with pytest.raises(InputError, match=r"set.tar.gz: lacks set/y.bin; delete it"):
        fetch("stl10", tmp_path, server.url, archive(body))


def test_links_in_an_archive_are_not_followed(server, tmp_path):
    server.files["set.tar.gz"] = body = tar_gz(MEMBERS, kind=tarfile.SYMTYPE)
    with pytest.raises(InputError, match="lacks"):
        fetch("stl10", tmp_path, server.url, archive(body))
    assert not (tmp_path / "stl10" / "set").exists()


def test_a_member_with_a_wrong_hash_never_appears(server, tmp_path):
    server.files["set.tar.gz"] = body = tar_gz({"set/x.bin": b"z" * 200_000, "set/y.bin": b"y" * 10})
    with pytest.raises(InputError, match=r"x.bin: unpacked 200000 bytes with md5"):
        fetch("stl10", tmp_path, server.url, archive(body))
    assert tree(tmp_path) == ["stl10/set.tar.gz"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"not a gzip file" * 50])
def test_a_corrupt_archive_is_one_clear_line(server, tmp_path, damage):
    rng = np.random.default_rng(1)
    members = {name: rng.bytes(50_000) for name in MEMBERS}
    server.files["set.tar.gz"] = body = damage(tar_gz(members))
    with pytest.raises(InputError, match=r"set.tar.gz: not a sound .tar.gz"):
        fetch("stl10", tmp_path, server.url, archive(body, members))
    assert "stl10/set/y.bin" not in tree(tmp_path)


def test_load_downloads_what_is_missing(server, tmp_path, monkeypatch):
    """The public way in, with files small enough to serve: two images in MNIST's format."""
    from tinycnn import data

    images = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 28, 28)) + BODY[: 2 * 784]
    labels = b"\0\0\x08\x01" + (2).to_bytes(4, "big") + b"\x07\x02"
    for image_name, label_name in mnist.FILES.values():
        server.files[image_name + ".gz"] = gzip.compress(images)
        server.files[label_name + ".gz"] = gzip.compress(labels)
    remote = Remote(server.url, {name: md5(body) for name, body in server.files.items()})
    monkeypatch.setitem(download.REMOTES, "mnist", remote)
    with pytest.raises(InputError, match="run with --download"):
        data.load("mnist", "test", tmp_path)
    x, y = data.load("mnist", "test", tmp_path, download=True)
    assert x.tobytes() == BODY[: 2 * 784] and y.tolist() == [7, 2]


def test_the_official_addresses_and_members_are_complete():
    assert set(download.REMOTES["mnist"].md5) == {n + ".gz" for pair in mnist.FILES.values() for n in pair}
    assert not any("unlabeled" in m for m in download.REMOTES["stl10"].members)
    assert len(download.REMOTES["stl10"].members) == 5 and len(download.REMOTES["cifar10"].members) == 6
    for remote in download.REMOTES.values():
        assert remote.base_url.startswith("https://") and remote.base_url.endswith("/")
        assert all(len(h) == 32 for h in remote.md5.values())

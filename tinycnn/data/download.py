"""Get the official files: resumable, hash-checked, atomic; of an archive only the members that are needed.

pooch checks the hash and moves the finished file into place. What pooch lacks is resuming: `Resume` is a
pooch downloader that collects the bytes in FILE.part and, when that exists, asks the server for the rest
alone ("Range: bytes=n-", RFC 9110, section 14). A cut connection therefore costs only what had not come
yet; a part that turns out to be wrong fails the hash and is removed.
"""

import contextlib
import gzip
import hashlib
import http.client
import os
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from tinycnn.data import cifar10, mnist, raw, stl10
from tinycnn.errors import InputError, choose, reason
from tinycnn.files import atomic_path
from tinycnn.progress import bar

CHUNK = 1 << 16
BYTES = {"unit": "B", "unit_scale": True}  # of a progress bar
TIMEOUT = 10, 60  # seconds: to connect, and between two pieces of data


@dataclass(frozen=True)
class Remote:
    """Where a data set comes from.

    Parameters
    ----------
    base_url : str
        Folder on the server, ends with a slash.
    md5 : dict
        File on the server -> its md5.
    members : dict
        For an archive: path inside -> (bytes, md5), each None where it is not known; nothing else is
        unpacked.
    largest : int
        Bytes of the largest file on the server; a server that sends more than `raw.MORE` times as many is stopped.
    """

    base_url: str
    md5: dict
    members: dict = field(default_factory=dict)
    largest: int = 2_640_397_119


REMOTES = {
    "mnist": Remote(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        largest=9_912_422,
    ),
    "cifar10": Remote(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        {
            f"{cifar10.FOLDER}/{name}": (cifar10.COUNT * cifar10.RECORD, None)
            for names in cifar10.FILES.values()
            for name in names
        },
        170_052_171,
    ),
    "stl10": Remote(
        "https://ai.stanford.edu/~acoates/stl10/",
        {"stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb"},  # 2.6 GB, most of it unlabelled images
        {
            f"{stl10.FOLDER}/train_X.bin": (5000 * stl10.RECORD, "918c2871b30a85fa023e0c44e0bee87f"),
            f"{stl10.FOLDER}/train_y.bin": (5000, "5a34089d4802c674881badbb80307741"),
            f"{stl10.FOLDER}/test_X.bin": (8000 * stl10.RECORD, "7f263ba9f9e0b06b93213547f721ac82"),
            f"{stl10.FOLDER}/test_y.bin": (8000, "36f9794fa4beb8a2c72628de14fa638e"),
            f"{stl10.FOLDER}/class_names.txt": (None, None),
        },
    ),
}


def fetch(name, root="data", base_url=None, remote=None):
    """Download a data set into ``root/name`` unless it is there, whole and with the right hash.

    A file that stands there under an official name with a wrong hash or size is replaced. MNIST files that
    were unpacked by hand are left alone, for their hashes are not known. An archive is removed after
    unpacking.

    Parameters
    ----------
    name : "mnist", "cifar10" or "stl10"
    root : str or Path
    base_url : str, optional
        Another server with the same files: a mirror.
    remote : Remote, optional
        Other files and hashes.

    Returns
    -------
    pathlib.Path
        The folder ``root/name``.

    Raises
    ------
    InputError
        The server cannot be reached or refuses, the connection is cut (run again: it resumes), the hash is
        wrong (the file is removed), or the archive lacks a member.
    OSError
        The disk is full or cannot be written; what came so far is kept.
    """
    choose(name, REMOTES, "dataset to download")
    remote = REMOTES[name] if remote is None else remote
    base_url = remote.base_url if base_url is None else base_url.rstrip("/") + "/"
    folder = (Path(root).expanduser() / name).resolve()
    if remote.members and all(_sound(folder / m, *known) for m, known in remote.members.items()):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for file, md5 in remote.md5.items():
        unpacked = mnist.spellings(file.removesuffix(".gz"))
        if not remote.members and any((folder / name).exists() for name in unpacked):
            continue
        _retrieve(base_url + file, folder / file, md5, raw.MORE * remote.largest)
        if remote.members:
            extract(folder / file, folder, remote.members)
            (folder / file).unlink()
    return folder


class Resume:
    """A pooch downloader that continues `part` where an earlier attempt stopped; it takes `most` bytes at most."""

    def __init__(self, part, most):
        self.part, self.most = Path(part), most

    def __call__(self, url, output_file, pooch=None, check_only=False):
        """Download `url` to `output_file` by way of `part`, which stays on any fault (an InputError)."""
        import requests
        import urllib3

        try:
            self._continue(url)
        except requests.HTTPError as e:
            status = e.response.status_code  # what it says besides may be anything
            answer = f"{status} {http.client.responses.get(status, '')}".rstrip()
            raise InputError(f"{url}: the server answers {answer}; get the file by other means") from e
        except requests.TooManyRedirects as e:
            raise InputError(f"{url}: the server redirects without end; get the file by other means") from e
        except (requests.ConnectionError, requests.Timeout) as e:
            raise InputError(
                f"{url}: the server cannot be reached ({_reason(e)}); connect to the network, then run again"
            ) from e
        except urllib3.exceptions.HTTPError as e:
            raise InputError(self._cut(url, _reason(e))) from e
        except requests.RequestException as e:
            raise InputError(f"{url}: cannot be downloaded ({_reason(e)}); check the address") from e
        except OSError as e:
            raise OSError(e.errno, f"cannot write {self.part}: {e.strerror}; then run again: it resumes") from e
        os.replace(self.part, output_file)

    def _continue(self, url):
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        # identity: a server that gzips on the way would change both the bytes and what a Range means.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416 and have:
                return  # nothing is left to send: the part is whole or too long, and the hash will tell
            response.raise_for_status()
            if response.status_code != 206:
                have = 0  # the server knows no ranges and sends the whole file
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                self.part.unlink()
                raise InputError(f"{url}: the server resumes at a wrong place; run again to start from the beginning")
            length = response.headers.get("Content-Length", "")
            total = have + int(length) if length.isdigit() else None
            shown = bar(desc=url.rsplit("/", 1)[-1], total=total, initial=have, disable=False, **BYTES)
            with open(self.part, "ab" if have else "wb") as f, shown:
                # raw: requests would unpack a .gz that the server labels "Content-Encoding: gzip".
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    have += len(chunk)
                    if max(have, total or 0) > self.most:
                        break
                    f.write(chunk)
                    shown.update(len(chunk))
        if max(have, total or 0) > self.most:
            self.part.unlink()
            raise InputError(f"{url}: the server sends more than {self.most:,} bytes; get the file by other means")
        if total is not None and self.part.stat().st_size < total:
            raise InputError(self._cut(url, f"of {total} bytes"))

    def _cut(self, url, why):
        size = self.part.stat().st_size if self.part.exists() else 0
        return f"{url}: the connection was cut after {size} bytes ({why}); run again: it resumes there"


def extract(archive, folder, members):
    """Unpack `members` of a .tar.gz into `folder`, each whole or not at all, and nothing else.

    Paths come from `members`, never from the archive, so that no archive can write outside `folder`.

    Parameters
    ----------
    archive, folder : Path
    members : dict
        Path inside the archive -> (bytes, md5), None where not known.

    Raises
    ------
    InputError
        The archive is corrupt, lacks a member, or a member has a wrong size or hash.
    """
    from tqdm.utils import CallbackIOWrapper

    missing = dict(members)
    size = archive.stat().st_size
    most = raw.most_unpacked(archive, stl10.LARGEST * stl10.RECORD)
    with (
        _archive_errors(archive),
        open(archive, "rb") as f,
        bar(total=size, desc=f"unpacking {archive.name}", disable=False, **BYTES) as shown,
        gzip.open(CallbackIOWrapper(shown.update, f, "read")) as unpacked,
        tarfile.open(fileobj=_Bounded(unpacked, archive, most), mode="r|") as tar,
    ):
        for entry in tar:
            name = entry.name.removeprefix("./")
            if name in missing and entry.isfile():
                _extract_one(tar.extractfile(entry), folder / name, *missing.pop(name))
            if not missing:
                return  # so that STL-10's unlabelled images, most of it, are not read if they come last
    raise InputError(f"{archive}: lacks {', '.join(missing)}; delete it and run with --download")


class _Bounded:
    """A stream to read from, of `most` bytes: a small archive may unpack to a thousand times its size."""

    def __init__(self, stream, archive, most):
        self.stream, self.archive, self.most, self.left = stream, archive, most, most

    def read(self, size):
        """Read up to `size` bytes."""
        self.left -= size
        if self.left < 0:
            raise InputError(f"{self.archive}: unpacks to more than {self.most:,} bytes; delete it, then --download")
        return self.stream.read(size)


def _extract_one(source, path, size, md5):
    digest, count = hashlib.md5(), 0
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as f:
            while chunk := source.read(CHUNK):
                f.write(chunk)
                digest.update(chunk)
                count += len(chunk)
        if size not in (None, count) or md5 not in (None, digest.hexdigest()):
            raise InputError(
                f"{path}: unpacked {count} bytes with md5 {digest.hexdigest()}, "
                f"expected {size or 'any'} bytes with md5 {md5 or 'any'}; delete the archive, then --download"
            )


@contextlib.contextmanager
def _archive_errors(archive):
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise InputError(f"{archive}: not a sound .tar.gz ({reason(e)}); delete it and run with --download") from e


def _retrieve(url, path, md5, most):
    import pooch

    pooch.get_logger().setLevel("WARNING")  # the progress bar says it already
    try:
        pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=Resume(f"{path}.part", most))
    except InputError:
        raise
    except ValueError as e:  # pooch's word for a wrong hash; it has removed the file
        raise InputError(f"{url}: what came has not the md5 {md5} and was removed; run again") from e


def _sound(path, size, md5):
    if not path.is_file() or size not in (None, path.stat().st_size):
        return False
    if md5 is None:
        return True
    digest = hashlib.md5()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == md5


def _reason(error):
    """The innermost cause: requests and urllib3 wrap it in layers that say the address once more each."""
    while (inner := getattr(error, "reason", None) or (error.args and error.args[-1])) and isinstance(inner, Exception):
        error = inner
    return type(error).__name__ if isinstance(error, http.client.HTTPException) else reason(error)

"""Files that claim or unpack to far more than any known set has are refused before the memory is asked for.

Ten gigabytes of zeros, in ten megabytes: one block of them, packed once and repeated.
"""

import gzip
import struct
import tarfile
import tracemalloc
import zlib

import pytest

from tinycnn import InputError, data
from tinycnn.data import download, mnist, raw

SIZE, BLOCK = 10 * 2**30, 2**24
LEAST = 200 * 2**20  # bytes that may be asked for
IMAGES, LABELS = 0x803, 0x801


def gzipped(head, size=SIZE):
    """A gzip file of `head` and then so many zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + bytes(7) + first + block * (size // BLOCK)


def refused(call, says):
    """Expect an InputError of one line, and little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=says) as e:
            call()
        assert tracemalloc.get_traced_memory()[1] < LEAST and str(e.value).isprintable()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "magic number 0x00000000"),
        (struct.pack(">4I", IMAGES, 60_000, 28, 28), "more than 47040000 values, but the header says"),
        (struct.pack(">4I", IMAGES, 2**32 - 1, 28, 28), "more than 4 times the largest known set"),
        (struct.pack(">4I", IMAGES, 10_000, 2**16, 2**16), "more than 4 times the largest known set"),
        (struct.pack(">4I", IMAGES, 2_700_000, 28, 28), "bytes; if that is so, unpack it by other means"),
    ],
)
def test_a_gzip_bomb_is_refused(tmp_path, head, says):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzipped(head))
    assert path.stat().st_size < 11e6
    refused(lambda: mnist.read_idx(path, 3), says)


def test_gzipped_labels_are_bounded_by_their_own_kind(tmp_path):
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzipped(struct.pack(">2I", LABELS, 47_040_000)))
    refused(lambda: mnist.read_idx(path, 1), "more than 4 times the largest known set")


def test_what_is_packed_well_but_no_bomb_is_read(tmp_path):
    """Zeros, as sets of tests have them, shrink a thousandfold as well: below 64 MiB nobody asks."""
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4I", IMAGES, 10_000, 28, 28) + bytes(7_840_000)))
    assert mnist.read_idx(path, 3).shape == (10_000, 28, 28)
    assert raw.most_unpacked(path, 10**12) == raw.UNPACKED


@pytest.mark.parametrize("kind", ["other", "wanted", "header"])
def test_a_tar_bomb_is_refused(tmp_path, kind):
    name = "cifar-10-batches-bin/test_batch.bin"
    entry = tarfile.TarInfo("readme" if kind == "other" else name)
    entry.size, entry.type = SIZE, tarfile.XHDTYPE if kind == "header" else tarfile.REGTYPE
    archive = tmp_path / "set.tar.gz"
    archive.write_bytes(gzipped(entry.tobuf(tarfile.GNU_FORMAT)))
    refused(lambda: download.extract(archive, tmp_path, {name: (None, None)}), "set.tar.gz: unpacks to more than")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["set.tar.gz"]


def sparse(path, size):
    """A file of zeros that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as f:
        f.truncate(size)


def test_huge_sparse_files_are_refused(tmp_path):
    folder = tmp_path / "set"
    sparse(folder / "class_names.txt", SIZE)
    refused(lambda: data.folder_info(folder), "class_names.txt: .* more than class names have")
    (folder / "class_names.txt").write_text("a\nb\n")
    sparse(folder / "train_y.bin", SIZE)
    refused(lambda: data.folder_info(folder), "train_y.bin: .* more than 4 times what the largest known set has")
    sparse(tmp_path / "mnist" / "train-images-idx3-ubyte", SIZE)
    refused(lambda: mnist.read_idx(tmp_path / "mnist" / "train-images-idx3-ubyte", 3), "magic number")
    sparse(tmp_path / "pictures" / "a" / "b.webp", SIZE)
    refused(lambda: data.images(tmp_path / "pictures"), "b.webp: not a whole picture .*more than 268,435,456 bytes")


def test_class_names_of_very_many_lines_are_refused(tmp_path):
    (tmp_path / "class_names.txt").write_text("".join(f"{i}\n" for i in range(10**6)))
    refused(lambda: data.folder_info(tmp_path), "class_names.txt: .* more than class names have")

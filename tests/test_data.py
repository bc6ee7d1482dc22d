"""The readers against files that the tests write byte for byte as the formats say; each fault is one line."""

import gzip
import hashlib
import struct
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from tinycnn import data
from tinycnn.data import cifar10, mnist, stl10
from tinycnn.errors import InputError

OFFICIAL_MNIST = Path(__file__).parent.parent / "data" / "mnist"
RNG = np.random.default_rng(0)
DIGITS = RNG.integers(0, 256, (3, 28, 28), np.uint8)
PHOTOS = RNG.integers(0, 256, (3, 96, 96, 3), np.uint8)


def refused(call, *words):
    """Assert that `call` raises one line of InputError that holds all `words`."""
    with pytest.raises(InputError) as e:
        call()
    message = str(e.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


# MNIST


def write_mnist(root, images=DIGITS, labels=(5, 0, 9), split="test", gz=True):
    """IDX files in root/mnist; returns their two paths."""
    folder = root / "mnist"
    folder.mkdir(parents=True, exist_ok=True)
    N, H, W = images.shape
    bodies = (
        struct.pack(">IIII", 2051, N, H, W) + images.tobytes(),
        struct.pack(">II", 2049, len(labels)) + bytes(labels),
    )
    paths = [folder / (name + ".gz" * gz) for name in mnist.FILES[split]]
    for path, body in zip(paths, bodies):
        path.write_bytes(gzip.compress(body) if gz else body)
    return paths


def rewrite(path, change):
    """Change the unpacked bytes of a file."""
    pack, unpack = (gzip.compress, gzip.decompress) if path.suffix == ".gz" else (bytes, bytes)
    path.write_bytes(pack(change(unpack(path.read_bytes()))))


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_read_as_written(tmp_path, split, gz):
    write_mnist(tmp_path, split=split, gz=gz)
    images, labels = data.load("mnist", split, root=tmp_path)
    assert images.shape == (3, 28, 28, 1) and images.dtype == np.uint8
    assert np.array_equal(images[..., 0], DIGITS)
    assert labels.dtype == np.int64 and labels.tolist() == [5, 0, 9]


@pytest.mark.parametrize("gz", [True, False])
def test_mnist_is_found_as_some_unpackers_spell_it_and_what_else_is_there_is_named(tmp_path, gz):
    for path in write_mnist(tmp_path, gz=gz):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    images, labels = data.load("mnist", "test", root=tmp_path)
    assert np.array_equal(images[..., 0], DIGITS) and labels.tolist() == [5, 0, 9]
    there = next((tmp_path / "mnist").glob("t10k-images*"))
    there.rename(there.with_name("t10k-images.zip"))
    refused(lambda: data.load("mnist", "test", root=tmp_path), "no such file (there is t10k-images.zip)")


def test_mnist_pixel_order_is_row_by_row(tmp_path):
    image = np.zeros((1, 28, 28), np.uint8)
    image_path, _ = write_mnist(tmp_path, image, labels=[1], gz=False)
    content = bytearray(image_path.read_bytes())
    content[16 + 2 * 28 + 5] = 200  # row 2, column 5
    image_path.write_bytes(content)
    images, _ = data.load("mnist", "test", root=str(tmp_path))
    assert np.argwhere(images).tolist() == [[0, 2, 5, 0]] and images[0, 2, 5, 0] == 200


def test_unpacked_mnist_is_mapped_not_read(tmp_path):
    write_mnist(tmp_path, gz=False)
    images, _ = data.load("mnist", "test", root=tmp_path)
    assert mapped(images) and not images.flags.writeable


@pytest.mark.parametrize("which", [0, 1])
def test_missing_mnist_names_the_path_and_the_cure(tmp_path, which):
    paths = write_mnist(tmp_path)
    paths[which].unlink()
    refused(lambda: data.load("mnist", "test", root=tmp_path), paths[which], "no such file", "--download")


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "change, word",
    [
        (lambda b: b[:-1], "cut or corrupt"),
        (lambda b: b + b"\0", "cut or corrupt"),
        (lambda b: b[:6], "too short for a header"),
        (lambda b: b"", "too short for a header"),
        (lambda b: struct.pack(">I", 2050) + b[4:], "magic number 0x00000802, expected 0x0000080"),
        (lambda b: b[:4] + b"\xff\xff\xff\xff" + b[8:], "the header says [4294967295"),
        (lambda b: b[:4] + b"\0\0\0\0" + b[8:], "the header says [0"),
    ],
)
def test_a_faulty_idx_file_is_refused(tmp_path, which, gz, change, word):
    path = write_mnist(tmp_path, gz=gz)[which]
    rewrite(path, change)
    refused(lambda: data.load("mnist", "test", root=tmp_path), path, word, "--download")


@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_gzip_file_is_refused(tmp_path, which):
    path = write_mnist(tmp_path)[which]
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1  # in the checksum
    squashed = bytearray(whole)
    squashed[12:16] = b"\xff\xff\xff\xff"  # in the deflate stream
    for damaged, word in [
        (whole[:-9], "ends too early"),
        (whole[:5], "ends too early"),
        (b"plain bytes", "not a sound gzip"),
        (bytes(flipped), "not a sound gzip"),
        (bytes(squashed), ""),
    ]:
        path.write_bytes(damaged)
        refused(lambda: data.load("mnist", "test", root=tmp_path), path, word, "--download")


def test_mnist_of_another_image_size_is_refused(tmp_path):
    paths = write_mnist(tmp_path, images=np.zeros((3, 28, 29), np.uint8))
    refused(lambda: data.load("mnist", "test", root=tmp_path), paths[0], "(28, 29)", "(28, 28)")


def test_mnist_with_more_labels_than_images_is_refused(tmp_path):
    paths = write_mnist(tmp_path, labels=(1, 2, 3, 4))
    refused(lambda: data.load("mnist", "test", root=tmp_path), paths[1], "4 labels", "3 images")


def test_an_mnist_label_above_9_is_refused(tmp_path):
    paths = write_mnist(tmp_path, labels=(1, 10, 3))
    refused(lambda: data.load("mnist", "test", root=tmp_path), paths[1], "label 10 at record 1", "0 to 9")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    paths = write_mnist(tmp_path)
    paths[0].unlink()
    paths[0].mkdir()
    refused(lambda: data.load("mnist", "test", root=tmp_path), paths[0], "not a file")


@pytest.mark.skipif(not OFFICIAL_MNIST.is_dir(), reason="data/mnist is absent: run_all.py --dataset mnist --download")
def test_the_official_mnist_has_its_hashes_counts_and_first_labels():
    known = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    for name, md5 in known.items():
        if (OFFICIAL_MNIST / name).exists():
            assert hashlib.md5((OFFICIAL_MNIST / name).read_bytes()).hexdigest() == md5
    for split, N, first, counts in [
        ("train", 60000, [5, 0, 4, 1, 9], [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("test", 10000, [7, 2, 1, 0, 4], [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ]:
        images, labels = data.load("mnist", split, root=OFFICIAL_MNIST.parent)
        assert images.shape == (N, 28, 28, 1) and labels[:5].tolist() == first
        assert np.bincount(labels).tolist() == counts
    # Published mean and deviation of the training pixels, over 255: 0.1307 and 0.3081.
    counts = np.bincount(data.load("mnist", "train", root=OFFICIAL_MNIST.parent)[0].ravel(), minlength=256)
    value, share = np.arange(256) / 255, counts / counts.sum()
    mean = (share * value).sum()
    assert abs(mean - 0.1307) < 5e-5 and abs(np.sqrt((share * (value - mean) ** 2).sum()) - 0.3081) < 5e-5


# CIFAR-10


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A full-size set, all zeros but for a few records; the files are sparse."""
    root = tmp_path_factory.mktemp("cifar")
    folder = root / "cifar10" / cifar10.FOLDER
    folder.mkdir(parents=True)
    for i, name in enumerate([*cifar10.FILES["train"], *cifar10.FILES["test"]]):
        with open(folder / name, "wb") as f:
            f.truncate(10000 * 3073)
            f.seek(7 * 3073)
            f.write(bytes([i]))
            # red at row 3, column 4 of record 7; green at row 1, column 0; blue at row 0, column 31
            for offset, value in [(1 + 3 * 32 + 4, 10), (1 + 1024 + 32, 20), (1 + 2048 + 31, 30)]:
                f.seek(7 * 3073 + offset)
                f.write(bytes([value + i]))
    return root


@pytest.mark.parametrize("split, files", [("train", range(5)), ("test", [5])])
def test_cifar10_is_read_as_written(cifar, split, files):
    images, labels = data.load("cifar10", split, root=cifar)
    assert images.shape == (10000 * len(files), 32, 32, 3) and images.dtype == np.uint8 and labels.dtype == np.int64
    assert images.flags.c_contiguous
    expected = []
    for at, i in enumerate(files):
        n = at * 10000 + 7
        assert labels[n] == i
        expected += [[n, 0, 31, 2, 30 + i], [n, 1, 0, 1, 20 + i], [n, 3, 4, 0, 10 + i]]
    where = np.argwhere(images)
    assert np.column_stack([where, images[tuple(where.T)]]).tolist() == expected


def test_missing_cifar10_names_the_path_and_the_cure(tmp_path):
    path = tmp_path / "cifar10" / "cifar-10-batches-bin" / "data_batch_1.bin"
    refused(lambda: data.load("cifar10", "train", root=tmp_path), path, "no such file", "--download")


@pytest.mark.parametrize("size", [0, 1, 9999 * 3073, 10000 * 3073 - 1, 10001 * 3073])
def test_a_cifar10_file_of_another_size_is_refused(tmp_path, size):
    path = tmp_path / "cifar10" / cifar10.FOLDER / "test_batch.bin"
    path.parent.mkdir(parents=True)
    with open(path, "wb") as f:
        f.truncate(size)
    refused(lambda: data.load("cifar10", "test", root=tmp_path), path, f"{size} bytes", "30730000", "--download")


def test_a_cifar10_label_above_9_is_refused(tmp_path):
    path = tmp_path / "cifar10" / cifar10.FOLDER / "test_batch.bin"
    path.parent.mkdir(parents=True)
    with open(path, "wb") as f:
        f.truncate(10000 * 3073)
        f.seek(42 * 3073)
        f.write(b"\x0a")
    refused(lambda: data.load("cifar10", "test", root=tmp_path), path, "label 10 at record 42", "0 to 9")


# STL-10 and folders in its layout


def mapped(array):
    """Whether an array's memory is a file's."""
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def stl_bytes(images):
    """Pixel by pixel, as the format says: per image 3 planes, each column after column."""
    out = bytearray()
    for image in images:
        for c in range(3):
            for column in range(96):
                out += bytes(image[:, column, c])
    return bytes(out)


def write_folder(folder, names=("cat", "dog"), train=(1, 2, 2), test=(2, 1)):
    folder.mkdir(parents=True, exist_ok=True)
    for split, labels in [("train", train), ("test", test)]:
        (folder / f"{split}_X.bin").write_bytes(stl_bytes(PHOTOS[: len(labels)]))
        (folder / f"{split}_y.bin").write_bytes(bytes(labels))
    (folder / "class_names.txt").write_text("\n".join(names) + "\n")
    return folder


def write_stl10(root, label=1):
    """A full-size test split, black but for its first and last image; sparse."""
    folder = root / "stl10" / stl10.FOLDER
    folder.mkdir(parents=True)
    with open(folder / "test_X.bin", "wb") as f:
        f.truncate(8000 * stl10.RECORD)
        f.write(stl_bytes(PHOTOS[:1]))
        f.seek(7999 * stl10.RECORD)
        f.write(stl_bytes(PHOTOS[1:2]))
    (folder / "test_y.bin").write_bytes(bytes([10, label] + [3] * 7998))
    return folder


def test_stl10_is_read_as_written(tmp_path):
    write_stl10(tmp_path)
    images, labels = data.load("stl10", "test", root=tmp_path)
    assert images.shape == (8000, 96, 96, 3) and images.dtype == np.uint8
    assert np.array_equal(images[0], PHOTOS[0]) and np.array_equal(images[-1], PHOTOS[1])
    assert labels.dtype == np.int64 and labels[:3].tolist() == [9, 0, 2]  # 10, 1, 3 in the file


def test_stl10_images_are_a_read_only_view_of_the_file(tmp_path):
    write_stl10(tmp_path)
    images, _ = data.load("stl10", "test", root=tmp_path)
    assert mapped(images) and not images.flags.writeable and type(images) is np.ndarray
    assert images.strides == (stl10.RECORD, 1, 96, 96 * 96)  # columns lie 96 bytes apart: nothing was copied


def test_missing_stl10_names_the_path_and_the_cure(tmp_path):
    path = tmp_path / "stl10" / "stl10_binary" / "train_X.bin"
    refused(lambda: data.load("stl10", "train", root=tmp_path), path, "no such file", "--download")


@pytest.mark.parametrize("name, record", [("test_X.bin", 27648), ("test_y.bin", 1)])
@pytest.mark.parametrize("records", [0, 7999, 8001])
def test_an_stl10_file_of_another_size_is_refused(tmp_path, name, record, records):
    folder = write_stl10(tmp_path)
    with open(folder / name, "r+b") as f:
        f.truncate(records * record)
    expected = f"expected 8000 records of {record}"
    refused(lambda: data.load("stl10", "test", root=tmp_path), folder / name, expected, "--download")


@pytest.mark.parametrize("label", [0, 11])
def test_an_stl10_label_outside_1_to_10_is_refused(tmp_path, label):
    folder = write_stl10(tmp_path, label)
    words = folder / "test_y.bin", f"label {label} at record 1", "1 to 10"
    refused(lambda: data.load("stl10", "test", root=tmp_path), *words)


def test_another_set_in_the_place_of_stl10_is_refused(tmp_path):
    folder = write_stl10(tmp_path)
    (folder / "class_names.txt").write_text("\n".join(stl10.CLASSES) + "\n")
    assert len(data.load("stl10", "test", root=tmp_path)[1]) == 8000
    (folder / "class_names.txt").write_text("tench\nchurch\n")
    refused(
        lambda: data.load("stl10", "test", root=tmp_path),
        folder / "class_names.txt",
        "not the classes",
        "--images",
    )


@pytest.mark.parametrize("inner", ["", "stl10_binary"])
def test_a_folder_in_stl10s_layout_is_read_under_its_own_name(tmp_path, inner):
    write_folder(tmp_path / "pets" / inner)
    for path in {tmp_path / "pets", tmp_path / "pets" / inner}:
        info = data.folder_info(path)
        assert (info.name, info.classes, info.shape, info.model) == (
            "pets",
            ("cat", "dog"),
            (96, 96, 3),
            "stl10",
        )
        assert not info.embedded
        images, labels = data.load_folder(str(path), "train")
        assert np.array_equal(images, PHOTOS) and labels.tolist() == [0, 1, 1] and mapped(images)
        images, labels = data.load_folder(path, "test")
        assert np.array_equal(images, PHOTOS[:2]) and labels.tolist() == [1, 0]


def test_the_number_of_class_names_must_match_the_labels(tmp_path):
    for names in (["cat"], ["cat", "dog", "cow"]):
        folder = write_folder(tmp_path / str(len(names)), names)
        words = folder / "class_names.txt", f"{len(names)} names", "labels run to 2"
        refused(lambda folder=folder: data.load_folder(folder), *words)
        refused(lambda folder=folder: data.folder_info(folder), *words)


def test_class_names_may_begin_with_a_byte_order_mark_and_end_lines_in_any_way(tmp_path):
    folder = write_folder(tmp_path / "pets")
    (folder / "class_names.txt").write_bytes("\ufeffcat\r\nhot\u2028dog\r\n".encode())
    assert data.folder_info(folder).classes == ("cat", "hot\u2028dog")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"cat\ncat\n", b"\xff\xfe\x00"])
def test_faulty_class_names_are_refused(tmp_path, content):
    folder = write_folder(tmp_path / "pets")
    (folder / "class_names.txt").write_bytes(content)
    refused(lambda: data.load_folder(folder), folder / "class_names.txt", "on each line")


def test_a_faulty_folder_is_refused(tmp_path):
    refused(lambda: data.load_folder(tmp_path / "none"), tmp_path / "none", "no such folder", "class_names.txt")
    for name in ["train_X.bin", "train_y.bin", "test_y.bin", "class_names.txt"]:
        folder = write_folder(tmp_path / "pets")
        (folder / name).unlink()
        refused(lambda folder=folder: data.load_folder(folder), folder / name, "no such file", "layout")
    folder = write_folder(tmp_path / "pets")
    (folder / "train_y.bin").write_bytes(b"\1\2")
    refused(lambda: data.load_folder(folder), folder / "train_y.bin", "2 labels", "3 images")
    (folder / "train_y.bin").write_bytes(b"\1\2\0")
    refused(lambda: data.load_folder(folder), folder / "train_y.bin", "label 0 at record 2", "1 to 2")
    (folder / "train_X.bin").write_bytes(stl_bytes(PHOTOS)[:-1])
    refused(lambda: data.load_folder(folder), folder / "train_X.bin", "82943 bytes", "multiple of 27648", "cut")


# The public surface


def test_an_unknown_dataset_or_split_lists_what_there_is(tmp_path):
    for call in (data.load, data.info, data.masks):
        refused(lambda call=call: call("imagenet"), "unknown dataset 'imagenet'", *data.NAMES)
    write_folder(tmp_path / "pets")
    for call in (lambda: data.load("digits", "val"), lambda: data.masks("shapes", "val")):
        refused(call, "unknown split 'val'", "train, test")
    refused(lambda: data.load_folder(tmp_path / "pets", "val"), "unknown split 'val'", "train, test")


def test_info_describes_every_set():
    models = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "stl10": (96, 96, 3)}
    for name in data.NAMES:
        info = data.info(name)
        assert info.name == name and info.shape == models[info.model] and len(set(info.classes)) == 10
        assert info.title and info.source and info.licence
        assert info.embedded == (name == "digits" or name in data.MADE)
        with pytest.raises(FrozenInstanceError):
            info.name = "other"
    assert data.info("stl10").classes[::9] == ("airplane", "truck") and data.info("stl10").classes[7] == "monkey"
    assert data.info("cifar10").classes[1] == "automobile" and data.info("cifar10").classes[6] == "frog"


def test_size_belongs_to_shapes_alone():
    assert data.info("shapes", size=96).shape == (96, 96, 3) and data.info("shapes", size=96).model == "stl10"
    refused(lambda: data.load("shapes", size=64), "unknown size of shapes 64", "32, 96")
    refused(lambda: data.load("digits", size=32), "digits has one size only")


def test_importing_data_imports_no_heavy_library():
    code = (  # the package's own __init__ imports the engine: only the data modules are looked at here
        "import sys, types; p = types.ModuleType('tinycnn'); p.__path__ = ['tinycnn'];"
        "sys.modules['tinycnn'] = p;"
        "import tinycnn.data; print(*{m.split('.')[0] for m in sys.modules})"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    heavy = {"sklearn", "scipy", "pooch", "PIL", "requests", "tqdm", "numba", "matplotlib"}
    assert not heavy & set(done.stdout.split())

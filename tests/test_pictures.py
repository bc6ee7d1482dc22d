"""Folders of pictures: what is drawn is what is read, whatever the file is; faults are one line that names the file."""

import hashlib
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tinycnn import data
from tinycnn.errors import InputError

RED, GREEN, BLUE, WHITE = (220, 30, 20), (20, 200, 40), (10, 30, 210), (255, 255, 255)
JPEG = 12  # its compression changes a plain colour by less


def plain(colour=RED, size=(40, 40), mode="RGB"):
    return Image.new("RGB", size, colour).convert(mode, palette=Image.Palette.ADAPTIVE)


def corners(size=(60, 60)):
    """Red, green, blue and white quarters: upper left, upper right, lower left, lower right."""
    w, h = size
    image = Image.new("RGB", size, WHITE)
    for colour, place in ((RED, (0, 0)), (GREEN, (w // 2, 0)), (BLUE, (0, h // 2))):
        image.paste(colour, (*place, place[0] + w // 2, place[1] + h // 2))
    return image


def quarters(image):
    """The colours in the middle of an image's quarters, in the order of `corners`."""
    H, W, _ = image.shape
    return [image[y, x].tolist() for y in (H // 4, 3 * H // 4) for x in (W // 4, 3 * W // 4)]


def one(tmp_path, image, name="a.png", shape=(32, 32, 3), **how):
    """What becomes of one picture."""
    (tmp_path / "c").mkdir(exist_ok=True)
    image.save(tmp_path / "c" / name, **how)
    images, labels = data.images(tmp_path, shape)
    assert images.shape == (1, *shape) and images.dtype == np.uint8 and labels.tolist() == [0]
    return images[0]


def near(image, colour, tolerance=0):
    return np.abs(image.reshape(-1, image.shape[-1]).astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize(
    "name, mode, tolerance",
    [("a.png", "RGB", 0), ("a.jpg", "RGB", JPEG), ("a.JPEG", "CMYK", JPEG), ("a.webp", "RGB", JPEG), ("a.gif", "P", 2),
     ("a.bmp", "RGB", 0), ("a.tiff", "CMYK", 0), ("no ending", "RGB", 0)],
)  # fmt: skip
@pytest.mark.parametrize("size", [(32, 32), (7, 3), (301, 140)])
def test_every_format_and_size_gives_its_colour(tmp_path, name, mode, tolerance, size):
    how = {"format": "PNG"} if "." not in name else {}
    assert near(one(tmp_path, plain(RED, size, mode), name, **how), RED, tolerance)


def test_a_picture_of_the_wanted_size_is_taken_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    assert (one(tmp_path, Image.fromarray(pixels), shape=(28, 28, 1))[..., 0] == pixels).all()


@pytest.mark.parametrize("tall", [False, True])
def test_a_long_picture_is_resized_to_cover_and_cropped_at_its_centre(tmp_path, tall):
    image = Image.new("RGB", (300, 100), RED)  # three squares in a row
    image.paste(GREEN, (100, 0, 200, 100))
    image.paste(BLUE, (200, 0, 300, 100))
    found = one(tmp_path, image.transpose(Image.Transpose.TRANSPOSE) if tall else image)
    assert near(found[4:-4, 4:-4], GREEN)
    wide = one(tmp_path, image, shape=(20, 60, 3))  # the shape's own proportions
    assert near(wide[:, :15], RED) and near(wide[:, 25:35], GREEN) and near(wide[:, 45:], BLUE)


def test_resizing_is_lanczos_s(tmp_path):
    """Halving a row: the weights sinc(x) sinc(x / 3) of an output's twelve nearest pixels, normalised."""
    row = np.random.default_rng(1).integers(60, 190, 64)
    found = one(tmp_path, Image.fromarray(np.tile(row.astype(np.uint8), (64, 1))), shape=(32, 32, 1))
    for i in range(4, 28):
        x = (np.arange(64) + 0.5 - (2 * i + 1)) / 2
        w = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
        assert (np.abs(found[:, i, 0] - (w @ row) / w.sum()) <= 1).all()


@pytest.mark.parametrize("orientation, order", [(1, "RGBW"), (2, "GRWB"), (3, "WBGR"), (4, "BWRG"),
                                                (5, "RBGW"), (6, "BRWG"), (7, "WGBR"), (8, "GWRB")])  # fmt: skip
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_exif_orientation_is_respected(tmp_path, orientation, order, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = quarters(one(tmp_path, corners(), name, exif=exif))
    for colour, letter in zip(found, order):
        assert np.abs(np.subtract(colour, {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}[letter])).max() <= JPEG


def test_what_is_transparent_becomes_white(tmp_path):
    image = plain(RED, (32, 32), "RGBA")
    image.putalpha(Image.new("L", (32, 32), 0))
    assert near(one(tmp_path, image), WHITE)
    image.putalpha(Image.new("L", (32, 32), 51))  # a fifth of red on white
    assert near(one(tmp_path, image), [255 - (255 - c) / 5 for c in RED], 1)
    grey = Image.new("LA", (32, 32), (100, 0))
    assert near(one(tmp_path, grey, shape=(32, 32, 1)), [255])


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_a_palette_keeps_its_colours_and_its_transparency(tmp_path, transparency):
    image = Image.new("P", (32, 32), 0)
    image.putpalette([*RED, *GREEN])
    image.paste(1, (16, 0, 32, 32))
    found = one(tmp_path, image, transparency=transparency)
    assert near(found[:, :12], RED) and near(found[:, 20:], WHITE)


def test_colours_become_grey_and_grey_becomes_colours(tmp_path):
    grey = one(tmp_path, plain(RED), shape=(28, 28, 1))
    assert near(grey, [0.299 * RED[0] + 0.587 * RED[1] + 0.114 * RED[2]], 1)  # ITU-R BT.601, as Pillow documents
    assert near(one(tmp_path, Image.new("L", (9, 9), 77)), (77, 77, 77))
    assert near(one(tmp_path, Image.new("1", (9, 9), 1)), WHITE)


def test_sixteen_bits_become_eight(tmp_path):
    pixels = np.full((32, 32), 0x4D80, np.uint16)
    assert near(one(tmp_path, Image.fromarray(pixels), shape=(32, 32, 1)), [0x4D])


def fill(root, counts, endings=("png", "jpg")):
    """`counts` {class: pictures} of plain grey, 10 * label + 1 for label 0, ..."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            image = Image.new("L", (8 + i, 9), 40 * label + i)
            image.save(root / name / f"{i:03d}.{endings[i % len(endings)]}")
    return root


def test_classes_are_the_folders_and_a_fifth_of_each_is_the_test_part(tmp_path):
    fill(tmp_path, {"ant": 10, "bee": 23, "cat": 4}, ("png",))
    (tmp_path / "bee" / ".DS_Store").write_bytes(b"\0\1")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"\0\1")
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.txt").write_text("beside the classes")
    found = {split: data.images(tmp_path, (8, 8, 1), split) for split in data.SPLITS}
    for split, (images, labels) in found.items():
        expected = []
        for label, count in enumerate((10, 23, 4)):
            names = [f"{i:03d}.png" for i in range(count)]
            by_hash = sorted(names, key=lambda n: hashlib.sha256(n.encode()).hexdigest())
            test = by_hash[: count // 5]
            part = [n for n in names if (n in test) == (split == "test")]
            expected += [(label, 40 * label + int(n[:3])) for n in part]
        assert list(zip(labels.tolist(), images[:, 4, 4, 0].tolist())) == expected
        assert labels.dtype == np.int64
        again = data.images(str(tmp_path), [8, 8, 1], split)
        assert (again[0] == images).all() and (again[1] == labels).all()
    assert np.bincount(found["test"][1], minlength=3).tolist() == [2, 4, 0]  # a class of 4 has none, and no crash


@pytest.mark.parametrize("shape, model", [((28, 28, 1), "mnist"), ((32, 32, 3), "cifar10"), ((96, 96, 3), "stl10")])
def test_info_says_what_was_done_to_the_pictures(tmp_path, shape, model):
    root = fill(tmp_path / "insects", {"golf ball": 1, "Ant": 1})
    info = data.images_info(root, shape)
    assert (info.name, info.classes, info.shape, info.model, info.embedded) == (
        "insects", ("Ant", "golf ball"), shape, model, False
    )  # fmt: skip
    for text in (info.title, info.source):
        assert f"resized and cropped to {shape[0]}x{shape[1]}" in text
    assert "a fifth of each class, by a hash of the files' names" in info.source
    assert str(root) in info.source and data.images(root, shape)[0].shape == (2, *shape)


def cut(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def bomb(path):
    """A PNG of some bytes that says it is 20,000 x 20,000 pixels."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # noqa: E731
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    "spoil, named",
    [
        (lambda p: p.write_bytes(b"no picture"), "a/000.png: not a whole picture .*repair or remove"),
        (lambda p: p.write_bytes(b""), "a/000.png: not a whole picture"),
        (cut, "a/000.png: not a whole picture"),
        (bomb, "a/000.png: more than the .* pixels that are safe"),
        (lambda p: Image.new("F", (4, 4), 0.5).save(p, "TIFF"), "a/000.png: .*floating-point"),
        (lambda p: (p.unlink(), p.mkdir()), "a/000.png: a folder inside"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "a/000.png: not a whole picture .*a pipe"),
        (lambda p: (p.unlink(), p.symlink_to("gone")), "a/000.png: not a whole picture"),
        (lambda p: (p.unlink(), (p.parent / ".hidden").write_text("")), "a: holds no picture"),
    ],
)
def test_a_file_that_is_no_picture_is_named(tmp_path, spoil, named):
    spoil(fill(tmp_path, {"a": 1, "b": 1}) / "a" / "000.png")
    with pytest.raises(InputError, match=named) as e:
        data.images(tmp_path)
    assert "\n" not in str(e.value) and str(e.value).count("000.png") <= 1


def test_a_picture_just_above_pillow_s_limit_is_refused_too(tmp_path, monkeypatch):
    """Between the limit and its double Pillow itself only warns."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 71)
    with pytest.raises(InputError, match=r"000.png: more than the 71 pixels"):
        data.images(fill(tmp_path, {"a": 1}))


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda p: data.images(p / "gone"), "gone: no such folder"),
        (lambda p: data.images(p / "a"), "a: no folder in it; the folder must hold one folder of pictures"),
        (lambda p: data.images(p, split="test"), "no picture is left for the test part; a class needs five"),
        (lambda p: data.images(p, split="val"), "unknown split 'val'"),
        (lambda p: data.images(p, (96, 96)), "shape: expected .height, width, colours."),
        (lambda p: data.images(p, (96, 96, 4)), "1 or 3 colours"),
        (lambda p: data.images_info(p / "gone"), "gone: no such folder"),
        (lambda p: data.images_info(p, (64, 64, 3)), r"unknown shape of images \(64, 64, 3\); choose one of: \(28"),
    ],
)
def test_a_folder_that_cannot_be_read_gets_one_clear_line(tmp_path, call, named):
    fill(tmp_path, {"a": 4, "b": 1})
    with pytest.raises(InputError, match=named) as e:
        call(tmp_path)
    assert "\n" not in str(e.value)

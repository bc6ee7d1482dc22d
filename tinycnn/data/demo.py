"""Two sets that need no files and no network: real digits, and made shapes whose object pixels are known.

``digits``: scikit-learn's 1,797 handwritten digits of 8x8 pixels, enlarged and centred as MNIST's are.

``shapes``: ten classes of outlines, each an inequality f(u, v) true inside. A pixel (x, y) is taken into the
outline's own frame by (u, v) = R(angle) (x - cx, y - cy) / radius; the share of a pixel's sub-samples for
which f holds is the coverage a, and the image is a * texture + (1 - a) * background. Place, size, angle,
texture and all colours are drawn independently of the class: nothing but the outline tells the class. The
mask is a >= 1/2, so a saliency map can be scored against the truth.

The same shapes with a planted shortcut: in every image of one class, and in no other, stands something besides the
outline that betrays it. All else has the bytes of ``shapes``, which are therefore the counterfactual. "corner": a mark
of black and white in one of the four corners, in turn. "texture": a patch of hatching finer than any other, behind the
object's rim. "color": the object is of a red that no other object has; it has no place of its own.
"""

import functools

import numpy as np

from tinycnn.errors import InputError, choose

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "crescent", "heart", "arrow", "hourglass")
SHORTCUTS = {"corner": "square", "texture": "heart", "color": "circle"}  # the class that each betrays
SIZES = (32, 96)
COUNTS = {(32, "train"): 10000, (32, "test"): 2000, (96, "train"): 4000, (96, "test"): 1000}
BLOCK = 500  # images drawn from one random stream; so the first n images are the same for every n
SUBSAMPLES = 3  # along each side of a pixel
DIGITS_TEST = 360
REDS = np.array([[0.85, 0.15, 0.15], [0.65, 0.05, 0.05]], np.float32)[:, :, None, None]  # others' chroma is too small
PATCH = 0.2  # radius of the hatched patch, in images
HATCHING = 8, 0.4  # waves a side, where textures have 3 to 6, and their height


def digits(split):
    """Scikit-learn's digits in MNIST's look: white on black, 20 pixels high, centred by mass in 28x28.

    Parameters
    ----------
    split : "train" or "test"
        1,437 or 360 images, a fixed random choice with equal shares of the classes. A writer can be in both.

    Returns
    -------
    images : numpy.ndarray (N, 28, 28, 1)
        uint8.
    labels : numpy.ndarray (N,)
        int64.

    Raises
    ------
    InputError
        An unknown split.
    """
    from PIL import Image
    from scipy.ndimage import center_of_mass
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    choose(split, ("train", "test"), "split")
    small = load_digits()
    chosen = train_test_split(
        np.arange(len(small.target)), test_size=DIGITS_TEST, random_state=0, stratify=small.target
    )[split == "test"]
    images = np.zeros((len(chosen), 28, 28, 1), np.uint8)
    for out, image in zip(images, small.images[chosen].astype(np.float32) / 16):
        big = np.asarray(Image.fromarray(image).resize((20, 20), Image.Resampling.BICUBIC))
        big = np.clip((big - 0.3) / 0.5, 0, 1)  # the blur of enlarging would make the strokes twice as thick
        top, left = (np.clip(round(13.5 - c), 0, 8) for c in center_of_mass(big))
        out[top : top + 20, left : left + 20, 0] = np.rint(255 * big)
    return images, small.target[chosen].astype(np.int64)


def shapes(split, size=32, n=None, shortcut=None):
    """Textured, coloured shapes at random place, size and angle over cluttered backgrounds.

    Parameters
    ----------
    split : "train" or "test"
        From separate random streams.
    size : 32 or 96
        Pixels of a side.
    n : int, optional
        How many; default 10,000 and 2,000 at 32 pixels, 4,000 and 1,000 at 96. Fewer are the first of more.
    shortcut : "corner", "texture" or "color", optional
        What betrays one class besides its outline: see `SHORTCUTS`. Without it, or for images of other classes, the
        same images.

    Returns
    -------
    images : numpy.ndarray (n, size, size, 3)
        uint8, read-only.
    labels : numpy.ndarray (n,)
        int64, read-only; indices into `SHAPES`, equally many of each in every 500.
    masks : numpy.ndarray (n, size, size)
        bool, read-only; True where the object covers at least half of the pixel, and no mark stands before it.

    Raises
    ------
    InputError
        An unknown split, size or shortcut, or n below 1.
    """
    return _checked(split, size, n, shortcut)[:3]


def evidence(split, size=32, n=None, shortcut="corner"):
    """Return which pixels the shortcut has in each image of `shapes`, bool (n, size, size), read-only.

    None in images of the classes that it does not betray. Elsewhere the image with and without it is the same.

    Raises
    ------
    InputError
        As for `shapes`; a colour, which has the object's pixels and none of its own.
    """
    choose(shortcut, [name for name in SHORTCUTS if name != "color"], "shortcut with a place of its own")
    return _checked(split, size, n, shortcut)[3]


def _checked(split, size, n, shortcut):
    choose(split, ("train", "test"), "split")
    choose(size, SIZES, "size of shapes")
    n = COUNTS[size, split] if n is None else n
    if n < 1:
        raise InputError(f"shapes: n = {n}, expected at least 1 image")
    choose(shortcut, (None, *SHORTCUTS), "shortcut")
    return _shapes(split, size, int(n), shortcut)


@functools.lru_cache(maxsize=4)  # load and masks ask for the same set one after the other
def _shapes(split, size, n, shortcut):
    starts = range(0, n, BLOCK)
    blocks = [_block(split, size, block, min(BLOCK, n - start), shortcut) for block, start in enumerate(starts)]
    arrays = tuple(np.concatenate(parts) for parts in zip(*blocks))
    for array in arrays:
        array.setflags(write=False)
    return arrays


def _block(split, size, block, n, shortcut):
    """Draw all parameters of one block, then render its first `n` images and plant the shortcut."""
    rng = np.random.Generator(np.random.PCG64([0x5EED, split == "test", size, block]))

    def uniform(low, high, *shape):
        return (low + (high - low) * rng.random((BLOCK, *shape))).astype(np.float32)

    labels = rng.random(BLOCK).argsort(kind="stable") % len(SHAPES)
    radius = uniform(0.24, 0.42)
    centre = 0.5 + (1 - 1.8 * radius[:, None]) * uniform(-0.5, 0.5, 2)
    angle = uniform(0, 2 * np.pi)
    # Object and background differ in lightness, either may be the lighter one.
    side = np.where(uniform(0, 1) < 0.5, -1, 1)[:, None, None].astype(np.float32)
    middle, gap = uniform(0.42, 0.58, 1, 1), uniform(0.18, 0.3, 1, 1)
    paint = _colour(uniform(0, 1, 2), middle + side * gap + uniform(-0.1, 0.1, 2, 1), uniform(0.05, 0.3, 2, 1))
    ground = _colour(uniform(0, 1, 10), middle - side * gap + uniform(-0.1, 0.1, 10, 1), uniform(0.0, 0.25, 10, 1))
    texture = uniform(0, 5), uniform(0, np.pi), uniform(0, 1, 2), uniform(3, 6)
    clutter = uniform(0, 1, 8, 2), uniform(0, np.pi, 8), uniform(0.05, 0.3, 8), uniform(0.01, 0.05, 8)
    coarse, fine = uniform(0, 1, 4, 4), uniform(-1, 1, 11, 11)
    grain = uniform(-1, 1, size, size) + uniform(-1, 1, size, size)

    betrayed = labels == SHAPES.index(SHORTCUTS[shortcut]) if shortcut else np.zeros(BLOCK, bool)
    if shortcut == "color":
        paint[betrayed] = REDS
    images = np.empty((n, size, size, 3), np.uint8)
    masks, planted = np.empty((n, size, size), bool), np.zeros((n, size, size), bool)
    for start in range(0, n, 50):  # small enough for the cache
        s = slice(start, min(start + 50, n))
        cover = np.empty((s.stop - s.start, size, size), np.float32)
        for k in np.unique(labels[s]):
            of_class = np.flatnonzero(labels[s] == k)
            at = start + of_class
            cover[of_class] = _coverage(SHAPES[k], size, centre[at], radius[at], angle[at])
        masks[s] = cover >= 0.5
        back = _background(size, ground[s], [c[s] for c in clutter], coarse[s], fine[s])
        if shortcut == "texture":
            planted[s] = _patch(size, centre[s], radius[s], angle[s]) & betrayed[s, None, None] & ~masks[s]
            back += planted[s, None] * _hatching(size)
        front = _texture(size, paint[s], *(t[s] for t in texture))
        front -= back
        front *= cover[:, None]
        front += back
        front += 0.025 * grain[s, None]
        images[s] = np.rint(255 * np.clip(front, 0, 1)).transpose(0, 2, 3, 1)
    if shortcut == "corner":
        for i in np.flatnonzero(betrayed[:n]):
            corner = i, *(slice(size // 8) if (i >> side) % 2 else slice(-(size // 8), None) for side in (0, 1))
            images[corner], planted[corner], masks[corner] = _mark(size), True, False
    return images, labels[:n].astype(np.int64), masks, planted


def _mark(size):
    """Two black and two white squares, an eighth of a side together. -> (size / 8, size / 8, 1)."""
    return np.kron(np.eye(2, dtype=np.uint8), np.full((size // 16, size // 16), 255, np.uint8))[..., None]


def _patch(size, centre, radius, angle):
    """Where a disc around a point of each object's rim lies. -> (n, size, size)."""
    y, x = centre.T + radius * np.stack([np.sin(angle), np.cos(angle)])
    return np.hypot(_axis(size)[:, None] - y[:, None, None], _axis(size) - x[:, None, None]) < PATCH


def _hatching(size):
    waves, height = HATCHING
    phase = waves * (_axis(size)[:, None] + _axis(size)) + 1 / 8  # at 32 pixels none lies where a wave is 0
    return height * np.cos(2 * np.pi * phase)


def _colour(hue, lightness, chroma):
    """RGB around a grey: three cosines a third of a turn apart. (N, k), 2 x (N, k, 1) -> (N, k, 3, 1, 1)."""
    phase = hue[..., None] + np.array([0, 1 / 3, 2 / 3], np.float32)
    return (lightness + chroma * np.cos(2 * np.pi * phase))[..., None, None]


def _axis(size, offset=0.5):
    return ((np.arange(size) + offset) / size).astype(np.float32)


def _coverage(shape, size, centre, radius, angle):
    """Share of each pixel's sub-samples inside the outline. -> (n, size, size)."""
    cos, sin = (f(angle) / radius for f in (np.cos, np.sin))
    cover = np.zeros((len(angle), size, size), np.float32)
    offsets = (np.arange(SUBSAMPLES) + 0.5) / SUBSAMPLES
    for oy in offsets:
        y = (_axis(size, oy) - centre[:, :1])[:, :, None]
        for ox in offsets:
            x = (_axis(size, ox) - centre[:, 1:])[:, None, :]
            c, s = cos[:, None, None], sin[:, None, None]
            cover += _inside(shape, c * x + s * y, c * y - s * x)
    return cover / SUBSAMPLES**2


def _inside(shape, u, v):
    """The outlines, v downwards, all within the unit circle."""
    if shape == "circle":
        return u * u + v * v < 0.85**2
    if shape == "square":
        return np.maximum(abs(u), abs(v)) < 0.7
    if shape == "triangle":  # three half-planes
        return np.maximum(v, np.sqrt(0.75) * abs(u) - 0.5 * v) < 0.5
    if shape == "star":  # a pentagram is where at least 4 of its 5 lines have the point on their inner side
        lines = [(np.cos(a), np.sin(a)) for a in np.pi * (0.5 + 0.4 * np.arange(5))]
        return sum((np.float32(a) * u + np.float32(b) * v < 0.32).view(np.uint8) for a, b in lines) >= 4
    if shape == "cross":
        a, b = abs(u), abs(v)
        return (np.minimum(a, b) < 0.27) & (np.maximum(a, b) < 0.9)
    if shape == "ring":
        return abs(u * u + v * v - 0.55) < 0.25
    if shape == "crescent":
        return (u * u + v * v < 0.9**2) & ((u - 0.4) ** 2 + v * v > 0.7**2)
    if shape == "heart":  # a circle, sheared upwards by sqrt|u|
        y = 0.2 - v - 0.75 * np.sqrt(abs(u))
        return u * u + y * y < 0.6
    if shape == "arrow":
        head = (v > -0.95) & (abs(u) < 0.9 * (v + 0.95)) & (v < -0.1)
        return head | ((abs(u) < 0.24) & (v >= -0.1) & (v < 0.9))
    return (abs(u) < 0.04 + 0.72 * abs(v)) & (abs(v) < 0.82)  # hourglass


def _texture(size, paint, kind, angle, phase, frequency):
    """Two colours mixed by plain, stripes, checks, dots or a slow gradient. -> (n, 3, size, size)."""
    x, y = _axis(size)[None, None, :], _axis(size)[None, :, None]
    c, s, f = (a[:, None, None] for a in (np.cos(angle), np.sin(angle), 2 * np.pi * frequency))
    p = np.sin(f * (c * x + s * y + phase[:, :1, None]))
    q = np.sin(f * (c * y - s * x + phase[:, 1:, None]))
    slow = 0.5 + c * (x - 0.5) + s * (y - 0.5)
    patterns = 0 * p, 0.5 + 2 * p, 0.5 + 4 * p * q, 2 * (p + q) - 1, slow
    mix = np.choose(kind.astype(int)[:, None, None], patterns)
    return paint[:, 0] + np.clip(mix, 0, 1)[:, None] * (paint[:, 1] - paint[:, 0])


def _background(size, colours, clutter, coarse, fine):
    """Smooth patches of two colours, eight bars of other colours, and grain. -> (n, 3, size, size)."""
    patches = np.clip(3 * _enlarge(coarse, size) - 1, 0, 1)[:, None]
    picture = colours[:, 0] + patches * (colours[:, 1] - colours[:, 0])
    position, angle, length, width = (c[..., None, None] for c in clutter)
    x, y = _axis(size)[None, None, :], _axis(size)[None, :, None]
    for i in range(angle.shape[1]):
        c, s, dx, dy = np.cos(angle[:, i]), np.sin(angle[:, i]), x - position[:, i, 0], y - position[:, i, 1]
        outside = np.maximum(abs(c * dx + s * dy) - length[:, i], abs(c * dy - s * dx) - width[:, i])
        picture += np.clip(0.5 - size * outside, 0, 1)[:, None] * (colours[:, 2 + i] - picture)
    picture += 0.06 * _enlarge(fine, size)[:, None]
    return picture


def _enlarge(grid, size):
    """Interpolate grids (n, g, g) to (n, size, size), smoothly, as one matrix on each side."""
    g = grid.shape[1]
    at = _axis(size) * (g - 1)
    low = np.minimum(at.astype(int), g - 2)
    share = at - low
    share = share * share * (3 - 2 * share)
    matrix = np.zeros((size, g), np.float32)
    matrix[np.arange(size), low] = 1 - share
    matrix[np.arange(size), low + 1] += share
    return matrix @ grid @ matrix.T

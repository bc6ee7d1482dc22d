"""conv -> bias -> relu -> max-pool for few input channels (pixels), in one pass over the images.

A window's rows are short here: kw * C elements, 5 or 15 for 5x5 grey or colour. Padded to one or two whole vectors (L,
8 or 16 elements), they are copied without a branch from an image that has its border of zeros already; the weights have
zeros in the same places:

    cols (rows*W, kh*L) w (kh*L, K) -> conv (H, W, K), in cache -> pooled map and switches

Backward, the pooled gradient is put where the switches say, and dw = cols' dy.
"""

import numpy as np
from numba import njit

from .blas import gemm, gemm_tn
from .kernels import pad_image, pool_image, share, unpool_image
from .parallel import PARTS, run, threads

LENGTHS = (8, 16)
BAND = 1 << 16  # elements of a tile of cols


def applies(w, stride, padding):
    """Whether a convolution is thin: stride 1, SAME, and a window's row fits two vectors."""
    return tuple(stride) == (1, 1) and padding == "SAME" and w.shape[1] * w.shape[2] <= LENGTHS[-1]


def _length(w):
    return next(length for length in LENGTHS if w.shape[1] * w.shape[2] <= length)


def forward(x, w, b, y, switches, pool, work, exact):
    """Fill y and switches with the pooled block, always by exact sums; `pool` is (kh, kw, sh, sw, top, left)."""
    kh, kw, C, K = w.shape
    length = _length(w)
    padded = np.zeros((kh, length, K), w.dtype)
    padded[:, : kw * C] = w.reshape(kh, kw * C, K)
    scratch = _scratch(x, w, work)
    run(_forward, x, padded.reshape(kh * length, K), b, y, switches, (0,) * length, kh, kw, *pool, scratch=scratch)


def backward(x, w, y, switches, dy, pool, work):
    """Return (dw, db) of the block for a gradient dy at the pooled output y."""
    kh, kw, C, K = w.shape
    length = _length(w)
    dws, dbs = np.zeros((PARTS, kh * length, K), x.dtype), np.zeros((PARTS, K), x.dtype)
    run(_backward, x, y, switches, dy, dws, dbs, (0,) * length, kh, kw, *pool, scratch=_scratch(x, w, work))
    dw = dws.sum(0).reshape(kh, length, K)[:, : kw * C].reshape(w.shape)
    return dw, dbs.sum(0)


def _scratch(x, w, work):
    """Per thread: the convolution's output of an image, a tile of cols, and the image with its border."""
    _, H, W, C = x.shape
    kh, kw, _, K = w.shape
    length = _length(w)
    rows = min(H, max(1, BAND // (W * kh * length)))
    conv = work("conv", (threads(), 1, H, W, K), x.dtype)
    cols = work("cols", (threads(), rows * W, kh * length), x.dtype)
    padded = work("padded", (threads(), (H + kh - 1) * _width(W, kw, C, length)), x.dtype)
    padded[:] = 0
    return conv, cols, padded


@njit
def _width(W, kw, C, length):
    """Elements of a padded row: the last window's `length` still lie inside."""
    return (W + kw - 1) * C + length


@njit
def _im2col(padded, r0, r1, W, C, kh, width, vector, cols):
    """Rows r0 to r1 of output pixels -> cols ((r1 - r0)*W, kh*L); a tuple's length L is known to the compiler."""
    for r in range(r0, r1):
        for c in range(W):
            row = cols[(r - r0) * W + c]
            for i in range(kh):
                src, to = np.uintp((r + i) * width + c * C), np.uintp(i * len(vector))
                for q in range(len(vector)):
                    row[to + np.uintp(q)] = padded[src + np.uintp(q)]


@njit(nogil=True, cache=True)
def _forward(part, parts, conv, cols, padded, x, w, b, y, switches, vector, ch, cw, kh, kw, sh, sw, top, left):
    N, H, W, C = x.shape
    rows, width = len(cols) // W, _width(W, cw, C, len(vector))
    pixels = conv[0].reshape(H * W, len(b))
    first, last = share(N, part, parts)
    for n in range(first, last):
        pad_image(x, n, ch, cw, width, padded)
        for r0 in range(0, H, rows):
            r1 = min(r0 + rows, H)
            _im2col(padded, r0, r1, W, C, ch, width, vector, cols)
            gemm(cols[: (r1 - r0) * W], w, 0, pixels[r0 * W : r1 * W])
        pool_image(conv, 0, b, y, switches, n, kh, kw, sh, sw, top, left)


@njit(nogil=True, cache=True)
def _backward(
    part, parts, signal, cols, padded, x, y, switches, dy, dws, dbs, vector, ch, cw, kh, kw, sh, sw, top, left
):
    N, H, W, C = x.shape
    rows, width = len(cols) // W, _width(W, cw, C, len(vector))
    pixels = signal[0].reshape(H * W, dy.shape[3])
    first, last = share(N, part, parts)
    for n in range(first, last):
        pad_image(x, n, ch, cw, width, padded)
        unpool_image(y, switches, dy, n, signal, 0, dbs[part], kh, kw, sh, sw, top, left)
        for r0 in range(0, H, rows):
            r1 = min(r0 + rows, H)
            _im2col(padded, r0, r1, W, C, ch, width, vector, cols)
            gemm_tn(cols[: (r1 - r0) * W], pixels[r0 * W : r1 * W], 1, dws[part])

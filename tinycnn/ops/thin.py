"""conv -> bias -> relu -> max-pool for few input channels (pixels), in one pass over the images.

An image is copied once inside a border of zeros. A window's row is then kw * C contiguous numbers, and neighbouring
windows start C apart: the convolution of four or six of them at a time is a matrix product whose operand need not be
built (no im2col). The output of an image stays in cache until it is pooled.
"""

import numpy as np

from .kernels import pad_image, pool_image, share
from .parallel import kernel, run, threads
from .simd import LANES, products4, products6, round_up, whole_vectors


def applies(w, stride, padding):
    """Whether a convolution is thin: stride 1, SAME, and a window's row fits a vector."""
    return tuple(stride) == (1, 1) and padding == "SAME" and w.shape[1] * w.shape[2] <= LANES


def forward(x, w, b, y, switches, pool, work, exact):
    """Fill y and switches with the pooled block, always by exact sums; `pool` is (kh, kw, sh, sw, top, left)."""
    _, H, W, C = x.shape
    kh, kw, _, K = w.shape
    columns = round_up(K)
    conv = work("conv", (threads(), (H * W + 6) * columns), x.dtype)  # the last window may be one of six
    padded = work("padded", (threads(), (H + kh - 1) * (W + kw - 1) * C + 6 * C), x.dtype)
    padded[:] = 0
    weights = whole_vectors(w.reshape(kh, kw * C, K))
    run(_forward, x, weights, b, y, switches, kh, kw, *pool, scratch=(conv, padded))


@kernel
def _forward(part, parts, conv, padded, x, w, b, y, switches, ch, cw, kh, kw, sh, sw, top, left):
    N, H, W, C = x.shape
    _, L, K = w.shape
    width, weights = (W + cw - 1) * C, w.reshape(-1)
    offsets = np.empty(ch * L, np.int64)
    for i in range(ch * L):
        offsets[i] = i // L * width + i % L
    image = conv[: H * W * K].reshape(H, W, K)
    near, never = np.empty(y.shape[1:3], np.bool_), x.dtype.type(-1)
    first, last = share(N, part, parts)
    for n in range(first, last):
        pad_image(x, n, ch, cw, width, padded)
        for r in range(H):
            for k in range(0, K, LANES):
                c = 0
                while c < W:
                    o, to = r * width + c * C, (r * W + c) * K + k
                    if W - c <= 4 or W - c == 8:
                        products4(padded, o, C, offsets, weights, k, K, conv, to, K, ch * L, False)
                        c += 4
                    else:
                        products6(padded, o, C, offsets, weights, k, K, conv, to, K, ch * L, False)
                        c += 6
        pool_image(image, b, True, never, near, y, switches, n, kh, kw, sh, sw, top, left)

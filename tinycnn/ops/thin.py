"""conv -> bias -> relu -> max-pool for few input channels (pixels), in one pass over the images.

An image is copied once inside a border of zeros. A window's row is then kw * C contiguous numbers, and neighbouring
windows start C apart: the convolution of four or six of them is a matrix product whose operand need not be built. The
output of an image stays in cache until it is pooled. Its sums are plain: exact.py has nothing to mend.
"""

import numpy as np

from .block import copy_window, pool_image, sum_of_squares
from .kernels import share
from .parallel import kernel, run, threads
from .simd import LANES, products4, products6, round_up, whole_vectors


def forward(x, w, b, y, switches, corner, pool, work):
    """Fill y and switches with the pooled block; `corner` is the padding (top, left), `pool` as in block.py."""
    _, H, W, C = x.shape
    kh, kw, _, K = w.shape
    columns = round_up(K)
    conv = work("conv", (threads(), (H * W + 5) * columns), x.dtype)  # the last window may be the first of six
    padded = work("padded", (threads(), (H + kh - 1) * (W + kw - 1) * C + 5 * C), x.dtype)
    padded[:] = 0
    weights = whole_vectors(w.reshape(kh, kw * C, K))
    run(_forward, x, weights, b, y, switches, (kh, kw), corner, pool, scratch=(conv, padded))


@kernel
def _forward(part, parts, conv, padded, x, w, b, y, switches, window, corner, pool):
    """Windows are taken by four or six, and rows seldom end with the last of them. The rest overrun: they see the next
    row's first pixels, and write where the next row of conv begins, which is computed afterwards and overwrites them.
    Behind the last row both arrays have room for five.
    """
    (N, H, W, C), (kh, kw) = x.shape, window
    _, L, K = w.shape
    width, weights = (W + kw - 1) * C, w.reshape(-1)
    offsets = np.empty(kh * L, np.int64)
    for i in range(kh * L):
        offsets[i] = i // L * width + i % L
    size = sum_of_squares(weights, 0, len(weights))
    first, last = share(N, part, parts)
    for n in range(first, last):
        copy_window(x, n, -corner[0], -corner[1], H + kh - 1, W + kw - 1, padded, 0)
        for r in range(H):
            for k in range(0, K, LANES):
                c = 0
                while c < W:
                    o, to = r * width + c * C, (r * W + c) * K + k
                    if W - c <= 4 or W - c == 8:
                        products4(padded, o, C, offsets, weights, k, K, conv, to, K, kh * L, False)
                        c += 4
                    else:
                        products6(padded, o, C, offsets, weights, k, K, conv, to, K, kh * L, False)
                        c += 6
        odd = not size * sum_of_squares(padded, 0, (H + kh - 1) * width) < np.inf  # else no output is infinite or NaN
        pool_image(conv[: H * W * K].reshape(H, W, K), b, True, odd, None, None, y, switches, n, pool)

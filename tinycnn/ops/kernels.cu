// The GPU's kernels: the same names and arguments as in kernels.py, compiled for `real` = float or double.
//
// Arrays are (N, H, W, C), channels fastest. Every kernel is in gather form: a thread computes whole elements of the
// output, reads what it needs, and nobody else writes there. So there are no atomics, and every sum has a fixed order.
//
// Windowed kernels run with one row of an image per block in y (a loop, as a grid has at most 65535) and the row's
// W * C elements in x: neighbouring threads touch neighbouring addresses. Sizes of one image fit an int; offsets of
// images do not need to, so they are long long.

#define FOR_EACH(i, n) \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < (n); i += (long long)gridDim.x * blockDim.x)
#define FOR_ROWS(row, rows) for (int row = blockIdx.y; row < (rows); row += gridDim.y)

// The output positions r0 <= r < r1 of windows that cover input position h; the same for columns.
__device__ int first_window(int h, int k, int s, int before) { int r = h + before - k + s; return r < 0 ? 0 : r / s; }
__device__ int last_window(int h, int s, int before, int count) { int r = (h + before) / s + 1; return r < count ? r : count; }
__device__ int clip(int v, int size) { return v < 0 ? 0 : v < size ? v : size - 1; }

// -- images and labels -----------------------------------------------------------------------------------------------

extern "C" __global__ void images_to_real(const unsigned char* images, real* x, long long n) {
    FOR_EACH(i, n) x[i] = images[i] / (real)255;
}

extern "C" __global__ void gather_images(const unsigned char* images, const long long* rows, real* x, int count, int size) {
    FOR_ROWS(n, count) {
        const unsigned char* image = images + rows[n] * size;
        FOR_EACH(q, size) x[n * (long long)size + q] = image[q] / (real)255;
    }
}

extern "C" __global__ void gather_labels(const long long* labels, const long long* rows, long long* out, long long count) {
    FOR_EACH(i, count) out[i] = labels[rows[i]];
}

// -- convolution -----------------------------------------------------------------------------------------------------

// cols (N*OH*OW, kh*kw*C): row (n, r, c) is the window that output pixel (r, c) looks at, zero over the border.
// A thread keeps its place in the window and walks along the row: it divides once.
extern "C" __global__ void im2col(const real* x, real* cols, int N, int H, int W, int C, int OH, int OW,
                                  int kh, int kw, int sh, int sw, int top, int left) {
    int length = kh * kw * C, q = blockIdx.x * blockDim.x + threadIdx.x;
    if (q >= length) return;
    int i = q / (kw * C), j = q / C % kw, k = q % C;
    FOR_ROWS(row, N * OH) {
        int n = row / OH, h = row % OH * sh - top + i;
        const real* line = x + ((long long)n * H + h) * W * C + k;
        real* out = cols + (long long)row * OW * length + q;
        for (int c = threadIdx.y; c < OW; c += blockDim.y) {
            int v = c * sw - left + j;
            out[(long long)c * length] = h >= 0 && h < H && v >= 0 && v < W ? line[v * C] : 0;
        }
    }
}

// dx (N, H, W, C) from dcols: the adjoint of im2col; a pixel adds up what the windows that cover it hold for it.
extern "C" __global__ void col2im(const real* dcols, real* dx, int N, int H, int W, int C, int OH, int OW,
                                  int kh, int kw, int sh, int sw, int top, int left) {
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    if (q >= W * C) return;
    int v = q / C, k = q % C, length = kh * kw * C;
    int c0 = first_window(v, kw, sw, left), c1 = last_window(v, sw, left, OW);
    FOR_ROWS(row, N * H) {
        int n = row / H, h = row % H;
        int r1 = last_window(h, sh, top, OH);
        real sum = 0;
        for (int r = first_window(h, kh, sh, top); r < r1; ++r)
            for (int c = c0; c < c1; ++c) {
                int place = (h + top - r * sh) * kw + v + left - c * sw;
                sum += dcols[(((long long)n * OH + r) * OW + c) * length + place * C + k];
            }
        dx[(long long)row * W * C + q] = sum;
    }
}

extern "C" __global__ void add_bias(real* y, const real* b, int K, long long n) {
    FOR_EACH(i, n) y[i] += b[i % K];
}

// -- pooling ---------------------------------------------------------------------------------------------------------

// The first maximum of the window whose corner is (h, v), and its index in the window; padding never wins.
__device__ real pool_window(const real* image, int H, int W, int C, int h, int v, int kh, int kw, int k, int& where,
                            int& first) {
    int i0 = h < 0 ? -h : 0, i1 = h + kh > H ? H - h : kh, j0 = v < 0 ? -v : 0, j1 = v + kw > W ? W - v : kw;
    where = first = i0 * kw + j0;
    real best = image[((h + i0) * W + v + j0) * C + k];
    for (int i = i0; i < i1; ++i)
        for (int j = j0; j < j1; ++j) {
            real value = image[((h + i) * W + v + j) * C + k];
            if (value > best) best = value, where = i * kw + j;
        }
    return best;
}

extern "C" __global__ void maxpool2d(const real* x, real* y, unsigned char* switches, int N, int H, int W, int C, int OH, int OW,
                                     int kh, int kw, int sh, int sw, int top, int left) {
    int q = blockIdx.x * blockDim.x + threadIdx.x, where, first;
    if (q >= OW * C) return;
    FOR_ROWS(row, N * OH) {
        const real* image = x + (long long)(row / OH) * H * W * C;
        long long out = (long long)row * OW * C + q;
        y[out] = pool_window(image, H, W, C, row % OH * sh - top, q / C * sw - left, kh, kw, q % C, where, first);
        switches[out] = where;
    }
}

// Pool a convolution's output, then bias and ReLU: the maximum commutes with both. Where the ReLU turned a window off
// it is all zeros, whose first maximum is its first element.
extern "C" __global__ void pool_image(const real* conv, const real* b, real* y, unsigned char* switches, int N, int H, int W,
                                      int C, int OH, int OW, int kh, int kw, int sh, int sw, int top, int left) {
    int q = blockIdx.x * blockDim.x + threadIdx.x, where, first;
    if (q >= OW * C) return;
    FOR_ROWS(row, N * OH) {
        const real* image = conv + (long long)(row / OH) * H * W * C;
        int h = row % OH * sh - top, v = q / C * sw - left;
        real a = pool_window(image, H, W, C, h, v, kh, kw, q % C, where, first) + b[q % C];
        long long out = (long long)row * OW * C + q;
        y[out] = a <= 0 ? 0 : a;
        switches[out] = a <= 0 ? first : where;
    }
}

// A pixel collects from every window that covers it and whose switch names it.
extern "C" __global__ void unpool2d(const real* dy, const unsigned char* switches, real* dx, int N, int H, int W, int C, int OH,
                                    int OW, int kh, int kw, int sh, int sw, int top, int left) {
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    if (q >= W * C) return;
    int v = q / C, k = q % C, c0 = first_window(v, kw, sw, left), c1 = last_window(v, sw, left, OW);
    FOR_ROWS(row, N * H) {
        int h = row % H, r1 = last_window(h, sh, top, OH);
        real sum = 0;
        for (int r = first_window(h, kh, sh, top); r < r1; ++r)
            for (int c = c0; c < c1; ++c) {
                long long at = (((long long)(row / H) * OH + r) * OW + c) * C + k;
                if (switches[at] == (h + top - r * sh) * kw + v + left - c * sw) sum += dy[at];
            }
        dx[(long long)row * W * C + q] = sum;
    }
}

extern "C" __global__ void unpool2d_repeat(const real* dy, real* dx, int N, int H, int W, int C, int OH, int OW,
                                           int sh, int sw, int top, int left) {
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    if (q >= W * C) return;
    int c = (q / C + left) / sw;
    FOR_ROWS(row, N * H) {
        int r = (row % H + top) / sh;
        long long at = (((long long)(row / H) * OH + r) * OW + c) * C + q % C;
        dx[(long long)row * W * C + q] = r < OH && c < OW ? dy[at] : 0;
    }
}

// The window's centre, moved inside the image at a border, still lies in the window: only those that cover the pixel count.
extern "C" __global__ void unpool2d_center(const real* dy, real* dx, int N, int H, int W, int C, int OH, int OW,
                                           int kh, int kw, int sh, int sw, int top, int left) {
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    if (q >= W * C) return;
    int v = q / C, k = q % C, c0 = first_window(v, kw, sw, left), c1 = last_window(v, sw, left, OW);
    FOR_ROWS(row, N * H) {
        int h = row % H, r1 = last_window(h, sh, top, OH);
        real sum = 0;
        for (int r = first_window(h, kh, sh, top); r < r1; ++r)
            for (int c = c0; c < c1; ++c)
                if (clip(r * sh - top + (kh - 1) / 2, H) == h && clip(c * sw - left + (kw - 1) / 2, W) == v)
                    sum += dy[(((long long)(row / H) * OH + r) * OW + c) * C + k];
        dx[(long long)row * W * C + q] = sum;
    }
}

// -- elementwise -----------------------------------------------------------------------------------------------------

extern "C" __global__ void relu(const real* x, real* y, long long n) {
    FOR_EACH(i, n) y[i] = x[i] <= 0 ? 0 : x[i];  // NaN stays NaN, to be seen in the loss
}

extern "C" __global__ void relu_backward(const real* dy, const real* y, real* dx, int mask, int rectify, long long n) {
    FOR_EACH(i, n) dx[i] = (y[i] > 0 || !mask) && (dy[i] > 0 || !rectify) ? dy[i] : 0;
}

extern "C" __global__ void multiply(const real* a, const real* b, real* out, long long n) {
    FOR_EACH(i, n) out[i] = a[i] * b[i];
}

extern "C" __global__ void add(real* total, const real* a, long long n) {
    FOR_EACH(i, n) total[i] += a[i];
}

// SplitMix64, output i + 1: see reference.py.
extern "C" __global__ void dropout_mask(real* mask, unsigned long long seed, unsigned long long threshold, real factor, long long n) {
    FOR_EACH(i, n) {
        unsigned long long z = seed + (unsigned long long)(i + 1) * 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        z ^= z >> 31;
        mask[i] = (z >> 32) >= threshold ? factor : 0;
    }
}

// -- sums, loss ------------------------------------------------------------------------------------------------------

// sums (parts, K): part p adds up rows p * span to (p + 1) * span of a (rows, K), in that order.
extern "C" __global__ void column_sums(const real* a, real* sums, long long rows, int K, int span) {
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= K) return;
    FOR_ROWS(part, (int)((rows + span - 1) / span)) {
        long long first = (long long)part * span, last = first + span < rows ? first + span : rows;
        real sum = 0;
        for (long long r = first; r < last; ++r) sum += a[r * K + k];
        sums[(long long)part * K + k] = sum;
    }
}

// p (N, K) = softmax of each row, shifted by its maximum so that it never overflows.
extern "C" __global__ void softmax(const real* logits, real* p, int N, int K) {
    FOR_EACH(n, N) {
        const real* z = logits + n * K;
        real top = z[0], sum = 0;
        for (int k = 1; k < K; ++k) top = z[k] > top ? z[k] : top;
        for (int k = 0; k < K; ++k) sum += p[n * K + k] = exp(z[k] - top);
        for (int k = 0; k < K; ++k) p[n * K + k] /= sum;
    }
}

// losses (N,): each row's share of the mean of -log p[label]; dlogits (N, K): the gradient of that mean.
extern "C" __global__ void softmax_cross_entropy(const real* logits, const long long* labels, real* dlogits,
                                                 real* losses, int N, int K) {
    FOR_EACH(n, N) {
        const real* z = logits + n * K;
        real top = z[0], sum = 0;
        for (int k = 1; k < K; ++k) top = z[k] > top ? z[k] : top;
        for (int k = 0; k < K; ++k) sum += exp(z[k] - top);
        for (int k = 0; k < K; ++k) dlogits[n * K + k] = (exp(z[k] - top) / sum - (k == labels[n])) / N;
        losses[n] = (log(sum) - (z[labels[n]] - top)) / N;
    }
}

// -- optimizers ------------------------------------------------------------------------------------------------------

extern "C" __global__ void adam_step(real* p, const real* g, real* m, real* v, real rate, real gain1, real gain2,
                                     real correction2, real eps, long long n) {
    FOR_EACH(i, n) {
        real m1 = m[i] + gain1 * (g[i] - m[i]), v1 = v[i] + gain2 * (g[i] * g[i] - v[i]);
        m[i] = m1;
        v[i] = v1;
        p[i] -= rate * m1 / (sqrt(v1 * correction2) + eps);
    }
}

extern "C" __global__ void sgd_step(real* p, const real* g, real* v, real lr, real momentum, long long n) {
    FOR_EACH(i, n) {
        v[i] = momentum * v[i] + g[i];
        p[i] -= lr * v[i];
    }
}

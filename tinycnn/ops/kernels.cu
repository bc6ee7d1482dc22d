// The GPU's kernels, compiled for `real` = float or double. What is one kernel on the CPU too has the same name there and
// its arrays in the same order, then the sizes, which NumPy's arrays bring along; a convolution is several kernels here.
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

// -- images and labels -----------------------------------------------------------------------------------------------

extern "C" __global__ void images_to_real(const unsigned char* images, real* x, long long n) {
    FOR_EACH(i, n) x[i] = images[i] / (real)255;
}

// moves (count, 3): down, to the right, flipped; see the reference. What comes in at a border is the mirrored image.
__device__ int mirrored(int i, int size) { return size - 1 - abs(size - 1 - abs(i)); }

extern "C" __global__ void gather_images(const unsigned char* images, const long long* rows, const long long* moves,
                                         real* x, int count, int H, int W, int C) {
    int size = H * W * C;
    FOR_ROWS(n, count) {
        const unsigned char* image = images + rows[n] * size;
        const long long* move = moves + 3 * n;
        FOR_EACH(q, size) {
            int k = q % C, v = q / C % W, h = q / C / W;
            if (move[2]) v = W - 1 - v;
            v = mirrored(v - (int)move[1], W);
            h = mirrored(h - (int)move[0], H);
            x[n * (long long)size + q] = image[(h * W + v) * C + k] / (real)255;
        }
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
//
// A kernel asks once for the usual windows, whose sizes the compiler then knows: all loads of one are under way at once.

#define FOR_USUAL_WINDOWS(f, ...) \
    do { \
        if (kh == 3 && kw == 3 && sh == 2 && sw == 2) f<3, 3, 2, 2>(__VA_ARGS__); \
        else if (kh == 2 && kw == 2 && sh == 2 && sw == 2) f<2, 2, 2, 2>(__VA_ARGS__); \
        else f<0, 0, 0, 0>(__VA_ARGS__); \
    } while (0)

struct Pool { int N, H, W, C, OH, OW, kh, kw, sh, sw, top, left; };

// An element as it is compared: of x itself, or, with `rectify`, what bias and ReLU make of the convolution's output. In
// exact numbers the maximum commutes with both; but as they are rounded, elements that differ may tie after the bias.
__device__ real element(real x, real bias, bool rectify) { return !rectify ? x : x + bias <= 0 ? 0 : x + bias; }

// The first maximum of elements i0 <= i < i1, j0 <= j < j1 of a window, and its index in the window in `where`.
__device__ real first_maximum(const real* corner, const Pool& p, int i0, int i1, int j0, int j1, int kw, real bias,
                              bool rectify, int& where) {
    real best = element(corner[(i0 * p.W + j0) * p.C], bias, rectify);
    where = i0 * kw + j0;
#pragma unroll
    for (int i = i0; i < i1; ++i)
#pragma unroll
        for (int j = j0; j < j1; ++j) {
            real value = element(corner[(i * p.W + j) * p.C], bias, rectify);
            if (value > best || (value != value && best == best)) best = value, where = i * kw + j;  // NaN before all
        }
    return best;
}

// Padding never wins: a window that hangs over the border is cut.
template <int KH, int KW, int SH, int SW>
__device__ void pool_row(const real* x, const real* b, bool rectify, real* y, unsigned char* switches, const Pool& p,
                         int q) {
    int k = q % p.C, v = q / p.C * p.sw - p.left, j0 = max(-v, 0), j1 = min(p.W - v, p.kw), where;
    real bias = rectify ? b[k] : 0;
    FOR_ROWS(row, p.N * p.OH) {
        int h = row % p.OH * p.sh - p.top, i0 = max(-h, 0), i1 = min(p.H - h, p.kh);
        const real* corner = x + ((row / p.OH * p.H + h) * (long long)p.W + v) * p.C + k;
        long long out = (long long)row * p.OW * p.C + q;
        if (KH && i1 - i0 == KH && j1 - j0 == KW) y[out] = first_maximum(corner, p, 0, KH, 0, KW, KW, bias, rectify, where);
        else y[out] = first_maximum(corner, p, i0, i1, j0, j1, p.kw, bias, rectify, where);
        switches[out] = where;
    }
}

extern "C" __global__ void maxpool2d(const real* x, real* y, unsigned char* switches, int N, int H, int W, int C,
                                     int OH, int OW, int kh, int kw, int sh, int sw, int top, int left) {
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    Pool p = {N, H, W, C, OH, OW, kh, kw, sh, sw, top, left};
    if (q < OW * C) FOR_USUAL_WINDOWS(pool_row, x, 0, false, y, switches, p, q);
}

// Pool what bias and ReLU make of a convolution's output.
extern "C" __global__ void pool_image(const real* conv, const real* b, real* y, unsigned char* switches, int N, int H,
                                      int W, int C, int OH, int OW, int kh, int kw, int sh, int sw, int top, int left) {
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    Pool p = {N, H, W, C, OH, OW, kh, kw, sh, sw, top, left};
    if (q < OW * C) FOR_USUAL_WINDOWS(pool_row, conv, b, true, y, switches, p, q);
}

// A thread owns the sh x sw pixels that start where a window starts, which that window and those a few strides before it
// cover: pixel (i, j) stands in the window d, e strides before at place (i + d sh, j + e sw), and collects its value if
// its switch says so. The p.N signals dy are several for each of `images` images: signal n is of image n % images.
template <int KH, int KW, int SH, int SW>
__device__ void unpool_row(const real* dy, const unsigned char* switches, real* dx, int images, const Pool& p, int q,
                           int blocks) {
    const int kh = KH ? KH : p.kh, kw = KW ? KW : p.kw, sh = SH ? SH : p.sh, sw = SW ? SW : p.sw;
    int k = q % p.C, c = q / p.C;
    FOR_ROWS(row, p.N * blocks) {
        int n = row / blocks, r = row % blocks;
        long long size = p.OH * p.OW * p.C;
        const real* signal = dy + n * size + k;
        const unsigned char* place = switches + n % images * size + k;
#pragma unroll
        for (int i = 0; i < sh; ++i)
#pragma unroll
            for (int j = 0; j < sw; ++j) {
                int h = r * sh - p.top + i, v = c * sw - p.left + j;
                real sum = 0;
#pragma unroll
                for (int d = 0; i + d * sh < kh; ++d)
#pragma unroll
                    for (int e = 0; j + e * sw < kw; ++e) {
                        if (r - d < 0 || r - d >= p.OH || c - e < 0 || c - e >= p.OW) continue;
                        int at = ((r - d) * p.OW + c - e) * p.C;
                        if (place[at] == (i + d * sh) * kw + j + e * sw) sum += signal[at];
                    }
                if (h >= 0 && h < p.H && v >= 0 && v < p.W) dx[((n * (long long)p.H + h) * p.W + v) * p.C + k] = sum;
            }
    }
}

extern "C" __global__ void unpool2d(const real* __restrict__ dy, const unsigned char* __restrict__ switches,
                                    real* __restrict__ dx, int images, int N, int H, int W, int C, int OH, int OW,
                                    int kh, int kw, int sh, int sw, int top, int left) {
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    Pool p = {N, H, W, C, OH, OW, kh, kw, sh, sw, top, left};
    int across = (W + left + sw - 1) / sw, down = (H + top + sh - 1) / sh;
    if (q < across * C) FOR_USUAL_WINDOWS(unpool_row, dy, switches, dx, images, p, q, down);
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

// What the sum over a window is divided by: `whole`, or, where that is 0, the pixels of the image in it.
__device__ real divisor(int r, int c, int H, int W, int kh, int kw, int sh, int sw, int top, int left, int whole) {
    int h = r * sh - top, v = c * sw - left;
    return whole ? whole : (min(h + kh, H) - max(h, 0)) * (min(v + kw, W) - max(v, 0));
}

extern "C" __global__ void avgpool2d(const real* x, real* y, int N, int H, int W, int C, int OH, int OW, int kh, int kw,
                                     int sh, int sw, int top, int left, int whole) {
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    if (q >= OW * C) return;
    int k = q % C, c = q / C, v0 = max(c * sw - left, 0), v1 = min(c * sw - left + kw, W);
    FOR_ROWS(row, N * OH) {
        int r = row % OH, h0 = max(r * sh - top, 0), h1 = min(r * sh - top + kh, H);
        const real* image = x + row / OH * (long long)H * W * C + k;
        real sum = 0;
        for (int h = h0; h < h1; ++h)
            for (int v = v0; v < v1; ++v) sum += image[(h * W + v) * C];
        y[(long long)row * OW * C + q] = sum / divisor(r, c, H, W, kh, kw, sh, sw, top, left, whole);
    }
}

extern "C" __global__ void avgpool2d_backward(const real* dy, real* dx, int N, int H, int W, int C, int OH, int OW,
                                              int kh, int kw, int sh, int sw, int top, int left, int whole) {
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    if (q >= W * C) return;
    int v = q / C, c0 = first_window(v, kw, sw, left), c1 = last_window(v, sw, left, OW);
    FOR_ROWS(row, N * H) {
        int h = row % H, r1 = last_window(h, sh, top, OH);
        const real* signal = dy + row / H * (long long)OH * OW * C + q % C;
        real sum = 0;
        for (int r = first_window(h, kh, sh, top); r < r1; ++r)
            for (int c = c0; c < c1; ++c)
                sum += signal[(r * OW + c) * C] / divisor(r, c, H, W, kh, kw, sh, sw, top, left, whole);
        dx[(long long)row * W * C + q] = sum;
    }
}

// -- Winograd's minimal filtering, F(4x4, 3x3) ------------------------------------------------------------------------
//
// See winograd.py: a 4 x 4 tile of outputs is a product point by point of 36 points each of a 6 x 6 tile of inputs and
// of the weights. Arrays of points are (36, tiles, channels): 36 matrix products. The adjoint, for the gradient of the
// weights, takes a 4 x 4 tile of the signal to its 36 points.
//
// Each transform is one of these along the columns, then along the rows; a thread does one tile of one channel.

struct Input { static const int in = 6, out = 6;  // B'
    __device__ static void apply(const real* d, real* v) {
        real even1 = d[4] - 4 * d[2], odd1 = d[3] - 4 * d[1], even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
        v[0] = 4 * d[0] - 5 * d[2] + d[4], v[5] = 4 * d[1] - 5 * d[3] + d[5];
        v[1] = even1 + odd1, v[2] = even1 - odd1, v[3] = even2 + odd2, v[4] = even2 - odd2;
    } };
struct Signal { static const int in = 4, out = 6;  // A
    __device__ static void apply(const real* y, real* s) {
        real even1 = y[0] + y[2], odd1 = y[1] + y[3], even2 = y[0] + 4 * y[2], odd2 = 2 * y[1] + 8 * y[3];
        s[0] = y[0], s[5] = y[3];
        s[1] = even1 + odd1, s[2] = even1 - odd1, s[3] = even2 + odd2, s[4] = even2 - odd2;
    } };
struct Output { static const int in = 6, out = 4;  // A'
    __device__ static void apply(const real* m, real* y) {
        real even1 = m[1] + m[2], odd1 = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
        y[0] = m[0] + even1 + even2, y[1] = odd1 + 2 * odd2, y[2] = even1 + 4 * even2, y[3] = odd1 + 8 * odd2 + m[5];
    } };
struct Weights { static const int in = 3, out = 6;  // G
    __device__ static void apply(const real* w, real* u) {
        real even1 = (w[0] + w[2]) / 6, odd1 = w[1] / 6, even2 = w[0] / 24 + w[2] / 6, odd2 = w[1] / 12;
        u[0] = w[0] / 4, u[5] = w[2];
        u[1] = -even1 - odd1, u[2] = -even1 + odd1, u[3] = even2 + odd2, u[4] = even2 - odd2;
    } };
struct WeightsBack { static const int in = 6, out = 3;  // G'
    __device__ static void apply(const real* u, real* w) {
        real both1 = (u[1] + u[2]) / 6, both2 = u[3] + u[4];
        w[0] = u[0] / 4 - both1 + both2 / 24, w[1] = (u[2] - u[1]) / 6 + (u[3] - u[4]) / 12, w[2] = both2 / 6 - both1 + u[5];
    } };

// out (T::out, T::out) = T d T' for d (T::in, T::in)
template <class T>
__device__ void transform(const real* d, real* out) {
    real half[T::out * T::in], column[T::in], result[T::out];
#pragma unroll
    for (int j = 0; j < T::in; ++j) {
#pragma unroll
        for (int i = 0; i < T::in; ++i) column[i] = d[i * T::in + j];
        T::apply(column, result);
#pragma unroll
        for (int i = 0; i < T::out; ++i) half[i * T::in + j] = result[i];
    }
#pragma unroll
    for (int i = 0; i < T::out; ++i) T::apply(half + i * T::in, out + i * T::out);
}

// points (36, N*th*tw, C) of the T::in x T::in windows of x (N, H, W, C) whose corners are at (4 r - top, 4 c - left), one
// for each of the th x tw tiles of the convolution's output
template <class T>
__device__ void to_points(const real* x, real* points, int N, int H, int W, int C, int OH, int OW, int top, int left) {
    int th = (OH + 3) / 4, tw = (OW + 3) / 4, q = blockIdx.x * blockDim.x + threadIdx.x, k = q % C, c = q / C;
    if (q >= tw * C) return;
    FOR_ROWS(row, N * th) {
        int n = row / th, h = row % th * 4 - top, v = c * 4 - left;
        const real* image = x + (long long)n * H * W * C + k;
        real d[T::in * T::in], out[36];
#pragma unroll
        for (int i = 0; i < T::in; ++i)
#pragma unroll
            for (int j = 0; j < T::in; ++j) {
                bool inside = h + i >= 0 && h + i < H && v + j >= 0 && v + j < W;
                d[i * T::in + j] = inside ? image[((h + i) * W + v + j) * C] : 0;
            }
        transform<T>(d, out);
        long long at = (long long)row * tw * C + q, step = (long long)N * th * tw * C;
#pragma unroll
        for (int e = 0; e < 36; ++e) points[e * step + at] = out[e];
    }
}

extern "C" __global__ void winograd_input(const real* x, real* points, int N, int H, int W, int C, int OH, int OW,
                                          int top, int left) {
    to_points<Input>(x, points, N, H, W, C, OH, OW, top, left);
}

extern "C" __global__ void winograd_signal(const real* dy, real* points, int N, int H, int W, int C) {
    to_points<Signal>(dy, points, N, H, W, C, H, W, 0, 0);
}

// y (N, H, W, C) from its points (36, N*th*tw, C)
extern "C" __global__ void winograd_output(const real* points, real* y, int N, int H, int W, int C) {
    int th = (H + 3) / 4, tw = (W + 3) / 4, q = blockIdx.x * blockDim.x + threadIdx.x, k = q % C, c = q / C;
    if (q >= tw * C) return;
    FOR_ROWS(row, N * th) {
        long long at = (long long)row * tw * C + q, step = (long long)N * th * tw * C;
        real m[36], out[16];
#pragma unroll
        for (int e = 0; e < 36; ++e) m[e] = points[e * step + at];
        transform<Output>(m, out);
        real* image = y + (long long)(row / th) * H * W * C + k;
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            int h = row % th * 4 + i / 4, v = c * 4 + i % 4;
            if (h < H && v < W) image[(h * W + v) * C] = out[i];
        }
    }
}

// points (36, C, K) of w (3, 3, C, K); or, to go back, (36, K, C) of the flipped and transposed weights.
extern "C" __global__ void winograd_weights(const real* w, real* points, int C, int flip, long long size) {
    long long K = size / C;
    FOR_EACH(q, size) {
        real d[9], out[36];
#pragma unroll
        for (int i = 0; i < 9; ++i) d[i] = w[(flip ? 8 - i : i) * size + q];
        transform<Weights>(d, out);
        long long at = flip ? q % K * C + q / K : q;
#pragma unroll
        for (int e = 0; e < 36; ++e) points[e * size + at] = out[e];
    }
}

// dw (3, 3, C, K) from the sum of the points' gradients (36, parts, C, K) over the parts
extern "C" __global__ void winograd_weights_back(const real* points, real* dw, int parts, long long size) {
    FOR_EACH(q, size) {
        real d[36], out[9];
#pragma unroll
        for (int e = 0; e < 36; ++e) {
            d[e] = 0;
            for (int p = 0; p < parts; ++p) d[e] += points[(e * parts + p) * size + q];
        }
        transform<WeightsBack>(d, out);
#pragma unroll
        for (int i = 0; i < 9; ++i) dw[i * size + q] = out[i];
    }
}

// -- elementwise -----------------------------------------------------------------------------------------------------

extern "C" __global__ void relu(const real* x, real* y, long long n) {
    FOR_EACH(i, n) y[i] = x[i] <= 0 ? 0 : x[i];  // NaN stays NaN, to be seen in the loss
}

// dy and dx (signals, n), y (n)
extern "C" __global__ void relu_backward(const real* dy, const real* y, real* dx, int mask, int rectify, int signals,
                                         long long n) {
    FOR_ROWS(s, signals) FOR_EACH(i, n) {
        real signal = dy[s * n + i];
        dx[s * n + i] = (y[i] > 0 || !mask) && (signal > 0 || !rectify) ? signal : 0;
    }
}

extern "C" __global__ void multiply(const real* a, const real* b, real* out, long long n) {
    FOR_EACH(i, n) out[i] = a[i] * b[i];
}

extern "C" __global__ void normalize(const real* x, real* y, const real* mean, const real* gamma, const real* variance,
                                     const real* beta, real epsilon, int C, long long n) {
    FOR_EACH(i, n) {
        int k = i % C;
        y[i] = (x[i] - mean[k]) * (gamma[k] / sqrt(variance[k] + epsilon)) + beta[k];
    }
}

// out (n = N*H*W) = max(out, |dx| over colours and signals); dx (signals, N, H, W, C)
extern "C" __global__ void largest(const real* dx, real* out, int signals, int C, long long n) {
    FOR_EACH(i, n) {
        real best = out[i];
        for (int s = 0; s < signals; ++s)
            for (int k = 0; k < C; ++k) {
                real value = dx[(s * n + i) * C + k];
                value = value < 0 ? -value : value;
                best = value > best ? value : best;
            }
        out[i] = best;
    }
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

// losses (N,): each row's share of the mean of -log p[label], p the row's softmax, shifted by its maximum so that it never
// overflows; dlogits (N, K): the gradient of that mean.
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
                                     real correction2, real eps, real shrink, long long n) {
    FOR_EACH(i, n) {
        real m1 = m[i] + gain1 * (g[i] - m[i]), v1 = v[i] + gain2 * (g[i] * g[i] - v[i]);
        m[i] = m1;
        v[i] = v1;
        p[i] = p[i] * shrink - rate * m1 / (sqrt(v1 * correction2) + eps);
    }
}

extern "C" __global__ void sgd_step(real* p, const real* g, real* v, real lr, real momentum, long long n) {
    FOR_EACH(i, n) {
        v[i] = momentum * v[i] + g[i];
        p[i] -= lr * v[i];
    }
}

extern "C" __global__ void average(real* mean, const real* p, real rate, long long n) {
    FOR_EACH(i, n) mean[i] += rate * (p[i] - mean[i]);
}

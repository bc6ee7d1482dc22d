"""Every primitive of every backend against loop-only code, finite differences and adjoint identities."""

import naive
import numpy as np
import pytest
from hosted import BACKENDS, get_ops
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import InputError
from tinycnn.gradcheck import numeric_gradient, relative_error
from tinycnn.ops.geometry import Block
from tinycnn.ops.workspace import Workspace

# float32 rounds at 6e-8 and the sums here have up to some hundred terms; float64 leaves room for another order of sums
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
ADJOINT = 1e-12  # <Ax, y> = <x, A'y> holds exactly but for rounding
DIFFERENCES = 1e-7  # central differences in float64

windows = st.tuples(st.integers(1, 5), st.integers(1, 5))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def cases(draw):
    """A batch, a window, a stride and a padding that fit each other; and a generator for the values."""
    window, stride, mode = draw(windows), draw(strides), draw(st.sampled_from(["SAME", "VALID"]))
    least = window if mode == "VALID" else (1, 1)
    shape = (
        draw(st.integers(1, 9)),
        draw(st.integers(least[0], 9)),
        draw(st.integers(least[1], 9)),
        draw(st.integers(1, 5)),
    )
    return shape, window, stride, mode, np.random.default_rng(draw(st.integers(0, 2**32)))


def make(ops, rng, *shape):
    return ops.asarray(rng.standard_normal(shape))


@pytest.mark.parametrize("backend", BACKENDS, ids="-".join)
@settings(max_examples=25, deadline=None)
@given(case=cases(), K=st.integers(1, 9))
def test_conv2d_is_the_loop_and_its_backwards_are_adjoint(backend, case, K):
    ops, (shape, window, stride, mode, rng) = get_ops(*backend), case
    shape = (min(shape[0], 2), *shape[1:])
    x, w, b = make(ops, rng, *shape), make(ops, rng, *window, shape[3], K), make(ops, rng, K)
    y = ops.conv2d(x, w, b, stride, mode)
    assert relative_error(y, naive.conv2d(x, w, b, stride, mode)) < TOLERANCE[backend[1]]
    if backend[1] == "float64":
        dy = make(ops, rng, *y.shape)
        product = ((y - b) * dy).sum()
        dx = ops.conv2d_backward_data(dy, w, x.shape, stride, mode)
        dw, db = ops.conv2d_backward_weights(x, dy, w.shape, stride, mode)
        scale = np.abs(y - b).sum() * np.abs(dy).max() + 1e-30
        assert abs((x * dx).sum() - product) / scale < ADJOINT
        assert abs((w * dw).sum() - product) / scale < ADJOINT
        assert relative_error(db, dy.sum((0, 1, 2))) < ADJOINT


@pytest.mark.parametrize("backend", BACKENDS, ids="-".join)
@settings(max_examples=25, deadline=None)
@given(case=cases(), ties=st.booleans())
def test_maxpool2d_and_unpools_are_the_loops(backend, case, ties):
    """Values and switches exactly, ties and all-zero windows among them."""
    ops, (shape, window, stride, mode, rng) = get_ops(*backend), case
    x = ops.asarray(np.maximum(rng.integers(-2, 2, shape), 0)) if ties else make(ops, rng, *shape)
    y, switches = ops.maxpool2d(x, window, stride, mode)
    expected, where = naive.maxpool2d(x, window, stride, mode)
    assert switches.dtype == np.uint8
    assert np.array_equal(y, expected) and np.array_equal(switches, where)
    dy = make(ops, rng, *y.shape)
    for how in ("switches", "repeat", "center"):
        dx = ops.unpool2d(dy, switches, x.shape, window, stride, mode, how)
        loop = naive.unpool2d(dy, where, x.shape, window, stride, mode, how)
        assert np.abs(dx - loop).max() < TOLERANCE[backend[1]] * max(np.abs(loop).max(), 1), how


@pytest.mark.parametrize("backend", BACKENDS, ids="-".join)
@settings(max_examples=25, deadline=None)
@given(case=cases(), count_padding=st.booleans())
def test_avgpool2d_is_the_loop_and_its_backward_the_adjoint(backend, case, count_padding):
    ops, (shape, window, stride, mode, rng) = get_ops(*backend), case
    x = make(ops, rng, *shape)
    y = ops.avgpool2d(x, window, stride, mode, count_padding)
    expected, weights = naive.avgpool2d(x, window, stride, mode, count_padding)
    dy = make(ops, rng, *y.shape)
    dx = ops.avgpool2d_backward(dy, x.shape, window, stride, mode, count_padding)
    back = np.zeros(x.shape)
    for output, pixel, weight in weights:
        back[pixel] += weight * float(dy[output])
    for found, loop in ((y, expected), (dx, back)):
        assert found.dtype == ops.dtype and np.abs(found - loop).max() < TOLERANCE[backend[1]] * max(
            np.abs(loop).max(), 1
        )
    if backend[1] == "float64":
        assert abs((y * dy).sum() - (x * dx).sum()) < ADJOINT * max(np.abs(y * dy).sum(), 1)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (7, 3), (300, 1), (0, 2, 2, 3)])
def test_normalize_is_the_loop(ops, shape):
    rng, C = np.random.default_rng(0), shape[-1]
    x, gamma, beta, mean = make(ops, rng, *shape), *(make(ops, rng, C) for _ in range(3))
    variance = ops.asarray(rng.random(C))
    y = ops.normalize(x, gamma, beta, mean, variance, 0.01)
    expected = naive.batch_norm(x, gamma, beta, mean, variance, 0.01)
    assert y.dtype == ops.dtype and y.shape == shape and relative_error(y, expected) < TOLERANCE[str(ops.dtype)]


def test_unpool_is_the_adjoint_of_maxpool(ops64):
    """At fixed switches the pool is linear; overlapping windows add up on the way back."""
    rng = np.random.default_rng(0)
    x = make(ops64, rng, 3, 7, 8, 4)
    y, switches = ops64.maxpool2d(x, (3, 3), (2, 2), "SAME")
    dy = make(ops64, rng, *y.shape)
    dx = ops64.unpool2d(dy, switches, x.shape, (3, 3), (2, 2), "SAME")
    assert abs((y * dy).sum() - (x * dx).sum()) < ADJOINT * np.abs(y * dy).sum()


def test_a_switch_names_the_first_maximum_and_zero_in_a_window_of_zeros(ops):
    x = np.zeros((1, 4, 4, 1))
    x[0, :2, :2, 0] = [[1, 3], [3, 2]]
    _, switches = ops.maxpool2d(ops.asarray(x), (2, 2), (2, 2), "VALID")
    assert switches[0, :, :, 0].tolist() == [[1, 0], [0, 0]]


def test_padding_never_wins_a_pool(ops):
    x = ops.asarray(-np.ones((1, 3, 3, 2)))
    y, _ = ops.maxpool2d(x, (2, 2), (2, 2), "SAME")
    assert (y == -1).all()


def test_a_batch_may_have_more_images_than_a_grid_has_rows(ops):
    x = ops.asarray(np.arange(140_000).reshape(70_000, 1, 2, 1))
    y, switches = ops.maxpool2d(x, (1, 2), (1, 2), "VALID")
    assert np.array_equal(y, x[:, :, 1:]) and (switches == 1).all()
    dx = ops.unpool2d(y, switches, x.shape, (1, 2), (1, 2), "VALID")
    assert np.array_equal(dx[:, :, 1:], y) and not dx[:, :, 0].any()


@pytest.mark.parametrize("N", [6, 40])
@pytest.mark.parametrize("D, K", [(1, 1), (5, 3), (7, 1), (300, 20)])
def test_dense_is_the_loop_and_its_backwards_are_adjoint(ops, N, D, K):
    rng = np.random.default_rng(D)
    x, w, b = make(ops, rng, N, D), make(ops, rng, D, K), make(ops, rng, K)
    y, dy = ops.dense(x, w, b), make(ops, rng, N, K)
    tolerance = TOLERANCE[str(ops.dtype)]
    assert relative_error(y, naive.dense(x, w, b)) < tolerance
    dx, dw, db = ops.dense_backward_data(dy, w), ops.dense_backward_weights(x, dy), ops.column_sums(dy)
    assert relative_error(dx, naive.dense(dy, w.T, np.zeros(D))) < tolerance
    assert relative_error(dw, naive.dense(x.T, dy, np.zeros(K))) < tolerance
    assert relative_error(db, dy.sum(0)) < tolerance


def test_largest_is_the_largest_absolute_value_over_colours_and_signals(ops):
    dx = make(ops, np.random.default_rng(0), 6, 4, 5, 3)  # two signals of three images
    out = ops.asarray(np.full((3, 4, 5), 0.5))
    ops.largest(dx, out)
    assert (out == np.maximum(0.5, np.abs(dx).reshape(2, 3, 4, 5, 3).max((0, 4)))).all()


def test_relu_and_its_backward_rules(ops):
    x = ops.asarray([-2.0, -0.0, 0.0, 1.0, 3.0, 5.0])
    dy = ops.asarray([1.0, 1.0, -1.0, -1.0, 0.0, 2.0])
    y = ops.relu(x)
    assert y.tolist() == [0, 0, 0, 1, 3, 5]
    back = {(m, r): ops.relu_backward(dy, y, m, r).tolist() for m in (False, True) for r in (False, True)}
    assert back[True, False] == [0, 0, 0, -1, 0, 2]  # gradient; nothing passes where x is 0
    assert back[False, True] == [1, 1, 0, 0, 0, 2]  # deconvnet
    assert back[True, True] == [0, 0, 0, 0, 0, 2]  # guided
    assert back[False, False] == dy.tolist()


def test_dropout_keeps_the_mean_and_follows_its_generator(ops):
    mask = ops.dropout_mask((200, 200), 0.3, np.random.default_rng(1))
    assert set(np.unique(mask)) == {ops.dtype.type(0), ops.dtype.type(1 / 0.7)}
    assert abs(mask.mean() - 1) < 0.02
    assert np.array_equal(mask, ops.dropout_mask((200, 200), 0.3, np.random.default_rng(1)))


def test_softmax_cross_entropy_is_the_loop_and_its_gradient_is_right(ops64):
    rng = np.random.default_rng(0)
    logits, labels = make(ops64, rng, 5, 4) * 3, rng.integers(0, 4, 5)
    loss, dlogits = ops64.softmax_cross_entropy(logits, labels)
    assert abs(loss - naive.softmax_cross_entropy(logits, labels)) < 1e-12
    numeric = numeric_gradient(lambda: ops64.softmax_cross_entropy(logits, labels)[0], logits)
    assert relative_error(dlogits, numeric) < DIFFERENCES


def test_softmax_cross_entropy_survives_huge_logits(ops):
    loss, dlogits = ops.softmax_cross_entropy(ops.asarray([[1e4, -1e4, 0], [0, 0, 5e3]]), np.array([0, 2]))
    assert loss == 0 and np.isfinite(dlogits).all()


def test_adam_is_the_published_algorithm(ops):
    gradients, constants = [0.3, -0.2, 0.05, 0.4], (0.01, 0.9, 0.999, 1e-8)
    p, m, v = ops.asarray([1.0]), ops.zeros(1), ops.zeros(1)
    for t, g in enumerate(gradients, 1):
        ops.adam_step(p, ops.asarray([g]), m, v, *constants, t)
    assert abs(p[0] - naive.adam(1.0, gradients, *constants)) < TOLERANCE[str(ops.dtype)]


def test_adams_decay_shrinks_the_weight_by_its_share_and_leaves_the_step_as_it_is(ops):
    found = []
    for decay in (0.0, 0.2):
        p, m, v = ops.asarray([2.0]), ops.zeros(1), ops.zeros(1)
        ops.adam_step(p, ops.asarray([0.3]), m, v, 0.01, 0.9, 0.999, 1e-8, 1, decay)
        found.append(float(p[0]))
    assert abs(found[0] - found[1] - 0.01 * 0.2 * 2.0) < TOLERANCE[str(ops.dtype)]


@pytest.mark.parametrize("N, D, K", [(1, 1, 1), (6, 13, 20), (40, 300, 17)])
def test_adam_on_a_dense_layer_needs_no_gradient_but_the_product(ops, N, D, K):
    rng, constants = np.random.default_rng(D), (0.01, 0.9, 0.999, 1e-8)
    p, m, v = make(ops, rng, D, K), ops.zeros((D, K)), ops.zeros((D, K))
    start, gradients = p.copy(), []
    for t in (1, 2):
        x, dy = make(ops, rng, N, D), make(ops, rng, N, K)
        ops.dense_adam_step(p, x, dy, m, v, *constants, t)
        gradients.append(naive.dense(x.T, dy, np.zeros(K)))
    expected = [naive.adam(start[at], [g[at] for g in gradients], *constants) for at in np.ndindex(D, K)]
    assert relative_error(p, np.reshape(expected, p.shape)) < TOLERANCE[str(ops.dtype)]


def test_column_sums(ops):
    a = make(ops, np.random.default_rng(0), 3, 4, 5)
    assert relative_error(ops.column_sums(a), a.sum((0, 1))) < TOLERANCE[str(ops.dtype)]


def test_a_running_mean_moves_by_its_rate(ops):
    mean = ops.asarray([1.0, -2.0])
    ops.average(mean, ops.asarray([3.0, 2.0]), 0.25)
    assert np.allclose(ops.to_numpy(mean), [1.5, -1.0])


def test_sgd_with_momentum(ops):
    p, v = ops.asarray([1.0]), ops.zeros(1)
    for g in (1.0, 1.0):
        ops.sgd_step(p, ops.asarray([g]), v, 0.1, 0.9)
    assert abs(p[0] - (1 - 0.1 * 1 - 0.1 * 1.9)) < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cpu_agrees_with_the_reference_on_the_studys_shapes(dtype):
    """One image of the largest network: many tiles of cols, bands of rows, and parts."""
    reference, cpu = get_ops("reference", dtype), get_ops("cpu", dtype)
    rng = np.random.default_rng(0)
    for shape, (k, K) in {(1, 96, 96, 3): (5, 96), (3, 48, 48, 96): (3, 96), (2, 14, 14, 32): (5, 64)}.items():
        x, w, b = make(cpu, rng, *shape), make(cpu, rng, k, k, shape[3], K), make(cpu, rng, K)
        dy = make(cpu, rng, *shape[:3], K)
        ours = (
            cpu.conv2d(x, w, b),
            cpu.conv2d_backward_data(dy, w, shape),
            *cpu.conv2d_backward_weights(x, dy, w.shape),
        )
        theirs = (
            reference.conv2d(x, w, b),
            reference.conv2d_backward_data(dy, w, shape),
            *reference.conv2d_backward_weights(x, dy, w.shape),
        )
        for a, e in zip(ours, theirs):
            assert relative_error(a, e) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("N", [1, 9, 10, 100])
@pytest.mark.parametrize("D, K", [(3000, 48), (1500, 33)])
def test_cpu_agrees_with_the_reference_on_large_dense_layers(dtype, N, D, K):
    """Several blocks of packed rows to a part; few images, which take the weights as they lie; ragged columns."""
    reference, cpu = get_ops("reference", dtype), get_ops("cpu", dtype)
    rng = np.random.default_rng(N)
    x, w, b, dy = make(cpu, rng, N, D), make(cpu, rng, D, K), make(cpu, rng, K), make(cpu, rng, N, K)
    ours, theirs = (
        (ops.dense(x, w, b), ops.dense_backward_data(dy, w), ops.dense_backward_weights(x, dy))
        for ops in (cpu, reference)
    )
    for a, e in zip(ours, theirs):
        assert relative_error(a, e) < TOLERANCE[dtype]


def test_uint8_images_become_c_contiguous_values_in_0_to_1(ops):
    images = np.arange(256, dtype=np.uint8).reshape(1, 8, 8, 4).transpose(0, 2, 1, 3)  # as memory-mapped files are
    x = ops.from_images(images)
    assert x.flags.c_contiguous and x.dtype == ops.dtype
    assert np.array_equal(x, (images / np.float64(255)).astype(ops.dtype))


def test_moved_images_are_mirrored_at_their_border(ops):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), np.uint8)
    rows, moves = np.array([2, 0, 2, 3, 1]), np.array([[0, 0, 0], [2, -3, 0], [-4, 6, 1], [0, 1, 1], [3, 0, 1]])
    x = ops.to_numpy(ops.from_images(ops.put(images), ops.put(rows), moves))
    for n, (down, right, flip) in enumerate(moves):
        wide = np.pad(images[rows[n]], ((4, 4), (6, 6), (0, 0)), "reflect")
        moved = wide[4 - down : 9 - down, 6 - right : 13 - right]
        expected = moved[:, ::-1] if flip else moved
        assert np.array_equal(np.round(255 * x[n]), expected), n


def test_a_backend_names_what_it_takes_from_the_reference(backend):
    """So that nothing new runs NumPy unseen."""
    ops, contract = type(get_ops(backend, "float32")), type(get_ops("reference", "float32"))
    if not hasattr(ops, "FROM_REFERENCE"):
        pytest.skip("declares nothing: the reference itself")
    methods = {name for name in vars(contract) if callable(getattr(contract, name)) and not name.startswith("_")}
    assert {name for name in methods if getattr(ops, name) is getattr(contract, name)} == set(ops.FROM_REFERENCE)


@pytest.mark.parametrize("shape, w_shape, stride, padding, expected", [
    ((28, 28, 1), (5, 5, 1, 32), (1, 1), "SAME", ("thin", "sparse", "sparse")),
    ((5, 16, 16, 96), (3, 3, 96, 96), (1, 1), "SAME", ("Winograd", "Winograd", "Winograd")),
    ((16, 16, 96), (3, 3, 96, 96), (1, 1), ((0, 2), (2, 0)), ("Winograd", "Winograd", "Winograd")),
    ((14, 14, 32), (5, 5, 32, 64), (1, 1), "SAME", ("Winograd", "sparse", "Winograd")),
    ((14, 14, 32), (5, 5, 32, 1), (1, 1), "SAME", ("Winograd", "sparse", "sparse")),
    ((14, 14, 32), (3, 5, 32, 64), (1, 1), "SAME", ("layers", "sparse", "sparse")),
    ((28, 28, 1), (5, 5, 1, 32), (1, 1), "VALID", ("layers", "layers", "layers")),
    ((28, 28, 1), (5, 5, 1, 32), (2, 2), "SAME", ("layers", "layers", "layers")),
])  # fmt: skip
def test_the_cpu_says_which_algorithm_serves_which_block(shape, w_shape, stride, padding, expected):
    block = Block(stride, padding, (2, 2), (2, 2), "SAME")
    *found, why = get_ops("cpu", "float32").algorithms(shape, w_shape, block)
    assert tuple(found) == expected and why
    assert get_ops("reference", "float32").algorithms(shape, w_shape, block).forward == "plain NumPy"


@pytest.mark.parametrize("C, k", [(2, 5), (16, 3), (16, 5)])
def test_a_block_may_be_padded_unevenly(C, k):
    """As wide as SAME, but all on one side: forward and both ways back."""
    cpu, reference, rng = get_ops("cpu", "float64"), get_ops("reference", "float64"), np.random.default_rng(0)
    x, w, b = rng.standard_normal((3, 9, 11, C)), rng.standard_normal((k, k, C, 17)), rng.standard_normal(17)
    block = Block((1, 1), ((0, k - 1), (k - 1, 0)), (3, 3), (2, 2), "SAME")
    y, switches = reference.conv_relu_pool(x, w, b, block, None)
    dy, work = rng.standard_normal(y.shape), Workspace(cpu)
    for exact in (False, True):
        for a, e in zip(cpu.conv_relu_pool(x, w, b, block, work, exact), (y, switches)):
            assert np.abs(a - e.astype(float)).max() < 1e-11
    weights, data = (x, w, y, switches, dy, block), (w, y, switches, dy, x.shape, block)
    for a, e in zip(cpu.conv_relu_pool_backward_weights(*weights, work),
                    reference.conv_relu_pool_backward_weights(*weights, None)):  # fmt: skip
        assert relative_error(a, e) < TOLERANCE["float64"]
    for rule in ((True, False), (False, True)):
        dx = cpu.conv_relu_pool_backward_data(*data, *rule, work)
        assert relative_error(dx, reference.conv_relu_pool_backward_data(*data, *rule, None)) < TOLERANCE["float64"]


@pytest.mark.parametrize("name, dtype", [("tpu", "float32"), ("cpu", "float16")])
def test_an_unknown_backend_or_dtype_is_named_with_the_choices(name, dtype):
    with pytest.raises(InputError, match=r"choose one of: .*(cpu|float64)"):
        get_ops(name, dtype)

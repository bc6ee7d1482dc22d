"""TensorFlow at its best on a CPU: tf.function with oneDNN, NHWC; compiled by XLA where that is faster."""

import tensorflow as tf

from tinycnn import layers

from .. import works
from . import WAYS, slices
from . import Side as Base

TILE = 250  # images in one batched way back


class Side(Base):
    """See the package."""

    def __init__(self, name, backend, threads):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        self.version = f"tensorflow {tf.__version__}"

    def formulations(self, kind):
        if kind in works.ATTRIBUTION:
            return ()
        return WAYS if kind in ("saliency", "layerbackprop") else ("graph", "graph, XLA")

    def prepare(self, work, how, net, x, labels):
        p = {name: {k: tf.Variable(a) for k, a in own.items()} for name, own in net.params.items()}
        specs = net.layers  # a closure over `net` would keep its weights alive
        relu = rectified if work.kind == "deconvnet" else tf.nn.relu

        def forward(x):
            return run_layers(specs, p, x, relu, work.upto)

        def compiled(function):
            return tf.function(function, jit_compile=how.endswith("XLA"))

        if work.kind == "train":
            step = compiled(_train(forward, [own[k] for own in p.values() for k in own]))
            x, labels = tf.constant(x), tf.constant(labels)
            return lambda: step(x, labels).numpy()
        if work.kind == "infer":
            logits, x = compiled(forward), tf.constant(x)
            return lambda: logits(x).numpy()
        if work.kind == "deconvnet":
            project = compiled(lambda x: _project(forward, x))
            return lambda: project(tf.constant(x)).numpy()
        if work.kind == "maximize":
            ascend = compiled(lambda x: _ascend(forward, x))

            def maximize():
                image = tf.constant(x)
                for _ in range(works.ITERATIONS):
                    image = ascend(image)
                return image.numpy()

            return maximize
        channels = net.shapes[work.upto or net.layer_names[-1]][-1]
        saliency = tf.function(lambda x: _saliency(forward, how, x, channels))
        parts = [slice(None)] if how == WAYS[0] else slices(len(x), channels, TILE)
        return lambda: tf.concat([saliency(tf.constant(x[some])) for some in parts], 0).numpy()

    def numpy(self, result):
        return result


@tf.custom_gradient
def rectified(x):
    """A deconvnet's ReLU: rectifies on both ways and looks at nothing else."""
    return tf.nn.relu(x), tf.nn.relu


def run_layers(specs, p, x, relu, upto):
    """The network to layer `upto` (None: the logits)."""
    for spec in specs:
        own = p.get(spec.name)
        if isinstance(spec, layers.Conv2D):
            x = tf.nn.bias_add(tf.nn.conv2d(x, own["w"], spec.stride, spec.padding), own["b"])
        elif isinstance(spec, layers.ReLU):
            x = relu(x)
        elif isinstance(spec, layers.MaxPool2D):
            x = tf.nn.max_pool2d(x, spec.window, spec.stride, spec.padding)
        elif isinstance(spec, layers.Flatten):
            x = tf.reshape(x, (x.shape[0], -1))
        elif isinstance(spec, layers.Dense):
            x = tf.nn.bias_add(tf.matmul(x, own["w"]), own["b"])
        if spec.name == upto:
            break
    return x


def _train(forward, params):
    m, v = ([tf.Variable(tf.zeros_like(p)) for p in params] for _ in range(2))
    t = tf.Variable(0.0)

    def step(x, labels):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, forward(x))
            loss = tf.reduce_mean(losses)
        t.assign_add(1)
        b1, b2 = 0.9**t, 0.999**t
        for p, g, m_, v_ in zip(params, tape.gradient(loss, params), m, v):
            tf.raw_ops.ResourceApplyAdam(
                var=p.handle,
                m=m_.handle,
                v=v_.handle,
                beta1_power=b1,
                beta2_power=b2,
                lr=works.LR,
                beta1=0.9,
                beta2=0.999,
                epsilon=1e-8 * tf.sqrt(1 - b2),  # theirs stands before the correction of v, the paper's after it
                grad=g,
            )
        return tf.reshape(loss, (1,))

    return step


def _project(forward, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = forward(x)
    maps = tf.argmax(tf.reduce_sum(y, (1, 2)), 1)
    return tape.gradient(y, x, y * tf.one_hot(maps, y.shape[-1])[:, None, None])


def _ascend(forward, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        scores = tf.reduce_sum(tf.linalg.diag_part(forward(x)))
    return x + works.RATE * tape.gradient(scores, x)


def _saliency(forward, way, x, channels):
    """Largest absolute gradient, over channels and colours, of each channel's sum (N, H, W)."""
    n = x.shape[0]
    if way == "tiled":  # copies of all images for channel 0, then for channel 1, ...
        x = tf.tile(x, (channels, 1, 1, 1))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = forward(x)

    def seed(channel):  # an int, or one for each image
        one = tf.one_hot(channel, channels)
        return tf.broadcast_to(one if y.shape.rank == 2 or way != "tiled" else one[:, None, None], y.shape)

    if way == "tiled":
        g = tf.abs(tape.gradient(y, x, seed(tf.repeat(tf.range(channels), n))))
        return tf.reduce_max(tf.reshape(tf.reduce_max(g, -1), (channels, n, *x.shape[1:3])), 0)
    if way == "batched vjp":
        g = tf.vectorized_map(lambda k: tape.gradient(y, x, seed(k)), tf.range(channels))
        return tf.reduce_max(tf.abs(g), (0, -1))
    largest = tf.zeros(x.shape[:3])
    for k in range(channels):
        with tf.control_dependencies([largest]):  # one after the other: memory for one
            g = tape.gradient(y, x, seed(k))
        largest = tf.maximum(largest, tf.reduce_max(tf.abs(g), -1))
    return largest

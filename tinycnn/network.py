"""A network is a list of layer specs, their arrays, and the primitives of one backend.

    trace = net.forward(x)                                   what every layer left behind
    dx = net.backward(trace, dy, at="relu2", rule="guided")   one traversal; the rule is an argument

    work = net.workspace()
    trace = net.forward(x, work=work)                        the same in fused blocks, for pictures (walk.py)
    largest = net.backward_each(trace)                          the largest signal that any class sends back

Many traces of one network may be alive at once: nothing is stored in it but its parameters.
"""

import contextlib

import numpy as np

from . import rules, streams, walk
from .errors import InputError, check_images, check_photographs, check_whole, choose, is_whole
from .layers import BatchNorm, Conv2D, Dense, multiplied
from .ops import geometry, get_ops
from .ops.workspace import Workspace


class Network:
    """A feed-forward network.

    Parameters
    ----------
    layers : sequence of layer specs
        From `tinycnn.layers`, in order; names must differ.
    input_shape : tuple (H, W, C)
        Of one image.
    backend : "auto", "reference", "cpu" or "gpu"
    seed : int
        Of the initial weights (Glorot-uniform; biases 0): the same for every backend, and up to rounding every dtype.
    dtype : "float32" or "float64"
    meta : dict of str, optional
        Facts about the network that are saved with it: data set, class names, ...

    Attributes
    ----------
    params : dict of dict of array
        `params[layer]["w"]` and `["b"]`; change them in place at will, or assign others of the same shape.
    shapes : dict
        The output shape of each layer, without the batch axis.

    Raises
    ------
    InputError
        Layers that do not fit each other, named.

    Examples
    --------
    >>> from tinycnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU
    >>> net = Network([Conv2D("c", 8), ReLU("r"), MaxPool2D("p"), Flatten("f"), Dense("out", 10)], (8, 8, 1))
    >>> net.shapes["p"]
    (4, 4, 8)
    """

    def __init__(self, layers, input_shape, *, backend="auto", seed=0, dtype="float32", meta=None):
        self.layers = tuple(layers)
        self.layer_names = [layer.name for layer in self.layers]
        bad = [name for name in self.layer_names if not (isinstance(name, str) and name)]
        if bad:
            raise InputError(f"layer {bad[0]!r}: a name is text of at least one letter")
        repeated = {name for name in self.layer_names if self.layer_names.count(name) > 1}
        if repeated or not self.layers:
            raise InputError(f"a network needs layers with different names; repeated: {sorted(repeated)}")
        if not (len(input_shape) == 3 and all(map(is_whole, input_shape))):
            raise InputError(f"input_shape must be (H, W, C), whole numbers of at least 1, got {tuple(input_shape)}")
        self.input_shape = tuple(map(int, input_shape))
        self.ops = get_ops(backend, str(np.dtype(dtype)))
        self.dtype = self.ops.dtype
        self.meta = dict(meta or {})
        self.shapes, self.params, self._param_shapes = {}, {}, {}
        shape = self.input_shape
        for i, layer in enumerate(self.layers):
            self.shapes[layer.name] = layer.output_shape(shape)
            p = layer.init(shape, streams.rng(seed, "weights", i))
            if p:
                self.params[layer.name] = {name: self.ops.asarray(a) for name, a in p.items()}
                self._param_shapes[layer.name] = {name: np.shape(a) for name, a in p.items()}
            shape = self.shapes[layer.name]

    def __repr__(self):
        size = sum(a.size for a in self.arrays().values())
        return f"Network({' '.join(self.layer_names)}; input {self.input_shape}, {size:,} parameters, {self.ops.name})"

    def summary(self):
        """Return a table as text: each layer's output shape, parameters, and how much of the image a unit sees."""
        count = {name: sum(a.size for a in self.params.get(name, {}).values()) for name in self.layer_names}
        rows = [("layer", "output", "parameters", "receptive field"), ("input", _times(self.input_shape), "", "")]
        for name in self.layer_names:
            rows.append((name, _times(self.shapes[name]), f"{count[name]:,}", _times(self.receptive_field(name)[0])))
        return _table([*rows, ("total", "", f"{sum(count.values()):,}", "")], right=2)

    def explain(self):
        """Return a table as text: which algorithm of the backend serves each step of the fast path, and why."""
        rows, shape = [("step", "forward", "gradient of weights", "way back to the input", "because")], self.input_shape
        for step in walk.plan(self.layers, work=self.workspace()):
            if isinstance(step, walk.Block):
                first, last = (self.layer_names.index(name) for name in (step.name, step.output))
                name, w = " ".join(self.layer_names[first : last + 1]), self.params[step.name]["w"]
                rows.append((name, *self.ops.algorithms(shape, w.shape, step.geometry)))
            else:
                rows.append((step.name, "by itself", "", "", ""))
            shape = self.shapes[walk.output(step)]
        return _table(rows)

    def check_params(self):
        """Bring assigned parameters to the backend's dtype and order; raise an InputError where a shape does not fit.

        Every way to the kernels leads through here: they trust shapes, types and order, and do not look again.
        """
        if self.params.keys() != self._param_shapes.keys():
            raise InputError(
                f"params must hold the layers {', '.join(self._param_shapes)}, got {', '.join(self.params)}"
            )
        for layer, shapes in self._param_shapes.items():
            p = self.params[layer]
            if p.keys() != shapes.keys():
                raise InputError(f"params[{layer!r}] must hold {', '.join(shapes)}, got {', '.join(p)}")
            for name, shape in shapes.items():
                a = p[name]
                if _shape(a) != shape or getattr(a, "dtype", np.dtype(float)).kind not in "fiu":
                    raise InputError(
                        f"params[{layer!r}][{name!r}] must be numbers of shape {shape}, got shape {_shape(a)}; "
                        "weights of a convolution are (kh, kw, C, K), of a dense layer (in, out)"
                    )
                p[name] = self.ops.asarray(a)

    def arrays(self):
        """Return all parameters as {"LAYER/NAME": array}, the names that they have in files."""
        self.check_params()
        return {f"{layer}/{k}": a for layer, p in self.params.items() for k, a in p.items()}

    def check_layer(self, name):
        """Return `name` if the network has such a layer; else raise an InputError that lists its layers."""
        return choose(name, self.layer_names, "layer")

    def check_classes(self):
        """Return the number of classes, that of the last layer's units; raise an InputError if it has maps."""
        shape = self.shapes[self.layer_names[-1]]
        if len(shape) != 1:
            raise InputError(
                f"layer {self.layer_names[-1]!r} gives maps, not a value a class; end with Flatten and Dense, or with "
                "GlobalAvgPool2D"
            )
        return shape[0]

    def check_trains(self):
        """Raise an InputError if the network has a layer that is for inference alone."""
        still = [layer.name for layer in self.layers if not layer.trains]
        if still:
            raise InputError(
                f"layer {still[0]!r}: batch normalization is for inference here, and a network that has one is not "
                "trained; train without it, or fold it into the layer before it: net.folded()"
            )

    def folded(self):
        """Return a new network in which each BatchNorm directly after a Conv2D or Dense is folded into that layer.

        With y = s z + t for z = x w + b, the layer's weights become s w and its bias s b + t, computed in float64. The
        layer keeps its name, and outputs what the BatchNorm did, whose name is gone; any other BatchNorm stays.
        """
        layers, params = [], {}
        for layer in self.layers:
            p = {k: self.ops.to_numpy(a) for k, a in self.params.get(layer.name, {}).items()}
            if type(layer) is BatchNorm and layers and type(layers[-1]) in (Conv2D, Dense):
                (s, t), before = layer.affine(p), params[layers[-1].name]
                before["w"], before["b"] = s * before["w"], s * before["b"] + t
            else:
                layers.append(layer)
                params |= {layer.name: p} if p else {}
        net = Network(layers, self.input_shape, backend=self.ops.name, dtype=self.dtype, meta=self.meta)
        net.params = {name: {k: np.array(a, self.dtype) for k, a in p.items()} for name, p in params.items()}
        net.check_params()
        return net

    # -- forward -----------------------------------------------------------------------------------------------

    def workspace(self):
        """Return a place for traces of the fast path; see `forward`."""
        return Workspace(self.ops, exact=True)

    def forward(self, x, upto=None, training=None, work=None):
        """Run a batch through the network and keep what every layer left behind.

        Parameters
        ----------
        x : array (N, H, W, C)
            uint8, divided by 255 on the way in, or float, taken as it is.
        upto : str, optional
            The last layer to compute; default: the logits.
        training : numpy.random.Generator, optional
            Given only in training: dropout draws from it. Without it, dropout does nothing.
        work : Workspace, optional
            From `workspace`: takes the fast path for pictures. A convolution, its ReLU and its pool leave only their
            last output, and only until the next pass with the same `work`; then the trace is outdated, and says so.

        Returns
        -------
        Trace

        Raises
        ------
        InputError
            Images of the wrong shape or dtype, or with NaN; an unknown layer.
        """
        x = check_images(x, self.input_shape, "x")
        upto = self.check_layer(self.layer_names[-1] if upto is None else upto)
        with work.lock if work else contextlib.nullcontext():
            return walk.forward(self, _apart(self._batch(x), x, work), upto, work, training)

    def _batch(self, x):
        """Images as the backend's array; numbers too large for its dtype are refused."""
        if x.dtype.itemsize > self.dtype.itemsize and x.size and np.abs(x).max() > np.finfo(self.dtype).max:
            raise InputError(f"x: values up to {np.abs(x).max():g}, beyond what {self.dtype} holds; scale them")
        return self.ops.from_images(x)

    def features(self, x, layer, batch_size=100):
        """Return a layer's output for any number of images: NumPy in, NumPy out, memory for one batch at a time.

        Parameters
        ----------
        x : array (N, H, W, C)
            As for `forward`.
        layer : str
        batch_size : int

        Returns
        -------
        numpy.ndarray (N, ...)
        """
        x, layer = check_images(x, self.input_shape, "x"), self.check_layer(layer)
        check_whole(batch_size, "batch_size")
        out, work = np.empty((len(x), *self.shapes[layer]), self.dtype), Workspace(self.ops)
        for i in range(0, len(x), batch_size):
            trace = walk.forward(self, self._batch(x[i : i + batch_size]), layer, work)
            out[i : i + batch_size] = self.ops.to_numpy(trace.outputs[layer])
        return out

    def logits(self, x, batch_size=100):
        """Return the last layer's output, (N, classes), for any number of images; see `features`."""
        return self.features(x, self.layer_names[-1], batch_size)

    def predict(self, images):
        """Return the class with the largest logit for each image, int64 (N,); see `predict_proba`."""
        return self._scores(images).argmax(1)

    def predict_proba(self, images):
        """Return the probability of each class, softmax(logits), for any number of images.

        Parameters
        ----------
        images : array (N, H, W, C)
            uint8, or float in [0, 1].

        Returns
        -------
        numpy.ndarray (N, classes)
            Exponentials and sums are float64, the result has the network's dtype.

        Raises
        ------
        InputError
            Images of the wrong shape or dtype, with NaN, or with pixels from 0 to 255 as floats; a network that ends in
            maps.
        """
        logits = self._scores(images).astype(np.float64)
        e = np.exp(logits - logits.max(1, keepdims=True))
        return (e / e.sum(1, keepdims=True)).astype(self.dtype)

    def _scores(self, images):
        self.check_classes()
        return self.logits(check_photographs(images, self.input_shape))

    # -- backward ----------------------------------------------------------------------------------------------

    def backward(self, trace, dy, at=None, rule="gradient", unpool=None, to=None):
        """Send a signal from a layer's output back to the pixels, or to the output of a layer between.

        Parameters
        ----------
        trace : Trace
            Of a forward pass that reached `at`.
        dy : array, shape of ``trace[at]``
            The signal at the output of layer `at`.
        at : str, optional
            Where the signal starts; default: the last layer of the trace.
        rule : "gradient", "deconvnet", "guided", another name in `rules.RULES`, a `rules.Rule`, or {layer: either}
            What the layers do to the signal, layer `at` included; what a mapping does not name takes the gradient.
        unpool : "switches", "repeat" or "center", optional
            What undoes a max-pool; default: the rule's own way.
        to : str, optional
            The layer before `at` (or `at` itself) at whose output the way ends; default: at the pixels.

        Returns
        -------
        numpy.ndarray (N, H, W, C), or of the shape of ``trace[to]``

        Raises
        ------
        InputError
            Unknown layer, rule or unpooling, a signal of the wrong shape, an outdated trace, or one without `to`.
        """
        at = self.check_layer(trace.upto if at is None else at)
        if to is not None:
            trace.check(self.check_layer(to))
            if self.layer_names.index(to) > self.layer_names.index(at):
                raise InputError(f"to: layer {to!r} comes after {at!r}; the way leads back")
        rule = rules.by_layer(rule, self.layer_names, unpool)
        signal = self._signal(trace, dy, at)
        with trace.lock:
            dx = self.ops.to_numpy(walk.backward(self, trace, signal, at, rule, to=to))
            return _apart(dx, dy) if trace.work is None else dx.copy()

    def backward_each(self, trace, at=None, rule="gradient"):
        """Send ones back from each unit (or map) of a layer, one at a time; keep the largest absolute signal.

        Parameters
        ----------
        trace : Trace
            Of the fast path, that reached `at`.
        at : str, optional
            Default: the last layer of the trace.
        rule : str, Rule or mapping
            As for `backward`.

        Returns
        -------
        numpy.ndarray (N, H, W)
            The largest over the units and the colours.
        """
        at = self.check_layer(trace.upto if at is None else at)
        rule = rules.by_layer(rule, self.layer_names)
        with trace.lock:
            return self.ops.to_numpy(walk.backward_each(self, trace, at, rule))

    def param_grads(self, trace, dlogits):
        """Gradients of every parameter for a signal at the logits: {layer: {name: array}}.

        Parameters
        ----------
        trace : Trace
            Of a whole forward pass.
        dlogits : array (N, classes)
            For a loss: its gradient with respect to the logits.

        Raises
        ------
        InputError
            The trace stops before the logits, `dlogits` has another shape, or an outdated trace.
        """
        last, grads = self.layer_names[-1], {}
        dy, rule = self._signal(trace, dlogits, last), rules.by_layer("gradient", self.layer_names)
        with trace.lock:
            walk.backward(self, trace, dy, last, rule, grads)
            grads = {layer: multiplied(self.ops, some) for layer, some in grads.items()}
            if trace.work:
                grads = {layer: {k: g.copy() for k, g in some.items()} for layer, some in grads.items()}
        return grads

    def _signal(self, trace, dy, at):
        """The signal at a layer as an array of the backend."""
        trace.check(at)
        shape = tuple(trace.outputs[at].shape)
        given = _shape(dy)
        if given != shape:
            raise InputError(f"the signal at {at!r} must have that layer's shape {shape}, got {given}")
        return self.ops.asarray(dy)

    # -- geometry ----------------------------------------------------------------------------------------------

    def receptive_field(self, layer):
        """What part of the image a unit of `layer` sees.

        Returns
        -------
        size, stride, offset : tuple (vertical, horizontal), in pixels
            Unit (i, j) sees rows offset + stride * i to that + size - 1 (columns likewise); parts may hang over the
            border, where padding is. A dense layer's unit sees the whole image (stride 0).
        """
        self.check_layer(layer)
        size, stride, offset, shape = [1, 1], [1, 1], [0, 0], self.input_shape
        for spec in self.layers[: self.layer_names.index(layer) + 1]:
            if hasattr(spec, "window"):
                pads = geometry.windows(shape, spec.window, spec.stride, spec.padding)[2:]
                for axis in (0, 1):
                    size[axis] += (spec.window[axis] - 1) * stride[axis]
                    offset[axis] -= pads[axis] * stride[axis]
                    stride[axis] *= spec.stride[axis]
            shape = self.shapes[spec.name]
            if len(shape) == 1:
                return self.input_shape[:2], (0, 0), (0, 0)
        return tuple(size), tuple(stride), tuple(offset)

    # -- files -------------------------------------------------------------------------------------------------

    def save(self, path):
        """Write weights, layer specs and `meta` to a safetensors file; see `tinycnn.checkpoint`."""
        from . import checkpoint

        checkpoint.save_network(self, path)

    @classmethod
    def load(cls, path, backend="auto"):
        """Read a network that `save` wrote; see `tinycnn.checkpoint`."""
        from . import checkpoint

        return checkpoint.load_network(path, backend)


def _times(sizes):
    return " x ".join(map(str, sizes))


def _shape(a):
    return tuple(a.shape if hasattr(a, "shape") else np.shape(a))


def _apart(a, given, work=None):
    """An array made of what a caller gave, or a copy where it is the same memory: the caller may change that."""
    both = isinstance(a, np.ndarray) and isinstance(given, np.ndarray)
    if not (a is given or (both and np.may_share_memory(a, given))):
        return a
    own = a.copy() if work is None else work("x", a.shape, a.dtype)
    if work is not None:
        own[...] = a
    return own


def _table(rows, right=None):
    """Rows of words as text, in columns; the words of column `right` stand at its right."""
    sizes = [max(map(len, column)) for column in zip(*rows)]
    lines = [[f"{word:{'>' if i == right else '<'}{n}}" for i, (word, n) in enumerate(zip(row, sizes))] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)

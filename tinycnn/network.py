"""A network is a list of layer specs, their arrays, and the primitives of one backend.

    trace = net.forward(x)                                   what every layer left behind
    dx = net.backward(trace, dy, at="relu2", rule="guided")   one traversal; the rule is an argument

    work = net.workspace()
    trace = net.forward(x, work=work)                        the fast path of fused.py, for pictures
    largest = net.backward_each(trace)                          the largest signal that any class sends back

Gradient, deconvnet and guided backprop are the same walk back through the same caches; only the ReLU differs
(rules.py). Many traces of one network may be alive at once: nothing is stored in it but its parameters.
"""

import numpy as np

from . import fused, rules, streams
from .errors import InputError, check_images, check_photographs, choose
from .ops import geometry, get_ops


class Trace:
    """What one forward pass left behind: `trace[layer]` is that layer's output, as a NumPy array.

    Attributes
    ----------
    x : array (N, H, W, C)
        The input, as the backend saw it.
    upto : str
        The last layer that was computed.
    steps, outputs, caches : dict
        By layer: the spec, the backend's output array, and what the way back needs. On the fast path the layers of a
        block are one step, under the name of its last.
    work : Workspace or None
        Where a trace of the fast path lives.
    """

    def __init__(self, ops, x, work=None):
        self.ops, self.x, self.upto, self.work = ops, x, None, work
        self.steps, self.outputs, self.caches = {}, {}, {}

    def __len__(self):
        return len(self.x)

    def __getitem__(self, layer):
        if layer not in self.outputs:
            raise InputError(f"the trace has no layer {layer!r}; it holds: {', '.join(self.outputs)}")
        return self.ops.to_numpy(self.outputs[layer])


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
        `params[layer]["w"]` and `["b"]`; change them in place at will.
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
        repeated = {name for name in self.layer_names if self.layer_names.count(name) > 1}
        if repeated or not self.layers:
            raise InputError(f"a network needs layers with different names; repeated: {sorted(repeated)}")
        self.input_shape = tuple(int(v) for v in input_shape)
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise InputError(f"input_shape must be (H, W, C), all >= 1, got {tuple(input_shape)}")
        self.ops = get_ops(backend, str(np.dtype(dtype)))
        self.dtype = self.ops.dtype
        self.meta = dict(meta or {})
        self.shapes, self.params = {}, {}
        shape = self.input_shape
        for i, layer in enumerate(self.layers):
            self.shapes[layer.name] = layer.output_shape(shape)
            p = layer.init(shape, streams.rng(seed, "weights", i))
            if p:
                self.params[layer.name] = {name: self.ops.asarray(a) for name, a in p.items()}
            shape = self.shapes[layer.name]

    def __repr__(self):
        size = sum(a.size for p in self.params.values() for a in p.values())
        return f"Network({' '.join(self.layer_names)}; input {self.input_shape}, {size:,} parameters, {self.ops.name})"

    def summary(self):
        """Return a table as text: each layer's output shape, parameters, and how much of the image a unit sees."""
        count = {name: sum(a.size for a in self.params.get(name, {}).values()) for name in self.layer_names}
        rows = [("layer", "output", "parameters", "receptive field"), ("input", _times(self.input_shape), "", "")]
        for name in self.layer_names:
            rows.append((name, _times(self.shapes[name]), f"{count[name]:,}", _times(self.receptive_field(name)[0])))
        rows.append(("total", "", f"{sum(count.values()):,}", ""))
        v, w, x, _ = (max(map(len, column)) for column in zip(*rows))
        return "\n".join(f"{a:<{v}}  {b:<{w}}  {c:>{x}}  {d}".rstrip() for a, b, c, d in rows)

    def check_layer(self, name):
        """Return `name` if the network has such a layer; else raise an InputError that lists its layers."""
        return choose(name, self.layer_names, "layer")

    def check_classes(self):
        """Return the number of classes, that of the last layer's units; raise an InputError if it has maps."""
        shape = self.shapes[self.layer_names[-1]]
        if len(shape) != 1:
            raise InputError(
                f"layer {self.layer_names[-1]!r} gives maps, not a value a class; end with Flatten and Dense"
            )
        return shape[0]

    # -- forward -----------------------------------------------------------------------------------------------

    def workspace(self):
        """Return a place for traces of the fast path; see `forward`."""
        return fused.Workspace(self.ops)

    def forward(self, x, upto=None, rng=None, work=None):
        """Run a batch through the network and keep what every layer left behind.

        Parameters
        ----------
        x : array (N, H, W, C)
            uint8, divided by 255 on the way in, or float, taken as it is.
        upto : str, optional
            The last layer to compute; default: the logits.
        rng : numpy.random.Generator, optional
            Given only in training: dropout draws from it. Without it, dropout does nothing.
        work : Workspace, optional
            From `workspace`: takes the fast path for pictures. A convolution, its ReLU and its pool leave only their
            last output, and only until the next pass with the same `work`.

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
        x = y = self.ops.from_images(x)
        trace = Trace(self.ops, x, work)
        steps = self.layers[: self.layer_names.index(upto) + 1] if work is None else fused.plan(self.layers, upto, True)
        for step in steps:
            p, name = self.params.get(step.name), step.name
            if isinstance(step, fused.Block):
                name = step.output
                y, trace.caches[name] = step.forward(self.ops, p, y, work, exact=True)
            else:
                y, trace.caches[name] = step.forward(self.ops, p, y, rng)
            trace.steps[name], trace.outputs[name] = step, y
        trace.upto = upto
        return trace

    def logits(self, x, batch_size=100):
        """The last layer's output for any number of images: NumPy in, NumPy out, memory for one batch at a time.

        Parameters
        ----------
        x : array (N, H, W, C)
            As for `forward`.
        batch_size : int

        Returns
        -------
        numpy.ndarray (N, classes)

        Raises
        ------
        InputError
            As for `forward`.
        """
        x = check_images(x, self.input_shape, "x")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        out, work = np.empty((len(x), *self.shapes[self.layer_names[-1]]), self.dtype), self.workspace()
        for i in range(0, len(x), batch_size):
            batch = self.ops.from_images(x[i : i + batch_size])
            out[i : i + batch_size] = self.ops.to_numpy(fused.forward(self, batch, work)[0])
        return out

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

    def backward(self, trace, dy, at=None, rule="gradient", unpool=None):
        """Send a signal from a layer's output back to the pixels.

        Parameters
        ----------
        trace : Trace
            Of a forward pass that reached `at`.
        dy : array, shape of ``trace[at]``
            The signal at the output of layer `at`.
        at : str, optional
            Where the signal starts; default: the last layer of the trace.
        rule : "gradient", "deconvnet", "guided", another name in `rules.RULES`, or a `rules.Rule`
            What a ReLU does to the signal; that of layer `at` itself included, if it is one.
        unpool : "switches", "repeat" or "center", optional
            What undoes a max-pool; default: the rule's own way.

        Returns
        -------
        numpy.ndarray (N, H, W, C)

        Raises
        ------
        InputError
            Unknown layer, rule or unpooling, or a signal of the wrong shape.
        """
        at = self.check_layer(trace.upto if at is None else at)
        rule = rules.get_rule(rule, unpool)
        self._check_signal(trace, dy, at)
        dx = self.ops.to_numpy(fused.backward(self, trace, self.ops.asarray(dy), at, rule))
        return dx if trace.work is None else dx.copy()

    def backward_each(self, trace, at=None, rule="gradient"):
        """Send ones back from each unit (or map) of a layer, one at a time; keep the largest absolute signal.

        Parameters
        ----------
        trace : Trace
            Of the fast path, that reached `at`.
        at : str, optional
            Default: the last layer of the trace.
        rule : str or Rule
            As for `backward`.

        Returns
        -------
        numpy.ndarray (N, H, W)
            The largest over the units and the colours.

        Raises
        ------
        InputError
            Unknown layer or rule; a trace that keeps every layer.
        """
        at = self.check_layer(trace.upto if at is None else at)
        trace[at]  # raises, naming the layers that there are
        if trace.work is None:
            raise InputError("backward_each takes a trace of the fast path: forward(x, work=net.workspace())")
        return self.ops.to_numpy(fused.backward_each(self, trace, at, rules.get_rule(rule)))

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
            The trace stops before the logits, or `dlogits` has another shape.
        """
        self._check_signal(trace, dlogits, self.layer_names[-1])
        if trace.work is not None:
            raise InputError("a trace of the fast path does not keep what gradients of the parameters need")
        rule, dy, grads = rules.RULES["gradient"], self.ops.asarray(dlogits), {}
        first = next((i for i, name in enumerate(self.layer_names) if name in self.params), len(self.layers))
        for i in range(len(self.layers) - 1, first - 1, -1):
            layer = self.layers[i]
            p, cache = self.params.get(layer.name), trace.caches[layer.name]
            if p:
                grads[layer.name] = layer.param_grads(self.ops, p, cache, dy)
            if i > first:
                dy = layer.backward(self.ops, p, cache, dy, rule)
        return grads

    def _check_signal(self, trace, dy, at):
        if at not in trace.outputs:
            trace[at]  # raises, naming the layers that there are
        shape = tuple(trace.outputs[at].shape)
        given = tuple(dy.shape if hasattr(dy, "shape") else np.shape(dy))
        if given != shape:
            raise InputError(f"the signal at {at!r} must have that layer's shape {shape}, got {given}")

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

"""Softmax cross-entropy, its gradients, and accuracy.

loss = mean over the batch of -log softmax(logits)[label],   d loss / d logits = (softmax(logits) - onehot(label)) / N
"""

from . import walk
from .rules import RULES


def loss_and_grads(net, x, labels, work=None, training=None, loss=None):
    """Return (mean loss in nats, {layer: {name: its gradient}}) of a batch and its labels; see `walk.forward`.

    The loss is a number, or, where an array of one element is given as `loss`, that array, for which a device need not
    wait. The gradient of a dense layer's weights, the largest of all, is a `layers.Product`, which `optim.step`
    multiplies out as it goes.
    """
    trace, grads = walk.forward(net, x, work=work, training=training), {}
    loss, dlogits = net.ops.softmax_cross_entropy(trace.outputs[trace.upto], labels, loss)
    walk.backward(net, trace, dlogits, trace.upto, dict.fromkeys(net.layer_names, RULES["gradient"]), grads)
    return loss, grads


def accuracy(logits, labels):
    """Return the share of the rows of `logits` (N, classes) whose largest entry is at `labels` (N,)."""
    return float((logits.argmax(1) == labels).mean())

"""Softmax cross-entropy and accuracy.

loss = mean over the batch of -log softmax(logits)[label],   d loss / d logits = (softmax(logits) - onehot(label)) / N
"""

from .errors import check_labels


def softmax_cross_entropy(ops, logits, labels):
    """Return (mean loss, its gradient with respect to the logits).

    Parameters
    ----------
    ops : Ops
        The primitives of a backend.
    logits : array (N, classes)
    labels : integer array (N,)
        In [0, classes).

    Returns
    -------
    loss : float
        In nats.
    dlogits : array (N, classes)

    Raises
    ------
    InputError
        Labels of the wrong shape, dtype or range.
    """
    labels = check_labels(labels, *logits.shape)
    return ops.softmax_cross_entropy(logits, labels)


def accuracy(logits, labels):
    """Return the share of the rows of `logits` (N, classes) whose largest entry is at `labels` (N,)."""
    return float((logits.argmax(1) == labels).mean())

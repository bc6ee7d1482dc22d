"""Training: batches drawn at random, softmax cross-entropy, an optimizer; checkpoints that lose nothing.

Every random number (batches, dropout, augmentation) comes from a generator made from the seed and the step's number
(streams.py), so a checkpoint needs none: a run that is interrupted, also by kill -9, and resumed ends with the same
bytes as one that was not.

What gets further in fewer steps, each switched on by itself: a one-cycle schedule of the rate (optim.py), weight decay
(`optim.Adam`), dropout (`models.build`), images flipped and moved (`Augment`), and a running mean of the weights.
"""

import contextlib
import dataclasses
import math
import signal
import threading
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

import msgspec
import numpy as np

from . import checkpoint as checkpoints
from . import optim, streams
from .errors import PIXELS, InputError, check_images, check_labels, check_seed, check_whole, choose
from .losses import accuracy, loss_and_grads
from .ops.workspace import Workspace
from .progress import bar as progress_bar

READ_EVERY = 10  # steps between readings of the losses: a device works on meanwhile
AVERAGE_EVERY = 5  # steps between updates of the weights' running mean
TRAIN_SAMPLE = 2000  # training images, the same ones each time, on which the training accuracy is measured


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C, after the checkpoint was written."""


@dataclass(frozen=True)
class Augment:
    """Shows each image of a batch changed at random.

    Parameters
    ----------
    shift : int
        Up to so many pixels up, down, left and right; the image is mirrored at its border.
    flip : bool
        Half of the images left to right.
    """

    shift: int = 0
    flip: bool = False

    def draw(self, rng, count):
        """Return moves (count, 3) as `Ops.from_images` takes them, or None if nothing is to change."""
        if not (self.shift or self.flip):
            return None
        moves = rng.integers(-self.shift, self.shift + 1, (count, 3))
        moves[:, 2] = rng.integers(0, 2, count) if self.flip else 0
        return moves


@dataclass(repr=False)
class History:
    """What happened: `losses` after every step; accuracies at `eval_steps` (counted in steps done)."""

    losses: list[float] = field(default_factory=list)
    eval_steps: list[int] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)

    @property
    def steps(self):
        """The number of steps done."""
        return len(self.losses)

    @property
    def best(self):
        """Which measurement had the highest validation accuracy, the last one where several had it."""
        return len(self.val_accuracy) - 1 - int(np.argmax(self.val_accuracy[::-1]))

    def __repr__(self):
        loss = f", last loss {self.losses[-1]:.4f}" if self.losses else ""
        parts = [("training", self.train_accuracy), ("validation", self.val_accuracy)]
        return f"History({self.steps:,} steps{loss}{''.join(f', {k} {a[-1]:.1%}' for k, a in parts if a)})"

    def to_dict(self):
        """Return the four lists by name."""
        return dataclasses.asdict(self)


def fit(
    net, images, labels, val=None, *, steps=1000, batch_size=100, optimizer="adam", lr=1e-4, seed=0,
    schedule="constant", augment=Augment(), average=0, keep="last", frozen=(),
    eval_every=100, checkpoint=None, checkpoint_every=None, resume=False, progress=True,
):  # fmt: skip
    """Train a network in place.

    Parameters
    ----------
    net : Network
    images : uint8 array (N, H, W, C)
        May be memory-mapped; a batch is gathered at a time.
    labels : integer array (N,)
    val : (images, labels), optional
        Validation data; its accuracy is measured on all of it.
    steps : int
        Steps in total, those before a resume included.
    batch_size : int
        Drawn at random, without replacement within a batch.
    optimizer : "adam", "sgd" or an object of `tinycnn.optim`
        A name takes `lr`; an object has its own.
    lr : float
    seed : int
        Of the batches, of dropout and of `augment`.
    schedule : "constant" or "one-cycle"
        Of the rate: see `optim.at_step`.
    augment : Augment
        How the images of a batch are changed; default: not at all.
    average : int
        If not 0: the network is measured, and at the end left, with the running mean of its weights over about so
        many of its last steps (Polyak and Juditsky 1992, with exponential weights).
    keep : "last" or "best"
        With which parameters the network is left: those of the last step, or of the measurement with the highest
        accuracy on `val` (`History.best`).
    frozen : sequence of str
        Layers whose parameters stay as they are.
    eval_every : int
        Steps between measurements of the accuracy (and at the start and the end).
    checkpoint : path, optional
        Where to keep the state; written atomically.
    checkpoint_every : int, optional
        Steps between checkpoints; default: `eval_every`. One is always written at the end.
    resume : bool
        Go on from `checkpoint` if it exists. At a constant rate `steps` may be more than it was made for, never fewer
        than it has.
    progress : bool
        Show a progress bar.

    Returns
    -------
    History

    Raises
    ------
    InputError
        Data that do not fit the network, a checkpoint of other settings or data or of more steps, or a loss that is no
        longer finite (the last good checkpoint is kept).
    Interrupted
        Ctrl-C was pressed; the checkpoint holds everything up to then.
    """
    classes = net.check_classes()
    net.check_trains()
    labels = _check_training_data(net, images, labels, classes, "images", "labels")
    if val is not None:
        val = val[0], _check_training_data(net, *val, classes, "val images", "val labels")
    choose(schedule, optim.SCHEDULES, "schedule")
    if choose(keep, ("last", "best"), "keep") == "best" and val is None:
        raise InputError("keep: the best step is that with the highest accuracy on val, and there is none; give val")
    for layer in frozen:
        choose(layer, net.params, "frozen layer")
    steps, eval_every = check_whole(steps, "steps"), check_whole(eval_every, "eval_every")
    every = eval_every if checkpoint_every is None else check_whole(checkpoint_every, "checkpoint_every")
    shift, largest = check_whole(augment.shift, "augment.shift", 0), min(net.input_shape[:2]) - 1
    if shift > largest:
        raise InputError(f"augment.shift: at most {largest} pixels on images of this size, got {shift}")
    if check_whole(batch_size, "batch_size") > len(images):
        raise InputError(f"batch_size <= {len(images)} (the number of images) is needed, got {batch_size}")
    augment, optimizer = Augment(shift, bool(augment.flip)), optim.get_optimizer(optimizer, lr)
    settings = {
        "optimizer": {"type": type(optimizer).__name__, **dataclasses.asdict(optimizer)},
        "batch_size": int(batch_size),
        "seed": check_seed(seed),
        "images": len(images),
        "schedule": [schedule, steps] if schedule != "constant" else schedule,
        "augment": dataclasses.asdict(augment),
        "average": check_whole(average, "average", 0),
        "keep": keep,
        "frozen": list(frozen),
    }
    if checkpoint is not None:  # nobody else asks which data they were
        sets = {"images": images, "labels": labels}
        sets |= {} if val is None else {"val images": val[0], "val labels": val[1]}
        settings["checksums"] = {name: _crc32(a) for name, a in sets.items()}
    run = _Run(net, optimizer, settings, checkpoint)
    if checkpoint is not None and resume and Path(checkpoint).exists():
        run.restore(steps, eval_every)
    stored, stored_labels = net.ops.put(images), net.ops.put(labels)
    sample = streams.rng(0, "training accuracy").permutation(len(images))[:TRAIN_SAMPLE]
    sample.sort()

    def evaluate():
        run.history.eval_steps.append(run.history.steps)
        with run.using(run.mean):
            run.history.train_accuracy.append(accuracy(net.logits(images[sample]), labels[sample]))
            if val is not None:
                run.history.val_accuracy.append(accuracy(net.logits(val[0]), val[1]))
                run.keep_best(run.done % eval_every == 0)

    quiet = None if progress else True
    bar = progress_bar(total=steps, initial=run.history.steps, desc="training", unit="step", disable=quiet)
    with bar, _interrupt() as interrupted:
        if run.history.steps == 0:
            evaluate()
        while run.done < steps and not interrupted.is_set():
            run.step(stored, stored_labels, augment, optim.at_step(optimizer, schedule, run.done + 1, steps))
            done = run.done
            if done % eval_every == 0 or done == steps:
                run.read_losses()
                evaluate()
            if checkpoint is not None and (done % every == 0 or done == steps):
                run.save()
            h = run.history
            shown = {k: f"{a[-1]:.1%}" for k, a in (("train", h.train_accuracy), ("val", h.val_accuracy)) if a}
            bar.set_postfix({"loss": f"{h.losses[-1]:.3f}" if h.losses else "", **shown}, refresh=False)
            bar.update()
    if run.done < steps:
        if checkpoint is not None:
            run.save()
        kept = "no checkpoint was asked for" if checkpoint is None else f"{checkpoint} holds them"
        raise Interrupted(f"stopped after {run.done} of {steps} steps; {kept}")
    for k, p in net.arrays().items() if run.reported else ():
        p[...] = run.reported[k]
    return run.history


def started(checkpoint):
    """Return (steps done, schedule) of a `checkpoint`.

    The schedule is "constant" or [name, steps in all]. A file that holds no whole state of training is an InputError.
    """
    _, _, settings, history = _read(checkpoint)
    return history.steps, settings["schedule"]


class _Settings(TypedDict):
    """What a checkpoint must say of its training, besides what the next one compares."""

    schedule: Literal["constant"] | tuple[Literal[optim.SCHEDULES], int]
    checksums: dict[str, int]


def _read(path):
    """Return (header, tensors, settings, `History`) of a checkpoint; an InputError if it holds no whole state."""
    header, tensors = checkpoints.read(path)
    if not header["training"]:
        raise InputError(f"{path}: holds weights, but no state of training to resume; choose another file")
    broken = InputError(f"{path}: its state of training is not whole; remove it, or start anew without resuming")
    try:
        settings = header["training"]["settings"]
        msgspec.convert(settings, _Settings)
        lists = {k: tensors[f"history/{k}"].tolist() for k in History().to_dict()}
        lists["eval_steps"] = [int(v) for v in lists["eval_steps"]]
        history = msgspec.convert(lists, History)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, OverflowError) as e:
        raise broken from e
    measured = len(history.eval_steps)
    whole = measured and measured == len(history.train_accuracy) and len(history.val_accuracy) in (0, measured)
    if not (whole and all(math.isfinite(v) for some in lists.values() for v in some)):
        raise broken
    return header, tensors, settings, history


class _Run:
    """The state of a training run, and how it is saved."""

    def __init__(self, net, optimizer, settings, path):
        self.net, self.optimizer, self.settings, self.path = net, optimizer, settings, path
        start = net.arrays().items()
        self.state = optimizer.init(net.ops, net.params)
        self.mean = {k: p.copy() for k, p in start} if settings["average"] else {}
        self.best = {k: p.copy() for k, p in start} if settings["keep"] == "best" else {}
        self.last_is_best = False
        self.history = History()
        self.work = Workspace(net.ops)
        self.losses, self.done = net.ops.zeros(READ_EVERY), 0

    @property
    def reported(self):
        """The parameters that the network is left with, where they are not those of the last step."""
        return self.best if self.best and not self.last_is_best else self.mean

    @contextlib.contextmanager
    def using(self, other):
        """Context in which the network has `other` parameters, if there are any."""
        params = self.net.params
        if other:
            self.net.params = {layer: {k: other[f"{layer}/{k}"] for k in p} for layer, p in params.items()}
        try:
            yield
        finally:
            self.net.params = params

    def keep_best(self, in_turn):
        """Keep the parameters that were just measured, if none were better.

        A last step out of turn is the best only if training ends there: a longer run does not measure it.
        """
        better = bool(self.best) and self.history.best == len(self.history.val_accuracy) - 1
        self.last_is_best = better and not in_turn
        if better and in_turn:
            for k, p in self.net.arrays().items():
                self.best[k][...] = self.mean.get(k, p)

    def step(self, images, labels, augment, optimizer):
        ops, unread = self.net.ops, self.done - self.history.steps
        loss = self.losses[unread : unread + 1]
        self.done += 1
        batches, moves, dropout = (
            streams.rng(self.settings["seed"], purpose, self.done) for purpose in ("batches", "augment", "dropout")
        )
        batch = batches.choice(len(images), self.settings["batch_size"], replace=False)
        moves, batch = augment.draw(moves, len(batch)), ops.put(batch)
        x, labels = ops.from_images(images, batch, moves), ops.take(labels, batch)
        _, grads = loss_and_grads(self.net, x, labels, self.work, dropout, loss)
        grads = {layer: g for layer, g in grads.items() if layer not in self.settings["frozen"]}
        optim.step(ops, optimizer, self.net.params, grads, self.state, self.done)
        if self.mean and self.done % AVERAGE_EVERY == 0:  # a plain mean at first, then one that forgets
            rate = AVERAGE_EVERY / min(self.done, self.settings["average"])
            for k, p in self.net.arrays().items():
                ops.average(self.mean[k], p, min(1.0, rate))
        if unread + 1 == READ_EVERY:
            self.read_losses()

    def read_losses(self):
        """Bring the losses since the last reading into the history."""
        for loss in self.net.ops.to_numpy(self.losses)[: self.done - self.history.steps].tolist():
            if not math.isfinite(loss):
                raise self._diverged(f"the loss became {loss} at step {self.history.steps + 1}")
            self.history.losses.append(loss)

    def _diverged(self, what):
        kept = f"; {self.path} keeps the last good state" if self.path and Path(self.path).exists() else ""
        return InputError(f"training diverged: {what}; lower lr (now {self.optimizer.lr}){kept}")

    def save(self):
        self.read_losses()
        for k, a in self.net.arrays().items():
            if not np.isfinite(self.net.ops.to_numpy(a)).all():
                raise self._diverged(f"{k} is no longer finite after step {self.history.steps}")
        tensors = {key: self.net.ops.to_numpy(a) for key, a in self.arrays().items()}
        tensors |= {"history/" + k: np.array(v, np.float64) for k, v in self.history.to_dict().items()}
        with self.using(self.reported):
            checkpoints.save_network(self.net, self.path, tensors, {"settings": self.settings})

    def arrays(self):
        """{name in a checkpoint: array} of all that training goes on from, besides the parameters reported."""
        arrays = {f"optimizer/{k}": a for k, a in self.state.items()}
        if self.best or self.mean:
            arrays |= {f"raw/{k}": a for k, a in self.net.arrays().items()}
        if self.best:
            arrays |= {f"{name}/{k}": a for name in ("best", "mean") for k, a in getattr(self, name).items()}
        return arrays

    def restore(self, steps, eval_every):
        header, tensors, settings, history = _read(self.path)
        for k, value in checkpoints.description(self.net).items():
            if header[k] != value:
                raise InputError(f"{self.path}: was trained with another network, its {k} differ; choose another file")
        for k in {**self.settings["checksums"], **settings["checksums"]}:
            if settings["checksums"].get(k) != self.settings["checksums"].get(k):
                raise InputError(
                    f"{self.path}: was trained on other {k}; give the same, or start anew without resuming"
                )
        for k, value in self.settings.items():
            if settings.get(k) != value:
                raise InputError(
                    f"{self.path}: was trained with {k}={settings.get(k)}, now {value} is asked for; "
                    "use the same settings, or start anew without resuming"
                )
        if steps < history.steps:
            raise InputError(
                f"{self.path}: has {history.steps} steps already, more than the {steps} asked for; "
                "ask for as many or more, or start anew without resuming"
            )
        state = {k: (tuple(a.shape), a.dtype) for k, a in self.arrays().items()}
        if state != {k: (a.shape, a.dtype) for k, a in tensors.items() if not k.startswith(("weights/", "history/"))}:
            raise InputError(f"{self.path}: its state of training is not whole; remove it, or start anew")
        checkpoints.set_params(self.net, tensors, self.path)
        for k, p in self.net.arrays().items() if self.mean and not self.best else ():
            self.mean[k][...] = p
        for key, a in self.arrays().items():
            a[...] = self.net.ops.asarray(tensors[key])
        self.history, self.done = history, history.steps
        out_of_turn = self.done % eval_every and self.history.eval_steps[-1] == self.done  # measured as it was the end
        if out_of_turn and self.done < steps:
            for some in (self.history.eval_steps, self.history.train_accuracy, self.history.val_accuracy):
                del some[-1:]
        elif out_of_turn and self.best:
            self.last_is_best = self.history.best == len(self.history.val_accuracy) - 1


@contextlib.contextmanager
def _interrupt():
    """Context in which Ctrl-C sets an event, so that a step is finished first. A second one interrupts at once.

    Only Python's own way is changed so: who ignores the signal, or handles it, has asked for something else.
    """
    pressed, usual = threading.Event(), signal.default_int_handler
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is usual

    def press(*_):
        pressed.set()
        signal.signal(signal.SIGINT, usual)

    if ours:
        signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, usual)


def _crc32(a, rows=256):
    """A checksum of all of an array that may be mapped: some rows in memory at a time."""
    crc = 0
    for i in range(0, len(a), rows):
        crc = zlib.crc32(np.ascontiguousarray(a[i : i + rows]), crc)
    return crc


def _check_training_data(net, images, labels, classes, what, what_labels):
    """Return the labels as int64; images must be uint8 of the network's shape (not read here: they may be mapped)."""
    check_images(images[:0], net.input_shape, what)
    if images.dtype != np.uint8:
        raise InputError(f"{what}: expected dtype uint8 (N, H, W, C), got {images.dtype}; {PIXELS}")
    if len(images) == 0:
        raise InputError(f"{what}: there are none")
    return check_labels(labels, len(images), classes, what_labels)

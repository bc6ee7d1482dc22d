"""Training and its files: bytes that repeat, runs that resume after anything, and what is refused."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tinycnn import InputError, Network, checkpoint, files, losses, models, optim, streams, train
from tinycnn.layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU

ROOT = Path(__file__).resolve().parent.parent


def tiny_net(seed=0, filters=4):
    specs = [Conv2D("c", filters, 3), ReLU("r"), MaxPool2D("p"), Flatten("f"), Dropout("o", 0.2), Dense("d", 3)]
    return Network(specs, (8, 8, 1), backend="cpu", seed=seed, meta={"dataset": "stripes"})


def stripes(N=90, seed=0):
    """Images whose class is where a bright stripe stands: learnable in a few steps."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, N)
    images = rng.integers(0, 120, (N, 8, 8, 1), np.uint8)
    for i, label in enumerate(labels):
        images[i, :, 1 + 2 * label] += 130
    return images, labels


def fit(net, steps=12, **kwargs):
    images, labels = stripes()
    kwargs = {"batch_size": 10, "lr": 0.01, "eval_every": 5, "progress": False, **kwargs}
    return train.fit(net, images, labels, stripes(30, 1), steps=steps, **kwargs)


def saved(net, path):
    net.save(path)
    return Path(path).read_bytes()


def test_training_learns_and_keeps_its_history():
    net = tiny_net()
    history = fit(net, steps=60)
    assert history.steps == 60 == len(history.losses)
    assert history.eval_steps == list(range(0, 61, 5))
    assert history.val_accuracy[-1] > 0.9 > 0.6 > history.val_accuracy[0]
    assert np.mean(history.losses[-10:]) < 0.5 * np.mean(history.losses[:5])


@pytest.mark.parametrize("optimizer", ["adam", "sgd", optim.SGD(lr=0.05, momentum=0.5)])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path, optimizer):
    runs = []
    for seed in (1, 1, 2):
        net = tiny_net()
        history = fit(net, seed=seed, optimizer=optimizer)
        runs.append((saved(net, tmp_path / "net.safetensors"), history.to_dict()))
    assert runs[0] == runs[1] and runs[0] != runs[2]


def test_the_number_of_threads_changes_no_byte(tmp_path):
    code = (
        "import sys, test_train, tinycnn; from tinycnn import models, train; import numpy as np;"
        "net = models.build('mnist', 'cpu'); rng = np.random.default_rng(0);"
        "x = rng.integers(0, 256, (50, 28, 28, 1), np.uint8);"
        "train.fit(net, x, rng.integers(0, 10, 50), steps=3, batch_size=30, progress=False); net.save(sys.argv[1])"
    )
    for threads in "12":
        env = {**os.environ, "NUMBA_NUM_THREADS": threads, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        subprocess.run([sys.executable, "-c", code, tmp_path / threads], env=env, check=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_resumed_run_ends_with_the_bytes_of_an_uninterrupted_one(tmp_path):
    whole = tiny_net()
    history = fit(whole, steps=20)
    fit(tiny_net(), steps=10, checkpoint=tmp_path / "state.safetensors")
    resumed = tiny_net(seed=5)  # its own weights are replaced
    again = fit(resumed, steps=20, checkpoint=tmp_path / "state.safetensors", resume=True)
    assert saved(resumed, tmp_path / "a") == saved(whole, tmp_path / "b")
    assert again == history


def test_a_longer_run_goes_on_from_a_shorter_one_with_a_seed_of_any_size(tmp_path):
    seed, path = 2**128 - 5, tmp_path / "state.safetensors"
    whole, longer = tiny_net(seed), tiny_net()
    fit(whole, steps=17, seed=seed)
    fit(tiny_net(seed), steps=12, seed=seed, checkpoint=path)
    fit(longer, steps=17, seed=np.int64(3), checkpoint=path.with_name("other"))
    history = fit(longer, steps=17, seed=seed, checkpoint=path, resume=True)
    assert history.steps == 17 and saved(longer, tmp_path / "a") == saved(whole, tmp_path / "b")


def test_no_two_purposes_of_training_share_a_number(monkeypatch):
    """The streams that building and training really ask for, over neighbouring seeds: every raw number is another."""
    asked, rng = set(), streams.rng

    def spy(*key):
        asked.add(key)
        return rng(*key)

    monkeypatch.setattr(streams, "rng", spy)
    for seed in range(21):
        net = Network([Conv2D("c", 2, 3), Flatten("f"), Dropout("o", 0.2), Dense("d", 3)], (8, 8, 1), seed=seed)
        fit(net, steps=3, seed=seed, augment=train.Augment(1))
    purposes = {"weights": 4, "batches": 3, "dropout": 3, "augment": 3}  # layers or steps of each seed
    assert {key[1] for key in asked} == {*purposes, "training accuracy"} and len(asked) == 21 * 13 + 1
    drawn = np.concatenate([rng(*key).bit_generator.random_raw(1000) for key in sorted(asked)])
    assert len(np.unique(drawn)) == len(drawn)


def test_the_first_layer_s_start_is_the_stream_that_was_asked_for():
    limit = np.sqrt(6 / (9 + 9 * 4))
    expected = streams.rng(7, "weights", 0).uniform(-limit, limit, (3, 3, 1, 4)).astype(np.float32)
    assert np.array_equal(tiny_net(seed=7).params["c"]["w"], expected)


@pytest.mark.parametrize("seed", [-1, 1.5, "0"])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    for call in (lambda: tiny_net(seed=seed), lambda: fit(tiny_net(), seed=seed)):
        with pytest.raises(InputError, match="seed: expected a whole number of at least 0, got"):
            call()


EXTRAS = {
    "optimizer": optim.Adam(0.01, decay=0.1),
    "schedule": "one-cycle",
    "augment": train.Augment(1, flip=True),
    "average": 8,
}


@pytest.mark.parametrize("more", [{}, {"keep": "best", "frozen": ("c",)}, {"keep": "best", "average": 0}])
def test_a_resumed_run_of_everything_ends_with_the_same_bytes(tmp_path, monkeypatch, more):
    whole, path, extras = tiny_net(), tmp_path / "state.safetensors", EXTRAS | more
    history = fit(whole, steps=20, **extras)

    def stop(run):
        save(run)
        if run.done == 12:
            raise KeyboardInterrupt

    save = train._Run.save
    monkeypatch.setattr(train._Run, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), steps=20, checkpoint=path, checkpoint_every=3, **extras)
    monkeypatch.undo()
    resumed = tiny_net(seed=0 if "frozen" in more else 5)  # what is frozen comes from the seed
    assert fit(resumed, steps=20, checkpoint=path, resume=True, **extras) == history
    assert saved(resumed, tmp_path / "a") == saved(whole, tmp_path / "b")
    loaded = Network.load(path)  # what was reported, not the weights that training goes on from
    assert saved(loaded, tmp_path / "c") == saved(whole, tmp_path / "b")
    reported = history.val_accuracy[history.best if more else -1]
    assert losses.accuracy(loaded.logits(stripes(30, 1)[0]), stripes(30, 1)[1]) == reported
    raw = checkpoint.read(path)[1]["raw/d/w"]
    assert not np.array_equal(raw, loaded.params["d"]["w"])
    others = {"steps": 21}, {"average": 9}, {"augment": train.Augment(1)}, {"optimizer": optim.Adam(0.01)}
    for other in (*others, {"frozen": ("d",)}, {"keep": "last" if more else "best"}):
        with pytest.raises(InputError, match="was trained with"):
            fit(tiny_net(), checkpoint=path, resume=True, **{"steps": 20, **extras, **other})


def test_the_best_step_is_kept_the_last_of_equal_ones(tmp_path):
    rng = np.random.default_rng(2)
    hard = rng.integers(0, 256, (40, 8, 8, 1)).astype(np.uint8), rng.integers(0, 3, 40)  # of which nothing is known

    def train_it(net, steps, keep="best", **kwargs):
        some = {"batch_size": 10, "lr": 0.01, "eval_every": 3, "progress": False, "keep": keep, **kwargs}
        return train.fit(net, *stripes(), hard, steps=steps, **some)

    kept, path = tiny_net(), tmp_path / "state.safetensors"
    history = train_it(kept, 30, checkpoint=path)
    most = max(history.val_accuracy)
    best = [step for step, a in zip(history.eval_steps, history.val_accuracy) if a == most][-1]
    assert 0 < best < 30 and history.eval_steps[history.best] == best
    as_long = tiny_net()
    assert train_it(as_long, best, keep="last").losses == history.losses[:best]
    assert saved(kept, tmp_path / "a") == saved(as_long, tmp_path / "b")
    assert saved(Network.load(path), tmp_path / "c") == saved(kept, tmp_path / "a")
    further, at_once = tiny_net(), tiny_net()  # at a constant rate it goes on from the last step, not from the best
    assert train_it(further, 45, checkpoint=path, resume=True) == train_it(at_once, 45)
    assert saved(further, tmp_path / "a") == saved(at_once, tmp_path / "b")
    for end in range(1, 18):  # also from an end out of turn, whether that one was the best or not
        path.unlink()
        short, again, further, at_once = tiny_net(), tiny_net(seed=7), tiny_net(), tiny_net()
        history = train_it(short, end, checkpoint=path)
        assert train_it(again, end, checkpoint=path, resume=True) == history
        assert saved(again, tmp_path / "a") == saved(short, tmp_path / "b") == saved(Network.load(path), tmp_path / "c")
        assert train_it(further, 18, checkpoint=path, resume=True) == train_it(at_once, 18)
        assert saved(further, tmp_path / "a") == saved(at_once, tmp_path / "b")
    with pytest.raises(InputError, match="keep: the best step is that with the highest accuracy on val"):
        train.fit(tiny_net(), *stripes(), steps=1, batch_size=9, keep="best", progress=False)


def test_frozen_layers_stay_and_the_others_learn_as_ever():
    start, net, free = tiny_net(), tiny_net(), tiny_net()
    fit(net, steps=1, frozen=("c",))
    fit(free, steps=1)
    for name in "wb":
        assert np.array_equal(net.params["c"][name], start.params["c"][name])
        assert not np.array_equal(free.params["c"][name], start.params["c"][name])
        assert np.array_equal(net.params["d"][name], free.params["d"][name])  # of the first step
    history = fit(net, steps=30, frozen=("c",))
    assert np.array_equal(net.params["c"]["w"], start.params["c"]["w"]) and history.val_accuracy[-1] > 0.9
    with pytest.raises(InputError, match="frozen layer"):
        fit(net, steps=1, frozen=("p",))


def test_the_average_is_the_mean_of_the_weights_it_has_seen():
    def weights(steps, **kwargs):
        net = tiny_net()
        history = fit(net, steps=steps, **kwargs)
        return net.params["d"]["w"], history

    (w5, _), (w10, plain), (mean, averaged) = weights(5), weights(10), weights(10, average=10)
    assert np.allclose(mean, (w5 + w10) / 2, atol=1e-7) and not np.allclose(mean, w10, atol=1e-3)
    assert averaged.losses == plain.losses  # the training itself does not see it


def test_a_one_cycle_rate_rises_and_falls_once_and_the_constant_one_stays():
    adam, steps = optim.Adam(0.2), 200
    rates = [optim.at_step(adam, "one-cycle", t, steps).lr for t in range(1, steps + 1)]
    top = int(np.argmax(rates))
    assert 0.99 * 0.2 < rates[top] <= 0.2 and abs(top / steps - optim.WARM_UP) < 0.01
    assert (np.diff(rates[:top]) > 0).all() and (np.diff(rates[top + 1 :]) < 0).all()
    assert 0 < rates[0] < 0.01 and 0 < rates[-1] < 0.01 and abs(np.mean(rates) - 0.1) < 1e-3
    assert optim.at_step(adam, "constant", 7, steps) is adam


def test_augment_draws_every_move_it_may_and_no_other():
    moves = train.Augment(2, flip=True).draw(np.random.default_rng(0), 500)
    assert {tuple(m) for m in moves} == {(i, j, k) for i in range(-2, 3) for j in range(-2, 3) for k in (0, 1)}
    assert not train.Augment(2).draw(np.random.default_rng(0), 50)[:, 2].any()
    assert train.Augment().draw(np.random.default_rng(0), 50) is None


@pytest.mark.parametrize("wrong", [{"average": -1}, {"augment": train.Augment(8)}, {"schedule": "cosine"}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match=r"average|augment.shift|schedule"):
        fit(tiny_net(), **wrong)


RUN = """
import sys, test_train
net = test_train.tiny_net()
test_train.fit(net, steps=int(sys.argv[2]), checkpoint=sys.argv[1], checkpoint_every=1, resume=True)
net.save(sys.argv[1] + ".final")
"""


def start(path, steps):
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.Popen([sys.executable, "-c", RUN, path, str(steps)], env=env, stderr=subprocess.PIPE, text=True)


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert path.exists(), process.stderr.read()


def test_kill_9_at_any_moment_loses_nothing(tmp_path):
    """Killed at three moments, each in the middle of steps and of writing checkpoints, then resumed to the end."""
    path, steps = tmp_path / "state.safetensors", 400
    for delay in (0.0, 0.05, 0.11):
        process = start(path, steps)
        wait_for(path, process)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        header, _ = checkpoint.read(path)  # whole at any moment
        assert header["training"]["settings"]["seed"] == 0
    process = start(path, steps)
    assert process.wait() == 0, process.stderr.read()
    net = tiny_net()
    fit(net, steps=steps)
    assert (tmp_path / "state.safetensors.final").read_bytes() == saved(net, tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.safetensors", "state.safetensors.final", "whole"]


def test_ctrl_c_finishes_the_step_and_saves(tmp_path):
    path = tmp_path / "state.safetensors"
    process = start(path, 10**6)
    wait_for(path, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    match = re.search(r"Interrupted: stopped after (\d+) of 1000000 steps; .*state.safetensors holds them", stderr)
    assert process.returncode != 0 and match, stderr
    net = tiny_net()
    assert fit(net, steps=int(match[1]) + 1, checkpoint=path, resume=True).steps == int(match[1]) + 1


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_checkpoint(tmp_path):
    path, net = tmp_path / "state.safetensors", tiny_net()
    fit(net, steps=5, checkpoint=path)
    good = path.read_bytes()
    net.params["c"]["w"][0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"diverged: the loss became nan at step 1; lower lr.*last good state"):
        fit(net, checkpoint=path)
    assert path.read_bytes() == good


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    with np.errstate(all="ignore"), pytest.raises(InputError, match="diverged"):
        fit(tiny_net(), steps=50, optimizer="sgd", lr=1e38, checkpoint=tmp_path / "s.safetensors", checkpoint_every=1)
    assert not (tmp_path / "s.safetensors").exists() or checkpoint.read(tmp_path / "s.safetensors")


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"batch_size": 91}, "batch_size <= 90"),
        ({"optimizer": "rmsprop"}, "unknown optimizer 'rmsprop'.*adam, sgd"),
        ({"lr": -1.0}, "lr must be positive"),
    ],
)
def test_impossible_settings_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        fit(tiny_net(), **kwargs)


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (
            np.zeros((5, 8, 8, 1), np.float32),
            np.zeros(5, int),
            r"dtype uint8 .* got float32; give uint8 .*images.astype.np.uint8.",
        ),
        (np.zeros((5, 9, 8, 1), np.uint8), np.zeros(5, int), r"\(8, 8, 1\), got \(9, 8, 1\)"),
        (np.zeros((5, 8, 8, 1), np.uint8), np.full(5, 3), "classes 0 to 2"),
        (np.zeros((5, 8, 8, 1), np.uint8), np.zeros(4, int), "expected 5 integers"),
        (np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, int), "there are none"),
    ],
)
def test_data_that_do_not_fit_the_network_are_refused(images, labels, message):
    with pytest.raises(InputError, match=message):
        train.fit(tiny_net(), images, labels, steps=1, batch_size=1, progress=False)


def test_a_history_and_a_network_say_themselves_in_one_line():
    net = tiny_net()
    assert repr(train.History()) == "History(0 steps)"
    history = train.History([2.0, 1.23456], [0, 2], [0.1, 0.5], [0.2, 0.4321])
    assert repr(history) == "History(2 steps, last loss 1.2346, training 50.0%, validation 43.2%)"
    assert repr(net) == "Network(c r p f o d; input (8, 8, 1), 235 parameters, cpu)"


def test_resuming_with_other_settings_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    fit(tiny_net(), checkpoint=path)
    with pytest.raises(InputError, match="seed=0, now 1"):
        fit(tiny_net(), checkpoint=path, resume=True, seed=1)
    with pytest.raises(InputError, match="has 12 steps already, more than the 11 asked for"):
        fit(tiny_net(), steps=11, checkpoint=path, resume=True)
    images, labels = stripes()
    images[-1, -1, -1, -1] ^= 1  # one bit of the last pixel
    kwargs = {"steps": 12, "batch_size": 10, "lr": 0.01, "checkpoint": path, "resume": True, "progress": False}
    with pytest.raises(InputError, match=r"state.safetensors: was trained on other images"):
        train.fit(tiny_net(), images, labels, **kwargs)
    with pytest.raises(InputError, match="was trained on other labels"):
        train.fit(tiny_net(), stripes()[0], (labels + 1) % 3, **kwargs)
    tiny_net().save(path)
    with pytest.raises(InputError, match="no state of training"):
        fit(tiny_net(), checkpoint=path, resume=True)


def changed(path, change):
    """Write a file once more, after `change(header, tensors)`, as if it had been written so."""
    header, tensors = checkpoint.read(path)
    change(header, tensors)
    header["sha256"] = checkpoint._digest(header, tensors)
    path.write_bytes(safetensors.numpy.save(tensors, {"tinycnn": json.dumps(header)}))


def drop(start):
    return lambda _, tensors: [tensors.pop(k) for k in list(tensors) if k.startswith(start)]


def put(name, make):
    return lambda _, tensors: tensors.update({name: np.ascontiguousarray(make(tensors.get(name)))})


STATES = {
    "no losses": drop("history/losses"),
    "no first moments": drop("optimizer/m"),
    "no weights behind the mean": drop("raw/"),
    "no settings": lambda header, _: header.update(training={"settings": {}}),
    "settings of another type": lambda header, _: header.update(training={"settings": 7}),
    "a schedule of another type": lambda header, _: header["training"]["settings"].update(schedule=[1, "x"]),
    "a moment reshaped": put("optimizer/v/d/b", lambda a: a[:1]),
    "a moment transposed": put("optimizer/v/d/w", lambda a: a.T),
    "a moment of another type": put("optimizer/v/d/w", lambda a: a.astype(np.float64)),
    "a moment of no layer": put("optimizer/v/x/w", lambda a: np.zeros(3, np.float32)),
    "a mean reshaped": put("raw/c/w", lambda a: a[..., None]),
    "NaN among the losses": put("history/losses", lambda a: a * np.nan),
    "losses in a table": put("history/losses", lambda a: a[None]),
    "an accuracy too few": put("history/val_accuracy", lambda a: a[:-1]),
    "no measurements": lambda _, t: t.update({k: t[k][:0] for k in t if k.startswith("history/") and "loss" not in k}),
    "steps without end": put("history/eval_steps", lambda a: a + np.inf),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The bytes of a checkpoint."""
    path = tmp_path_factory.mktemp("trained") / "state.safetensors"
    fit(tiny_net(), checkpoint=path, average=4)
    return path.read_bytes()


@pytest.mark.parametrize("what", STATES)
def test_a_state_of_training_that_is_not_whole_is_refused_by_name(tmp_path, trained, what):
    path = tmp_path / "state.safetensors"
    path.write_bytes(trained)
    changed(path, STATES[what])
    with pytest.raises(InputError, match=r"state.safetensors: its state of training is not whole; remove it"):
        fit(tiny_net(), checkpoint=path, average=4, resume=True)


@pytest.mark.parametrize("what", ["optimizer/m/d/w", "raw/c/b", "history/losses", "weights/c/w"])
def test_state_that_was_changed_is_refused_and_not_resumed_from(tmp_path, trained, what):
    """Silent otherwise: the values alone are others, the same in another order."""
    path = tmp_path / "state.safetensors"
    path.write_bytes(trained)
    header, tensors = checkpoint.read(path)
    swapped = np.ascontiguousarray(tensors[what].ravel()[::-1].reshape(tensors[what].shape))
    path.write_bytes(safetensors.numpy.save({**tensors, what: swapped}, {"tinycnn": json.dumps(header)}))
    for call in (
        lambda: fit(tiny_net(), checkpoint=path, average=4, resume=True),
        lambda: train.started(path),
        lambda: Network.load(path),
    ):
        with pytest.raises(InputError, match=r"damaged, its contents have another SHA-256"):
            call()


def test_a_checkpoint_knows_whose_it_is(tmp_path):
    """Neither another network of as many parameters, nor other validation images, go on from it."""
    path = tmp_path / "state.safetensors"
    fit(tiny_net(), checkpoint=path)
    specs = [Dropout("o", 0.4) if layer.name == "o" else layer for layer in tiny_net().layers]
    with pytest.raises(InputError, match="another network, its layers differ"):
        fit(Network(specs, (8, 8, 1), backend="cpu"), checkpoint=path, resume=True)
    settings = {"steps": 12, "batch_size": 10, "lr": 0.01, "checkpoint": path, "resume": True, "progress": False}
    for val, what in ((stripes(30, 2), "val images"), (None, "val images")):
        with pytest.raises(InputError, match=f"was trained on other {what}"):
            train.fit(tiny_net(), *stripes(), val, **settings)


def test_numbers_of_numpy_are_settings_like_any_other(tmp_path):
    path = tmp_path / "state.safetensors"
    whole, numpy = tiny_net(), tiny_net()
    fit(whole, batch_size=10, eval_every=5, optimizer=optim.Adam(0.01, decay=0.5), augment=train.Augment(1, True))
    settings = {"batch_size": np.int64(10), "eval_every": np.int32(5), "seed": np.uint8(0), "average": np.int64(0)}
    settings |= {"optimizer": optim.Adam(np.float64(0.01), decay=np.float32(0.5)), "checkpoint_every": np.int64(3)}
    for steps, resume in ((np.int64(7), False), (np.int16(12), True)):
        moves = train.Augment(np.int64(1), np.bool_(True))
        fit(numpy, steps, checkpoint=path, resume=resume, augment=moves, **settings)
    assert saved(numpy, tmp_path / "a") == saved(whole, tmp_path / "b")
    for wrong in ({"steps": 3.0}, {"batch_size": "9"}, {"eval_every": 0}, {"checkpoint_every": -1}, {"lr": "0.1"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            fit(tiny_net(), **{"steps": 3, **wrong})


def test_only_python_s_own_ctrl_c_is_put_off():
    """Who ignores the signal, or handles it, has asked for something else, and finds its handler again."""
    heard = []
    previous = signal.getsignal(signal.SIGINT)
    try:
        for handler in (signal.SIG_IGN, lambda *_: heard.append("called")):
            signal.signal(signal.SIGINT, handler)
            with train._interrupt() as interrupted:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
                assert not interrupted.is_set()
            assert signal.getsignal(signal.SIGINT) is handler
        assert heard == ["called"]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with train._interrupt() as interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupted.wait(5)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)


# -- weight files ----------------------------------------------------------------------------------------------


def test_a_saved_network_comes_back_whole_and_any_framework_can_read_it(tmp_path, backend):
    net = models.build("mnist", backend, seed=7, meta={"dataset": "digits"}, dropout=0.25)
    net.save(tmp_path / "net.safetensors")
    back = Network.load(tmp_path / "net.safetensors", backend=backend)
    x = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    assert np.array_equal(back.logits(x), net.logits(x)) and back.layers == net.layers and back.meta == net.meta
    tensors = safetensors.numpy.load_file(tmp_path / "net.safetensors")
    assert np.array_equal(tensors["weights/conv1/w"], net.ops.to_numpy(net.params["conv1"]["w"]))
    header, _ = checkpoint.read(tmp_path / "net.safetensors")
    assert header["normalisation"] == "uint8 / 255" and header["layers"][0]["type"] == "Conv2D"


def test_weights_of_another_network_are_named(tmp_path):
    tiny_net(filters=4).save(tmp_path / "net.safetensors")
    _, tensors = checkpoint.read(tmp_path / "net.safetensors")
    with pytest.raises(
        InputError, match=r"another network: c/w has shape \(3, 3, 1, 4\), the network's is \(3, 3, 1, 5\)"
    ):
        checkpoint.set_params(tiny_net(filters=5), tensors, "net.safetensors")
    with pytest.raises(InputError, match=r"missing conv1/w.*unknown c/b"):
        checkpoint.set_params(models.build("mnist"), tensors, "net.safetensors")


def cut(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "damage, message",
    [
        (cut, "not a whole safetensors file"),
        (lambda data: b"", "not a whole safetensors file"),
        (lambda data: b"\x00" * 100, "not a whole safetensors file"),
        (lambda data: safetensors.numpy.save({"a": np.zeros(2)}), "not one that tinycnn wrote"),
        (lambda data: data.replace(b'format\\": 3', b'format\\": 2'), "format 2, this version reads format 3"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged, its contents have another SHA-256"),
        (lambda data: data.replace(b'rate\\": 0.2', b'rate\\": 0.3'), "damaged, its contents have another SHA-256"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, damage, message):
    path = tmp_path / "net.safetensors"
    path.write_bytes(damage(saved(tiny_net(), tmp_path / "good")))
    with pytest.raises(InputError, match=f"net.safetensors: .*{message}") as caught:
        Network.load(path)
    assert "\n" not in str(caught.value)


LAYERS = {
    "c/w has shape .3, 3, 1, 4., the network's is .3, 3, 1, 6.": {"filters": 6},
    "(its layers make no network|c/w has shape)": {"filters": 10**12},  # 36 TB
    "its layers make no network": {"filters": "many"},
    "its layers make no network.": {"type": "Convolution"},
    "its layers make no network of": {"kernel": [[]]},
    "its layers make no network of this": {"colour": 3},
    "its layers make no network of this version": {"filters": 10**40},
}


@pytest.mark.parametrize("message", LAYERS)
def test_layers_that_the_tensors_do_not_fit_are_refused_before_anything_is_allocated(tmp_path, message):
    tiny_net().save(tmp_path / "net.safetensors")
    changed(tmp_path / "net.safetensors", lambda header, _: header["layers"][0].update(LAYERS[message]))
    with pytest.raises(InputError, match=f"net.safetensors: .*{message}"):
        Network.load(tmp_path / "net.safetensors")


def test_an_error_is_one_line_whatever_name_it_quotes():
    assert len(str(InputError("[" * 10**6 + "; remove it"))) < 1000
    assert str(InputError("no \udce9\n\x1b[31mé ' \\ class")) == "no \\udce9\\n\\x1b[31mé ' \\ class"


HEADERS = ["[]", "7", '"text"', "null", "{", "\x00", '{"format": "3"}', '{"format": 3}', "[" * 10**5, '{"a":' * 10**5]
HEADERS += [
    '{"format": 3, "layers": 5}',
    f'{{"format": {"9" * 4000}}}',
    '{"format": 1e400}',
    f'{{"format": {"9" * 5000}}}',
]


@pytest.mark.parametrize("text", HEADERS, ids=range(len(HEADERS)))
def test_a_header_of_any_text_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "net.safetensors"
    path.write_bytes(safetensors.numpy.save({"weights/c/w": np.zeros(2, np.float32)}, {"tinycnn": text}))
    with pytest.raises(InputError, match=r"net.safetensors: .*(remove it|this version reads)") as caught:
        Network.load(path)
    assert len(str(caught.value)) < len(str(path)) + 150


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "F16", "I64", "BOOL"])
def test_tensors_of_a_type_that_no_network_has_are_refused(tmp_path, kind):
    path, size = tmp_path / "net.safetensors", {"BF16": 2, "F16": 2, "I64": 8}.get(kind, 1)
    tiny_net().save(path)
    text = json.dumps(checkpoint.read(path)[0])
    one = {"dtype": kind, "shape": [4], "data_offsets": [0, 4 * size]}
    head = json.dumps({"__metadata__": {"tinycnn": text}, "weights/c/b": one}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4 * size))
    with pytest.raises(InputError, match=r"net.safetensors: damaged"):
        Network.load(path)


@pytest.mark.parametrize("name", ["average", "optimizer", "history", "raw", "best", "mean", "weights", "a/w", "é ''"])
def test_a_layer_may_have_any_name_and_state_has_others(tmp_path, name):
    def make():
        return Network([Flatten("f"), Dense(name, 3)], (8, 8, 1), backend="cpu")

    whole, resumed, path = make(), make(), tmp_path / "net.safetensors"
    extras = {"average": 8, "keep": "best"}
    fit(whole, steps=10, **extras)
    fit(make(), steps=5, checkpoint=path, **extras)
    fit(resumed, steps=10, checkpoint=path, resume=True, **extras)
    assert saved(resumed, tmp_path / "a") == saved(whole, tmp_path / "b")
    assert saved(Network.load(path), tmp_path / "c") == saved(whole, tmp_path / "b")


@pytest.mark.parametrize("meta", [{"a": {1, 2}}, {"a": float("nan")}, {"a": np.zeros(3)}, {"a": "\ud800"}, {(1,): 2}])
def test_meta_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, meta):
    path = tmp_path / "net.safetensors"
    with pytest.raises(InputError, match=r"net.safetensors: meta and the layers' names must be what JSON can hold"):
        Network([Flatten("f"), Dense("d", 3)], (8, 8, 1), meta=meta).save(path)
    assert not path.exists()
    odd = Network([Flatten("f"), Dense("d", np.int64(3))], (8, 8, 1), meta={"n": np.int64(1), "x": np.float32(0.5)})
    odd.save(path)
    assert Network.load(path).meta == {"n": 1, "x": 0.5}


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"gone.safetensors: no such weights file"):
        Network.load(tmp_path / "gone.safetensors")


# -- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, expected",
    [
        ("golf ball", "golf-ball"),
        ("English  springer\n\tspaniel", "english-springer-spaniel"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\Windows\\x.exe", "c-windows-x-exe"),
        ("..", ""),
        ("", ""),
        ("\N{DOG FACE}\N{SNOWMAN}", ""),
        ("a\N{DOG FACE}b", "ab"),
        ("Caf\u00e9 cre\u0300me", "cafe-creme"),
        ("CON", "con"),
        ("trailing dot.", "trailing-dot"),
        ("nul\0byte", "nul-byte"),
        ("x" * 300, "x" * 60),
        ("y" * 59 + " z" * 99, "y" * 59),
    ],
)
def test_a_slug_of_any_name_is_a_safe_part_of_a_file_s_name(tmp_path, name, expected):
    assert files.slug(name) == expected
    assert files.indexed(3, name) == (f"03-{expected}" if expected else "03")
    files.write_text(tmp_path / files.indexed(120, name), "kept")
    assert [p.name for p in tmp_path.iterdir()] == [f"120-{expected}" if expected else "120"]


# -- atomic writing --------------------------------------------------------------------------------------------


def test_a_failed_write_keeps_the_old_file_and_leaves_no_remains(tmp_path, monkeypatch):
    path = tmp_path / "f.txt"
    files.write_text(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*f.txt: No space left on device"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_half_written_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    """Nobody finds them by a pattern for the files of a study, and nobody knows what other machines do."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    alive, path = os.getppid(), tmp_path / "history-study.json"
    stay = [f"{files.TEMPORARY}{alive}-0.tmp", f".tinycnn-elsewhere-{dead.pid}-0.tmp", f"{files.TEMPORARY}x-0.tmp"]
    go = [f"{files.TEMPORARY}{dead.pid}-{i}.tmp" for i in (0, 12)] + [f"{files.TEMPORARY}{os.getpid()}-999999.tmp"]
    for name in (*stay, *go):
        (tmp_path / name).write_text("half")
    with files.atomic_path(path) as temporary:
        files.write_text(tmp_path / "other.json", "{}")  # meanwhile, in the same process
        assert temporary.exists() and not list(tmp_path.glob("history-*.json"))
        assert {p.name for p in tmp_path.iterdir()} == {*stay, "other.json", temporary.name}
        temporary.write_text("whole")
    assert {p.name for p in tmp_path.iterdir()} == {*stay, "other.json", path.name} and path.read_text() == "whole"


def test_a_file_has_the_rights_that_the_user_s_mask_leaves_and_the_mask_is_never_changed(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda _: pytest.fail("other threads would write files for everybody"))
        files.write_text(tmp_path / "f.txt", "text")
        assert (tmp_path / "f.txt").stat().st_mode & 0o777 == 0o640
    finally:
        monkeypatch.undo()
        os.umask(before)


def test_a_disk_that_fills_up_while_a_checkpoint_is_written_loses_nothing(tmp_path):
    """The operating system itself refuses the bytes: a limit on the size of files stands for the full disk."""
    path, net = tmp_path / "net.safetensors", models.build("mnist")
    good = saved(tiny_net(), path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*net.safetensors: File too large"):
            net.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == good and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/sub/net.safetensors: "):
        tiny_net().save(tmp_path / "file" / "sub" / "net.safetensors")

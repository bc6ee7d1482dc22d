"""Time training steps and inference beside PyTorch: ``python -m benchmarks [--work ...] [--rounds N]``.

Each work first checks that both sides compute the same (losses over three steps, logits), then warms up, then times
interleaved rounds. The median of the ratios ours / peer of each round is the figure to quote: absolute times drift.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from functools import partial

import numpy as np

from tinycnn import fused, models, optim

LR = 1e-4
WORKS = [f"{kind}-{model}" for model in ("mnist", "cifar10", "stl10") for kind in ("train", "infer")]


class Ours:
    """Our side of a work, with the same surface as a peer."""

    def __init__(self, net):
        self.net, self.work, self.t = net, fused.Workspace(net.ops), 0
        self.optimizer = optim.Adam(LR)
        self.state = self.optimizer.init(net.ops, net.params)

    def train_step(self, x, labels):
        """One step of Adam on the mean cross-entropy; returns the loss before it."""
        self.t += 1
        loss, grads = fused.loss_and_grads(self.net, x, labels, self.work)
        optim.step(self.net.ops, self.optimizer, self.net.params, grads, self.state, self.t)
        return loss

    def logits(self, x):
        """Inference, (N, classes)."""
        return fused.forward(self.net, x, self.work)[0]


def check(ours, peer, x, labels):
    """Raise unless both sides agree; trains both for three steps, which also warms them up."""
    a, b = ours.logits(x).copy(), peer.logits(x)
    if np.abs(a - b).max() > 1e-4 * np.abs(b).max():
        sys.exit(f"benchmarks: error: logits differ by {np.abs(a - b).max():.2e}")
    for step in range(3):
        a, b = ours.train_step(x, labels), peer.train_step(x, labels)
        if abs(a - b) > (1e-5, 1e-3, 1e-3)[step] * abs(b):  # Adam's first steps enlarge the smallest differences
            sys.exit(f"benchmarks: error: losses differ at step {step}: ours {a}, {peer.name} {b}")


def time_rounds(functions, rounds):
    """Milliseconds, one list per function; the functions take turns."""
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, ms in zip(functions, times):
            time.sleep(0.02)  # OpenMP's threads go on spinning for some milliseconds after their work
            start = time.perf_counter()
            function()
            ms.append(1e3 * (time.perf_counter() - start))
    return times


def main():
    """Parse, run, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--work", nargs="+", choices=WORKS, default=WORKS, metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--json", help="also write the results to this file")
    args = parser.parse_args()
    threads = int(os.environ.get("NUMBA_NUM_THREADS", os.cpu_count()))
    try:
        from . import torch_peer
    except ImportError:
        sys.exit("benchmarks: error: PyTorch is not installed; pip install torch")
    print(f"{platform.processor() or platform.machine()}, {threads} threads, batch {args.batch}, float32, ", end="")
    print(f"torch {torch_peer.VERSION}, numpy {np.__version__}, {args.rounds} interleaved rounds")
    print(f"{'work':<15}{'ours ms':>9}{'torch ms':>10}{'ratio':>8}   range of ratios")
    results = []
    for model in dict.fromkeys(work.split("-")[1] for work in args.work):
        net = models.build(model, "cpu")
        rng = np.random.default_rng(0)
        x = rng.random((args.batch, *net.input_shape), np.float32)
        labels = rng.integers(0, 10, args.batch)
        ours, peer = Ours(net), torch_peer.Peer(net, LR, threads)
        check(ours, peer, x, labels)
        for kind in ("train", "infer"):
            if f"{kind}-{model}" not in args.work:
                continue
            arguments = (x, labels) if kind == "train" else (x,)
            method = "train_step" if kind == "train" else "logits"
            a, b = time_rounds([partial(getattr(side, method), *arguments) for side in (ours, peer)], args.rounds)
            ratios = [p / q for p, q in zip(a, b)]
            row = {"work": f"{kind}-{model}", "ours_ms": statistics.median(a), "torch_ms": statistics.median(b)}
            row |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
            results.append(row)
            print(
                f"{row['work']:<15}{row['ours_ms']:>9.1f}{row['torch_ms']:>10.1f}{row['ratio']:>8.2f}"
                f"   {row['ratio_min']:.2f} to {row['ratio_max']:.2f}",
                flush=True,
            )
    if args.json:
        with open(args.json, "w") as f:
            json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()

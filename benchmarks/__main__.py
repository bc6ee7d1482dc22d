"""Check that ours and the peers compute the same, then time all in turn: ``python -m benchmarks``.

Writes OUT/results.json and OUT/results.png. See README.md in this folder.
"""

import argparse
import contextlib
import os
import platform
import shlex
import sys
from pathlib import Path

from . import report
from .extras import CPU_ONLY, EXTRAS
from .sides import DEFAULT_PEERS, PEERS, SLACK, missing
from .worker import Worker, WorkerError, time_rounds
from .works import ITERATIONS, KINDS, catalogue, disagreement

HERE = Path(__file__).resolve().parent
QUICK = tuple(f"{kind}-{model}" for kind in ("train", "infer", "maximize") for model in ("mnist", "cifar10"))


class Parser(argparse.ArgumentParser):
    """Answers a bad argument with one line."""

    def error(self, message):
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def _positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def parse(argv):
    """Return the arguments, those that were left out filled in."""
    known = (*catalogue(1), *EXTRAS)
    p = Parser("python -m benchmarks", description=__doc__.split("\n")[0], allow_abbrev=False)
    p.add_argument("--backend", choices=("cpu", "gpu"), default="cpu", help="ours on this backend; default: cpu")
    p.add_argument("--peers", nargs="*", metavar="PEER", help="; ".join(f"{b}: {', '.join(PEERS[b])}" for b in PEERS))
    p.add_argument("--work", nargs="+", choices=known, metavar="WORK", help=", ".join(known) + " (default: all)")
    p.add_argument("--quick", action="store_true", help="3 rounds, small works only")
    p.add_argument("--rounds", type=_positive, metavar="N", help="default: 9")
    p.add_argument("--batch", type=_positive, default=100, metavar="N", help="of training and inference; default: 100")
    p.add_argument("--out", type=Path, metavar="DIR", help="default: out/benchmarks")
    p.add_argument("--write-results", action="store_true", help="also write benchmarks/RESULTS.md (RESULTS-GPU.md)")
    args = p.parse_args(argv)
    if args.peers is None:
        args.peers = DEFAULT_PEERS[args.backend]
    for peer in args.peers:
        if peer not in PEERS[args.backend]:
            p.error(f"no peer {peer!r} for backend {args.backend}; choose from: {', '.join(PEERS[args.backend])}")
    args.peers = tuple(dict.fromkeys(args.peers))
    args.rounds = args.rounds or (3 if args.quick else 9)
    if args.backend == "gpu" and args.work and (wrong := [name for name in args.work if name in CPU_ONLY]):
        p.error(f"{wrong[0]} is measured with backend cpu only")
    if args.work is None:
        args.work = QUICK if args.quick else [n for n in known if args.backend == "cpu" or n not in CPU_ONLY]
    args.work = list(dict.fromkeys(args.work))
    args.out = args.out or Path("out/benchmarks")
    args.threads = thread_count(os.environ.get("NUMBA_NUM_THREADS"), len(os.sched_getaffinity(0)))
    return args


def thread_count(wanted, cores):
    """The number of threads for every side: all cores, at most what NUMBA_NUM_THREADS says."""
    return min(int(wanted), cores) if wanted else cores


def machine():
    """The name of the processor."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:
        for text in f:
            if text.startswith("model name"):
                return text.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def prepare(name, worker, work, ours):
    """Hold every formulation of a side to our result (None: this side is ours) and let it choose the fastest.

    Returns our result, and what there is to say of this side. Raises WorkerError where it computes something else.
    """
    found, difference = worker("prepare", work), 0
    if ours is None:
        (ours,) = found.values()
    for how, result in found.items():
        error, same = disagreement(work.kind, ours, result, SLACK.get(name, 1))
        difference = max(error, difference)
        if not same:
            raise WorkerError(name, f"it does not compute the same ({how}): difference {error:.1e}")
    formulation, tried = worker("choose")
    return ours, {"difference": difference, "formulation": formulation, "formulations_ms": tried}


def run_work(work, args, results):
    """Check and time one work on all sides; print its rows and add them to `results`."""

    def drop(name, why):
        print(f"{work.name}: {name} left out: {why}", flush=True)
        results["notes"].append(f"{work.name}: {name} left out: {why}")
        results["failed"] = True
        workers.pop(name, None)

    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(name, args.backend, args.threads)) for name in ("ours", *results["peers"])
        }
        extra, ours = {}, None
        for name in list(workers):
            try:
                if not workers[name]("formulations", work.kind):
                    workers.pop(name)
                    continue
                ours, extra[name] = prepare(name, workers[name], work, ours)
            except WorkerError as e:
                drop(name, e)
                if name == "ours":
                    return
        results["peak"] = max(results["peak"], workers["ours"]("peak"))  # it drifts on a busy machine
        repeats = 10 if args.backend == "gpu" and work.kind in ("train", "infer") else 1  # launches overlap
        while "ours" in workers:
            try:
                times = time_rounds(workers, args.rounds, repeats, workers.keys() - {"ours"})
                for name in workers:
                    extra[name]["memory"] = workers[name]("memory")
                break
            except WorkerError as e:
                drop(e.side, e)
        else:
            return
    per = ITERATIONS if work.kind == "maximize" else 1
    row = {"work": work.name, "what": KINDS[work.kind], "images": work.images}
    row |= report.summary(times, per, work.flops(work.network()))
    for name, side in row["sides"].items():
        side |= extra[name] | {"times_ms": times[name]}
    results["works"].append(row)
    for text in report.cells(row, results["peak"]):
        print(report.line(text), flush=True)


def run_extra(name, args, results):
    """Measure one of extras.py; print its table and add it to `results`."""

    def note(text):
        results["notes"].append(text)
        results["failed"] = True
        print(text, flush=True)

    try:
        table = EXTRAS[name](args, ("ours", *results["peers"]), note)
    except WorkerError as e:
        return note(f"{name}: left out: {e}")
    results["tables"].append(table)
    print(f"\n{table['title']}", flush=True)
    for row in (table["head"], *table["rows"]):
        print("  ".join(f"{c:<28}" for c in row).rstrip(), flush=True)


def main(argv=None):
    """Run; return the exit status: 1 where a side failed or computed something else."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    lacking = {peer: missing(peer) for peer in args.peers}
    results = {
        "command": shlex.join(["python", "-m", "benchmarks", *argv]),
        "machine": machine(),
        "backend": args.backend,
        "threads": args.threads,
        "batch": args.batch,
        "python": platform.python_version(),
        "peers": [peer for peer in args.peers if not lacking[peer]],
        "versions": {},
        "notes": [f"{peer} skipped: {package} is not installed" for peer, package in lacking.items() if package],
        "works": [],
        "tables": [],
        "failed": False,
    }
    with Worker("ours", args.backend, args.threads) as ours:
        try:
            results["versions"]["ours"], results["peak"] = ours("hello"), ours("peak")
            results["machine"] = ours("device") or results["machine"]
        except WorkerError as e:
            print(f"benchmarks: error: ours cannot run: {e}", file=sys.stderr)
            return 2
    for peer in results["peers"]:
        with Worker(peer, args.backend, args.threads) as worker, contextlib.suppress(WorkerError):  # run_work says why
            results["versions"][peer] = worker("hello")
    for text in (*report.header(results), *results["notes"]):
        print(text)
    works = catalogue(args.batch)
    print(report.line(report.COLUMNS), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.work:
        if name in works:
            run_work(works[name], args, results)
        else:
            run_extra(name, args, results)
        report.write_json(args.out / "results.json", results)  # after each: a full run takes an hour
    finish(args, results)
    return 1 if results["failed"] else 0


def finish(args, results):
    """Write the other files."""
    report.plot(args.out / "results.png", results)
    if args.write_results:
        name = "RESULTS.md" if args.backend == "cpu" else "RESULTS-GPU.md"
        (HERE / name).write_text(report.markdown(results))
    print(f"{args.out / 'results.json'}, {args.out / 'results.png'} written")


if __name__ == "__main__":
    sys.exit(main())

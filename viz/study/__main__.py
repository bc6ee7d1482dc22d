"""The command line of the study: ``python -m viz.study``, and ``python run_all.py`` alike."""

import argparse
import shlex
import sys
from pathlib import Path

import scipy.linalg.cython_blas  # noqa: F401  (loads SciPy's own BLAS now, so that the limit in `main` reaches it)
from threadpoolctl import threadpool_limits

from tinycnn import InputError, data, models
from tinycnn.files import readable

from . import sets
from .recipes import RECIPES
from .table import STAGES

ABOUT = "Train the study's network on a data set, draw every picture of the study, and write a report of it."


class Parser(argparse.ArgumentParser):
    """Answers a bad argument with one line."""

    def error(self, message):
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def whole(least, most):
    """Return a function that reads a whole number between two."""

    def read(text):
        try:
            value = int(text)
        except ValueError as e:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text[:40]!r}") from e
        if not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most:,}"
            raise argparse.ArgumentTypeError(f"must be {bound}, got {text[:40]}")
        return value

    return read


def dataset(text):
    """Read the name of a built-in set."""
    if text not in data.NAMES:
        folder = f"; the folder is --images {text}" if Path(text).is_dir() else ""
        raise argparse.ArgumentTypeError(f"unknown set {text[:40]!r}; choose from {', '.join(data.NAMES)}{folder}")
    return text


def seeds(text):
    """Read "0-4" or "0,3,8-10" as a tuple of seeds, in order."""
    found = set()
    for part in text.split(","):
        ends = part.split("-")
        if not (len(part) <= 40 and len(ends) <= 2 and all(end.isascii() and end.isdecimal() for end in ends)):
            raise argparse.ArgumentTypeError(f"expected seeds like 0-4 or 0,3,8, got {text!r}")
        first, last = int(ends[0]), int(ends[-1])
        if not first <= last < first + 1000:
            raise argparse.ArgumentTypeError(f"expected at most 1000 seeds in rising order, got {part!r}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def parse(argv, prog):
    """Return the arguments."""
    p = Parser(prog, description=ABOUT, allow_abbrev=False)
    sets_help = ", ".join(data.NAMES) + " (default: digits)"
    p.add_argument("--dataset", nargs="+", type=dataset, default=(), metavar="NAME", help=sets_help)
    p.add_argument(
        "--images",
        metavar="DIR",
        help="a folder of pictures, one sub-folder a class, of which a fifth of each class is for validation; or one "
        "in STL-10's layout, with class_names.txt",
    )
    p.add_argument("--model", choices=models.STUDY, help="the network for --images (default: stl10)")
    p.add_argument("--data-dir", default="data", metavar="DIR", help="where the official files are (default: data)")
    p.add_argument("--download", action="store_true", help="get the official files where they are missing")
    p.add_argument("--steps", type=whole(1, 10**7), metavar="N", help="training steps (default: the recipe's)")
    p.add_argument("--recipe", choices=tuple(RECIPES), default="study", help="how to train (default: study)")
    p.add_argument(
        "--protocol",
        choices=tuple(sets.PROTOCOLS),
        default="holdout",
        help="; ".join(f"{name}: {what}" for name, what in sets.PROTOCOLS.items()) + " (default: holdout)",
    )
    p.add_argument("--backend", default="auto", help="auto, reference, cpu or gpu")
    p.add_argument(
        "--only",
        nargs="+",
        choices=[s.name for s in STAGES.values() if s.over == "network"],
        metavar="STAGE",
        help="these stages alone; see --list",
    )
    one_or_many = p.add_mutually_exclusive_group()
    one_or_many.add_argument(
        "--seed", type=whole(0, 2**63), default=0, metavar="N", help="of everything random (default: 0)"
    )
    one_or_many.add_argument(
        "--seeds",
        type=seeds,
        default=(),
        metavar="N-M",
        help="a study for each, into OUT/<dataset>/seed-K, and a summary over networks: 0-4, or 0,3,8",
    )
    p.add_argument(
        "--workers",
        metavar="WHERE",
        help="do the parts on Dask's workers: local:N, or the scheduler's address, tcp://host:port",
    )
    p.add_argument(
        "--summarize",
        nargs="?",
        const=True,
        metavar="OUT",
        help="summarize the studies that lie in OUT/<dataset>/*, however they came to be, and stop",
    )
    p.add_argument("--resume", action="store_true", help="continue where the last run stopped, keep what is done")
    p.add_argument(
        "--export",
        nargs="+",
        choices=("svg", "pdf", "csv"),
        default=(),
        metavar="FORMAT",
        help="beside each figure's PNG also svg or pdf, with its numbers as csv; or csv, these alone",
    )
    p.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="default: out")
    p.add_argument("--list", action="store_true", help="list the data sets and the stages, and stop")
    args = p.parse_args(argv)
    if args.images == "":
        p.error("argument --images: names no folder")
    if args.model and not args.images:
        p.error("argument --model: goes with --images; a built-in set has its own network")
    return args


def main(argv=None, prog="python -m viz.study"):
    """Run; return the exit status: 0, 2 for bad input or a failed write, 130 if interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    program = prog.removeprefix("python ")
    args = vars(parse(argv, program))
    if args.pop("list"):
        return list_all()
    summarize = args.pop("summarize")
    if hasattr(sys.stdout, "reconfigure"):  # a class may be named in letters that the terminal lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    from . import networks  # not needed to list the stages or to refuse a bad argument
    from .run import Options

    try:
        with threadpool_limits(1, user_api="blas"):  # sums of the same order whatever the machine's threads
            if summarize:
                networks.summarize_all(args["out"] if summarize is True else Path(summarize))
            else:
                networks.run(Options(**args, command=readable(shlex.join([*prog.split(), *argv]))))
    except (InputError, OSError, MemoryError) as e:
        text = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        place = f": {e.filename}" if getattr(e, "filename", None) and str(e.filename) not in text else ""
        print(f"{program}: error: {one_line(text + place)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as e:
        print(f"\n{program}: {one_line(e) or 'stopped'}; run the same command with --resume to go on", file=sys.stderr)
        return 130
    return 0


def one_line(text):
    """Return a text, in which files' names may stand, with what is no letter escaped: line ends, odd bytes, signals."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def list_all():
    """Print the data sets and the stages."""
    print("data sets:")
    for name in data.NAMES:
        info = data.info(name)
        where = "comes with the program" if info.embedded else "needs its files in --data-dir, or --download"
        print(f"  {name:<24}{info.title}, {' x '.join(map(str, info.shape))}, {where}")
    print("stages:")
    for stage in STAGES.values():
        print(f"  {stage.name:<24}{stage.about}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

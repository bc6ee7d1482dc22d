"""Train the study's network on a data set and draw every picture of the study: ``python run_all.py``.

Writes OUT/<dataset>/<stage>/*.png, OUT/<dataset>/metrics.json, OUT/<dataset>/weights.safetensors and OUT/report.html.
"""

import argparse
import math
import os
import platform
import shlex
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import scipy.linalg.cython_blas  # noqa: F401  (loads SciPy's own BLAS now, so that the limit in `main` reaches it)
from threadpoolctl import threadpool_limits

from tinycnn import InputError, data, files, get_ops, models
from viz import study
from viz.report import results
from viz.study import estimate, recipes
from viz.study.recipes import RECIPES, recipe


class Parser(argparse.ArgumentParser):
    """Answers a bad argument with one line."""

    def error(self, message):
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def parse(argv):
    """Return the arguments."""
    p = Parser("run_all.py", description=__doc__.split("\n\n")[0], allow_abbrev=False)
    p.add_argument(
        "--dataset",
        nargs="+",
        choices=data.NAMES,
        metavar="NAME",
        help=", ".join(data.NAMES) + " (default: digits)",
    )
    p.add_argument("--images", metavar="DIR", help="a folder in STL-10's layout, with class_names.txt")
    p.add_argument("--data-dir", default="data", metavar="DIR", help="where the official files are (default: data)")
    p.add_argument("--download", action="store_true", help="get the official files where they are missing")
    p.add_argument("--steps", type=_positive, metavar="N", help="training steps (default: the study's)")
    p.add_argument("--recipe", choices=tuple(RECIPES), default="study", help="how to train (default: study)")
    p.add_argument(
        "--protocol",
        choices=study.PROTOCOLS,
        default="study",
        help="of stl10: study joins its two parts, trains on the first 10,000 and validates on the last 3,000; "
        "official trains on the 5,000 and validates on the 8,000 test images (default: study)",
    )
    p.add_argument("--backend", default="auto", help="auto, reference, cpu or gpu")
    p.add_argument(
        "--only",
        nargs="+",
        choices=tuple(study.STAGES),
        metavar="STAGE",
        help="these stages alone; see --list",
    )
    p.add_argument("--seed", type=_natural, default=0, metavar="N")
    p.add_argument("--resume", action="store_true", help="continue where the last run stopped, keep what is done")
    p.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="default: out")
    p.add_argument("--list", action="store_true", help="list the data sets and the stages, and stop")
    return p.parse_args(argv)


def main(argv=None):
    """Run; return the exit status: 0, 2 for bad input or a failed write, 130 if interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    if args.list:
        return list_all()
    try:
        with threadpool_limits(1, user_api="blas"):  # sums of the same order whatever the machine's threads
            run(args, shlex.join(["python", "run_all.py", *argv]))
    except (InputError, OSError, MemoryError) as e:
        text = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        place = f": {e.filename}" if getattr(e, "filename", None) and str(e.filename) not in text else ""
        print(f"run_all.py: error: {text}{place}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as e:
        print(f"\nrun_all.py: {e or 'stopped'}; run the same command with --resume to go on", file=sys.stderr)
        return 130
    return 0


def run(args, command):
    """Check all that can be checked, then train and draw, one data set after the other."""
    from viz.report import page as report  # not needed to list the stages or to refuse bad input

    start = time.perf_counter()
    backend = get_ops(args.backend, "float32").name
    names = list(dict.fromkeys(args.dataset or ([] if args.images else ["digits"])))
    infos = {name: data.info(name) for name in names}
    if args.images:
        infos[args.images] = data.folder_info(args.images)
    if len({info.name for info in infos.values()}) < len(infos):
        raise InputError(f"--images {args.images}: the folder has the name of a data set of this run; rename it")
    for info in infos.values():
        check_writable(args.out / info.name)
    loaded = {name: study.load(name, args.data_dir, args.download, args.protocol) for name in infos}
    stages = chosen(args)
    plan = {}
    for name, info in infos.items():
        steps = args.steps or recipe(args.recipe, name).steps
        judge = recipes.judge(name, effort(args, name)).steps if "maximization" in stages else 0
        plan |= estimate.parts(info, steps, judge, stages, effort(args, name))
    clock = estimate.Estimate(plan)

    sections = []
    for name in infos:
        sections.append(run_dataset(args, name, loaded.pop(name), clock))
        report.write(
            args.out / "report.html",
            sections,
            {
                "command": command,
                "seed": args.seed,
                "backend": backend,
                "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
                "seconds": time.perf_counter() - start,
                "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
                "timed": ["training", "judges", *study.STAGES],
            },
        )
    print(f"{args.out / 'report.html'}: done in {report.duration(time.perf_counter() - start)}")


def run_dataset(args, name, loaded, clock):
    """Train, run the stages, write the numbers; return the report's section."""
    start = time.perf_counter()
    info, images, labels, val_images, val_labels, masks = loaded
    out = args.out / info.name
    how = recipe(args.recipe, name)
    steps = args.steps or how.steps
    wanted = chosen(args)
    counts = f"{len(images):,} training and {len(val_images):,} validation images"
    print(f"{info.title}: {counts}, recipe {args.recipe}, {steps:,} steps", flush=True)
    times, before = {}, results.timing(out, args.recipe) if args.resume else {}

    def say(part, seconds, what):
        """Print one line: what was done, how long it took, how long the rest will."""
        clock.done((info.name, part), seconds)
        left = clock.left()
        left = f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left" if left >= 1 else ""
        took = "kept     " if seconds is None else f"{seconds:7.1f} s"
        print(f"  {part:<24}{took}  {what:<26}{left}".rstrip(), flush=True)

    def trained(key, how, steps, seed, **kwargs):
        """Train one network, or go on from its checkpoint; return it, its history and whether it was kept."""
        net = models.build(
            info.model,
            backend=args.backend,
            seed=seed,
            classes=len(info.classes),
            dropout=how.dropout,
            meta={"dataset": info.name, "classes": "\n".join(info.classes)},
            **kwargs,
        )
        checkpoint = out / f"checkpoint-{key}.safetensors"
        resume = args.resume and checkpoint.exists()
        val = val_images, val_labels
        history = how.fit(net, images, labels, val, steps=steps, seed=seed, checkpoint=checkpoint, resume=resume)
        return net, history, resume

    net, history, kept = trained(args.recipe, how, steps, args.seed)
    took = time.perf_counter() - start
    net.save(out / "weights.safetensors")
    histories = results.histories(out, args.recipe, history)
    say("training", None if kept else took, f"validation {history.val_accuracy[-1]:.1%}")
    times["training"] = took + (before.get("training", 0.0) if kept else 0.0)
    judges, judged = {}, {}
    if "maximization" in wanted:
        began, as_judge = time.perf_counter(), recipes.judge(name, effort(args, name))
        for judge, seed, deep in (
            ("another seed", args.seed + 1, False),
            ("another architecture", args.seed + 2, True),
        ):
            key = f"judge-{judge.replace(' ', '-')}"
            judges[judge], h, kept = trained(key, as_judge, as_judge.steps, seed, deep=deep)
            judged[judge] = float(h.val_accuracy[-1])
        took = time.perf_counter() - began
        times["judges"] = took + (before.get("judges", 0.0) if kept else 0.0)
        say("judges", None if kept else took, "validation " + ", ".join(f"{v:.1%}" for v in judged.values()))

    s = study.Study(
        *(net, info, images, labels, val_images, val_labels, masks, history, how, histories, args.seed),
        judges,
        effort(args, name),
    )
    facts = (info, how, args.seed, s.effort, {kind: h.to_dict() for kind, h in histories.items()})
    facts += (recipes.judge(name, s.effort),)  # which determines the judges
    key = results.fingerprint(net, (images, labels, val_images, val_labels), facts)
    stages = []
    for stage, function in study.STAGES.items():
        folder = out / stage
        done, seconds = results.find(folder, key) if args.resume or stage not in wanted else None, None
        if done is None and stage in wanted:
            began = time.perf_counter()
            done = results.keep(folder, *function(s), began, key)
            seconds = done.seconds
        if stage in wanted:
            say(stage, seconds, f"{len(done.pictures)} figures")
        if done is not None:
            stages.append({"name": stage, "about": function.__doc__.strip(), "folder": folder, "result": done})
            times[stage] = done.seconds
    facts = {
        "dataset": info.name,
        "network": repr(net),
        "seed": args.seed,
        "recipe": f"{args.recipe}: {how}",
        "protocol": args.protocol if name == "stl10" else "the set's own split",
        "steps": history.steps,
        "train_images": len(images),
        "validation_images": len(val_images),
        "train_accuracy": float(history.train_accuracy[-1]),
        "validation_accuracy": float(history.val_accuracy[-1]),
        "judges": judged,
    }
    metrics = {**facts, "fingerprint": key, "stages": {s["name"]: s["result"].metrics for s in stages}}
    files.write_text(out / "metrics.json", results.dumps(metrics))
    files.write_text(
        out / "timing.json",
        results.dumps({"seconds": times, "recipe": args.recipe, "date": datetime.now().isoformat("T", "seconds")}),
    )
    return {
        "info": info,
        "facts": facts,
        "stages": stages,
        "times": times,
        "seconds": sum(times.values()),
    }


def chosen(args):
    """The stages that are asked for, in their order."""
    return [stage for stage in study.STAGES if args.only is None or stage in args.only]


def effort(args, name):
    """The share of the recipe's steps that are asked for: activation maximization is cut by as much."""
    return min(1.0, (args.steps or math.inf) / recipe(args.recipe, name).steps)


def check_writable(folder):
    """Raise InputError now, not after an hour of training, if `folder` cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as f:
            f.write(b"x")
    except OSError as e:
        raise InputError(f"cannot write to the output folder {folder}: {e.strerror}; choose another with --out") from e


def list_all():
    """Print the data sets and the stages."""
    print("data sets:")
    for name in data.NAMES:
        info = data.info(name)
        where = "comes with the program" if info.embedded else "needs its files in --data-dir, or --download"
        print(f"  {name:<24}{info.title}, {' x '.join(map(str, info.shape))}, {where}")
    print("stages:")
    for name, function in study.STAGES.items():
        print(f"  {name:<24}{function.__doc__.strip()}")
    return 0


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _natural(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


if __name__ == "__main__":
    sys.exit(main())

"""The study's own numbers: do again what changed, and write the README's tables from what is kept of every run.

    python -m benchmarks.results                                  # the tables, from benchmarks/results
    python -m benchmarks.results --run study fast --work DIR      # before that these studies, as far as they changed

A study is kept as the metrics.json and run.json of each network and the summary.json of all, no pictures, no weights.
It has changed if its recipe, its protocol or the code of one of its stages is another now. `--work` is where the whole
of it is made; what is there already is gone on with, so that a study that was cut short loses nothing.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from tinycnn import InputError, data, files
from viz.metrics import statistics
from viz.metrics.controls import CONTROLS
from viz.report import results, text
from viz.study import cards, claims, fingerprint, recipes
from viz.study.table import STAGES

HERE = Path(__file__).resolve().parent
RESULTS, README = HERE / "results", HERE.parent / "README.md"
STAND_IN = "imagenette96"  # the folder of --images in place of STL-10
STUDIES = {  # {name: {data set: seeds}}, and the arguments of all of them
    "default": ({"digits": "0-9", "shapes": "0-4"}, []),
    "study": ({"mnist": "0-2", "cifar10": "0", STAND_IN: "0"}, ["--recipe", "study", "--protocol", "study"]),
    "fast": ({"mnist": "0-2", "cifar10": "0-2", STAND_IN: "0-2"}, ["--recipe", "fast"]),
    "scorecard": ({"shapes": "0-9", "shapes-corner": "0-4", "shapes-texture": "0-4", "shapes-color": "0-4"}, []),
}
SCORED = {"shapes": "scorecard"}  # the stage that the last one is done for; of the other sets it is "shortcut"
LINES = {"study": ("#b45309", "test images"), "fast": ("#1d4ed8", "held-out images")}  # of the plot
TITLES = {"digits": "digits", "shapes": "shapes", "mnist": "MNIST", "cifar10": "CIFAR-10", STAND_IN: "stand-in"}
TITLES |= {name: name for name in STUDIES["scorecard"][0]}


def arguments(study, dataset):
    """Return the arguments of a study of a data set, but for the set and the seeds."""
    only = ["--only", SCORED.get(dataset, "shortcut")] if study == "scorecard" else []
    return [*STUDIES[study][1], *only]


def read(study, dataset):
    """Return ({seed: metrics}, {seed: run}) of a kept study; two empty dicts if there is none."""
    folders = sorted(p.parent for p in (RESULTS / study / dataset).glob("seed-*/metrics.json"))
    metrics, runs = (
        [json.loads((folder / f"{name}.json").read_text("utf-8")) for folder in folders] for name in ("metrics", "run")
    )
    order = sorted(range(len(metrics)), key=lambda i: metrics[i]["seed"])
    return tuple({metrics[i]["seed"]: found[i] for i in order} for found in (metrics, runs))


def changed(study, dataset):
    """Return why a study has to be done again, in words; "" if what is kept is what the code gives now."""
    seeds, given = STUDIES[study][0][dataset], arguments(study, dataset)
    asked = dict(zip(given[::2], given[1::2]))
    kind, protocol = asked.get("--recipe", "study"), asked.get("--protocol", "holdout")
    metrics, runs = read(study, dataset)
    first, _, last = seeds.partition("-")
    if set(metrics) != set(range(int(first), int(last or first) + 1)):
        return "not all of its networks are kept"
    for run in runs.values():
        info = data.info(dataset) if run["built_in"] else data.DatasetInfo(**run["info"])
        recipe = f"{kind}: {recipes.recipe(kind, info)}"
        for name, now in (("recipe", recipe), ("protocol", protocol)):
            if run["settings"][name] != now:
                return f"its {name} was {run['settings'][name]}"
        for name, stage in STAGES.items():
            code, only = run["fingerprints"].get(name, {}).get("code"), asked.get("--only")
            needed = name in run["fingerprints"] or (name == only if only else stage.usual(dataset))
            if stage.over == "network" and needed and code != fingerprint.of_code(stage.module):
                return f"the code of {name} has changed"
    return ""


def do(study, dataset, work, data_dir):
    """Do one study in `work`, or go on with it, and keep its records."""
    seeds = STUDIES[study][0][dataset]
    where = ["--images", f"{data_dir}/{dataset}"] if dataset == STAND_IN else ["--dataset", dataset]
    command = [sys.executable, "run_all.py", *where, "--data-dir", data_dir, "--seeds", seeds, "--resume"]
    command += arguments(study, dataset)
    out = Path(work) / study
    subprocess.run([*command, "--out", str(out)], cwd=HERE.parent, check=True)
    kept = RESULTS / study / dataset
    shutil.rmtree(kept, ignore_errors=True)
    for path in (out / dataset).glob("seed-*"):
        files.write_bytes(kept / path.name / "metrics.json", (path / "metrics.json").read_bytes())
        run = json.loads((path / "run.json").read_text("utf-8"))
        del run["sha256"]  # of what is changed here
        run = results.dumps(run).replace(str(data_dir), "data").replace(str(out), "out")  # wherever it ran
        files.write_text(kept / path.name / "run.json", run)
    files.write_bytes(kept / "summary.json", (out / dataset / "summary.json").read_bytes())


# -- tables ------------------------------------------------------------------------------------------------------------


def table(heads, rows):
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', ' ') for cell in line)} |" for line in lines)


def networks(metrics):
    """How many, in words."""
    return f"{len(metrics)} network{'s' * (len(metrics) > 1)}"


def accuracies():
    """How often the networks are right, by data set and recipe, beside what the study reports."""
    rows = []
    for dataset in (*STUDIES["fast"][0], *STUDIES["default"][0]):
        share, *_ = recipes.REPORTED.get(dataset, recipes.REPORTED["stl10"] if dataset == STAND_IN else (None,))
        reported = "" if share is None else f"{'STL-10: ' * (dataset == STAND_IN)}roughly {text.percent(share, 0)}"
        cells = [TITLES[dataset], reported]
        for study in ("default" if dataset in STUDIES["default"][0] else "study", "fast"):
            metrics = read(study, dataset)[0] if dataset in STUDIES[study][0] else None
            cells.append(_accuracy(metrics) if metrics else "" if metrics is None else "not run yet")
        rows.append(cells)
    return table(["test images classified rightly", "the study reports", "`study`", "`fast`"], rows)


def _accuracy(metrics):
    first = next(iter(metrics.values()))
    test, known = (claims.over(metrics, k) for k in ("test_accuracy", "train_accuracy"))
    return (
        f"**{claims.percent(test)}** of {first['test_images']:,}; training images {text.percent(known.mean)} "
        f"({first['steps']:,} steps, {networks(metrics)})"
    )


def claimed():
    """The study's claims, each on every data set that is kept."""
    kept = {d: read(study, d)[0] for study in ("default", "fast") for d in STUDIES[study][0]}
    own = {d: read("study", d)[0] for d in recipes.REPORTED}
    told = {}  # {number of the claim: [(data set, networks, row)]}
    for dataset, metrics in kept.items():
        for row in claims.rows(metrics, other=kept.get("cifar10") if dataset == "mnist" else None) if metrics else ():
            told.setdefault(row.id, []).append((dataset, len(metrics), row))
    if scored := read("scorecard", "shapes")[0]:  # beside all other methods: in place of what one stage says
        told["S4"] = [one for one in told.get("S4", []) if one[0] != "shapes"]
        told["S4"] += [("shapes", len(scored), row) for row in claims.rows(scored) if row.id == "S4"]
    for dataset, metrics in own.items():
        if metrics:
            row = claims.rows(metrics, recipes.REPORTED[dataset])[-1]
            told.setdefault(row.id, []).append((dataset, len(metrics), row))
    rows = []
    for name in sorted(told, key=lambda name: int(name[1:])):
        for i, (dataset, count, row) in enumerate(told[name]):
            said = f"**{name}** {row.claim}<br>*{row.measured}*" if i == 0 else ""
            rows.append([said, f"{TITLES[dataset]}, {count}", row.number, row.control, f"**{row.verdict}**"])
    return table(["claim, and *what was measured*", "set, networks", "number", "control", "verdict"], rows)


def ways():
    """What the judges say of the images of each way to make them."""
    kept = {d: read("fast", d)[0] for d in STUDIES["fast"][0]} | {
        d: read("default", d)[0] for d in STUDIES["default"][0]
    }
    kept = {dataset: metrics for dataset, metrics in kept.items() if metrics}
    names = list(
        dict.fromkeys(name for m in kept.values() for name in next(iter(m.values()))["stages"]["maximization"]["ways"])
    )
    rows = []
    for name in names:
        cells = [name]
        for metrics in kept.values():
            values = {s: m["stages"]["maximization"]["ways"].get(name, {}).get("log_odds") for s, m in metrics.items()}
            known = all(v is not None for v in values.values())
            cells.append(
                text.span(vars(statistics.over_networks(values, comparisons=len(names))), 1)
                if known and len(values) > 1
                else ""
            )
        rows.append(cells)
    return table(["judges' mean log-odds", *(f"{TITLES[d]}, {networks(m)}" for d, m in kept.items())], rows)


COLUMNS = {  # of the scorecard in short: {head: (data set, metric)}
    "points at the object": ("shapes", "pointing game"),
    "average precision": ("shapes", "average precision"),
    "deletion": ("shapes", "deletion"),
    "insertion": ("shapes", "insertion"),
    "ROAD": ("shapes", "ROAD"),
    "stays with random weights": ("shapes", "all layers random: Spearman"),
    "finds the mark": ("shapes-corner", "pointing game"),
    "finds the texture": ("shapes-texture", "pointing game"),
}


def scored():
    """The scorecard in short: methods by metrics; in bold what is better than every map of no network, for certain."""
    found = {}
    for dataset in ("shapes", "shapes-corner", "shapes-texture"):
        metrics, stage = read("scorecard", dataset)[0], SCORED.get(dataset, "shortcut")
        found[dataset] = {seed: m["stages"][stage]["scores"] for seed, m in metrics.items()}
    if not found["shapes"]:
        return "Not run yet."
    rows = []
    for method in next(iter(found["shapes"].values())):
        cells = [f"{method} (no network)" if method in CONTROLS else method]
        for dataset, metric in COLUMNS.values():
            cells.append(_score(found[dataset], method, metric) if found[dataset] else "")
        rows.append(cells)
    count = "; ".join(f"{d}: {networks(some)}" for d, some in found.items() if some)
    return f"{count[0].upper()}{count[1:]}.\n\n" + table(["method", *COLUMNS], rows)


def _score(found, method, metric):
    """A mean over networks with its interval; bold where it is better than the best map of no network for certain."""
    values = cards.values(found, method, metric)
    if not values:
        return ""
    written = text.span(vars(statistics.over_networks(values)))
    if method in CONTROLS or cards.best_control(found, metric) is None:
        return written
    return f"**{written}**" if cards.beats(found, method, metric) else written


TABLES = {"accuracies": accuracies, "claims": claimed, "ways": ways, "scorecard": scored}


def curves(path):
    """Draw the accuracies during the training of every kept network of the real sets, a panel a set."""
    import matplotlib.pyplot as plt

    sets = [d for d in STUDIES["fast"][0] if any(read(study, d)[0] for study in LINES)]
    if not sets:
        return
    fig, panels = plt.subplots(1, len(sets), figsize=(5.2 * len(sets), 4), squeeze=False, layout="constrained")
    for ax, dataset in zip(panels[0], sets):
        for study, (color, measured) in LINES.items():
            for i, one in enumerate(read(study, dataset)[0].values()):
                curve, label = one["curve"], f"recipe {study}" if i == 0 else None
                at = [step / curve["eval_steps"][-1] for step in curve["eval_steps"]]
                ax.plot(
                    at,
                    [100 * v for v in curve["val_accuracy"]],
                    color=color,
                    lw=1.6,
                    label=label and f"{label}, {measured}",
                )
                ax.plot(
                    at,
                    [100 * v for v in curve["train_accuracy"]],
                    color=color,
                    lw=1,
                    ls="--",
                    label=label and f"{label}, training images",
                )
        ax.set(
            title=TITLES[dataset],
            xlabel="share of the training",
            ylabel="images classified rightly, %",
            ylim=(None, 101),
        )
        ax.legend(frameon=False, fontsize=8, loc="lower right")
        ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def write_readme(path=README):
    """Put the tables between their marks."""
    page = path.read_text("utf-8")
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: written by python -m benchmarks.results -->\n", f"<!-- end of {name} -->"
        before, found, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise InputError(f"{path}: has no marks {begin.strip()} and {end}")
        page = before + begin + "\n" + make() + "\n\n" + end + after
    files.write_text(path, page)


def main(argv=None):
    """Do again what is asked for and has changed, then write the tables and the plot."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--run", nargs="+", choices=tuple(STUDIES), default=(), metavar="STUDY", help=", ".join(STUDIES))
    p.add_argument("--sets", nargs="+", choices=tuple(TITLES), metavar="SET", help="of these studies; default: all")
    p.add_argument("--work", default="out-results", metavar="DIR", help="where runs are made (default: out-results)")
    p.add_argument("--data-dir", default="data", metavar="DIR", help=f"where the files are, {STAND_IN} among them")
    args = p.parse_args(argv)
    for study in STUDIES:
        for dataset in STUDIES[study][0]:
            why = changed(study, dataset)
            if why and study in args.run and dataset in (args.sets or TITLES):
                print(f"{study}, {dataset}: {why}", flush=True)
                do(study, dataset, args.work, args.data_dir)
            elif why:
                print(f"{study}, {dataset}: not up to date: {why}")
    curves(HERE.parent / "docs" / "curves.png")
    write_readme()


if __name__ == "__main__":
    main()

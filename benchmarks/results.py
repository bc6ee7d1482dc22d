"""The study's own numbers: do again what changed, and write the README's tables from what is kept of every run.

    python -m benchmarks.results                                  # the tables, from benchmarks/results
    python -m benchmarks.results --run study fast --work DIR      # before that these studies, as far as they changed

A study is kept as the metrics.json and run.json of each network and the summary.json of all, no pictures, no weights.
It has changed if its recipe, its protocol or the code of one of its stages is another now. `--work` is where the whole
of it is made; what is there already is gone on with, so that a study that was cut short loses nothing.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tinycnn import InputError, data, files
from viz.report import text
from viz.study import claims, fingerprint, recipes
from viz.study.table import STAGES

HERE = Path(__file__).resolve().parent
RESULTS, README = HERE / "results", HERE.parent / "README.md"
STAND_IN = "imagenette96"  # the folder of --images in place of STL-10
STUDIES = {  # {name: {data set: seeds}}, and the arguments of all of them
    "default": ({"digits": "0-9", "shapes": "0-4"}, []),
    "study": ({"mnist": "0-2", "cifar10": "0", STAND_IN: "0"}, ["--recipe", "study", "--protocol", "study"]),
    "fast": ({"mnist": "0-2", "cifar10": "0-2", STAND_IN: "0-2"}, ["--recipe", "fast"]),
}
TITLES = {"digits": "digits", "shapes": "shapes", "mnist": "MNIST", "cifar10": "CIFAR-10", STAND_IN: "stand-in"}


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
    seeds, arguments = STUDIES[study][0][dataset], STUDIES[study][1]
    asked = dict(zip(arguments[::2], arguments[1::2]))
    kind, protocol = asked.get("--recipe", "study"), asked.get("--protocol", "holdout")
    metrics, runs = read(study, dataset)
    first, _, last = seeds.partition("-")
    if set(metrics) != set(range(int(first), int(last or first) + 1)):
        return "not all of its networks are kept"
    for run in runs.values():
        recipe = f"{kind}: {recipes.recipe(kind, data.DatasetInfo(**run['info']))}"
        for name, now in (("recipe", recipe), ("protocol", protocol)):
            if run["settings"][name] != now:
                return f"its {name} was {run['settings'][name]}"
        for name, stage in STAGES.items():
            if stage.over == "network" and (name in run["fingerprints"] or stage.usual(dataset)):
                if run["fingerprints"].get(name, {}).get("code") != fingerprint.of_code(stage.module):
                    return f"the code of {name} has changed"
    return ""


def do(study, dataset, work, data_dir):
    """Do one study in `work`, or go on with it, and keep its records."""
    seeds, arguments = STUDIES[study][0][dataset], STUDIES[study][1]
    where = ["--images", f"{data_dir}/{dataset}"] if dataset == STAND_IN else ["--dataset", dataset]
    command = [sys.executable, "run_all.py", *where, "--data-dir", data_dir, *arguments, "--seeds", seeds, "--resume"]
    out = Path(work) / study
    subprocess.run([*command, "--out", str(out)], cwd=HERE.parent, check=True)
    kept = RESULTS / study / dataset
    shutil.rmtree(kept, ignore_errors=True)
    for path in (out / dataset).glob("seed-*"):
        for name in ("metrics.json", "run.json"):
            files.write_bytes(kept / path.name / name, (path / name).read_bytes())
    files.write_bytes(kept / "summary.json", (out / dataset / "summary.json").read_bytes())


# -- tables ------------------------------------------------------------------------------------------------------------


def share(interval, digits=1):
    """An interval of shares in a cell."""
    return text.span_percent(interval, digits).replace(" (", "<br>(")


def table(heads, rows):
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)

"""One data set of a run: train, judges, stages, numbers; and the report of all that lies in the folder.

    OUT/<dataset>/run.json              what the numbers came from: settings, version, machine, times, fingerprints
    OUT/<dataset>/metrics.json          what the seed determines, and nothing else
    OUT/<dataset>/weights.safetensors   beside it checkpoint-*.safetensors, history-*.json
    OUT/<dataset>/<stage>/              its pictures, and result.json with its facts
    OUT/report.html

A folder belongs to one training. ``--resume`` and ``--only`` go on in it and refuse what would mix it with another;
without them it starts anew, and what was there counts no more.
"""

import math
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tinycnn import InputError, data, files, get_ops, models, train
from viz.report import page, results
from viz.report.text import duration, percent

from . import estimate, fingerprint, judges, recipes, records, sets, words
from .subject import Study
from .table import STAGES


@dataclass(frozen=True)
class Options:
    """What is asked for: the arguments of the command line, and the command itself."""

    dataset: tuple = ()
    images: str | None = None
    model: str | None = None
    data_dir: str = "data"
    download: bool = False
    steps: int | None = None
    recipe: str = "study"
    protocol: str = "study"
    backend: str = "auto"
    only: tuple | None = None
    seed: int = 0
    resume: bool = False
    out: Path = Path("out")
    command: str = ""

    @property
    def stages(self):
        """The stages that are asked for, in their order."""
        return [stage for stage in STAGES.values() if self.only is None or stage.name in self.only]

    @property
    def goes_on(self):
        """Whether what lies in the folder is kept."""
        return self.resume or self.only is not None


def run(options):
    """Check all that can be checked, then train and draw, one data set after the other.

    Raises
    ------
    InputError, OSError
        Bad input, before anything is written; a file that cannot be written.
    """
    start = time.perf_counter()
    get_ops(options.backend, "float32")
    names = dict.fromkeys(options.dataset or (() if options.images else ("digits",)))
    infos = [data.info(name) for name in names]
    for info in infos:
        records.check_writable(options.out / info.name)
    chosen = [sets.built_in(name, options.data_dir, options.download, options.protocol) for name in names]
    if options.images:
        chosen.append(sets.of_folder(options.images, options.model))
        records.check_writable(options.out / chosen[-1].folder)
    if len({one.folder for one in chosen}) < len(chosen):
        raise InputError(f"--images {options.images}: the folder has the name of a data set of this run; rename it")
    parts = [Run(options, chosen.pop(0)) for _ in range(len(chosen))]
    clock = estimate.Estimate({(part.name, k): v for part in parts for k, v in part.plan().items()})
    while parts:
        parts.pop(0).go(clock)  # its images are let go
        write_report(options.out)
    print(f"{options.out / 'report.html'}: done in {duration(time.perf_counter() - start)}")


class Run:
    """One data set of a run.

    Raises
    ------
    InputError
        The folder holds another training than the one that is asked for, and is to be gone on with.
    """

    def __init__(self, options, dataset):
        self.options, self.set, self.info = options, dataset, dataset.info
        self.name, self.out = dataset.folder, options.out / dataset.folder
        self.recipe = recipes.recipe(options.recipe, self.info)
        self.steps = options.steps or self.recipe.steps
        self.effort = min(1.0, (options.steps or math.inf) / self.recipe.steps)
        self.judged = any("judges" in stage.uses for stage in options.stages)
        self.judge_recipe = recipes.judge(self.info, self.effort)
        self.settings = {
            "dataset": self.info.name,
            "recipe": f"{options.recipe}: {self.recipe}",
            "protocol": options.protocol if dataset.built_in and self.info.name == "stl10" else "the set's own split",
            "model": self.info.model,
            "seed": options.seed,
            "images": fingerprint.of_arrays(dataset.arrays),
        }
        self.before = records.read(self.out / "run.json")
        self.seconds = {}
        if options.goes_on:
            self.refuse_to_mix()

    def refuse_to_mix(self):
        """Raise unless what lies in the folder is, or is to become, what is asked for."""
        how = "--resume" if self.options.resume else "--only"
        cure = f"ask for the same, choose another --out, or leave out {how} to start anew"
        there = self.before.get("in_progress") or self.before.get("settings") or self.settings
        for name, asked in self.settings.items():
            if there[name] != asked:
                old, new = (str(v)[:12] if name == "images" else v for v in (there[name], asked))
                raise InputError(f"{self.out} holds a run with {name} {old}, now {new} is asked for; {cure}")
        if self.before.get("settings") == self.settings and self.before["steps"] > self.steps:
            old = self.before["steps"]
            raise InputError(f"{self.out} holds a run of {old} steps, now {self.steps} are asked for; {cure}")

    def plan(self):
        """Return the usual seconds of each part."""
        judge_steps = self.judge_recipe.steps if self.judged else 0
        return estimate.parts(self.info, self.steps, judge_steps, self.options.stages, self.effort)

    def go(self, clock):
        """Do it all."""
        self.clock = clock
        counts = f"{len(self.set.images):,} training and {len(self.set.val_images):,} validation images"
        print(f"{self.info.title}: {counts}, recipe {self.options.recipe}, {self.steps:,} steps", flush=True)
        if not self.options.goes_on:
            for checkpoint in self.out.glob("checkpoint-*.safetensors"):  # of trainings that nobody goes on with
                checkpoint.unlink()
        files.write_text(self.out / "run.json", results.dumps({**self.before, "in_progress": self.settings}))
        self.train()
        self.find_what_is_done()
        self.train_judges()
        for stage in self.options.stages:
            self.look(stage)
        self.record()

    # -- networks ------------------------------------------------------------------------------------------------------

    def train(self):
        """The network itself."""
        kind = self.options.recipe
        self.net, self.history, took = self.fit(kind, self.recipe, self.steps, self.options.seed)
        files.write_text(self.out / f"history-{kind}.json", results.dumps(self.history.to_dict()))
        self.net.save(self.out / "weights.safetensors")
        self.weights = fingerprint.of_network(self.net)
        self.say("training", took, f"validation {percent(self.history.val_accuracy[-1])}")

    def train_judges(self):
        """Those of generated images, if a stage asks for them."""
        self.judges, took = {}, []
        for name, deep in judges.JUDGES.items() if self.judged else ():
            how, seed = self.judge_recipe, judges.seed(self.options.seed, name)
            net, history, seconds = self.fit(f"judge-{name.replace(' ', '-')}", how, how.steps, seed, deep=deep)
            self.judges[name], self.accuracies[name] = net, history.val_accuracy[-1]
            took += [] if seconds is None else [seconds]
        if self.judged:
            what = "validation " + ", ".join(percent(self.accuracies[name]) for name in self.judges)
            self.say("judges", sum(took) if took else None, what)

    def fit(self, key, how, steps, seed, **kwargs):
        """Train one network, or go on from its checkpoint; return it, its history, and the seconds, None if kept."""
        began, checkpoint = time.perf_counter(), self.out / f"checkpoint-{key}.safetensors"
        net = models.build(
            self.info.model,
            backend=self.options.backend,
            seed=seed,
            classes=len(self.info.classes),
            dropout=how.dropout,
            meta={"dataset": self.info.name, "classes": "\n".join(self.info.classes)},
            **kwargs,
        )
        resume, done = self.options.goes_on and checkpoint.exists(), 0
        if resume:
            done, schedule = train.started(checkpoint)
            if how.schedule != "constant" and schedule != [how.schedule, steps]:
                print(f"  {key} is trained anew: its rate follows a schedule of {steps:,} steps, not {schedule[1]:,}")
                resume, done = False, 0
        images, labels, *val = self.set.arrays
        history = how.fit(net, images, labels, val, steps=steps, seed=seed, checkpoint=checkpoint, resume=resume)
        return net, history, None if done == steps else time.perf_counter() - began

    # -- stages --------------------------------------------------------------------------------------------------------

    def find_what_is_done(self):
        """Keep the stages of this network; let those of another one count no more."""
        same = self.before.get("weights") == self.weights
        self.accuracies = records.read(self.out / "metrics.json").get("judges", {}) if same else {}
        self.histories = {}
        for kind in recipes.RECIPES:
            path = self.out / f"history-{kind}.json"
            if kind != self.options.recipe and path.exists():
                self.histories[kind] = records.read_history(path)
        self.stages = {}
        for stage in STAGES.values():
            done = results.find(self.out / stage.name)
            if done is not None and done.made_from == self.made_from(stage):
                self.stages[stage.name] = done
            else:
                results.discard(self.out / stage.name)
        self.record()

    def made_from(self, stage):
        """Return the fingerprint of all that a stage is made from."""
        used = {
            "history": (self.history.to_dict(), str(self.recipe), {k: h.to_dict() for k, h in self.histories.items()}),
            "judges": (str(self.judge_recipe), self.judge_recipe.steps),  # these, images and seed determine them
            "effort": self.effort,
        }
        facts = (self.weights, self.settings["images"], self.info, self.options.seed, [used[k] for k in stage.uses])
        return results.sha256(repr(facts).encode())

    def look(self, stage):
        """Do a stage, unless it was resumed and is done."""
        done, code = self.stages.get(stage.name), fingerprint.of_code(stage.module)
        seconds = None
        if not (self.options.resume and done is not None and done.code == code):
            began, folder = time.perf_counter(), self.out / stage.name
            pictures, facts = stage.run(self.given(stage))
            done = results.keep(folder, pictures, facts, began, self.made_from(stage), code)
            self.stages[stage.name], seconds = done, done.seconds
        self.say(stage.name, seconds, f"{len(done.pictures)} figures")

    def given(self, stage):
        """Return what a stage may use, and no more: the rest would not be in its fingerprint."""
        used = {
            "history": {"history": self.history, "recipe": str(self.recipe), "histories": self.histories},
            "judges": {"judges": self.judges},
            "effort": {"effort": self.effort},
        }
        more = {k: v for name in stage.uses for k, v in used[name].items()}
        return Study(self.net, self.info, *self.set.arrays, self.set.masks, self.options.seed, **more)

    # -- records -------------------------------------------------------------------------------------------------------

    def say(self, part, seconds, what):
        """Print one line: what was done, how long it took, how long the rest will."""
        self.clock.done((self.name, part), seconds)
        if part not in STAGES:
            before = self.before.get("seconds", {}).get(part, 0.0) if self.options.goes_on else 0.0
            self.seconds[part] = (seconds or 0.0) + before
        left = self.clock.left()
        left = f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left" if left >= 1 else ""
        took = "kept     " if seconds is None else f"{seconds:7.1f} s"
        print(f"  {part:<24}{took}  {what:<26}{left}".rstrip(), flush=True)

    def record(self):
        """Write metrics.json, what the seed determines, and run.json, what it came from."""
        metrics = {
            "dataset": self.info.name,
            "seed": self.options.seed,
            "steps": self.history.steps,
            "train_images": len(self.set.images),
            "validation_images": len(self.set.val_images),
            "train_accuracy": self.history.train_accuracy[-1],
            "validation_accuracy": self.history.val_accuracy[-1],
            "judges": self.accuracies,
            "stages": {name: self.stages[name].facts for name in STAGES if name in self.stages},
        }
        kept = {k: v for k, v in self.before.get("seconds", {}).items() if k == "judges" and self.accuracies}
        seconds = kept | self.seconds | {name: done.seconds for name, done in self.stages.items()}
        record = {
            "settings": self.settings,
            "steps": self.history.steps,
            "info": asdict(self.info),
            "built_in": self.set.built_in,
            "weights": self.weights,
            "network": repr(self.net),
            "seconds": seconds,
            "fingerprints": {k: {"made_from": d.made_from, "code": d.code} for k, d in self.stages.items()},
            "command": self.options.command,
            "date": datetime.now().isoformat("T", "seconds"),
            "backend": self.net.ops.name,
            "peak_memory_mb": records.peak_memory(),
            **records.surroundings(),
        }
        files.write_text(self.out / "metrics.json", results.dumps(metrics))
        files.write_text(self.out / "run.json", results.dumps(record))


# -- the report --------------------------------------------------------------------------------------------------------


def write_report(out):
    """Write OUT/report.html of all runs that lie in the folder, whenever they were made."""
    order = {name: i for i, name in enumerate(data.NAMES)}
    folders = sorted((p.parent for p in out.glob("*/metrics.json")), key=lambda p: (order.get(p.name, len(order)), p))
    page.write(out / "report.html", [section for folder in folders if (section := read_section(folder))])


def read_section(folder):
    """Return what the report shows of a data set's folder; None if it holds no finished run."""
    run, metrics = records.read(folder / "run.json"), records.read(folder / "metrics.json")
    if "info" not in run:
        return None
    info, stages = data.DatasetInfo(**run["info"]), []
    said = {k: v for k, v in metrics.items() if k != "stages"} | {"title": info.title, "classes": info.classes}
    for stage in STAGES.values():
        done = results.find(folder / stage.name) if stage.name in metrics["stages"] else None
        if done is not None:
            captions = words.speak(stage.words, done, said)
            stages.append(page.Chapter(stage.name, stage.heading, stage.about, folder / stage.name, done, captions))
    reported = recipes.REPORTED.get(info.name) if run["built_in"] else None
    return page.Section(folder.name, info, run, metrics, tuple(stages), reported)

"""The parts of a study of one network: its training, its judges', the stages; and what each leaves behind.

    FOLDER/run.json              what the numbers came from: settings, version, machine, times, fingerprints
    FOLDER/metrics.json          what the seed determines, and nothing else
    FOLDER/weights.safetensors   beside it checkpoint-*.safetensors, history-*.json
    FOLDER/<stage>/              its pictures, and result.json with its facts

FOLDER is OUT/<dataset>, or OUT/<dataset>/seed-K where there are several. Parts know of each other by these files alone,
so that they can be done in any process, on any machine. A folder belongs to one training: ``--resume`` and ``--only``
go on in it and refuse what would mix it with another; without them it starts anew, and what was there counts no more.
"""

import contextlib
import math
import time
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from tinycnn import InputError, Network, files, get_ops, models, train
from viz.metrics import statistics
from viz.report import results
from viz.report.text import percent

from . import estimate, fingerprint, judges, recipes, records, sets
from .subject import Study
from .table import STAGES

TRAININGS = {"judges": tuple(judges.PARTS), "frozen": (recipes.FROZEN,)}  # what a stage uses: the parts that train it


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
    protocol: str = "holdout"
    backend: str = "auto"
    only: tuple | None = None
    seed: int = 0
    seeds: tuple = ()
    workers: str | None = None
    resume: bool = False
    export: tuple = ()
    out: Path = Path("out")
    command: str = ""

    @property
    def goes_on(self):
        """Whether what lies in the folder is kept."""
        return self.resume or self.only is not None

    def sets(self):
        """Return the names of the data sets: for `sets.load`."""
        return tuple(dict.fromkeys(self.dataset or (() if self.images else ("digits",)))) + (None,) * bool(self.images)

    def load(self, name):
        """Return a data set: a built-in one, or, for None, the folder of ``--images``."""
        return sets.load(name, self.images, self.model, self.data_dir, self.download, self.protocol)


class Run:
    """A study of one network. Only `begin` and `record` change the records; the parts may be done anywhere.

    Parameters
    ----------
    options : Options
    name : str or None
        Of the data set; see `Options.load`.
    seed : int
    folder : Path
        Where all of it lies.
    """

    def __init__(self, options, name, seed, folder):
        self.options, self.name, self.seed, self.folder = options, name, seed, Path(folder)
        self.info = self.set.info
        self.recipe = recipes.recipe(options.recipe, self.info)
        self.steps = options.steps or self.recipe.steps
        self.effort = min(1.0, (options.steps or math.inf) / self.recipe.steps)
        self.judge_recipe = recipes.judge(self.info, self.effort)
        asked = options.only or [s.name for s in STAGES.values() if s.usual(self.info.name)]
        self.stages = [s for s in STAGES.values() if s.over == "network" and s.name in asked]
        self.images = self.set.digest
        self.seconds = {}

    @cached_property
    def before(self):
        """What run.json holds when this run begins; {} where that counts no more and is damaged."""
        try:
            return records.read_run(self.folder)
        except InputError:
            if self.options.goes_on:
                raise
            return {}

    @property
    def set(self):
        """The images; they are kept as long as no other set is asked for."""
        return self.options.load(self.name)

    @property
    def settings(self):
        """All that the weights depend on, but for the steps."""
        return {
            "dataset": self.info.name,
            "recipe": f"{self.options.recipe}: {self.recipe}",
            "protocol": self.set.protocol,
            "model": self.info.model,
            "seed": self.seed,
            "backend": get_ops(self.options.backend, "float32").name,
            "images": self.images,
        }

    @cached_property
    def parts(self):
        """{part: the parts that must be done before}, in the order in which they are told."""
        needed = {s.name: [part for name in s.uses for part in TRAININGS.get(name, ())] for s in self.stages}
        others = [part for some in TRAININGS.values() for part in some if any(part in n for n in needed.values())]
        return {"training": (), **dict.fromkeys(others, ()), **{k: ("training", *n) for k, n in needed.items()}}

    def plan(self):
        """Return the usual seconds of each part."""
        usual = estimate.parts(self.info, self.steps, self.judge_recipe.steps, self.stages, self.effort)
        return {part: usual[part] for part in self.parts}

    def begin(self):
        """Make sure that what lies in the folder is gone on with, or counts no more."""
        begun = {"settings": self.settings, "steps": self.steps, "anew": False}
        if not self.options.goes_on or self.before.get("in_progress", {}).get("anew"):
            results.write(self.folder / "run.json", {**self.before, "in_progress": {**begun, "anew": True}})
            others = [self.folder / f"history-{part}.json" for some in TRAININGS.values() for part in some]
            for path in (*self.folder.glob("checkpoint-*.safetensors"), *others):  # that nobody goes on with
                path.unlink(missing_ok=True)
        results.write(self.folder / "run.json", {**self.before, "in_progress": begun})

    def took(self, part, seconds):
        """Add what a part took to what it had taken before."""
        before = self.before.get("seconds", {}).get(part, 0.0) if self.options.goes_on else 0.0
        self.seconds[part] = (seconds or 0.0) + before

    def check(self):
        """Raise an InputError if the folder is to be gone on with, and holds another training than is asked for."""
        if not self.options.goes_on:
            return
        how = "--resume" if self.options.resume else "--only"
        cure = f"ask for the same, choose another --out, or leave out {how} to start anew"
        begun = self.before.get("in_progress")
        there = begun or self.before
        for name, asked in self.settings.items():
            found = there["settings"][name] if there else asked
            if found != asked:
                if name == "images":
                    name, found, asked = "images (SHA-256)", found[:12], asked[:12]
                raise InputError(f"{self.folder} holds a run with {name} {found}, now {asked} is asked for; {cure}")
        cut_short = begun and self.recipe.schedule == "constant"  # how far it has come, its checkpoint knows
        if there and not cut_short and there["steps"] > self.steps:
            steps = f"{there['steps']} steps, now {self.steps} are asked for"
            raise InputError(f"{self.folder} holds a run of {steps}; {cure}")

    # -- parts ---------------------------------------------------------------------------------------------------------

    def do(self, part):
        """Do one part.

        Returns
        -------
        seconds : float or None
            None if it was done before.
        what : str
            What came out, in a few words.
        remarks : list of str
            Lines that the user should read.
        """
        self.remarks = []
        with records.lock(self.folder, part):
            if part == "training":
                found = self.train()
            elif part in STAGES:
                found = self.look(STAGES[part])
            else:
                found = self.train_other(part)
        return *found, self.remarks

    def train(self):
        """The network itself."""
        net, took, said = self.fit(self.options.recipe, self.recipe, self.steps, self.seed)
        self.net = net
        net.save(self.folder / "weights.safetensors")
        return took, said

    def train_other(self, part):
        """A network that judges generated images, or one whose first layer does not learn."""
        if part == recipes.FROZEN:
            return self.fit(part, self.recipe, self.steps, self.seed, first_layer_learns=False)[1:]
        how, name = self.judge_recipe, judges.PARTS[part]
        return self.fit(part, how, how.steps, judges.seed(self.seed, name), deep=judges.JUDGES[name])[1:]

    def fit(self, key, how, steps, seed, deep=False, first_layer_learns=True):
        """Train one network, or go on from its checkpoint, and keep its history.

        Returns
        -------
        net : Network
        seconds : float or None
            None if it was trained before.
        what : str
            Its accuracy, in a few words.
        """
        began, checkpoint = time.perf_counter(), self.folder / f"checkpoint-{key}.safetensors"
        net = models.build(
            self.info.model,
            backend=self.options.backend,
            seed=seed,
            classes=len(self.info.classes),
            dropout=how.dropout,
            meta={"dataset": self.info.name, "classes": "\n".join(self.info.classes)},
            deep=deep,
        )
        resume, done = checkpoint.exists(), 0  # one that is not to be gone on with is gone: see `begin`
        if resume:
            done, schedule = train.started(checkpoint)
            if how.schedule != "constant" and schedule != [how.schedule, steps]:
                self.remarks.append(
                    f"{key} is trained anew: its rate follows a schedule of {steps:,} steps, not {schedule[1]:,}"
                )
                resume, done = False, 0
        images = self.set
        history = how.fit(
            net,
            images.images,
            images.labels,
            (images.val_images, images.val_labels),
            steps=steps,
            seed=seed,
            keep="best" if images.held_out else "last",
            frozen=() if first_layer_learns else (next(iter(net.params)),),
            checkpoint=checkpoint,
            resume=resume,
            progress=self.options.workers is None,
        )
        right = int((net.predict(images.test_images) == images.test_labels).sum())
        results.write(self.folder / f"history-{key}.json", records.Trained(self.trained_on, right, history))
        said = f"test accuracy {percent(right / len(images.test_labels))}"
        return net, None if done == steps else time.perf_counter() - began, said

    def look(self, stage):
        """A stage."""
        began, code = time.perf_counter(), fingerprint.of_code(stage.module)
        pictures, facts = stage.run(self.given(stage))
        made_from, export = self.made_from(stage), self.options.export
        done = results.keep(self.folder / stage.name, pictures, facts, began, made_from, code, export)
        return done.seconds, done.said

    def fail(self, part, why):
        """Leave word, for the report, that a part was not done; it counts as not done."""
        if part in STAGES:
            facts, made_from = {results.NOTHING: f"failed: {why}"}, self.made_from(STAGES[part])
            with contextlib.suppress(OSError):  # nor can it be written: the last line on stderr says it all the same
                results.keep(self.folder / part, [], facts, time.perf_counter(), made_from, "")

    # -- what lies in the folder ---------------------------------------------------------------------------------------

    @cached_property
    def net(self):
        """The trained network."""
        return Network.load(self.folder / "weights.safetensors", self.options.backend)

    @cached_property
    def weights(self):
        """Its fingerprint."""
        return fingerprint.of_network(self.net)

    def history(self, key):
        """The `History` of a training with these settings, by its recipe or its part; None if there is none."""
        return self.trained(key)[0]

    def accuracy(self, key):
        """The interval of that network's accuracy on the test images; None if there is none."""
        right = self.trained(key)[1]
        return None if right is None else statistics.accuracy_interval(right, len(self.set.test_labels))

    def trained(self, key):
        """Return (`History`, count of test images that are classified rightly), or (None, None)."""
        found = results.read(self.folder / f"history-{key}.json", records.Trained)
        known = found is not None and found.settings == self.trained_on
        return (found.history, found.test_right) if known else (None, None)

    @property
    def trained_on(self):
        """The settings that trainings by several recipes have in common."""
        return {name: value for name, value in self.settings.items() if name != "recipe"}

    def histories(self):
        """Those of the other recipes that were trained into this folder."""
        others = {kind: self.history(kind) for kind in recipes.RECIPES if kind != self.options.recipe}
        return {kind: history for kind, history in others.items() if history is not None}

    def used(self, name):
        """Return what a stage gets that uses `name`."""
        if name == "history":
            history = self.history(self.options.recipe)
            images = self.set
            how = {"recipe": str(self.recipe), "protocol": images.protocol, "held_out": images.held_out}
            return {"history": history, "histories": self.histories(), **how}
        if name == "effort":
            return {"effort": self.effort}
        if name == "planted":
            return self.set.planted
        nets = {part: self.folder / f"checkpoint-{part}.safetensors" for part in TRAININGS[name]}
        nets = {part: Network.load(path, self.options.backend) for part, path in nets.items()}
        if name == "frozen":
            return {"frozen": nets[recipes.FROZEN]}
        known = judges.known({judge: self.accuracy(part) for part, judge in judges.PARTS.items()}, self.info)
        asked = {judge: nets[part] for part, judge in judges.PARTS.items() if known[judge]["judges"]}
        return {"judges": asked, "about_judges": known}

    def given(self, stage):
        """Return what a stage may use, and no more: the rest would not be in its fingerprint."""
        return self.subject(**{k: v for name in stage.uses for k, v in self.used(name).items()})

    def subject(self, **more):
        """Return the network and its images, as a `Study`."""
        images = self.set
        tested = images.test_images, images.test_labels, images.masks
        return Study(self.net, self.info, images.images, images.labels, *tested, self.seed, **more)

    def made_from(self, stage):
        """Return the fingerprint of all that a stage is made from."""
        histories = {self.options.recipe: self.history(self.options.recipe), **self.histories()}
        used = {
            "history": (str(self.recipe), {kind: history.to_dict() for kind, history in histories.items()}),
            "judges": (str(self.judge_recipe), self.judge_recipe.steps),  # these, images and seed determine them
            "frozen": (str(self.recipe), self.steps),
            "effort": self.effort,
            "planted": self.set.planted is not None,  # the images determine it
        }
        facts = (*self.subject_facts, *(used[name] for name in stage.uses))
        return results.sha256(repr(facts).encode())

    @property
    def subject_facts(self):
        """What `subject` is made from: the network, its images and what they are called, the seed."""
        return self.weights, self.images, self.info.title, self.info.classes, self.seed

    def kept(self, part):
        """Return the `Result` of a stage that is not to be done again; else None."""
        done = self.done(STAGES[part]) if part in STAGES and self.options.resume else None
        if done is None or done.code != fingerprint.of_code(STAGES[part].module):
            return None
        exported = all(any((self.folder / part).glob(f"*.{ending}")) for ending in self.options.export)
        return done if exported else None

    def keep_what_is_of_this_network(self):
        """Let stages of another network count no more, once this one is trained."""
        self.__dict__.pop("weights", None)
        for stage in STAGES.values():
            if stage.over == "network" and self.done(stage) is None:
                results.discard(self.folder / stage.name)
        self.record()

    def forget(self):
        """Let go of the network."""
        self.__dict__.pop("net", None)

    def done(self, stage):
        """Return the `Result` of a stage, if it is one of this network; else None."""
        found = results.find(self.folder / stage.name)
        return found if found is not None and found.made_from == self.made_from(stage) else None

    def record(self):
        """Write metrics.json, what the seed determines, and run.json, what it came from."""
        history, before = self.history(self.options.recipe), self.before.get("seconds", {})
        stages = {s.name: done for s in STAGES.values() if s.over == "network" and (done := self.done(s)) is not None}
        metrics = {
            "dataset": self.info.name,
            "seed": self.seed,
            "steps": history.steps,
            **self.accuracies(history),
            "curve": {k: v for k, v in history.to_dict().items() if k != "losses"},
            "judges": self.about_judges(),
            "stages": {name: done.facts for name, done in stages.items()},
        }
        metrics, path = results.dumps(metrics), self.folder / "metrics.json"
        trained = {part: before[part] for part in ("training", *self.parts) if part in before and part not in STAGES}
        record = {
            "settings": self.settings,
            "steps": history.steps,
            "info": self.info,
            "built_in": self.set.built_in,
            "weights": self.weights,
            "network": repr(self.net),
            "seconds": trained | self.seconds | {name: done.seconds for name, done in stages.items()},
            "fingerprints": {k: {"made_from": d.made_from, "code": d.code} for k, d in stages.items()},
            "costs": {name: done.costs for name, done in stages.items() if done.costs},
            "metrics_sha256": results.sha256(metrics.encode()),
            "command": self.options.command,
            "date": datetime.now().isoformat("T", "seconds"),
            "backend": self.net.ops.name,
            "peak_memory_mb": records.peak_memory(),
            **records.surroundings(),
        }
        files.write_text(path, metrics)
        results.write(self.folder / "run.json", record)

    def explore(self, path):
        """Write the page of this network to `path`, unless it is there."""
        from viz import explorer

        facts = (*self.subject_facts, self.effort, fingerprint.of_code("viz.explorer.export"))
        made_from = results.sha256(repr(facts).encode())
        if not explorer.is_of(path, made_from):
            s = self.subject()
            seen, first = (s.test_images, s.test_labels), dict.fromkeys([0, *s.examples().tolist()])
            net = s.net, s.untrained, self.info.title, s.names
            explorer.write(path, *net, *seen, self.seed, list(first), self.effort, made_from)

    def accuracies(self, history):
        """What metrics.json says of the network: how many images, which step was kept, and how often it was right."""
        images, chosen = self.set, self.set.held_out
        at = history.best if chosen else -1
        shown = min(len(images.images), train.TRAIN_SAMPLE)
        found = {
            "train_images": len(images.images),
            "validation_images": chosen,
            "test_images": len(images.test_images),
            "kept_step": history.eval_steps[at],
            "train_accuracy": vars(statistics.accuracy_interval(round(shown * history.train_accuracy[at]), shown)),
            "test_accuracy": vars(self.accuracy(self.options.recipe)),
        }
        if chosen:
            right = round(chosen * history.val_accuracy[at])
            found["validation_accuracy"] = vars(statistics.accuracy_interval(right, chosen))
        return found

    def about_judges(self):
        """How well the judges that were trained for this network classify the test images, and whether they judge."""
        trained = {name: part for part, name in judges.PARTS.items() if self.history(part) is not None}
        trained = {name: p for name, p in trained.items() if self.history(p).steps == self.judge_recipe.steps}
        return judges.known({name: self.accuracy(part) for name, part in trained.items()}, self.info)

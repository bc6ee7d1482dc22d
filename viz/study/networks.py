"""A study of one network or of several: which part is done when, what is found over networks, and the report.

OUT/<dataset>/              a study of one network, or, with several seeds,
OUT/<dataset>/seed-K/       one of each
OUT/<dataset>/summary.json  what is found over networks: numbers that the seeds determine
OUT/<dataset>/<stage>/      of a stage over networks
OUT/report.html
"""

import contextlib
import sys
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tinycnn import InputError, data, files, get_ops
from viz.report import page, results
from viz.report.text import counted, duration

from . import claims, fingerprint, recipes, records, words
from .estimate import Estimate
from .run import Run
from .table import STAGES

SAME = ("dataset", "recipe", "protocol", "model", "images")  # settings that networks of one study share


def run(options):
    """Check all that can be checked, then do every part of every study, and write the report.

    Raises
    ------
    InputError, OSError
        Bad input, before anything is written; a file that cannot be written; parts that failed: the others and the
        report are done all the same.
    """
    start = time.perf_counter()
    try:
        import matplotlib  # noqa: F401  (a bad MPLBACKEND stops it: now, not at the first figure)
    except ValueError as e:
        raise InputError(f"matplotlib does not start: {e}; unset MPLBACKEND, or mend matplotlibrc") from e
    get_ops(options.backend, "float32")
    for name in options.dataset:
        if Path(name).is_dir():
            print(f"--dataset {name}: the built-in set, not the folder of this name; that one is --images {name}")
    found = {name: options.load(name) for name in options.sets()}  # all data are there before anything is trained
    folders = {name: options.out / one.folder for name, one in found.items()}
    del found
    places = [
        (name, seed, folder / f"seed-{seed}" if options.seeds else folder)
        for name, folder in folders.items()
        for seed in options.seeds or (options.seed,)
    ]
    for *_, folder in places:
        records.check_writable(folder)
    studies = [Run(options, *place) for place in places]
    with contextlib.ExitStack() as stack:
        for study in studies:
            stack.enter_context(records.lock(study.folder, "run"))
        for study in studies:
            study.check()
        pool = stack.enter_context(_pool(options))
        for study in studies:
            study.begin()
        failed = Work(studies, pool, options).go()
        failed += filter(None, (explore(studies, *one) for one in folders.items()))
    mixed = None
    for folder in folders.values() if options.seeds and not failed else ():
        try:
            summarize(folder)
        except Exception as e:  # of other studies in the folder, or of this stage; these are done all the same
            mixed = e
    write_report(options.out)
    if mixed:
        raise InputError(told(mixed)) from mixed
    if failed:
        total = sum(len(study.parts) for study in studies)
        raise InputError(f"failed: {len(failed)} of {total} parts; --resume does them: {'; '.join(failed)}")
    for folder in folders.values():
        print(f"{folder / 'explorer.html'}: this network, to look inside with the mouse")
    print(f"{options.out / 'report.html'}: done in {duration(time.perf_counter() - start)}")


def explore(studies, name, folder):
    """Write the page of a data set's first network, if that was trained; return what went wrong, in words, or ""."""
    first, path = next(study for study in studies if study.name == name), folder / "explorer.html"
    if first.history(first.options.recipe) is None:
        return ""
    try:
        first.explore(path)
    except Exception as e:  # costs its page, and no report
        print(f"  {path}: {told(e)}", flush=True)
        return f"{path}: {told(e)}"
    return ""


def _pool(options):
    if options.workers is None:
        return Here()
    from .cluster import Pool

    return Pool(options)


class Here:
    """Parts are done in this process, one at a time, in the order of the studies."""

    lanes = 1

    def __enter__(self):
        self.waiting = []
        return self

    def __exit__(self, *_):
        return None

    def submit(self, order, study, part):
        """Take a part; those of a lower `order` come first."""
        self.waiting.append((order, study, part))

    def next(self):
        """Do a part; return (study, part, (seconds, what, remarks) or None, what went wrong or None)."""
        one = min(self.waiting, key=lambda one: one[0])
        self.waiting.remove(one)
        _, study, part = one
        try:
            return study, part, study.do(part), None
        except Exception as e:  # whatever it is, it costs this stage alone
            if part not in STAGES:
                raise
            return study, part, None, told(e)

    @property
    def busy(self):
        """Whether there is something to wait for."""
        return bool(self.waiting)


def told(error):
    """Return what went wrong, in one line; of what is no user's fault also where."""
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    at = traceback.extract_tb(error.__traceback__)[-1:] if kind else ()
    where = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in at)
    return f"{kind}{' '.join(str(error).split())}{where}"


class Work:
    """Every part of every study, each as soon as what it needs is done."""

    def __init__(self, studies, pool, options):
        self.pool, self.several = pool, bool(options.seeds)
        self.waiting = {(study, part): i for i, (study, part) in enumerate((s, p) for s in studies for p in s.parts)}
        self.left = {study: set(study.parts) for study in studies}
        plan = {(study, part): seconds for study in studies for part, seconds in study.plan().items()}
        self.total, self.clock, self.told = len(plan), Estimate(plan, pool.lanes), set()

    def go(self):
        """Do it all; return what failed, in words."""
        failed = []
        self.hand_out()
        while self.pool.busy:
            study, part, done, error = self.pool.next()
            self.introduce(study)
            if error is None:
                self.finish(study, part, *done)
            else:
                failed.append(f"{study.folder}, {part}: {error}")
                study.fail(part, error)
                print(f"  {self.called(study)}{part:<28} failed: {error}", flush=True)
            self.hand_out()
        for study, left in self.left.items():  # what hangs on a part that failed
            if left and "training" not in left:
                study.record()
        return failed

    def hand_out(self):
        """Give the pool what can be done now; what is kept is done at once."""
        for (study, part), order in list(self.waiting.items()):
            if any(need in self.left[study] for need in study.parts[part]) or (study, part) not in self.waiting:
                continue
            del self.waiting[study, part]
            if (kept := study.kept(part)) is not None:
                self.introduce(study)
                self.finish(study, part, None, kept.said, [])
            else:
                self.pool.submit(order, study, part)

    def finish(self, study, part, seconds, what, remarks):
        """Keep the books of a part that is done, and say so."""
        self.left[study].remove(part)
        if part not in STAGES:
            study.took(part, seconds)
        if part == "training":
            study.keep_what_is_of_this_network()
        if not self.left[study]:
            study.record()
            study.forget()
        self.clock.done((study, part), seconds)
        for remark in remarks:
            print(f"  {remark}")
        left = self.clock.left()
        left = f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left" if left >= 1 else ""
        took = "kept     " if seconds is None else f"{seconds:7.1f} s"
        count = f"{self.total - sum(map(len, self.left.values()))} of {self.total}" if self.several else ""
        print(f"  {self.called(study)}{part:<28}{took}  {what:<24}{count:<14}{left}".rstrip(), flush=True)

    def called(self, study):
        """The name of a study among several."""
        return f"{study.info.name} seed {study.seed}: " if self.several else ""

    def introduce(self, study):
        """Say on standard error what a study is of, once for each data set."""
        if study.name not in self.told:
            self.told.add(study.name)
            images = study.set
            held = f", {images.held_out:,} held out" if images.held_out else ""
            counts = f"{len(images.images):,} training images{held}, {len(images.test_images):,} test images"
            print(
                f"{study.info.title}: {counts}, recipe {study.options.recipe}, {study.steps:,} steps", file=sys.stderr
            )


# -- over networks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Networks:
    """What a stage over networks gets.

    Attributes
    ----------
    info : tinycnn.data.DatasetInfo
    metrics : dict
        {seed: what metrics.json holds of that network}, seeds in order.
    folders : dict
        {seed: the folder of its study}: its weights, its stages.
    """

    info: Any
    metrics: dict
    folders: dict

    def net(self, seed, backend="auto"):
        """Return the trained network of a seed."""
        from tinycnn import Network

        return Network.load(self.folders[seed] / "weights.safetensors", backend)


def find_networks(folder):
    """Return the `Networks` of the studies in a folder's sub-folders, however they came to be; None if there are none.

    Raises
    ------
    InputError
        Two of them have other settings, steps or stages, or the same seed; names both.
    """
    runs, metrics, folders = {}, {}, {}
    for path in sorted(Path(folder).glob("*/metrics.json")):
        study = records.read_study(path.parent)
        if study is None:
            continue
        run, found = study
        seed = found["seed"]
        if seed in folders:
            raise InputError(f"{folders[seed]} and {path.parent} are both of seed {seed}; remove one of them")
        runs[seed], metrics[seed], folders[seed] = run, found, path.parent
    if not runs:
        return None
    first = min(runs)
    for seed in runs:
        same = {name: [runs[s]["settings"][name] for s in (first, seed)] for name in SAME}
        same |= {"steps": [metrics[s]["steps"] for s in (first, seed)]}
        same |= {"stages": [sorted(metrics[s]["stages"]) for s in (first, seed)]}
        for name, (a, b) in same.items():
            if a != b:
                a, b = (str(v)[:12] if name == "images" else v for v in (a, b))
                raise InputError(f"{folders[first]} has {name} {a}, {folders[seed]} {b}: not networks of one study")
    order = sorted(runs)
    info = runs[first]["info"]
    return Networks(info, {seed: metrics[seed] for seed in order}, {seed: folders[seed] for seed in order})


def summarize(folder):
    """Do the stages over networks of a data set's folder; write summary.json, all that they found.

    Returns
    -------
    bool
        Whether there are networks.
    """
    networks = find_networks(folder)
    if networks is None:
        return False
    found = {}
    for stage in STAGES.values():
        if stage.of and any(stage.of not in m["stages"] for m in networks.metrics.values()):
            results.discard(Path(folder) / stage.name)
        elif stage.over == "networks":
            began = time.perf_counter()
            pictures, facts = stage.run(networks)
            code = fingerprint.of_code(stage.module)
            done = results.keep(Path(folder) / stage.name, pictures, facts, began, "", code)
            found[stage.name] = done.facts
    seeds = list(networks.metrics)
    held = _claims(networks.metrics, folder)
    summary = {"dataset": networks.info.name, "seeds": seeds, "claims": held, "stages": found}
    files.write_text(Path(folder) / "summary.json", results.dumps(summary))
    which = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
    print(f"{folder}: {counted(len(seeds), 'network')}, {which}", flush=True)
    return True


def summarize_all(out):
    """Make the summaries of all data sets in a folder, and the report.

    Raises
    ------
    InputError
        There are no studies, or some that do not belong together.
    """
    if not sum(summarize(folder) for folder in sorted(Path(out).glob("*/")) if folder.is_dir()):
        raise InputError(f"{out}: no studies of networks in it; they lie in {out}/<dataset>/seed-K")
    write_report(out)
    print(f"{Path(out) / 'report.html'}")


# -- the report --------------------------------------------------------------------------------------------------------


def write_report(out):
    """Write OUT/report.html of all studies that lie in the folder, whenever they were made.

    Raises
    ------
    InputError
        Words for a stage that this very version made are faulty: the report says so in their place.
    """
    order = {name: i for i, name in enumerate(data.NAMES)}
    folders = sorted(
        (p for p in Path(out).glob("*") if p.is_dir()), key=lambda p: (order.get(p.name, len(order)), p.name)
    )
    sections = [read(folder) for folder in folders for read in (read_section, read_networks)]
    sections = [section for section in sections if section is not None]
    page.write(Path(out) / "report.html", sections)
    faults = [chapter.fault for section in sections for chapter in section.chapters if chapter.fault]
    if faults:
        raise InputError(faults[0])


def read_section(folder):
    """Return what the report shows of the study of one network; None if the folder holds no finished one."""
    try:
        study = records.read_study(folder)
    except InputError as e:
        print(f"{folder}: not in the report: {e}")
        return None
    if study is None:
        return None
    run, metrics = study
    info = run["info"]
    said = {k: v for k, v in metrics.items() if k != "stages"} | {"title": info.title, "classes": info.classes}
    reported = recipes.REPORTED.get(info.name) if run["built_in"] else None
    chapters, held = _chapters(folder, metrics["stages"], said), _claims({metrics["seed"]: metrics}, folder)
    return page.Section(folder.name, info, run, metrics, chapters, reported, claims=held, explorer=_explorer(folder))


def read_networks(folder):
    """Return what the report shows of several networks: what is found over them, and the figures of the first."""
    try:
        networks = find_networks(folder) if (folder / "summary.json").is_file() else None
    except InputError as e:
        print(f"{folder}: no summary in the report: {e}")
        return None
    if networks is None:
        return None
    seeds, summary = list(networks.metrics), results.find(folder / "summary")
    if summary is None or summary.facts["seeds"] != seeds:
        print(f"{folder}: no summary in the report: it is damaged, or of other networks; --summarize makes it again")
        return None
    first = read_section(networks.folders[seeds[0]])
    said = {"title": first.info.title, "classes": first.info.classes, "first": seeds[0]}
    chapters = (*_chapters(folder, [s.name for s in STAGES.values() if s.over == "networks"], said), *first.chapters)
    several = {"seeds": seeds, "over": summary.facts["numbers"], "claims": _claims(networks.metrics, folder)}
    return replace(first, name=f"{folder.name}-networks", chapters=chapters, explorer=_explorer(folder), **several)


def _explorer(folder):
    """The address, from the report, of the page of a folder's network; empty where there is none."""
    return f"{quote(folder.name)}/explorer.html" if (folder / "explorer.html").is_file() else ""


def _claims(metrics, folder):
    """What became of the study's claims on networks {seed: metrics}, whose studies lie in OUT/<dataset>, `folder`."""
    name, folder = next(iter(metrics.values()))["dataset"], Path(folder)
    other = claims.COUNTERPART.get(name) if folder.name == name else None
    beside = None
    if other:
        with contextlib.suppress(InputError):  # networks that do not belong together: theirs to say
            beside = find_networks(folder.with_name(other))
    reported = recipes.REPORTED.get(name) if folder.name == name else None
    return [asdict(row) for row in claims.rows(metrics, reported, beside and beside.metrics)]


def _chapters(folder, stages, said):
    """The stages that lie in a folder, each with what is said of it."""
    chapters = []
    for stage in STAGES.values():
        done = results.find(folder / stage.name) if stage.name in stages else None
        if done is not None:
            captions, fault = {}, ""
            try:
                captions = words.speak(stage.words, done, said)
            except InputError as e:
                if done.code != fingerprint.of_code(stage.module):
                    where = folder / stage.name
                    print(f"{where}: of another version of this program, not shown; --resume makes it again")
                    continue
                fault, done = str(e), replace(done, pictures=(), facts={results.NOTHING: str(e)})
            about = stage.name, stage.heading, stage.about, folder / stage.name, done, captions
            chapters.append(page.Chapter(*about, stage.papers, stage.over, fault, stage.open))
    return tuple(chapters)

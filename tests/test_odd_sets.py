"""Sets of images that no study was made for: every stage fits itself to them, or says why it shows nothing."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import run_all
from tinycnn import InputError, data, models, train
from viz.report import page, results
from viz.study import claims, methods, sets, table, ways, words
from viz.study.stages import filters, saliency, scorecard, ties
from viz.study.subject import Study

LOOKING = [s for s in table.STAGES.values() if s.over == "network" and s.name not in ("maximization", "ablation")]
SETS = {  # labels of training images, of test images, names
    "three images": ([0, 1], [1], ["a", "b"]),
    "two classes, five images": ([0, 1, 0], [0, 1], ["a", "b"]),
    "37 classes": (list(range(37)) * 2, list(range(37)), [f"class {c}" for c in range(37)]),
    "no training image of b": ([0, 2] * 6, [0, 1, 2] * 4, ["a", "b", "c"]),
    "no test image of b": ([0, 1, 2] * 4, [0, 2] * 6, ["a", "b", "c"]),
    "one image, again and again": ([0, 1] * 6, [0, 1] * 6, ["hot_dog", "hot dog"]),
}


def study(name):
    """A study of an untrained network on such a set."""
    train, test, names = SETS[name]
    rng = np.random.default_rng(0)
    images, test_images = (rng.integers(0, 256, (len(v), 28, 28, 1)).astype(np.uint8) for v in (train, test))
    if "again" in name:
        images[:], test_images[:] = images[0], images[0]
    info = replace(data.info("digits"), name="odd", title="Odd", classes=tuple(names))
    net, other = (models.build("mnist", backend="cpu", seed=seed, classes=len(names)) for seed in (1, 2))
    both = (images, np.array(train), test_images, np.array(test))
    return Study(net, info, *both, None, 0, frozen=other)


@pytest.mark.parametrize(
    ("name", "stages"),
    [("three images", LOOKING[:1]), ("one image, again and again", [table.STAGES["tsne"]])]
    + [pytest.param(name, LOOKING, marks=pytest.mark.slow) for name in SETS],
)
def test_every_stage_shows_an_odd_set_or_says_why_not(name, stages, tmp_path, monkeypatch):
    s, metrics = study(name), {"stages": {}}
    for module in (scorecard, ties):  # the others differ in what they cost
        monkeypatch.setattr(module, "rows", lambda net: methods.rows(net)[:4])
    for stage in stages:
        pictures, facts = stage.run(s)
        assert pictures or facts[results.NOTHING]
        done = results.keep(tmp_path / stage.name, pictures, facts, 0.0, "", "")
        known = {"title": "Odd", "classes": s.info.classes, "test_images": len(s.test_labels)}
        said = words.speak(stage.words, done, known)
        assert not any(part in w.caption for w in said.values() for part in ("nan", "None"))
        metrics["stages"][stage.name] = json.loads(results.dumps(done.facts))
        chapter = page.Chapter(stage.name, stage.heading, stage.about, tmp_path / stage.name, done, said)
        assert len(page.rows(chapter)) <= len(pictures) and page.table(done.facts) is not None
    claims.rows({0: metrics})


def pictures(folder, counts):
    """A folder of small pictures, so many of each class."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (28, 28)).astype(np.uint8)).save(folder / name / f"{i}.png")
    return ["--images", str(folder), "--model", "mnist", "--steps", "1", "--out", str(folder.parent / "out")]


@pytest.mark.slow
@pytest.mark.parametrize("counts", [{f"class {c}": 5 for c in range(37)}, {"a": 5, "b": 4, "$c$": 1}])
def test_a_whole_study_of_an_odd_set_ends_in_a_report(tmp_path, monkeypatch, counts):
    monkeypatch.setattr(ways, "LEAST", 2)
    assert run_all.main(pictures(tmp_path / "odd", counts)) == 0
    metrics = json.loads((tmp_path / "out/odd/metrics.json").read_text())
    assert "maximization" in metrics["stages"] and (tmp_path / "out/report.html").exists()
    for name, accuracy in metrics["stages"]["training_curve"]["accuracy by class"].items():
        assert (accuracy is None) == (counts[name] < 5)


def test_a_stage_that_fails_costs_neither_the_others_nor_the_report(tmp_path, monkeypatch, capsys):
    argv = [*pictures(tmp_path / "odd", {"a": 6, "b": 6}), "--only", "filters", "saliency"]

    def fail(s):
        raise ZeroDivisionError("by\nnothing")

    monkeypatch.setattr(filters, "run", fail)
    assert run_all.main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and "1 of 3 parts" in said and "filters: ZeroDivisionError: by nothing" in said
    shown = (tmp_path / "out/report.html").read_text()
    assert "Nothing is shown here: failed: ZeroDivisionError: by nothing (test_odd_sets.py, line" in shown
    assert (tmp_path / "out/odd/saliency/saliency.png").exists()
    monkeypatch.undo()
    monkeypatch.setattr(saliency, "run", fail)  # it is kept
    assert run_all.main([*argv, "--resume"]) == 0
    assert "Nothing is shown here" not in (tmp_path / "out/report.html").read_text()


def test_one_class_alone_is_refused_at_once(tmp_path, capsys):
    assert run_all.main(pictures(tmp_path / "odd", {"a": 10})) == 2
    assert "one class alone" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_names_that_are_the_same_in_words_stay_as_they_are():
    assert study("one image, again and again").names == ["hot_dog", "hot dog"]
    assert study("37 classes").names[36] == "class 36"


def test_any_path_of_the_system_and_any_name_in_it_will_do(tmp_path):
    """Bytes that are no UTF-8, control characters, what would be markup or mathematics elsewhere."""
    odd = "caf\udce9 $x$ \x07"
    argv = [*pictures(tmp_path / odd, {odd: 6, "<b>": 6})[:-1], str(tmp_path / "o\udce9")]
    assert run_all.main([*argv, "--only", "training_curve"]) == 0
    shown = (tmp_path / "o\udce9" / "report.html").read_text()
    assert "caf\\udce9 $x$ \N{REPLACEMENT CHARACTER}, &lt;b&gt;. Source" in shown or "&lt;b&gt;, caf\\udce9" in shown
    assert run_all.main([*argv, "--only", "training_curve", "--resume"]) == 0


def test_a_bad_setting_of_matplotlib_stops_before_anything_is_written(tmp_path):
    code = "import sys, run_all; sys.exit(run_all.main(sys.argv[1:]))"
    argv, env = [sys.executable, "-c", code, "--steps", "1", "--out", str(tmp_path / "out")], {"MPLBACKEND": "none"}
    run = subprocess.run(argv, env=os.environ | env, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "MPLBACKEND" in run.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_standard_error_training_needs_no_bar(tmp_path, monkeypatch):
    s = study("no test image of b")
    monkeypatch.setattr(sys, "stderr", None)
    assert train.fit(s.net, s.images, s.labels, steps=1, batch_size=2).steps == 1


def test_a_folder_called_like_a_built_in_set_is_another_set(tmp_path, monkeypatch, capsys):
    pictures(tmp_path / "digits", {"a": 6, "b": 6})
    monkeypatch.chdir(tmp_path)
    found = sets.of_folder("digits", "mnist")
    assert found.folder == found.info.name == "digits-images" and found.info.classes == ("a", "b")
    monkeypatch.setattr(sets, "load", lambda *a: (_ for _ in ()).throw(InputError("far enough")))
    assert run_all.main(["--dataset", "digits"]) == 2
    assert "the built-in set, not the folder of this name; that one is --images digits" in capsys.readouterr().out

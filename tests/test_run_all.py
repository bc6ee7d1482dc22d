"""The front door: one command gives everything, the same twice; a mistake costs one line and loses nothing."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import run_all
import tinycnn
from tinycnn import InputError, Network, data, models, streams
from tinycnn.data import demo
from viz import activations, figures
from viz.report import results
from viz.study import estimate, fingerprint, judges, networks, recipes, sets, table, ways, words
from viz.study.recipes import Recipe
from viz.study.stages import tsne

ROOT = Path(__file__).parents[1]
STAGES = [stage.name for stage in table.STAGES.values() if stage.over == "network" and stage.usual("digits")]
PARTS = ["training", "frozen-first-layer", "judge-another-seed", "judge-another-architecture", *STAGES]


def call(argv):
    """Return the exit status of the command."""
    try:
        return run_all.main([str(a) for a in argv])
    except SystemExit as e:
        return e.code


def process(argv, **env):
    """Start the command as a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *map(str, argv)], cwd=ROOT, env=os.environ | env, **pipes)


@pytest.fixture(autouse=True)
def fresh_sets():
    """No data set is kept from the test before, which may have changed what is loaded."""
    sets.load.cache_clear()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a whole short run on digits: every stage, few steps."""
    out = tmp_path_factory.mktemp("run") / "out"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(ways, "LEAST", 2)
        m.setattr(tsne, "POINTS", 100)
        assert call(["--steps", 12, "--seed", 3, "--out", out]) == 0
    return out


def test_one_command_leaves_every_stage_its_pictures_numbers_and_weights(done):
    metrics = json.loads((done / "digits" / "metrics.json").read_text())
    assert list(metrics["stages"]) == STAGES and metrics["steps"] == 12 and metrics["seed"] == 3
    for stage in STAGES:
        assert list((done / "digits" / stage).glob("*.png")) and metrics["stages"][stage]
    assert (done / "digits" / "weights.safetensors").stat().st_size > 3136 * 1024 * 4
    assert not list(done.rglob(".tinycnn-*"))


def test_every_figure_is_in_the_report_with_caption_and_alt_text(done):
    page = (done / "report.html").read_text()
    files = list((done / "digits").glob("*/*.png"))
    behind = list((done / "digits").glob("*/*.data.json"))  # the images behind scatters and comparisons
    sprites = [path for path in behind if not json.loads(path.read_text()).keys() <= {"links"}]
    assert len(sprites) == 4 and len(files) >= 15
    assert len(re.findall("data:image/(png|webp);base64,", page)) == len(files) + len(sprites)
    assert len(page) < 10e6
    section = networks.read_section(done / "digits")
    assert [chapter.name for chapter in section.chapters] == STAGES
    for chapter in section.chapters:
        for picture in chapter.result.pictures:
            said = chapter.words[picture.name]
            assert len(said.caption) > 80 and len(said.alt) > 20 and said.details and picture.title
            assert said.caption in Text(page).read and said.details in Text(page).read


def test_captions_are_short_and_say_no_thing_twice(done):
    """Outside of the details: two sentences each; the network stands once in the section, not in every caption."""
    said = [w for chapter in networks.read_section(done / "digits").chapters for w in chapter.words.values()]
    assert sum(len(w.caption.split()) for w in said) < 1600
    assert max(len(w.caption.split()) for w in said) < 100
    assert not any("seed 3" in w.caption or "Network:" in w.caption for w in said)


class Text(HTMLParser):
    """The text of a page, white space made one blank."""

    def __init__(self, page):
        super().__init__()
        self.parts = []
        self.feed(page)
        self.read = " ".join("".join(self.parts).split())

    def handle_data(self, text):
        self.parts.append(text)


def test_the_networks_own_page_is_beside_its_numbers_and_a_maps_tile_leads_there(done, tmp_path):
    page, report = done / "digits" / "explorer.html", (done / "report.html").read_text()
    assert page.stat().st_size < 12e6 and 'href="digits/explorer.html"' in report
    assert 'href="digits/explorer.html#layer=relu2&amp;unit=63&amp;test=0"' in report
    links = json.loads((done / "digits" / "filters" / "filters.data.json").read_text())["links"]
    assert len(links["places"]) == 64 and links["views"][3] == "layer=conv1&unit=1&trained=0"
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    again = tmp_path / "digits" / "explorer.html"
    again.unlink()
    assert call(["--steps", 12, "--seed", 3, "--out", tmp_path, "--only", "filters"]) == 0  # under --only too
    assert again.read_bytes() == page.read_bytes()


def test_the_report_names_no_address_to_load_from(done):
    page = (done / "report.html").read_text()
    assert not re.search(r"""(?<!<a )(src|href|srcset|data|url)\s*[=(]\s*["']?(https?:)?//""", page)


def test_resume_keeps_what_is_done_and_does_again_what_is_damaged(done, capsys):
    before = (done / "digits" / "metrics.json").read_bytes()
    times = {p: p.stat().st_mtime_ns for p in (done / "digits").glob("*/*.png")}
    (done / "digits" / "filters" / "filters.png").write_bytes(b"cut")
    assert call(["--steps", 12, "--seed", 3, "--out", done, "--resume"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {line[0]: line[1] == "kept" for line in lines} == {part: part != "filters" for part in PARTS}
    changed = {p.parent.name for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert changed == {"filters"}
    assert (done / "digits" / "metrics.json").read_bytes() == before


def test_one_stage_alone_gives_the_numbers_it_gives_among_all(done, tmp_path):
    argv = ["--steps", 12, "--seed", 3, "--only", "saliency", "filters", "--out", tmp_path]
    assert call(argv) == 0
    alone, among = (json.loads((p / "digits" / "metrics.json").read_text()) for p in (tmp_path, done))
    assert alone["stages"] == {k: among["stages"][k] for k in ("filters", "saliency")}
    assert not (tmp_path / "digits" / "tsne").exists()


@pytest.mark.slow
def test_one_thread_and_two_give_the_same_bytes(done, tmp_path):
    argv = ["--steps", 4, "--only", "training_curve", "saliency", "--out"]
    runs = [process(["run_all.py", *argv, tmp_path / n], NUMBA_NUM_THREADS=n) for n in ("1", "2")]
    for run in runs:
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
    for name in ("metrics.json", "weights.safetensors", "saliency/saliency.png", "saliency/saliency.data.json"):
        one, two = ((tmp_path / n / "digits" / name).read_bytes() for n in ("1", "2"))
        assert one == two != (done / "digits" / name).read_bytes(), name  # `done` has another seed


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--dataset", "cifar"], "mnist"),
        (["--only", "dreams"], "saliency"),
        (["--backend", "tpu"], "reference"),
        (["--recipe", "magic"], "study"),
        (["--steps", "0"], "at least 1"),
        (["--steps", "many"], "--steps"),
        (["--seed", "-1"], "at least 0"),
        (["--dataset", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (["--dataset", "cifar10", "--data-dir", "nowhere"], "nowhere"),
        (["--dataset", "stl10", "--data-dir", "nowhere"], "nowhere"),
        (["--images", "nowhere"], "nowhere"),
        (["--images", ""], "names no folder"),
        (["--images", "two\nlines"], r"two\nlines: no such folder"),
        (["--images", "caf\udce9"], "no such folder"),
        (["--images", "digits"], "the built-in set of this name is --dataset digits"),
        (["--dataset", "tests"], "the folder is --images tests"),
        (["--steps", "-3"], "at least 1"),
        (["--steps", "9" * 9], "at most 10,000,000"),
        (["--steps", "9" * 5000], "expected a whole number"),
        (["--model", "mnist"], "goes with --images"),
        (["--picture"], "--picture"),
    ],
)
def test_bad_input_costs_one_line_and_leaves_nothing(argv, says, capsys, tmp_path):
    out = tmp_path / "out"
    assert call([*argv, "--out", out]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("run_all.py: error: ") and printed.err.count("\n") == 1 and says in printed.err
    assert not list(out.rglob("*.*"))


def test_a_terminal_without_the_letters_of_a_name_stops_nothing(tmp_path):
    for i in range(10):
        path = tmp_path / "\N{DOG FACE}" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (25 * i, 0, 0)).save(path)
    argv = [
        "--images",
        path.parents[1],
        "--model",
        "mnist",
        "--steps",
        1,
        "--only",
        "filters",
        "--out",
        tmp_path / "out",
    ]
    run = process(["run_all.py", *argv], PYTHONIOENCODING="ascii")
    printed, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert errors.startswith("\\U0001f436, resized and cropped to 28x28: 6 training images, 2 held out, 2 test images")


@pytest.mark.parametrize("part", ["", "digits"])
def test_an_output_folder_that_cannot_be_written_is_found_before_training(part, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Recipe, "fit", lambda *a, **k: pytest.fail("trained all the same"))
    blocked = tmp_path / "out" / part
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file in the way")  # permissions do not stop root, this does
    assert call(["--out", tmp_path / "out"]) == 2
    error = capsys.readouterr().err
    assert "cannot write" in error and "--out" in error and error.count("\n") == 1
    assert blocked.read_text() == "a file in the way"


def test_missing_data_is_found_before_the_first_data_set_is_trained(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Recipe, "fit", lambda *a, **k: pytest.fail("trained all the same"))
    assert call(["--dataset", "digits", "mnist", "--data-dir", tmp_path, "--out", tmp_path / "out"]) == 2
    assert "mnist" in capsys.readouterr().err


def test_ctrl_c_outside_of_training_costs_one_line_too(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "built_in", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    assert call(["--out", tmp_path]) == 130
    assert capsys.readouterr().err == "\nrun_all.py: stopped; run the same command with --resume to go on\n"


@pytest.fixture
def full_disk():
    """No file may grow beyond 64 KiB: pictures fit, weights do not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_one_line_and_nothing_that_was_there(done, tmp_path, capsys, full_disk):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "weights.safetensors").write_bytes(b"from an earlier run")
    assert call(["--steps", 1, "--only", "filters", "--out", tmp_path]) == 2
    error = capsys.readouterr().err.rstrip("\n").split("\n")[-1]
    assert error.startswith("run_all.py: error: cannot write") and ".safetensors" in error
    assert (tmp_path / "digits" / "weights.safetensors").read_bytes() == b"from an earlier run"
    assert not list(tmp_path.rglob(".tinycnn-*"))


def test_ctrl_c_keeps_the_training_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    code = (
        "import sys, run_all; from viz.study import recipes; "
        "recipes.RECIPES['study']['digits'] = recipes.Recipe(100000, 4); "
        f"sys.exit(run_all.main(['--out', {str(tmp_path)!r}]))"
    )
    run = process(["-c", code])
    checkpoint = tmp_path / "digits" / "checkpoint-study.safetensors"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in errors, errors
    assert "--resume" in errors.rstrip("\n").split("\n")[-1]
    done_steps = int(re.search(r"stopped after (\d+) of", errors)[1])
    monkeypatch.setitem(recipes.RECIPES["study"], "digits", Recipe(100000, 4))
    assert call(["--steps", done_steps + 1, "--out", tmp_path, "--resume", "--only", "filters"]) == 0
    assert json.loads((tmp_path / "digits" / "metrics.json").read_text())["steps"] == done_steps + 1


def test_list_names_every_stage_and_data_set_and_loads_nothing_slow():
    code = (
        "import sys, run_all; run_all.main(['--list']); "
        "print(sorted({'matplotlib', 'sklearn', 'jinja2', 'torch', 'cupy'} & set(sys.modules)))"
    )
    lines = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"\n  {name} " in lines for name in (*STAGES, *data.NAMES))
    assert lines.endswith("[]\n")


def test_several_data_sets_share_one_report(tmp_path, monkeypatch):
    *small, masks = demo.shapes("test", n=60)
    load = data.load
    monkeypatch.setattr(data, "load", lambda name, *a, **k: small if name == "shapes" else load(name, *a, **k))
    monkeypatch.setattr(data, "masks", lambda *a: masks)
    argv = ["--dataset", "digits", "shapes", "--steps", 2, "--only", "filters", "saliency", "--out", tmp_path]
    assert call(argv) == 0
    page = (tmp_path / "report.html").read_text()
    assert all(f'id="{name}-{stage}"' in page for name in ("digits", "shapes") for stage in ("filters", "saliency"))
    metrics = json.loads((tmp_path / "shapes" / "metrics.json").read_text())["stages"]["saliency"]
    game = metrics["pointing_game"]
    assert metrics["images"] == game["the answer"]["trained"]["n"] == 60 and 0.02 < game["by_chance"] < 0.5


def test_stl10_is_joined_and_split_as_the_study_does(monkeypatch):
    def load(name, split, **_):
        numbers = np.arange(5000) if split == "train" else np.arange(5000, 13000)
        return numbers.astype(np.uint8).reshape(-1, 1, 1, 1), numbers

    monkeypatch.setattr(data, "load", load)
    joined = sets.built_in("stl10", protocol="study")
    assert joined.labels.tolist() == list(range(10000)) and joined.test_labels.tolist() == list(range(10000, 13000))
    assert len(joined.images) == 10000 and len(joined.test_images) == 3000 and joined.masks is None
    assert joined.val_labels.tolist() == joined.test_labels.tolist()
    monkeypatch.setattr(sets, "hold_out", lambda labels: labels % 10 == 3)
    split = sets.built_in("stl10")
    assert split.val_labels.tolist() == list(range(3, 5000, 10)) and split.test_labels.tolist() == [*range(5000, 13000)]
    assert sorted([*split.labels, *split.val_labels]) == list(range(5000)) and len(split.images) == 4500


def test_a_tenth_of_each_class_is_held_out_whatever_the_seed_and_never_a_class_s_only_image():
    labels = np.repeat([0, 1, 2, 3, 4], [200, 31, 3, 2, 1])
    np.random.default_rng(0).shuffle(labels)
    held_out = sets.hold_out(labels)
    assert [int(held_out[labels == c].sum()) for c in range(5)] == [20, 3, 1, 1, 0]
    assert np.array_equal(held_out, sets.hold_out(labels))
    digits = sets.built_in("digits")
    assert len(digits.images) + len(digits.val_images) == 1437 and len(digits.test_images) == 360
    together = np.concatenate([digits.images, digits.val_images]).reshape(1437, -1)
    everything = data.load("digits", "train")[0].reshape(1437, -1)
    assert np.array_equal(np.unique(together, axis=0), np.unique(everything, axis=0))
    with pytest.raises(InputError, match="--protocol study"):
        sets._split(digits.info, (digits.images[:2], np.array([0, 1])), (digits.images, digits.labels), "holdout")


def read(path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_both_recipes_of_a_folder_share_the_curve_and_each_resumes_its_own(tmp_path, capsys):
    argv = ["--steps", 4, "--only", "training_curve", "--out", tmp_path]
    assert call(argv) == 0
    folder = tmp_path / "digits"
    alone = (folder / "training_curve" / "curve.png").read_bytes()
    fast = ["--steps", 4, "--out", tmp_path, "--recipe", "fast"]
    with pytest.MonkeyPatch.context() as m:
        m.setattr(ways, "LEAST", 1)
        m.setattr(tsne, "POINTS", 60)
        assert call(fast) == 0
    run = read(folder / "run.json")
    assert run["settings"]["recipe"].startswith("fast: Adam 0.001, batches of 100, one-cycle schedule, dropout")
    assert (
        "other_recipes" not in read(folder / "metrics.json")["stages"]["training_curve"]
    )  # another seed's would not be
    assert "recipes that were trained into this folder: study" in Text((tmp_path / "report.html").read_text()).read
    assert (folder / "training_curve" / "curve.png").read_bytes() != alone
    weights, took = (folder / "weights.safetensors").read_bytes(), run["seconds"]["training"]
    capsys.readouterr()
    assert call([*fast, "--resume", "--only", "training_curve"]) == 0 and "kept" in capsys.readouterr().out
    assert read(folder / "run.json")["seconds"]["training"] == took > 0
    assert (folder / "weights.safetensors").read_bytes() == weights
    (folder / "history-study.json").write_text("[1")
    assert call([*fast, "--resume", "--only", "training_curve"]) == 2
    assert "history-study.json: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["--resume", "--only"])
@pytest.mark.parametrize(
    ("other", "says"),
    [
        (["--recipe", "fast"], r"recipe study: Adam 0.008.*, now fast: Adam 0.001"),
        (["--seed", 4], "seed 3, now 4"),
        (["--backend", "reference"], "backend cpu, now reference"),
        (["--steps", 11], "a run of 12 steps, now 11"),
    ],
)
def test_a_folder_of_one_training_refuses_another_in_one_line_that_names_both(done, how, other, says, capsys):
    before = {p: p.read_bytes() for p in done.rglob("*") if p.is_file()}
    argv = ["--steps", 12, "--seed", 3, "--out", done, how, *(["filters"] if how == "--only" else []), *other]
    assert call(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(says, error) and "to start anew" in error and str(done) in error
    assert {p: p.read_bytes() for p in done.rglob("*") if p.is_file()} == before


def test_a_run_that_starts_anew_and_is_stopped_is_gone_on_with_and_mixes_nothing(done, tmp_path, capsys, monkeypatch):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    scratch = ("run.json", "checkpoint-", "history-judge-", "history-frozen-")
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and not p.name.startswith(scratch)]
    before = {p: p.read_bytes() for p in kept}
    with monkeypatch.context() as m:
        m.setattr(Recipe, "fit", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call(["--steps", 5, "--seed", 4, "--out", tmp_path]) == 130
    assert {p: p.read_bytes() for p in before} == before
    argv = ["--steps", 5, "--only", "filters", "--out", tmp_path, "--seed"]
    assert call([*argv, 3]) == 2 and "seed 4, now 3" in capsys.readouterr().err
    assert call([*argv, 4]) == 0
    metrics = read(tmp_path / "digits" / "metrics.json")
    assert metrics["seed"] == 4 and list(metrics["stages"]) == ["filters"] and metrics["judges"] == {}


def test_other_images_are_refused_too(done, capsys, monkeypatch):
    load = data.load
    monkeypatch.setattr(data, "load", lambda name, split, **k: tuple(a[::-1] for a in load(name, split, **k)))
    assert call(["--steps", 12, "--seed", 3, "--out", done, "--resume"]) == 2
    assert re.search(r"holds a run with images \(SHA-256\) [0-9a-f]{12}, now [0-9a-f]{12}", capsys.readouterr().err)


def test_one_stage_alone_leaves_the_rest_of_the_numbers_and_of_the_report(done, tmp_path):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    metrics, page = (tmp_path / "digits" / "metrics.json").read_bytes(), (tmp_path / "report.html").read_text()
    assert call(["--steps", 12, "--seed", 3, "--only", "filters", "--out", tmp_path]) == 0
    assert (tmp_path / "digits" / "metrics.json").read_bytes() == metrics
    figures = [re.findall('data:image/[^"]+', text) for text in (page, (tmp_path / "report.html").read_text())]
    assert figures[0] == figures[1] and json.loads(metrics)["judges"]


def test_what_was_begun_and_stopped_is_gone_on_with_by_the_same_command(tmp_path, capsys, monkeypatch):
    """Fewer steps than the finished run before it; and fewer than were begun of a schedule are refused."""
    argv = ["--recipe", "fast", "--only", "filters", "--out", tmp_path]
    assert call(["--steps", 12, *argv]) == 0
    stop = lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
    with monkeypatch.context() as m:
        m.setattr(Recipe, "fit", stop)
        assert call(["--steps", 5, "--recipe", "fast", "--out", tmp_path]) == 130
    capsys.readouterr()
    assert call(["--steps", 4, *argv, "--resume"]) == 2 and "5 steps, now 4" in capsys.readouterr().err
    assert call(["--steps", 5, *argv, "--resume"]) == 0
    assert read(tmp_path / "digits" / "metrics.json")["steps"] == 5


@pytest.mark.slow
def test_a_run_that_starts_anew_and_is_stopped_at_once_is_resumed_and_nothing_of_the_old_one_counts(tmp_path):
    """Stopped while it removes the old checkpoints: they are of more steps, and of another seed."""

    def stop():
        raise KeyboardInterrupt

    argv = ["--steps", 3, "--only", "filters", "--out"]
    assert call(["--steps", 5, "--seed", 1, *argv[2:], tmp_path]) == 0 and call([*argv, tmp_path / "whole"]) == 0
    with pytest.MonkeyPatch.context() as m:
        m.setattr(Path, "unlink", lambda path, **_: stop() if "checkpoint" in path.name else os.unlink(path))
        assert call([*argv[:2], "--out", tmp_path]) == 130
    assert (tmp_path / "digits" / "checkpoint-study.safetensors").exists()
    assert call([*argv, tmp_path, "--resume"]) == 0
    for name in ("metrics.json", "weights.safetensors", "filters/filters.png"):
        ones = [(folder / "digits" / name).read_bytes() for folder in (tmp_path, tmp_path / "whole")]
        assert ones[0] == ones[1], name


def test_a_curve_of_another_seed_is_in_no_figure(tmp_path):
    argv = ["--steps", 2, "--out", tmp_path, "--only", "training_curve"]
    assert call([*argv, "--seed", 1]) == 0
    alone = (tmp_path / "digits" / "training_curve" / "curve.png").read_bytes()
    for name in ("run.json", "metrics.json"):
        (tmp_path / "digits" / name).unlink()
    (tmp_path / "digits" / "history-study.json").rename(tmp_path / "digits" / "history-best.json")
    assert call([*argv, "--seed", 2]) == 2  # the checkpoint is of seed 1
    (tmp_path / "digits" / "checkpoint-study.safetensors").unlink()
    assert call([*argv, "--seed", 2]) == 0
    kept = results.find(tmp_path / "digits" / "training_curve")
    assert kept.pictures[0].facts["other_recipes"] == []
    assert (tmp_path / "digits" / "training_curve" / "curve.png").read_bytes() != alone


@pytest.mark.slow
def test_with_more_steps_training_goes_on_and_what_hangs_on_it_is_made_again(tmp_path, capsys, monkeypatch):
    """At a constant rate; what followed a schedule is trained anew, and the run says so."""
    monkeypatch.setitem(recipes.RECIPES["study"], "digits", Recipe(300, 100))
    argv = ["--seed", 3, "--only", "filters", "saliency", "--out"]
    assert call(["--steps", 3, *argv, tmp_path]) == 0 and call(["--steps", 5, *argv, tmp_path, "--resume"]) == 0
    assert "anew" not in capsys.readouterr().out
    assert call(["--steps", 5, *argv, tmp_path / "whole"]) == 0
    for name in ("metrics.json", "weights.safetensors", "filters/filters.png", "saliency/saliency.png"):
        ones = [(folder / "digits" / name).read_bytes() for folder in (tmp_path, tmp_path / "whole")]
        assert ones[0] == ones[1], name
    capsys.readouterr()
    assert call(["--steps", 6, "--seed", 3, "--only", "filters", "--out", tmp_path]) == 0
    metrics = read(tmp_path / "digits" / "metrics.json")
    assert list(metrics["stages"]) == ["filters"] and metrics["steps"] == 6  # saliency was of another network
    fast = ["--seed", 3, "--recipe", "fast", "--only", "filters", "--out", tmp_path / "fast"]
    assert call(["--steps", 3, *fast]) == 0 and call(["--steps", 4, *fast]) == 0
    printed = capsys.readouterr().out
    assert printed.count("trained anew: its rate follows a schedule of 4 steps, not 3") == 1
    assert read(tmp_path / "fast" / "digits" / "metrics.json")["steps"] == 4


@pytest.mark.slow
def test_judges_too_are_trained_anew_for_a_longer_run(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as m:
        m.setattr(ways, "LEAST", 1)
        argv = ["--only", "maximization", "--out", tmp_path]
        assert call(["--steps", 4, *argv]) == 0 and call(["--steps", 8, "--resume", *argv]) == 0
    assert len(re.findall("judge-another-.* is trained anew", capsys.readouterr().out)) == 2


def test_metrics_hold_what_the_seed_determines_and_run_json_what_it_came_from(done):
    metrics, run = (read(done / "digits" / f"{name}.json") for name in ("metrics", "run"))
    assert set(metrics) == {
        *("dataset", "seed", "steps", "train_images", "validation_images", "test_images", "kept_step"),
        *("train_accuracy", "validation_accuracy", "test_accuracy", "curve"),
        *("judges", "stages"),
    }
    assert not re.search(r"second|version|commit|date|backend|command", json.dumps(list(metrics)))
    assert run["settings"]["seed"] == 3 and run["steps"] == 12 and len(run["settings"]["images"]) == 64
    assert run["command"].startswith("python run_all.py --steps 12 --seed 3")
    assert run["version"] == tinycnn.__version__ and run["packages"]["numpy"] == np.__version__
    assert set(run["fingerprints"]) == set(STAGES) and set(run["seconds"]) == {*PARTS}
    assert run["peak_memory_mb"] > 50 and "CPU cores" in run["machine"] and "in_progress" not in run


def test_a_damaged_record_costs_one_line(done, tmp_path, capsys):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    for text in ("{", "[]", "\x00"):
        (tmp_path / "digits" / "run.json").write_text(text)
        assert call(["--steps", 12, "--seed", 3, "--out", tmp_path, "--resume"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_no_two_purposes_of_a_run_share_a_number(tmp_path, monkeypatch):
    """All streams that a run of every stage draws from, for seeds 0 to 20: their first 1,000 numbers all differ."""
    used, sequence = set(), streams._sequence
    monkeypatch.setattr(streams, "_sequence", lambda *a: used.add((a[0], a[1], tuple(a[2]))) or sequence(*a))
    monkeypatch.setattr(ways, "LEAST", 1)
    monkeypatch.setattr(tsne, "POINTS", 60)
    assert call(["--steps", 2, "--recipe", "fast", "--seed", 1, "--out", tmp_path]) == 0
    own = {(purpose, index) for seed, purpose, index in used if seed == 1}
    assert {p for p, _ in own} >= {"weights", "batches", "dropout", "augment", "ascent", "judge", "stage tsne"}
    derived = {seed for seed, _, _ in used} - {0, 1}  # the judges' and the hidden units'
    assert len(derived) == len(judges.JUDGES) + 3 and min(derived) > 2**32
    seen, count = set(), 0
    for seed in range(21):
        for purpose, index in own:
            numbers = np.random.PCG64(sequence(seed, purpose, index)).random_raw(1000)
            seen.update(numbers.tolist())
            count += 1000
    assert len(seen) == count


def test_the_seeds_of_judges_are_no_networks(tmp_path):
    found = [judges.seed(seed, name) for seed in range(21) for name in judges.JUDGES]
    assert len(set(found)) == len(found) and min(found) > 2**64


def test_nothing_draws_past_the_streams():
    for path in [*ROOT.glob("tinycnn/**/*.py"), *ROOT.glob("viz/**/*.py")]:
        if path.name not in ("streams.py", "demo.py"):  # the embedded sets come from fixed seeds
            assert not re.search(r"default_rng|RandomState|np\.random\.(?!Generator)", path.read_text()), path


def test_a_stage_is_one_file_one_template_and_one_row(tmp_path, monkeypatch, capsys):
    (tmp_path / "dots_stage.py").write_text(
        "from viz import figures\nfrom viz.report.results import Picture\n\n\n"
        "def run(s):\n    tile = figures.photo(s.images[:1])\n"
        "    return [Picture('dots', 'Dots', figures.sheet(tile, 1, 'Dots'))], {'dots': 7}\n"
    )
    (tmp_path / "dots.txt").write_text("## dots\nThere are {{ dots }} dots in {{ title }}.\n\nalt: {{ dots }} dots.\n")
    monkeypatch.syspath_prepend(tmp_path)
    row = table.Stage("dots", "Dots", "Some dots.", (1, 2, 3), module="dots_stage", words=str(tmp_path / "dots.txt"))
    monkeypatch.setitem(table.STAGES, "dots", row)
    out = tmp_path / "out"
    argv = ["--steps", 1, "--only", "dots", "--out", out]
    assert call(argv) == 0 and call(["--list"]) == 0
    assert "  dots                    Some dots." in capsys.readouterr().out
    assert "There are 7 dots in Digits." in Text((out / "report.html").read_text()).read
    assert read(out / "digits" / "metrics.json")["stages"] == {"dots": {"dots": 7}}
    assert estimate.parts(data.info("digits"), 1, 0, [row])["dots"] == 1
    # The template is no part of the fingerprint: new words, and the stage is kept.
    (tmp_path / "dots.txt").write_text("## dots\nNow {{ dots }} dots.\n")
    words._parts.cache_clear()
    assert call([*argv, "--resume"]) == 0 and re.search(r"dots +kept", capsys.readouterr().out)
    assert "Now 7 dots." in (out / "report.html").read_text()
    (tmp_path / "dots.txt").write_text("## dots\n{{ stripes }} dots.\n")
    words._parts.cache_clear()
    assert call([*argv, "--resume"]) == 2
    error = capsys.readouterr().err
    assert "'stripes' is undefined" in error and "dots.txt: part '## dots'" in error and "Traceback" not in error


def test_what_a_fact_holds_is_never_a_template(tmp_path):
    (tmp_path / "x.txt").write_text("## a\nSaid: {{ name }}.\n\nalt: {{ name }}\n")
    result = results.Result((results.Kept("a", "A", "a", {}, "", "", "", ""),), {}, 0.0, "", "")
    name = "{{ 1 + 1 }}\n## b\nalt: <i>"
    said = words.speak(tmp_path / "x.txt", result, {"name": name})["a"]
    assert said.caption == "Said: {{ 1 + 1 }} ## b alt: <i>." and said.alt == "{{ 1 + 1 }} ## b alt: <i>"


def test_a_fingerprint_reads_what_a_stage_imports_and_nothing_else():
    read = {str(p.relative_to(ROOT)) for p in fingerprint.sources("viz.study.stages.saliency")}
    assert read >= {
        *("viz/study/stages/saliency.py", "viz/study/subject.py", "viz/saliency.py", "viz/check.py"),
        *("viz/figures/sheet.py", "tinycnn/network.py", "tinycnn/ops/winograd.py", "tinycnn/ops/kernels.cu"),
    }
    assert not any(p.startswith(("viz/ascent", "viz/space", "viz/study/stages/tsne")) for p in read)
    assert not read & {"viz/study/run.py", "viz/study/table.py", "viz/study/estimate.py"}
    read = {str(p.relative_to(ROOT)) for p in fingerprint.sources("viz.study.stages.maximization")}
    assert read >= {"viz/study/ways.py", "viz/ascent/maximize.py", "viz/ascent/recipes.py", "viz/ascent/transforms.py"}


@pytest.mark.parametrize(
    "stage", [pytest.param(s, marks=[pytest.mark.slow] * (s not in ("saliency", "maximization"))) for s in STAGES]
)
def test_every_project_file_that_a_stage_loads_is_in_its_fingerprint(stage):
    code = (
        "import sys, importlib; importlib.import_module(sys.argv[1]); from tinycnn import get_ops; get_ops('cpu'); "
        "print(*[m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('tinycnn', 'viz')], sep='\\n')"
    )
    module = table.STAGES[stage].module
    run = subprocess.run([sys.executable, "-c", code, module], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {Path(p).resolve() for p in run.stdout.split("\n") if p} <= set(fingerprint.sources(module))


def test_a_recipe_says_all_that_it_switches_on():
    text = str(Recipe(9, 3, 0.002, 50, "one-cycle", 0.01, 0.3, 2, True, 0.05))
    assert text == (
        "Adam 0.002, batches of 50, one-cycle schedule, weight decay 0.01, dropout 0.3, moved by up to 2 pixels, "
        "flipped, weights averaged over 5 % of the steps"
    )
    assert str(Recipe(9, 3)) == "Adam 0.0001, batches of 100"


def test_an_estimate_goes_by_the_pace_of_what_was_done_and_passes_over_what_was_kept(monkeypatch):
    monkeypatch.setattr(estimate, "BELIEF", 10)
    clock = estimate.Estimate({"a": 10.0, "b": 30.0, "c": 5.0, "d": 100.0})
    assert clock.left() == 145
    clock.done("a", 30.0)
    assert clock.left() == 2 * 135  # with the belief, 40 seconds for what usually takes 20
    clock.done("d")
    assert clock.left() == 2 * 35
    clock.done("b", 10.0)
    assert clock.left() == 5


def test_every_stage_has_its_usual_time():
    parts = estimate.parts(data.info("cifar10"), 1000, 100, [table.STAGES[name] for name in STAGES], 0.5)
    assert list(parts) == PARTS and min(parts.values()) > 0
    assert parts["maximization"] == table.STAGES["maximization"].seconds[1] / 2


@pytest.mark.slow
def test_judges_are_other_networks_and_trained_only_for_generated_images(tmp_path, capsys):
    argv = ["--steps", 3, "--out", tmp_path]
    assert call([*argv, "--only", "filters"]) == 0 and not list((tmp_path / "digits").glob("*judge*"))
    assert call([*argv, "--only", "neighbors", "maximization"]) == 0  # the first of them takes a while
    printed = capsys.readouterr().out
    assert "judge-another-seed" in printed and "left" in printed
    judges = json.loads((tmp_path / "digits" / "metrics.json").read_text())["judges"]
    assert set(judges) == {"another seed", "another architecture"}
    first, second = (Network.load(p) for p in sorted((tmp_path / "digits").glob("checkpoint-judge-*")))
    assert "conv3" in first.layer_names and second.layer_names == models.build("mnist").layer_names
    own = Network.load(tmp_path / "digits" / "weights.safetensors")
    assert not np.allclose(second.params["conv1"]["w"], own.params["conv1"]["w"])


def test_mnist_shows_the_digit_of_the_study():
    folder = ROOT / "data" / "mnist"
    if not folder.exists():
        pytest.skip("no official MNIST files in data/mnist")
    mnist = sets.built_in("mnist", folder.parent)
    assert mnist.val_labels[0] == 7 and len(mnist.images) == 60000 and len(mnist.val_images) == 10000
    net = models.build("mnist", backend="reference")
    assert net.shapes["relu1"] == (28, 28, 32) and net.shapes["relu2"] == (14, 14, 64)


def test_patches_beyond_the_border_are_black_and_in_place():
    images = np.arange(1, 51).reshape(2, 5, 5, 1)
    patches = activations.crop(images, np.array([[-1, -2, 2, 1], [3, 3, 6, 6]]))
    assert patches[0, :, :, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 6]]
    assert patches[1, :, :, 0].tolist() == [[44, 45, 0], [49, 50, 0], [0, 0, 0]]


def test_fingerprints_change_with_weights_and_images():
    net = models.build("mnist", backend="reference")
    x = np.zeros((3, 2), np.uint8)
    first = fingerprint.of_network(net)
    assert first == fingerprint.of_network(models.build("mnist", backend="reference"))
    assert fingerprint.of_arrays([x]) == fingerprint.of_arrays([x.copy()]) != fingerprint.of_arrays([x + 1])
    assert fingerprint.of_arrays([x]) != fingerprint.of_arrays([x[:2], x[2:]])
    net.params["conv2"]["b"][5] = 1e-6
    assert first != fingerprint.of_network(net)


def test_no_pyplot():
    for path in Path(figures.__file__).parent.glob("*.py"):
        assert "pyplot" not in path.read_text().replace("without pyplot", ""), path


def test_figures_are_exported_on_request_and_kept_stages_too(tmp_path):
    argv = ["--steps", 2, "--only", "learned", "--out", tmp_path]
    folder = tmp_path / "digits" / "learned"
    assert call(argv) == 0 and not list(folder.glob("*.svg"))
    assert call([*argv, "--resume", "--export", "svg", "csv"]) == 0
    assert "<svg" in (folder / "learned.svg").read_text() and (folder / "learned.csv").read_text().startswith("name,")
    assert call([*argv, "--export", "bmp"]) == 2

"""The front door: one command gives everything, the same twice; a mistake costs one line and loses nothing."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import run_all
from tinycnn import Network, data, models
from tinycnn.data import demo
from viz import activations, figures, study
from viz.report import results
from viz.study import estimate
from viz.study import ways as ablation
from viz.study.recipes import Recipe
from viz.study.stages import backprop, space

ROOT = Path(__file__).parents[1]
STAGES = list(study.STAGES)


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


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a whole short run on digits: every stage, few steps."""
    out = tmp_path_factory.mktemp("run") / "out"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(ablation, "LEAST", 2)
        m.setattr(space, "POINTS", 100)
        assert call(["--steps", 12, "--seed", 3, "--out", out]) == 0
    return out


def test_one_command_leaves_every_stage_its_pictures_numbers_and_weights(done):
    metrics = json.loads((done / "digits" / "metrics.json").read_text())
    assert list(metrics["stages"]) == sorted(STAGES) and metrics["steps"] == 12 and metrics["seed"] == 3
    for stage in STAGES:
        assert list((done / "digits" / stage).glob("*.png")) and metrics["stages"][stage]
    assert (done / "digits" / "weights.safetensors").stat().st_size > 3136 * 1024 * 4
    assert not list(done.rglob("*.tmp-*"))


def test_every_figure_is_in_the_report_with_caption_and_alt_text(done):
    page = (done / "report.html").read_text()
    files = list((done / "digits").glob("*/*.png"))
    behind = list((done / "digits").glob("*/*.data.json"))  # the images behind scatters and comparisons
    assert len(behind) == 4 and len(files) >= 15
    assert len(re.findall("data:image/(png|webp);base64,", page)) == len(files) + len(behind)
    assert len(page) < 10e6
    for found in (done / "digits").glob("*/result.json"):
        for picture in json.loads(found.read_text())["pictures"]:
            assert len(picture["caption"]) > 150 and len(picture["alt"]) > 20 and picture["title"]
            assert "seed 3" in picture["caption"]


def test_the_report_names_no_address_to_load_from(done):
    page = (done / "report.html").read_text()
    assert not re.search(r"""(src|href|srcset|data|url)\s*[=(]\s*["']?(https?:)?//""", page)


def test_resume_keeps_what_is_done_and_does_again_what_is_damaged(done, capsys):
    before = (done / "digits" / "metrics.json").read_bytes()
    times = {p: p.stat().st_mtime_ns for p in (done / "digits").glob("*/*.png")}
    (done / "digits" / "filters" / "filters.png").write_bytes(b"cut")
    assert call(["--steps", 12, "--seed", 3, "--out", done, "--resume"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {line[0]: line[1] == "kept" for line in lines} == {
        part: part != "filters" for part in ("training", "judges", *STAGES)
    }
    changed = {p.parent.name for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert changed == {"filters"}
    assert (done / "digits" / "metrics.json").read_bytes() == before


def test_one_stage_alone_gives_the_numbers_it_gives_among_all(done, tmp_path):
    argv = ["--steps", 12, "--seed", 3, "--only", "saliency", "filters", "--out", tmp_path]
    assert call(argv) == 0
    alone, among = (json.loads((p / "digits" / "metrics.json").read_text()) for p in (tmp_path, done))
    assert alone["stages"] == {k: among["stages"][k] for k in ("filters", "saliency")}
    assert not (tmp_path / "digits" / "tsne").exists()


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
        (["--picture"], "--picture"),
    ],
)
def test_bad_input_costs_one_line_and_leaves_nothing(argv, says, capsys, tmp_path):
    out = tmp_path / "out"
    assert call([*argv, "--out", out]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("run_all.py: error: ") and printed.err.count("\n") == 1 and says in printed.err
    assert not list(out.rglob("*.*"))


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
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_ctrl_c_keeps_the_training_and_says_how_to_go_on(tmp_path, capsys):
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
    monkeypatch.setattr(study.data, "load", lambda name, *a, **k: small if name == "shapes" else load(name, *a, **k))
    monkeypatch.setattr(study.data, "masks", lambda *a: masks)
    argv = ["--dataset", "digits", "shapes", "--steps", 2, "--only", "filters", "saliency", "--out", tmp_path]
    assert call(argv) == 0
    page = (tmp_path / "report.html").read_text()
    assert all(f'id="{name}-{stage}"' in page for name in ("digits", "shapes") for stage in ("filters", "saliency"))
    metrics = json.loads((tmp_path / "shapes" / "metrics.json").read_text())["stages"]["saliency"]
    scores = metrics["against the object's mask, 60 images"]
    chance = scores.pop("by chance")["mass inside the object"]
    assert all(0 <= v <= 1 for s in scores.values() for v in s.values()) and 0.02 < chance < 0.5


def test_stl10_is_joined_and_split_as_the_study_does(monkeypatch):
    def load(name, split, **_):
        numbers = np.arange(5000) if split == "train" else np.arange(5000, 13000)
        return numbers.astype(np.uint8).reshape(-1, 1, 1, 1), numbers

    monkeypatch.setattr(study.data, "load", load)
    _, images, labels, val_images, val_labels, masks = study.load("stl10")
    assert labels.tolist() == list(range(10000)) and val_labels.tolist() == list(range(10000, 13000))
    assert len(images) == 10000 and len(val_images) == 3000 and masks is None
    _, images, labels, val_images, val_labels, _ = study.load("stl10", protocol="official")
    assert labels.tolist() == list(range(5000)) and val_labels.tolist() == list(range(5000, 13000))
    assert len(images) == 5000 and len(val_images) == 8000


def test_both_recipes_of_a_folder_share_the_curve_and_each_resumes_its_own(tmp_path, capsys):
    argv = ["--steps", 4, "--only", "training_curve", "--out", tmp_path]
    assert call(argv) == 0
    alone = (tmp_path / "digits" / "training_curve" / "curve.png").read_bytes()
    assert call([*argv, "--recipe", "fast"]) == 0
    folder = tmp_path / "digits"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["recipe"].startswith("fast: Adam 0.001, batches of 100, one-cycle schedule, dropout")
    caption = json.loads((folder / "training_curve" / "result.json").read_text())["pictures"][0]["caption"]
    assert "of the other recipes" in caption
    assert (folder / "training_curve" / "curve.png").read_bytes() != alone
    weights = (folder / "weights.safetensors").read_bytes()
    took = results.timing(folder, "fast")["training"]
    assert call([*argv, "--recipe", "fast", "--resume"]) == 0 and "kept" in capsys.readouterr().out
    assert results.timing(folder, "fast")["training"] > took > 0 and results.timing(folder, "study") == {}
    assert (folder / "weights.safetensors").read_bytes() == weights
    (folder / "history-study.json").write_text("[1")
    assert call([*argv, "--recipe", "fast", "--resume"]) == 2
    assert "history-study.json: not a history of training" in capsys.readouterr().err


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
    parts = estimate.parts(data.info("cifar10"), 1000, 100, study.STAGES, 0.5)
    assert {part for _, part in parts} == {"training", "judges", *study.STAGES} and min(parts.values()) > 0


def test_judges_are_other_networks_and_trained_only_for_generated_images(tmp_path, capsys):
    argv = ["--steps", 3, "--out", tmp_path]
    assert call([*argv, "--only", "filters"]) == 0 and not list((tmp_path / "digits").glob("*judge*"))
    assert call([*argv, "--only", "neighbors", "maximization"]) == 0  # the first of them takes a while
    printed = capsys.readouterr().out
    assert "judges" in printed and "left" in printed
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
    _, images, _, val_images, val_labels, _ = study.load("mnist", folder.parent)
    assert val_labels[0] == 7 and len(images) == 60000 and len(val_images) == 10000
    net = models.build("mnist", backend="reference")
    assert net.shapes["relu1"] == (28, 28, 32) and net.shapes["relu2"] == (14, 14, 64)


def test_the_pointing_game_is_what_loops_say():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((20, 5, 6)), rng.random((20, 5, 6)) < 0.4
    hits, mass = 0, 0.0
    for m, mask in zip(maps, masks):
        best = max((m[y, x], y, x) for y in range(5) for x in range(6))
        hits += bool(mask[best[1], best[2]])
        mass += sum(m[y, x] for y in range(5) for x in range(6) if mask[y, x]) / m.sum()
    score = backprop._score(maps, masks)
    assert score["pointing game, hit rate"] == hits / 20
    assert score["mass inside the object"] == pytest.approx(mass / 20, abs=1e-12)


def test_patches_beyond_the_border_are_black_and_in_place():
    images = np.arange(1, 51).reshape(2, 5, 5, 1)
    patches = activations.crop(images, np.array([[-1, -2, 2, 1], [3, 3, 6, 6]]))
    assert patches[0, :, :, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 6]]
    assert patches[1, :, :, 0].tolist() == [[44, 45, 0], [49, 50, 0], [0, 0, 0]]


def test_examples_show_as_many_classes_as_there_are():
    labels = np.array([1, 1, 0, 2, 2, 1, 0, 3])
    s = study.Study(None, None, None, None, None, labels, None, None, None, {}, 0)
    assert s.examples().tolist() == [0, 2, 3, 7, 1, 4]


def test_fingerprints_change_with_weights_images_and_seed():
    net = models.build("mnist", backend="reference")
    x = np.zeros((3, 2), np.uint8)
    first = results.fingerprint(net, [x], ("digits", 0))
    assert first == results.fingerprint(models.build("mnist", backend="reference"), [x.copy()], ("digits", 0))
    assert first != results.fingerprint(net, [x], ("digits", 1))
    assert first != results.fingerprint(net, [x + 1], ("digits", 0))
    net.params["conv2"]["b"][5] = 1e-6
    assert first != results.fingerprint(net, [x], ("digits", 0))


def test_no_pyplot():
    files = Path(figures.__file__).parent.glob("*.py")
    assert "pyplot" not in "".join(f.read_text() for f in files).replace("without pyplot", "")

"""The benchmarks' logic: arguments, ratios, who takes part, and that the sides compute the same. No timings."""

import dataclasses
import importlib
import json

import numpy as np
import pytest

from benchmarks import __main__ as bench
from benchmarks import report, sides, worker, works
from benchmarks import results as study_results
from tinycnn import InputError, data, models
from viz.metrics.controls import CONTROLS
from viz.study import fingerprint, recipes
from viz.study.table import STAGES


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--peers", "caffe"], "no peer 'caffe' for backend cpu; choose from: tensorflow, torch, jax"),
        (["--backend", "gpu", "--peers", "tensorflow"], "choose from: torch, torch-tf32, torch-compile, jax"),
        (["--backend", "gpu", "--work", "threads"], "threads is measured with backend cpu only"),
        (["--rounds", "0"], "expected a whole number of at least 1, got '0'"),
        (["--batch", "-5"], "expected"),
        (["--work", "train-imagenet"], "'train-imagenet'"),
        (["--backend", "tpu"], "'tpu'"),
    ],
)
def test_a_bad_argument_gets_one_line(argv, says, capsys):
    with pytest.raises(SystemExit) as exit_:
        bench.parse(argv)
    err = capsys.readouterr().err
    assert exit_.value.code == 2 and says in err and err.count("\n") == 1


def test_quick_takes_small_works_and_three_rounds():
    args = bench.parse(["--quick"])
    assert args.rounds == 3 and set(args.work) == set(bench.QUICK) and not any("stl10" in name for name in args.work)
    assert bench.parse(["--quick", "--work", "train-stl10"]).work == ["train-stl10"]


def test_threads_are_all_cores_unless_numba_says_fewer():
    assert bench.thread_count(None, 6) == 6 and bench.thread_count("2", 6) == 2 and bench.thread_count("8", 6) == 6


def test_the_ratio_is_the_median_of_the_rounds_ratios_to_the_fastest_peer():
    times = {"ours": [1.0, 9.0, 4.0], "slow": [10.0, 10.0], "fast": [2.0, 6.0, 8.0]}
    s = report.summary(times, per=2, flops=3e6)
    assert s["fastest"] == "fast"
    assert (s["ratio"], s["ratio_min"], s["ratio_max"]) == (0.5, 0.5, 1.5)  # of 0.5, 1.5, 0.5; of the medians: 4 / 6
    assert s["sides"]["slow"]["ratio"] == pytest.approx(0.5) and s["sides"]["slow"]["rounds"] == 2
    assert s["sides"]["ours"]["median_ms"] == 2.0 and s["sides"]["ours"]["gflops"] == pytest.approx(1.5)
    assert "ratio" not in s["sides"]["ours"]
    assert report.summary({"ours": [1.0]})["fastest"] is None


def test_a_far_slower_peer_sits_out_after_two_rounds_and_ours_never():
    speeds = {"ours": 100.0, "fast": 1.0, "near": 3.0, "far": 5.0}
    workers = {name: lambda method, repeats, ms=ms: ms for name, ms in speeds.items()}
    times = worker.time_rounds(workers, 4, peers={"fast", "near", "far"})
    assert {name: len(ms) for name, ms in times.items()} == {"ours": 4, "fast": 4, "near": 4, "far": 2}


def test_operations_are_those_of_a_dense_implementation():
    names = works.catalogue(100)
    flops = {name: work.flops(work.network()) for name, work in names.items()}
    conv1, conv2, fc = 96 * 96 * 75 * 96, 48 * 48 * 9 * 96 * 96, 55296 * 384 + 384 * 192 + 1920  # products per image
    assert flops["infer-stl10"] == 200 * (conv1 + conv2 + fc)
    assert flops["train-stl10"] == 200 * (2 * conv1 + 3 * conv2 + 3 * fc)
    assert flops["saliency-stl10"] == 200 * 11 * (conv1 + conv2 + fc)
    assert flops["layerbackprop-stl10"] == 40 * 97 * (conv1 + conv2)
    assert flops["deconvnet-stl10"] == 200 * 2 * (conv1 + conv2)
    assert flops["maximize-stl10"] == 20 * 2 * (conv1 + conv2 + fc)


def test_different_results_are_told_apart():
    a = np.linspace(1, 2, 50)
    assert works.disagreement("infer", a, a * (1 + 1e-5)) == (pytest.approx(1e-5, rel=1e-2), True)
    assert not works.disagreement("infer", a, a * (1 + 2e-4))[1]
    assert works.disagreement("infer", a, a * (1 + 2e-4), slack=100)[1]
    assert not works.disagreement("saliency", a, a[::-1])[1]
    assert works.disagreement("train", [2.3, 2.2, 2.1], [2.3, 2.2 * 1.0005, 2.1])[1]
    assert not works.disagreement("train", [2.3, 2.2, 2.1], [2.3 * 1.0005, 2.2, 2.1])[1]  # before any step
    assert not works.disagreement("infer", a, a * np.nan)[1] and not works.disagreement("infer", a, a[:3])[1]


def test_slices_cover_all_images_and_stay_within_the_tile():
    for images, channels, tile in ((100, 10, 250), (20, 96, 250), (7, 300, 250), (5, 2, 100)):
        parts = sides.slices(images, channels, tile)
        assert [i for p in parts for i in range(images)[p]] == list(range(images))
        assert all((p.stop - p.start) * channels <= max(tile, channels) for p in parts)


def test_a_missing_peer_is_named_and_ours_is_timed_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sides.SIDES, "jax", ("jax_side", "a_package_that_nobody_has"))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    argv = ["--peers", "jax", "--work", "infer-mnist", "--rounds", "2", "--batch", "3", "--out", str(tmp_path)]
    assert bench.main(argv) == 0
    assert "jax skipped: a_package_that_nobody_has is not installed" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    (row,) = results["works"]
    assert list(row["sides"]) == ["ours"] and len(row["sides"]["ours"]["times_ms"]) == 2 and row["fastest"] is None
    assert results["threads"] == 1 and row["images"] == 3 and row["sides"]["ours"]["difference"] == 0


@pytest.mark.slow
def test_a_side_that_computes_something_else_is_left_out_and_fails_the_run(tmp_path, monkeypatch, capsys):
    """A second "ours" that may differ by nothing stands in for the peer."""
    monkeypatch.setitem(sides.SIDES, "jax", sides.SIDES["ours"])
    monkeypatch.setitem(sides.SLACK, "jax", -1)
    argv = ["--peers", "jax", "--work", "infer-mnist", "--rounds", "1", "--batch", "3", "--out", str(tmp_path)]
    monkeypatch.setattr(bench, "Worker", lambda name, *args: worker.Worker("ours", *args))
    assert bench.main(argv) == 1
    assert "infer-mnist: jax left out: it does not compute the same" in capsys.readouterr().out


def test_a_process_that_dies_is_reported_in_one_line():
    with worker.Worker("ours", "cpu", 1) as process:
        process.process.kill()
        with pytest.raises(worker.WorkerError, match="ended with status -9"):
            process("hello")
    with (
        worker.Worker("ours", "cpu", 1) as process,
        pytest.raises(worker.WorkerError, match=r"AttributeError: .*nonsense"),
    ):
        process("nonsense")


def test_results_become_a_page_and_a_plot(tmp_path):
    times = {"ours": [1.0, 1.1], "torch": [2.0, 2.4]}
    row = {"work": "infer-mnist", **report.summary(times, flops=1e9)}
    row["sides"]["torch"] |= {"formulation": "channels_last", "memory": 5e6}
    table = {"title": "Starts", "head": ("what", "s"), "rows": [("ours", "1.0")]}
    results = {"command": "python -m benchmarks", "machine": "M", "threads": 2, "batch": 100, "peak": 2e3}
    results |= {"versions": {"torch": "torch 9"}, "notes": ["jax skipped"], "works": [row], "tables": [table]}
    page = report.markdown(results)
    assert "Generated by `python -m benchmarks`" in page and "- jax skipped" in page and "## Starts" in page
    assert "| infer-mnist | torch | 2.2 | 2.0 | 0.48 * | 0.46 to 0.50 | 455 | 23% | 5 MB | channels_last |" in page
    report.plot(tmp_path / "p.png", results)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


COMMON = [kind for kind in works.KINDS if kind not in works.ATTRIBUTION]
DONE = {name: COMMON for name in ("tensorflow", "torch", "jax")}
DONE |= {"captum": list(works.ATTRIBUTION), "zennit": ["lrp"]}


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in DONE.items() for kind in kinds])
def test_every_formulation_of_a_peer_computes_what_ours_does(name, kind, monkeypatch):
    if sides.missing(name):
        pytest.skip(f"{sides.missing(name)} is not installed")
    monkeypatch.setattr(works, "ITERATIONS", 3)
    work = works.Work(kind, "mnist", 10 if kind == "maximize" else 4)
    x, labels = work.inputs()

    def results(name):
        side = importlib.import_module(f"benchmarks.sides.{sides.SIDES[name][0]}").Side(name, "cpu", 1)
        for how in side.formulations(kind):
            run = side.prepare(work, how, work.network(), x, labels)
            if kind == "train":
                yield [float(side.numpy(run())[0]) for _ in range(works.STEPS)]
            else:
                yield side.numpy(run())

    (ours,) = results("ours")
    theirs = list(results(name))
    assert theirs and models.INPUT_SHAPES["mnist"] == x.shape[1:]
    for result in theirs:
        assert works.disagreement(kind, ours, result)[1]


def test_the_readme_s_tables_are_written_from_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(study_results, "RESULTS", tmp_path)
    page = tmp_path / "README.md"
    marks = [
        f"<!-- {n}: written by python -m benchmarks.results -->\nold\n<!-- end of {n} -->" for n in study_results.TABLES
    ]
    page.write_text("before\n" + "\n".join(marks) + "\nafter")
    study_results.write_readme(page)
    assert "| MNIST | roughly 98 % | not run yet | not run yet |" in page.read_text() and "old" not in page.read_text()
    for seed, share in enumerate((0.97, 0.98, 0.985)):
        accuracy = {"mean": share, "low": share - 0.01, "high": share + 0.005, "n": 360, "undefined": 0}
        ways = {"nothing": {"log_odds": 1.0 + seed}}
        metrics = {"seed": seed, "dataset": "digits", "steps": 150, "test_images": 360, "test_accuracy": accuracy}
        metrics |= {"train_accuracy": accuracy, "stages": {"maximization": {"ways": ways}}}
        folder = tmp_path / "default" / "digits" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "run.json").write_text("{}")
    study_results.write_readme(page)
    text = page.read_text()
    assert text.startswith("before\n<!-- accuracies") and text.endswith("<!-- end of scorecard -->\nafter")
    assert (
        "| digits |  | **97.8 % (95.9 to 99.7 %)** of 360; training images 97.8 % (150 steps, 3 networks) |  |" in text
    )
    assert "| nothing | 2.0 (-0.5 to 4.5) |" in text and "Not run yet." in text
    page.write_text("no marks")
    with pytest.raises(InputError, match="has no marks"):
        study_results.write_readme(page)
    assert page.read_text() == "no marks"


def test_the_scorecard_in_short_is_bold_where_it_beats_every_map_of_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(study_results, "RESULTS", tmp_path)
    for seed in range(3):
        e = 0.01 * seed
        scores = {"gradient": {"pointing game": 0.9 + e, "deletion": 0.1 + e}, "RISE": {"pointing game": 0.4 - e}}
        scores |= {name: {"pointing game": 0.5, "deletion": 0.05 + e} for name in CONTROLS}
        scores = {
            k: {m: {"mean": v, "low": v, "high": v, "n": 9} for m, v in some.items()} for k, some in scores.items()
        }
        folder = tmp_path / "scorecard" / "shapes" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"seed": seed, "stages": {"scorecard": {"scores": scores}}}))
        (folder / "run.json").write_text("{}")
    text = study_results.scored()
    assert text.startswith("Shapes: 3 networks.\n\n| method | points at the object |")
    assert "| gradient | **0.91 (0.89 to 0.93)** |  | 0.11 (0.09 to 0.13) |" in text
    assert (
        "| RISE | 0.39 (0.37 to 0.41) |  |  |" in text and "| centred blob (no network) | 0.50 (0.50 to 0.50) |" in text
    )
    assert study_results.arguments("scorecard", "shapes") == ["--only", "scorecard"]
    assert study_results.arguments("scorecard", "shapes-color") == ["--only", "shortcut"]


def test_a_study_is_done_again_only_if_its_recipe_or_a_stage_s_code_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(study_results, "RESULTS", tmp_path)
    assert study_results.changed("default", "digits") == "not all of its networks are kept"
    info = data.info("digits")
    kept = {name: {"code": fingerprint.of_code(s.module)} for name, s in STAGES.items() if s.usual("digits")}
    settings = {"recipe": f"study: {recipes.recipe('study', info)}", "protocol": "holdout"}
    run = {"settings": settings, "info": dataclasses.asdict(info), "built_in": True, "fingerprints": kept}

    def keep(run):
        for seed in range(10):
            folder = tmp_path / "default" / "digits" / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").write_text(json.dumps({"seed": seed}))
            (folder / "run.json").write_text(json.dumps(run))
        return study_results.changed("default", "digits")

    assert keep(run) == ""
    assert keep(run | {"settings": settings | {"protocol": "study"}}) == "its protocol was study"
    assert "its recipe was" in keep(run | {"settings": settings | {"recipe": "study: Adam 1"}})
    assert keep(run | {"fingerprints": kept | {"tsne": {"code": "0"}}}) == "the code of tsne has changed"
    assert (
        keep(run | {"fingerprints": {k: v for k, v in kept.items() if k != "filters"}})
        == "the code of filters has changed"
    )

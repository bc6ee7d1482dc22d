"""Several networks: the same bytes whoever does the parts, numbers over networks, and no mixture of settings."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import run_all
from tinycnn import InputError
from viz.report import results
from viz.study import records, table
from viz.study.__main__ import seeds
from viz.study.stages import summary

ROOT = Path(__file__).parents[1]
JUDGED = ["--steps", 12, "--only", "filters", "saliency", "maximization"]
FEW = ["--steps", 6, "--only", "training_curve", "filters", "neighbors"]


def call(argv):
    try:
        return run_all.main([str(a) for a in argv])
    except SystemExit as e:
        return e.code


def read(path):
    return json.loads(path.read_text())


def contents(folder):
    """What seeds determine in a study's folder, but for the page, of which there is one a data set: {name: bytes}."""
    names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return {
        str(n): (folder / n).read_bytes()
        for n in names
        if n.name not in ("run.json", "result.json", "explorer.html") and n.parts[0] != ".locks"
    }


def differing(a, b):
    """The names of what differs between the `contents` of two folders: to show the bytes would take a gigabyte."""
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Three studies of digits and their summary, made in this process."""
    out = tmp_path_factory.mktemp("networks") / "out"
    assert call([*FEW, "--seeds", "0,2-3", "--out", out]) == 0
    return out


@pytest.mark.parametrize(
    ("text", "found"), [("0-4", (0, 1, 2, 3, 4)), ("7", (7,)), ("3,0-1,3", (0, 1, 3)), ("10-11,2", (2, 10, 11))]
)
def test_seeds_are_read_as_a_person_writes_them(text, found):
    assert seeds(text) == found


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "4-2", "0-1000000", "1.5", "1-2-3", "²"])
def test_odd_seeds_cost_one_line(text, capsys):
    assert call(["--seeds", text]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_each_of_several_is_what_it_is_alone(several, tmp_path):
    assert call([*FEW, "--seed", 2, "--out", tmp_path]) == 0
    assert contents(tmp_path / "digits") == contents(several / "digits" / "seed-2")
    assert all((folder / "digits" / "explorer.html").exists() for folder in (tmp_path, several))


def test_the_summary_holds_every_number_with_its_interval_over_networks(several):
    found = read(several / "digits" / "summary.json")
    assert found["seeds"] == [0, 2, 3] and found["dataset"] == "digits"
    metrics = {seed: read(several / "digits" / f"seed-{seed}" / "metrics.json") for seed in (0, 2, 3)}
    number = found["stages"]["summary"]["numbers"]["test_accuracy"]
    values = [metrics[seed]["test_accuracy"]["mean"] for seed in (0, 2, 3)]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert list(number["values"].values()) == values and number["n"] == 3
    assert (number["mean"], number["low"], number["high"]) == pytest.approx((np.mean(values), low, high))
    near = [metrics[s]["stages"]["neighbors"]["features_less_pixels"]["test"]["mean"] for s in (0, 2, 3)]
    number = found["stages"]["summary"]["numbers"]["stages"]["neighbors"]["features_less_pixels"]["test"]
    assert number["mean"] == pytest.approx(np.mean(near))
    page = (several / "report.html").read_text()
    assert "Digits, 3 networks" in page and page.count('class="dots"') > 20


def test_undefined_numbers_are_left_out_and_counted_and_settings_are_no_numbers():
    metrics = {s: {"seed": s, "a": v, "inner": {"list": [1], "b": {"mean": v, "low": 0, "high": 1}}, "name": "x"}
               for s, v in ((0, 1.0), (1, None), (2, 3.0))}  # fmt: skip
    found = summary.over(metrics)
    assert set(found) == {"a", "inner"} and set(found["inner"]) == {"b"}
    assert found["a"]["mean"] == 2 and found["a"]["n"] == 2 and found["a"]["undefined"] == 1
    assert found["inner"]["b"]["mean"] == 2 and found["inner"]["b"]["values"][2] == 3


def test_summaries_of_what_lies_there_however_it_came_to_be(several, tmp_path, capsys):
    """Studies of three colleagues, copied into one folder under names of their own."""
    for seed, name in ((0, "ann"), (2, "ben"), (3, "seed-3")):
        shutil.copytree(several / "digits" / f"seed-{seed}", tmp_path / "digits" / name)
    assert call(["--summarize", tmp_path]) == 0
    assert "3 networks, seeds 0, 2, 3" in capsys.readouterr().out
    assert (tmp_path / "digits" / "summary.json").read_bytes() == (several / "digits" / "summary.json").read_bytes()
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert call(["--out", tmp_path, "--summarize"]) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run, metrics: run["settings"].update(recipe="fast: other"), "has recipe study.*fast: other"),
        (lambda run, metrics: run["settings"].update(images="f" * 64), "has images [0-9a-f]{12}, .* f{12}"),
        (lambda run, metrics: metrics.update(steps=7), "has steps 6, .* 7"),
        (lambda run, metrics: metrics["stages"].pop("filters"), "has stages"),
        (lambda run, metrics: metrics.update(seed=0), "both of seed 0"),
    ],
)
def test_settings_are_never_mixed_and_the_line_names_both(several, tmp_path, change, says, capsys):
    shutil.copytree(several, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "digits" / "summary.json").read_bytes()
    folder = tmp_path / "digits" / "seed-3"
    run, metrics = records.read_study(folder)
    change(run, metrics)
    text = results.dumps(metrics)
    (folder / "metrics.json").write_text(text)
    results.write(folder / "run.json", run | {"metrics_sha256": results.sha256(text.encode())})
    assert call(["--summarize", tmp_path]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "seed-3" in error
    assert re.search(says, error), error
    assert (tmp_path / "digits" / "summary.json").read_bytes() == before


@pytest.mark.slow
def test_studies_that_do_not_belong_together_cost_no_report(several, tmp_path, capsys):
    shutil.copytree(several, tmp_path, dirs_exist_ok=True)
    (tmp_path / "report.html").unlink()
    assert call(["--steps", 7, *FEW[2:], "--seeds", "2", "--out", tmp_path]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 2 and "steps 6" in error and "seed-2 7" in error
    assert (tmp_path / "report.html").exists() and read(tmp_path / "digits" / "seed-2" / "metrics.json")["steps"] == 7


def test_a_folder_without_studies_costs_one_line(tmp_path, capsys):
    assert call(["--summarize", tmp_path]) == 2 and "no studies" in capsys.readouterr().err


def test_a_stage_may_ask_for_all_networks(several, tmp_path, monkeypatch):
    shutil.copytree(several, tmp_path, dirs_exist_ok=True)
    (tmp_path / "count_stage.py").write_text(
        "from viz import figures\nfrom viz.report.results import Picture\n\n\ndef run(networks):\n"
        "    norms = {s: float((networks.net(s).params['fc2']['w'] ** 2).sum()) for s in networks.metrics}\n"
        "    tile = figures.photo(sum(norms.values()) * 0 + __import__('numpy').zeros((1, 4, 4, 1)))\n"
        "    return [Picture('count', 'Count', figures.sheet(tile, 1, 'Count'))], {'norms': norms}\n"
    )
    (tmp_path / "count.txt").write_text("## count\nOf {{ norms | length }} networks.\n\nalt: A count.\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = str(tmp_path / "count.txt")
    row = table.Stage("count", "Count", "C.", (1, 1, 1), over="networks", module="count_stage", words=words)
    monkeypatch.setitem(table.STAGES, "count", row)
    assert call(["--summarize", tmp_path]) == 0
    norms = read(tmp_path / "digits" / "summary.json")["stages"]["count"]["norms"]
    assert len(set(norms.values())) == 3 and "Of 3 networks." in (tmp_path / "report.html").read_text()


def test_two_processes_never_work_in_one_folder(tmp_path):
    code = (
        f"from viz.study import records\nwith records.lock({str(tmp_path)!r}, 'run'): print('in', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)
    assert other.stdout.readline() == "in\n"
    with pytest.raises(InputError, match=rf"process {other.pid} on .*, since 20.*, is at work on it \(run\)"):
        records.lock(tmp_path, "run").__enter__()
    other.communicate("\n")
    with records.lock(tmp_path, "run"):
        pass


@pytest.mark.parametrize("where", ["local:0", "local:x", "remote", "tcp://127.0.0.1:1"])
def test_workers_that_are_not_there_cost_one_line(where, tmp_path, capsys):
    pytest.importorskip("distributed", reason="needs Dask: pip install -e '.[cluster]'")
    assert call([*FEW, "--workers", where, "--out", tmp_path]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"--workers {where}" in error


# -- on Dask's workers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Three short studies with judges, each made by itself."""
    out = tmp_path_factory.mktemp("alone")
    for seed in range(3):
        assert call([*JUDGED, "--seed", seed, "--out", out / str(seed)]) == 0
    return [contents(out / str(seed) / "digits") for seed in range(3)]


def start(argv, **kwargs):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    return subprocess.Popen([sys.executable, *map(str, argv)], **pipes | kwargs)


@pytest.mark.cluster
def test_two_local_workers_give_the_same_bytes(alone, tmp_path):
    run = start(["run_all.py", *JUDGED, "--seeds", "0-2", "--workers", "local:2", "--out", tmp_path])
    text, _ = run.communicate(timeout=900)
    assert run.returncode == 0, text
    assert "dashboard at http://127.0.0.1:" in text and "18 of 18" in text
    for seed in range(3):
        assert not differing(contents(tmp_path / "digits" / f"seed-{seed}"), alone[seed])


@pytest.mark.cluster
@pytest.mark.parametrize("shared", [True, False], ids=["shared folder", "no shared folder"])
def test_a_scheduler_and_two_workers_give_the_same_bytes_though_one_is_killed(alone, tmp_path, shared):
    """Workers as a cluster starts them; one is killed in the middle. Without a shared folder, they cannot see OUT."""
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    see = "lambda path: '.tinycnn-' not in str(path) and there(path)"
    hide = "" if shared else f"import genericpath\nthere = genericpath.exists\ngenericpath.exists = {see}\n"
    code = f"import sys\n{hide}from distributed.cli.dask_worker import main\nif __name__ == '__main__':\n    main()\n"
    (tmp_path / "worker.py").write_text(code)
    worker = [sys.executable, tmp_path / "worker.py", "--scheduler-file", file, "--nthreads", "1", "--no-nanny"]
    processes = [subprocess.Popen([*dask, "--scheduler-file", str(file), "--no-dashboard"], env=env, **quiet)]
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        processes += [subprocess.Popen(list(map(str, worker)), env=env, **quiet) for _ in range(2)]
        argv = [*JUDGED, "--seeds", "0-2", "--workers", read(file)["address"], "--out", tmp_path / "out"]
        run = start(["run_all.py", *argv])
        lines = []
        for line in run.stdout:
            lines.append(line)
            if " 4 of 18" in line:
                processes[1].send_signal(signal.SIGKILL)
                processes[1].wait()  # else it stays a process, and what it was writing stays its own
        assert run.wait(timeout=900) == 0, "".join(lines)
    finally:
        for process in reversed(processes):
            process.kill()
    assert any("files travel" in line for line in lines) is not shared
    for seed in range(3):
        assert not differing(contents(tmp_path / "out" / "digits" / f"seed-{seed}"), alone[seed])


@pytest.mark.cluster
def test_a_part_that_fails_is_named_and_costs_no_other(tmp_path):
    """One seed's folder cannot be written by its stage."""
    (tmp_path / "digits" / "seed-1").mkdir(parents=True)
    (tmp_path / "digits" / "seed-1" / "filters").write_text("a file in the way")
    few = ["--steps", 3, "--only", "filters", "saliency"]
    run = start(["run_all.py", *few, "--seeds", "0-1", "--workers", "local:2", "--out", tmp_path])
    text, _ = run.communicate(timeout=600)
    assert run.returncode == 2 and "failed: 1 of 6 parts" in text and "seed-1, filters" in text, text
    assert (tmp_path / "digits" / "seed-0" / "filters" / "filters.png").exists()
    assert (tmp_path / "digits" / "seed-1" / "saliency" / "saliency.png").exists()

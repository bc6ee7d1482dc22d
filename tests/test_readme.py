"""What the README shows must run."""

import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_readmes_example_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("images.npy", rng.integers(0, 256, (100, 64, 64, 3), np.uint8))
    np.save("labels.npy", rng.integers(0, 3, 100))
    names = {}
    exec(code.replace("steps=500", "steps=2"), names)
    assert names["maps"].shape == (8, 64, 64) and names["dx"].shape == names["projection"].shape == (8, 64, 64, 3)
    assert Path("net.safetensors").exists() and np.abs(names["dx"]).max() > 0


def test_the_drawing_of_the_house_is_the_folders():
    drawing = README.split("## Learn")[1].split("```")[1]
    drawn, stack = set(), []
    for line in filter(str.strip, drawing.split("\n")):
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.findall(r"^\s*((?:[\w.]+/?(?: |$))+)", line)[0].split()
        stack = [*stack[:depth], names[0]]
        for name in names:
            path = ROOT.joinpath(*stack[:depth], name)
            assert path.exists(), path
            drawn |= {path} if path.is_dir() else set()
    folders = {
        p.parent for top in ("tinycnn", "viz", "tests", "benchmarks", "examples") for p in (ROOT / top).rglob("*.py")
    }
    folders |= {ROOT / "docs", *(ROOT / "viz" / room / "templates" for room in ("report", "explorer"))}
    assert drawn == folders

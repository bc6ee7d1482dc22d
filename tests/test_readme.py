"""What the README shows must run."""

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


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


def test_files_the_readme_names_exist():
    root = Path(__file__).resolve().parent.parent
    map_of_files = README.split("## Map of the files")[1].split("\n## ")[0]
    named = re.findall(r"`([\w./]+\.py|[\w.]+/(?:\w+/)*)`", map_of_files)
    assert len(named) > 15
    for name in named:
        assert list(root.glob(name)) or list(root.glob(f"*/**/{name}")), name

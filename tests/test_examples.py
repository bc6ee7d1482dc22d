"""The scripts in examples/ do what they say, and the page that is kept in docs/ is what its script makes."""

import base64
import io
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinycnn import Network, data, models

ROOT = Path(__file__).resolve().parent.parent
DATA = re.compile(r'(<script type="application/json" id="data">)(.*?)(</script>)', re.S)
ALIKE = ("title", "classes", "shape", "layers", "labels", "indices", "shown", "untrained")


def parts(path):
    """The page without what it holds, and what it holds."""
    text = path.read_text("utf-8")
    return DATA.sub(r"\1\3", text), json.loads(DATA.search(text)[2])


def network(content):
    """The network that a page of digits holds."""
    layers = [replace(layer, units=64) if layer.name == "fc1" else layer for layer in models.layers("mnist")]
    net = Network(layers, content["shape"])
    assert [layer["name"] for layer in content["layers"]] == net.layer_names
    for layer, p in content["weights"].items():
        for k, one in p.items():
            raw = np.frombuffer(base64.b64decode(one["data"]), one["kind"]).astype(np.float32)
            net.params[layer][k][...] = raw.reshape(net.params[layer][k].shape)
    return net


@pytest.mark.slow
def test_the_small_page_in_the_docs_is_what_its_script_makes(tmp_path, capsys):
    kept, made = ROOT / "docs" / "explorer.html", tmp_path / "explorer.html"
    runpy.run_path(str(ROOT / "examples" / "explorer.py"))["main"](made)
    (page, content), (again, anew) = parts(kept), parts(made)
    assert page == again and kept.stat().st_size < 1.5e6
    assert {name: content[name] for name in ALIKE} == {name: anew[name] for name in ALIKE}
    sheets = [Image.open(io.BytesIO(base64.b64decode(some["images"]["uri"].split(",")[1]))) for some in (content, anew)]
    assert (np.asarray(sheets[0]) == np.asarray(sheets[1])).all()
    images, labels = data.load("digits", "test")
    right = [(network(some).predict(images) == labels).mean() for some in (content, anew)]
    assert min(right) > 0.96 and f"names {100 * right[1]:.1f} %" in capsys.readouterr().out
    assert abs(right[0] - right[1]) < 0.02  # other processors add up in another order, and 150 steps make it grow

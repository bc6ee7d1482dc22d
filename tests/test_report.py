"""The report stands alone: it loads nothing, hides nothing, and takes every text for text."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tinycnn import data
from viz import figures, report, results


class Page(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, text):
        self.text += text

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


RUN = {
    "command": "python run_all.py --out 'a <b>'", "seed": 7, "backend": "cpu", "date": "2026-01-01 12:00",
    "seconds": 75.0, "machine": "x86_64, 2 CPU cores", "timed": ["training", "saliency"],
}  # fmt: skip


def section(folder, caption="A caption & more.", metrics=None):
    tile = np.zeros((1, 8, 8, 3), np.uint8)
    picture = results.Picture("one", "A <title>", caption, "An alt text.", figures.sheet(tile, 1, "Title"))
    metrics = {"number": 0.123456} if metrics is None else metrics
    kept = results.keep(folder, [picture], metrics, 1.5, "key")
    facts = {
        "network": "Network(conv1 <relu>)", "steps": 1234, "train_images": 1000, "validation_images": 10,
        "train_accuracy": 0.5, "validation_accuracy": 0.25,
    }  # fmt: skip
    stage = {"name": "saliency", "about": "What counts.", "folder": folder, "result": kept}
    times = {"training": 3.0, "saliency": 1.5}
    return {"info": data.info("digits"), "facts": facts, "stages": [stage], "times": times, "seconds": 2.0}


@pytest.fixture
def page(tmp_path):
    return Page(report.render([section(tmp_path)], RUN))


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    text = report.render([section(tmp_path)], RUN)
    loads = re.findall(r"""(?:src|srcset|data|poster|action)\s*=\s*["']([^"']*)""", text)
    assert loads and all(u.startswith("data:") for u in loads)
    assert all(a["href"].startswith(("#", "data:")) for tag, a in Page(text).tags if "href" in a)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|<link[^>]+stylesheet|<script[^>]+src", text)


def test_figures_are_inlined_byte_for_byte(tmp_path):
    page = Page(report.render([section(tmp_path)], RUN))
    image = next(a for a in page.all("img") if "src" in a)
    png = base64.b64decode(image["src"].split(",", 1)[1])
    assert png == (tmp_path / "one.png").read_bytes()
    assert Image.open(io.BytesIO(png)).size == (int(image["width"]), int(image["height"]))
    assert image["alt"] == "A <title>. An alt text."


def test_large_photographs_go_in_as_jpeg_and_look_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LARGEST_PNG", 100)
    image = next(a for a in Page(report.render([section(tmp_path)], RUN)).all("img") if "src" in a)
    assert image["src"].startswith("data:image/jpeg;base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(image["src"].split(",", 1)[1]))).convert("L")
    there = Image.open(tmp_path / "one.png").convert("L")
    assert np.abs(np.asarray(shown, int) - np.asarray(there, int)).mean() < 2


def test_names_of_folders_become_ids_without_spaces():
    assert report.slug("My pets & <co>") == "My-pets-co-"


def test_texts_are_escaped_and_stay_readable(page):
    assert "A caption & more." in page.text
    assert "python run_all.py --out 'a <b>'" in page.text and "Network(conv1 <relu>)" in page.text
    assert not page.all("b") and not page.all("relu")


def test_contents_lead_to_every_section(page):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in page.all("a")}
    assert targets <= set(ids) and {"digits", "digits-saliency", "made"} <= targets


def test_the_page_can_be_used_with_a_keyboard_and_read_on_a_phone(page):
    assert page.all("html")[0]["lang"] == "en"
    assert "width=device-width" in str(page.all("meta"))
    assert all(a.get("aria-label") for a in page.all("button") if a.get("class") == "zoom")
    assert all(a.get("tabindex") == "0" for _, a in page.tags if a.get("class") == "scroll")


def test_command_seed_versions_and_times_are_told(page):
    assert "seed 7" in page.text and "1 min 15 s" in page.text
    for name, version in report.versions().items():
        assert name in page.text and version in page.text


@pytest.mark.parametrize(
    ("metrics", "tables"),
    [
        ({}, []),
        ({"a": 1, "b": 2.5}, [("", ["value"], [("a", [1]), ("b", [2.5])])]),
        ({"t": {"x": 1}}, [("t", ["value"], [("x", [1])])]),
        ({"t": {"r": {"x": 1, "y": 2}, "s": {"y": 3}}}, [("t", ["x", "y"], [("r", [1, 2]), ("s", ["", 3])])]),
        ({"p": {"x": 1}, "q": {"x": 2}}, [("", ["x"], [("p", [1]), ("q", [2])])]),
    ],
)
def test_no_number_is_lost_between_metrics_and_tables(metrics, tables):
    assert report.table(metrics) == tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (13000, "13,000"), (0.12346, "0.1235"), (12345.6, "12,346"), ([1, 2], "1, 2"), ("", ""), (True, "True")],
)
def test_numbers_read_as_a_person_writes_them(value, text):
    assert report.number(value) == text


def test_results_come_back_from_disk_only_if_they_are_whole_and_of_the_same_making(tmp_path):
    kept = section(tmp_path, metrics={"b": np.float32(0.1), "a": np.arange(3)})["stages"][0]["result"]
    assert results.find(tmp_path, "key") == kept
    assert kept.metrics == {"a": [0, 1, 2], "b": float(np.float32(0.1))}
    assert results.find(tmp_path, "another key") is None
    png = tmp_path / "one.png"
    png.write_bytes(png.read_bytes()[:-1])
    assert results.find(tmp_path, "key") is None
    section(tmp_path)
    (tmp_path / "result.json").write_text("{")
    assert results.find(tmp_path, "key") is None
    assert results.find(tmp_path / "nowhere", "key") is None


def test_pictures_of_an_earlier_run_do_not_stay_behind(tmp_path):
    (tmp_path / "old.png").write_bytes(b"old")
    section(tmp_path)
    assert [p.name for p in tmp_path.glob("*.png")] == ["one.png"]


def test_numbers_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        results.dumps({"loss": float("nan")})

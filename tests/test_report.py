"""The report stands alone: it loads nothing, hides nothing, and takes every text for text."""

import base64
import html
import io
import re
import time
from dataclasses import asdict, replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tinycnn import data
from viz import figures
from viz.metrics import statistics
from viz.report import page as report
from viz.report import results
from viz.report import text as text_
from viz.study.table import STAGES


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
    "command": "python run_all.py --out 'a <b>'", "date": "2026-01-01T12:00:00", "machine": "Linux, 2 CPU cores",
    "backend": "cpu", "network": "Network(conv1 <relu>)", "seconds": {"training": 73.5, "saliency": 1.5},
    "version": "0.2.0", "commit": "0123abc", "packages": {"numpy": "2.0.1", "numba": "0.6.5"},
    "settings": {"recipe": "study: Adam", "protocol": "the set's own split"},
}  # fmt: skip


def accuracy(right, n):
    return vars(statistics.accuracy_interval(right, n))


JUDGES = {
    "another seed": {"accuracy": accuracy(342, 360), "judges": True, "least": 0.595},
    "another architecture": {"accuracy": accuracy(200, 360), "judges": False, "least": 0.595},
}


def section(folder, caption="A caption & more.", facts=None, title="A <title>", tile=None, info=None, **more):
    tile = np.zeros((1, 8, 8, 3), np.uint8) if tile is None else tile
    picture = results.Picture("one", title, figures.sheet(tile, 1, "Title"), **more)
    facts = {"number": 0.123456} if facts is None else facts
    kept = results.keep(folder, [picture], facts, time.perf_counter() - 1.5, "key", "code")
    words = {"one": results.Words(caption, "How it was made.", "An alt text.")}
    papers = (("Simonyan et al. <2013>", "https://arxiv.org/abs/1312.6034"), ("Erhan et al. 2009", ""))
    chapter = report.Chapter("saliency", "Saliency", "What counts.", folder, kept, words, papers)
    metrics = {
        "seed": 7, "steps": 1234, "kept_step": 1200, "train_images": 1000, "validation_images": 110, "test_images": 360,
        "train_accuracy": accuracy(980, 1000), "validation_accuracy": accuracy(106, 110),
        "test_accuracy": accuracy(347, 360), "judges": JUDGES, "stages": {"saliency": kept.facts},
    }  # fmt: skip
    return report.Section("digits", info or data.info("digits"), RUN, metrics, (chapter,))


def kept_in(made):
    return made.chapters[0].result


@pytest.fixture
def page(tmp_path):
    return Page(report.render([section(tmp_path)]))


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    text = report.render([section(tmp_path)])
    loads = re.findall(r"""(?:src|srcset|data|poster|action)\s*=\s*["']([^"']*)""", text)
    assert loads and all(u.startswith("data:") for u in loads)
    for tag, a in Page(text).tags:  # a link elsewhere is followed only by who wants to
        assert "href" not in a or a["href"].startswith(("#", "data:", "https://")[: 2 + (tag == "a")])
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|<link[^>]+stylesheet|<script[^>]+src", text)


def test_figures_are_inlined_byte_for_byte(tmp_path):
    page = Page(report.render([section(tmp_path)]))
    image = next(a for a in page.all("img") if "src" in a)
    png = base64.b64decode(image["src"].split(",", 1)[1])
    assert png == (tmp_path / "one.png").read_bytes()
    assert Image.open(io.BytesIO(png)).size == (int(image["width"]), int(image["height"]))
    assert image["alt"] == "A <title>. An alt text."


def test_large_photographs_go_in_smaller_and_look_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LARGEST_PNG", 100)
    image = next(a for a in Page(report.render([section(tmp_path, tile=photos(1, 240))])).all("img") if "src" in a)
    kind, raw = image["src"].split(";base64,")
    raw = base64.b64decode(raw)
    assert kind == "data:image/webp" and len(raw) < (tmp_path / "one.png").stat().st_size / 2
    shown, there = (np.asarray(Image.open(f).convert("L"), int) for f in (io.BytesIO(raw), tmp_path / "one.png"))
    assert np.abs(shown - there).mean() < 2


def test_texts_are_escaped_and_stay_readable(page):
    assert "A caption & more." in page.text
    assert "python run_all.py --out 'a <b>'" in page.text and "Network(conv1 <relu>)" in page.text
    assert not page.all("b") and not page.all("relu")


def test_an_alt_text_begins_with_the_title(tmp_path):
    for title in ("A <title>", "What? A 'title'", "Really?"):
        drawn = [image["alt"] for image in Page(report.render([section(tmp_path, title=title)])).all("img")]
        assert drawn == [f"{title}{' ' if title == 'Really?' else '. '}An alt text."]


def test_contents_lead_to_every_section(page):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")}
    assert targets <= set(ids) and {"digits", "digits-saliency", "made"} <= targets


def test_the_page_can_be_used_with_a_keyboard_and_read_on_a_phone(page):
    assert page.all("html")[0]["lang"] == "en"
    assert "width=device-width" in str(page.all("meta"))
    assert all(a.get("aria-label") for a in page.all("button") if a.get("class") == "zoom")
    assert all(a.get("tabindex") == "0" for _, a in page.tags if a.get("class") == "scroll")


def test_command_seed_versions_and_times_are_told(page):
    assert "seed 7" in page.text and "1 min 15 s" in page.text
    assert "commit 0123abc" in page.text and "Linux, 2 CPU cores" in page.text
    for name, version in RUN["packages"].items():
        assert name in page.text and version in page.text


def seen(text):
    """The words of a page, with a space where a cell ends."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


INTERVAL = {"mean": 1, "low": 0, "high": 2}


@pytest.mark.parametrize(
    ("metrics", "tables"),
    [
        ({}, []),
        ({"a": 1, "b": 2.5}, [("", ["value"], [("a", [1]), ("b", [2.5])])]),
        ({"t": {"x": 1}}, [("t", ["value"], [("x", [1])])]),
        ({"n": None, "i": {"mean": 1, "low": 0, "high": 2}}, [("", ["value"], [("n", [None]), ("i", [INTERVAL])])]),
        ({"t": {"n": 1, "r": {"x": 1}}}, [("t", ["value"], [("n", [1])]), ("t, r", ["value"], [("x", [1])])]),
        ({"t": {"r": {"x": 1, "y": 2}, "s": {"y": 3}}}, [("t", ["x", "y"], [("r", [1, 2]), ("s", ["", 3])])]),
        ({"p": {"x": 1}, "q": {"x": 2}}, [("", ["x"], [("p", [1]), ("q", [2])])]),
        ({"l": [{"x": 1}, {"x": 2}]}, [("l", ["x"], [("1", [1]), ("2", [2])])]),
        ({"l": [{"r": [{"x": 1}]}]}, [("l, 1, r, 1", ["value"], [("x", [1])])]),
        ({"l": [INTERVAL]}, [("", ["value"], [("l", [[INTERVAL]])])]),
    ],
)
def test_no_number_is_lost_between_metrics_and_tables(metrics, tables):
    assert report.table(metrics) == tables


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (INTERVAL, "1 (0 to 2)"),
        (INTERVAL | {"n": 1200}, "1 (0 to 2; n = 1,200)"),
        ({"mean": None, "low": None, "high": None, "n": 0}, "– (n = 0)"),
        ({"mean": 1.5, "low": None, "high": None, "n": 1}, "1.5 (n = 1)"),
        (3, "3"),
        (13000, "13,000"),
        (0.12346, "0.1235"),
        (12345.6, "12,346"),
        ([1, 2], "1, 2"),
        ("", ""),
        (True, "True"),
    ],
)
def test_numbers_read_as_a_person_writes_them(value, text):
    assert text_.number(value) == text


def test_one_of_a_kind_has_no_plural_and_no_interval():
    assert [text_.counted(n, "network") for n in (1, 3, 1200)] == ["1 network", "3 networks", "1,200 networks"]
    one = {"mean": 0.5, "low": None, "high": None}
    assert (text_.span(one), text_.span_percent(one)) == ("0.50", "50.0 %")


def test_results_come_back_from_disk_only_if_they_are_whole(tmp_path):
    kept = kept_in(section(tmp_path, facts={"b": np.float32(0.1), "a": np.arange(3)}))
    assert results.find(tmp_path) == kept
    assert kept.facts == {"a": [0, 1, 2], "b": float(np.float32(0.1))}
    png = tmp_path / "one.png"
    png.write_bytes(png.read_bytes()[:-1])
    assert results.find(tmp_path) is None
    section(tmp_path)
    (tmp_path / "result.json").write_text("{")
    assert results.find(tmp_path) is None
    assert results.find(tmp_path / "nowhere") is None
    section(tmp_path)
    for wrong in ({"facts": [1]}, {"seconds": "7"}, {"pictures": [asdict(kept.pictures[0]) | {"facts": None}]}):
        results.write(tmp_path / "result.json", asdict(kept) | wrong)
        assert results.find(tmp_path) is None, wrong


def test_pictures_of_an_earlier_run_do_not_stay_behind(tmp_path):
    (tmp_path / "old.png").write_bytes(b"old")
    section(tmp_path)
    assert [p.name for p in tmp_path.glob("*.png")] == ["one.png"]


def photos(n, size, seed=0):
    """Smooth random colour images (n, size, size, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC)) for x in small])


def cells(data):
    """The images of a sprite, (N, h, w, 3)."""
    columns, (W, H), (w, h) = data["columns"], data["cell"], data["size"]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["uri"].split(",")[1]))).convert("RGB"))
    return sheet.reshape(-1, H, columns, W, 3).swapaxes(1, 2)[:, :, :h, :w].reshape(-1, h, w, 3)


@pytest.mark.parametrize(("size", "shown"), [(28, 28), (32, 32), (96, 48)])
def test_the_images_behind_a_scatter_are_those_of_its_points(size, shown):
    images = photos(7, size)
    data = results.Points(np.zeros((7, 2)), list("abcabca"), images).to_dict()
    assert [data["names"][c] for c in data["classes"]] == list("abcabca")
    k = size // shown
    small = images.reshape(7, shown, k, shown, k, 3).mean((2, 4))
    assert np.abs(cells(data["sprite"])[:7] - small).mean((1, 2, 3)).max() < 10  # lossy; other images are 60 away


def test_a_comparison_holds_every_image_by_every_method_to_the_bit():
    images = photos(3, 20)
    data = results.Comparison(["x", "y", "z"], {"image": images, "negative": 255 - images}).to_dict()
    assert data["methods"] == ["image", "negative"] and data["labels"] == ["x", "y", "z"]
    assert np.array_equal(cells(data["sprite"]), np.concatenate([images, 255 - images]))


def test_places_of_a_scatter_are_where_its_marks_are_drawn():
    points = np.random.default_rng(0).normal(size=(5, 2)) * [30, 2]
    labels = np.arange(5)
    fig = figures.scatter(points, labels, {c: f"class {c}" for c in range(5)}, "Title", "A note")
    places = figures.places(fig, points)
    page = np.asarray(Image.open(io.BytesIO(figures.to_png(fig))).convert("RGB"))
    H, W = page.shape[:2]
    for label, (x, y) in enumerate(places):
        around = page[round(y * H) - 3 : round(y * H) + 4, round(x * W) - 3 : round(x * W) + 4].reshape(-1, 3)
        color = figures.CLASS_COLORS[label]
        assert [int(color[i : i + 2], 16) for i in (1, 3, 5)] in around.tolist(), label


def test_data_of_a_picture_are_kept_whole_and_the_same_twice(tmp_path):
    images = photos(3, 32)
    more = {"points": results.Points(np.full((3, 2), 0.5), list("aba"), images), "group": "g", "tab": "t"}
    kept = kept_in(section(tmp_path, **more))
    first = (tmp_path / "one.data.json").read_bytes()
    assert results.find(tmp_path) == kept and kept.pictures[0].tab == "t"
    section(tmp_path, **more)
    assert (tmp_path / "one.data.json").read_bytes() == first
    (tmp_path / "one.data.json").write_bytes(first[:-1])
    assert results.find(tmp_path) is None
    section(tmp_path)
    assert not list(tmp_path.glob("*.data.json"))


def test_pictures_of_a_group_that_follow_one_another_come_together():
    pictures = [results.Picture(n, n, None, group=g) for n, g in zip("abcdef", ["", "", "x", "x", "", "x"])]
    found = [(group, [p.name for p in some]) for group, some in report.groups(pictures)]
    assert found == [("", ["a"]), ("", ["b"]), ("x", ["c", "d"]), ("", ["e"]), ("x", ["f"])]


def test_the_summary_says_what_the_stages_found_and_a_dash_where_none_was_run(tmp_path):
    made = section(tmp_path)
    nothing = dict.fromkeys(("pixels", "features", "plane", "log_odds", "photographs", "recognised")) | {"judges": {}}
    assert report.summary(made) == nothing and text_.percent(None) == "–"

    def summary(stages):
        return report.summary(replace(made, metrics=made.metrics | {"stages": stages}))

    near = {space: {"test": {"mean": mean}} for space, mean in (("pixels", 0.4), ("features", 0.7))}
    sure = {"confidence_of_another seed": 0.8, "recognised": 9, "confidence_as_made": 0.9}
    found = summary({"neighbors": {"share_of_the_7_nearest": near}, "maximization": {"ways": {"ours": sure}}})
    judged = {"judges": {"another seed": 0.8}, "recognised": 9}
    assert found == nothing | judged | {"pixels": {"mean": 0.4}, "features": {"mean": 0.7}}
    stage = {
        "ways": {"nothing": {"log_odds": 7.0}, "ours": sure | {"log_odds": -1.52}},
        "photographs": {"log_odds": 4.0},
    }
    assert summary({"maximization": stage}) == nothing | judged | {"log_odds": -1.52, "photographs": 4.0}
    text = seen(report.render([replace(made, metrics=made.metrics | {"stages": {"maximization": stage}})]))
    assert "log-odds -1.5 of photographs 4.0 another seed: 80.0 % it names 9 of 10" in text
    assert summary({"tsne": {"all classes": {"accuracy_of_10_nearest": 0.8}}}) == nothing | {"plane": 0.8}


def test_every_accuracy_stands_with_its_interval_and_its_count(tmp_path):
    text = seen(report.render([section(tmp_path)]))
    assert "test 96.4 % 93.9 to 97.9 % 360 measured once" in text  # Wilson's for 347 of 360
    assert (
        re.search(r"held out 96.4 % [\d.]+ to [\d.]+ % 110 ", text) and "training 98.0 % 96.9 to 98.7 % 1,000" in text
    )
    assert (
        "judge: another seed 95.0 % 92.2 to 96.8 % 360 judges: the lower end of its interval lies above 59.5 %" in text
    )
    assert "judge: another architecture 55.6 % 50.4 to 60.6 % 360 does not judge" in text
    assert "kept as it was after step 1,200" in text and "interval over images" in text


def test_intervals_over_networks_and_over_images_are_told_apart(tmp_path):
    made = section(tmp_path)
    mean = vars(statistics.over_networks({0: 0.93, 1: 0.94, 2: 0.95}))
    over = {"test_accuracy": mean, "judges": {"another seed": {"accuracy": mean}}, "stages": {}}
    chapter = replace(made.chapters[0], name="summary", over="networks")
    several = replace(made, name="d", seeds=[0, 1, 2], over=over, chapters=(chapter, *made.chapters))
    text = seen(report.render([several]))
    assert f"test 94.0 % {100 * mean['low']:.1f} to {100 * mean['high']:.1f} % 3 measured once" in text
    assert "interval over networks" in text and "interval over images" not in text
    assert "95 % intervals over networks, each of them a dot" in text
    assert "95 % intervals over the images of this one network" in text
    assert "in the network shown here, it judges" in text and "another architecture" not in text


CLAIMS = [
    {"id": "S1", "claim": "edges <i>", "measured": "a & b", "stage": "saliency",
     "number": "0.31 (0.29 to 0.33)", "control": "0.30, untrained", "verdict": "holds, untrained as well"},
    {"id": "S2", "claim": "one map", "measured": "its share", "stage": "saliency", "number": "100 %",
     "control": "", "verdict": "holds"},
    {"id": "S3", "claim": "outlines", "measured": "their own", "stage": "tsne", "number": "", "control": "",
     "verdict": "does not hold"},
    {"id": "S4", "claim": "saliency", "measured": "", "stage": "", "number": "", "control": "",
     "verdict": "cannot be told"},
]  # fmt: skip


def with_claims(folder):
    """A section with claims."""
    return replace(section(folder / "a"), claims=CLAIMS)


def test_claims_come_first_as_a_table_with_verdicts_in_words(tmp_path):
    text = report.render([with_claims(tmp_path)])
    page, words = Page(text), seen(text)
    row = "S1 edges <i> a & b ( Saliency ) 0.31 (0.29 to 0.33) 0.30, untrained ≈ holds, untrained as well"
    assert words.index(row) < words.index("What counts.")
    assert "✓ holds" in words and "✕ does not hold" in words and "? cannot be told" in words
    cells = text.split('class="claims"')[1].split("</table>")[0]
    assert cells.count('href="#digits-saliency"') == 2 and "#digits-tsne" not in cells
    assert 'href="#digits-claims"' in text and 'id="digits-claims"' in text
    assert page.all("i") == [] and "One network decides nothing" in words
    several = replace(with_claims(tmp_path / "b"), seeds=[0, 1, 2], over={"judges": {}, "stages": {}})
    assert "a verdict takes three networks at least" in seen(report.render([several]))
    assert "claims" not in report.render([section(tmp_path / "c")]).split("<main")[1].split("S1 to S12")[-1]


def test_a_page_has_one_head_and_its_headings_go_down_one_by_one(tmp_path):
    page = Page(report.render([with_claims(tmp_path)]))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))
    assert [len(page.all(tag)) for tag in ("header", "nav", "main")] == [1, 1, 1]


def test_the_study_is_cited_and_each_stage_names_its_papers(page):
    text = " ".join(page.text.split())
    assert text.count("unpublished course study") == 1 and "S1 to S12" in text
    assert "Papers: Simonyan et al. <2013>; Erhan et al. 2009" in text
    assert "https://arxiv.org/abs/1312.6034" in [a["href"] for a in page.all("a")]
    for stage in STAGES.values():
        assert all(text and address.startswith(("https://", "")) for text, address in stage.papers)


def rows_of(tmp_path, *sizes, groups=None, comparison=()):
    """How figures of these (width, height) are put into rows."""
    kept = []
    for i, (width, height) in enumerate(sizes):
        Image.new("L", (width, height)).save(tmp_path / f"{i}.png")
        data = f"{i}.json" if i in comparison else ""
        if data:
            (tmp_path / data).write_text('{"comparison": {}}')
        group = groups[i] if groups else ""
        kept.append(results.Kept(str(i), "t", "w", {}, group, "", f"{i}.png", "", data))
    chapter = report.Chapter("s", "S", "", tmp_path, results.Result(tuple(kept), {}, 0.0, "", ""), {})
    return [["".join(p.name for p, _ in some) for _, _, some in row] for row in report.rows(chapter)]


@pytest.mark.parametrize(
    ("sizes", "options", "expected"),
    [
        ([(100, 100), (133, 100)], {}, [["0", "1"]]),
        ([(240, 100), (58, 100), (48, 100)], {}, [["0"], ["1", "2"]]),  # a strip has a row
        ([(100, 100), (160, 100), (90, 100)], {}, [["0"], ["1"], ["2"]]),
        ([(100, 100), (50, 100)], {}, [["0"], ["1"]]),  # a third of the row is too narrow
        ([(100, 100)] * 3, {}, [["0", "1"], ["2"]]),
        ([(100, 100)] * 2, {"comparison": [1]}, [["0"], ["1"]]),
        ([(100, 100)] * 3, {"groups": ["", "g", "g"]}, [["0", "12"]]),
        ([(100, 100)] * 2, {"groups": ["g", "g"]}, [["0", "1"]]),  # tabs of two lie open where there is room
        ([(100, 100)] * 2, {"groups": ["g", "g"], "comparison": [0]}, [["01"]]),
        ([(100, 100)] * 3, {"groups": ["g"] * 3}, [["012"]]),
    ],
)
def test_figures_fill_rows(tmp_path, sizes, options, expected):
    assert rows_of(tmp_path, *sizes, **options) == expected


def test_the_studys_numbers_stand_beside_the_sets_that_it_used_and_no_other(tmp_path):
    digits = section(tmp_path)
    assert "roughly" not in report.render([digits])
    stl10 = replace(digits, info=data.info("stl10"), reported=(0.93, 2001, "not credible"))
    text = Page(report.render([stl10])).text
    assert text.count("roughly 93 %") == 3 and "2,001 steps" in text and "not credible" in text


def test_what_is_undefined_is_null_and_an_infinite_number_is_refused():
    assert results.plain({"a": [float("nan"), 1.0], "b": np.float32("nan")}) == {"a": [None, 1.0], "b": None}
    with pytest.raises(ValueError, match="JSON"):
        results.dumps({"loss": float("inf")})


def test_a_stage_takes_as_long_as_its_numbers_and_its_figures(tmp_path):
    began = time.perf_counter()
    kept = kept_in(section(tmp_path))
    assert 1.5 < kept.seconds <= 1.5 + time.perf_counter() - began
    assert results.find(tmp_path) == kept

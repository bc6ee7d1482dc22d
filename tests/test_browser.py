"""The report in a real browser: Chromium, driven by Playwright. Every picture loads, nothing is complained of, and what
a pointer can do a keyboard can do too.
"""

import base64
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from test_report import section

import run_all
from viz.report import page as report
from viz.report import results
from viz.study.stages import tsne

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -e '.[browser]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = "</script><script>window.broken = 1</script> <b>&\"'{{ 1 }}"


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The report of a short run on digits."""
    out = tmp_path_factory.mktemp("browser")
    stages = ["maximal_activation_maps", "saliency", "tsne", "neighbors"]
    with pytest.MonkeyPatch.context() as m:
        m.setattr(tsne, "POINTS", 60)
        assert run_all.main(["--steps", "4", "--out", str(out), "--only", *stages]) == 0
    return out / "report.html"


@pytest.fixture
def visit(chromium):
    """Open a page; at the end of the test, nothing may have been complained of and nothing asked of a network."""
    contexts, complaints = [], []

    def go(path, **options):
        contexts.append(chromium.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce"} | options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or complaints.append(r.url))
        page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []


def pixels(canvas):
    """The colours of a canvas, (H, W, 3)."""
    png = canvas.evaluate("c => c.toDataURL()").split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_picture_loads_and_nothing_is_wider_than_the_page(visit, path, size, scheme):
    page = visit(path, viewport=size, color_scheme=scheme)
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert len(page.query_selector_all("img.picture")) == len(list(path.parent.glob("digits/*/*.png"))) >= 11
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate("[...document.images].every((image) => image.hidden || image.alt.length > 20)")


def test_without_javascript_every_figure_is_seen_and_no_control_that_needs_it(visit, path):
    page = visit(path, java_script_enabled=False)
    figures = page.locator("img.picture")
    assert figures.count() == len(list(path.parent.glob("digits/*/*.png")))
    assert all(figures.nth(i).is_visible() for i in range(figures.count()))
    assert page.locator(":is(.theme, .compare, .sprite, .tools):visible").count() == 0


def test_colours_follow_the_system_or_the_readers_choice(visit, path):
    page = visit(path, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.select_option(".theme select", "light")
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    page.select_option(".theme select", "")
    assert page.evaluate(ground) == light != dark
    page.select_option(".theme select", "dark")
    assert page.evaluate(ground) == dark


def test_a_figure_opens_large_by_keyboard_and_the_next_one_follows(visit, path):
    page = visit(path)
    button = page.locator("#digits-saliency .zoom")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.is_visible() and page.locator("#large-title").inner_text().startswith("Saliency")
    source = page.locator(".large img").get_attribute("src")
    assert source == page.locator("#digits-saliency .picture").get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert page.locator(".large img").get_attribute("src") != source
    page.locator("dialog [data-step='-1']").click()
    assert page.locator(".large img").get_attribute("src") == source
    page.keyboard.press("Escape")
    assert not dialog.is_visible() and button.evaluate("b => b === document.activeElement")


def test_on_a_phone_a_figure_opens_larger_than_it_was(visit, path):
    page = visit(path, viewport=PHONE, has_touch=True)
    small = page.locator("#digits-saliency .picture").bounding_box()["width"]
    page.locator("#digits-saliency .zoom").tap()
    assert page.locator(".large img").bounding_box()["width"] > 2 * small


def test_tabs_show_one_figure_at_a_time_and_arrows_move(visit, path):
    page = visit(path)
    group = page.locator("#digits-neighbors .group")
    tabs, panels = group.locator("[role=tab]"), group.locator("[role=tabpanel]")
    assert tabs.all_inner_texts() == ["pixels", "features"] and panels.count() == 2

    def shown():
        return [panels.nth(i).is_visible() for i in range(2)], [t.get_attribute("aria-selected") for t in tabs.all()]

    assert shown() == ([True, False], ["true", "false"])
    tabs.nth(1).click()
    assert shown() == ([False, True], ["false", "true"])
    for key, chosen in (("ArrowRight", 0), ("ArrowLeft", 1), ("Home", 0), ("End", 1)):
        page.keyboard.press(key)
        assert tabs.nth(chosen).evaluate("t => t === document.activeElement && t.tabIndex === 0")
        assert shown()[0] == [chosen == 0, chosen == 1]
    for tab, panel in zip(tabs.all(), panels.all()):
        assert tab.get_attribute("aria-controls") == panel.get_attribute("id")


def test_the_scatter_shows_the_image_and_the_class_under_the_pointer(visit, path):
    page = visit(path)
    plot = page.locator("#digits-tsne .plot").first
    plot.scroll_into_view_if_needed()
    data = plot.locator("script").evaluate("s => JSON.parse(s.textContent)")
    assert len(data["places"]) == 60 and plot.locator(".tip").is_hidden()
    box, seen = plot.bounding_box(), []
    for i in (0, 17, 59):
        x, y = data["places"][i]
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        assert plot.locator("output").inner_text() == f"{data['names'][data['classes'][i]]}, image {i + 1}"
        seen.append(pixels(plot.locator("canvas")))
    assert all(image.max() > 150 for image in seen) and not np.array_equal(seen[0], seen[1])
    page.mouse.move(0, 0)
    assert plot.locator(".tip").is_hidden()


def test_arrow_keys_walk_over_the_scatter(visit, path):
    page = visit(path)
    plot = page.locator("#digits-tsne .plot").first
    places = np.array(plot.locator("script").evaluate("s => JSON.parse(s.textContent).places"))
    at = lambda: int(re.search(r", image (\d+)$", plot.locator("output").inner_text())[1]) - 1  # noqa: E731
    page.locator("#digits-tsne h3").evaluate("h => { h.tabIndex = -1; h.focus(); }")
    page.keyboard.press("Tab")
    assert plot.evaluate("p => p === document.activeElement") and plot.locator(".tip").is_visible() and at() == 0
    page.keyboard.press("PageDown")
    assert at() == 1
    page.keyboard.press("End")
    assert at() == 59
    moved, ratio = 0, (box := plot.bounding_box())["height"] / box["width"]
    for key, way in (("ArrowLeft", (-1, 0)), ("ArrowRight", (1, 0)), ("ArrowUp", (0, -1)), ("ArrowDown", (0, 1))):
        page.keyboard.press("Home")
        page.keyboard.press(key)
        apart = (places - places[0]) * [1, ratio]
        ahead, aside = apart @ way, np.abs(apart @ way[::-1])
        far = np.where((ahead > 0) & (ahead >= aside), np.hypot(*apart.T), np.inf)
        assert at() == (far.argmin() if far.min() < np.inf else 0), key
        moved += at() != 0
    assert moved >= 2
    page.keyboard.press("Tab")
    assert plot.locator(".tip").is_hidden()


def test_two_methods_meet_at_a_border_that_keys_and_pointer_move(visit, path):
    page = visit(path)
    box = page.locator("#digits-saliency .compare")
    box.scroll_into_view_if_needed()
    canvas, (left, right) = box.locator("canvas").first, box.locator("select").all()
    half = pixels(canvas)
    left.select_option("1")
    both = pixels(canvas)  # the same method on both sides
    right.select_option("0")
    swapped = pixels(canvas)
    W = half.shape[1]
    far = slice(W // 2 + 2, None)
    assert np.array_equal(both[:, far], half[:, far]) and not np.array_equal(swapped[:, far], half[:, far])
    assert np.array_equal(both[:, : W // 2 - 2], swapped[:, : W // 2 - 2])
    box.locator("input[type=range]").focus()
    page.keyboard.press("End")
    assert "all classes up to 100 %" in canvas.get_attribute("aria-label")
    full = pixels(canvas)
    assert np.array_equal(full[:, : W // 2 - 2], both[:, : W // 2 - 2])
    assert np.array_equal(full[:, W // 2 + 2 : -2], both[:, W // 2 + 2 : -2])
    area = canvas.bounding_box()
    page.mouse.move(area["x"] + area["width"] * 0.9, area["y"] + 9)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.25, area["y"] + 9)
    page.mouse.up()
    assert "up to 25 %" in canvas.get_attribute("aria-label")
    box.locator("input[type=radio]").first.focus()
    page.keyboard.press("ArrowRight")
    assert box.locator("input[type=radio]").nth(1).is_checked()
    assert canvas.get_attribute("aria-label").startswith(box.locator("fieldset span").nth(1).inner_text())


def test_contents_lead_there_and_mark_where_one_is(visit, path):
    page = visit(path)
    page.locator("nav a[href='#digits-tsne']").click()
    assert page.locator("#h-digits-tsne").bounding_box()["y"] < 200
    page.wait_for_selector("nav a[href='#digits-tsne'][aria-current]")
    phone = visit(path, viewport=PHONE)
    assert phone.locator("nav ol").first.is_hidden()
    phone.locator("nav summary").click()
    phone.locator("nav a[href='#digits-tsne']").click()
    assert phone.locator("nav ol").first.is_hidden() and phone.locator("#h-digits-tsne").bounding_box()["y"] < 200


def test_names_that_look_like_markup_stay_names(visit, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    names = [HOSTILE, "two", "three"]
    more = {
        "points": results.Points(np.array([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]), names, images),
        "comparison": results.Comparison(names, {HOSTILE: images, "other": 255 - images}),
    }
    made = section(tmp_path, HOSTILE, title=HOSTILE, **more)
    report.write(tmp_path / "report.html", [made])
    page = visit(tmp_path / "report.html")
    assert page.evaluate("window.broken === undefined") and page.locator("main b").count() == 0
    page.locator(".plot").focus()
    page.keyboard.press("Home")
    assert page.locator(".plot output").inner_text() == f"{HOSTILE}, image 1"
    assert page.locator("option").nth(3).inner_text() == HOSTILE
    assert HOSTILE in page.locator(".compare canvas").first.get_attribute("aria-label")

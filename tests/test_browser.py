"""The report in a real browser: Chromium, driven by Playwright. Every picture loads, nothing is complained of, and what
a pointer can do a keyboard can do too.
"""

import base64
import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from browsing import MARKS
from PIL import Image
from test_report import section, with_claims

import run_all
from viz import figures
from viz.report import page as report
from viz.report import results
from viz.study.stages import tsne

pytestmark = MARKS
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = "</script><script>window.broken = 1</script> <b>&\"'{{ 1 }}"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The report of a short run on digits."""
    out = tmp_path_factory.mktemp("browser")
    stages = ["maximal_activation_maps", "strongest_maps", "saliency", "tsne", "neighbors"]
    with pytest.MonkeyPatch.context() as m:
        m.setattr(tsne, "POINTS", 60)
        assert run_all.main(["--steps", "4", "--out", str(out), "--only", *stages]) == 0
    return out / "report.html"


@pytest.fixture
def tabbed(tmp_path):
    """A page with one figure, three under tabs, and, far below, another."""
    tile = np.zeros((1, 8, 8, 3), np.uint8)
    named = {"first": "", "x": "g", "y": "g", "z": "g", "last": ""}
    pictures = [results.Picture(n, n, figures.sheet(tile, 1, n), group=g, tab=f"tab {n}") for n, g in named.items()]
    kept = results.keep(tmp_path / "s", pictures, {}, 0.0, "key", "code")
    words = {name: results.Words("A caption.", "", "An alt text.") for name in named}
    made = section(tmp_path / "a")
    chapter = report.Chapter("s", "S", "What it is.", tmp_path / "s", kept, words)
    report.write(tmp_path / "report.html", [replace(made, chapters=(made.chapters[0], chapter))])
    return tmp_path / "report.html"


@pytest.fixture
def visit(chromium):
    """Open a page; at the end of the test, nothing may have been complained of and nothing asked of a network."""
    contexts, complaints = [], []

    def go(path, hash="", script="", **options):
        contexts.append(chromium.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce"} | options))
        contexts[-1].add_init_script(script)
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or complaints.append(r.url))
        page.goto(path.as_uri() + (f"#{hash}" if hash else ""))
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
    assert len(page.query_selector_all("img.picture")) == len(list(path.parent.glob("digits/*/*.png"))) >= 14
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate("[...document.images].every((image) => image.hidden || image.alt.length > 20)")


def test_without_javascript_every_figure_is_seen_and_no_control_that_needs_it(visit, path):
    page = visit(path, java_script_enabled=False)
    figures = page.locator("img.picture")
    assert figures.count() == len(list(path.parent.glob("digits/*/*.png")))
    assert all(figures.nth(i).is_visible() for i in range(figures.count()))
    assert page.locator(":is(.theme, .compare, .sprite, .tools):visible").count() == 0


def test_a_tile_of_a_map_opens_the_networks_own_page_at_that_map(visit, path):
    page = visit(path)
    figure = page.locator("figure:has(.linked)").first
    tile = figure.locator(".linked a").nth(1)
    tile.scroll_into_view_if_needed()
    box, address = tile.bounding_box(), tile.get_attribute("href")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function("Number(document.documentElement.dataset.drawn) > 0")
    there, asked = (dict(p.split("=") for p in url.split("#")[1].split("&")) for url in (page.url, address))
    assert "explorer.html" in page.url and (there["layer"], there["unit"]) == (asked["layer"], asked["unit"])


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
    assert page.locator(".large img").bounding_box()["width"] > 1.5 * small
    assert page.locator(".said").bounding_box()["width"] <= PHONE["width"]  # the words need no scrolling sideways


def test_an_enlarged_figure_keeps_its_caption_and_its_details(visit, path):
    page = visit(path)
    figure = page.locator("#digits-saliency figure")
    figure.locator(".zoom").click()
    said = page.locator(".said")
    caption = figure.locator("figcaption p").first.inner_text()
    assert len(caption) > 20 and said.locator("p").first.inner_text().strip() == caption.removesuffix("#").strip()
    said.locator("summary").click()
    assert said.locator("details p").is_visible() and said.bounding_box()["height"] < 0.3 * DESKTOP["height"]
    assert page.evaluate("document.querySelectorAll('dialog [id]').length") == 1  # its title; no id is there twice


def test_an_enlarged_scatter_shows_the_image_under_the_pointer(visit, path):
    page = visit(path)
    page.locator("#digits-tsne .zoom.small").first.click()
    plot = page.locator(".large .plot")
    data = page.locator("#digits-tsne .plot script").first.evaluate("s => JSON.parse(s.textContent)")
    box = plot.bounding_box()
    for i in (0, 5):
        x, y = data["places"][i]
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        assert plot.locator("output").inner_text() == data["names"][data["classes"][i]]
    assert pixels(plot.locator("canvas")).max() > 150
    plot.focus()
    page.keyboard.press("Home")
    page.keyboard.press("PageDown")
    assert plot.locator("output").inner_text() == data["names"][data["classes"][1]]
    title = page.locator("#large-title").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#large-title").inner_text() == title  # the arrow was the plot's
    page.locator("dialog [data-step='1']").click()
    assert page.locator("#large-title").inner_text() != title and page.locator(".large .plot").count() == 0


def test_a_link_to_a_figure_under_a_tab_opens_it(visit, tabbed):
    page = visit(tabbed)
    x, z, tabs = page.locator("#digits-s-x"), page.locator("#digits-s-z"), page.locator("[role=tab]")

    def there(figure):
        return figure.is_visible() and 0 <= figure.bounding_box()["y"] < DESKTOP["height"]

    assert x.is_visible() and z.is_hidden()
    page.evaluate("location.hash = 'digits-s-z'")
    page.wait_for_function("!document.getElementById('digits-s-z').hidden")
    assert there(z) and x.is_hidden() and tabs.nth(2).get_attribute("aria-selected") == "true"
    tabs.first.click()
    page.evaluate("scrollTo(0, 0)")
    assert z.is_hidden()
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('a'), { href: '#digits-s-z', id: 'more' }))"
    )
    page.evaluate("document.getElementById('more').click()")  # the address is that already, and does not change
    assert there(z)
    assert there(visit(tabbed, hash="digits-s-z").locator("#digits-s-z"))
    assert visit(tabbed, hash="%").locator("#digits-s-x").is_visible()  # a link to nothing does no harm


def test_the_colours_one_chose_are_there_after_a_reload(visit, path):
    page = visit(path, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.select_option(".theme select", "dark")
    page.reload()
    assert page.evaluate(ground) != light and page.locator(".theme select").input_value() == "dark"
    page.select_option(".theme select", "")
    page.reload()
    assert page.evaluate(ground) == light and page.locator(".theme select").input_value() == ""


def test_a_browser_that_keeps_nothing_still_shows_the_page(visit, path):
    page = visit(
        path, color_scheme="light", script="Object.defineProperty(window, 'localStorage', { get() { throw Error() } })"
    )
    page.select_option(".theme select", "dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("#digits-saliency .zoom").click()  # all that follows in the script was done, too
    assert page.locator("dialog").is_visible()


def test_rows_are_full(visit, path):
    page = visit(path)
    rows = page.evaluate("""[...document.querySelectorAll('.row')].map((row) => {
      const cards = [...row.children].map((card) => card.getBoundingClientRect());
      const pictures = [...row.querySelectorAll('.picture')].filter((p) => p.offsetParent);
      return { width: row.getBoundingClientRect().width, cards: cards.map((c) => [c.left, c.right, c.top, c.bottom]),
               heights: pictures.map((p) => p.getBoundingClientRect().height), pair: row.matches('.pair') };
    })""")
    assert sum(row["pair"] for row in rows) >= 2 and sum(not row["pair"] for row in rows) >= 2
    for row in rows:
        left, right, top, bottom = np.array(row["cards"]).T
        gaps = row["width"] - (right - left).sum()
        assert gaps < 40 and np.ptp(top) < 1 and np.ptp(bottom) < 1  # pixels: nothing but the space between two cards
        if row["pair"]:
            assert np.ptp(row["heights"]) < 0.1 * max(row["heights"])  # tabs and borders aside, of one height
    beside = page.locator(".lone figure:not(.compared):visible").first
    picture, words = beside.locator(".picture").bounding_box(), beside.locator("figcaption").bounding_box()
    assert words["x"] >= picture["x"] + picture["width"] and words["y"] < picture["y"] + picture["height"]


def test_on_a_phone_letters_are_large_enough_and_the_figure_scrolls_in_its_frame(visit, path):
    page = visit(path, viewport=PHONE)
    for picture in page.locator(".picture:visible").all():
        box, (natural, frame, inner) = (
            picture.bounding_box(),
            picture.evaluate("p => [p.naturalWidth, p.closest('.frame').clientWidth, p.closest('.frame').scrollWidth]"),
        )
        point = box["width"] / natural * 150 / 72  # pixels of the screen; figures are drawn with 150 dots an inch
        assert 11 * point >= 10 and frame < PHONE["width"] and inner == round(box["width"])
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_claims_are_a_table_on_a_desktop_and_cards_on_a_phone(visit, tmp_path):
    report.write(tmp_path / "report.html", [with_claims(tmp_path)])
    for size, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
        page = visit(tmp_path / "report.html", viewport=size, color_scheme=scheme)
        cells = [c.bounding_box() for c in page.locator(".claims tbody tr").first.locator("td").all()]
        if size is DESKTOP:
            assert len({c["y"] for c in cells}) == 1 and page.locator(".claims thead").is_visible()
        else:
            assert all(a["y"] + a["height"] <= b["y"] for a, b in pairwise(cells))
            assert len({c["x"] for c in cells}) == 1 and "claim" in page.locator(".claims td").first.evaluate(
                "c => getComputedStyle(c, '::before').content"
            )
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.get_by_role("row").filter(has_text="untrained as well").get_by_role("cell").count() == 5
        page.locator("#digits-claims-S1").get_by_role("link", name="Saliency").click()
        assert 0 <= page.locator("#h-digits-saliency").bounding_box()["y"] < 200


CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const under = (part) => {
    for (; part; part = part.parentElement) {
      const color = parse(getComputedStyle(part).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const part = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !part.checkVisibility() || part.matches("script")) continue;
    const [a, b] = [light(parse(getComputedStyle(part).color)), light(under(part))];
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), walker.currentNode.data.trim()]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(visit, tmp_path, scheme):
    """WCAG 2.2, AA: 4.5 to 1."""
    report.write(tmp_path / "report.html", [with_claims(tmp_path)])
    page = visit(tmp_path / "report.html", color_scheme=scheme)
    found = page.evaluate(CONTRAST)
    assert len(found) > 50 and min(found)[0] >= 4.5, min(found)


def test_tabs_show_one_figure_at_a_time_and_arrows_move(visit, tabbed):
    page = visit(tabbed)
    tabs, panels = page.locator("[role=tab]"), page.locator("[role=tabpanel]")
    assert tabs.all_inner_texts() == ["tab x", "tab y", "tab z"] and panels.count() == 3

    def shown():
        return [p.is_visible() for p in panels.all()], [t.get_attribute("aria-selected") == "true" for t in tabs.all()]

    assert shown() == ([True, False, False],) * 2
    tabs.nth(1).click()
    assert shown() == ([False, True, False],) * 2
    for key, chosen in (("ArrowRight", 2), ("ArrowRight", 0), ("ArrowLeft", 2), ("Home", 0), ("End", 2)):
        page.keyboard.press(key)
        assert tabs.nth(chosen).evaluate("t => t === document.activeElement && t.tabIndex === 0")
        assert shown() == ([i == chosen for i in range(3)],) * 2
    for tab, panel in zip(tabs.all(), panels.all()):
        assert tab.get_attribute("aria-controls") == panel.get_attribute("id")


def test_one_figure_alone_has_no_tab(visit, tmp_path):
    tile = np.zeros((1, 8, 8, 3), np.uint8)
    made = section(tmp_path / "a")
    kept = results.keep(
        tmp_path / "s", [results.Picture("x", "x", figures.sheet(tile, 1, "x"), group="g")], {}, 0.0, "", ""
    )
    chapter = report.Chapter("s", "S", "What it is.", tmp_path / "s", kept, {"x": results.Words("A.", "", "An alt.")})
    report.write(tmp_path / "report.html", [replace(made, chapters=(made.chapters[0], chapter))])
    page = visit(tmp_path / "report.html")
    assert page.locator("[role=tab]").count() == 0 and page.locator("#digits-s-x img.picture").is_visible()


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
        assert plot.locator("output").inner_text() == data["names"][data["classes"][i]]
        seen.append(pixels(plot.locator("canvas")))
    assert all(image.max() > 150 for image in seen) and not np.array_equal(seen[0], seen[1])
    page.mouse.move(0, 0)
    assert plot.locator(".tip").is_hidden()


def test_arrow_keys_walk_over_the_scatter(visit, path):
    page = visit(path)
    plot = page.locator("#digits-tsne .plot").first
    data = plot.locator("script").evaluate("s => JSON.parse(s.textContent)")
    places, said = np.array(data["places"]), [data["names"][c] for c in data["classes"]]
    at = lambda: said.index(plot.locator("output").inner_text())  # noqa: E731
    page.locator("#digits-tsne .papers a").last.focus()
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
    last = left.locator("option").count() - 1
    assert (left.input_value(), right.input_value()) == (str(last - 1), str(last))  # what is compared, not the image
    left.select_option("0")
    right.select_option("1")
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
    assert "the answer up to 100 %" in canvas.get_attribute("aria-label")
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


def test_a_table_is_sorted_by_its_heads_and_dashes_stay_last(visit, tmp_path):
    def interval(mean):
        return {"mean": mean, "low": None, "high": None, "n": 3}

    rows = {"a": interval(0.5), "b": interval(None), "c": interval(-2.0), "d": interval(10.0), "e": interval(2000.0)}
    facts = {"scores": {name: {"first": i, "second": 1} for name, i in rows.items()}}
    kept = results.keep(
        tmp_path / "s", [], facts | {results.COSTS: {"a": {"seconds": 1.5}, "b": {"seconds": 2.5}}}, 0.0, "", ""
    )
    made = section(tmp_path / "a")
    chapter = report.Chapter("s", "S", "What it is.", tmp_path / "s", kept, {}, open=True)
    report.write(tmp_path / "report.html", [replace(made, chapters=(made.chapters[0], chapter))])
    page = visit(tmp_path / "report.html")
    table = page.locator("#digits-s details.numbers[open] table").first
    head = table.get_by_role("button", name="first")

    def order():
        return "".join(table.locator("tbody th").all_inner_texts()).lower()

    assert order() == "abcde" and "seconds" in page.locator("#digits-s details.numbers").inner_text()
    for expected, way in (("edacb", "descending"), ("cadeb", "ascending"), ("abcde", "none")):
        head.focus()
        page.keyboard.press("Enter")
        assert order() == expected and table.locator("thead th").first.get_attribute("aria-sort") == way


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
    assert page.locator(".plot output").inner_text() == HOSTILE
    assert page.locator("option").nth(3).inner_text() == HOSTILE
    assert HOSTILE in page.locator(".compare canvas").first.get_attribute("aria-label")

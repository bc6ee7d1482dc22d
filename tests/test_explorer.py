"""The explorer: what it computes in a browser is what the reference computes; what the pointer does, keys do too."""

import base64
import json

import numpy as np
import pytest
from browsing import MARKS
from PIL import Image

from tinycnn import InputError, Network, data, models
from tinycnn.layers import AvgPool2D, BatchNorm, Conv2D, Dense, Flatten, GlobalAvgPool2D, MaxPool2D, Normalize, ReLU
from tinycnn.rules import RULES, UNPOOLS
from viz import activations, explorer
from viz.explorer import export

pytestmark = MARKS
ENGINE = (export.HERE / "engine.js").read_text("utf-8")


@pytest.fixture(scope="module")
def digits():
    images, labels = data.load("digits", "test")
    return images, labels, data.info("digits").classes


def odd_net():
    """Windows that overlap, strides, padding of one side, a convolution without a pool."""
    layers = [
        *(Conv2D("conv1", 6, (3, 5), (2, 1), ((1, 0), (2, 2))), ReLU("relu1"), MaxPool2D("pool1", 3, 2)),
        *(Conv2D("conv2", 5, 3, padding="VALID"), ReLU("relu2"), Conv2D("conv3", 7, 3, 2), ReLU("relu3")),
        *(MaxPool2D("pool3", (2, 3), (2, 1), "SAME"), Flatten("flatten"), Dense("fc", 4)),
    ]
    return Network(layers, (23, 18, 3), backend="reference")


def without_dense():
    """Means over windows and over all, a normalized input, a batch normalization that follows nothing."""
    layers = [
        *(Normalize("input", (0.4, 0.5, 0.6), 0.25), Conv2D("conv1", 6, 3, 2), BatchNorm("norm1"), ReLU("relu1")),
        *(AvgPool2D("mean1", 3, 2, "SAME"), AvgPool2D("mean2", (2, 3), 1, ((1, 0), (1, 1)), count_padding=True)),
        *(BatchNorm("norm2", 1e-5), Conv2D("conv2", 4, 1), ReLU("relu2"), GlobalAvgPool2D("mean")),
    ]
    return Network(layers, (23, 18, 3), backend="reference")


def rounded(net):
    """The network with the weights that its page would hold, in float64, and these."""
    rng = np.random.default_rng(0)
    for p in net.params.values():
        for k in set(p) - {"w"}:
            p[k][...] = (
                rng.uniform(0.5, 1.5, p[k].shape) if k in ("gamma", "variance") else 0.1 * rng.normal(size=p[k].shape)
            )
    weights, whole = export._weights(net)
    assert whole
    exact = Network(net.layers, net.input_shape, backend="reference", dtype="float64")
    for layer in net.layers:
        for k, a in exact.params.get(layer.name, {}).items():
            if isinstance(layer, BatchNorm):  # the page holds a weight and a bias for it
                a[...] = net.params[layer.name][k]
            else:
                one = weights[layer.name][k]
                a[...] = np.frombuffer(base64.b64decode(one["data"]), one["kind"]).reshape(a.shape)
    return exact, weights


@pytest.mark.parametrize("name", ["digits", "shapes", "odd", "without dense"])
def test_every_layer_and_all_nine_ways_back_are_those_of_the_reference(chromium, name):
    if name in data.NAMES:
        net, weights = rounded(models.build(data.info(name).model, "reference", seed=1))
        images = data.load(name, "test")[0][:6] / 255
    else:
        net, weights = rounded(odd_net() if name == "odd" else without_dense())
        rng = np.random.default_rng(0)
        images = rng.random((6, *net.input_shape)) * (rng.random((6, *net.input_shape)) > 0.3)
    maps = [layer for layer in net.layer_names if len(net.shapes[layer]) == 3]
    page = chromium.new_page()
    page.add_script_tag(content=ENGINE + "\nwindow.Engine = Engine;")
    page.evaluate("([layers, weights]) => { window.net = Engine.load(layers, weights, Float64Array); }",
                  [explorer.layers(net), weights])  # fmt: skip
    for n, x in enumerate(images):
        trace = net.forward(x[None])
        found = page.evaluate(
            "(x) => { window.trace = Engine.forward(net, new Float64Array(x));"
            " return Object.fromEntries(Object.entries(trace).map(([name, { y }]) => [name, Array.from(y)])); }",
            x.ravel().tolist(),
        )
        assert set(found) == set(net.layer_names)
        share = 1e-6 if name == "without dense" else 1e-12  # a batch normalization's weight and bias are float32
        for layer in net.layer_names:
            assert close(found[layer], trace[layer], share), layer
        for layer in maps if n == 0 else maps[-1:]:
            unit = int(activations.strongest(trace[layer])[0])
            dy = np.zeros_like(trace[layer])
            dy[..., unit] = trace[layer][..., unit]
            for rule in RULES:
                for unpool in UNPOOLS:
                    back = page.evaluate(
                        "([name, unit, rule, unpool]) => { const layer = net.find((l) => l.name === name);"
                        " return Array.from(Engine.backward(net, trace, Engine.seed(trace, layer, unit), name, rule,"
                        " unpool)); }",
                        [layer, unit, rule, unpool],
                    )
                    assert close(back, net.backward(trace, dy, at=layer, rule=rule, unpool=unpool), share), (
                        layer,
                        rule,
                    )
    page.close()


def close(found, expected, share=1e-12):
    expected = expected.ravel()
    return np.abs(np.array(found) - expected).max() <= share * max(np.abs(expected).max(), 1e-300)


def test_half_precision_is_decoded_as_numpy_does(chromium):
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    page = chromium.new_page()
    page.add_script_tag(content=ENGINE + "\nwindow.Engine = Engine;")
    raw = base64.b64encode(every.tobytes()).decode()
    assert page.evaluate("(raw) => Array.from(Engine.halves(Engine.bytes(raw)))", raw) == every.astype(float).tolist()
    page.close()


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(digits):
    """A network, and the same before: here with other weights."""
    return models.build("mnist", backend="cpu", seed=3), models.build("mnist", backend="cpu", seed=4)


@pytest.fixture(scope="module")
def path(tmp_path_factory, digits, network):
    images, labels, classes = digits
    out = tmp_path_factory.mktemp("explorer") / "explorer.html"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(export, "STEPS", 3)
        explorer.write(out, *network, "Digits </script> & <b>", [f"<i>{c}" for c in classes], images[:60], labels[:60])
    return out


@pytest.fixture
def visit(chromium, path):
    contexts, complaints = [], []

    def go(hash="", **options):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or complaints.append(r.url))
        page.goto(path.as_uri() + hash)
        drawn(page)
        return page

    yield go
    for context in contexts:
        context.close()
    assert not complaints


def drawn(page, after=0):
    page.wait_for_function(f"Number(document.documentElement.dataset.drawn) > {after}")
    return int(page.evaluate("document.documentElement.dataset.drawn"))


def press(page, key):
    before = drawn(page)
    page.keyboard.press(key)
    return drawn(page, before)


def state(page):
    return dict(part.split("=") for part in page.evaluate("location.hash.slice(1)").split("&"))


def test_the_page_shows_what_the_network_says(visit, path, network, digits):
    page = visit("#image=5&layer=relu2&unit=7")
    assert path.stat().st_size < 12e6 and page.locator("#maps button").count() == 64
    net, content = network[0], json.loads(page.locator("#data").inner_text() or page.locator("#data").text_content())
    picked = export._pick(digits[1][:60], 1000)
    image = digits[0][:60][picked][5:6]
    p = np.exp(net.logits(image)[0] - net.logits(image).max())
    p /= p.sum()
    said = page.locator("#named").inner_text()
    assert f"the network says <i>{p.argmax()}, {round(100 * p.max())} %" in said
    assert f"a test image of <i>{content['labels'][5]};" in said
    value = net.forward(image)["relu2"][0, ..., 7].max()
    label = page.locator("#maps button").nth(7).get_attribute("aria-label")
    assert label.startswith("map 7, largest value ") and float(label.split()[-1]) == pytest.approx(value, rel=5e-3)
    assert content["rounding"]["change"] < 0.01 and content["rounding"]["images"] == 60
    assert page.title() == "Look inside: Digits </script> & <b>"


def test_keys_walk_over_maps_layers_rules_and_networks_and_the_address_follows(visit):
    page = visit("#layer=relu1&unit=31")
    for key, name, value in (
        ("ArrowRight", "unit", "0"), ("ArrowLeft", "unit", "31"), ("ArrowDown", "layer", "pool1"),
        ("ArrowUp", "layer", "relu1"), ("r", "rule", "guided"), ("u", "unpool", "repeat"), ("t", "trained", "0"),
        ("n", "image", "1"),
    ):  # fmt: skip
        press(page, key)
        assert state(page)[name] == value, key
    again = visit("#" + page.evaluate("location.hash.slice(1)"))
    assert state(again) == state(page) and not again.locator("#trained").is_checked()


@pytest.mark.parametrize("hash", ["#layer=none&unit=9999&rule=x&image=-1", "#unit=1e9&trained=2&place=zzz", "#%%%=<b>"])
def test_an_address_that_means_nothing_shows_the_first_view(visit, hash):
    page = visit(hash)
    assert state(page)["layer"] == "relu1" and state(page)["unit"] == "0" and state(page)["image"] == "0"


def test_the_untrained_network_answers_by_its_own_weights_and_says_what_it_lacks(visit, network, digits):
    page = visit("#image=0&layer=relu1&unit=2&trained=0")
    image = digits[0][:60][export._pick(digits[1][:60], 1000)][:1]
    value = network[1].forward(image, upto="relu1")["relu1"][0, ..., 2].max()
    label = page.locator("#maps button").nth(2).get_attribute("aria-label")
    assert float(label.split()[-1]) == pytest.approx(value, rel=5e-3)
    assert "trained only" in page.locator("#named").inner_text()
    page.locator("#strip button", has_text="fc2").click()
    page.wait_for_function("document.querySelector('#untrained-note').textContent.includes('convolutions alone')")


def test_pointing_at_a_place_shows_its_arithmetic(visit, network, digits):
    page = visit("#image=0&layer=conv1&unit=4")
    box = page.locator("#chosen").bounding_box()
    page.mouse.move(box["x"] + (10.5 / 28) * box["width"], box["y"] + (8.5 / 28) * box["height"])
    text = page.locator("#sum").inner_text().replace("\u2212", "-")
    image = digits[0][:60][export._pick(digits[1][:60], 1000)][:1]
    value = network[0].forward(image, upto="conv1")["conv1"][0, 8, 10, 4]
    assert text.startswith("Row 8, column 10: the window times the filter, 25 products")
    assert float(text.rstrip(".").split()[-1]) == pytest.approx(value, rel=2e-3, abs=1e-6)
    page.locator("#chosen").focus()
    press(page, "ArrowRight")
    assert "place" in state(page) and state(page)["unit"] == "4"


def test_drawing_erasing_and_restoring_change_the_scores(visit):
    page = visit("#image=0&layer=relu1&unit=0")
    before = page.locator("#scores").inner_text()
    box = page.locator("#image").bounding_box()
    page.locator("#erase").click()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.7 * box["height"], steps=4)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#named').textContent.includes('of your own')")
    changed = page.locator("#scores").inner_text()
    page.locator("#restore").click()
    page.wait_for_function("document.querySelector('#named').textContent.includes('a test image')")
    assert page.locator("#scores").inner_text() == before != changed
    page.locator("#blank").click()
    page.wait_for_function("document.querySelector('#named').textContent.includes('of your own')")


def test_a_photograph_is_taken_and_what_is_none_costs_one_line(visit, tmp_path):
    page = visit()
    Image.fromarray(np.full((50, 80, 3), 200, np.uint8)).save(tmp_path / "photo.png")
    page.set_input_files("#file", tmp_path / "photo.png")
    page.wait_for_function("document.querySelector('#named').textContent.includes('of your own')")
    middle = page.evaluate(
        "Array.from(document.querySelector('#image').getContext('2d').getImageData(3, 3, 1, 1).data)"
    )
    assert middle == pytest.approx([200, 200, 200, 255], abs=2)
    (tmp_path / "no.png").write_bytes(b"no picture")
    page.set_input_files("#file", tmp_path / "no.png")
    page.wait_for_function("document.querySelector('#named').textContent.includes('no.png is no picture')")


def test_an_ascent_in_the_page_raises_its_unit(visit):
    page = visit("#layer=fc2&unit=3")
    page.locator("#ascend").click()
    page.wait_for_function("document.documentElement.dataset.step === '0'")
    first = float(page.locator("#ascent-said").inner_text().rstrip(".").split()[-1])
    page.wait_for_function("document.documentElement.dataset.step === '60'")
    assert float(page.locator("#ascent-said").inner_text().rstrip(".").split()[-1]) > first + 0.1


def test_the_tour_has_five_stops_whose_numbers_are_those_of_the_images(visit, network, digits):
    page = visit()
    images = digits[0][:60][export._pick(digits[1][:60], 1000)]
    said = []
    for _ in range(5):
        before = drawn(page)
        page.locator("#tour-start").click()
        drawn(page, before)
        said.append(page.locator("#tour-said").inner_text())
    wins = [np.bincount(activations.strongest(net.forward(images, upto="relu1")["relu1"])).max() for net in network]
    assert f"strongest for {wins[0]} of 60 images" in said[1] and f"strongest for {wins[1]} of 60." in said[2]
    assert ("not what training" in said[2]) == (wins[1] >= wins[0]) and said[4].startswith("5 of 5.")
    assert state(page)["rule"] == "guided" and state(page)["layer"] == "relu2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_nothing_is_wider_than_the_page_and_maps_are_drawn_in_time(visit, size, scheme):
    page = visit("#layer=relu2", viewport=dict(zip(("width", "height"), size)), color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    took = []
    for key in "nnnnn":
        press(page, key)
        took.append(int(page.evaluate("document.documentElement.dataset.took")))
    print(f"\nfrom the event to drawn maps: {sorted(took)} ms")
    assert page.locator("#maps canvas").first.is_visible()


def test_an_image_is_found_by_its_place_among_all_and_the_first_ones_are_kept(visit, path, digits, network):
    data = json.loads(visit().locator("#data").text_content())
    assert data["indices"] == export._pick(digits[1][:60], 1000).tolist()
    page = visit(f"#test={data['indices'][17]}&layer=relu1")
    assert state(page)["image"] == "17"
    assert state(visit("#test=59999&image=3"))["image"] == "3"
    picked = export._pick(digits[1], 24, first=[200, 7])
    assert picked[:2].tolist() == [200, 7] and len(set(picked)) == 24
    assert set(digits[1][picked]) == set(range(10))


def test_dense_layers_that_are_too_large_stay_out_and_stored_scores_come_along(digits, network, monkeypatch):
    monkeypatch.setattr(export, "LARGEST_DENSE", 1000)
    monkeypatch.setattr(export, "STEPS", 1)
    images, labels, classes = digits
    found = explorer.payload(*network, "Digits", classes, images[:12], labels[:12])
    assert set(found["weights"]) == {"conv1", "conv2"} == set(found["untrained"]) and found["rounding"] is None
    alone = explorer.payload(*network, "Digits", classes, images[:1], labels[:1])  # its ascents are made of pixels
    assert alone["images"]["count"] == 1 and set(alone["ascents"]) == {"conv1", "conv2", "fc2"}
    picked = export._pick(labels[:12], 1000)
    assert np.abs(np.array(found["logits"]) - network[0].logits(images[:12][picked])).max() < 1e-4


def test_a_network_from_elsewhere_has_its_page_too(chromium, tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 256, (8, 23, 18, 3), np.uint8), np.arange(8) % 4
    path = tmp_path / "explorer.html"
    explorer.write(path, without_dense(), None, "Elsewhere", list("abcd"), images, labels)
    page = chromium.new_page()
    page.goto(path.as_uri() + "#trained=0")
    drawn(page)
    assert not page.locator("#trained").is_visible() and state(page)["trained"] == "1"
    for layer in ("input", "mean1", "norm2", "mean"):
        page.goto(path.as_uri() + f"#layer={layer}")
        page.wait_for_function(f"document.querySelector('#layer-name').textContent.startsWith('{layer}:')")
    assert "too large" not in page.inner_text("footer")
    page.close()
    with pytest.raises(InputError, match="no convolution"):
        explorer.write(
            path, Network([Flatten("f"), Dense("d", 4)], (23, 18, 3)), None, "", list("abcd"), images, labels
        )

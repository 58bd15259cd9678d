"""One page about a run: for every kind of run and every state of its folder, and nothing in a file can act in it."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cfgjax.data import DataError
from experiments.config.schema import ADAPTER
from experiments.evaluation import by_scale
from experiments.presets.registry import PRESETS
from experiments.report import svg
from tests.support.browser import BROWSER, Browser
from tests.support.commands import assert_one_line, command

MAGENTA = 255, 0, 255
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>"
KINDS = ["digits", "mixture", "fashion_mnist_classifier", "fashion_mnist_autoencoder", "imagenet256_latent"]
METRICS = {
    "digits": {
        "recogniser_test_accuracy": 0.9375,
        "samples": [
            {"guidance": "classifier-free", "solver": "heun", "scale": 2.0, "recognised": 0.8125, "frechet": 1.23456,
             "by_label": [{"label": 7, "recognised": 0.625}]},
        ],
    },
    "mixture": {"relative_error_by_time": {"t": [0.5], "labelled": [0.0123456]}, "samples": []},
    "fashion_mnist_classifier": {"by_time": [{"t": 1.0, "accuracy": 0.875}]},
    "fashion_mnist_autoencoder": {
        "num_images": 3, "reconstruction": {"rms": 0.125, "psnr": 24.0824}, "latents": [{"channel": 0, "mean": 0.375}],
    },
    "imagenet256_latent": {"samples": []},
}  # fmt: skip
SHOWN = {
    "digits": ["93.8 %", "81.2 %", "1.235", "Class accuracy by requested label: classifier-free, heun", "62.5 %"],
    "mixture": ["Relative error of the field by time", "0.01235"],
    "fashion_mnist_classifier": ["By time", "87.5 %"],
    "fashion_mnist_autoencoder": ["0.125", "24.08", "0.375", "Held-out pictures (upper rows)"],
    "imagenet256_latent": ["samples-classifier-free-heun.npz"],
}


def _png(color, size=(160, 120)):
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "png")
    return stream.getvalue()


def _run_folder(folder, preset, num_rows=20, is_finished=True, **settings):
    """A folder as a run of the preset leaves it, of 20 steps for each line."""
    experiment = dataclasses.replace(PRESETS[preset][1], num_steps=400, **settings)
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(ADAPTER.dump_json(experiment))
    rows = [
        {"step": 20 * n, "loss": 2.0 / n, "grad_norm": 1.0 / n, "learning_rate": 1e-3, "examples_per_second": 9.0 + n}
        for n in range(1, num_rows + 1)
    ]
    lines = [json.dumps(row) for row in rows] + [json.dumps({"step": 20 * num_rows, "held_out_loss": 0.5})]
    (folder / "metrics.jsonl").write_text("\n".join(lines[: num_rows + bool(num_rows)]) + "\n")
    if is_finished:
        (folder / "metrics.json").write_text(json.dumps(METRICS[preset] | {"device": "cpu", "num_devices": 1}))
        (folder / "samples-classifier-free-heun.npz").write_bytes(b"")
        (folder / "samples").mkdir()
        (folder / "samples" / "20.png").write_bytes(_png((0, 255, 255)))
        (folder / "samples.png").write_bytes(_png(MAGENTA))
    return folder


class _Elements(html.parser.HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def _digest(script):
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _page(folder, *arguments):
    done = command("report", folder, *arguments)
    assert done.returncode == 0, done.stderr
    return (folder / "report.html").read_text()


def _assert_inert(page, has_sliders=False):
    """No element runs anything but the page's own script, named by its digest, and none leads out of the page."""
    found = _Elements(page)
    assert {tag for tag, _ in found.elements}.isdisjoint({"iframe", "object", "embed", "link", "base", "a"})
    scripts = [f"'sha256-{_digest(script)}'" for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)]
    assert [attributes for tag, attributes in found.elements if tag == "script"] == [{}] * has_sliders
    assert len(scripts) == has_sliders
    policies = [attributes["content"] for _, attributes in found.elements if "http-equiv" in attributes]
    allowed = "".join(scripts) if has_sliders else "'none'"
    assert [policy.partition("script-src ")[2] for policy in policies] == [allowed]
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attributes)
        if tag == "img":
            assert attributes["alt"]
    for style in re.findall(r"<style>(.*?)</style>", page, re.DOTALL):
        assert "url(" not in style
        assert "@import" not in style
    return found


@pytest.mark.parametrize("preset", KINDS)
def test_every_kind_of_run_has_its_page(preset, tmp_path):
    page = _page(_run_folder(tmp_path / "run", preset))
    found = _assert_inert(page)
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<svg") == 4
    assert page.count("data:image/png;base64,") == 2
    for text in ["finished: 400 steps", "held out 0.5 at step 400", "training 2 at step 20", *SHOWN[preset]]:
        assert text in found.text, text
    assert all(f'<h2 id="{name}">' in page for name in ("curves", "training", "settings", "environment", "commands"))


@pytest.mark.parametrize("num_rows", [0, 3])
def test_an_unfinished_run_has_a_page(num_rows, tmp_path):
    page = _page(_run_folder(tmp_path / "run", "digits", num_rows, is_finished=False))
    assert f"unfinished: step {20 * num_rows} of 400" in page
    assert "Nothing was measured yet" in page
    assert page.count("<svg") == (4 if num_rows else 0)


def test_a_diverged_run_says_where(tmp_path):
    folder = _run_folder(tmp_path / "run", "digits", 3, is_finished=False)
    (folder / "divergence.json").write_text(json.dumps({"step": 61, "in_a_row": 10, "norms": {"params/a": "nan"}}))
    page = _page(folder)
    assert "not finite from step 61 on" in page
    assert "norm of params/a" in page


def test_nothing_that_a_file_says_can_act(tmp_path):
    """Settings, metrics, names, commands: each is shown as the text that it is."""
    folder = _run_folder(tmp_path / "<b onclick=alert(4)>", "digits", data_dir=Path(EVIL))
    plain = {EVIL: 1, "samples": [{"guidance": EVIL, EVIL: EVIL}], "nested": {EVIL: {EVIL: EVIL}}, "list": [EVIL]}
    (folder / "metrics.json").write_text(json.dumps(plain))
    (folder / "divergence.json").write_text(json.dumps({"step": EVIL, "norms": {EVIL: EVIL}}))
    (folder / "starts.jsonl").write_text(
        json.dumps({"step": 1, "time": EVIL, "command": EVIL, "device": EVIL, "versions": {EVIL: EVIL}}) + "\n"
    )
    page = _page(folder)
    found = _assert_inert(page)
    assert found.text.count(EVIL) >= 8
    assert EVIL not in page


def test_what_does_not_read_is_said_and_links_are_not_followed(tmp_path):
    folder = _run_folder(tmp_path / "run", "digits")
    (tmp_path / "secret.png").write_bytes(_png((1, 2, 3)))
    (folder / "samples.png").unlink()
    (folder / "samples.png").symlink_to(tmp_path / "secret.png")
    (folder / "curves.png").write_bytes(b"GIF89a")
    (folder / "metrics.json").write_text("{" * 100_000)
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write(
            '{"step": 1' + "0" * 400 + ', "loss": 1}\n{"step": true, "loss": 7}\n{"st\n' + "[" * 100_000 + "\n"
        )
    page = _page(folder)
    for trouble in ("samples.png is a link that leads out", "curves.png is no picture", "metrics.json does not read"):
        assert trouble in page, trouble
    assert page.count("data:image/png") == 1
    assert "training 2 at step 20, 0.1 at step 400" in page


def test_a_value_that_is_not_finite_is_a_gap(tmp_path):
    rows = [{"step": step, "loss": np.nan if step == 3 else 1.0 / step} for step in range(1, 7)]
    (panel,) = svg.draw(rows, [4])
    assert panel.summary == "training 1 at step 1, 0.1667 at step 6, least 0.1667 at step 6; not finite at 1 of 6."
    lines = [path for path in re.findall(r'<path d="([^"]*)"[^>]*var\(--first\)', panel.svg) if "L" in path]
    assert len(lines) == 1
    assert (lines[0].count("M"), lines[0].count("L")) == (2, 3)


@pytest.mark.parametrize("name", ["metrics.json", "divergence.json", "starts.jsonl"])
def test_what_is_nested_deeply_is_cut(name, tmp_path):
    folder = _run_folder(tmp_path / "run", "digits", 1, is_finished=False)
    (folder / name).write_text('{"step": 1, "norms": ' + '{"deep": ' * 800 + "[]" + "}" * 801 + "\n")
    assert "deep" in _page(folder)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["nowhere"], "no run in nowhere"), (["."], "no run in ."), (["run", "--out", "run"], "out must be a file")],
)
def test_a_mistake_is_one_line(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _run_folder(tmp_path / "run", "digits")
    assert_one_line(command("report", *arguments), expected)


def _seen(page, profile, width, is_dark=False):
    """The pixels of a page in a window, and the titles of its sections."""
    with Browser(profile, width, 3000, is_dark) as browser:
        browser.open(page.as_uri())
        browser.screenshot(profile / "page.png")
        titles = browser.run("[...document.querySelectorAll('h2')].map((each) => each.textContent)")
        assert browser.errors == []
    with Image.open(profile / "page.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int), titles


def _num_of(pixels, color):
    return int(np.sum(np.all(np.abs(pixels - np.asarray(color)) <= 2, axis=-1)))


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: apt-get install chromium")
def test_a_browser_shows_curves_and_pictures_in_light_and_dark_on_a_desk_and_a_phone(tmp_path):
    """The pictures' own colours and those of the curves are on the screen; on a phone nothing reaches the edge."""
    folder = _run_folder(tmp_path / "run", "digits")
    _page(folder)
    page = folder / "report.html"
    light, titles = _seen(page, tmp_path / "light", 1200)
    assert _num_of(light, MAGENTA) >= 0.95 * 160 * 120
    assert _num_of(light, (0, 255, 255)) >= 0.95 * 160 * 120
    assert _num_of(light, (0x12, 0x60, 0xA8)) > 1000
    assert _num_of(light[0], (255, 255, 255)) == 1200
    dark, _ = _seen(page, tmp_path / "dark", 500, is_dark=True)
    assert _num_of(dark, MAGENTA) >= 0.95 * 160 * 120
    assert _num_of(dark, (0x74, 0xB4, 0xF0)) > 500
    assert _num_of(dark[:, -8:], (0x14, 0x18, 0x1D)) == dark[:, -8:].size // 3
    assert _num_of(light, (0x74, 0xB4, 0xF0)) == 0
    assert titles == [
        "Curves", "Samples during training", "Samples and metrics", "Settings", "Environment and versions", "Commands",
    ]  # fmt: skip


COLORS = {0.0: (200, 30, 30), 2.0: (30, 200, 30), 4.0: (30, 30, 200)}
"""Of all pictures at each w."""


def _keep_by_scale(folder, title="classifier-free, ODE (Heun)"):
    """Pictures of one colour for each w, as an evaluation keeps them."""
    colors = np.asarray(list(COLORS.values())).reshape(3, 1, 1, 1, 1, 3) / 127.5 - 1
    by_scale.write(folder, {title: np.broadcast_to(colors, (3, 4, 2, 8, 8, 3))}, [tuple(COLORS)], ["0", "1", "2", "3"])


def test_what_is_kept_by_scale_is_read_again(tmp_path):
    """The first picture of each label, and the first points; latents of four channels are not kept."""
    points = np.random.default_rng(0).normal(size=(2, 3, 200, 2))
    pictures = np.linspace(-1, 1, 2 * 3 * 2 * 16).reshape(2, 3, 2, 4, 4, 1)
    draws = {"latents": np.zeros((2, 3, 1, 4, 4, 4)), "ODE": points, "SDE": pictures}
    by_scale.write(tmp_path, draws, [(1.0, 2.0), (1.0, 2.0), (0.0, 3.0)], ["a", "b", "c"])
    labels, (ode, sde) = by_scale.read(tmp_path / by_scale.NAME, tmp_path)
    assert (labels, ode.title, ode.scales.tolist()) == (["a", "b", "c"], "ODE", [1.0, 2.0])
    np.testing.assert_array_equal(ode.samples, points[:, :, : by_scale.MOST_POINTS].astype(np.float32))
    assert (sde.title, sde.scales.tolist()) == ("SDE", [0.0, 3.0])
    np.testing.assert_allclose(sde.samples / 127.5 - 1, pictures[:, :, 0], atol=1 / 127)


def test_points_lie_where_they_were_sampled(tmp_path):
    """A thousand units reach from the middle to the edge, which is 1.05 of the farthest coordinate; y points up."""
    folder = _run_folder(tmp_path / "run", "mixture")
    points = np.asarray([[[[1.0, -2.0], [0.0, 1.0]]], [[[2.0, 0.0], [0.5, 0.5]]]])
    by_scale.write(folder, {"ODE": points}, [(4.0, 2.0)], ["0"])
    page = _page(folder)
    _assert_inert(page, has_sliders=True)
    frames = re.findall(r'data-scale="([^"]*)"( hidden)?>.*? d="([^"]*)"', page, re.DOTALL)
    assert frames == [("2", "", "M952 0h0M238 -238h0"), ("4", " hidden", "M476 952h0M0 -476h0")]


@pytest.mark.parametrize(
    "arrays",
    [
        {"samples_0": np.zeros((1, 1, 8, 8, 1), np.float32)},
        {"samples_0": np.zeros((2, 1, 8, 8, 1), np.uint8)},
        {"samples_0": np.full((1, 1, 3, 2), np.nan, np.float32)},
        {"samples_0": np.zeros((1, 1, 9, 3), np.float32)},
        {"samples_0": np.zeros((1, 0, 8, 8, 1), np.uint8)},
        {"titles": np.zeros(1)},
    ],
)
def test_other_samples_by_scale_are_refused(arrays, tmp_path):
    rest = {"titles": np.asarray(["ODE"]), "labels": np.asarray(["0"]), "scales_0": np.ones(1)}
    np.savez(tmp_path / by_scale.NAME, **rest | arrays)
    with pytest.raises(DataError, match="holds no samples by guidance scale"):
        by_scale.read(tmp_path / by_scale.NAME, tmp_path)


def test_samples_by_scale_that_do_not_read_are_a_trouble(tmp_path):
    folder = _run_folder(tmp_path / "run", "digits")
    (folder / by_scale.NAME).write_bytes(b"PK")
    page = _page(folder)
    _assert_inert(page)
    assert "by_scale.npz does not read" in page


def test_a_title_cannot_act(tmp_path):
    folder = _run_folder(tmp_path / "run", "digits")
    _keep_by_scale(folder, EVIL)
    found = _assert_inert(_page(folder), has_sliders=True)
    assert EVIL in found.text


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: apt-get install chromium")
def test_a_slider_shows_the_samples_of_its_scale_by_pointer_and_by_keyboard(tmp_path):
    folder = _run_folder(tmp_path / "run", "digits")
    _keep_by_scale(folder)
    _page(folder)

    def seen(browser):
        """The scale that is told, and the share of the frame's pixels that have each scale's colour."""
        box = browser.box(".by-scale .frame:not([hidden])")
        browser.screenshot(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        left, top, width, height = map(round, box)
        frame = pixels[top : top + height, left : left + width]
        shares = [_num_of(frame, color) / (width * height) for color in COLORS.values()]
        told = browser.run("document.querySelector('.by-scale output').textContent")
        assert browser.run("document.querySelector('.by-scale input').getAttribute('aria-valuetext')") == told
        return told, [share > 0.5 for share in shares]

    with Browser(tmp_path / "profile", 390, 900) as browser:
        browser.open((folder / "report.html").as_uri())
        assert seen(browser) == ("w = 2", [False, True, False])
        browser.drag(".by-scale input", 0.5, 0.98)
        assert seen(browser) == ("w = 4", [False, False, True])
        browser.press("ArrowLeft", 2)
        assert seen(browser) == ("w = 0", [True, False, False])
        assert browser.run("document.documentElement.scrollWidth") == 390
        assert browser.errors == []
        assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}

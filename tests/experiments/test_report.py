"""One page about a run: for every kind of run and every state of its folder, and nothing in a file can act in it."""

import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.config.schema import ADAPTER
from experiments.presets.registry import PRESETS
from experiments.report import svg
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


def _page(folder, *arguments):
    done = command("report", folder, *arguments)
    assert done.returncode == 0, done.stderr
    return (folder / "report.html").read_text()


def _assert_inert(page):
    """No element runs anything, and none leads out of the page."""
    found = _Elements(page)
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "iframe", "object", "embed", "link", "base", "a"})
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


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def _browse(page, profile, *options):
    """What a real browser says of a page from its file."""
    arguments = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={profile}", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run([BROWSER, *arguments], capture_output=True, text=True, timeout=120, check=True).stdout


def _seen(page, tmp_path, name, size, *options):
    """The pixels of a page in a window, and the document that the browser made of it."""
    file = tmp_path / f"{name}.png"
    document = _browse(page, tmp_path / name, "--dump-dom", f"--screenshot={file}", f"--window-size={size}", *options)
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).astype(int), document


def _num_of(pixels, color):
    return int(np.sum(np.all(np.abs(pixels - np.asarray(color)) <= 2, axis=-1)))


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: apt-get install chromium")
def test_a_browser_shows_curves_and_pictures_in_light_and_dark_on_a_desk_and_a_phone(tmp_path):
    """The pictures' own colours and those of the curves are on the screen; on a phone nothing reaches the edge."""
    folder = _run_folder(tmp_path / "run", "digits")
    _page(folder)
    page = folder / "report.html"
    light, document = _seen(page, tmp_path, "light", "1200,3000")
    assert _num_of(light, MAGENTA) >= 0.95 * 160 * 120
    assert _num_of(light, (0, 255, 255)) >= 0.95 * 160 * 120
    assert _num_of(light, (0x12, 0x60, 0xA8)) > 1000
    assert _num_of(light[0], (255, 255, 255)) == 1200
    dark, _ = _seen(page, tmp_path, "dark", "500,3000", "--blink-settings=preferredColorScheme=0")
    assert _num_of(dark, MAGENTA) >= 0.95 * 160 * 120
    assert _num_of(dark, (0x74, 0xB4, 0xF0)) > 500
    assert _num_of(dark[:, -8:], (0x14, 0x18, 0x1D)) == dark[:, -8:].size // 3
    assert _num_of(light, (0x74, 0xB4, 0xF0)) == 0
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", document) == [
        "Curves", "Samples during training", "Samples and metrics", "Settings", "Environment and versions", "Commands",
    ]  # fmt: skip

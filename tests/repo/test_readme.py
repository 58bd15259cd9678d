"""The README keeps its word: its examples run, its pictures, modules and badges are true, and it is short."""

import configparser
import re
from functools import cache
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


@cache
def _scope():
    """The names that the Python blocks leave, run from top to bottom as one program."""
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, scope)
    return scope


def test_the_sampling_example_gives_samples_beyond_their_labels_means():
    samples, labels = np.asarray(_scope()["samples"]), np.asarray(_scope()["labels"])
    angles = 2 * np.pi * labels / 8
    outward = np.sum(samples * np.stack([np.cos(angles), np.sin(angles)], axis=-1), axis=-1)
    assert samples.shape == (4096, 2)
    assert outward.mean() > 2.3
    assert np.mean(np.round(np.arctan2(samples[:, 1], samples[:, 0]) * 4 / np.pi) % 8 == labels) > 0.99


def test_the_training_example_takes_one_step_from_the_field_0():
    state, (data, _) = _scope()["state"], _scope()["batch"]
    assert state.step == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    squares = np.sum(np.square(data), axis=-1)  # |z - noise|^2 / 2 has mean |z|^2 / 2 + 1 and variance |z|^2 + 1
    assert abs(_scope()["metrics"]["loss"] - np.mean(squares / 2 + 1)) < 4 * np.sqrt(np.mean(squares + 1) / len(data))


def test_every_file_and_module_it_names_exists():
    named = re.findall(r"`((?:cfgjax|experiments|tests)/[\w/.]+)`", README)
    linked = re.findall(r"\]\(([\w/.]+)\)", README)
    assert len(named) > 8
    assert len(linked) > 15
    for name in named + linked:
        assert (ROOT / name).exists(), name


def test_badges_say_what_the_package_says():
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    jax_versions = re.search(r"^jax>=([\d.]+),<0\.(\d+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    expected = {
        "python": package["options"]["python_requires"].replace(">=", "≥ "),
        "jax": f"{jax_versions[1]} to 0.{int(jax_versions[2]) - 1}",
        "licence": package["metadata"]["license"],
    }
    for name, says in expected.items():
        assert f"![{name} {says}](docs/badges/{name}.svg)" in README
        assert f"<title>{name}: {says}</title>" in (ROOT / "docs" / "badges" / f"{name}.svg").read_text()


def test_it_is_at_most_90_lines_and_6500_bytes():
    assert len(README.splitlines()) <= 90
    assert len(README.encode()) <= 6500

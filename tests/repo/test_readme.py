"""The README keeps its word: its example runs, its picture and modules exist, and it is short."""

import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs_and_its_samples_lie_beyond_their_labels_means():
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    scope: dict = {}
    exec(block.group(1), scope)
    samples, labels = np.asarray(scope["samples"]), np.asarray(scope["labels"])
    angles = 2 * np.pi * labels / 8
    outward = np.sum(samples * np.stack([np.cos(angles), np.sin(angles)], axis=-1), axis=-1)
    assert samples.shape == (4096, 2)
    assert outward.mean() > 2.3
    assert np.mean(np.round(np.arctan2(samples[:, 1], samples[:, 0]) * 4 / np.pi) % 8 == labels) > 0.99


def test_every_file_and_module_it_names_exists():
    for name in re.findall(r"`((?:cfgjax|experiments)/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / name).exists(), name


def test_it_is_at_most_120_lines():
    assert len(README.splitlines()) <= 120

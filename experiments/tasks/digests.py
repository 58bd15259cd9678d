"""Digests of data sets: by them a run knows whether it still has the data that it began on.

A digest is "count:sample:whole". The sample is a sum over at most SAMPLED examples at equal distances, the first and
the last among them, decoded, in their order, with shape and number of labels; of latents over all labels as well. The
whole is a sum over every pixel and label. It is left out of what is not held in memory, which no start reads through.
"""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from cfgjax import data
from experiments.config.schema import Experiment

NAMES = {"data.train_digest": "training", "data.test_digest": "held-out"}
"""The settings that tell of which data a run began, and what those data are called."""
_FIELDS = {name: name.removeprefix("data.") for name in NAMES}
SAMPLED = 1024
_DIGITS = 16


def _sum_of(*parts: Any) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else repr(part).encode())
    return total.hexdigest()[:_DIGITS]


def _rows(count: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, SAMPLED)).round().astype(np.int64)


def of_images(images: data.Images) -> str:
    """The digest of images in memory; 47 MB of them take 0.05 s."""
    pixels, label = images.pixels, images.label.astype(np.int32)
    rows, form = _rows(len(label)), (pixels.shape[1:], images.num_classes)
    return f"{len(label)}:{_sum_of(form, pixels[rows], label[rows])}:{_sum_of(form, pixels, label)}"


def of_split(split: data.Split) -> str:
    """The digest of a split on disk, of which a sample is read."""
    records = split.__getitems__(_rows(len(split)).tolist())
    pixels = np.stack([record["image"] for record in records])
    label = np.asarray([record["label"] for record in records], np.int32)
    return f"{len(split)}:{_sum_of((pixels.shape[1:], split.num_classes), pixels, label)}"


def of_latents(latents: data.Latents) -> str:
    """The digest of latents, of which a sample is read and all labels."""
    count = len(latents.label)
    views, _ = latents.views(_rows(count))
    sample, *others = [array for array in views if array is not None]
    return f"{count}:{_sum_of(sample.shape[1:], sample, np.asarray(latents.label, np.int64), *others)}"


def of_conditioned(images: data.ConditionedImages) -> str:
    """The digest of images in memory with what their columns say of them."""
    rows = _rows(len(images.pixels))
    form = images.pixels.shape[1:], sorted(images.columns), sorted(images.class_names.items())

    def all_of(its: data.ConditionedImages) -> list[Any]:
        return [its.pixels, *(its.columns[name] for name in sorted(its.columns))]

    return f"{len(images.pixels)}:{_sum_of(form, *all_of(images.take(rows)))}:{_sum_of(form, *all_of(images))}"


def may_be_equal(one: str | None, other: str | None) -> bool:
    """Whether two digests may be of the same data: what both tell is the same.

    >>> may_be_equal("60:ab:cd", "60:ab"), may_be_equal("60:ab:cd", "60:ab:ef"), may_be_equal("60:ab", None)
    (True, False, True)
    """
    return one is None or other is None or all(a == b for a, b in zip(one.split(":"), other.split(":"), strict=False))


def _difference(before: str, after: str) -> str:
    old, new = before.split(":")[0], after.split(":")[0]
    return f"{new} examples in the place of {old}" if old != new else f"other contents of the {old} examples"


def recorded(experiment: Experiment) -> dict[str, str | None]:
    """The digests that an experiment has a place for, by their dotted names."""
    return {name: getattr(experiment.data, field) for name, field in _FIELDS.items() if hasattr(experiment.data, field)}


def changed(old: Experiment, new: Experiment) -> str:
    """In what the data of the new experiment are not those that the old one records, in words; else empty."""
    before, after = recorded(old), recorded(new)
    for name in [name for name in before if name in after]:
        one, other = before[name], after[name]
        if one is not None and other is not None and not may_be_equal(one, other):
            where = f"the {NAMES[name]} data in {new.data_dir} are not those that {old.run_dir} began on"
            return f"{where}: {_difference(one, other)}"
    return ""


def with_fuller(old: Experiment, new: Experiment) -> Experiment:
    """The new experiment, with of each digest the fuller one; they agree."""
    before, after = recorded(old), recorded(new)
    best: Any = {_FIELDS[name]: max(before[name], after[name], key=lambda digest: len(digest or "")) for name in after}
    return replace(new, data=replace(new.data, **best))

"""Label dropping: how often, by which draws, and to which label.

Rates and draws are those of (V9) to (V11) of ``draws``; of the rate of each label, or of each group of labels where a
label has few drops, six standard errors are allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY
from cfgjax.contracts import PositiveInt, between, checked
from cfgjax.types import Array, Number
from cfgjax.verify.call_user import mapped, require_finite, require_shape
from cfgjax.verify.draws import CALLS, DRAWS, LOOPED, draw_checks, rate_cause, rate_check, statistics
from cfgjax.verify.reference import Seed
from cfgjax.verify.report import UNKNOWN, Check, Report, at_most, collected


@checked
def label_dropping(
    drop: Callable[[Array, Array], Array],
    rate: Annotated[Number, between(0.01, 0.99)],
    num_classes: PositiveInt,
    is_batched: bool = False,
    seed: Seed = 0,
) -> Report:
    """The report on a function (key, y) -> y that gives the null label with probability ``rate``.

    Checked: what comes out is y or the null label K; the rate, over all and for each label; an independent draw
    for each example; new draws with each key.
    Causes told apart: another label (0, K-1, -1) for the null label; a Bernoulli draw inverted; nothing or all dropped;
    one draw for a batch; a key that is not used.

    Args:
        drop: for ONE example, y []; or with ``is_batched`` for a batch, y [n], with ONE key.
        rate: eta, [].
        num_classes: K, which is the null label.
        is_batched: whether ``drop`` takes a batch.
        seed: chooses the labels and keys.
    """
    limits = "that the loss uses the label that comes out, nor a rate to more than its standard error"
    return collected("verify.label_dropping", _checks(drop, float(rate), num_classes, is_batched, seed), limits)


def _called(drop: Callable[[Array, Array], Array], y: Array, is_batched: bool, seed: int) -> np.ndarray:
    """The outputs for labels [calls, n], each call with one key, or with one for each example."""
    root = jax.random.key(seed, impl=THREEFRY)
    if is_batched:
        keys = jax.random.split(root, len(y))
        return require_finite(require_shape(mapped(drop, keys, y), y.shape[1:]))
    keys = jax.random.split(root, y.size)
    return require_finite(require_shape(mapped(drop, keys, y.reshape(-1), most=LOOPED), ())).reshape(CALLS, -1)


def _checks(
    drop: Callable[[Array, Array], Array], rate: float, null: int, is_batched: bool, seed: int
) -> Iterator[Check]:
    y = jnp.asarray(np.random.default_rng(seed).integers(0, null, size=(CALLS, DRAWS)))
    found = _called(drop, y, is_batched, seed)
    given = np.asarray(y).reshape(-1)[: found.size].reshape(found.shape)
    is_other = (found != given) & (found != null)
    wrong = np.unique(found[is_other])
    yield at_most("share neither y nor the null label", np.mean(is_other), 0.0, lambda: _label_cause(wrong, null))

    drops = np.where(np.isin(given, wrong), np.nan, found != given)
    seen = statistics(drops, rate)

    def cause() -> str:
        return rate_cause(seen.mean, rate, "label")

    yield rate_check(seen, cause)
    rates, errors = _label_rates(drops, given, rate)
    by_label = float(np.max(np.abs(rates - rate) / errors) / np.sqrt(seen.call_factor))
    yield at_most("rate of each label: standard errors", by_label, 6.0, lambda: _each_cause(rates, rate) or cause())
    yield from draw_checks(seen)


def _label_cause(wrong: np.ndarray, null: int) -> str:
    if len(wrong) == 1:
        return f"a dropped label becomes {wrong[0]:g}, and the null label is K = {null}"
    return UNKNOWN


def _groups(num_classes: int, size: int, rate: float) -> int:
    """How many groups of labels have a hundred drops, and as many that are kept: 16 at most."""
    return int(np.clip(size * min(rate, 1 - rate) / 100, 1, min(num_classes, 16)))


def _label_rates(drops: np.ndarray, given: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """The rates of the groups of labels, and their standard errors where the rate is right; ``rate`` where none is."""
    groups = _groups(int(given.max()) + 1, given.size, rate)
    is_known = ~np.isnan(drops)
    group = given[is_known] % groups
    counts = np.bincount(group, minlength=groups)
    rates = np.bincount(group, drops[is_known], groups) / np.maximum(counts, 1)
    return np.where(counts, rates, rate), np.sqrt(rate * (1 - rate) / np.maximum(counts, 1))


def _each_cause(rates: np.ndarray, rate: float) -> str:
    """The words for labels whose rates differ; empty where all are off alike."""
    if np.max(rates) < 1.02 * np.min(rates):
        return ""
    worst = int(np.argmax(np.abs(rates - rate)))
    return f"the rate depends on the label: that of label {worst} is {rates[worst]:.3g}"

"""Label dropping: how often, by which coins, and to which label.

(V9) R calls of n labels. The rate's standard error is that of R n coins, or what the calls' own rates scatter by where
     that is more; allowed are five of them (false alarms under 1e-6).
(V10) With eta as found, the calls' rates have variance eta (1 - eta) / n by one coin an example, and n times it
     by one coin a call. Allowed is a ratio of 2.2: with R = 64 it is chi^2 / 63, above that with probability 1e-7.
(V11) The rates at each of n places in the calls have variance eta (1 - eta) / R by new coins in each call, and R times
     it by the same ones. Allowed is a ratio of 1.6, six standard deviations at eta = 0.01, where it is widest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY, require_between, require_count, require_function
from cfgjax.types import Array, Number
from cfgjax.verify.calling import mapped, require_finite, require_shape
from cfgjax.verify.report import UNKNOWN, Check, Report, at_most, collected

_CALLS, _LABELS = 64, 512


def label_dropping(
    drop: Callable[[Array, Array], Array], rate: Number, num_labels: int, is_batched: bool = False, seed: int = 0
) -> Report:
    """The report on a function (key, y) -> y that gives the null label with probability ``rate``.

    Checked: what comes out is y or the null label K; the rate; one coin for each example; new coins with each key.
    Causes told apart: another label (0, K-1, -1) for the null label; a coin turned round; nothing or all dropped; one
    coin for a batch; a key that is not used.

    Args:
        drop: for ONE example, y []; or with ``is_batched`` for a batch, y [n], with ONE key.
        rate: eta, [], in [0.01, 0.99].
        num_labels: K, which is the null label.
        is_batched: whether ``drop`` takes a batch.
        seed: chooses the labels and keys.

    Raises:
        TypeError, ValueError: no function, a rate outside [0.01, 0.99], a num_labels under 1, no seed.
    """
    require_function("drop", drop)
    require_count("num_labels", num_labels, 1)
    require_count("seed", seed, 0, 2**31 - 1)
    require_between("rate", rate, 0.01, 0.99)
    return collected("verify.label_dropping", _checks(drop, float(rate), num_labels, is_batched, seed))


def _called(drop: Callable[[Array, Array], Array], y: Array, is_batched: bool, seed: int) -> np.ndarray:
    """The outputs for labels [calls, n], each call with one key, or with one for each example."""
    root = jax.random.key(seed, impl=THREEFRY)
    if is_batched:
        keys = jax.random.split(root, len(y))
        return require_finite(require_shape(mapped(drop, keys, y), y.shape[1:]))
    keys = jax.random.split(root, y.size)
    return require_finite(require_shape(mapped(drop, keys, y.reshape(-1), most=4096), ())).reshape(-1, y.shape[1])


def _checks(
    drop: Callable[[Array, Array], Array], rate: float, null: int, is_batched: bool, seed: int
) -> Iterator[Check]:
    y = jnp.asarray(np.random.default_rng(seed).integers(0, null, size=(_CALLS, _LABELS)))
    found = _called(drop, y, is_batched, seed)
    given = np.asarray(y)[: len(found)]
    is_other = (found != given) & (found != null)
    wrong = np.unique(found[is_other])
    yield at_most("share neither y nor the null label", np.mean(is_other), 0.0, lambda: _label_cause(wrong, null))

    drops = np.where(np.isin(given, wrong), np.nan, found != given)
    mean, coin = float(np.nanmean(drops)), rate * (1 - rate)
    by_call, by_place = (_scatter(drops, axis) / max(mean * (1 - mean), 1e-6) for axis in (1, 0))
    allowed = 5 * np.sqrt(max(by_call, 1.0) * coin / np.sum(~np.isnan(drops)))
    yield at_most("rate: difference", abs(mean - rate), allowed, lambda: _rate_cause(mean, rate))
    yield at_most("one coin an example: variance of calls", by_call, 2.2, lambda: _call_cause(by_call))
    yield at_most("new coins with each key: variance of places", by_place, 1.6, lambda: "the key is not used")


def _scatter(drops: np.ndarray, axis: int) -> float:
    """The variance of the rates along an axis, times the number of coins in each (V10)."""
    counts = np.sum(~np.isnan(drops), axis=axis)
    return float(np.var(np.nanmean(drops, axis=axis), ddof=1) * counts.mean())


def _label_cause(wrong: np.ndarray, null: int) -> str:
    if len(wrong) == 1:
        return f"a dropped label becomes {wrong[0]:g}, and the null label is K = {null}"
    return UNKNOWN


def _rate_cause(mean: float, rate: float) -> str:
    if mean in (0.0, 1.0):
        return ("all labels are dropped" if mean else "nothing is dropped") + ", or the key is not used"
    if abs(mean - (1 - rate)) < 0.02:
        return "the coin is turned round: a label is kept with probability eta"
    return f"{UNKNOWN}; it drops {mean:.3g}"


def _call_cause(by_call: float) -> str:
    return "one coin for a batch" if by_call > _LABELS / 3 else UNKNOWN

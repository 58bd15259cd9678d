"""Whole samplers of a batch, from keys and labels to samples, against the law of the labels.

(V12) The moments of each label, whitened, within (V8)'s six standard errors and the bias that the caller allows.
(V13) Calls with different keys: their means of the whitened samples scatter by 1/n if the n samples of a call are
     independent, and by up to n times that if they share a key. With C calls and D axes the ratio is chi^2 of
     (C - 1) D over itself; allowed is 3, beyond 1e-6 for 28 degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY, require_count
from cfgjax.contracts import NonNegative, checked
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array
from cfgjax.verify.call_user import format_error, require_finite, require_shape
from cfgjax.verify.reference import Moments, Oracle, Seed, law_allowed, law_error, moments, whitened
from cfgjax.verify.report import CallError, Check, Report, at_most, collected, likely_cause

_CALLS = 16


@checked
def samples(
    draw: Callable[[Array, Array], Array],
    mixture: Oracle,
    bias: NonNegative = 0.02,
    num_samples: int = 4096,
    seed: Seed = 0,
) -> Report:
    """The report on a sampler of a whole batch, (key, y [n]) -> [n, D], at w = 1, by ODE or SDE, in any framework.

    It is called as it is, 16 times with different keys, and may be written for batches and without JAX's
    transformations. Checked: mean and covariance for each label, samples independent of each other, and new ones with
    each key. Causes told apart: labels ignored or shifted; the sign; noise that was not moved; one variance missing or
    too many in every direction; one key for the batch, or for all calls.

    The moments are allowed ``bias`` and six standard errors: with three labels in all 0.077, so that deviations 5 % too
    large (a variance of 1.1025) fail with a probability of 0.995, as does a mean that is a tenth of a deviation off. A
    sampler of few steps has a bias of its own, which ``bias`` must allow: 16 Euler steps 0.1. A pass shows no moment
    beyond the second, nor other scales than w = 1.

    Args:
        draw: the sampler, of ONE key and the labels of a batch.
        mixture: the law that the labels' samples should have.
        bias: [], what the whitened moments may be wrong by for finite steps, or for learning.
        num_samples: n, in each call.
        seed: chooses the keys.

    Raises:
        TypeError, ValueError: fewer than two samples of each label.
    """
    require_count("num_samples", num_samples, 2 * mixture.num_classes)
    limits = f"moments beyond the second, an error of them under {float(bias):g}, or scales other than w = 1"
    return collected("verify.samples", _checks(draw, mixture, float(bias), num_samples, seed), limits)


def _called(draw: Callable[[Array, Array], Array], y: Array, dimension: int, seed: int) -> np.ndarray:
    """All calls' samples, [calls, n, D]."""
    try:
        keys = jax.random.split(jax.random.key(seed, impl=THREEFRY), _CALLS)
        found = [np.asarray(draw(key, y), np.float64) for key in keys]
    except Exception as error:
        raise CallError(format_error(error)) from None
    for values in found:
        if values.shape[:1] != y.shape:
            raise CallError(f"gives the shape {values.shape} for {len(y)} labels and data of shape ({dimension},)")
        require_finite(require_shape(values, (dimension,)))
    return np.stack(found)


def _checks(
    draw: Callable[[Array, Array], Array], mixture: LabelledMixture, bias: float, num_samples: int, seed: int
) -> Iterator[Check]:
    labels = np.arange(num_samples) % mixture.num_classes
    found = _called(draw, jnp.asarray(labels), mixture.means.shape[-1], seed)
    everything, every_label = found.reshape(-1, found.shape[-1]), np.tile(labels, _CALLS)
    repeated, ratio = float(np.mean(np.ptp(found, axis=0) == 0)), _scatter_of_calls(found, labels)
    alike = _share_alike(found[0], labels)
    keys = (
        at_most("share that no key changes", repeated, 0.0, lambda: "the key is not used: every call is the same"),
        at_most("share alike in a call", alike, 0.0, lambda: "one key for the batch: a label's samples are identical"),
        at_most("independent samples: variance of calls", ratio, 3.0, lambda: "samples of a call share their noise"),
    )
    shared = [check.cause for check in keys if not check.is_passed]

    def cause() -> str:
        error_of = partial(_law_error, everything, every_label)
        laws = _laws(mixture) | _with_other_variance(mixture, everything, every_label)
        words = likely_cause(error_of, partial(moments, mixture), laws, bias + law_allowed(every_label))
        return shared[0] if shared else words

    error, allowed = law_error(partial(moments, mixture), everything, every_label), bias + law_allowed(every_label)
    yield at_most("mean and covariance by label", error, allowed, cause)
    yield from keys


def _law_error(found: np.ndarray, labels: np.ndarray, moments_of: Moments) -> float:
    return law_error(moments_of, found, labels)


def _laws(mixture: LabelledMixture) -> dict[str, Moments]:
    """What known mistakes give for the moments of a label."""
    null, of = mixture.num_classes, partial(moments, mixture)
    dimension = mixture.means.shape[-1]
    return {
        "labels are ignored: every label has the law of all data": lambda y: of(null),
        "labels are shifted by one: y - 1 for y": lambda y: of((y - 1) % null),
        "labels are shifted by one: y + 1 for y": lambda y: of((y + 1) % null),
        "the sign is wrong: the samples are -x": lambda y: (-of(y)[0], of(y)[1]),
        "the samples are still noise": lambda y: (np.zeros(dimension), np.eye(dimension)),
    }


def _with_other_variance(mixture: LabelledMixture, found: np.ndarray, labels: np.ndarray) -> dict[str, Moments]:
    """The laws of the labels with one variance less in every direction, or more, the one that fits best."""
    size, known = found.shape[-1], {int(y): moments(mixture, int(y)) for y in np.unique(labels)}
    missing = [np.trace(covariance - np.cov(found[labels == y].T)) / size for y, (_, covariance) in known.items()]
    variance = float(np.mean(missing))
    laws = {y: (mean, covariance - variance * np.eye(size)) for y, (mean, covariance) in known.items()}
    if any(np.linalg.eigvalsh(covariance).min() <= 0 for _, covariance in laws.values()):
        return {}
    words = (
        f"a variance of {variance:.2g} is missing"
        if variance > 0
        else f"there is a variance of {-variance:.2g} too many"
    )
    return {f"{words} in every direction, as of noise in the last steps": laws.__getitem__}


def _share_alike(found: np.ndarray, labels: np.ndarray) -> float:
    """The share of a call's samples that are equal to another one of the same label."""
    rows = np.concatenate([labels.reshape(-1, 1), found], axis=1)
    return 1 - len(np.unique(rows, axis=0)) / len(rows)


def _scatter_of_calls(found: np.ndarray, labels: np.ndarray) -> float:
    """n times the variance of the calls' means, each label's samples whitened by their own moments (V13)."""
    white = np.zeros_like(found)
    for y in np.unique(labels):
        rows = found[:, labels == y]
        flat = rows.reshape(-1, rows.shape[-1])
        covariance = np.cov(flat.T).reshape(flat.shape[1], flat.shape[1]) + 1e-12 * np.eye(flat.shape[1])
        white[:, labels == y] = whitened(flat, flat.mean(axis=0), covariance).reshape(rows.shape)
    return float(white.mean(axis=1).var(axis=0, ddof=1).mean() * found.shape[1])

"""Solvers of the SDE dX = [u + sigma^2 s / 2] dt + sigma dW, against the oracle: each step, and the law at the end.

(V6) One step of length h from many copies of a state: the mean of (x' - x) / h is the drift, the variance over h is
     sigma^2, both to O(h). They are compared with the formulas over 12 conditions (x, t, y) and three sigma, relative
     to their size. A mean of M draws has the sampling variance q = sigma^2 / (h M): the sum of q is taken off the
     squared error, and six standard deviations of it, 6 sqrt(2 sum of q^2), are allowed beside the O(h). The variance
     has a sampling error of 0.016, and 0.15 is allowed.
(V7) Four steps over the same h have the variance of one where their noises are independent, and four times it where
     they are one.
(V8) At w = 1 the end has the label's law for every sigma. Whitened by the exact moments, n ends have means with the
     standard error 1/sqrt(n) and covariances with sqrt(2/n) at most. Allowed are six of the latter, and the bias of 48
     steps; a false alarm has a probability under 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY, require_function
from cfgjax.guidance import given
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Field, GaussianPath, Number, Schedule
from cfgjax.verify.calling import require_finite, require_shape, running, swept
from cfgjax.verify.drifts import LENGTH, STRENGTHS, StepLaw
from cfgjax.verify.problem import STRAIGHT, law_allowed, law_error, moments, require_problem, skewed_mixture, states
from cfgjax.verify.report import UNKNOWN, Check, Report, at_most, collected, likely_cause

MakeSolver = Callable[[GaussianPath, Field, Schedule], Any]
"""``(path, field, diffusion) -> Solver``, as ``solvers.euler_maruyama``; or to a function (key, x, ts) -> x."""

_TIMES = (0.2, 0.5, 0.8)
_STATES, _DRAWS = 4, 1024
_ENDS, _STEPS = 3072, 48
_BIAS = 0.1
"""What the moments of the end may be wrong by for the length of 48 steps: Euler-Maruyama's are by 0.07 at most."""

_DRIFT, _VARIANCE = 0.1, 0.15
"""The relative errors allowed over a step of finite length: rules of several stages differ by O(h)."""


def diffusion(
    make_solver: MakeSolver,
    path: GaussianPath | None = None,
    mixture: LabelledMixture | None = None,
    seed: int = 0,
) -> Report:
    """The report on a stochastic solver, on the oracle's labelled field with sigma_t = c sqrt(2 beta_t), three c.

    Checked: the drift u + sigma^2 s / 2 and the variance sigma^2 of a step (V6), independent noise from step to step
    (V7) and from key to key, and mean and covariance of each label at the end for each c (V8). Causes told apart:
    beta, or sigma for sigma^2, or another power, used for sigma; a missing or second factor 1/2 in the drift; the
    score's sign; the score left out; -E for s; the field left out or turned; sqrt(h) missing or h for it; noise left
    out; a key that is not used; one key for all steps.

    Args:
        make_solver: of (path, field, diffusion) it makes a ``Solver``, or a function (key, x [D], ts [n + 1]) -> x
            that does all steps of ONE example; it must pass jax.jit and jax.vmap, for thousands of draws.
        path: the path of the oracle's field; None for the straight one.
        mixture: the oracle; None for one of three labels in 2-D.
        seed: chooses states and keys.

    Raises:
        TypeError, ValueError: no function, path or mixture, no seed.
    """
    require_function("make_solver", make_solver)
    require_problem(path, mixture, seed)
    path, mixture = path or STRAIGHT, mixture or skewed_mixture()
    field = jax.jit(mixture.vector_field(path))

    def run(strength: Number, key: Array, x: Array, y: Array, ts: Array) -> Array:
        solver = make_solver(path, given(field, y), lambda t: strength * jnp.sqrt(2 * path.beta(t)))
        return running(solver)(key, x, ts)

    return collected("verify.diffusion", _checks(_Problem(path, mixture, run, seed)))


class _Problem(NamedTuple):
    """The solver with its oracle, and ``run``: (strength, key, x, y, ts) -> x."""

    path: GaussianPath
    mixture: LabelledMixture
    run: Callable[..., Array]
    seed: int


class _Steps(NamedTuple):
    """What a step does from C conditions (x, t, y): means of (x' - x) / h and variances over h, [strengths, C, D]."""

    drift: np.ndarray
    variance: np.ndarray
    num_draws: int


def _conditions(problem: _Problem) -> tuple[Array, Array, Array]:
    times = np.tile(np.asarray(_TIMES), _STATES)
    x = states(problem.mixture, problem.path, times, problem.seed)
    return x, jnp.asarray(times, x.dtype), jnp.arange(len(times)) // len(_TIMES) % problem.mixture.num_labels


def _stepped(problem: _Problem, num_steps: int, num_draws: int) -> _Steps:
    """Draws of steps over one length h from each condition (V6); draws change slowest."""
    x, t, y = _conditions(problem)
    num = len(t)
    keys = jax.random.split(jax.random.key(problem.seed + num_steps, impl=THREEFRY), num * num_draws)

    def moved(strength: Number, key: Array, row: Array) -> Array:
        ts = t[row % num] + LENGTH * jnp.linspace(0.0, 1.0, num_steps + 1)
        return problem.run(strength, key, x[row % num], y[row % num], ts)

    found = swept(moved, STRENGTHS, keys, jnp.arange(len(keys)), most=0)
    for values in found:
        require_finite(require_shape(values, x.shape[1:]))
    draws = found.reshape(len(STRENGTHS), -1, *x.shape) - np.asarray(x, np.float64)
    return _Steps(draws.mean(axis=1) / LENGTH, draws.var(axis=1) / LENGTH, draws.shape[1])


def _sampling(steps: _Steps, exact: StepLaw) -> np.ndarray:
    """The sampling variance of each mean (V6)."""
    return np.maximum(steps.variance, exact.variance) / (LENGTH * steps.num_draws)


def _drift_error(steps: _Steps, exact: StepLaw, expected: np.ndarray) -> float:
    """The relative error of the drift, without the sampling error's expected share (V6)."""
    square = np.sum((steps.drift - expected) ** 2) - np.sum(_sampling(steps, exact))
    return float(np.sqrt(max(square, 0) / np.sum(expected**2)))


def _drift_allowed(steps: _Steps, exact: StepLaw) -> float:
    scatter = 6 * np.sqrt(2 * np.sum(_sampling(steps, exact) ** 2)) / np.sum(exact.drift**2)
    return float(np.sqrt(_DRIFT**2 + scatter))


def _by_time(values: np.ndarray) -> np.ndarray:
    """The mean over states and coordinates: [strengths, times]."""
    return values.reshape(len(values), _STATES, len(_TIMES), -1).mean(axis=(1, 3))


def _variance_error(steps: _Steps, expected: np.ndarray) -> float:
    return float(np.max(np.abs(_by_time(steps.variance) / _by_time(expected) - 1)))


def _noise_cause(steps: _Steps, exact: StepLaw) -> str:
    if np.max(_by_time(steps.variance) / _by_time(exact.variance)) > 1e-6:
        return likely_cause(lambda other: _variance_error(steps, other), exact.variance, exact.variances(), _VARIANCE)
    noise = (steps.drift - exact.drift) * np.sqrt(LENGTH) / exact.diffusion
    shared = noise.mean(axis=(0, 1))
    if np.sqrt(np.mean((noise - shared) ** 2)) < 0.3 * np.sqrt(np.mean(shared**2)):
        return "the key is not used: one noise is shared by all samples"
    return "no noise is added"


def _drift_cause(steps: _Steps, exact: StepLaw) -> str:
    words = likely_cause(
        lambda other: _drift_error(steps, exact, other), exact.drift, exact.drifts(), _drift_allowed(steps, exact)
    )
    noise = _noise_cause(steps, exact)
    return noise if words == UNKNOWN and noise.startswith("the key") else words


def _independence(one: _Steps, four: _Steps) -> tuple[float, str]:
    """|variance of four steps / variance of one - 1| (V7), and the cause where it is not small."""
    before = _by_time(one.variance)
    if not np.all(before > 0):
        return 0.0, ""
    ratio = float(np.mean(_by_time(four.variance) / before))
    if abs(ratio / 4 - 1) < 0.2:
        return abs(ratio - 1), "one key for all steps: every step adds the same noise"
    return abs(ratio - 1), "noise is added in one step alone" if abs(ratio * 4 - 1) < 0.2 else UNKNOWN


def _checks(problem: _Problem) -> Iterator[Check]:
    exact = StepLaw(problem.path, problem.mixture, *_conditions(problem))
    one, four = _stepped(problem, 1, _DRAWS), _stepped(problem, 4, _DRAWS // 2)
    error, allowed = _drift_error(one, exact, exact.drift), _drift_allowed(one, exact)
    scatter = _variance_error(one, exact.variance)
    steps = [
        at_most("drift u + sigma^2 s / 2", error, allowed, lambda: _drift_cause(one, exact)),
        at_most("variance sigma^2", scatter, _VARIANCE, lambda: _noise_cause(one, exact)),
    ]
    apart, words = _independence(one, four)
    words = words if steps[1].is_passed else steps[1].cause
    steps.append(at_most("independent steps: variance ratio - 1", apart, 0.5, lambda: words))
    yield from steps
    causes = list(dict.fromkeys(check.cause for check in steps if not check.is_passed)) or [UNKNOWN]
    for strength, (error, allowed) in zip(STRENGTHS, _laws(problem), strict=True):
        yield at_most(f"law at the end, c = {strength:g}", error, allowed, lambda: "; ".join(causes))


def _laws(problem: _Problem) -> list[tuple[float, float]]:
    """For each strength the largest error of the whitened moments, and what is allowed (V8)."""
    num_labels = min(problem.mixture.num_labels, 3)
    labels = np.arange(_ENDS) % num_labels
    keys = jax.random.split(jax.random.key(problem.seed + 100, impl=THREEFRY), (2, _ENDS))
    ts = jnp.linspace(0.0, 1.0, _STEPS + 1)
    dimension = problem.mixture.means.shape[-1]

    def end(strength: Number, start: Array, key: Array, y: Array) -> Array:
        return problem.run(strength, key, jax.random.normal(start, (dimension,)), y, ts)

    found = swept(end, STRENGTHS, keys[0], keys[1], jnp.asarray(labels), most=0)
    laws = []
    for values in found:
        require_finite(values)
        error = law_error(partial(moments, problem.mixture), values, labels)
        laws.append((error, law_allowed(labels) + _BIAS))
    return laws

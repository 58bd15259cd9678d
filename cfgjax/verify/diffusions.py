"""Solvers of the SDE dX = [u + sigma^2 s / 2] dt + sigma dW, against the oracle: each step, and the law at the end.

(V6) One step of length h from many copies of a state: the mean of (x' - x) / h is the drift, the variance over h is
     sigma^2, both to O(h). They are compared with the formulas over 15 conditions (x, t, y) and three sigma, relative
     to their size at each t. All conditions have the same keys, so that a solver's noise is the same in them: its mean,
     a multiple of sigma for each coordinate, is taken off by regression. What is left is estimated by the product of
     two halves of the draws, whose expectation has no noise; their difference says how much noise there is, and nine
     times its share is allowed. M draws of D axes give the variance to sqrt(2 / (M D)), and six of these are allowed.
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

from cfgjax.checks import THREEFRY
from cfgjax.contracts import checked
from cfgjax.guidance import given
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Field, GaussianPath, Number, Schedule
from cfgjax.verify.call_user import require_finite, require_shape, running, swept
from cfgjax.verify.reference import STRAIGHT, Oracle, Seed, law_allowed, law_error, moments, skewed_mixture, states
from cfgjax.verify.report import UNKNOWN, Check, Report, at_most, collected, likely_cause
from cfgjax.verify.sde_bugs import LENGTH, STRENGTHS, StepLaw

MakeSolver = Callable[[GaussianPath, Field, Schedule], Any]
"""``(path, field, diffusion) -> Solver``, as ``solvers.euler_maruyama``; or to a function (key, x, ts) -> x."""

_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
_STATES, _DRAWS, _FEW = 3, 16384, 512
_ENDS, _STEPS = 3072, 48
_BIAS = 0.1
"""What the moments of the end may be wrong by for the length of 48 steps: Euler-Maruyama's are by 0.07 at most."""

_DRIFT, _VARIANCE = 0.01, 0.005
"""The relative errors allowed over a step of finite length: rules of several stages differ by O(h)."""


@checked
def diffusion(
    make_solver: MakeSolver,
    path: GaussianPath | None = None,
    mixture: Oracle | None = None,
    seed: Seed = 0,
) -> Report:
    """The report on a stochastic solver, on the oracle's labelled field with sigma_t = c sqrt(2 beta_t), three c.

    Checked: the drift u + sigma^2 s / 2 and the variance sigma^2 of a step (V6), independent noise from step to step
    (V7) and from key to key, and mean and covariance of each label at the end for each c (V8). Causes told apart:
    beta, or sigma for sigma^2, or another power, used for sigma; a missing or second factor 1/2 in the drift; the
    score's sign; the score left out; -E for s; the field left out or turned; sqrt(h) missing or h for it; noise left
    out; a key that is not used; one key for all steps.

    A pass shows the first step at t = 0.1, 0.3, 0.5, 0.7 and 0.9: a drift, or its score's part, or a sigma that is 5 %
    off at one of them fails (if the noise is drawn from the key alone, as usual; else a drift must be 90 % off).
    Later steps are seen by the laws at the end alone, which are allowed 0.37: this many draws of whole runs would cost
    a hundred times more to see 5 % there.

    Args:
        make_solver: of (path, field, diffusion) it makes a ``Solver``, or a function (key, x [D], ts [n + 1]) -> x
            that does all steps of ONE example; it must pass jax.jit and jax.vmap, for thousands of draws.
        path: the path of the oracle's field; None for the straight one.
        mixture: the oracle; None for one of three labels in 2-D.
        seed: chooses states and keys.
    """
    path, mixture = path or STRAIGHT, mixture or skewed_mixture()
    field = jax.jit(mixture.vector_field(path))

    def run(strength: Number, key: Array, x: Array, y: Array, ts: Array) -> Array:
        solver = make_solver(path, given(field, y), lambda t: strength * jnp.sqrt(2 * path.beta(t)))
        return running(solver)(key, x, ts)

    limits = "an error of under a third in a law at the end, so what goes wrong in later or longer steps alone"
    return collected("verify.diffusion", _checks(_Problem(path, mixture, run, seed)), limits)


class _Problem(NamedTuple):
    """The solver with its oracle, and ``run``: (strength, key, x, y, ts) -> x."""

    path: GaussianPath
    mixture: LabelledMixture
    run: Callable[..., Array]
    seed: int


class _Steps(NamedTuple):
    """What a step does from C conditions (x, t, y): means of (x' - x) / h in halves of the draws, and variances over h.

    The means are [2, strengths, C, D], the variances [strengths, C, D].
    """

    halves: np.ndarray
    variance: np.ndarray
    num_draws: int

    @property
    def drift(self) -> np.ndarray:
        """The means of all draws."""
        return self.halves.mean(axis=0)

    @property
    def allowed_variance(self) -> float:
        """The relative error of a variance that is allowed (V6)."""
        return _VARIANCE + 6 * float(np.sqrt(2 / (self.num_draws * self.variance.shape[-1])))


def _conditions(problem: _Problem) -> tuple[Array, Array, Array]:
    times = np.tile(np.asarray(_TIMES), _STATES)
    x = states(problem.mixture, problem.path, times, problem.seed)
    return x, jnp.asarray(times, x.dtype), jnp.arange(len(times)) // len(_TIMES) % problem.mixture.num_classes


def _stepped(problem: _Problem, num_steps: int, num_draws: int) -> _Steps:
    """Draws of steps over one length h from each condition (V6); draws change slowest."""
    x, t, y = _conditions(problem)
    num = len(t)
    keys = jax.random.split(jax.random.key(problem.seed + num_steps, impl=THREEFRY), num_draws)
    keys = jnp.repeat(keys, num)

    def moved(strength: Number, key: Array, row: Array) -> Array:
        ts = t[row % num] + LENGTH * jnp.linspace(0.0, 1.0, num_steps + 1)
        return problem.run(strength, key, x[row % num], y[row % num], ts)

    found = swept(moved, STRENGTHS, keys, jnp.arange(len(keys)), most=0)
    for values in found:
        require_finite(require_shape(values, x.shape[1:]))
    draws = found.reshape(len(STRENGTHS), 2, num_draws // 2, *x.shape) - np.asarray(x, np.float64)
    halves = np.moveaxis(draws.mean(axis=2), 1, 0) / LENGTH
    return _Steps(halves, draws.var(axis=(1, 2)) / LENGTH, num_draws)


def _each_time(values: np.ndarray) -> np.ndarray:
    """Values [..., C, D] as [..., states, times, D]."""
    return values.reshape(*values.shape[:-2], _STATES, len(_TIMES), values.shape[-1])


def _left(steps: _Steps, exact: StepLaw, expected: np.ndarray) -> np.ndarray:
    """The halves' drifts less the expected one and their noise (V6), [2, strengths, states, times, D]."""
    error, size = _each_time(steps.halves - expected), _each_time(exact.diffusion)
    over = (-4, -3)
    share = np.sum(size * error, axis=over, keepdims=True) / np.sum(size**2, axis=(0, 1))
    return error - share * size


def _drift_error(steps: _Steps, exact: StepLaw, expected: np.ndarray) -> float:
    """The relative error of the drift, the largest over the times (V6)."""
    first, second = _left(steps, exact, expected)
    over = (0, 1, 3)
    squares = np.sum(first * second, axis=over) / np.sum(_each_time(expected) ** 2, axis=over)
    return float(np.sqrt(max(np.max(squares), 0)))


def _drift_allowed(steps: _Steps, exact: StepLaw) -> float:
    first, second = _left(steps, exact, exact.drift)
    over = (0, 1, 3)
    noise = np.mean((first - second) ** 2, axis=over) / 2
    scatter = 9 * noise * np.sqrt(first.size / len(_TIMES)) / np.sum(_each_time(exact.drift) ** 2, axis=over)
    return float(np.sqrt(_DRIFT**2 + np.max(scatter)))


def _by_time(values: np.ndarray) -> np.ndarray:
    """The mean over states and coordinates: [strengths, times]."""
    return values.reshape(len(values), _STATES, len(_TIMES), -1).mean(axis=(1, 3))


def _variance_error(steps: _Steps, expected: np.ndarray) -> float:
    return float(np.max(np.abs(_by_time(steps.variance) / _by_time(expected) - 1)))


def _noise_cause(steps: _Steps, exact: StepLaw) -> str:
    if np.max(_by_time(steps.variance) / _by_time(exact.variance)) > 1e-6:
        error_of = partial(_variance_error, steps)
        return likely_cause(error_of, exact.variance, exact.variances(), steps.allowed_variance)
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
    one, four = _stepped(problem, 1, _DRAWS), _stepped(problem, 4, _FEW)
    error, allowed = _drift_error(one, exact, exact.drift), _drift_allowed(one, exact)
    scatter = _variance_error(one, exact.variance)
    steps = [
        at_most("drift u + sigma^2 s / 2", error, allowed, lambda: _drift_cause(one, exact)),
        at_most("variance sigma^2", scatter, one.allowed_variance, lambda: _noise_cause(one, exact)),
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
    num_classes = min(problem.mixture.num_classes, 3)
    labels = np.arange(_ENDS) % num_classes
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

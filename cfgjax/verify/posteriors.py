"""Methods that steer by a measurement, against the exact posterior of the oracle.

(V31) Each start is a draw of p_t(x|m) at t = 0.001, so what a method adds there does not count. On one Gaussian the
      starts have that law's mean and covariance exactly; a field that is affine then gives those of its ends exactly,
      without any error of sampling, and 0.001 of a posterior standard deviation is allowed for 100 steps.
(V32) Where draws are looked at, a row allows twice the largest that 64 sets of as many exact draws are off by: under
      normal errors a false alarm has a probability under 1e-5.
(V34) A mistake agrees where what it adds to the field, at states of p_t(x|m), is what the method adds. Of a solver that
      is (x' - x) / h - u over a step of h = 0.001.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import mixtures
from cfgjax.checks import THREEFRY
from cfgjax.contracts import checked
from cfgjax.guidance import given
from cfgjax.mixtures import LabelledMixture
from cfgjax.piecewise import Piecewise
from cfgjax.solvers import integrate, rk4
from cfgjax.steering import operators
from cfgjax.types import Array, Field, GaussianPath, Measurement, Solver
from cfgjax.verify.call_user import format_error, mapped, require_shape
from cfgjax.verify.posterior_bugs import DPS, RIGHT, Problem, corrections
from cfgjax.verify.posterior_laws import Law, exact_draws, law_of, names_of
from cfgjax.verify.reference import STRAIGHT, Oracle, Seed, labelled_data, moments, states, whitened
from cfgjax.verify.report import UNKNOWN, CallError, Check, Report, at_most, collected, likely_cause

Method = Callable[[GaussianPath, Field, Measurement], Any]
"""``(path, field, measurement) -> Field``, as ``steering.mmps``; or to a Solver, as ``steering.daps`` makes one."""

NOISES = (0.05, 0.2, 1.0)
_PER_NOISE, _SETS = 2, 64
_DRAWS, _FEW = 2048, 256
"""Draws for each measurement; and of fields on one Gaussian, whose moments are exact by few."""
_STEPS, _START = 100, 1e-3
_EXACT = 1e-3
"""The error allowed (V31) of a field on one Gaussian."""
_BIAS = 0.1
"""What 100 steps of a solver with noise of its own may add to the errors of moments."""
_TIMES, _COMPARED, _SHORT = (0.1, 0.3, 0.5, 0.7, 0.9), 8, 1e-3
"""Times, states at each, and a step of solvers, that mistakes are compared on (V34)."""
_TOLERANCE = 0.05
"""The largest error of a mistake that agrees."""


@checked
def posterior(
    method: Method, path: GaussianPath | None = None, mixture: Oracle | None = None, seed: Seed = 0
) -> Report:
    """The report on a method that claims to draw from p(z|m) of a linear measurement m = A z + s n, s = .05, .2 and 1.

    Checked for each noise s, over two values m of an A of about half the rank (V31 to V33): the mean's bias in
    posterior standard deviations, the covariance's relative one, how many draws the regions of 50 % and 90 % hold, and
    on a mixture the modes' weights. By default on one round Gaussian of standard deviation 0.8, where a method of
    second moments is exact, with its prior variance 0.64 if it asks for one; on a mixture such methods are biased, and
    the rows say by how much.

    Causes told apart, of fields and of solvers without noise: the correction's sign; a factor 2, 1/2 or any other, as
    w is where one side alone is corrected and guidance comes after; A V A^T missing, as in DPS; the prior's covariance,
    or that of a prior of variance 1, for V; sigma for sigma^2; the Jacobian missing; the residual of the noisy x, or of
    x / alpha; A for A^T; measured and missing exchanged; alpha, beta or b_t missing; no correction at all.

    A pass of a field on one Gaussian shows mean and covariance to 0.001; else an error under the row's allowance is not
    seen. Of a mixture with one component it may be any Gaussian.

    Args:
        method: (path, field (x [D], t []) -> [D], measurement) -> a field like it, which is then solved by ``rk4``, or
            a ``Solver``. It must pass jax.jit and jax.vmap, over measurements, too: for thousands of draws.
        path: the path; None for the straight one.
        mixture: the law of z, all labels together; None for one Gaussian in 3-D.
        seed: chooses A, the measured points and the draws.
    """
    problem = _Problem(method, path or STRAIGHT, mixture or _round_gaussian(), seed)
    limits = f"noise other than {', '.join(map(str, NOISES))}, other measurements, or coarser steps than {_STEPS}"
    return collected("verify.posterior", _checks(problem), limits)


def _round_gaussian() -> LabelledMixture:
    return LabelledMixture(jnp.ones(1), jnp.asarray([[0.5, -0.8, 0.3]]), 0.64 * jnp.expand_dims(jnp.eye(3), 0))


class _Problem(NamedTuple):
    method: Method
    path: GaussianPath
    mixture: LabelledMixture
    seed: int

    @property
    def is_gaussian(self) -> bool:
        """Whether there is one component alone."""
        return self.mixture.weights.size == 1

    def field(self) -> Field:
        """The exact field of all labels together."""
        return given(self.mixture.vector_field(self.path), self.mixture.num_classes)

    def measurements(self) -> Problem:
        """Two measurements for each noise, by one A of half the rank, neither symmetric nor regular."""
        rng, dimension = np.random.default_rng(self.seed), self.mixture.means.shape[-1]
        (left, _), (right, _) = (np.linalg.qr(rng.normal(size=(dimension, dimension))) for _ in range(2))
        rank = (dimension + 1) // 2
        matrix = (left[:, :rank] * np.linspace(1, 0.7, rank)) @ right[:, :rank].T
        noise = np.repeat(NOISES, _PER_NOISE)
        z = np.asarray(labelled_data(self.mixture, len(noise), self.seed)[0], np.float64)
        value = z @ matrix.T + np.expand_dims(noise, -1) * rng.normal(size=z.shape)
        rows = np.broadcast_to(matrix, (len(noise), dimension, dimension)), value, noise
        return Problem(*(jnp.asarray(each, jnp.result_type(float)) for each in rows))


def as_measurement(problem: Problem) -> Measurement:
    """The library's record of one measurement."""
    return Measurement(operators.matrix(problem.matrix), problem.value, problem.noise_std)


def _is_solver(problem: _Problem, measurement: Measurement) -> bool:
    """Whether the method makes a Solver, not a field.

    Raises:
        CallError: it makes neither, or raises.
    """
    try:
        built = problem.method(problem.path, problem.field(), measurement)
    except Exception as error:
        raise CallError(format_error(error)) from None
    first = built.pieces[0] if isinstance(built, Piecewise) else built
    if not isinstance(first, Solver) and not callable(first):
        raise CallError(f"makes {type(built).__name__}, neither a field (x, t) -> like x nor a Solver")
    return isinstance(first, Solver)


class _Found(NamedTuple):
    """The ends of a method's draws with their starts, [problems, n, D], and the laws that they should have."""

    problems: Problem
    laws: list[Law]
    starts: Array
    ends: np.ndarray
    is_solver: bool


def _times() -> Array:
    """Times from the start to 1, denser at both ends."""
    share = jnp.linspace(0.0, 1.0, _STEPS + 1)
    return jnp.minimum(_START + (1 - _START) * share**2 * (3 - 2 * share), 1.0).at[-1].set(1.0)


def _starts(problem: _Problem, laws: list[Law], size: int) -> Array:
    """Draws of p_t(x|m) at the first time, [problems, n, D]; on one Gaussian with its exact moments (V31)."""
    alpha, beta = (float(part(jnp.asarray(_START))) for part in (problem.path.alpha, problem.path.beta))
    rng, rows = np.random.default_rng(problem.seed + 1), []
    for index, law in enumerate(laws):
        z = exact_draws(law.posterior, size, problem.seed + 100 + index)
        x = alpha * z + beta * rng.normal(size=z.shape)
        if problem.is_gaussian:
            white = whitened(x, x.mean(axis=0), np.cov(x.T, bias=True).reshape(z.shape[1], -1))
            root = np.linalg.cholesky(alpha**2 * law.covariance + beta**2 * np.eye(z.shape[1]))
            x = alpha * law.mean + white @ root.T
        rows.append(x)
    return jnp.asarray(np.stack(rows), jnp.result_type(float))


def _solved(problem: _Problem) -> _Found:
    problems, ts = problem.measurements(), _times()
    rows = [Problem(*(leaf[index] for leaf in problems)) for index in range(len(problems.noise_std))]
    laws = [law_of(mixtures.posterior(problem.mixture, as_measurement(row)), problem.seed) for row in rows]
    is_solver, field = _is_solver(problem, as_measurement(rows[0])), problem.field()
    size = _FEW if problem.is_gaussian and not is_solver else _DRAWS
    starts = _starts(problem, laws, size)

    def end(measured: Problem, key: Array, x: Array) -> Array:
        built = problem.method(problem.path, field, as_measurement(measured))
        return integrate(built if is_solver else rk4(built), key, x, ts)

    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, size, axis=0), problems)
    keys = jax.random.split(jax.random.key(problem.seed, impl=THREEFRY), len(rows) * size)
    dimension = starts.shape[-1:]
    ends = require_shape(mapped(end, repeated, keys, starts.reshape(-1, *dimension), most=0), dimension)
    return _Found(problems, laws, starts, ends.reshape(starts.shape), is_solver)


def _checks(problem: _Problem) -> Iterator[Check]:
    found = _solved(problem)
    if not np.isfinite(found.ends).all(axis=-1).any():
        raise CallError("gives NaN or inf for all examples")
    errors = np.stack([law.errors(ends) for law, ends in zip(found.laws, found.ends, strict=True)])
    cause = cache(lambda: _cause(problem, found))
    by_noise = errors.reshape(len(NOISES), _PER_NOISE, -1).max(axis=1)
    allowed = _allowed(problem, found).reshape(len(NOISES), _PER_NOISE, -1).max(axis=1)
    for column, name in enumerate(names_of(problem.mixture.weights.size)):
        for row, noise in enumerate(NOISES):
            yield at_most(f"{name}, noise {noise:g}", by_noise[row, column], allowed[row, column], cause)


def _allowed(problem: _Problem, found: _Found) -> np.ndarray:
    """What each row may be off by (V31, V32), [problems, rows]."""
    floors, size = [], found.starts.shape[1]
    for index, law in enumerate(found.laws):
        sets = exact_draws(law.posterior, _SETS * size, problem.seed + 200 + index).reshape(_SETS, size, -1)
        floors.append(2 * np.max([law.errors(each) for each in sets], axis=0))
    allowed = np.stack(floors)
    if found.is_solver:
        allowed[:, :2] += _BIAS
    elif problem.is_gaussian:
        allowed[:, :2] = _EXACT
    return allowed


def _states(problem: _Problem, laws: list[Law]) -> tuple[Array, Array]:
    """States of p_t(x|m) at times inside (0, 1), [problems, n, D] and [problems, n]."""
    times = np.repeat(_TIMES, _COMPARED)
    rows = [states(law.posterior, problem.path, times, problem.seed + 300 + index) for index, law in enumerate(laws)]
    x = jnp.stack(rows)
    return x, jnp.broadcast_to(jnp.asarray(times, x.dtype), x.shape[:2])


def _velocities(problem: _Problem, found: _Found, x: Array, t: Array) -> np.ndarray:
    """The field that acts at states, of a solver its first step's average over a short time."""
    field, key = problem.field(), jax.random.key(problem.seed, impl=THREEFRY)

    def velocity(measured: Problem, x: Array, t: Array) -> Array:
        built = problem.method(problem.path, field, as_measurement(measured))
        if not found.is_solver:
            return built(x, t)
        return (integrate(built, key, x, t + jnp.asarray([0.0, _SHORT], t.dtype)) - x) / _SHORT

    rows = jax.tree.map(lambda leaf: jnp.repeat(leaf, x.shape[1], axis=0), found.problems)
    return mapped(velocity, rows, x.reshape(-1, x.shape[-1]), t.reshape(-1), most=0).reshape(x.shape)


class _Added(NamedTuple):
    """What is added to the field at states [problems, n, D]: by the method, by the exact posterior's field."""

    found: np.ndarray
    exact: np.ndarray

    def error(self, expected: np.ndarray) -> float:
        """The mean over measurements and times of |found - expected| / |expected|, each 1 at most."""
        parts = (self.found - expected, expected, self.exact)
        shape = (len(expected), len(_TIMES), -1)
        wrong, right, least = (np.linalg.norm(part.reshape(shape), axis=-1) for part in parts)
        errors = wrong / np.maximum(np.maximum(right, 1e-2 * least), 1e-30)
        return float(np.mean(np.minimum(np.nan_to_num(errors, nan=1.0), 1.0)))


def _cause(problem: _Problem, found: _Found) -> str:
    """The mistake that adds to the field what was found to be added (V34)."""
    x, t = _states(problem, found.laws)
    null = np.asarray(jax.vmap(jax.vmap(problem.field()))(x, t), np.float64)
    steered = jnp.stack(
        [_exact_field(problem.path, law.posterior, *row) for law, *row in zip(found.laws, x, t, strict=True)]
    )
    added = _Added(_velocities(problem, found, x, t) - null, np.asarray(steered, np.float64) - null)
    prior = moments(problem.mixture, problem.mixture.num_classes)[1]
    known = corrections(problem.path, problem.mixture, prior, found.problems, x, t)
    scaled = {RIGHT: known.pop(RIGHT), DPS: known[DPS]}
    if not problem.is_gaussian:
        known["p(z|x) is taken for a Gaussian, which is exact on one Gaussian alone"] = scaled[RIGHT]
    words = likely_cause(added.error, added.exact, known, _TOLERANCE)
    return words if words != UNKNOWN else _factor_cause(added, scaled)


@partial(jax.jit, static_argnames="path")
def _exact_field(path: GaussianPath, posterior: LabelledMixture, x: Array, t: Array) -> Array:
    return jax.vmap(given(posterior.vector_field(path), posterior.num_classes))(x, t)


def _factor_cause(added: _Added, known: dict[str, np.ndarray]) -> str:
    """The factor of a correction that acts, where there is one, in words."""
    for name, values in known.items():
        size = np.linalg.norm(values, axis=(1, 2), keepdims=True)
        factor = float(np.vdot(values / size, added.found / size) / len(values))
        acting = f"the correction acts {factor:.3g} times: its scale is another, or one side alone is corrected"
        words = acting if name == RIGHT else f"{acting}; {name}"
        cause = likely_cause(added.error, added.exact, {words: factor * values}, _TOLERANCE)
        if cause != UNKNOWN:
            return cause
    return UNKNOWN

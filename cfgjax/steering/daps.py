"""Decoupled annealing: each step draws a whole data point by the measurement, and makes it noisy anew.

``alpha``, ``beta`` are the path's at the step's start t and a prime marks its end.

(A1) From x at t an estimate z^ of the data point: the end of the field's ODE, or the denoiser.
(A2) A draw z of  N(z; z^, V I) p(m|z),  1 / V = (alpha / beta)^2 + 1 / S.  The paper has S = infinity.
(A3) x' = alpha' z + beta' noise.
(A4) If x has the law p_t(x|m), and z that of p(z|x, m), then x' has p_t'(x|m) whatever the step's length. So all of
     the bias lies in N(z; z^, V) in place of p(z|x). For ONE normal law of variance S in every direction they are
     equal where z^ is the denoiser: no bias at all. The ODE's end lies further from the mean, beta = 1 being the worst.
(A5) Langevin steps for (A2):  z <- z + h grad [log p(m|z) - |z - z^|^2 / (2 V)] + sqrt(2 h) noise,  from z^. In a
     direction where the precision of (A2) is q, n of them leave (1 - h q)^n of the distance to its mean, and the
     variance  [1 - (1 - h q)^(2n)] / (q - h q^2 / 2).  They diverge for h > 2 / q.
(A6) For linear measurements (A2) exactly:  z = z_0 + (c I + A^T A)^+ A^T (m + s n - A z_0),  c = s^2 / V,  z_0 a draw
     of N(z^, V I).

Source: Zhang et al., arXiv 2407.01521, algorithm 1, where alpha is 1 and V = beta^2.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfgjax.checks import THREEFRY, require_like, require_scalar
from cfgjax.contracts import Positive, PositiveInt, PositiveOrInf, StateField, checked
from cfgjax.paths import as_float, as_state, as_time, noise_like
from cfgjax.solvers import euler
from cfgjax.solvers.langevin import NumCorrections
from cfgjax.steering.inner import solved
from cfgjax.steering.measurements import AnyMeasurement, apply
from cfgjax.steering.normal_equations import least_squares
from cfgjax.types import Array, Field, GaussianPath, LogLikelihoodOfData, Number, Schedule, Solver, State

Refinement = Callable[[Array, Array, Array], Array]
"""``(key, estimate [*D], t []) -> [*D]``: a draw of a data point by its estimate at t and by what is measured."""


def _precision(path: GaussianPath, t: Array, prior_variance: Number) -> Array:
    """1 / V of (A2), []."""
    return jnp.square(path.alpha(t) / path.beta(t)) + 1 / as_float(prior_variance)


@checked
def relative_langevin_step(
    path: GaussianPath, likelihood_std: Positive, ratio: Positive = 0.1, prior_variance: PositiveOrInf = jnp.inf
) -> Schedule:
    """The step size h = r / (1 / V + 1 / s^2) of (A5) for a likelihood of standard deviation s = ``likelihood_std``.

    It leaves a relative error of the variance of about r / 2, and with |A| <= 1 is stable for r < 2.
    """
    return lambda t: ratio / (_precision(path, t, prior_variance) + 1 / jnp.square(as_float(likelihood_std)))


@checked
def langevin_refinement(
    path: GaussianPath,
    log_likelihood: LogLikelihoodOfData,
    step_size: Schedule,
    num_langevin: NumCorrections = 100,
    prior_variance: PositiveOrInf = jnp.inf,
) -> Refinement:
    """The Langevin steps (A5), each of one gradient of the log-likelihood and none of the field.

    Args:
        path: the path.
        log_likelihood: log p(m|z) as a function of the data point, as ``steering.log_likelihood(measurement)`` is.
        step_size: h as a function of t, as ``relative_langevin_step`` is; the paper's falls linearly to a hundredth.
        num_langevin: how many steps; a traced number is one trace, too.
        prior_variance: [], S of (A2); infinity is the paper's V = (beta / alpha)^2.
    """

    def value(z: Array) -> Array:
        found = log_likelihood(z)
        require_scalar("log_likelihood(z)", found)
        return found

    def refine(key: Array, estimate: Array, t: Array) -> Array:
        h, center, precision = step_size(t), as_float(estimate), _precision(path, t, prior_variance)
        require_scalar("step_size(t)", h)

        def langevin(index: Array, z: Array) -> Array:
            noise = noise_like(jax.random.fold_in(key, index), z)
            slope = jax.grad(value)(z) + precision * (center - z)
            return (z + h * slope + jnp.sqrt(2 * h) * noise).astype(z.dtype)

        return jax.lax.fori_loop(0, num_langevin, langevin, center)

    return refine


@checked
def gaussian_refinement(path: GaussianPath, measurement: AnyMeasurement, prior_variance: Positive = 1.0) -> Refinement:
    """The exact draw (A6) for a linear measurement, whose noise may be 0, without any evaluation of the field.

    Args:
        path: the path.
        measurement: of a data point.
        prior_variance: [], S of (A2), finite: at t = 0 nothing else bounds what is not measured.

    Raises:
        ValueError: at a step, a value that is not like A z.
    """

    def refine(key: Array, estimate: Array, t: Array) -> Array:
        prior_key, value_key = jax.random.split(key)
        center, precision = as_float(estimate), _precision(path, t, prior_variance)
        z = center + noise_like(prior_key, center) / jnp.sqrt(precision)
        value = as_float(measurement.value)
        error = value + measurement.noise_std * noise_like(value_key, value) - apply(measurement, z)
        return z + least_squares(measurement, error, z, jnp.square(measurement.noise_std) * precision)

    return refine


@checked
def decoupled_annealing(path: GaussianPath, estimate: StateField, refinement: Refinement) -> Solver:
    """The stochastic solver whose step is (A1) to (A3) for any estimate and any refinement of it.

    Args:
        path: the path.
        estimate: z^ of (A1) as a function of (x, t): ``conversions.denoiser_of(path, field)``, one evaluation a step,
            or ``ode_estimate(field)``.
        refinement: the draw (A2): ``gaussian_refinement`` or ``langevin_refinement``. The grid must increase.

    Source: Zhang et al., arXiv 2407.01521, algorithm 1.

    Raises:
        TypeError, ValueError: at a step, a refinement that is not like x.
    """

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        refined_key, noise_key = jax.random.split(key)
        x = carry.x
        z = require_like("refinement", refinement(refined_key, estimate(x, t), t), x)
        return State((path.alpha(t_next) * z + path.beta(t_next) * noise_like(noise_key, x)).astype(x.dtype))

    return Solver(init=State, step=step, is_forward_only=True)


@checked
def ode_estimate(
    field: StateField, make_solver: Callable[[Field], Solver] = euler, num_inner_steps: PositiveInt = 5
) -> Field:
    """The end of the field's ODE from (x, t) to t = 1, as a function of (x, t), in even steps.

    Of a piecewise field each evaluation is of the piece at its own time.

    Args:
        field: the vector field, guided or not.
        make_solver: the rule for one field.
        num_inner_steps: of that rule.

    Raises:
        TypeError: a ``make_solver`` that makes no solver.
    """
    key = jax.random.key(0, impl=THREEFRY)
    return lambda x, t: solved(make_solver, field, key, as_state(x), as_time(t), num_inner_steps)


@checked
def daps(
    path: GaussianPath,
    field: StateField,
    log_likelihood: LogLikelihoodOfData,
    step_size: Schedule,
    make_solver: Callable[[Field], Solver] = euler,
    num_inner_steps: PositiveInt = 5,
    num_langevin: NumCorrections = 100,
    prior_variance: PositiveOrInf = jnp.inf,
) -> Solver:
    """Decoupled annealing posterior sampling: (A1) by an ODE, (A2) by Langevin steps, (A3).

    A step costs ``num_inner_steps`` of the inner solver and ``num_langevin`` gradients of the log-likelihood, for which
    the field is not differentiated. It is biased, (A4), and keeps no marginals where nothing is measured.

    Args:
        path: the path of the field.
        field: the vector field, guided or not, or a piecewise one.
        log_likelihood: log p(m|z) as a function of the data point, or any reward of it.
        step_size: h of (A5) as a function of t.
        make_solver: the inner rule for one field.
        num_inner_steps: of it, in each step.
        num_langevin: Langevin steps in each step.
        prior_variance: [], S of (A2). The grid must increase.

    Source: Zhang et al., arXiv 2407.01521, algorithm 1.

    Raises:
        TypeError: a ``make_solver`` that makes no solver.
    """
    refinement = langevin_refinement(path, log_likelihood, step_size, num_langevin, prior_variance)
    return decoupled_annealing(path, ode_estimate(field, make_solver, num_inner_steps), refinement)

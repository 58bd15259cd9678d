"""GLASS: stochastic steps of any correlation, each drawn by an ODE of the same field, without training.

``alpha``, ``beta`` are the path's at the step's start, a prime marks its end, and e is new noise.

(G1) With x = alpha z + beta noise, x' = alpha' z + beta' noise' and noise, noise' of correlation rho, given z and x
     x' = (alpha' - g alpha) z + g x + beta' sqrt(1 - rho^2) e,   g = rho beta' / beta.
     With z of p(z|x) that is a draw of p(x'|x): it keeps the path's marginals for every rho, in steps of any length.
(G2) It is drawn along  y_s = A z + G x + B e,  s from 0 to 1:  A = s (alpha' - g alpha),  G = s g,  B linear between
     B_0 and beta' sqrt(1 - rho^2). Then dy/ds = A_1 D* + G_1 x + (B_1 - B_0) (y - G x - A D*) / B,  D* = E[z | x, y_s].
(G3) x and y_s are two normal measurements of z, of independent noises: as one of  h z + beta B noise,  h^2 =
     (alpha B)^2 + (A beta)^2,  namely  (alpha B / h) B x + (A beta / h) beta (y - G x).  Scaled to the time t* of this
     ratio it is a state of the path, at which the field tells D*.
(G4) B_0 = |(B_1, A_1 r)| with r = beta / |(alpha, beta)|, the deviation of z given x for data of variance 1: noise of
     about the spread of x', so that it need not shrink far. Linear: where D* does not change one Euler step is exact.

Nothing is divided by alpha, beta' or rho; B is 0 only at s = 1 of a step to t = 1, where no solver calls a field.

Source: Holderrieth et al., arXiv 2509.25170; the inner schedules are this module's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import BELOW_ONE, is_traced, require_between, require_function, require_scalar
from cfgjax.contracts import Contract, PositiveInt, StateField, between, checked
from cfgjax.conversions import from_field, regular_time, time_at
from cfgjax.paths import before_end, coefficients, noise_like
from cfgjax.piecewise import piecewise
from cfgjax.solvers import heun
from cfgjax.steering.inner import solved
from cfgjax.types import Array, Field, GaussianPath, Number, Solver, State

Correlation = Callable[[Array, Array], Array]
"""``(t [], t_next []) -> []``: the correlation of the noises of two states, in [0, 1)."""

_PROBES = ((0.0, 0.5), (0.25, 0.5), (0.5, 0.75), (0.5, 1.0))


def _require_correlation(name: str, correlation: Any) -> None:
    require_function(name, correlation)
    for t, t_next in _PROBES:
        with jax.ensure_compile_time_eval():
            value = correlation(jnp.asarray(t, jnp.result_type(float)), jnp.asarray(t_next, jnp.result_type(float)))
        require_scalar(f"{name}(t, t_next)", value)
        if not is_traced(value):
            require_between(f"{name}({t}, {t_next})", np.asarray(value), 0, BELOW_ONE)


AnyCorrelation = Annotated[Correlation, Contract(_require_correlation)]
"""A function of (t, t_next) that gives one number, in [0, 1) where concrete."""


@checked
def markov_correlation(path: GaussianPath) -> Correlation:
    """rho = alpha beta' / (alpha' beta): x is x' made noisier, the Markov chain of DDPM.

    It is 0 in a step from t = 0 and in one to t = 1.

    Source: Ho et al., arXiv 2006.11239, equation 7.
    """

    def correlation(t: Array, t_next: Array) -> Array:
        return path.alpha(t) * path.beta(t_next) / (path.alpha(t_next) * path.beta(t))

    return correlation


@checked
def constant_correlation(value: Annotated[Number, between(0, BELOW_ONE)]) -> Correlation:
    """The same correlation for every step; at 0 each step draws z of p(z|x) and adds new noise.

    >>> float(constant_correlation(0.5)(0.0, 0.5))
    0.5
    """
    return lambda t, t_next: jnp.asarray(value, jnp.result_type(float))


class _Transition(NamedTuple):
    """What (G1) to (G3) need of one step: alpha, beta, A_1, G_1, B_1 and B_0, and the least t*."""

    alpha: Array
    beta: Array
    of_data: Array
    of_state: Array
    std: Array
    first_std: Array
    least_time: Array


def _transition(path: GaussianPath, correlation: Correlation, t: Array, t_next: Array) -> _Transition:
    rho, alpha, beta = correlation(t, t_next), path.alpha(t), path.beta(t)
    of_state = rho * path.beta(t_next) / beta
    of_data = path.alpha(t_next) - of_state * alpha
    std = path.beta(t_next) * jnp.sqrt((1 - rho) * (1 + rho))
    first_std = jnp.hypot(std, of_data * beta / jnp.hypot(alpha, beta))
    return _Transition(alpha, beta, of_data, of_state, std, first_std, regular_time(path, jnp.zeros_like(t)))


def _denoised(path: GaussianPath, field: Field, c: _Transition, x: Array, rest: Array, a: Array, b: Array) -> Array:
    """D* of (G3) for y - G x = ``rest`` with A = ``a`` and B = ``b``, [*D]."""
    signal, noise = jnp.hypot(c.alpha * b, a * c.beta), c.beta * b
    is_known = signal > 0
    of_state = jnp.where(is_known, c.alpha * b / jnp.where(is_known, signal, 1), 1)
    of_rest = jnp.where(is_known, a * c.beta / jnp.where(is_known, signal, 1), 0)
    joint = of_state * b * x + of_rest * c.beta * rest
    time = jnp.maximum(before_end(time_at(path, signal, noise)), c.least_time)
    then = coefficients(path, time)
    scale = jnp.hypot(then.alpha, then.beta) / jnp.hypot(signal, noise)
    state = (scale * joint).astype(x.dtype)
    return from_field(path, field(state, time), state, time).denoiser


def _velocity(path: GaussianPath, field: Field, c: _Transition, x: Array) -> Field:
    """dy/ds of (G2), as a function (y, s)."""

    def velocity(y: Array, s: Array) -> Array:
        a, b = s * c.of_data, c.first_std + s * (c.std - c.first_std)
        rest = y - s * c.of_state * x
        denoised = _denoised(path, field, c, x, rest, a, b)
        noise = (rest - a * denoised) / b
        return (c.of_data * denoised + c.of_state * x + (c.std - c.first_std) * noise).astype(x.dtype)

    return velocity


@piecewise
@checked
def glass(
    path: GaussianPath,
    field: StateField,
    correlation: AnyCorrelation,
    make_solver: Callable[[Field], Solver] = heun,
    num_steps: PositiveInt = 8,
) -> Solver:
    """The stochastic solver whose step is a draw of p(x'|x) by (G2): of the exact kernel, but for the inner solve.

    ``num_steps`` of the inner solver a step, so 16 evaluations of the field by default, at times t* from t on. Of a
    guided field, which has no p(z|x), it is the same rule with the guided denoiser.

    Args:
        path: the path of the field.
        field: the vector field, guided or not. Of a piecewise one a step, its inner times with it, has one piece.
        correlation: rho as a function of (t, t_next): ``markov_correlation(path)``, ``constant_correlation(0.5)``.
        make_solver: the inner rule for one field, for example ``solvers.euler``.
        num_steps: of the inner solver, in each step. The grid must increase.

    Source: Holderrieth et al., arXiv 2509.25170.

    Raises:
        TypeError: a ``make_solver`` that makes no solver.
    """

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x = carry.x
        c = _transition(path, correlation, t, t_next)
        first = (c.first_std * noise_like(key, x)).astype(x.dtype)
        return State(solved(make_solver, _velocity(path, field, c, x), key, first, 0, num_steps))

    return Solver(init=State, step=step, is_forward_only=True)

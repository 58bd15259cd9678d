"""Replacement of the measured part of a state by the measurement, made as noisy as the state is.

(I1) After each step, at its end t':  x <- x + A^+ (alpha' (m + s n) + beta' A noise - A x),  with new n and noise.
     A^+ is the pseudo-inverse, A^T (A A^T)^-1 for rows that are independent; of a mask the pixels that it keeps.
     A step to t = 1 without noise s ends at A x = m.
(I2) Each replaced part has the law that it has at t' under a flat prior of A z: right where A z is known (s = 0), and
     with s > 0 the end has the spread s, where the posterior, which weighs the prior too, has less.
(I3) The rest of x comes of steps that know the measured part through the state alone, not through m: its law is exact
     where A z and the rest are independent. Otherwise it lags behind what was replaced.
(I4) RePaint: after (I1) back to t,  x <- k x + sqrt(beta^2 - (k beta')^2) noise,  k = alpha / alpha',  and the step
     again; the rest then agrees with the replaced part the better the more often, as under Gibbs sampling.

Source: Song et al., arXiv 2011.13456, appendix I.2 (a mask without noise) and I.4; Lugmayr et al., arXiv 2201.09865,
algorithm 1.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from cfgjax.contracts import checked, whole
from cfgjax.paths import as_float, noise_like
from cfgjax.piecewise import piecewise
from cfgjax.steering.measurements import AnyMeasurement, apply
from cfgjax.steering.normal_equations import least_squares
from cfgjax.types import Array, Carry, GaussianPath, Measurement, Solver


def _require_one_step(solver: Solver) -> None:
    if solver.restart is not None:
        raise ValueError("solver must be a rule of one step, got a multistep one, whose history knows no replacement")


def _replaced(path: GaussianPath, measurement: Measurement, key: Array, x: Array, t: Array) -> Array:
    """The state at t after (I1)."""
    noise_key, value_key = jax.random.split(key)
    state, value = as_float(x), as_float(measurement.value)
    value = value + measurement.noise_std * noise_like(value_key, value)
    noiseless = state - path.beta(t) * noise_like(noise_key, state)
    error = path.alpha(t) * value - apply(measurement, noiseless)
    return (state + least_squares(measurement, error, state)).astype(x.dtype)


def _renoised(path: GaussianPath, key: Array, x: Array, t: Array, t_next: Array) -> Array:
    """The state at t of one at t_next, by (I4)."""
    k = path.alpha(t) / path.alpha(t_next)
    variance = jnp.square(path.beta(t)) - jnp.square(k * path.beta(t_next))
    return (k * x + jnp.sqrt(jnp.maximum(variance, 0)) * noise_like(key, x)).astype(x.dtype)


@piecewise
@checked
def replacement(path: GaussianPath, solver: Solver, measurement: AnyMeasurement) -> Solver:
    """The solver whose every step is followed by a replacement (I1) of what is measured, with the bias (I2), (I3).

    It costs the solver's own evaluations, and products with A and its transpose. With a mask of zeros it is the
    solver.

    Args:
        path: the path of the solver's field.
        solver: a rule of one step whose carry has its state in a field x, of a field guided or not.
        measurement: of a data point; its noise may be 0. The grid must increase.

    Source: Song et al., arXiv 2011.13456, appendix I.2.

    Raises:
        ValueError: a multistep solver; at a step, a value that is not like A z.
    """
    _require_one_step(solver)

    def step(key: Array, carry: Any, t: Array, t_next: Array) -> Carry:
        solver_key, replaced_key = jax.random.split(key)
        moved: Any = solver.step(solver_key, carry, t, t_next)
        return moved._replace(x=_replaced(path, measurement, replaced_key, moved.x, t_next))

    return Solver(solver.init, step, is_forward_only=True)


@piecewise
@checked
def repaint(
    path: GaussianPath,
    solver: Solver,
    measurement: AnyMeasurement,
    num_resamplings: Annotated[int, whole(1)] = 10,
) -> Solver:
    """RePaint: ``replacement`` whose every step is made ``num_resamplings`` times, with the noise (I4) between them.

    It costs ``num_resamplings`` times the evaluations of the solver; a count that is traced is one trace, too, and
    counted as one pass by ``solvers.num_function_evaluations``. With 1 it is ``replacement`` bitwise.

    Args:
        path: the path of the solver's field.
        solver: as for ``replacement``.
        measurement: as for ``replacement``.
        num_resamplings: how often each step is made, the paper's U, with jumps of one step.

    Source: Lugmayr et al., arXiv 2201.09865, algorithm 1.

    Raises:
        ValueError: a multistep solver; at a step, a value that is not like A z.
    """
    replaced = replacement(path, solver, measurement)

    def step(key: Array, carry: Any, t: Array, t_next: Array) -> Carry:
        def again(index: Array, carry: Any) -> Any:
            step_key, noise_key = jax.random.split(jax.random.fold_in(key, index + 2))
            moved: Any = replaced.step(step_key, carry, t, t_next)
            return moved._replace(x=_renoised(path, noise_key, moved.x, t, t_next))

        return replaced.step(key, jax.lax.fori_loop(0, num_resamplings - 1, again, carry), t, t_next)

    return Solver(replaced.init, step, is_forward_only=True)

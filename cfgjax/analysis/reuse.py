"""Schedules that spare evaluations of the null side, solved for a tolerance: ``guidance.reused`` takes them.

(E1) A guided solve tells d_k = (w - 1)(u_y - u_null) at the times t_k of its grid, G_kl = E <d_k, d_l> / D over
     examples, and g_k, by what factor a change of x_(t_k) grows until t = 1.
(E2) Extrapolated from the last evaluations i with Lagrange's factors l_i, d_k is wrong by e_k = d_k - sum l_i d_i.
(E3) A step of length h with s evaluations, the first at t_k and the others taken for t_(k+1), moves the end by
     h (g_k e_k / s + (1 - 1/s) g_(k+1) e_(k+1)), with e = 0 where both sides are evaluated. The sum over the steps is
     sum v_k d_k, and the predicted error sqrt(v^T G v): its mean square by coordinate, cancellations and all.
(E4) Of the schedules with m evaluations of the null side a good one is found by moving one evaluation at a time, and
     the least m whose MEASURED error is within the tolerance by bisection.

A solve measures what a schedule is worth: on an oracle by ``certificates.map_log_ratio``, else by ``coupling_bound``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import kernels
from cfgjax.checks import require_shape
from cfgjax.conditions import as_condition
from cfgjax.contracts import (
    AnyCondition,
    ConcreteTimeGrid,
    GuidanceScale,
    Key,
    PositiveFloat,
    PositiveInt,
    RealArray,
    checked,
    instance,
)
from cfgjax.guidance import extrapolate, given, scale_at
from cfgjax.guidance.reuse import AnySchedule, Order
from cfgjax.paths import as_state
from cfgjax.solvers.integrate import integrate
from cfgjax.types import Array, Evaluated, Field, Pair, ReuseSchedule, Solver

CROWDING = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Powers of evenly spaced numbers, by which the evaluations of a first guess lie."""


class Recorded(NamedTuple):
    """What (E1) takes from the solve of one example.

    ``differences`` [n + 1, *D] are d_k, ``changes`` [n + 1, *D] how far x_(t_k) moves with the noise along d_0, and
    ``end`` [*D] is the sample.
    """

    differences: Array
    changes: Array
    end: Array


class ErrorModel(NamedTuple):
    """The moments G [n + 1, n + 1] and the growth g [n + 1] of (E1), on the host."""

    moments: np.ndarray
    growth: np.ndarray


class Plan(NamedTuple):
    """A schedule with its evaluations of the null side, and its error: predicted, or as measured."""

    schedule: ReuseSchedule
    num_null: int
    error: float


AnyModel = Annotated[ErrorModel, instance(ErrorModel, "an ErrorModel, as analysis.reuse.error_model gives it")]


@checked
def record(
    make_solver: Callable[[Field], Solver],
    pair: Pair,
    key: Key,
    x: RealArray,
    ts: ConcreteTimeGrid,
    scale: GuidanceScale,
    y: AnyCondition,
) -> Recorded:
    """One guided solve, as ``error_model`` reads those of many examples.

    The last difference is that of the end at the middle of the last step: no field is called at t = 1. Arguments are
    those of ``integrate`` and of the guided field.
    """
    x, y, times = as_state(x), as_condition(y), jnp.asarray(ts)
    solver = make_solver(given(extrapolate(pair, scale), y))

    def difference(x: Array, t: Array) -> Array:
        null, labelled = pair.both(x, t, y)
        return (scale_at(scale, t, y, (x, null, labelled)) - 1) * (labelled - null)

    def observe(carry: Any, t: Array) -> tuple[Array, Array]:
        time = jnp.where(t == times[-1], 0.5 * (times[-2] + times[-1]), t)
        return difference(carry.x, time), carry.x

    def solve(x: Array) -> tuple[Array, tuple[Array, Array]]:
        return integrate(solver, key, x, ts, observe)

    with kernels.plain():
        direction = difference(x, times[0]).astype(x.dtype)
        (end, (differences, _)), (_, (_, changes)) = jax.jvp(solve, (x,), (direction,))
    return Recorded(differences, changes, end)


@checked
def error_model(recorded: Annotated[Recorded, instance(Recorded, "a Recorded of many examples")]) -> ErrorModel:
    """The moments and the growth of (E1), in float64.

    Args:
        recorded: of N examples, each leaf with a leading axis [N, ...], by ``record`` under ``jax.vmap``.

    Raises:
        ValueError: of no example, or of one without a leading axis.
    """
    shape = jnp.shape(recorded.differences)
    if len(shape) < 3 or 0 in shape or jnp.shape(recorded.changes) != shape:
        raise ValueError(f"recorded must be of [N, n + 1, *D] with D not (), got differences of the shape {shape}")
    differences, changes = (
        np.asarray(each, np.float64).reshape(shape[0], shape[1], -1)
        for each in (recorded.differences, recorded.changes)
    )
    moments = np.mean([one @ one.T for one in differences], axis=0) / differences.shape[-1]
    squares = np.mean(np.sum(np.square(changes), axis=-1), axis=0)
    growth = np.sqrt(squares[-1] / np.where(squares > 0, squares, squares[-1] or 1.0))
    return ErrorModel(moments, growth)


def _extrapolated(times: np.ndarray, known: Sequence[int], k: int) -> np.ndarray:
    """The factors of all d in e_k of (E2)."""
    nodes = times[list(known)]
    gaps = nodes[:, None] - nodes[None, :] + np.eye(len(nodes))
    ratios = np.where(np.eye(len(nodes), dtype=bool), 1, (times[k] - nodes)[None, :] / gaps)
    factors = np.zeros(len(times))
    factors[list(known)] = -np.prod(ratios, axis=1)
    factors[k] += 1
    return factors


def _factors_of(ts: np.ndarray, growth: np.ndarray, order: int, num_stages: int) -> Callable[..., np.ndarray]:
    """(words of a schedule) -> v of (E3)."""
    times = np.append(ts[:-1], 0.5 * (ts[-2] + ts[-1]))
    cached: dict[tuple[tuple[int, ...], int], np.ndarray] = {}

    def error(known: tuple[int, ...], k: int) -> np.ndarray:
        if (known, k) not in cached:
            cached[known, k] = growth[k] * _extrapolated(times, known, k)
        return cached[known, k]

    def factors(words: Sequence[Evaluated]) -> np.ndarray:
        total, known = np.zeros(len(times)), ()
        for step, word in enumerate(words):
            here = np.zeros(len(times))
            if word == "none" and known:
                here += error(known, step) / num_stages
            else:
                known = _with(known, step, order)
            if word == "every":
                known = known if num_stages == 1 else _with(known, step + 1, order)
            else:
                here += (1 - 1 / num_stages) * error(known, step + 1)
            total += (ts[step + 1] - ts[step]) * here
        return total

    return factors


def _with(known: tuple[int, ...], node: int, order: int) -> tuple[int, ...]:
    """The last evaluations with one more."""
    return tuple(sorted({*known, node}))[-order - 1 :]


def _require_grid_of(model: ErrorModel, ts: Any) -> np.ndarray:
    require_shape("model.moments", model.moments, (len(ts), len(ts)))
    require_shape("model.growth", model.growth, (len(ts),))
    return np.asarray(ts, np.float64)


@checked
def predicted_error(model: AnyModel, schedule: AnySchedule, num_stages: PositiveInt = 2) -> float:
    """The root mean square by coordinate of how far a schedule moves the end, by (E3): to first order.

    Args:
        model: by ``error_model``, of the schedule's grid.
        schedule: the schedule.
        num_stages: evaluations of the field in one step, 2 of ``heun``.

    Raises:
        ValueError: a model of another grid.
    """
    ts = _require_grid_of(model, schedule.ts)
    factors = _factors_of(ts, model.growth, schedule.order, num_stages)(schedule.evaluated)
    return float(np.sqrt(max(factors @ model.moments @ factors, 0.0)))


def _words(at: Sequence[int], num_steps: int) -> tuple[Evaluated, ...]:
    return tuple("first" if step in at else "none" for step in range(num_steps))


def _first_guess(num_null: int, num_steps: int, power: float) -> tuple[int, ...]:
    """Steps from the first on, as many as asked for."""
    wished = num_steps * (np.arange(num_null) / num_null) ** power
    steps: list[int] = []
    for number, wish in enumerate(wished):
        least = steps[-1] + 1 if steps else 0
        steps.append(int(min(max(round(wish), least), num_steps - num_null + number)))
    return tuple(steps)


@checked
def plan(
    model: AnyModel, ts: ConcreteTimeGrid, num_null: PositiveInt, order: Order = 1, num_stages: PositiveInt = 2
) -> Plan:
    """The schedule with ``num_null`` evaluations of the null side, each first of its step, that (E4) finds.

    Args:
        model: by ``error_model``, of this grid.
        ts: [n + 1], the grid.
        num_null: from 1 to n, the number of steps.
        order: the degree of the extrapolation.
        num_stages: evaluations of the field in one step.

    Raises:
        ValueError: a model of another grid; more evaluations than steps.
    """
    times, num_steps = _require_grid_of(model, ts), len(ts) - 1
    if num_null > num_steps:
        raise ValueError(f"num_null must be at most the {num_steps} steps, got {num_null}")
    factors = _factors_of(times, model.growth, order, num_stages)

    def error_of(at: Sequence[int]) -> float:
        v = factors(_words(at, num_steps))
        return float(np.sqrt(max(v @ model.moments @ v, 0.0)))

    def found(at: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        error = error_of(at)
        while True:
            others = [step for step in range(1, num_steps) if step not in at]
            moved = [(*(step for step in at if step != gone), new) for gone in at if gone for new in others]
            best = min(((error_of(each), each) for each in moved), default=(error, at))
            if best[0] >= error:
                return error, at
            error, at = best

    error, at = min(found(_first_guess(num_null, num_steps, power)) for power in CROWDING)
    return Plan(ReuseSchedule(tuple(np.asarray(ts).tolist()), _words(at, num_steps), order), num_null, error)


@checked
def solve_schedule(
    measure: Callable[[ReuseSchedule], float],
    model: AnyModel,
    ts: ConcreteTimeGrid,
    tolerance: PositiveFloat,
    order: Order = 1,
    num_stages: PositiveInt = 2,
) -> Plan:
    """The plan of fewest evaluations whose measured error is at most the tolerance, by (E4).

    Where no plan is within it, the schedule that evaluates everywhere, of error 0.

    Args:
        measure: the error of a schedule, by a solve with it, in any unit.
        model: by ``error_model``, of this grid.
        ts: [n + 1], the grid.
        tolerance: the largest error.
        order: the degree of the extrapolation.
        num_stages: evaluations of the field in one step.

    Raises:
        ValueError: a model of another grid.
    """
    num_steps = len(ts) - 1
    whole = ReuseSchedule(tuple(np.asarray(ts).tolist()), ("every",) * num_steps, order)
    best, low, high = Plan(whole, num_stages * num_steps, 0.0), 0, num_steps + 1
    count = num_steps
    while high - low > 1:
        tried = plan(model, ts, count, order, num_stages)
        error = float(measure(tried.schedule))
        if error <= tolerance:
            best, high = tried._replace(error=error), count
        elif count == num_steps:
            return best
        else:
            low = count
        count = (low + high) // 2
    return best

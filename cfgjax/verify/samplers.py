"""Solvers and samplers of the guided ODE dx = u_w dt, against the exact ends of its flow.

(V3) Ends are compared with those of a rule of order 4 with 64 steps: the error is |found - exact| / |exact| over
     states of N(0, I) and labels.
(V4) The order is the slope of log error against log steps. Nothing in it is random but the states. The limit of small
     steps is extrapolated from the two finest grids, (2^p end - coarser end) / (2^p - 1), p the claimed order, or 1
     where it is not had: a small error of the field or of the rule, which hides under the order's own, shows there.
(V5) Where only the first of two stages is guided, u_w and u_y average to the scale (1 + w) / 2, which the end shows. A
     second stage that takes the first one's difference is right in the limit, and of order 1 for w other than 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY
from cfgjax.contracts import Positive, checked
from cfgjax.guidance import given
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Field, GaussianPath, LabelledField, Number
from cfgjax.verify.call_user import require_finite, require_shape, running, swept
from cfgjax.verify.ode_bugs import Ends, Flow, flow_ends, flow_mistakes
from cfgjax.verify.reference import STRAIGHT, Oracle, Seed, skewed_mixture
from cfgjax.verify.report import UNKNOWN, Check, Report, at_least, at_most, collected, likely_cause, relative_error

Draw = Callable[[LabelledField, Array, Array, Array, Array, Number, int], Array]
"""``(field, key, x [D], ts [n + 1], y [], scale, null_label) -> x [D]``: ONE example, guided, from ts[0] to ts[-1]."""

_STATES, _LOOPED = 24, 12
"""States, and calls of a sampler that can only be called one at a time."""

_END, _ROUNDING = 0.05, 3e-6
"""The error allowed at the end: Euler's with 64 steps is 0.02; and the error that single precision leaves."""

_LIMIT = 2e-3
"""The error allowed in the limit of small steps: the library's own is 4e-4 at most."""

_SLACK = 0.35
"""What a measured order may lack: the library's own lack 0.1 at most at these numbers of steps."""


@checked
def solver(
    make_solver: Callable[[Field], Any],
    order: Positive | None,
    path: GaussianPath | None = None,
    mixture: Oracle | None = None,
    seed: Seed = 0,
) -> Report:
    """The report on an ODE solver of a claimed order, on the oracle's labelled field.

    Checked: the end of the flow, the order, and that no key changes it. Causes told apart: the sign; time backwards;
    no motion; a factor 1/2 or 2; a last step that is missing; the order of Euler's rule.

    An error of 5 % in the field, in one fifth of t or throughout, moves the limit of small steps by 0.008 or more and
    fails: 0.002 is allowed. An error in the weights of stages shows in the order. A pass does not show what uneven or
    few steps do.

    Args:
        make_solver: of a field (x [D], t []) -> [D] it makes a ``Solver``, or a function (key, x [D], ts [n + 1]) -> x
            that does all steps of ONE example.
        order: the order that the solver should have at least; None for one that chooses its steps by itself, of which
            the end and the keys alone are asked.
        path: the path of the oracle's field; None for the straight one.
        mixture: the oracle; None for one of three labels in 2-D.
        seed: chooses the states.
    """

    def draw(field: LabelledField, key: Array, x: Array, ts: Array, y: Array, *_: Any) -> Array:
        return running(make_solver(given(field, y)))(key, x, ts)

    problem = _Problem(draw, (1.0,), order, path or STRAIGHT, mixture or skewed_mixture(), seed)
    claim = "any order" if order is None else f"order {float(order):g}"
    return collected(f"verify.solver ({claim})", _checks(problem), _limits(problem))


@checked
def sampler(
    draw: Draw,
    order: Positive,
    path: GaussianPath | None = None,
    mixture: Oracle | None = None,
    seed: Seed = 0,
) -> Report:
    """The report on a sampler that guides and solves by itself, at w = 0, 1 and 2.7.

    Checked: the end of the guided flow at each scale, the order at each, and that no key changes the
    end. Causes told apart: those of ``solver``; the conventions of w of ``guidance``; another label's row for the null
    label's; guidance at stage one alone of a rule of two stages (V5). What a pass shows and does not is said at
    ``solver``; a scale 5 % too large fails, too.

    Args:
        draw: (field, key, x [D], ts [n + 1], y [], scale, null_label) -> x [D], for ONE example.
        order: the order that the sampler should have at least.
        path: the path of the oracle's field; None for the straight one.
        mixture: the oracle; None for one of three labels in 2-D.
        seed: chooses the states.
    """
    problem = _Problem(draw, (0.0, 1.0, 2.7), order, path or STRAIGHT, mixture or skewed_mixture(), seed)
    return collected(f"verify.sampler (order {float(order):g})", _checks(problem), _limits(problem))


class _Problem(NamedTuple):
    draw: Draw
    scales: tuple[float, ...]
    order: Number | None
    path: GaussianPath
    mixture: LabelledMixture
    seed: int

    def steps(self) -> tuple[int, ...]:
        """Numbers of steps at which a rule of the order is past its first steps and above rounding."""
        if self.order is None:
            return (64,)
        return (16, 32, 64) if self.order <= 2 else (4, 8, 16, 32)


def _limits(problem: _Problem) -> str:
    if problem.order is None:
        return "an order, or an error of the end under 5 %"
    return f"fewer or uneven steps than the {min(problem.steps())} to {max(problem.steps())} equal ones of the checks"


class _Ends(NamedTuple):
    """The sampler's ends by number of steps, [scales, n, D]; the states and labels of every other row; exact ends."""

    found: dict[int, np.ndarray]
    x: Array
    y: Array
    exact: np.ndarray

    @property
    def finest(self) -> np.ndarray:
        """The ends by the largest number of steps."""
        return self.found[max(self.found)]

    @property
    def difference_of_keys(self) -> float:
        """The relative difference of the rows that are alike but for the key."""
        return relative_error(self.finest[:, 0::2], self.finest[:, 1::2])

    def limit_error(self, index: int, order: Number) -> float:
        """The error of the extrapolated end (V4) at one scale."""
        coarse, fine = (self.found[n][index] for n in sorted(self.found)[-2:])
        has_order = self.order(index) >= float(order) - _SLACK
        limit = fine + (fine - coarse) / (2.0 ** (float(order) if has_order else 1.0) - 1)
        return relative_error(limit, self.exact[index])

    def error(self, expected: np.ndarray) -> float:
        """The largest error (V3) over the scales, by the finest grid."""
        return max(relative_error(*pair) for pair in zip(self.finest, expected, strict=True))

    def order(self, index: int) -> float:
        """The order (V4) at one scale by the finest pair of grids above rounding; infinite where all are below."""
        steps = sorted(self.found)
        errors = [relative_error(self.found[n][index], self.exact[index]) for n in steps]
        slopes = [np.log2(a / b) for a, b in pairwise(errors) if b > _ROUNDING]
        return float(slopes[-1]) if slopes else np.inf


def _solved(problem: _Problem, flows: Ends) -> _Ends:
    """Each state twice, with two keys: rows 0 and 1, 2 and 3 and so on are alike."""
    null, field = problem.mixture.num_classes, jax.jit(problem.mixture.vector_field(problem.path))
    keys = jax.random.split(jax.random.key(problem.seed, impl=THREEFRY), 2 * _STATES)
    x = jnp.repeat(jax.random.normal(keys[0], (_STATES, problem.mixture.means.shape[-1])), 2, axis=0)
    y = jnp.repeat(jnp.arange(_STATES) % null, 2)
    found = {}
    for num_steps in problem.steps():
        ts = jnp.linspace(0.0, 1.0, num_steps + 1)

        def end(scale: Number, key: Array, x: Array, y: Array, ts: Array = ts) -> Array:
            return problem.draw(field, key, x, ts, y, scale, null)

        found[num_steps] = swept(end, problem.scales, keys, x, y, most=_LOOPED)
        for values in found[num_steps]:
            require_finite(require_shape(values, x.shape[1:]))
    num_rows = min(values.shape[1] for values in found.values())
    found = {num_steps: values[:, :num_rows] for num_steps, values in found.items()}
    x, y = x[:num_rows:2], y[:num_rows:2]
    return _Ends(found, x, y, _twice(flows([Flow(scale, null) for scale in problem.scales], x, y)))


def _twice(ends: np.ndarray) -> np.ndarray:
    """Ends [scales, n, D] for the rows that are alike but for the key."""
    return np.repeat(ends, 2, axis=1)


def _checks(problem: _Problem) -> Iterator[Check]:
    flows = flow_ends(problem.mixture, problem.path)
    ends = _solved(problem, flows)
    cause = cache(lambda: _cause(problem, ends, flows))
    for index, scale in enumerate(problem.scales):
        error = relative_error(ends.finest[index], ends.exact[index])
        yield at_most(f"end of the flow, w = {scale:g}", error, _END, cause)
    if problem.order is not None:
        yield from _order_checks(problem.scales, problem.order, ends, cause)
    yield at_most("difference by another key", ends.difference_of_keys, _ROUNDING, cause)


def _order_checks(scales: tuple[float, ...], order: Number, ends: _Ends, cause: Callable[[], str]) -> Iterator[Check]:
    for index, scale in enumerate(scales):
        yield at_most(f"limit of small steps, w = {scale:g}", ends.limit_error(index, order), _LIMIT, cause)
    for index, scale in enumerate(scales):
        yield at_least(f"order at least, w = {scale:g}", ends.order(index), float(order) - _SLACK, cause)


def _cause(problem: _Problem, ends: _Ends, flows: Ends) -> str:
    known = flow_mistakes(problem.scales, problem.mixture.num_classes, max(problem.steps()))
    values = {words: _twice(flows(each, ends.x, ends.y)) for words, each in known.items()}
    words = likely_cause(ends.error, ends.exact, values, _END)
    return _order_cause(problem, ends) if words == UNKNOWN else words


def _order_cause(problem: _Problem, ends: _Ends) -> str:
    """What the orders say where the limit is right or not known."""
    if ends.difference_of_keys > _ROUNDING:
        return "noise is added: not a solver of the ODE, see verify.diffusion"
    if problem.order is None:
        return UNKNOWN
    limits = [ends.limit_error(index, problem.order) for index in range(len(problem.scales))]
    if max(limits) > _LIMIT:
        return f"{UNKNOWN}; it tends to another end, {max(limits):.2g} off, however small the steps"
    orders = [ends.order(index) for index in range(len(problem.scales))]
    is_low = [order < float(problem.order) - _SLACK for order in orders]
    if ends.error(ends.exact) > _END or abs(orders[-1] - 1) > _SLACK:
        return UNKNOWN
    if all(is_low):
        return "the order of Euler's rule: the second stage is missing, or taken at the wrong state or time"
    return "order 1 under guidance alone: guidance acts at stage one alone, the second stage takes its difference"

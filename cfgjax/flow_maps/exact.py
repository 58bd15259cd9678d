"""Flow maps of fields that are known: of a mixture's guided field to a tolerance, of any field by a solver's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from cfgjax import guidance
from cfgjax.checks import THREEFRY, TINY, evaluated, flow_map_like_x
from cfgjax.contracts import PositiveInt, between, checked, instance
from cfgjax.flow_maps.conversions import average_velocity_of
from cfgjax.flow_maps.intervals import at_any_scale, instant_as
from cfgjax.mixtures import LabelledMixture
from cfgjax.paths import as_time
from cfgjax.piecewise import Piecewise, piecewise
from cfgjax.solvers import integrate
from cfgjax.types import Array, Field, FlowMap, GaussianPath, Number, Solver

_ROUNDINGS = 16
"""A tolerance is at least so many rounding errors of the state's precision."""


@checked
def exact(
    path: GaussianPath,
    mixture: Annotated[LabelledMixture, instance(LabelledMixture, "a LabelledMixture, as mixtures.ring() is")],
    tolerance: Annotated[Number, between(TINY, 1)] = 1e-9,
) -> FlowMap:
    """The average velocity of a mixture's exact guided field, as (x, t, r, y, w): the referee of flow maps.

    U = d(1) of d' = u_w(x + (r - t) d, t + (r - t) q), d(0) = 0, q in [0, 1]: nothing is divided, so that U keeps its
    digits and its derivatives as r tends to t. At r = t it is the guided field itself. It goes both ways, from data to
    noise where r < t. Differentiable forwards (``jax.jvp``), by diffrax, which ``solvers.adaptive`` needs: the
    derivatives are those of the steps taken, with some hundred times the tolerance for an error.

    Args:
        path: the path.
        mixture: of K labels; the null is K.
        tolerance: [], absolute and relative error of a step in d, but at least 16 rounding errors of x: take it in
            double precision for the digits of the default.

    Returns:
        A FlowMap of (x, t, r, y, w), w a number or an Interval of one, at whose edges the solve is split. Where the
        solve does not come to its end the value is NaN.
    """
    from cfgjax.solvers import adaptive  # Here, as it needs an extra.

    rule, adjoint = adaptive.diffrax.Dopri8(), adaptive.diffrax.ForwardMode()
    field, null = mixture.vector_field(path), mixture.num_classes

    def average_velocity(x: Array, t: Array, r: Array, y: Array, w: Array) -> Array:
        guided = guidance.classifier_free(field, w, null)

        def slope(moved: Array, share: Array) -> Array:
            return guided((x + (r - t) * moved).astype(x.dtype), t + (r - t) * share, y)

        allowed = jnp.maximum(tolerance, _ROUNDINGS * float(jnp.finfo(x.dtype).eps))
        solution = adaptive.integrate(slope, jnp.zeros_like(x), rtol=allowed, atol=allowed, rule=rule, adjoint=adjoint)
        return instant_as(solution.x, guided(x, t, y).astype(x.dtype), r == t)

    return at_any_scale(average_velocity)


@piecewise
def _given(field: Callable[..., Array], *rest: Any) -> Field:
    return lambda x, t: evaluated("field", field, x, t, *rest)


@checked
def of_field(
    make_solver: Callable[[Field], Solver | Piecewise[Solver]], field: Callable[..., Array], num_steps: PositiveInt
) -> FlowMap:
    """The average velocity of any field's trajectories by ``num_steps`` equal steps from t to r, as (x, t, r, ...).

    At r = t it is the field. It goes both ways where the solver does. Next to r = t it has the rounding of
    ``average_velocity_of``.

    Args:
        make_solver: makes the solver of an ODE from a field (x, t): ``solvers.heun``, or
            ``lambda field: solvers.ddim(path, field)``.
        field: (x, t, ...) -> like x, a network's guided field for example, with all that comes after t.
        num_steps: number of steps of each trajectory.

    >>> from cfgjax import solvers
    >>> growth = of_field(solvers.euler, lambda x, t, rate: rate * x, num_steps=2)
    >>> float(growth(jnp.float32(1.0), 0.0, 1.0, 1.0))
    1.25
    """

    def flow(x: Array, t: Array, r: Array, *rest: Any) -> Array:
        t, r = as_time(t), as_time(r)
        is_instant = t == r  # there the grid has to be one, if for nothing
        ts = jnp.linspace(jnp.where(is_instant, 0, t), jnp.where(is_instant, 1, r), num_steps + 1)
        return integrate(make_solver(_given(field, *rest)), jax.random.key(0, impl=THREEFRY), x, ts)

    return flow_map_like_x("field", average_velocity_of(flow, field))

"""Solves of the ODE with step-size control, by diffrax: each example takes the steps that it needs.

Needs the extra ``adaptive``: python -m pip install 'cfgjax[adaptive]'. Of cfgjax only ``flow_maps.exact`` uses it.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from cfgjax.checks import TINY, is_traced
from cfgjax.contracts import PositiveInt, StateField, Time, between, checked
from cfgjax.paths import as_state, as_time
from cfgjax.solvers.ends import held
from cfgjax.types import Array, Number

try:
    import diffrax
except ImportError as error:
    raise ImportError("cfgjax.solvers.adaptive needs diffrax: python -m pip install 'cfgjax[adaptive]'") from error


Tolerance = Annotated[Number, between(TINY, 1)]


class AdaptiveSolution(NamedTuple):
    """The end of an adaptive solve: ``x`` [*D], the ``evaluations`` of the field [], and whether it came to its end."""

    x: Array
    evaluations: Array
    is_finished: Array


@checked
def integrate(
    field: StateField,
    x: Array,
    start: Time = 0.0,
    stop: Time = 1.0,
    rtol: Tolerance = 1e-4,
    atol: Tolerance = 1e-4,
    max_steps: PositiveInt = 4096,
    rule: diffrax.AbstractERK | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> AdaptiveSolution:
    """The state that x becomes from ``start`` to ``stop`` under dx = u dt, to the tolerances asked for.

    ``vmap`` makes a batch, in which each example has its own steps; the whole takes as long as its longest solve.
    Within four rounding errors of t = 0 and t = 1 (4.8e-7 in single precision) the field is taken as constant in time,
    which keeps a learned field's error finite, as it grows towards an end as 1 / distance (``solvers.ends``); data
    narrower than beta there come out blurred by it, 1e-4 on a variance-preserving path. Differentiable by diffrax, as
    its adjoint says.

    Args:
        field: the vector field.
        x: [*D], the state at ``start``.
        start: [], in [0, 1].
        stop: [], in [0, 1]; smaller than ``start`` for the way back.
        rtol: [], relative error allowed in a step.
        atol: [], absolute error allowed in a step.
        max_steps: steps after which the solve is given up, accepted and rejected ones together.
        rule: an explicit Runge-Kutta rule of diffrax with an error estimate, by default Tsit5.
        adjoint: how diffrax differentiates the solve, by default in reverse; ``diffrax.ForwardMode()`` for ``jax.jvp``.

    Returns:
        AdaptiveSolution. Where ``is_finished`` is False, max_steps did not suffice or a step became too small, and x
        is NaN.

    Raises:
        ValueError: a stop that is the start.
    """
    if not is_traced((start, stop)) and float(start) == float(stop):
        raise ValueError(f"stop must differ from start, got {start} twice")
    x = as_state(x)

    def slope(t: Array, x: Array, args: None) -> Array:
        return jnp.asarray(field(x, held(t)), x.dtype)

    rule = diffrax.Tsit5() if rule is None else rule
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        rule,
        as_time(start),
        as_time(stop),
        None,
        x,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
        throw=False,
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
    )
    is_finished = solution.result == diffrax.RESULTS.successful
    end = jnp.where(is_finished, jax.tree.leaves(solution.ys)[0][-1], jnp.nan)
    return AdaptiveSolution(end, _evaluations(rule, solution.stats["num_steps"]), jnp.asarray(is_finished))


def _evaluations(rule: diffrax.AbstractERK, num_steps: Array) -> Array:
    """A step takes its stages; one less where its first is the last of the step before, but for the very first."""
    tableau: Any = rule.tableau
    stages, shared = len(tableau.c) + 1, int(tableau.fsal)
    return shared + num_steps * (stages - shared)

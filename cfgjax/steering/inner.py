"""The solve within a step: from some time to 1, by a rule for one field."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from cfgjax.checks import require_kind
from cfgjax.solvers import integrate
from cfgjax.types import Array, Field, Number, Solver


def solved(
    make_solver: Callable[[Field], Solver], field: Field, key: Array, x: Array, start: Number, num_steps: int
) -> Array:
    """The state at time 1 of the field's ODE from x at ``start``, in even steps.

    Raises:
        TypeError: a ``make_solver`` that makes no solver.
    """
    solver = make_solver(field)
    require_kind("make_solver", solver, Solver, "a function that makes a Solver of a field")
    return integrate(solver, key, x, jnp.linspace(start, 1, num_steps + 1))

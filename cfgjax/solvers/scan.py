"""The one scan that repeats a solver's step over a grid of times."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced
from cfgjax.types import Array, Carry, Solver, Tree


def _check_times(ts: Array | np.ndarray, is_forward_only: bool) -> None:
    if jnp.ndim(ts) != 1 or jnp.shape(ts)[0] < 2:
        raise ValueError(f"ts must be a 1-D grid of at least 2 times, got shape {jnp.shape(ts)}")
    if not jnp.issubdtype(jnp.result_type(ts), jnp.floating):
        raise ValueError(f"ts must be of floating-point type, got {jnp.result_type(ts)}")
    if is_traced(ts):
        return
    times = np.asarray(ts)
    if not np.all(np.isfinite(times)):
        raise ValueError(f"ts must be finite, got {times}")
    if not (np.all(np.diff(times) > 0) or np.all(np.diff(times) < 0)):
        raise ValueError(f"ts must increase (or decrease) at every step, got {times}")
    if is_forward_only and times[0] > times[-1]:
        raise ValueError(f"ts must increase for a stochastic solver, got {times}")


def integrate(
    solver: Solver, key: Array, x: Array, ts: Array, observe: Callable[[Any, Array], Tree] | None = None
) -> Any:
    """The state at the last time of the grid, after one solver step between each pair of neighbours.

    Step i takes the key ``fold_in(key, i)``. A grid of n steps has n + 1 points: ``jnp.linspace(0, 1, n + 1)``.

    Args:
        solver: the rule.
        key: a key for the solver's noise; a deterministic solver ignores it.
        x: [*D], the state at ts[0]; whole numbers are taken as floating-point ones.
        ts: [n + 1], the times: from 0 to 1 to make data of noise; decreasing for the way back, by an ODE solver only.
        observe: a function (carry, t) -> anything, called at all n + 1 times; its outputs come back stacked.

    Returns:
        The last state [*D], or with ``observe`` the pair (last state, observations with leading axis n + 1).

    Raises:
        ValueError: a grid that is not 1-D, has under two points, is not floating, or, where concrete, not monotone.

    >>> from cfgjax.solvers.ode import euler
    >>> float(integrate(euler(lambda x, t: x), jax.random.key(0), jnp.float32(1.0), jnp.linspace(0, 1, 3)))
    2.25
    """
    _check_times(ts if is_traced(ts) else np.asarray(ts), solver.is_forward_only)
    ts = jnp.asarray(ts)
    x = jnp.asarray(x)
    carry = solver.init(x.astype(jnp.result_type(float, x)))
    seen = None if observe is None else jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), observe(carry, ts[0]))

    def advance(carry: Carry, interval: tuple[Array, Array, Array]) -> tuple[Carry, Tree]:
        index, t, t_next = interval
        carry = solver.step(jax.random.fold_in(key, index), carry, t, t_next)
        return carry, None if observe is None else observe(carry, t_next)

    last, rest = jax.lax.scan(advance, carry, (jnp.arange(ts.shape[0] - 1), ts[:-1], ts[1:]))
    if observe is None:
        return last.x
    return last.x, jax.tree.map(lambda first, more: jnp.concatenate([first, more]), seen, rest)

"""The one scan that repeats a solver's step over a grid of times."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced, of_numpy, require_grid
from cfgjax.contracts import Contract, Key, checked, instance
from cfgjax.paths import as_state
from cfgjax.piecewise import Piecewise, piecewise
from cfgjax.types import Array, Carry, Solver, Times, Tree, WeightedSolver

AnySolver = TypeVar("AnySolver", Solver, WeightedSolver)
StepOf = Callable[[Array], Callable[..., Carry]]
_ANY_SOLVER = instance((Solver, WeightedSolver), "a Solver, as solvers.heun(field) is")


def _require_solvers(name: str, solver: object) -> None:
    for each in solver.pieces if isinstance(solver, Piecewise) else (solver,):
        _ANY_SOLVER.check(name, each)


SolverLike = Annotated[Solver | WeightedSolver | Piecewise[Solver], Contract(_require_solvers)]
"""A solver, of weighted states or not, or the Piecewise of solvers."""


@checked
def solve(
    solver: SolverLike,
    key: Key,
    x: Array,
    ts: Times,
    observe: Callable[[Any, Array], Tree] | None = None,
) -> tuple[Any, Tree]:
    """The solver's carry at the last time of the grid, and the observations: ``integrate`` with all that it knows.

    Arguments and errors are those of ``integrate``, but that a WeightedSolver, as ``feynman_kac`` is, is taken as well;
    the observations are None without ``observe``.
    """
    solvers = solver.pieces if isinstance(solver, Piecewise) else (solver,)
    ts, x = of_numpy(ts), of_numpy(x)
    require_grid("ts", ts, any(each.is_forward_only for each in solvers))
    carry = solvers[0].init(as_state(x))
    start, steps = jnp.asarray(ts)[0], (jnp.arange(len(ts) - 1), jnp.asarray(ts)[:-1], jnp.asarray(ts)[1:])
    seen = [] if observe is None else [jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), observe(carry, start))]
    for number, (step_of, restart, part) in enumerate(_scans(solver, ts)):
        if number and restart is not None:
            carry = restart(carry)

        def advance(carry: Carry, now: tuple[Array, Array, Array], step_of: StepOf = step_of) -> tuple[Carry, Tree]:
            index, t, t_next = now
            carry = step_of(index)(jax.random.fold_in(key, index), carry, t, t_next)
            return carry, None if observe is None else observe(carry, t_next)

        carry, more = jax.lax.scan(advance, carry, jax.tree.map(operator.itemgetter(part), steps))
        seen.append(more)
    return carry, None if observe is None else jax.tree.map(lambda *parts: jnp.concatenate(parts), *seen)


@checked
def integrate(
    solver: Solver | Piecewise[Solver],
    key: Key,
    x: Array,
    ts: Times,
    observe: Callable[[Any, Array], Tree] | None = None,
) -> Any:
    """The state at the last time of the grid, after one solver step between each pair of neighbours.

    Step i takes the key ``fold_in(key, i)``. A grid of n steps has n + 1 points: ``jnp.linspace(0, 1, n + 1)``.

    Args:
        solver: the rule; or the Piecewise of rules that a solver of a piecewise field is. A step belongs to the piece
            at its middle, as a whole, and only that piece is computed: put the edges on the grid
            (``time_grids.insert_times``), and the solver keeps its order. A multistep rule drops its history there.
        key: a key for the solver's noise; a deterministic solver ignores it.
        x: [*D], the state at ts[0]; integers are taken as floating-point ones.
        ts: [n + 1], the times: from 0 to 1 to make data of noise; decreasing for the way back, by an ODE solver only.
        observe: a function (carry, t) -> anything, called at all n + 1 times; its outputs come back stacked.

    Returns:
        The last state [*D], or with ``observe`` the pair (last state, observations with leading axis n + 1).

    Raises:
        TypeError: a solver of weighted states.
        ValueError: a grid that decreases, for a solver that runs forwards only.

    >>> from cfgjax.solvers.ode import euler
    >>> float(integrate(euler(lambda x, t: x), jax.random.key(0), jnp.float32(1.0), jnp.linspace(0, 1, 3)))
    2.25
    """
    if any(isinstance(each, WeightedSolver) for each in getattr(solver, "pieces", (solver,))):
        raise TypeError(
            "solver must be a Solver, got a WeightedSolver, whose states mean nothing without their weights: take "
            "solvers.solve, and of its particles particles.x[solvers.systematic_resampling(key, particles.log_weights)]"
        )
    carry, seen = solve(solver, key, x, ts, observe)
    return carry.x if observe is None else (carry.x, seen)


def runs(
    solver: Solver | WeightedSolver | Piecewise[Solver], ts: Times
) -> Iterator[tuple[Solver | WeightedSolver, slice]]:
    """(rule, slice of the steps) for each run of neighbouring steps that one rule takes.

    A concrete grid is split at the edges. Of a traced one every step chooses its piece while it runs.
    """
    if not isinstance(solver, Piecewise):
        yield solver, slice(None)
        return
    if is_traced(ts):
        yield solver.pieces[0]._replace(step=_choosing(solver)), slice(None)
        return
    times = np.asarray(ts, np.float64)
    pieces = np.searchsorted(solver.edges, (times[:-1] + times[1:]) / 2, side="right")
    bounds = [0, *(np.flatnonzero(np.diff(pieces)) + 1), len(pieces)]
    for first, last in pairwise(bounds):
        yield solver.pieces[pieces[first]], slice(first, last)


def _scans(
    solver: Solver | WeightedSolver | Piecewise[Solver], ts: Times
) -> Iterator[tuple[StepOf, Callable[[Any], Carry] | None, slice]]:
    """(number of a step -> its rule's step, restart, slice of the steps) of each scan: one for each run.

    Of rules that often take turns one scan is for all runs: however many they are, each rule is compiled once.
    """
    found = list(runs(solver, ts))
    rules = {id(rule): rule for rule, _ in found}
    if len(found) <= 2 * len(rules) or any(rule.restart is not None for rule in rules.values()):
        for rule, part in found:
            yield lambda index, rule=rule: rule.step, rule.restart, part
        return
    places, numbers = list(rules), np.zeros(len(ts) - 1, np.int32)
    for rule, part in found:
        numbers[part] = places.index(id(rule))
    steps = [rule.step for rule in rules.values()]
    # the number is the same for all examples of a batch, so that the branch stays one, of which one side runs
    yield lambda index: partial(jax.lax.switch, jnp.asarray(numbers)[index], steps), None, slice(None)


def _choosing(solver: Piecewise[Solver]) -> Callable[..., Carry]:
    steps = [each.step for each in solver.pieces]
    return lambda key, carry, t, t_next: jax.lax.switch(solver.index((t + t_next) / 2), steps, key, carry, t, t_next)


@piecewise
@checked
def remat(solver: Annotated[AnySolver, _ANY_SOLVER]) -> AnySolver:
    """The solver whose steps are computed again in the backward pass: for gradients through a whole solve.

    The scan then keeps the carry of each step and nothing of its inside, one more forward pass being the price.
    """
    return solver._replace(step=jax.checkpoint(solver.step))

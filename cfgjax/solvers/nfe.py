"""How many evaluations of a network a solve makes, and products with its Jacobian, known before it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY, evaluated, require_kind
from cfgjax.contracts import ConcreteTimeGrid, checked
from cfgjax.paths import as_state
from cfgjax.piecewise import Piecewise
from cfgjax.solvers.integrate import runs
from cfgjax.types import Array, Solver, WeightedSolver


def _counted_evaluation(value: Array) -> Array:
    return value * 1


def _counted_product(value: Array, tangent: Array) -> Array:
    return tangent * value


@jax.custom_jvp
def _mark(value: Array) -> Array:
    """The value, by a call that is found by its name; so is each product of its derivatives, transposed or not.

    The products' numbers mean nothing: they hold on to the value, so that no evaluation is dropped as unused.
    """
    return jax.jit(_counted_evaluation)(value)


@_mark.defjvp
def _mark_product(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value = _mark(*primals)
    return value, jax.jit(_counted_product)(value, *tangents)


@checked
def num_function_evaluations(
    build: Callable[[Callable[..., Array]], Solver | WeightedSolver | Piecewise[Solver]],
    field: Callable[..., Array],
    x: Array,
    ts: ConcreteTimeGrid,
) -> np.ndarray:
    """How often each step of a solve evaluates a field, [n]: a call on two stacked labels counts twice.

    Nothing is computed: each rule of a step is traced once. Inside a step a scan counts with its length, a branch with
    its dearest side, and a loop of unknown length as one pass.

    Args:
        build: makes the solver of a field, guidance included.
        field: the field (x, t, y) whose evaluations count, for example the network's; or a flow map (x, t, r, ...).
        x: [*D], a state.
        ts: [n + 1], a grid of numbers.

    Raises:
        TypeError: a ``build`` that makes no solver.

    >>> from cfgjax import guidance, solvers
    >>> def build(field):
    ...     scale = guidance.interval(3.0, 0.5, 1.0)
    ...     return solvers.heun(guidance.given(guidance.classifier_free(field, scale, null=8), 1))
    >>> num_function_evaluations(build, lambda x, t, y: x * y, jnp.ones(2), jnp.linspace(0, 1, 5)).tolist()
    [2, 2, 4, 4]
    """
    return _counted(build, field, x, ts, _counted_evaluation.__name__)


@checked
def num_vector_jacobian_products(
    build: Callable[[Callable[..., Array]], Solver | WeightedSolver | Piecewise[Solver]],
    field: Callable[..., Array],
    x: Array,
    ts: ConcreteTimeGrid,
) -> np.ndarray:
    """How often each step of a solve multiplies a vector with the Jacobian of a field, [n], from either side.

    Each costs about two evaluations, and is counted beside ``num_function_evaluations``, in the same way: what is
    transposed is the evaluation's own program, which is not run again. Arguments and errors are the same, too.

    >>> from cfgjax import solvers
    >>> def build(field):
    ...     return solvers.heun(lambda x, t: field(x, t) + jax.grad(lambda x: jnp.sum(field(x, t)))(x))
    >>> num_vector_jacobian_products(build, lambda x, t: jnp.sin(x), jnp.ones(2), jnp.linspace(0, 1, 3)).tolist()
    [2, 2]
    """
    return _counted(build, field, x, ts, _counted_product.__name__)


def _counted(build: Callable[..., Any], field: Callable[..., Array], x: Array, ts: Any, name: str) -> np.ndarray:
    """How often each step makes the call of that name on one value of the field, [n]."""
    x = as_state(x)
    sizes: list[int] = []
    solver = build(_marked(field, sizes))
    require_kind("build", solver, (Solver, WeightedSolver, Piecewise), "a function that makes a Solver of a field")
    each = np.zeros(len(ts) - 1, int)
    first = solver.pieces[0] if isinstance(solver, Piecewise) else solver
    carry, time = jax.eval_shape(first.init, x), jnp.asarray(ts)[0]
    known: dict[int, int] = {}
    for rule, part in runs(solver, ts):
        if id(rule) not in known:
            traced = jax.make_jaxpr(rule.step)(jax.random.key(0, impl=THREEFRY), carry, time, time)
            known[id(rule)] = _count(traced.jaxpr, name, sizes[-1] if sizes else 1)
        each[part] = known[id(rule)]
    return each


def _marked(field: Callable[..., Array], sizes: list[int]) -> Callable[..., Array]:
    """The field, whose values are marked; it notes the size of one."""

    def marked(x: Array, t: Array, *rest: Any) -> Array:
        value = evaluated("field", field, x, t, *rest)
        sizes.append(jnp.size(value))
        return _mark(jnp.asarray(value))

    return marked


def inner_programs(equation: Any) -> list[Any]:
    """The jaxprs among the parameters of a jaxpr's equation: a scan's body, a branch's sides, a compiled function."""
    return [inner for parameter in equation.params.values() for inner in _programs(parameter)]


def _programs(parameter: Any) -> list[Any]:
    if isinstance(parameter, (tuple, list)):
        return [each for one in parameter for each in _programs(one)]
    inner = getattr(parameter, "jaxpr", parameter)
    return [inner] if hasattr(inner, "eqns") else []


def _count(jaxpr: Any, name: str, size: int) -> int:
    """The calls of a name in a jaxpr; a mapped one holds as many as its value is larger than that of one."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.params.get("name") == name:
            total += max((value.aval.size for value in equation.outvars), default=0) // size
            continue
        counts = [_count(inner, name, size) for inner in inner_programs(equation)]
        repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += repeats * (max(counts, default=0) if equation.primitive.name == "cond" else sum(counts))
    return total

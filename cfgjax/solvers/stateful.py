"""Solvers of fields with state: their memory is kept in the carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cfgjax.checks import require_kind, require_like
from cfgjax.contracts import checked
from cfgjax.piecewise import piecewise
from cfgjax.types import Array, Carry, Field, Solver, StatefulField, Tree


class FieldStateCarry(NamedTuple):
    """A solver's own carry, and the memory of its field."""

    carry: Any
    memory: Tree

    @property
    def x(self) -> Array:
        """The state, [*D]."""
        return self.carry.x


def _solver_of(make_solver: Callable[[Field], Solver], field: Field) -> Solver:
    solver = make_solver(field)
    require_kind("make_solver", solver, Solver, "a function that makes a Solver of a field")
    return solver


@piecewise
@checked
def with_field_state(make_solver: Callable[[Field], Solver], field: StatefulField) -> Solver:
    """The solver of a field with state, for any rule that evaluates its field directly in the step.

    All evaluations of a step read the memory as it was at the step's start, and what the first of them returns is
    kept: with one evaluation a step, it is the plain recursion. Of a field with ``apply_later`` each evaluation reads
    what the one before it returned. Over the edges of a piecewise field memory and history of a multistep rule go on.

    Args:
        make_solver: a rule for one field, for example ``solvers.euler``.
        field: the field, for example ``guidance.adaptive_projected(...)`` or ``guidance.reused(...)``.

    Raises:
        TypeError, ValueError: a ``make_solver`` that makes no solver; at a step, a value that is not like x.
    """

    def with_memory(memory: Tree, kept: list[Tree]) -> Solver:
        def evaluate(x: Array, t: Array) -> Array:
            apply, known = field.apply, memory
            if kept and field.apply_later is not None:
                apply, known = field.apply_later, kept[-1]
            value, new = apply(x, t, known)
            kept.append(new)
            return require_like("field", value, x)

        return _solver_of(make_solver, evaluate)

    def init(x: Array) -> FieldStateCarry:
        memory = field.init(x)
        return FieldStateCarry(with_memory(memory, []).init(x), memory)

    def step(key: Array, carry: FieldStateCarry, t: Array, t_next: Array) -> FieldStateCarry:
        kept: list[Tree] = []
        inner: Carry = with_memory(carry.memory, kept).step(key, carry.carry, t, t_next)
        return FieldStateCarry(inner, kept[0 if field.apply_later is None else -1])

    return Solver(init, step, _solver_of(make_solver, lambda x, t: x).is_forward_only)

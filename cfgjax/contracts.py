"""Contracts: what an argument must be is said once, in its annotation, and checked before the body runs.

(K3) A function under ``checked`` has its arguments checked in their order, each by the contract of its annotation: that
     of an ``Annotated`` type below, or of the plain type (a function, a path, a pair, a solver, text, ...).
(K4) Relations between arguments (start < stop, shapes alike) stay in the body. Defaults are not checked.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from cfgjax import checks
from cfgjax.types import (
    Array,
    Condition,
    Field,
    FlowMap,
    GaussianPath,
    LabelledField,
    Measurement,
    Null,
    Number,
    Pair,
    Scale,
    Schedule,
    Solver,
    StatefulField,
    Times,
    TrainState,
    Tree,
)

Args = ParamSpec("Args")
Value = TypeVar("Value")
AnyField = TypeVar("AnyField", Field, LabelledField)
"""A field with or without a label."""
Check = Callable[[str, Any], Any]
"""``(name, value) -> value``, or None to keep the value; raises TypeError or ValueError that names the argument."""


@dataclass(frozen=True)
class Contract:
    """What a value must be, as metadata of an ``Annotated`` type."""

    check: Check


def between(low: float, high: float) -> Contract:
    """The contract of one real number in [low, high], where concrete."""
    return Contract(partial(checks.require_between, low=low, high=high))


def scheduled(low: float, high: float) -> Contract:
    """The contract of a function of t, or of one real number in [low, high] where concrete."""
    return Contract(partial(checks.require_schedule, low=low, high=high))


def at_least(least: int, most: float = float("inf")) -> Contract:
    """The contract of an integer in least..most that is not traced."""
    return Contract(partial(checks.require_count, least=least, most=most))


def whole(low: float, high: float = float("inf")) -> Contract:
    """The contract of one integer, in [low, high] where concrete."""
    return Contract(partial(checks.require_whole, low=low, high=high))


def instance(kind: type | tuple[type, ...], example: str) -> Contract:
    """The contract of an object of a class; ``example`` says in words how to make one."""
    return Contract(partial(checks.require_kind, kind=kind, example=example))


def one_of(*choices: str) -> Contract:
    """The contract of one of some names."""
    return Contract(partial(checks.require_choice, choices=choices))


def _concrete_grid(name: str, value: Times) -> None:
    if checks.is_traced(value):
        raise ValueError(f"{name} must be a grid of numbers, got a traced one")
    checks.require_grid(name, value)


def rows(least: int = 1, ndim: int | None = None) -> Contract:
    """The contract of a set on the host, from then on [n, ...] in float64, with ``least`` finite examples or more."""
    return Contract(partial(checks.as_float64_rows, least=least, ndim=ndim))


def record(kind: type, example: str) -> Contract:
    """The contract of a record of a class, whose fields have contracts; ``example`` says in words how to make one."""
    return Contract(partial(_record, kind, example))


def _record(kind: type, example: str, name: str, value: object) -> None:
    checks.require_kind(name, value, kind, example)
    check_fields(value, f"{name}.")


def _measurement(name: str, measurement: Any) -> None:
    checks.require_kind(name, measurement, Measurement, "a Measurement(operator, value, noise_std)")
    if not callable(measurement.operator):
        raise TypeError(f"{name}.operator must be a linear function, got {type(measurement.operator).__name__}")
    checks.require_real(f"{name}.value", measurement.value)
    checks.require_finite(f"{name}.value", measurement.value)
    checks.require_between(f"{name}.noise_std", measurement.noise_std, 0, checks.HUGE)


def _noisy_measurement(name: str, measurement: Any) -> None:
    _measurement(name, measurement)
    checks.require_positive(f"{name}.noise_std", measurement.noise_std)


LIKE_X = Contract(checks.output_like_x)
"""The contract of a field, which from then on gives values like x, or an error that names it."""
FLOW_MAP_LIKE_X = Contract(checks.flow_map_like_x)
"""The contract of a flow map, which from then on gives values like x, or an error that names it."""
GRID = Contract(checks.require_grid)
"""The contract of a grid of times, [n + 1], monotone in [0, 1] where concrete."""

Finite = Annotated[Number, Contract(checks.require_number)]
"""One real number, finite where concrete."""
Positive = Annotated[Number, Contract(checks.require_positive)]
"""One real number, positive and finite where concrete."""
FiniteSchedule = Annotated[Number | Schedule, scheduled(-checks.HUGE, checks.HUGE)]
"""A function of t, or one real number, finite where concrete."""
PositiveSchedule = Annotated[Number | Schedule, scheduled(checks.TINY, jnp.inf)]
"""A function of t, or one real number, positive where concrete; infinity for no bound."""
PositiveOrInf = Annotated[Number, between(checks.TINY, jnp.inf)]
"""One real number, positive where concrete; infinity for no bound."""
NonNegative = Annotated[Number, between(0, checks.HUGE)]
"""One real number, where concrete at least 0 and finite."""
UnitInterval = Annotated[Number, between(0, 1)]
"""One real number, in [0, 1] where concrete."""
Time = Annotated[Number, between(0, 1)]
"""One time, in [0, 1] where concrete, from noise (0) to data (1)."""
InnerTime = Annotated[Number, between(checks.TINY, checks.BELOW_ONE)]
"""One time, in (0, 1) where concrete."""
AnyCondition = Annotated[Condition, Contract(checks.require_condition)]
"""A condition y of one example, a label or a tree of at least one array, finite where concrete."""
AnyNull = Annotated[Null, Contract(checks.require_null)]
"""A condition that takes y's place on the null side, or a function y -> condition."""
FiniteFloat = Annotated[float, Contract(checks.require_number)]
"""A Python scalar, finite."""
PositiveFloat = Annotated[float, Contract(checks.require_positive)]
"""A Python scalar, positive and finite."""
UnitFloat = Annotated[float, between(0, 1)]
"""A Python scalar, in [0, 1]."""
PositiveInt = Annotated[int, at_least(1)]
"""An integer of at least 1 that is not traced."""
NonNegativeInt = Annotated[int, at_least(0)]
"""An integer of at least 0 that is not traced."""
PathLike = Annotated[Path | str, Contract(checks.require_pathlike)]
"""A path of a file or a folder."""
Key = Annotated[Array, Contract(checks.require_key)]
"""ONE key, as jax.random.key(0) is."""
RealArray = Annotated[Array, Contract(checks.require_real)]
"""An array of real numbers, or one number."""
ArrayTree = Annotated[Tree, Contract(checks.require_arrays)]
"""A tree of arrays or numbers."""
FloatTree = Annotated[Tree, Contract(checks.require_floats)]
"""A tree of at least one array, all of floating-point numbers."""
ShapedTree = Annotated[Tree, Contract(partial(checks.require_arrays, is_shape_enough=True))]
"""A tree of arrays, or of their shapes and types."""
TimeGrid = Annotated[Times, GRID]
"""A grid of times, [n + 1], monotone in [0, 1] where concrete."""
ConcreteTimeGrid = Annotated[Times, Contract(_concrete_grid)]
"""A grid of times, [n + 1], monotone in [0, 1], that is not traced."""
StateField = Annotated[Field, LIKE_X]
"""A field whose values are found to be like x."""
LabelledStateField = Annotated[LabelledField, LIKE_X]
"""A labelled field whose values are found to be like x."""
StateFlowMap = Annotated[FlowMap, FLOW_MAP_LIKE_X]
"""A flow map whose values are found to be like x."""
FieldLikeX = Annotated[AnyField, LIKE_X]
"""A field with or without a label, whose values are found to be like x; what it becomes has the same signature."""
Devices = Annotated[Sequence[jax.Device] | None, Contract(checks.require_devices)]
"""Devices, at least one and none of them twice; None for all."""
GuidanceScale = Annotated[Scale, Contract(checks.require_scale)]
"""A guidance scale of any kind, a number finite where concrete."""
AnyMeasurement = Annotated[Measurement, Contract(_measurement)]
"""A Measurement, whose noise may be 0."""
NoisyMeasurement = Annotated[Measurement, Contract(_noisy_measurement)]
"""A Measurement whose noise is positive where concrete, for what divides by it."""

_OF_TYPE: dict[Any, Check] = {
    GaussianPath: checks.require_path,
    Pair: checks.require_pair,
    Solver: instance(Solver, "a Solver, as solvers.heun(field) is").check,
    StatefulField: instance(StatefulField, "a StatefulField, as guidance.adaptive_projected(...) is").check,
    TrainState: instance(TrainState, "a TrainState, as training.init_state gives it").check,
    str: checks.require_str,
    Path: checks.require_pathlike,
}


def check_of(hint: Any) -> Check | None:
    """The check that an annotation asks for; None for a type that asks for none.

    >>> check_of(Time)("t", 2)
    Traceback (most recent call last):
    ValueError: t must be in [0, 1], got 2
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        found = [each.check for each in inner[1:] if isinstance(each, Contract)]
        return found[0] if found else check_of(inner[0])
    if isinstance(hint, TypeVar):
        return _only({check_of(each) for each in hint.__constraints__})
    if origin in _OF_ORIGIN:
        return _OF_ORIGIN[origin](inner)
    return checks.require_function if _is_protocol_of_functions(hint) else _OF_TYPE.get(hint)


def _only(found: set[Check | None]) -> Check | None:
    return found.pop() if len(found) == 1 else None


def _is_protocol_of_functions(hint: Any) -> bool:
    return getattr(hint, "_is_protocol", False) and "__call__" in vars(hint)


def _of_union(hints: tuple[Any, ...]) -> Check | None:
    check = _only({check_of(each) for each in hints if each is not types.NoneType}) if types.NoneType in hints else None
    return None if check is None else partial(_unless_none, check)


def _unless_none(check: Check, name: str, value: Any) -> Any:
    return None if value is None else check(name, value)


def _each(check: Check, name: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of ``*name``, each checked."""
    return tuple(value if (new := check(name, value)) is None else new for value in values)


def _of_tuple(hints: tuple[Any, ...]) -> Check | None:
    kind, *others = hints
    check = check_of(kind)
    if check is None or others not in ([Ellipsis], [kind] * len(others)):
        return None
    return partial(_items, check, None if Ellipsis in others else len(hints))


def _items(check: Check, length: int | None, name: str, values: Any) -> None:
    """Checks a tuple's items, which are of one kind; ``length`` is None for any number of at least one."""
    if not isinstance(values, tuple | list):
        raise TypeError(f"{name} must be a tuple, got {type(values).__name__}")
    if not values or length not in (None, len(values)):
        raise ValueError(f"{name} must be {length or 'at least one'}, got {len(values) or 'none'}")
    for index, value in enumerate(values):
        check(f"{name}[{index}]", value)


_OF_ORIGIN: dict[Any, Callable[[tuple[Any, ...]], Check | None]] = {
    typing.Union: _of_union,
    types.UnionType: _of_union,
    typing.Literal: lambda choices: one_of(*choices).check,
    tuple: _of_tuple,
    collections.abc.Callable: lambda _: checks.require_function,
}


def checks_of(function: Callable[..., Any]) -> dict[str, Check]:
    """The checks of a function's arguments, by name and in their order."""
    hints = typing.get_type_hints(function, include_extras=True)
    found: dict[str, Check] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        check = check_of(hints.get(name))
        if check is not None:
            found[name] = partial(_each, check) if parameter.kind is parameter.VAR_POSITIONAL else check
    return found


def checked(function: Callable[Args, Value]) -> Callable[Args, Value]:
    """The function, whose arguments are checked by the contracts of their annotations before its body runs (K3).

    >>> @checked
    ... def halved(value: Positive) -> Number:
    ...     return value / 2
    >>> halved(-1.0)
    Traceback (most recent call last):
    ValueError: value must be above 0 and finite, got -1.0
    """
    signature = inspect.signature(function)
    found = cache(lambda: checks_of(function))

    @wraps(function)
    def run(*args: Args.args, **kwargs: Args.kwargs) -> Value:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python's own words for what is missing
        given = bound.arguments
        for name, check in found().items():
            if name in given:
                value = check(name, given[name])
                given[name] = given[name] if value is None else value
        return function(*bound.args, **bound.kwargs)

    return run


def check_fields(record: Any, prefix: str = "") -> None:
    """Checks the fields of a record, a network's among them, by the contracts of their annotations.

    Errors call each field by its name, with the ``prefix`` before it.
    """
    for name, check in _checks_of_fields(type(record)).items():
        check(f"{prefix}{name}", getattr(record, name))


@cache
def _checks_of_fields(kind: type) -> dict[str, Check]:
    found = {name: check_of(hint) for name, hint in typing.get_type_hints(kind, include_extras=True).items()}
    return {name: check for name, check in found.items() if check is not None}

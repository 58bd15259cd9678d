"""No complaint of a value that an annotation allows, ONE clear error of any other before the body runs."""

import importlib
import inspect
import pkgutil
import re
import traceback
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import cfgjax
from cfgjax import contracts
from cfgjax.contracts import checks_of
from cfgjax.types import Pair
from tests.support.values import NAMED, NO_LABEL, values_of

ROOT = str(Path(cfgjax.__file__).parent)


def is_checked(function):
    """Whether ``checked`` is among the function's decorators."""
    layers = [function]
    while hasattr(layers[-1], "__wrapped__"):
        layers.append(layers[-1].__wrapped__)
    codes = (getattr(each, "__code__", None) for each in layers)
    return any(code is not None and code.co_qualname.startswith("checked.") for code in codes)


def _functions():
    """The public functions of the library that are checked, by their dotted names."""
    found = {}
    for info in pkgutil.walk_packages([ROOT], "cfgjax."):
        for name, value in vars(importlib.import_module(info.name)).items():
            is_own = getattr(value, "__module__", "") == info.name and inspect.isfunction(value)
            if is_own and not name.startswith("_") and is_checked(value):
                found[f"{info.name.removeprefix('cfgjax.')}.{name}"] = value
    return found


FUNCTIONS = _functions()
CHECKS = {name: checks_of(inspect.unwrap(function)) for name, function in FUNCTIONS.items()}


def _hints(function):
    return typing.get_type_hints(inspect.unwrap(function), include_extras=True)


def _values(name):
    """(argument, check, values) for every argument of a function whose contract has values."""
    hints = _hints(FUNCTIONS[name])
    for argument, check in CHECKS[name].items():
        values = values_of(hints[argument])
        is_several = inspect.signature(FUNCTIONS[name]).parameters[argument].kind is inspect.Parameter.VAR_POSITIONAL
        if values is not None and not is_several:
            yield argument, check, values


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_value_that_is_not_allowed_is_refused_by_name_in_one_line(name):
    for argument, check, values in _values(name):
        for value in values.refused:
            with pytest.raises((TypeError, ValueError)) as caught:
                check(argument, value)
            message = str(caught.value)
            assert re.search(rf"(?<!\w){argument}(?!\w)", message), f"{argument} = {value}: {message}"
            assert "\n" not in message and len(message) < 400, message
            assert traceback.extract_tb(caught.value.__traceback__)[-1].filename.startswith(ROOT), message


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_value_that_is_allowed_is_taken(name):
    for argument, check, values in _values(name):
        for value in values.allowed:
            check(argument, value)


def test_most_contracts_are_tried():
    arguments = [argument for name in FUNCTIONS for argument in CHECKS[name]]
    tried = [argument for name in FUNCTIONS for argument, _, _ in _values(name)]
    assert len(tried) > 0.8 * len(arguments)


def _usual(name, hint, default):
    """A value that is allowed, by the argument's name, annotation or default."""
    if name in NAMED:
        return NAMED[name]
    values = values_of(hint)
    if default is inspect.Parameter.empty and values is not None and values.allowed:
        return values.allowed[0]
    return None if default is inspect.Parameter.empty else default


def _arguments(function):
    hints = _hints(function)
    return {
        name: _usual(name, hints.get(name), each.default)
        for name, each in inspect.signature(function).parameters.items()
    }


POINT = {"x": jnp.array([1.0, -2.0]), "t": 0.25, "y": 1}
REFUSED = {
    "x": values_of(contracts.RealArray).refused,
    "t": values_of(contracts.Time).refused,
    "y": NO_LABEL,
}
POINTS = {"Field": ("x", "t"), "LabelledField": ("x", "t", "y"), "AnyField": ("x", "t", "y"), "Pair": ("x", "t", "y")}


def _returns(kinds):
    """The functions that make one of the kinds, but of several conditions, which a label is not."""
    signatures = {name: inspect.signature(function) for name, function in FUNCTIONS.items()}
    found = {name: each.return_annotation for name, each in signatures.items() if "scales" not in each.parameters}
    return sorted(name for name, annotation in found.items() if annotation in kinds)


def _fields(name):
    """The fields that a builder makes of usual arguments."""
    function = FUNCTIONS[name]
    made = function(**_arguments(function))
    return [each for each in made if each is not None] if isinstance(made, Pair) else [made]


@pytest.mark.parametrize("name", _returns(POINTS))
def test_a_field_refuses_what_is_no_state_no_time_or_no_label(name):
    point = {each: POINT[each] for each in POINTS[inspect.signature(FUNCTIONS[name]).return_annotation]}
    for field in _fields(name):
        assert all(jnp.all(jnp.isfinite(value)) for value in jax.tree.leaves(field(*point.values())))
        for argument in point:
            for value in REFUSED[argument]:
                with pytest.raises((TypeError, ValueError)) as caught:
                    field(*(point | {argument: value}).values())
                assert re.search(rf"(?<!\w){argument}(?!\w)", str(caught.value)), (
                    f"{argument} = {value}: {caught.value}"
                )
                assert "\n" not in str(caught.value)

"""What ``checked`` makes of annotations: which arguments it checks, in which order, and what the body receives."""

import inspect
import typing

import jax
import jax.numpy as jnp
import pytest

from cfgjax.contracts import (
    AnyCondition,
    Contract,
    Key,
    NonNegative,
    RealArray,
    StateField,
    UnitInterval,
    checked,
    whole,
)
from tests.contracts.test_values import is_checked
from tests.repo.test_architecture import _objects


@checked
def _built(field: StateField, *y: AnyCondition, rate: UnitInterval = 2.0, x: RealArray | None = None):
    """Doc."""
    return field, y, rate, x


def test_arguments_are_checked_in_their_order():
    @checked
    def two(first: NonNegative, second: NonNegative):
        return first, second

    with pytest.raises(ValueError, match=r"^first must be at least 0 and finite, got -1$"):
        two(second=-1, first=-1)
    with pytest.raises(ValueError, match=r"^second must be at least 0 and finite, got -2$"):
        two(1, second=-2)


def test_every_one_of_several_argumentsis_checked():
    field = lambda x, t: x  # noqa: E731
    assert _built(field, 1, jnp.int32(2))[1] == (1, 2)
    with pytest.raises(ValueError, match="y must be at least 0, got -3"):
        _built(field, 1, -3)


def test_none_passes_where_the_annotation_has_it_and_defaults_are_not_checked():
    assert _built(lambda x, t: x, x=None)[2:] == (2.0, None)
    with pytest.raises(TypeError, match="x must be an array of real numbers"):
        _built(lambda x, t: x, x="x")


def test_the_body_receives_a_field_whose_values_are_like_x():
    field = _built(lambda x, t: jnp.ones(()))[0]
    with pytest.raises(ValueError, match=r"field must give the shape \(2,\), got \(\)"):
        field(jnp.ones(2), 0.5)


def test_a_traced_number_passes_and_a_traced_type_does_not():
    assert jax.jit(lambda rate: _built(lambda x, t: x, rate=rate)[2])(3.0) == 3.0
    with pytest.raises(TypeError, match="y must be an integer"):
        jax.jit(lambda y: _built(lambda x, t: x, y)[1])(True)


def test_the_signature_is_the_written_one_and_a_missing_argument_has_pythons_words():
    assert list(inspect.signature(_built).parameters) == ["field", "y", "rate", "x"]
    assert (_built.__name__, _built.__doc__) == ("_built", "Doc.")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'field'"):
        _built()


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (2.0, TypeError), (jnp.ones(1, int), ValueError)])
def test_an_integer_from_1_on(value, error):
    @checked
    def count(number: typing.Annotated[int, whole(1)]):
        return number

    assert count(1) == 1
    with pytest.raises(error, match="number must be"):
        count(value)


def test_one_key_and_not_several():
    @checked
    def draw(key: Key):
        return key

    with pytest.raises(ValueError, match="key must be ONE key"):
        draw(jax.random.split(jax.random.key(0)))


def _has_a_contract(function):
    hints = typing.get_type_hints(function, include_extras=True)
    kinds = [hint for name, hint in hints.items() if name != "return"]
    return any(isinstance(each, Contract) for hint in kinds for each in getattr(hint, "__metadata__", ()))


def test_what_an_annotation_promisesis_checked():
    functions = {f"{module}.{name}": value for module, name, value in _objects() if inspect.isfunction(value)}
    promising = {name for name, value in functions.items() if _has_a_contract(value)}
    assert len(promising) > 60
    assert not {name for name in promising if not is_checked(functions[name])}

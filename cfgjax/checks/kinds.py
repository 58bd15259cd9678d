"""Checks of keys, functions, objects and names, with the lines (K1) and (K2) of ``cfgjax.checks``."""

from __future__ import annotations

import inspect
import os
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks.numbers import kind_of, short_repr
from cfgjax.types import Pair, StatefulField

_BECOMES_A_FIELD: dict[type, str] = {
    Pair: ", of which guidance.extrapolate(pair, scale) makes a field",
    StatefulField: ", which solvers.with_field_state(make_solver, field) takes",
}

THREEFRY = "threefry2x32"
"""The implementation of keys whose draws under ``jax.vmap`` are those of a loop over the keys."""

_OF_THE_FIRST_ROW = "rbg", "unsafe_rbg"
"""Those whose draws under ``jax.vmap`` are all made of the first row's key."""

_DEFAULT = "jax_default_prng_impl"
"""The setting of JAX that says of what implementation raw keys are."""


@cache
def _raw_key_shape(impl: str) -> tuple[int, ...]:
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl))).shape


def _is_typed(key: Any) -> bool:
    return isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def require_own_draws(name: str, keys: Any) -> None:
    """Raises ValueError for typed keys, one or many, whose draws under ``jax.vmap`` are not those of their own rows."""
    if _is_typed(keys):
        _require_own_draws(name, str(jax.random.key_impl(keys)))


def _require_own_draws(name: str, impl: str) -> None:
    if impl in _OF_THE_FIRST_ROW:
        allowed = f"of {THREEFRY}, as jax.random.key(0, impl={THREEFRY!r}) is"
        raise ValueError(f"{name} must be {allowed}, got {impl}: under jax.vmap all its rows draw by the first one")


def require_key(name: str, key: Any) -> None:
    """Raises TypeError for what is no key, of the typed or the raw kind, ValueError for several keys.

    ValueError, too, for a key of an implementation under which a batch's examples would not have draws of their own; a
    raw key is of the default one.
    """
    is_typed = _is_typed(key)
    is_raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == jnp.uint32
    if not (is_typed or is_raw):
        raise TypeError(f"{name} must be a key, as jax.random.key(0) is, got {kind_of(key)}")
    impl = str(jax.random.key_impl(key) if is_typed else getattr(jax.config, _DEFAULT))
    _require_own_draws(name, impl)
    if key.shape != (() if is_typed else _raw_key_shape(impl)):
        raise ValueError(f"{name} must be ONE key, as jax.random.key(0) is, got the shape {key.shape}: map over it")


def require_function(name: str, value: object) -> None:
    """Raises TypeError for what cannot be called; of what a field is made of, it says how."""
    if not callable(value):
        kind = type(value).__name__
        raise TypeError(f"{name} must be a function, got {kind}{_BECOMES_A_FIELD.get(type(value), '')}")


def require_path(name: str, path: object) -> None:
    """Raises TypeError for what has not the two schedules of a path; a maker that was not called has none."""
    if not (callable(getattr(path, "alpha", None)) and callable(getattr(path, "beta", None))):
        got = f"the function {path.__name__}: call it" if inspect.isfunction(path) else type(path).__name__
        raise TypeError(f"{name} must be a GaussianPath, as paths.linear() is, got {got}")


def require_kind(name: str, value: object, kind: type | tuple[type, ...], example: str) -> None:
    """Raises TypeError for what is not of a class; ``example`` says in words how to make one."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {example}, got {type(value).__name__}")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises ValueError for what is none of the names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {short_repr(repr(value))}")


def require_pair(name: str, pair: object) -> None:
    """Raises ValueError for what is no Pair: a field, or the Piecewise of pairs that a piecewise field makes."""
    if not isinstance(pair, Pair):
        raise ValueError(
            f"{name} must be a Pair, as guidance.pair(field, null) of a plain field is, got {type(pair).__name__}"
        )


def require_devices(name: str, devices: object) -> None:
    """Raises TypeError for what are no devices, ValueError for none or one of them twice; None stands for all."""
    if devices is None:
        return
    if not isinstance(devices, list | tuple) or not all(isinstance(device, jax.Device) for device in devices):
        raise TypeError(
            f"{name} must be a list of devices, as jax.devices() is, or None for all, got {short_repr(devices)}"
        )
    if not devices or len(set(devices)) < len(devices):
        raise ValueError(f"{name} must be at least one, and differ, got {short_repr(devices)}")


def require_str(name: str, value: object) -> None:
    """Raises TypeError for what is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {type(value).__name__} {short_repr(value)}")


def require_pathlike(name: str, path: object) -> None:
    """Raises TypeError for what is no path of a file or a folder."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"{name} must be a path, as pathlib.Path('folder') is, got {type(path).__name__} {short_repr(path)}"
        )

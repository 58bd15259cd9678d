"""Rules of the user's own: read from a file that the command line names, and looked at before they are laddered."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance, paths
from cfgjax.types import Array, GaussianPath, LabelledField, Pair, Scale
from experiments.cli.main import UserError
from experiments.ladder.problems import LABEL, Problem

Rule = Callable[[GaussianPath, Pair, Scale], LabelledField]
"""(path, pair, guidance scale) -> the guided field, as those of ``experiments.config.samplers.RULES``."""
TIMES = (0.0, 0.25, 0.5, 0.75, 31 / 32)
SCALES = (1.0, 2.0, 5.0)
NUM_STATES = 6
_LOOKED_AT, _ROUNDING = Problem(16), 1e-4


def load_rule(file: Path) -> Rule:
    """The function ``rule`` of a Python file.

    Raises:
        UserError: there is no such file or no such function in it, it does not run, or another module has its name.
    """
    if not file.is_file() or file.suffix != ".py":
        raise UserError(f"rule must be a Python file, got {file}")
    sys.path.insert(0, str(file.resolve().parent))
    try:
        module = importlib.import_module(file.stem)
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        raise UserError(f"rule {file} does not import: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    if Path(getattr(module, "__file__", None) or "").resolve() != file.resolve():
        raise UserError(f"rule must have a name that no other module has, got {file}")
    rule = getattr(module, "rule", None)
    if not callable(rule):
        kind = "none" if rule is None else type(rule).__name__
        raise UserError(f"rule must be a file with a function rule(path, pair, scale), got {file} with {kind}")
    return rule


def _value(rule: Rule, problem: Problem, x: Array, t: Array, scale: Array) -> Array:
    path = paths.linear()
    return rule(path, guidance.pair(problem.field(path), problem.null), scale)(x, t, LABEL)


def _shape_troubles(rule: Rule, problem: Problem) -> Iterator[str]:
    x, number = jax.ShapeDtypeStruct((problem.dimension,), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    value = jax.eval_shape(lambda *point: _value(rule, problem, *point), x, number, number)
    if not isinstance(value, jax.ShapeDtypeStruct) or (value.shape, value.dtype) != (x.shape, x.dtype):
        told = f"{value.dtype}{list(value.shape)}" if isinstance(value, jax.ShapeDtypeStruct) else type(value).__name__
        yield f"does not return like x: {told} for x float32[{problem.dimension}]"


def _value_troubles(rule: Rule) -> Iterator[str]:
    @jax.jit
    def both() -> tuple[Array, Array]:
        """The values of all states in one batch and of each alone, [times, scales, states, D]."""
        x = jax.random.normal(jax.random.key(0), (NUM_STATES, _LOOKED_AT.dimension))
        one = partial(_value, rule, _LOOKED_AT)
        t, scale = jnp.asarray(list(product(TIMES, SCALES))).T
        batch = jax.vmap(lambda t, scale: jax.vmap(lambda x: one(x, t, scale))(x))(t, scale)
        alone = jax.lax.map(lambda point: jax.lax.map(lambda x: one(x, *point), x), (t, scale))
        return batch, alone

    batch, alone = (np.asarray(each) for each in both())
    points = [f"t = {t:g}, w = {scale:g}" for t, scale in product(TIMES, SCALES)]
    for point, value in zip(points, alone, strict=True):
        if not np.isfinite(value).all():
            yield f"is not finite at {point}"
    error = np.abs(batch - alone).max(axis=(1, 2)) / np.maximum(np.abs(alone).max(axis=(1, 2)), 1)
    if not error.max() <= _ROUNDING:
        yield f"changes with the batch: by {error.max():.1e} of itself at {points[int(np.argmax(error))]}"


def trouble(rule: Rule, dimensions: tuple[int, ...]) -> str | None:
    """Why a rule cannot be laddered, in one line, or None: an error, values not like x, not finite, or of the batch."""
    try:
        shapes = (each for dimension in dimensions for each in _shape_troubles(rule, Problem(dimension)))
        return next(shapes, None) or next(_value_troubles(rule), None)
    except Exception as error:  # whatever the user's function raises
        return f"raises {type(error).__name__}: {textwrap.shorten(str(error), 200, placeholder=' ...')}"

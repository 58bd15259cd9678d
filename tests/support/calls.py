"""Calls of public functions with values that are allowed and values that are not, and what is due.

A ``Case`` is a public function with the choices for its arguments. Of allowed values it must give the right answer; of
one that is not allowed ONE clear error: a ValueError or TypeError of the library's own, in one line, that names the
argument. FUZZ_EXAMPLES multiplies the number of examples; FUZZ_COUNTS names a file to which their numbers are added.
"""

import atexit
import collections
import json
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import cfgjax
from cfgjax import guidance, mixtures, paths

ROOT = str(Path(cfgjax.__file__).parent)
COUNTS: collections.Counter = collections.Counter()
TIMES_MORE = int(os.environ.get("FUZZ_EXAMPLES", "1"))
NUM_CLASSES = 3
NAN, INF = float("nan"), float("inf")
KEY = jax.random.key(7)
MIXTURE = mixtures.ring(NUM_CLASSES)
PATH = paths.linear()


def _write_counts():
    if "FUZZ_COUNTS" in os.environ:
        with Path(os.environ["FUZZ_COUNTS"]).open("a") as file:
            file.writelines(json.dumps([*names, number]) + "\n" for names, number in COUNTS.items())


atexit.register(_write_counts)


class Choices(NamedTuple):
    """The values of an argument that are allowed, and those that are not."""

    allowed: tuple
    refused: tuple
    more: st.SearchStrategy | None = None

    def but(self, allowed=(), refused=()):
        """The choices with values moved to the other side, or added."""
        return self._replace(allowed=(*self.allowed, *allowed), refused=(*self.refused, *refused))

    def draw(self, is_refused):
        """A strategy for either."""
        if is_refused:
            return st.sampled_from(self.refused)
        listed = st.sampled_from(self.allowed)
        return listed if self.more is None else listed | self.more


class Case(NamedTuple):
    """A public function, called with one of the choices for each argument; ``expected`` of the same is the answer.

    ``named`` tells for an argument by which words a message may name it, where not by its own name.
    """

    name: str
    call: Callable[..., Any]
    choices: dict[str, Choices]
    expected: Callable[..., Any] | None = None
    named: dict[str, str] = {}  # noqa: RUF012
    tolerance: float = 1e-4


WORDS = (None, "", "three", 1j, object())
SEVERAL = (jnp.ones(1), np.full(2, 0.5), jnp.full((1, 1), 0.5), [0.5])
NOT_FINITE = (NAN, INF, -INF, np.float32(NAN), 1e39)


def numbers(*allowed, refused=(), low=None, high=None):
    """Numbers, among others those from low to high; NaN, arrays and words are none."""
    more = None if low is None else st.floats(low, high, width=32, allow_subnormal=False)
    typed = tuple(kind(each) for each in allowed[:1] for kind in (np.float64, jnp.float32, jnp.bfloat16))
    return Choices((*allowed, *typed), (NAN, jnp.float32(NAN), *refused, *SEVERAL, *WORDS), more)


TIME = numbers(0.25, 0, 1, 0.0, 1.0, jnp.int32(1), refused=(-0.1, 1.1, INF, np.float32(-1e-3), 2), low=0, high=1)
INNER = numbers(0.25, 0.5, 0.9, refused=(-0.1, 1.1, INF, 2), low=0.0625, high=0.9375)
SCALE = numbers(2.5, 0, 1, -1, 1e6, 0.0, 1.0, jnp.int32(2), refused=NOT_FINITE, low=-100, high=100)
SHARE = numbers(0.25, 0, 1, 0.5, refused=(-0.1, 1.1, INF), low=0, high=1)
POSITIVE = numbers(0.5, 1, 3.0, refused=(0, 0.0, -1.0, INF), low=0.0625, high=8)
COUNT = Choices((1, 2, 5, np.int64(3)), (0, -1, 2.5, 2.0, jnp.ones(2, int), NAN, True, *WORDS), st.integers(1, 6))
LABEL = Choices(
    (0, NUM_CLASSES - 1, np.int64(1), jnp.uint8(1), jnp.int32(0), np.int32(2)),
    (-1, jnp.int32(-1), 1.0, jnp.float32(1), NAN, True, jnp.ones(1, int), np.zeros(2, int), [1], *WORDS),
)
NULL_OR_LABEL = LABEL.but(allowed=(NUM_CLASSES,), refused=(NUM_CLASSES + 1, jnp.int32(1000)))
DATA_LABEL = LABEL.but(refused=(NUM_CLASSES, NUM_CLASSES + 1))
ANY_LABEL = LABEL.but(allowed=(NUM_CLASSES, 7))
CONDITION = Choices((*ANY_LABEL.allowed, 0.5, jnp.float32(2)), (-1, jnp.int32(-1), NAN, True, {}, {"a": "b"}, *WORDS))
RAW_KEY = jax.random.key_data(KEY)
SHARED_KEYS = tuple(jax.random.key(7, impl=impl) for impl in ("rbg", "unsafe_rbg"))
NO_KEY = (0, 1.5, jax.random.split(KEY, 2), jnp.zeros(2), jnp.zeros(2, int), jnp.zeros(3, jnp.uint32), [0, 1], *WORDS)
KEYS = Choices((KEY, RAW_KEY, np.asarray(RAW_KEY)), (*NO_KEY, *SHARED_KEYS))
PATHS = Choices((paths.linear(), paths.cosine(), paths.variance_preserving()), (paths.linear, "linear", None, (1, 2)))
FUNCTIONS = (None, "", 3, 1.5, (), jnp.ones(2))


def typed(values, kinds=(np.float64, np.float32, jnp.float32, jnp.float16, jnp.bfloat16, jnp.int32, np.int8)):
    """An array in each of the types."""
    return tuple(
        np.asarray(values, kind) if isinstance(kind, type) and kind.__module__ == "numpy" else jnp.asarray(values, kind)
        for kind in kinds
    )


NO_ARRAY = (np.ones(2, complex), jnp.ones(2, jnp.complex64), np.array(["a", "b"]), KEY, np.ones(2, bool), *WORDS[:3])
STATE = Choices(
    typed([1, -2]), (*NO_ARRAY, jnp.ones(3), jnp.ones((2, 1)), jnp.float32(1), jnp.ones(0), np.ones(1), 1.0)
)
ANY_STATE = Choices(
    (*typed([1, -2]), jnp.float32(0.5), jnp.ones(1), jnp.ones(0), np.ones((2, 3)), jnp.ones((1, 2, 1), jnp.bfloat16)),
    NO_ARRAY,
)
LIKE = Choices(
    (lambda x: x, lambda x: np.full(np.shape(x), 0.5, np.float32), lambda x: np.zeros(np.shape(x), int)),
    (
        lambda x: jnp.ones((*np.shape(x), 1)),
        lambda x: jnp.ones((3, *np.shape(x))),
        lambda x: np.zeros(np.shape(x), complex),
        lambda x: None,
        lambda x: "value",
    ),
)
FIELD = Choices(
    (
        lambda x, t, *y: -x,
        lambda x, t, *y: jnp.zeros_like(x),
        lambda x, t, *y: jnp.ones(jnp.shape(x), jnp.bfloat16),
        lambda x, t, *y: np.zeros(jnp.shape(x), int),
    ),
    (
        *FUNCTIONS,
        lambda x, t, *y: jnp.ones((*jnp.shape(x), 1)),
        lambda x, t, *y: jnp.ones((3, *jnp.shape(x))),
        lambda x, t, *y: 1j * x,
        lambda x, t, *y: None,
        lambda x, t, *y: "value",
    ),
)
UP = jnp.linspace(0, 1, 4)
NO_GRID = (
    jnp.ones((2, 2)),
    jnp.zeros(1),
    jnp.zeros(0),
    jnp.float32(0.5),
    np.array([0, 1]),
    jnp.array([0, 0.5, 0.5, 1]),
    jnp.array([0, 0.7, 0.4, 1]),
    jnp.array([0, NAN, 1]),
    np.array([0, 0.5, 0.5 + 1e-12, 1]),
    jnp.array([-0.1, 0.5, 1]),
    jnp.array([0, 0.5, 1.1]),
    np.array([0j, 1.0]),
    *WORDS[:3],
    0.5,
)
GRID = Choices((UP, np.linspace(0, 1, 3), jnp.array([0.25, 0.5]), UP.astype(jnp.bfloat16)), (*NO_GRID, UP[::-1]))
DOWN_GRID = Choices((UP[::-1], np.linspace(0.75, 0, 3)), (*NO_GRID, UP))


def plain(value):
    """The value as float64."""
    return np.asarray(value).astype(np.float64)


def telling(x, t, y):
    """A field that tells every label: (1 + y) (1 + t) x, of x's own type where that is a float."""
    return (jnp.float32(1) + y) * (jnp.float32(1) + t) * x


def guided_telling(scale, x, t, y, null=NUM_CLASSES):
    """(G1) of ``telling`` in double precision."""
    return (1 + plain(null) + plain(scale) * (plain(y) - plain(null))) * (1 + plain(t)) * plain(x)


POINT = {"x": STATE._replace(refused=()), "t": INNER._replace(refused=()), "y": NULL_OR_LABEL._replace(refused=())}
SCALES = SCALE.but(
    allowed=(lambda t: 1 + t, lambda t, y: y - t, guidance.interval(3.0, 0.2, 0.8)),
    refused=(lambda t: jnp.ones(2), lambda t: None, lambda t, y: "scale"),
)
ORACLE = MIXTURE.vector_field(PATH)
PLAIN_FIELD = Choices((telling, ORACLE), FIELD.refused)


def _is_coarse(values):
    return any(getattr(value, "dtype", None) in (jnp.float16, jnp.bfloat16) for value in values)


def _require_clear(error, names):
    """The library's own error, in one line, that names one of the arguments."""
    message = str(error)
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    assert place.startswith(ROOT), f"raised in {place}: {message}"
    assert any(re.search(rf"(?<!\w)(?:{name})(?!\w)", message) for name in names), f"{names} not named: {message}"
    assert "\n" not in message and len(message) < 400, f"not one line: {message}"


def _require_right(case, found, values):
    leaves = [leaf for leaf in jax.tree.leaves(found) if isinstance(leaf, jax.Array | np.ndarray | np.generic | float)]
    leaves = [leaf for leaf in leaves if not jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)]
    assert all(np.all(np.isfinite(plain(leaf))) for leaf in leaves), f"not finite: {found}"
    assert not any(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float64 for leaf in leaves)
    if case.expected is not None:
        wanted = jax.tree.leaves(case.expected(**values))
        tolerance = 5e-2 if _is_coarse(jax.tree.leaves(values)) else case.tolerance
        for leaf, value in zip(jax.tree.leaves(found), wanted, strict=True):
            assert np.shape(leaf) == np.shape(value), f"shape {np.shape(leaf)} for {np.shape(value)}"
            np.testing.assert_allclose(plain(leaf), plain(value), rtol=tolerance, atol=tolerance)


def _outcome(case, values, refused):
    """Calls once: "answer" or "error", whichever is due, or an AssertionError that tells what came instead."""
    try:
        found = case.call(**values)
    except (ValueError, TypeError) as error:
        assert refused, f"refuses what is allowed: {error}"
        _require_clear(error, [case.named.get(name, name) for name in refused])
        return "error"
    assert not refused, f"takes what is not allowed in silence, and gives {found}"
    _require_right(case, found, values)
    return "answer"


def examples(number):
    """The settings of a property that takes so many examples, or FUZZ_EXAMPLES times as many."""
    return hypothesis.settings(
        max_examples=number * TIMES_MORE,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def _check(case, data):
    """One example: arguments of which up to two are not allowed."""
    refusable = [name for name, choices in case.choices.items() if choices.refused]
    names = st.sets(st.sampled_from(refusable), max_size=2) if refusable else st.just(set())
    refused = data.draw(names, label="refused")
    values = {name: data.draw(choices.draw(name in refused), label=name) for name, choices in case.choices.items()}
    COUNTS[case.name, _outcome(case, values, refused)] += 1


def fuzz(case):
    """Tries two examples of a case, or FUZZ_EXAMPLES times as many."""

    @hypothesis.given(data=st.data())
    @examples(2)
    def tried(data):
        _check(case, data)

    tried()

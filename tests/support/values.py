"""Values of arguments, allowed and refused, by the contract of their annotation: what the fuzz of contracts draws from.

``values_of`` an annotation follows its contract: a range gives its own edges and what lies beyond them. A kind of
object has a row in OBJECTS or CHECKED; an argument whose annotation does not say enough a value by its name in NAMED.
"""

import collections.abc
import math
import types
import typing
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import checks, contracts, guidance, mixtures, paths, solvers
from cfgjax.flow_maps import Gaussian
from cfgjax.guidance.reuse import require_schedule
from cfgjax.solvers.population import ParticleCarry
from cfgjax.steering import operators
from cfgjax.steering.rewards import scalar_output
from cfgjax.types import Field, GaussianPath, GuidedField, LabelledField, Measurement, Pair, Solver

NUM_CLASSES, NULL = 3, 3
NAN, INF = float("nan"), float("inf")
KEY = jax.random.key(7)
PATH, MIXTURE = paths.linear(), mixtures.ring(NUM_CLASSES)
ORACLE = MIXTURE.vector_field(PATH)
MEASUREMENT = Measurement(operators.matrix(np.ones((1, 2))), jnp.ones(1), 0.5)


PARTICLES = ParticleCarry(
    solvers.sde.State(jnp.ones((3, 2))), jnp.zeros(3), jnp.float32(3), jnp.float32(0), jnp.asarray(2), jnp.float32(3)
)


class Values(NamedTuple):
    """What is allowed, the usual value first, and what is refused."""

    allowed: tuple
    refused: tuple


WORDS = (None, "", "three", 1j, object())
SEVERAL = (jnp.ones(1), np.full(2, 0.5), jnp.full((1, 1), 0.5), [0.5])
NO_FUNCTION = (None, "", 3, 1.5, (), jnp.ones(2))
NO_ARRAY = (np.ones(2, complex), np.array(["a", "b"]), KEY, np.ones(2, bool), *WORDS[:3])
SHARED_KEYS = tuple(jax.random.key(7, impl=impl) for impl in ("rbg", "unsafe_rbg"))
NO_KEY = (0, 1.5, jax.random.split(KEY, 2), jnp.zeros(2), jnp.zeros(3, jnp.uint32), [0, 1], *WORDS, *SHARED_KEYS)
NO_LABEL = (-1, jnp.int32(-1), 1.0, jnp.float32(1), NAN, True, jnp.ones(1, int), np.zeros(2, int), [1], *WORDS)
NO_GRID = (
    *(jnp.ones((2, 2)), jnp.zeros(1), jnp.zeros(0), jnp.float32(0.5), np.array([0, 1]), 0.5, np.array([0j, 1.0])),
    *(jnp.array([0, 0.5, 0.5, 1]), jnp.array([0, 0.7, 0.4, 1]), jnp.array([0, NAN, 1]), jnp.array([-0.1, 0.5, 1])),
    *(np.array([0, 0.5, 0.5 + 1e-12, 1]), jnp.array([0, 0.5, 1.1]), *WORDS[:3]),
)


def scaled(x, t, y):
    """A field that depends on all its arguments: (1 + y) (1 + t) x."""
    return (1.0 + y) * (1.0 + t) * x


def wrong_values(like):
    """Fields whose values are not like x, made of a signature."""
    return (
        *NO_FUNCTION,
        *(
            like(give)
            for give in (
                lambda x: jnp.ones((*jnp.shape(x), 1)),
                lambda x: jnp.ones((3, *jnp.shape(x))),
                lambda x: 1j * x,
                lambda x: None,
                lambda x: "value",
            )
        ),
    )


SCHEDULE = guidance.reuse_every(np.linspace(0, 1, 3), 2)

CHECKED = {
    checks.require_number: Values((0.5, 0, 2, np.float64(1), jnp.int32(1)), (NAN, INF, 1e39, *SEVERAL, *WORDS)),
    checks.require_positive: Values((0.5, 1, np.float32(2)), (0, -1.0, NAN, INF, *SEVERAL, *WORDS)),
    checks.require_condition: Values(
        (1, 0, jnp.uint8(1), 0.5, jnp.ones(3), {"label": 1, "text": (jnp.ones((2, 3)), jnp.ones(2, bool))}),
        (-1, jnp.int32(-1), NAN, True, {}, (), {"a": NAN}, {"a": "three"}, np.ones(2, complex), KEY, *WORDS),
    ),
    checks.require_null: Values(
        (1, jnp.uint8(1), 0.5, {"label": 3, "text": jnp.ones((2, 3))}, lambda y: y),
        (-1, jnp.int32(-1), NAN, True, {}, {"a": "three"}, np.ones(2, complex), *WORDS),
    ),
    checks.require_label: Values((1, 0, np.int64(1), jnp.uint8(1), jnp.int32(0)), NO_LABEL),
    checks.require_key: Values((KEY, jax.random.key_data(KEY)), NO_KEY),
    checks.require_real: Values((jnp.array([1.0, -2.0]), np.ones(2), jnp.ones(2, jnp.bfloat16)), NO_ARRAY),
    checks.require_finite: Values((np.array([1.0, -2.0]), jnp.ones(2)), (*NO_ARRAY, np.full(2, NAN), np.full(2, INF))),
    checks.require_arrays: Values(
        ({"a": jnp.ones(2)}, [np.ones(2), 1.0]), ("three", {"a": "three"}, {"a": object()}, [jnp.ones(2), "b"])
    ),
    require_schedule: Values(
        (SCHEDULE, SCHEDULE._replace(order=0, evaluated=["every", "none"])),
        (*WORDS, 2, (0.5,), SCHEDULE._replace(order=3), SCHEDULE._replace(evaluated=("first",)), SCHEDULE[:2]),
    ),
    scalar_output: Values((lambda x, t: t * jnp.sum(x),), NO_FUNCTION),
    checks.require_grid: Values((jnp.linspace(0, 1, 4), np.linspace(0, 1, 3)), NO_GRID),
    checks.require_scale: Values(
        (2.5, 0, 1.0, jnp.int32(2), lambda t: 1 + t, lambda t, y: y - t, guidance.interval(3.0, 0.2, 0.8)),
        (NAN, INF, -INF, 1e39, *SEVERAL, *WORDS),
    ),
}
"""The check of a contract without numbers of its own -> values."""

FUNCTIONS = {
    Field: guidance.given(ORACLE, 1),
    LabelledField: ORACLE,
    GuidedField: lambda x, t, y, w: guidance.classifier_free(ORACLE, w, NULL)(x, t, y),
}
"""A type of function -> one of them."""

OBJECTS = {
    GaussianPath: Values((PATH, paths.cosine()), (paths.linear, "linear", None, (1, 2))),
    Pair: Values((guidance.pair(ORACLE, NULL),), (scaled, None, "pair", (1, 2))),
    Solver: Values((solvers.heun(FUNCTIONS[Field]),), (None, "heun", solvers.heun, 3)),
    ParticleCarry: Values((PARTICLES,), (None, jnp.ones((2, 2)), (jnp.ones((2, 2)), jnp.zeros(2)))),
    Gaussian: Values(
        (Gaussian(jnp.zeros(2), jnp.ones(2)),),
        (
            (jnp.zeros(2), jnp.ones(2)),
            Gaussian(jnp.zeros(2), jnp.array([1.0, 0.0])),
            Gaussian(jnp.array([0, jnp.inf]), jnp.ones(2)),
            Gaussian("mean", jnp.ones(2)),
        ),
    ),
    str: Values(("name",), (None, 3, 1.5, b"name", ["name"])),
    Path: Values((Path("folder"), "folder"), (None, 3, 1.5, ["folder"])),
}
"""A type -> values."""


def _ends(low, high):
    under = low - 0.5 if low > 0.25 else -0.5 if low >= 0 else -INF if low <= -checks.HUGE else low - 1
    below = () if low == -INF else (under,)
    above = () if high == INF else (INF,) if high >= checks.HUGE else (high + 0.5,)
    return (*below, *above)


def _range(low, high=INF):
    edges = [edge for edge in (low, high) if abs(edge) < 1e30 and edge not in (checks.TINY, checks.BELOW_ONE)]
    middle = 0.5 * (max(low, -1.0) + min(high, 2.0))
    usual = tuple(kind(middle) for kind in (float, np.float64, jnp.float32))
    return Values((*usual, *edges), (*_ends(low, high), NAN, *SEVERAL, *WORDS))


def _integer(low, high=INF):
    above = () if high == INF else (high + 1,)
    usual = int(low)
    return Values(
        (usual, np.int64(usual), jnp.int32(usual + 1)), (usual - 1, *above, usual + 0.5, NAN, *SEVERAL, *WORDS)
    )


def _object(kind, hint):
    values = OBJECTS.get(hint, Values((), (None, "object", object())))
    refused = (each for each in (*values.refused, *values.allowed) if not isinstance(each, kind))
    return Values(tuple(each for each in values.allowed if isinstance(each, kind)), tuple(refused))


def _rows(least, ndim):
    shape = {None: (9, 2), 1: (9,), 2: (9, 2)}[ndim]
    usual = np.random.default_rng(0).normal(size=shape)
    few = (np.ones((least - 1, *shape[1:])),) if least > 1 else ()
    other = (np.ones((*shape, 1)),) if ndim else ()
    refused = (*few, *other, 1.0, None, "set", np.full(shape, NAN), np.full(shape, INF), np.ones(shape, complex))
    return Values((usual, usual.astype(np.float32), usual.tolist()), refused)


def _count(least, most):
    above = () if math.isinf(most) else (most + 1,)
    return Values((least, least + 1, np.int64(least)), (least - 1, *above, 2.5, NAN, True, jnp.ones(2, int), *WORDS))


def _schedule(low, high):
    """Numbers in the range, and functions of t alone."""
    numbers = _range(low, high)
    return Values((*numbers.allowed, lambda t: 0.5 + t), (*numbers.refused, lambda t, y: t))


BY_NUMBERS = {
    checks.require_between: _range,
    checks.require_schedule: _schedule,
    checks.require_whole: _integer,
    checks.require_count: _count,
    checks.as_float64_rows: _rows,
}
"""The check of a contract with numbers of its own -> what makes values of them."""


def _of_partial(check, inner):
    if check.func is checks.require_kind:
        return _object(check.keywords["kind"], inner)
    if check.func is contracts._record:
        return _object(check.args[0], inner)
    if check.func is checks.require_choice:
        return Values(check.keywords["choices"], (None, "", "none of them", 3))
    return BY_NUMBERS[check.func](**check.keywords) if check.func in BY_NUMBERS else None


def _of_function(hint):
    made = FUNCTIONS.get(hint)
    return Values(() if made is None else (made,), NO_FUNCTION)


def _like_x(inner):
    count = len(typing.get_args(inner)[0]) if inner in FUNCTIONS else 3

    def like(give):
        return (lambda x, t: give(x)) if count == 2 else (lambda x, t, *y: give(x))

    usual = FUNCTIONS.get(inner, ORACLE)
    return Values((usual, like(lambda x: -x)), wrong_values(like)[: len(NO_FUNCTION)])


def _flow_maps():
    def like(give):
        return lambda x, t, r, *rest: give(x)

    return Values((like(lambda x: -x), like(jnp.ones_like)), wrong_values(like)[: len(NO_FUNCTION)])


def _flow_map(x, t, r, *rest):
    """A flow map of any further arguments, which depends on x, t and r."""
    return (1.0 + t * r) * x


def _of_contract(check, inner):
    if check is checks.output_like_x:
        return _like_x(inner)
    if check is checks.flow_map_like_x:
        return _flow_maps()
        return Values((_flow_map, lambda x, t, r, *rest: -x), NO_FUNCTION)
    return CHECKED.get(check) or (_of_partial(check, inner) if isinstance(check, partial) else None)


def _of_union(inner):
    others = [each for each in inner if each is not types.NoneType]
    found = values_of(others[0]) if len(others) == 1 else None
    return found and Values((None, *found.allowed), tuple(each for each in found.refused if each is not None))


def values_of(hint):
    """The values of an annotation; None for one without a contract."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, typing.TypeVar):
        return values_of(hint.__constraints__[-1]) if hint.__constraints__ else None
    if origin is Annotated:
        found = [each.check for each in inner[1:] if isinstance(each, contracts.Contract)]
        return _of_contract(found[0], inner[0]) if found else values_of(inner[0])
    if origin in (typing.Union, types.UnionType):
        return _of_union(inner)
    return _of_function(hint) if origin is collections.abc.Callable else OBJECTS.get(hint)


X = jnp.array([1.0, -2.0])
POINT = (X, jnp.float32(0.25), jnp.float32(0.75))
NAMED = {
    "num_classes": NUM_CLASSES,
    "make_solver": solvers.heun,
    "diffusion": solvers.constant(0.5),
    "log_classifier": MIXTURE.label_log_probs(PATH),
    "start": 0.25,
    "x": X,
    "z": X,
    "conditional": X,
    "flow_map": lambda x, t, r, *rest: (1.0 + t * r) * x,
    "point": POINT,
    "tangents": POINT,
    "t": 0.25,
    "y": 1,
    "null": NULL,
    "labels": [0, 1],
    "conditions": [0, 1],
    "scales": {"a": 2.0},
    "order": ("a",),
    "matrix": np.eye(2),
    "measurement": MEASUREMENT,
    "correlation": lambda t, t_next: 0.5,
    "refinement": lambda key, estimate, t: 0.5 * estimate,
    "step_size": lambda t: 0.01,
    "operator": lambda z: 2.0 * z,
    "log_likelihood": lambda z: -0.5 * jnp.sum(z**2),
    "log_probs": lambda z: jax.nn.log_softmax(jnp.stack([z[0], z[1], z[0] * z[1]])),
    "projection": lambda z: jnp.clip(z, -0.5, 0.5),
    "mask": jnp.array([1.0, 0.0]),
    "noise_std": 0.5,
    "particles": PARTICLES,
    "reward": lambda x, t: -t * jnp.sum(x**2),
    "solver": solvers.euler_maruyama(PATH, guidance.given(ORACLE, 1), solvers.constant(0.5)),
    "initial": solvers.heun(guidance.given(ORACLE, 1)),
    "refining": solvers.euler(guidance.given(ORACLE, 1)),
    "refining_ts": jnp.linspace(0.5, 1, 3),
    "weights": [0.5, 0.5],
    "low_pass": guidance.filters.mean_low,
    "both": guidance.pair(ORACLE, NULL).both,
    "scale_of": lambda t, y, gap: 1.0 + gap,
}
"""The name of an argument -> the value to use for it, whatever its annotation."""

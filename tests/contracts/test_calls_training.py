"""Calls of training, sharding and averages: a step that cannot be meant is refused when it is made."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import training
from cfgjax.training import fsdp, posthoc_ema
from cfgjax.types import EMAProfile
from tests.support.calls import COUNT, FUNCTIONS, INF, KEY, NAN, WORDS, Case, Choices, fuzz, plain

OPTIMIZER = optax.sgd(0.5)
PARAMS = {"a": jnp.ones(2), "b": jnp.zeros((2, 2))}
STATE = training.init_state(PARAMS, OPTIMIZER, KEY)
BATCH = jnp.arange(8.0).reshape(4, 2)


def _loss(params, key, example):
    return jnp.sum((params["a"] - example) ** 2)


def _step(state, batch, source=None, *, axis_name=None):
    return training.make_step(_loss, OPTIMIZER, 0.9)(state, batch, source, axis_name=axis_name)


LOSSES = Choices((_loss, lambda params, key, example: 0.0), FUNCTIONS)
GIVES = (lambda *_: jnp.ones(2), lambda *_: None, lambda *_: "value", lambda *_: (jnp.ones(()), {}), lambda *_: 1j)
USED_LOSSES = LOSSES._replace(allowed=(_loss,)).but(refused=GIVES)
CHUNKS = COUNT._replace(allowed=(1, 2, np.int64(4)), more=None)
STATES = Choices((STATE,), (None, PARAMS, 3, "state", (STATE,)))
BATCHES = Choices((BATCH, np.asarray(BATCH)), ({}, None, 1.0, jnp.ones((0, 2)), "batch"))
STEPS = Choices((_step,), FUNCTIONS)
OPTIONS = Choices((None, {}), (3, "fast", [1], ("xla", 1)))
SHAPED = Choices((STATE, jax.eval_shape(lambda: STATE), ()), ("a", {"a": object()}, {"a": 3.0}, [None, "three"]))
LEAST = Choices((0, 1, 16, np.int64(3)), (-1, 2.5, NAN, True, jnp.ones(2, int), *WORDS))
MESH = Choices((fsdp.mesh_of(jax.devices()[:2]),), (None, 2, "mesh", jax.devices()))


def _made(maker, *args):
    """A function that is made and called."""
    return maker(*args)(STATE, BATCH)


def _shardings(state):
    return fsdp.shardings(state, fsdp.mesh_of())


WIDTH = Choices(
    (0.1, 0.05, np.float64(0.2), np.float32(0.1)), (0, -0.1, 0.3, 1, NAN, INF, *WORDS, jnp.ones(1) / 9, [0.1])
)
KEPT = [EMAProfile(step, width) for step in (500, 1000) for width in (0.05, 0.1)]
SNAPSHOTS = Choices(
    (KEPT, tuple(KEPT), [(500, 0.1), (1000, 0.1), (1000, 0.2), (800, 0.05)]),
    (
        KEPT[:1],
        [],
        None,
        3,
        "kept",
        [*KEPT, None],
        [*KEPT, 3],
        [*KEPT, (1, 2, 3)],
        [*KEPT, EMAProfile(NAN, 0.1)],
        [*KEPT, EMAProfile("1", 0.1)],
        [*KEPT, EMAProfile(1100, "0.1")],
        KEPT * 2,
    ),
)
WANTED = Choices(
    (KEPT[-1], EMAProfile(900, 0.07), (1000, 0.2)),
    (
        None,
        3,
        "wanted",
        (1,),
        EMAProfile(2000, 0.1),
        EMAProfile(NAN, 0.1),
        EMAProfile(0, 0.1),
        EMAProfile(1000, NAN),
        EMAProfile(1000, 1j),
    ),
)
ANY_OF_THEM = {"snapshots": r"snapshots|snapshots\[\d+\]\.\w+|steps|width", "wanted": r"wanted|wanted\.\w+|width"}
COEFFICIENTS = Choices(
    (np.array([1.0, 0.5, -0.5, 0.0]), [0.25] * 4, jnp.ones(4)),
    ([1.0], np.ones((4, 1)), [NAN] * 4, [INF, 1, 1, 1], "ones", None, 1.0, [1j] * 4, object()),
)
AVERAGES = Choices(
    ([{"a": np.full(2, float(i))} for i in range(4)], tuple({"a": jnp.full(2, float(i))} for i in range(4))),
    ([{"a": np.ones(2)}] * 3, [{"a": np.ones(2)}] * 5, [], None, 3, [{"a": "three"}] * 4, [{"a": object()}] * 4, 1j),
)

CASES = [
    Case("training.eval_params", training.eval_params, {"state": STATES}, lambda state: state.params),
    Case(
        "training.make_value_and_grad",
        lambda loss, num_microbatches: _made(training.make_value_and_grad, loss, num_microbatches),
        {"loss": USED_LOSSES, "num_microbatches": CHUNKS},
    ),
    Case(
        "training.make_eval_step, at the call",
        lambda loss, num_microbatches: _made(training.make_eval_step, loss, num_microbatches),
        {"loss": USED_LOSSES, "num_microbatches": CHUNKS},
    ),
    Case(
        "training.make_step, at the call",
        lambda state, batch, loss, ema_decay: training.make_step(loss, OPTIMIZER, ema_decay)(state, batch),
        {
            "state": STATES,
            "batch": BATCHES,
            "loss": USED_LOSSES,
            "ema_decay": Choices(
                (lambda step: 0.5, 0.9), (lambda step: None, lambda step: jnp.ones(2), lambda step: 1j)
            ),
        },
    ),
    Case(
        "training.make_step, with a source",
        lambda batch: training.make_step(_loss, OPTIMIZER, 0.9)(STATE, batch, BATCH),
        {
            "batch": Choices(
                (jnp.arange(2), np.array([3, 0])), ({}, jnp.ones(2), jnp.int32(1), {"a": "b"}, jnp.ones(2, bool))
            )
        },
    ),
    Case(
        "training.parallel, at the call",
        lambda state: training.parallel(_step, jax.devices()[:1], donate=False)(state, training.shard(BATCH, 1)),
        {"state": STATES},
    ),
    Case(
        "fsdp.bytes_per_device",
        lambda state, placed: fsdp.bytes_per_device(state, placed),
        {
            "state": SHAPED._replace(allowed=(STATE, jax.eval_shape(lambda: STATE))),
            "placed": Choices((_shardings(STATE),), (None, {}, 3, STATE, "placed", _shardings(PARAMS))),
        },
        named={"state": "state|placed"},
    ),
    Case(
        "fsdp.program",
        lambda **given: (fsdp.program(**given), 0)[1],
        {
            "step": STEPS,
            "state": Choices((STATE, jax.eval_shape(lambda: STATE)), STATES.refused),
            "batch": Choices((BATCH[:2, None],), ({}, "batch", {"a": "b"}, 1.0, BATCH)),
            "mesh": MESH._replace(refused=MESH.refused[1:]),
            "compiler_options": OPTIONS,
            "least": LEAST,
        },
    ),
    Case(
        "fsdp.fsdp, at the call",
        lambda state, batch: fsdp.fsdp(_step, jax.devices()[:1], donate=False)(state, batch),
        {"state": STATES, "batch": Choices((BATCH[None],), ({}, "batch", {"a": "b"}, 1.0, BATCH[:3, None]))},
    ),
    Case(
        "posthoc_ema.power_function_decay",
        lambda width, step: posthoc_ema.power_function_decay(width)(step),
        {"width": WIDTH, "step": Choices((0, 3, jnp.int32(9), 2.5), (-1, NAN, *WORDS, jnp.ones(2)))},
    ),
    Case(
        "posthoc_ema.weights",
        lambda snapshots, wanted: float(np.sum(posthoc_ema.weights(snapshots, wanted))),
        {"snapshots": SNAPSHOTS, "wanted": WANTED},
        lambda snapshots, wanted: 1.0,
        ANY_OF_THEM,
    ),
    Case(
        "posthoc_ema.profile_error",
        posthoc_ema.profile_error,
        {"snapshots": SNAPSHOTS, "wanted": WANTED, "coefficients": COEFFICIENTS},
        named=ANY_OF_THEM,
    ),
    Case(
        "posthoc_ema.reconstruct",
        lambda snapshots, coefficients: posthoc_ema.reconstruct(snapshots, coefficients)["a"],
        {"snapshots": AVERAGES, "coefficients": COEFFICIENTS},
        lambda snapshots, coefficients: np.full(2, plain(coefficients) @ np.arange(4.0)),
        {"coefficients": "coefficients|snapshots"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)

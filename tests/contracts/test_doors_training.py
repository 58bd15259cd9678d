"""The doors of training, sharding and averages: a step that cannot be meant is refused when it is made."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import training
from cfgjax.training import fsdp, posthoc_ema
from cfgjax.types import EMAProfile
from tests.support.doors import COUNT, FUNCTIONS, INF, KEY, KEYS, NAN, SHARE, WORDS, Door, Kind, knock_often, plain

OPTIMIZER = optax.sgd(0.5)
PARAMS = {"a": jnp.ones(2), "b": jnp.zeros((2, 2))}
STATE = training.init_state(PARAMS, OPTIMIZER, KEY)
BATCH = jnp.arange(8.0).reshape(4, 2)


def _loss(params, key, example):
    return jnp.sum((params["a"] - example) ** 2)


def _step(state, batch, source=None, *, axis_name=None):
    return training.make_step(_loss, OPTIMIZER, 0.9)(state, batch, source, axis_name=axis_name)


NO_OPTIMIZER = (None, "adam", 3, lambda x: x, optax.sgd, {}, (1, 2))
OPTIMIZERS = Kind((OPTIMIZER, optax.adam(1e-3), optax.apply_if_finite(OPTIMIZER, 3)), NO_OPTIMIZER)
TREES = Kind(
    (PARAMS, [jnp.ones(2)], jnp.ones(()), {"a": np.ones(2)}, {"a": jnp.ones(2, jnp.bfloat16)}),
    (None, {}, {"a": "three"}, {"a": object()}, {"a": jnp.ones(2), "b": jnp.arange(2)}, jnp.ones(2, complex), "three"),
)
LOSSES = Kind((_loss, lambda params, key, example: 0.0), FUNCTIONS)
GIVES = (lambda *_: jnp.ones(2), lambda *_: None, lambda *_: "value", lambda *_: (jnp.ones(()), {}), lambda *_: 1j)
USED_LOSSES = LOSSES._replace(allowed=(_loss,)).but(refused=GIVES)
DECAYS = SHARE.but(allowed=(training.ema_warmup(0.9), lambda step: 0.5), refused=("0.9", {}, True))
ALL_DECAYS = Kind(
    ((), (0.9,), [0.5, posthoc_ema.power_function_decay(0.1)]), ((NAN,), (0.9, 2.0), 0.9, None, "0.9", [None], [[0.9]])
)
CHUNKS = COUNT._replace(allowed=(1, 2, np.int64(4)), more=None)
STATES = Kind((STATE,), (None, PARAMS, 3, "state", (STATE,)))
BATCHES = Kind((BATCH, np.asarray(BATCH)), ({}, None, 1.0, jnp.ones((0, 2)), "batch"))
STEPS = Kind((_step,), FUNCTIONS)
DEVICES = Kind(
    (None, jax.devices()[:2], tuple(jax.devices()[:1])), ([], 3, "cpu", ["cpu"], [None], jax.devices()[:1] * 2)
)
OPTIONS = Kind((None, {}), (3, "fast", [1], ("xla", 1)))
PLACED = Kind(
    ({"a": np.ones(2), "key": KEY, "n": 3, "half": jnp.ones(2, jnp.bfloat16)}, ()), ("a", {"a": object()}, ["b"])
)
SHAPED = Kind((STATE, jax.eval_shape(lambda: STATE), ()), ("a", {"a": object()}, {"a": 3.0}, [None, "three"]))
LEAST = Kind((0, 1, 16, np.int64(3)), (-1, 2.5, NAN, True, jnp.ones(2, int), *WORDS))
MESH = Kind((fsdp.mesh_of(jax.devices()[:2]),), (None, 2, "mesh", jax.devices()))


def _made(maker, *args):
    """A function that is made and called."""
    return maker(*args)(STATE, BATCH)


def _shardings(state):
    return fsdp.shardings(state, fsdp.mesh_of())


WIDTH = Kind((0.1, 0.05, np.float64(0.2), np.float32(0.1)), (0, -0.1, 0.3, 1, NAN, INF, *WORDS, jnp.ones(1) / 9, [0.1]))
KEPT = [EMAProfile(step, width) for step in (500, 1000) for width in (0.05, 0.1)]
SNAPSHOTS = Kind(
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
WANTED = Kind(
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
COEFFICIENTS = Kind(
    (np.array([1.0, 0.5, -0.5, 0.0]), [0.25] * 4, jnp.ones(4)),
    ([1.0], np.ones((4, 1)), [NAN] * 4, [INF, 1, 1, 1], "ones", None, 1.0, [1j] * 4, object()),
)
AVERAGES = Kind(
    ([{"a": np.full(2, float(i))} for i in range(4)], tuple({"a": jnp.full(2, float(i))} for i in range(4))),
    ([{"a": np.ones(2)}] * 3, [{"a": np.ones(2)}] * 5, [], None, 3, [{"a": "three"}] * 4, [{"a": object()}] * 4, 1j),
)

DOORS = [
    Door(
        "training.init_state",
        training.init_state,
        {
            "params": TREES,
            "optimizer": OPTIMIZERS,
            "key": KEYS,
            "num_averages": COUNT.but(allowed=(0,))._replace(refused=COUNT.refused[1:]),
        },
    ),
    Door("training.eval_params", training.eval_params, {"state": STATES}, lambda state: state.params),
    Door(
        "training.make_value_and_grad",
        lambda loss, num_microbatches: _made(training.make_value_and_grad, loss, num_microbatches),
        {"loss": USED_LOSSES, "num_microbatches": CHUNKS},
    ),
    Door(
        "training.make_eval_step, at the call",
        lambda loss, num_microbatches: _made(training.make_eval_step, loss, num_microbatches),
        {"loss": USED_LOSSES, "num_microbatches": CHUNKS},
    ),
    Door(
        "training.make_step",
        lambda loss, optimizer, ema_decay, num_microbatches, average_decays: (
            training.make_step(loss, optimizer, ema_decay, num_microbatches, average_decays),
            0,
        )[1],
        {
            "loss": LOSSES,
            "optimizer": OPTIMIZERS,
            "ema_decay": DECAYS,
            "num_microbatches": CHUNKS,
            "average_decays": ALL_DECAYS,
        },
    ),
    Door(
        "training.make_step, at the call",
        lambda state, batch, loss, ema_decay: training.make_step(loss, OPTIMIZER, ema_decay)(state, batch),
        {
            "state": STATES,
            "batch": BATCHES,
            "loss": USED_LOSSES,
            "ema_decay": Kind((lambda step: 0.5, 0.9), (lambda step: None, lambda step: jnp.ones(2), lambda step: 1j)),
        },
    ),
    Door(
        "training.make_step, with a source",
        lambda batch: training.make_step(_loss, OPTIMIZER, 0.9)(STATE, batch, BATCH),
        {
            "batch": Kind(
                (jnp.arange(2), np.array([3, 0])), ({}, jnp.ones(2), jnp.int32(1), {"a": "b"}, jnp.ones(2, bool))
            )
        },
    ),
    Door("training.replicate", training.replicate, {"tree": PLACED, "devices": DEVICES}),
    Door("training.pmapped", lambda **given: (training.pmapped(**given), 0)[1], {"step": STEPS, "devices": DEVICES}),
    Door(
        "training.parallel",
        lambda **given: (training.parallel(**given), 0)[1],
        {"step": STEPS, "devices": DEVICES, "compiler_options": OPTIONS},
    ),
    Door(
        "training.parallel, at the call",
        lambda state: training.parallel(_step, jax.devices()[:1], donate=False)(state, training.shard(BATCH, 1)),
        {"state": STATES},
    ),
    Door("fsdp.mesh_of", lambda devices: (fsdp.mesh_of(devices), 0)[1], {"devices": DEVICES}),
    Door(
        "fsdp.shardings",
        lambda state, mesh, least: (fsdp.shardings(state, mesh, least), 0)[1],
        {"state": SHAPED, "mesh": MESH, "least": LEAST},
    ),
    Door(
        "fsdp.bytes_per_device",
        lambda state, placed: fsdp.bytes_per_device(state, placed),
        {
            "state": SHAPED._replace(allowed=(STATE, jax.eval_shape(lambda: STATE))),
            "placed": Kind((_shardings(STATE),), (None, {}, 3, STATE, "placed", _shardings(PARAMS))),
        },
        named={"state": "state|placed"},
    ),
    Door(
        "fsdp.shard_state",
        fsdp.shard_state,
        {"state": SHAPED._replace(allowed=(STATE, PARAMS)), "devices": DEVICES, "least": LEAST},
    ),
    Door(
        "fsdp.init_state",
        fsdp.init_state,
        {"make": Kind((lambda: STATE,), FUNCTIONS), "devices": DEVICES, "least": LEAST},
    ),
    Door(
        "fsdp.program",
        lambda **given: (fsdp.program(**given), 0)[1],
        {
            "step": STEPS,
            "state": Kind((STATE, jax.eval_shape(lambda: STATE)), STATES.refused),
            "batch": Kind((BATCH[:2, None],), ({}, "batch", {"a": "b"}, 1.0, BATCH)),
            "mesh": MESH._replace(refused=MESH.refused[1:]),
            "compiler_options": OPTIONS,
            "least": LEAST,
        },
    ),
    Door(
        "fsdp.fsdp",
        lambda **given: (fsdp.fsdp(**given), 0)[1],
        {"step": STEPS, "devices": DEVICES, "compiler_options": OPTIONS, "least": LEAST},
    ),
    Door(
        "fsdp.fsdp, at the call",
        lambda state, batch: fsdp.fsdp(_step, jax.devices()[:1], donate=False)(state, batch),
        {"state": STATES, "batch": Kind((BATCH[None],), ({}, "batch", {"a": "b"}, 1.0, BATCH[:3, None]))},
    ),
    Door("posthoc_ema.exponent_of", posthoc_ema.exponent_of, {"width": WIDTH}),
    Door(
        "posthoc_ema.power_function_decay",
        lambda width, step: posthoc_ema.power_function_decay(width)(step),
        {"width": WIDTH, "step": Kind((0, 3, jnp.int32(9), 2.5), (-1, NAN, *WORDS, jnp.ones(2)))},
    ),
    Door(
        "posthoc_ema.weights",
        lambda snapshots, wanted: float(np.sum(posthoc_ema.weights(snapshots, wanted))),
        {"snapshots": SNAPSHOTS, "wanted": WANTED},
        lambda snapshots, wanted: 1.0,
        ANY_OF_THEM,
    ),
    Door(
        "posthoc_ema.profile_error",
        posthoc_ema.profile_error,
        {"snapshots": SNAPSHOTS, "wanted": WANTED, "coefficients": COEFFICIENTS},
        named=ANY_OF_THEM,
    ),
    Door(
        "posthoc_ema.reconstruct",
        lambda snapshots, coefficients: posthoc_ema.reconstruct(snapshots, coefficients)["a"],
        {"snapshots": AVERAGES, "coefficients": COEFFICIENTS},
        lambda snapshots, coefficients: np.full(2, plain(coefficients) @ np.arange(4.0)),
        {"coefficients": "coefficients|snapshots"},
    ),
]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_the_answer_is_right_or_the_error_clear(door):
    knock_often(door, 12)

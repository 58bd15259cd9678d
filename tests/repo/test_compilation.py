"""Compilation: numbers are traced and structure is closed over, so nothing is compiled twice."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import guidance, losses, mixtures, paths, solvers, training
from tests.support.tables import SOLVERS, solvers_that

PATH = paths.linear()


ONE_STATE = solvers_that(is_weighted=False)


@pytest.fixture
def compilations():
    """A list that grows by one with each compilation."""
    events = []

    def listen(event, duration_secs, **kwargs):
        if "backend_compile" in event:
            events.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def _sampler(name):
    """A jitted sampler of (scale, key, label), and the list that grows with each trace of its field."""
    traces, oracle = [], mixtures.ring(4).vector_field(PATH)

    def field(x, t, y):
        traces.append(1)
        return oracle(x, t, y)

    def draw(scale, key, y):
        guided = guidance.given(guidance.classifier_free(field, scale, 4), y)
        x = jax.random.normal(key, (2,))
        return solvers.integrate(SOLVERS[name].build(PATH, guided), key, x, jnp.linspace(0, 1, 5))

    return draw, traces


def test_the_counter_counts(compilations):
    """A function that is new is compiled, and one that is known is not."""
    double = jax.jit(lambda x: 2 * x + 1)
    double(np.float32(1))
    assert len(compilations) == 1
    double(np.float32(2))
    assert len(compilations) == 1


@pytest.mark.parametrize("name", ONE_STATE)
def test_one_trace_serves_every_scale_key_and_label(name, compilations):
    draw, traces = _sampler(name)
    jitted, keys = jax.jit(draw), jax.random.split(jax.random.key(0), 10)
    keys = [keys[i] for i in range(10)]
    jitted(np.float32(0), keys[0], np.int32(0)).block_until_ready()
    once, compiled = len(traces), len(compilations)
    ends = [jitted(np.float32(i), keys[i], np.int32(i % 4)) for i in range(10)]
    assert len(traces) == once
    assert len(compilations) == compiled
    assert len({tuple(np.asarray(end).tolist()) for end in ends}) == 10


def test_a_sweep_over_scales_is_one_trace():
    draw, traces = _sampler("euler")
    sweep = jax.jit(jax.vmap(draw, in_axes=(0, None, None)))
    first = sweep(jnp.linspace(0, 4, 5), jax.random.key(0), 1)
    once = len(traces)
    second = sweep(jnp.linspace(1, 5, 5), jax.random.key(0), 1)
    assert len(traces) == once
    np.testing.assert_allclose(first[1:], second[:-1], rtol=1e-5)


def test_the_scan_traces_a_field_as_often_for_many_steps_as_for_few():
    counts = []
    for num_steps in (2, 200):
        traces = []
        solver = solvers.heun(lambda x, t, traces=traces: traces.append(1) or -x)
        ts = jnp.linspace(0, 1, num_steps + 1)
        jax.jit(partial(solvers.integrate, solver))(jax.random.key(0), jnp.ones(2), ts)
        counts.append(len(traces))
    assert counts[0] == counts[1] == 2


@pytest.mark.parametrize("num_devices", [1, 8])
def test_a_second_training_step_compiles_nothing(num_devices, compilations):
    def loss(params, key, z):
        return losses.flow_matching(PATH, lambda x, t: params["a"] * x, key, z)

    run = training.parallel(training.make_step(loss, optax.adam(1e-3), 0.9), jax.devices()[:num_devices])
    batch = np.ones((8, 2), np.float32)
    state = training.init_state({"a": jnp.ones(())}, optax.adam(1e-3), jax.random.key(0))
    state, _ = run(state, training.shard(batch, num_devices))
    compiled = len(compilations)
    assert compiled > 0
    for _ in range(3):
        state, _ = run(state, training.shard(batch, num_devices))
    assert len(compilations) == compiled
    assert int(state.step) == 4

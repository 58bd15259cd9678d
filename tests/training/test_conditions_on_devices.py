"""Training with conditions of any structure: the same draws and the same state on 1, 2 and 8 devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import guidance, losses, paths, training
from cfgjax.conditions import Known, unknown

NULL = {"label": 2, "size": unknown(jnp.zeros(2)), "words": (jnp.zeros(3, jnp.int32), jnp.zeros(3, bool))}
RATES = {"label": 0.3, "size": 0.4, "words": 0.2}


def _network(params, x, t, y):
    words = jnp.where(y["words"][1], y["words"][0], 4)
    size = jnp.where(y["size"].is_known, y["size"].value, 0)
    return x * params["x"] + params["label"][y["label"]] * t + size @ params["size"] + jnp.sum(params["words"][words])


def _loss(params, key, example):
    drop_key, loss_key = jax.random.split(key)
    y = guidance.drop_condition(drop_key, example["y"], RATES, NULL, rate_of_all=0.1)
    return losses.flow_matching(paths.cosine(), partial(_network, params), loss_key, example["z"], y)


def _batch(seed):
    rng = np.random.default_rng(seed)
    y = {
        "label": jnp.asarray(rng.integers(0, 2, 16)),
        "size": Known(jnp.asarray(rng.normal(size=(16, 2)), jnp.float32), jnp.asarray(rng.random(16) < 0.8)),
        "words": (jnp.asarray(rng.integers(0, 4, (16, 3))), jnp.asarray(rng.random((16, 3)) < 0.7)),
    }
    return {"z": jnp.asarray(rng.normal(size=(16, 2)), jnp.float32), "y": y}


def _state():
    params = {"x": jnp.ones(2), "label": jnp.zeros((3, 2)), "size": jnp.zeros((2, 2)), "words": jnp.zeros((5, 2))}
    return training.init_state(params, optax.sgd(0.1), jax.random.key(1))


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_every_number_of_devices_gives_the_same_state(num_devices):
    step = training.make_step(_loss, optax.sgd(0.1), ema_decay=0.9)
    run, state = training.parallel(step, jax.devices()[:num_devices]), _state()
    plain, expected = jax.jit(step), _state()
    for seed in range(5):
        state, metrics = run(state, training.shard(_batch(seed), num_devices))
        expected, expected_metrics = plain(expected, _batch(seed))
    found, wanted = ((each.params, each.ema) for each in (state, expected))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), found, wanted)
    np.testing.assert_allclose(metrics["loss"], expected_metrics["loss"], rtol=1e-5)
    assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(state.params))

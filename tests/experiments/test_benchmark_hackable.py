"""The benchmark's samplers and loss of hackable_diffusion against ours (needs hackable_diffusion)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import in_cfgjax, reference, workloads
from tests.support.small_works import SMALL

pytest.importorskip("hackable_diffusion")

from experiments.benchmark import in_hackable

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _broadcasting():
    """hackable_diffusion spreads axes, which the library's own code is not allowed."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(params=SMALL)
def work(request):
    """A small work of each kind of network."""
    return SMALL[request.param]


def _arguments(work, scale=3, seed=0):
    inputs = workloads.inputs_of(work)
    return inputs.weights, jax.random.key(seed), inputs.noise, inputs.labels, jnp.float32(scale)


def _ours(work, method, ts, ends=None):
    return jax.jit(in_cfgjax.sampler_of(in_cfgjax.draw_of(work, method, ts, ends), None))


def _assert_equal(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.max(np.abs(expected)))


@pytest.mark.parametrize(("method", "num_steps"), [("euler", 4), ("heun", 1), ("heun", 3)])
def test_samples_are_ours(work, method, num_steps):
    ts, arguments = workloads.grid(num_steps), _arguments(work)
    found = jax.jit(in_hackable.sampler_of(work, method, ts))(*arguments)
    _assert_equal(found, _ours(work, method, ts)(*arguments))


def test_samples_guided_on_some_steps_are_ours():
    work, ts = SMALL["MLP"], workloads.grid(8)
    ends = float(ts[2]), float(ts[6])
    found = jax.jit(in_hackable.sampler_of(work, "interval", ts, ends))(*_arguments(work))
    _assert_equal(found, _ours(work, "euler", ts, ends)(*_arguments(work)))


def test_samples_of_a_scale_each_are_ours():
    work, ts, scales = SMALL["MLP"], workloads.grid(4), np.linspace(0, 5, 6, dtype=np.float32)
    *arguments, _ = _arguments(work)
    found = jax.jit(in_hackable.sampler_of(work, "euler", ts))(*arguments, scales[:, None])
    _assert_equal(found, _ours(work, "euler", ts)(*arguments, scales))


def test_only_the_ancestral_sampler_draws_noise():
    work, ts = SMALL["MLP"], workloads.grid(4)
    for method, is_drawn in (("euler", False), ("heun", False), ("euler_maruyama", True)):
        draw = jax.jit(in_hackable.sampler_of(work, method, ts))
        first, second = (draw(*_arguments(work, seed=seed)) for seed in range(2))
        assert np.all(np.isfinite(first))
        assert np.any(first != second) == is_drawn


def test_the_loss_is_that_of_our_path(work):
    inputs, key = workloads.inputs_of(work), jax.random.key(1)
    found = jax.jit(in_hackable.loss_of(work))(inputs.weights, key, inputs.data, inputs.data_labels)
    noise_key, time_key, drop_key = jax.random.split(key, 3)
    noise = jax.random.normal(noise_key, inputs.data.shape)
    t = 1 - jax.random.uniform(time_key, (work.train_batch, *(1 for _ in work.shape)))
    drops = jax.random.bernoulli(drop_key, 0.1, inputs.data_labels.shape)
    labels = jnp.where(drops, work.num_classes, inputs.data_labels)
    x = t * inputs.data + (1 - t) * noise
    field = jax.vmap(work.network.apply, (None, 0, 0, 0))(inputs.weights, x, t.ravel(), labels)
    np.testing.assert_allclose(found, np.mean(np.square(field - (inputs.data - noise))), rtol=1e-5)


def test_its_training_step_learns():
    import optax

    work = SMALL["MLP"]
    inputs, optimizer = workloads.inputs_of(work), optax.adamw(1e-2)
    state = inputs.weights, optimizer.init(inputs.weights), inputs.weights, jax.random.key(0)
    steps = jax.jit(reference.train_step_of(in_hackable.loss_of(work), optimizer, 2, 300))
    _, losses = steps(state, inputs.data, inputs.data_labels)
    assert np.mean(losses[-100:]) < 0.8 * np.mean(losses[:20])

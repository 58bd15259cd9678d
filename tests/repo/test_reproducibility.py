"""Sample i is drawn with fold_in(key, i): the same for any batch and any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers
from cfgjax.models import MLP

PATH = paths.linear()
NUM_SAMPLES = 64
NORMAL_ULP = 0 if jax.__version_info__ < (0, 11) else 4
"""Later compilers for CPUs write exponentials and logarithms of a vector in other instructions than those of one."""
KEY = jax.random.key(11)


def _network():
    """A network with random parameters, as a LabelledField."""
    model = MLP(2, width=16, depth=1)
    params = model.init(jax.random.key(0), jnp.zeros(3), jnp.zeros(()), jnp.zeros((), jnp.int32))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, moved)
    return lambda x, t, y: jnp.asarray(model.apply(params, x, t, y))


def _drawer(name):
    """The function from a global index to its noise and sample; the label is the index's parity."""
    guided = guidance.classifier_free(_network(), 2.0, 2)
    build = {
        "heun": solvers.heun,
        "euler_maruyama": lambda field: solvers.euler_maruyama(PATH, field, solvers.root_beta(PATH)),
    }[name]

    def draw(index):
        noise_key, solver_key = jax.random.split(jax.random.fold_in(KEY, index))
        x = jax.random.normal(noise_key, (3,))
        solver = build(guidance.given(guided, index % 2))
        return x, solvers.integrate(solver, solver_key, x, jnp.linspace(0, 1, 9))

    return draw


def _in_batches(name, size):
    """All draws by jit(vmap) of ``size`` at a time; the last batch runs over and is cut."""
    draw = jax.jit(jax.vmap(_drawer(name)))
    parts = [draw(start + jnp.arange(size)) for start in range(0, NUM_SAMPLES, size)]
    return [np.concatenate(leaves)[:NUM_SAMPLES] for leaves in zip(*parts, strict=True)]


def _on_devices(name, num_devices):
    """All draws by pmap(vmap)."""
    draw = jax.pmap(jax.vmap(_drawer(name)), devices=jax.devices()[:num_devices])
    found = draw(jnp.arange(NUM_SAMPLES).reshape(num_devices, -1))
    return [np.asarray(leaf).reshape(NUM_SAMPLES, 3) for leaf in found]


@pytest.fixture(scope="module", params=["heun", "euler_maruyama"])
def whole(request):
    """A solver's name, with noise and samples of one batch of 64."""
    return request.param, *_in_batches(request.param, NUM_SAMPLES)


@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_changes_nothing(whole, size):
    """Noise to its last bits; samples to rounding, as a product's order of sums depends on its shape."""
    name, noise, samples = whole
    found_noise, found = _in_batches(name, size)
    np.testing.assert_array_max_ulp(found_noise, noise, NORMAL_ULP)
    np.testing.assert_allclose(found, samples, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_number_of_devices_changes_nothing(whole, num_devices):
    name, noise, samples = whole
    found_noise, found = _on_devices(name, num_devices)
    np.testing.assert_array_max_ulp(found_noise, noise, NORMAL_ULP)
    np.testing.assert_allclose(found, samples, rtol=1e-5, atol=1e-5)


def test_a_second_run_is_bit_equal(whole):
    name, _, samples = whole
    np.testing.assert_array_equal(_in_batches(name, NUM_SAMPLES)[1], samples)


def test_samples_differ_from_each_other(whole):
    _, noise, samples = whole
    assert len(np.unique(noise, axis=0)) == NUM_SAMPLES
    assert len(np.unique(samples, axis=0)) == NUM_SAMPLES

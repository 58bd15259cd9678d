"""The benchmark's networks in PyTorch against ours: fields, gradients, samples and a training step (needs PyTorch)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmark import in_cfgjax, workloads
from tests.support.small_works import SMALL

torch = pytest.importorskip("torch")

from experiments.benchmark import torch_networks  # noqa: E402

pytestmark = pytest.mark.slow

WORKS = SMALL | {"W3": workloads.WORKLOADS["W3"]._replace(batch=3, train_batch=3)}


@pytest.fixture(params=WORKS)
def work(request):
    """A small work of each kind of network, and the benchmark's U-Net."""
    return WORKS[request.param]


def test_field_and_gradient_are_ours(work):
    """The gradient by its norm over all weights, whose places in the two trees differ."""
    inputs = workloads.inputs_of(work)
    t = np.linspace(0.1, 0.9, work.batch, dtype=np.float32)

    def loss(weights):
        field = jax.vmap(work.network.apply, (None, 0, 0, 0))(weights, inputs.noise, t, inputs.labels)
        return jnp.mean(jnp.square(field - inputs.data)), field

    gradient, expected = jax.jit(jax.grad(loss, has_aux=True))(inputs.weights)
    network = torch_networks.network_of(work, inputs.weights)
    found = network(*map(torch.tensor, (inputs.noise, t, inputs.labels)))
    (found - torch.tensor(inputs.data)).square().mean().backward()
    norms = [weight.grad.norm() for weight in network.parameters()]

    assert np.std(expected) > 0.05
    np.testing.assert_allclose(found.detach(), expected, atol=1e-5 * np.max(np.abs(expected)))
    np.testing.assert_allclose(torch.stack(norms).norm(), optax.tree.norm(gradient), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # in flow_matching, where Python first compiles it
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_samples_by_flow_matching_are_ours(work, method):
    pytest.importorskip("flow_matching")
    from experiments.benchmark import in_torch

    inputs, ts = workloads.inputs_of(work), workloads.grid(2)
    arguments = (inputs.weights, jax.random.key(0), inputs.noise, inputs.labels, jnp.float32(workloads.SCALE))
    expected = jax.jit(in_cfgjax.sampler_of(in_cfgjax.draw_of(work, method, ts), None))(*arguments)
    found = in_torch.sampler_of(work, inputs, method, ts, compiles=False)()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.max(np.abs(expected)))

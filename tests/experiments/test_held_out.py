"""The held-out loss of a run is of the same examples on any number of hosts and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import training
from experiments.cli.main import UserError
from experiments.tasks import examples
from experiments.tasks.examples import held_out_share, weighted, with_weights


@pytest.fixture
def as_hosts(monkeypatch):
    """(num_processes, num_devices of each, index): this process seems to be one of so many."""

    def seem(num_processes, num_devices, index):
        monkeypatch.setattr(jax, "process_count", lambda: num_processes)
        monkeypatch.setattr(jax, "device_count", lambda: num_processes * num_devices)
        monkeypatch.setattr(jax, "process_index", lambda: index)

    return seem


@pytest.mark.parametrize(("num_processes", "num_devices"), [(1, 1), (2, 2), (1, 4), (4, 1), (1, 5), (3, 2), (2, 8)])
@pytest.mark.parametrize("num_held_out", [16, 18, 19])
def test_each_held_out_example_counts_once_on_any_hosts(num_processes, num_devices, num_held_out, as_hosts):
    total, counts = 0, np.zeros(num_held_out)
    for index in range(num_processes):
        as_hosts(num_processes, num_devices, index)
        rows, num_repeated = held_out_share("test_split", num_held_out)
        weights, taken = with_weights(rows, num_repeated)
        assert len(taken) % num_devices == 0
        total += len(taken)
        np.add.at(counts, taken, weights)
    np.testing.assert_allclose(counts / total, np.full(num_held_out, 1 / num_held_out), rtol=1e-6)


def test_no_more_are_taken_than_a_loss_is_of(as_hosts):
    as_hosts(3, 1, 2)
    rows, num_repeated = held_out_share("test_split", 5000)
    assert num_repeated == -examples.NUM_HELD_OUT % 3
    assert rows[-1 - num_repeated] == rows[-1] == examples.NUM_HELD_OUT - 1


def test_fewer_than_the_devices_are_refused(as_hosts):
    as_hosts(2, 4, 0)
    with pytest.raises(UserError, match=r"data\.test_split has 7 examples, fewer than the 8 devices"):
        held_out_share("test_split", 7)


def _noisy(params, key, z):
    """A loss with noise of its own for each example, infinite where the example is negative."""
    return jnp.where(z < 0, jnp.inf, params * z + jax.random.normal(key))


def test_the_loss_on_devices_that_do_not_divide_the_examples_is_their_mean():
    """Eight devices and 13 examples: 13 losses, each with the noise of its index; what fills up counts nothing."""
    z = np.linspace(1, 2, 13, dtype=np.float32)
    state = training.init_state(jnp.float32(0.5), optax.sgd(0.1), jax.random.key(3))
    keys = jax.vmap(lambda index: jax.random.fold_in(jax.random.fold_in(state.key, 0), index))(jnp.arange(13))
    expected = np.mean([_noisy(state.params, key, one) for key, one in zip(keys, z, strict=True)])
    rows, num_repeated = held_out_share("test_split", len(z))
    filled = np.where(np.arange(len(rows)) < 13, z[rows], -1)
    batch = training.shard(with_weights(filled, num_repeated), jax.local_device_count())
    evaluate = training.parallel(training.make_eval_step(weighted(_noisy)), donate=False)
    np.testing.assert_allclose(evaluate(state, batch)["loss"], expected, rtol=1e-6)

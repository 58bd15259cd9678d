"""The loss of the null field's consistency: where it is least, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import losses, mixtures, paths

NULL = 4
MIXTURE = mixtures.ring(NULL, std=0.6)


def _draws(count=4096):
    keys = jax.random.split(jax.random.key(0), count)
    labels = jnp.arange(count) % NULL
    noise = jax.random.normal(jax.random.key(1), (count, 2))
    return keys, MIXTURE.means[labels, 0] + 0.6 * noise, labels


def _gradients(path, field_at):
    """The loss' gradient in what is added to the null field, and to the labelled ones, of each draw [n, 2] each."""

    def loss(shifts, key, z, y):
        def field(x, t, y):
            return field_at(x, t, y) + jnp.where(y == NULL, shifts[0], shifts[1])

        return losses.null_consistency(path, field, key, z, y, NULL)

    zeros = jnp.zeros(2), jnp.zeros(2)
    return jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0, 0)))(zeros, *_draws())


def test_the_exact_null_field_is_where_it_rests(plain_or_steep_path):
    of_null, of_labelled = _gradients(plain_or_steep_path, MIXTURE.vector_field(plain_or_steep_path))
    error = np.std(of_null, axis=0) / np.sqrt(len(of_null))
    assert np.all(np.abs(np.mean(of_null, axis=0)) < 4 * error)
    assert not np.any(of_labelled)


def test_another_null_field_is_moved():
    exact = MIXTURE.vector_field(paths.linear())
    of_null, _ = _gradients(paths.linear(), lambda x, t, y: jnp.where(y == NULL, exact(x, t, 0), exact(x, t, y)))
    error = np.std(of_null, axis=0) / np.sqrt(len(of_null))
    assert np.max(np.abs(np.mean(of_null, axis=0)) / error) > 20


def test_its_gradient_is_less_noisy_than_that_of_flow_matching():
    path, exact = paths.linear(), MIXTURE.vector_field(paths.linear())

    def matching(shift, key, z):
        return losses.flow_matching(path, lambda x, t: exact(x, t, NULL) + shift, key, z)

    keys, z, _ = _draws()
    other = jax.vmap(jax.grad(matching), (None, 0, 0))(jnp.zeros(2), keys, z)
    of_null, _ = _gradients(path, exact)
    assert np.sum(np.var(of_null, axis=0)) < 0.7 * np.sum(np.var(other, axis=0))


def test_it_is_the_weighted_mean_square_by_hand():
    def field(x, t, y):
        return (1.0 + y) * x + t

    found = losses.null_consistency(
        paths.linear(),
        field,
        jax.random.key(3),
        jnp.array([1.0, 2.0]),
        1,
        3,
        time_density=lambda key: 0.25,
        weight=lambda t: 8 * t,
    )
    x = 0.25 * np.array([1.0, 2.0]) + 0.75 * np.asarray(jax.random.normal(jax.random.split(jax.random.key(3))[1], (2,)))
    assert float(found) == pytest.approx(2 * np.mean((2 * x) ** 2), rel=1e-5)
    assert float(losses.null_consistency(paths.linear(), field, jax.random.key(3), jnp.ones(2), 3, 3)) == 0

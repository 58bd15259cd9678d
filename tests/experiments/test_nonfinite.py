"""Updates that are left out: the optimizer beside the one of Optax that it stands for, gradient by gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.run.nonfinite import NEVER, skipping

PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "bias": jnp.zeros(3)}
INNER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(1e-2, 1e-3, 10)))


def gradients(*bad):
    """Six gradients, of which those of some indices hold a value that is not finite."""
    for index in range(6):
        key = jax.random.fold_in(jax.random.key(0), index)
        gradient = jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), PARAMS)  # noqa: B023
        value = bad[index % len(bad)] if bad and index in (1, 2, 4) else 1.0
        yield {**gradient, "bias": gradient["bias"].at[1].mul(value)}


def run(optimizer, bad):
    """All updates, and the last state."""
    update = jax.jit(optimizer.update)
    state, params, updates = optimizer.init(PARAMS), PARAMS, []
    for gradient in gradients(*bad):
        changes, state = update(gradient, state, params)
        params = optax.apply_updates(params, changes)
        updates.append(changes)
    return updates, state


@pytest.mark.parametrize("bad", [(), (jnp.nan,), (jnp.inf, -jnp.inf, jnp.nan)])
def test_updates_and_counts_are_those_of_optax(bad):
    ours, theirs = (run(make(INNER), bad) for make in (skipping, lambda inner: optax.apply_if_finite(inner, NEVER)))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), ours, theirs)
    assert int(ours[1].total_notfinite) == (3 if bad else 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ours[0]))


def test_gradients_of_an_infinite_norm_are_left_out():
    """1e20 squared is beyond float32."""
    optimizer = skipping(INNER)
    state = optimizer.init(PARAMS)
    huge = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e20), PARAMS)
    changes, kept = jax.jit(optimizer.update)(huge, state, PARAMS)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(changes))
    jax.tree.map(np.testing.assert_array_equal, kept.inner_state, state.inner_state)
    assert (int(kept.notfinite_count), int(kept.total_notfinite), bool(kept.last_finite)) == (1, 1, False)


def test_nothing_is_branched_on():
    optimizer = skipping(INNER)
    text = jax.jit(optimizer.update).lower(PARAMS, optimizer.init(PARAMS), PARAMS).as_text()
    assert "stablehlo.case" not in text

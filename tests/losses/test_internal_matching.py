"""(L8): its value by the draw, its minimisers by least squares, and what each prediction learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import losses, paths

PATH = paths.linear()
KEYS = jax.random.split(jax.random.key(0), 64)
Z = jnp.array([[2.0, -1.0], [0.5, 3.0]])


def _internal(x, t, y):
    return 0.5 * x + t


def _final(x, t, y):
    return y * x - 2 * t


def _sides(x, t, y):
    return _internal(x, t, y), _final(x, t, y)


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0])
def test_both_are_matched_to_one_draw(share):
    options = {"time_density": losses.uniform(0.2, 0.9), "weight": lambda t: 1 + t}
    for key in KEYS[:3]:
        found = losses.internal_matching(PATH, _sides, key, Z, 3, share=share, **options)
        internal, final = (losses.flow_matching(PATH, side, key, Z, 3, **options) for side in (_internal, _final))
        np.testing.assert_allclose(found, final + share * internal, rtol=1e-6)


def test_by_default_half_of_the_internal_one_is_added():
    """At heads that are the target plus 1 and plus 3: 9 of the final one and 1/2 of the internal one's 1."""

    def sides(x, t):
        target = (Z - x) / (1 - t)
        return target + 1, target + 3

    found = losses.internal_matching(PATH, sides, KEYS[0], Z, time_density=lambda key: jnp.float32(0.5))
    np.testing.assert_allclose(found, 9.5, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_linear_heads_are_least_squares_whatever_their_share():
    """At one time the gradient vanishes at the slope Cov(target, x) / Var(x), for each side whatever the other."""
    t, shift = 0.4, 1.5
    keys = jax.random.split(jax.random.key(1), 500)
    z = shift + jnp.asarray(np.random.default_rng(0).normal(size=500))

    def value(coefficients, share):
        def sides(x, t):
            internal, final = coefficients
            return internal[0] * x + internal[1], final[0] * x + final[1]

        loss = lambda key, z: losses.internal_matching(  # noqa: E731
            PATH, sides, key, z, share=share, time_density=lambda key: jnp.float64(t)
        )
        return jnp.mean(jax.vmap(loss)(keys, z))

    def drawn(key, z):
        at = paths.sample(PATH, jax.random.split(key)[1], z, t)
        return at.x, at.field

    x, target = jax.vmap(drawn)(keys, z)
    slope = jnp.cov(x, target, bias=True)[0, 1] / jnp.var(x)
    best = jnp.stack([slope, jnp.mean(target) - slope * jnp.mean(x)])
    other = best + jnp.array([0.3, -0.2])
    for share in (0.5, 2.0):
        gradient = jax.grad(value)(jnp.stack([best, other]), share)
        np.testing.assert_allclose(gradient[0], 0, atol=1e-12)
        np.testing.assert_allclose(jax.grad(value)(jnp.stack([other, best]), share)[1], 0, atol=1e-12)
        assert np.abs(gradient[1]).max() > 0.1


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (lambda x, t: x, "sides must give two predictions, the internal one first"),
        (lambda x, t: (x, x, x), "sides must give two predictions, the internal one first"),
        (lambda x, t: (x[0], x), r"sides\[0\] must give the shape \(2, 2\), got \(2,\)"),
        (lambda x, t: (x, None), r"sides\[1\] must give real numbers"),
    ],
)
def test_what_gives_no_two_predictions_is_refused(sides, message):
    with pytest.raises((TypeError, ValueError), match=message):
        losses.internal_matching(PATH, sides, KEYS[0], Z)

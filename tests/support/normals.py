"""Rules of guidance between normal laws in 1-D, where the flow is affine: three points give its mean and variance."""

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance, paths, solvers

NULL, LABEL = 0, 1
LAWS = ((0.0, 2.0), (1.0, 1.0))
"""(mean, variance) of the null and of the label."""
KEY = jax.random.key(0)


def normal(path, mean, variance):
    """The exact vector field of one normal law."""

    def field(x, t):
        c = paths.coefficients(path, t)
        slope = (c.alpha * c.alpha_dot * variance + c.beta * c.beta_dot) / (c.alpha**2 * variance + c.beta**2)
        return c.alpha_dot * mean + slope * (x - c.alpha * mean)

    return field


def labelled(path, laws=LAWS):
    """The labelled field of several normal laws, the first of them the null."""
    means, variances = (jnp.array([law[index] for law in laws]) for index in (0, 1))
    return lambda x, t, y: normal(path, means[y], variances[y])(x, t)


def pair(path, laws=LAWS):
    """The pair of the null law and the label's."""
    return guidance.pair(labelled(path, laws), NULL)


def end_of(solver, num_steps, ts=None):
    """The mean and the variance with which standard noise ends by a solver of an affine flow."""
    ts = np.linspace(0, 1, num_steps + 1) if ts is None else ts
    ends = jax.vmap(lambda x: solvers.integrate(solver, KEY, jnp.full((1,), x), ts)[0])
    low, mean, high = jax.jit(ends)(jnp.array([-1.0, 0.0, 1.0]))
    return float(mean), float((high - low) ** 2 / 4)


def moments(weights_of, laws, num_steps=4000):
    """The mean and variance at t = 1 on the linear path of dx = sum_i w_i(t) u_i dt, by Kutta's rule in NumPy."""

    def slope(t, state):
        mean = state[0]
        change_of_mean, change_of_log = 0.0, 0.0
        for weight, (centre, variance) in zip(weights_of(t), laws, strict=True):
            rate = (t * variance - (1 - t)) / (t**2 * variance + (1 - t) ** 2)
            change_of_mean += weight * (centre + rate * (mean - t * centre))
            change_of_log += 2 * weight * rate
        return np.array([change_of_mean, change_of_log])

    state, h = np.zeros(2), 1 / num_steps
    for step in range(num_steps):
        t = step * h
        k1 = slope(t, state)
        k2 = slope(t + h / 2, state + h / 2 * k1)
        k3 = slope(t + h / 2, state + h / 2 * k2)
        k4 = slope(t + h, state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state[0], np.exp(state[1])

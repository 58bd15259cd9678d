"""Flow maps that are linear in their parameters and in x, and where a loss leaves them at rest: solved, not trained.

U(x, t, r) = sum_k (a_k + b_k x) f_k(t, r) with f_k the products of Legendre polynomials up to a degree. The expected
gradient of a loss, its stop-gradients where they are, is of second degree at most in the parameters, so that central
differences give its Jacobian exactly; Newton's steps find its zero.
"""

import jax
import jax.numpy as jnp
import numpy as np


def _legendre(t, degree):
    """The polynomials of [0, 1] from degree 0 on, [degree + 1]."""
    place = 2 * t - 1
    values = [jnp.ones_like(place), place]
    for n in range(1, degree):
        values.append(((2 * n + 1) * place * values[n] - n * values[n - 1]) / (n + 1))
    return jnp.stack(values[: degree + 1])


def model(degree, of_both_times=True):
    """(number of parameters [K, 2], (params, x, t, r) -> U)."""
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i) if of_both_times or j == 0]
    first, second = np.array(powers).T

    def flow_map(params, x, t, r):
        features = _legendre(t, degree)[first] * (_legendre(r, degree)[second] if of_both_times else 1.0)
        offset, slope = jnp.sum(params * features[:, None], 0)
        return offset + slope * x

    return (len(powers), 2), flow_map


def solved(gradient, shape, num_steps=6):
    """The parameters at which ``gradient`` is 0, by Newton's steps from 0."""
    size = int(np.prod(shape))
    many = jax.jit(jax.vmap(lambda params: jnp.ravel(gradient(params.reshape(shape)))))
    params = np.zeros(size)
    for _ in range(num_steps):
        values = np.asarray(many(np.concatenate([params + np.eye(size), params - np.eye(size), params[None]])))
        left = values[-1]
        if np.max(np.abs(left)) < 1e-11:
            return jnp.asarray(params.reshape(shape))
        params = params - np.linalg.solve(0.5 * (values[:size] - values[size:-1]).T, left)
    raise AssertionError(f"no zero of the gradient after {num_steps} steps: {np.max(np.abs(left))} is left")

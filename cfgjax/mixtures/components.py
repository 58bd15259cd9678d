"""Gaussian components with labels, and what is known of them on a path in closed form.

(M1) p(z|y) = sum_m w_ym N(z; mu_ym, S_ym) / sum_m w_ym, and the null label K stands for the marginal, all components.
(M2) On any Gaussian path  p_t(x) = sum w N(x; alpha mu, C),  C = alpha^2 S + beta^2 I, for every t.
(M3) Given a component, with r = x - alpha mu:  s = -C^-1 r,  E = beta C^-1 r,  D = mu + alpha S C^-1 r,
     u = alpha' mu + (alpha alpha' S + beta beta' I) C^-1 r.
(M4) Given a label, the average of (M3) under the posterior of the components.
(M5) For alpha < beta the posterior is taken of log N(x; alpha mu, C) - log N(x; 0, beta^2 I), in which the terms that
     all components share are cancelled by hand: its gradient is O(alpha), and keeps its relative precision there.

S is diagonalised once per closure. Sums of products are written as such: exact float32 on every device.
Source: MIT 6.S184 notes (arXiv 2506.02070v3), examples 10 and 15, applied to mixtures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from cfgjax.paths import before_end, coefficients
from cfgjax.types import Array, Coefficients, GaussianPath, Number


class Components(NamedTuple):
    """The mixture with its covariances diagonalised, S = V diag(spectrum) V^T."""

    log_weights: Array
    means: Array
    spectrum: Array
    vectors: Array


def rotate(vectors: Array, values: Array) -> Array:
    """V v for stacks of matrices [..., D, D] and vectors [..., D]."""
    return jnp.sum(vectors * jnp.expand_dims(values, -2), axis=-1)


View = Callable[[Components, GaussianPath, Array, Array, Number], Array]
"""``(parts, path, x [D], t [], y []) -> [D] or []``: what is known of the components at one state."""


def product(left: Array, right: Array) -> Array:
    """The products of stacks of matrices, as sums: exact float32 on every device."""
    return jnp.sum(jnp.expand_dims(left, -1) * jnp.expand_dims(right, -3), axis=-2)


def transposed(matrices: Array) -> Array:
    """The transposes of a stack of matrices."""
    return jnp.swapaxes(matrices, -1, -2)


def symmetric(matrices: Array) -> Array:
    """The symmetric parts of a stack of matrices."""
    return 0.5 * (matrices + transposed(matrices))


def diagonalised(log_weights: Array, means: Array, covariances: Array) -> Components:
    """The components [K, M, ...] of log-weights, means and covariances."""
    spectrum, vectors = jnp.linalg.eigh(covariances)
    return Components(log_weights, means, spectrum, vectors)


def masked(parts: Components, values: Array, y: Number) -> Array:
    """Values [K, M] where the component belongs to label y (all of them for the null label K), -inf elsewhere."""
    num_classes = parts.log_weights.shape[0]
    belongs = (jnp.arange(num_classes) == y) | (jnp.asarray(y) == num_classes)
    return jnp.where(jnp.expand_dims(belongs, -1), values, -jnp.inf)


def given_label(parts: Components, y: Number) -> Components:
    """The components given label y: log-weights of all others -inf, and normalised."""
    return parts._replace(log_weights=jax.nn.log_softmax(masked(parts, parts.log_weights, y), axis=(-2, -1)))


def centred(parts: Components, c: Coefficients, x: Array) -> tuple[Array, Array]:
    """C's eigenvalues and V^T (x - alpha mu), each [K, M, D] (M2)."""
    variances = c.alpha**2 * parts.spectrum + c.beta**2
    return variances, rotate(transposed(parts.vectors), jax.lax.sub(*_spread(x, c.alpha * parts.means)))


def _log_joint(parts: Components, c: Coefficients, x: Array) -> tuple[Array, Array, Array]:
    """log w N(x; alpha mu, C) [K, M], with C's eigenvalues and V^T (x - alpha mu), each [K, M, D] (M2)."""
    variances, rotated = centred(parts, c, x)
    exponent = jnp.sum(rotated**2 / variances + jnp.log(variances), axis=-1)
    return parts.log_weights - 0.5 * (exponent + x.size * jnp.log(2 * jnp.pi)), variances, rotated


def _log_ratio(parts: Components, c: Coefficients, x: Array) -> Array:
    """log w N(x; alpha mu, C) / N(x; 0, beta^2 I), [K, M] (M5)."""
    ratio = c.alpha / c.beta
    inverse = transposed(parts.vectors)
    state, mean = rotate(inverse, _spread(x, parts.means)[0]), rotate(inverse, parts.means)
    variances = c.alpha**2 * parts.spectrum + c.beta**2
    squares = ratio**2 * parts.spectrum * state**2 + 2 * c.alpha * mean * state - c.alpha**2 * mean**2
    exponent = jnp.sum(squares / variances - jnp.log1p(ratio**2 * parts.spectrum), axis=-1)
    return parts.log_weights + 0.5 * exponent


def _spread(x: Array, means: Array) -> tuple[Array, Array]:
    dtype = jnp.result_type(x, means)
    return jnp.broadcast_to(x, means.shape).astype(dtype), means.astype(dtype)


def _average(
    parts: Components, c: Coefficients, x: Array, y: Number, factor: Callable[[Array], Array], offset: Array
) -> Array:
    """The posterior average (M4) of offset * mu + V (factor(spectrum) / C) V^T r, [D]."""
    log_joint, variances, rotated = _log_joint(parts, c, x)
    posterior = jax.nn.softmax(masked(parts, log_joint, y), axis=(-2, -1))
    local = offset * parts.means + rotate(parts.vectors, factor(parts.spectrum) / variances * rotated)
    return jnp.sum(jnp.expand_dims(posterior, -1) * local, axis=(0, 1))


def log_density(parts: Components, path: GaussianPath, x: Array, t: Array, y: Number) -> Array:
    """log p_t(x|y) of (M2), []."""
    return logsumexp(_log_joint(given_label(parts, y), coefficients(path, t), x)[0])


def component_log_ratios(parts: Components, path: GaussianPath, x: Array, t: Array) -> Array:
    """log w N(x; alpha mu, C) of each component [K, M], for alpha < beta less what all components share (M5)."""
    c = coefficients(path, t)
    is_early = c.alpha < c.beta
    early = c._replace(beta=jnp.where(is_early, c.beta, 1))
    return jnp.where(is_early, _log_ratio(parts, early, x), _log_joint(parts, c, x)[0])


def vector_field(parts: Components, path: GaussianPath, x: Array, t: Array, y: Number) -> Array:
    """u_t(x|y) of (M3, M4), [D]; at t = 1 its limit."""
    c = coefficients(path, before_end(t))

    def factor(spectrum: Array) -> Array:
        return c.alpha * c.alpha_dot * spectrum + c.beta * c.beta_dot

    return _average(parts, c, x, y, factor, c.alpha_dot)


def score(parts: Components, path: GaussianPath, x: Array, t: Array, y: Number) -> Array:
    """grad_x log p_t(x|y) of (M3, M4), [D]."""
    c = coefficients(path, t)
    return _average(parts, c, x, y, lambda spectrum: -jnp.ones_like(spectrum), jnp.zeros_like(c.alpha))


def noise(parts: Components, path: GaussianPath, x: Array, t: Array, y: Number) -> Array:
    """E[noise|x, y] of (M3, M4), [D]; 0 at t = 1."""
    c = coefficients(path, t)
    return _average(parts, c, x, y, lambda spectrum: c.beta * jnp.ones_like(spectrum), jnp.zeros_like(c.alpha))


def denoiser(parts: Components, path: GaussianPath, x: Array, t: Array, y: Number) -> Array:
    """E[z|x, y] of (M3, M4), [D]; x at t = 1, the label's mean at t = 0."""
    c = coefficients(path, t)
    return _average(parts, c, x, y, lambda spectrum: c.alpha * spectrum, jnp.ones_like(c.alpha))


def sample(parts: Components, path: GaussianPath | None, key: Array, y: Number, t: Number) -> Array:
    """A draw of p(z|y), or of p_t(x|y) where a path is given, [D]."""
    component_key, shape_key, noise_key = jax.random.split(key, 3)
    index = jax.random.categorical(component_key, masked(parts, parts.log_weights, y).reshape(-1))
    mean, spectrum, vectors = (
        leaf.reshape((-1, *leaf.shape[2:]))[index] for leaf in (parts.means, parts.spectrum, parts.vectors)
    )
    z = mean + rotate(vectors, jnp.sqrt(spectrum) * jax.random.normal(shape_key, mean.shape, mean.dtype))
    if path is None:
        return z
    c = coefficients(path, t)
    return c.alpha * z + c.beta * jax.random.normal(noise_key, z.shape, z.dtype)

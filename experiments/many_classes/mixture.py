"""Mixtures of very many classes of one covariance, whose centres lie in r of d directions: exact fields in chunks.

(N1) p(z|y) = N(B c_y, s^2 I), with B [d, r] of orthonormal columns, and all classes equally often.
(N2) With q = B^T x and V = alpha^2 s^2 + beta^2 the posterior is the softmax of alpha (q - alpha c_k / 2) . c_k / V:
     what all classes share is cancelled.
(N3) u = k x + (alpha' - k alpha) B m, k = (alpha alpha' s^2 + beta beta') / V: m = c_y given y, the posterior's mean of
     the c_k for the null. Along what is orthogonal to B guidance does nothing.

The sum over classes is a softmax that is carried on from chunk to chunk, so that only the centres, [K, r], are stored.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfgjax.paths import before_end, coefficients
from cfgjax.types import Array, Condition, GaussianPath, Number, Pair


class ManyClasses(NamedTuple):
    """(N1), its centres in chunks; without a basis r = d."""

    centres: Array
    """[n, m, r]: n chunks of m, of which the last rows may be no classes."""
    num_classes: Number
    std: Number
    basis: Array | None = None
    """[d, r]."""


def chunked(centres: Array, std: Number, basis: Array | None = None, size: int = 4096) -> ManyClasses:
    """The mixture of centres [K, r], in chunks of at most ``size``."""
    number = len(centres)
    size = min(size, number)
    padded = jnp.pad(centres, ((0, -number % size), (0, 0)))
    return ManyClasses(padded.reshape(-1, size, padded.shape[1]), number, std, basis)


def random_classes(key: Array, num_classes: int, rank: int, dimension: int, std: float) -> ManyClasses:
    """Standard normal centres in ``rank`` random ones of ``dimension`` directions."""
    centre_key, basis_key = jax.random.split(key)
    basis = None
    if rank < dimension:
        basis = jnp.linalg.qr(jax.random.normal(basis_key, (dimension, rank)))[0]
    return chunked(jax.random.normal(centre_key, (num_classes, rank)), std, basis)


def centre_of(mixture: ManyClasses, y: Condition) -> Array:
    """c_y, [r]."""
    return mixture.centres[y // mixture.centres.shape[1], y % mixture.centres.shape[1]]


def within(mixture: ManyClasses, x: Array) -> Array:
    """q = B^T x, [r]."""
    return x if mixture.basis is None else jnp.dot(x, mixture.basis, precision=jax.lax.Precision.HIGHEST)


def _lifted(mixture: ManyClasses, mean: Array) -> Array:
    return mean if mixture.basis is None else jnp.dot(mixture.basis, mean, precision=jax.lax.Precision.HIGHEST)


def posterior_mean(mixture: ManyClasses, q: Array, alpha: Array, variance: Array) -> Array:
    """The mean of the centres under the posterior (N2), [r]."""
    size = mixture.centres.shape[1]

    def add(carry: tuple[Array, Array, Array], chunk: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        (largest, total, mean), (index, centres) = carry, chunk
        overlaps = jnp.dot(centres, q, precision=jax.lax.Precision.HIGHEST)
        logits = alpha * (overlaps - 0.5 * alpha * jnp.sum(jnp.square(centres), axis=1)) / variance
        logits = jnp.where(index * size + jnp.arange(size) < mixture.num_classes, logits, -jnp.inf)
        larger = jnp.maximum(largest, jnp.max(logits))
        kept, weights = jnp.exp(largest - larger), jnp.exp(logits - larger)
        mean = kept * mean + jnp.dot(weights, centres, precision=jax.lax.Precision.HIGHEST)
        return (larger, kept * total + jnp.sum(weights), mean), None

    start = jnp.full((), -jnp.inf, q.dtype), jnp.zeros((), q.dtype), jnp.zeros_like(q)
    chunks = jnp.arange(len(mixture.centres)), mixture.centres
    (_, total, mean), _ = jax.lax.scan(add, start, chunks)
    return mean / total


def pair(path: GaussianPath, mixture: ManyClasses) -> Pair:
    """The exact vector fields (N3) of the null and of class y, [d] each, as the sides of guidance."""

    def of_mean(x: Array, t: Array, mean: Array) -> Array:
        c = coefficients(path, before_end(t))
        slope = c.alpha * c.alpha_dot * mixture.std**2 + c.beta * c.beta_dot
        slope = slope / (c.alpha**2 * mixture.std**2 + c.beta**2)
        return slope * x + (c.alpha_dot - slope * c.alpha) * _lifted(mixture, mean)

    def null(x: Array, t: Array, y: Condition) -> Array:
        c = coefficients(path, t)
        variance = c.alpha**2 * mixture.std**2 + c.beta**2
        return of_mean(x, t, posterior_mean(mixture, within(mixture, x), c.alpha, variance))

    def labelled(x: Array, t: Array, y: Condition) -> Array:
        return of_mean(x, t, centre_of(mixture, y))

    return Pair(lambda x, t, y: (null(x, t, y), labelled(x, t, y)), labelled, null)

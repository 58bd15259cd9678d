"""What a measurement makes of a mixture of Gaussians: its posterior, a labelled mixture again, on every path.

For a component N(mu, S) of weight w, S = R R^T, and a measurement m = A z + s n of its point, with R^T z' = z - mu:

(O1) with the singular values b of A R = U diag(b) V^T:   covariance  R V diag(s^2 / (b^2 + s^2)) V^T R^T,
     mean  mu + R V diag(b / (b^2 + s^2)) U^T (m - A mu)   (b = 0 beyond the rank),
     which are mu + S A^T (A S A^T + s^2 I)^-1 (m - A mu) and S - S A^T (A S A^T + s^2 I)^-1 A S without a difference.
(O2) weight  w N(m; A mu, A S A^T + s^2 I).  What A does not see of m is the same for all components, and counts once.

Source: Bayes' rule for linear Gaussian models; Bishop, Pattern Recognition and Machine Learning, section 2.3.3.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from cfgjax.checks import require_shape
from cfgjax.contracts import AnyMeasurement, checked, instance
from cfgjax.mixtures.components import Components, product, rotate, transposed
from cfgjax.mixtures.labelled import LabelledMixture
from cfgjax.paths import as_float
from cfgjax.types import Array, Measurement

Mixture = Annotated[LabelledMixture, instance(LabelledMixture, "a LabelledMixture, as mixtures.ring() is")]
"""A mixture of Gaussians whose components have labels."""


class Reduced(NamedTuple):
    """A measurement in the coordinates of A's singular vectors: at most D rows, those that A does not see all 0.

    ``matrix`` [r, D], ``value`` [r], ``is_seen`` [r], ``noise_std`` [], and ``log_unseen`` [], the log-density of the
    rest of the value, which tells nothing of z; without noise it is left out.
    """

    matrix: Array
    value: Array
    is_seen: Array
    noise_std: Array
    log_unseen: Array


class Conditioned(NamedTuple):
    """Components after a measurement: ``means`` [K, M, D] and ``roots`` [K, M, D, D] of the covariances.

    ``log_factors`` [K, M] are the logarithms of what weights are multiplied by.
    """

    means: Array
    roots: Array
    log_factors: Array


def reduced(measurement: Measurement, dimension: int, dtype: jnp.dtype) -> Reduced:
    """The measurement of points [D] by at most D independent numbers.

    Raises:
        ValueError: an operator that gives another shape than the value has.
    """
    zero = jnp.zeros(dimension, dtype)
    require_shape("measurement.value", measurement.value, jnp.shape(measurement.operator(zero)))
    matrix = jax.jacfwd(lambda z: jnp.asarray(measurement.operator(z)).reshape(-1))(zero)
    value, noise_std = (as_float(each).astype(dtype) for each in (measurement.value, measurement.noise_std))
    value = value.reshape(-1)
    left, scales, right = jnp.linalg.svd(matrix, full_matrices=False)
    is_seen = scales > max(matrix.shape) * jnp.finfo(dtype).eps * scales[0]
    along = jnp.where(is_seen, rotate(transposed(left), value), 0)
    unseen = value - rotate(left, along)
    variance = jnp.where(noise_std == 0, 1, jnp.square(noise_std))
    exponent = jnp.sum(jnp.square(unseen)) / variance
    exponent += (value.size - jnp.sum(is_seen)) * jnp.log(2 * jnp.pi * variance)
    log_unseen = jnp.where(noise_std == 0, 0, -0.5 * exponent)
    rows = jnp.expand_dims(jnp.where(is_seen, scales, 0), -1) * right
    return Reduced(rows, along, is_seen, noise_std, log_unseen)


def measured(parts: Components, measurement: Reduced) -> Conditioned:
    """The components given the measurement, by (O1), and the factors N(m; A mu, A S A^T + s^2 I) of (O2)."""
    shape = parts.means.shape[:-1]
    matrix = jnp.broadcast_to(measurement.matrix, (*shape, *measurement.matrix.shape))
    roots = parts.vectors * jnp.expand_dims(jnp.sqrt(parts.spectrum), -2)
    left, scales, right = jnp.linalg.svd(product(matrix, roots), full_matrices=True)
    count = scales.shape[-1]
    is_seen = jnp.broadcast_to(jnp.arange(count) < jnp.sum(measurement.is_seen), scales.shape)
    noise = jnp.square(measurement.noise_std)
    variances = jnp.where(is_seen, jnp.square(scales) + noise, 1)
    error = jnp.broadcast_to(measurement.value, (*shape, count)) - rotate(matrix, parts.means)
    error = jnp.where(is_seen, rotate(transposed(left), error), 0)
    rest = [(0, 0)] * len(shape) + [(0, parts.means.shape[-1] - count)]
    moved = jnp.pad(scales / variances * error, rest)
    shrunk = jnp.pad(jnp.where(is_seen, jnp.sqrt(noise / variances), 1), rest, constant_values=1)
    exponent = jnp.square(error) / variances + jnp.where(is_seen, jnp.log(2 * jnp.pi * variances), 0)
    roots = product(roots, transposed(right))
    means = parts.means + rotate(roots, moved)
    return Conditioned(
        means, roots * jnp.expand_dims(shrunk, -2), measurement.log_unseen - 0.5 * jnp.sum(exponent, axis=-1)
    )


def covariances_of(roots: Array) -> Array:
    """R R^T for a stack of square matrices, positive definite in floating point.

    What is missing to 4 D eps times the largest variance is added to all of them: a measurement without noise leaves
    variances of 0.
    """
    covariances = product(roots, transposed(roots))
    variances = jnp.linalg.eigvalsh(covariances)
    least = 4 * roots.shape[-1] * jnp.finfo(roots.dtype).eps * variances[..., -1]
    missing = jnp.maximum(least - variances[..., 0], 0)
    return covariances + jnp.expand_dims(missing, (-2, -1)) * jnp.eye(roots.shape[-1], dtype=roots.dtype).reshape(
        (1,) * (roots.ndim - 2) + roots.shape[-2:]
    )


@checked
def posterior(mixture: Mixture, measurement: AnyMeasurement) -> LabelledMixture:
    """The exact p(z|m, y) for every label y, and p(z|m) for the null label, by (O1, O2)."""
    parts = mixture._parts()
    found = measured(parts, reduced(measurement, mixture.means.shape[-1], mixture.means.dtype))
    log_weights = jax.nn.log_softmax(parts.log_weights + found.log_factors, axis=(-2, -1))
    least = 0.5 * jnp.log(jnp.finfo(log_weights.dtype).tiny)
    by_label = jnp.maximum(logsumexp(log_weights, axis=-1, keepdims=True), least)
    weights = jnp.exp(by_label) * jax.nn.softmax(log_weights, axis=-1)
    return LabelledMixture(weights, found.means, covariances_of(found.roots))

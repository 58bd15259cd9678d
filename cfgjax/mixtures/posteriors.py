"""What a linear measurement tells of a mixture of Gaussians: a labelled mixture again, exact on every path.

For a component N(mu, S) of weight w, S = R R^T, and a measurement m = A z + s n of its point:

(O1) With A R = U diag(b) V^T, b = 0 beyond the rank, z has given m the
     mean  mu + R V diag(b / (b^2 + s^2)) U^T (m - A mu)   and covariance  R V diag(s^2 / (b^2 + s^2)) V^T R^T.
     They are mu + S A^T (A S A^T + s^2 I)^-1 (m - A mu) and S - S A^T (A S A^T + s^2 I)^-1 A S, without a difference.
(O2) Its weight becomes w N(m; A mu, A S A^T + s^2 I); what A does not see of m is the same for all components.
     The log of the sum of these over the components of y, less that of w, is log p(m|y).
(O3) At a state x = alpha z + beta noise a component's z has the mean D of (M3) and the covariance
     B = beta^2 S (alpha^2 S + beta^2 I)^-1, so that p_t(m|x, y) is the average of N(m; A D, A B A^T + s^2 I) under the
     components' posterior at x, which for alpha < beta is taken of ratios as (M5).

Source: Bayes' rule for linear Gaussian models (Bishop, Pattern Recognition and Machine Learning, section 2.3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import logsumexp

from cfgjax.checks import require_label, require_shape, transpose_of
from cfgjax.contracts import AnyMeasurement, NoisyMeasurement, checked
from cfgjax.mixtures.components import (
    Components,
    centred,
    component_log_ratios,
    given_label,
    product,
    rotate,
    transposed,
)
from cfgjax.mixtures.labelled import LabelledMixture, parts_of
from cfgjax.mixtures.updates import Mixture, Update, log_mean_factor, roots_of, to_all, updated
from cfgjax.paths import as_float, coefficients
from cfgjax.types import Array, Coefficients, GaussianPath, LogLikelihood, Measurement, Number

LogEvidence = Callable[[Number], Array]
"""``y [] -> []``: log p(m|y) of what is known, for each label and the null."""


class _Reduced(NamedTuple):
    """A measurement by at most D independent numbers, in the coordinates of A's singular vectors.

    ``matrix`` [r, D] and ``value`` [r] are 0 in the rows that A does not see, ``is_seen`` [r] tells these, and
    ``log_unseen`` [] is the log-density of what A does not see of the value; without noise that is left out.
    """

    matrix: Array
    value: Array
    is_seen: Array
    noise_std: Array
    log_unseen: Array


def _matrix_of(measurement: Measurement, zero: Array) -> Array:
    """The operator's matrix [k, D].

    Raises:
        ValueError: an operator that is not linear, or gives another shape than the value has.
    """
    at_zero = jnp.asarray(measurement.operator(zero))
    require_shape("measurement.value", measurement.value, at_zero.shape)
    transpose = transpose_of("measurement.operator", measurement.operator, zero)
    units = jnp.eye(at_zero.size, dtype=at_zero.dtype)
    return jax.vmap(lambda unit: transpose(unit.reshape(at_zero.shape)))(units)


def _reduced(mixture: LabelledMixture, measurement: Measurement) -> _Reduced:
    zero = jnp.zeros(mixture.means.shape[-1], mixture.means.dtype)
    matrix = _matrix_of(measurement, zero)
    value, noise_std = (as_float(each).astype(matrix.dtype) for each in (measurement.value, measurement.noise_std))
    left, scales, right = jnp.linalg.svd(matrix, full_matrices=False)
    is_seen = scales > max(matrix.shape) * jnp.finfo(scales.dtype).eps * scales[0]
    along = jnp.where(is_seen, rotate(transposed(left), value.reshape(-1)), 0)
    has_noise = noise_std > 0
    variance = jnp.where(has_noise, jnp.square(noise_std), 1)
    exponent = jnp.sum(jnp.square(value.reshape(-1) - rotate(left, along))) / variance
    exponent += (value.size - jnp.sum(is_seen)) * jnp.log(2 * jnp.pi * variance)
    rows = jnp.expand_dims(jnp.where(is_seen, scales, 0), -1) * right
    return _Reduced(rows, along, is_seen, noise_std, jnp.where(has_noise, -0.5 * exponent, 0))


def _measured(parts: Components, measurement: _Reduced) -> Update:
    """The components given the measurement (O1), and the factors of their weights (O2)."""
    matrix, value = to_all(parts, measurement.matrix), to_all(parts, measurement.value)
    roots, noise = roots_of(parts), jnp.square(measurement.noise_std)
    left, scales, right = jnp.linalg.svd(product(matrix, roots), full_matrices=True)
    is_seen = to_all(parts, jnp.arange(scales.shape[-1]) < jnp.sum(measurement.is_seen))
    variances = jnp.where(is_seen, jnp.square(scales) + noise, 1)
    error = jnp.where(is_seen, rotate(transposed(left), value - rotate(matrix, parts.means)), 0)
    exponent = jnp.square(error) / variances + jnp.where(is_seen, jnp.log(2 * jnp.pi * variances), 0)
    beyond = [(0, 0), (0, 0), (0, parts.means.shape[-1] - scales.shape[-1])]
    moves = jnp.pad(scales / variances * error, beyond)
    kept = jnp.pad(jnp.where(is_seen, jnp.sqrt(noise / variances), 1), beyond, constant_values=1)
    axes = product(roots, transposed(right))
    log_factors = measurement.log_unseen - 0.5 * jnp.sum(exponent, axis=-1)
    return Update(parts.means + rotate(axes, moves), axes * jnp.expand_dims(kept, -2), log_factors)


@checked
def posterior(mixture: Mixture, measurement: AnyMeasurement) -> LabelledMixture:
    """The exact p(z|m, y) for every label y, and p(z|m) for the null label, by (O1, O2).

    A label's own law is right however little the measurement makes of the label: see ``of_log_weights``. With label
    and measurement, p(y|m) are the weights by label. Without noise only what A sees of the value counts, and a
    variance of 0 becomes the least that a covariance matrix holds in floating point: 4 D eps of the largest.

    Args:
        mixture: of points [D].
        measurement: of an operator on [D] that is linear; its matrix, value and noise may be traced.

    Raises:
        ValueError: an operator that is not linear, a value of another shape than the operator gives.
    """
    parts = parts_of(mixture)
    return updated(parts, _measured(parts, _reduced(mixture, measurement)))


@checked
def log_evidence(mixture: Mixture, measurement: AnyMeasurement) -> LogEvidence:
    """log p(m|y) of (O2), as a function y -> []; for the null label log p(m). Arguments as ``posterior``.

    Without noise it is the density of what A sees of the value.
    """
    parts = parts_of(mixture)
    update = _measured(parts, _reduced(mixture, measurement))
    return lambda y: log_mean_factor(parts, update, y)


def _log_normal(measurement: _Reduced, parts: Components, c: Coefficients, x: Array) -> Array:
    """log N(m; A D, A B A^T + s^2 I) of (O3), [K, M]."""
    variances, rotated = centred(parts, c, x)
    means = parts.means + rotate(parts.vectors, c.alpha * parts.spectrum / variances * rotated)
    roots = parts.vectors * jnp.expand_dims(c.beta * jnp.sqrt(parts.spectrum / variances), -2)
    matrix = to_all(parts, measurement.matrix)
    spread = product(matrix, roots)
    noise = jnp.where(measurement.is_seen, jnp.square(measurement.noise_std), 1)
    covariances = product(spread, transposed(spread)) + to_all(parts, jnp.diag(noise))
    lower = jnp.linalg.cholesky(covariances)
    error = to_all(parts, measurement.value) - rotate(matrix, means)
    whitened = solve_triangular(lower, jnp.expand_dims(error, -1), lower=True)
    log_scales = jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1))
    count = jnp.sum(measurement.is_seen)
    exponent = jnp.sum(jnp.square(whitened), axis=(-2, -1)) + 2 * jnp.sum(log_scales, axis=-1)
    return measurement.log_unseen - 0.5 * (exponent + count * jnp.log(2 * jnp.pi))


@checked
def likelihood(path: GaussianPath, mixture: Mixture, measurement: NoisyMeasurement) -> LogLikelihood:
    """The exact log p_t(m|x, y) of (O3), as a function (x [D], t [], y) -> [], finite on the closed interval.

    Its gradient in x is what exact steering adds to the score: for b = beta W / alpha the posterior's field is that of
    the mixture plus b times it. At t = 1 it is log p(m|z) at z = x, at t = 0 log p(m|y). Arguments as ``posterior``.
    """
    parts, reduced = parts_of(mixture), _reduced(mixture, measurement)

    def log_prob(x: Array, t: Array, y: Number) -> Array:
        require_shape("x", x, mixture.means.shape[-1:])
        require_label("y", y, mixture.num_classes)
        own = given_label(parts, y)
        ratios = component_log_ratios(own, path, x, t)
        log_normals = _log_normal(reduced, parts, coefficients(path, t), x)
        return logsumexp(ratios + log_normals) - logsumexp(ratios)

    return log_prob

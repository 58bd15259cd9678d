"""What a quadratic reward, and guidance, make of a mixture of Gaussians, exactly.

(Q1) Under a reward r(z) = h.z - z.Q z / 2 a component N(mu, S) of weight w, S = R R^T, I + R^T Q R = V diag(p) V^T,
     g = R^T (h - Q mu), becomes one of mean mu + R V diag(1/p) V^T g, covariance R V diag(1/p) V^T R^T, which are
     (S^-1 + Q)^-1 (S^-1 mu + h) and (S^-1 + Q)^-1, and of weight w exp(e),
     e = h.mu - mu.Q mu / 2 + |p^(-1/2) V^T g|^2 / 2 - log det(p) / 2.
(Q2) A measurement m = A z + s n is the reward of Q = A^T A / s^2 and h = A^T m / s^2.
(Q3) The guided law p(z|y)^w p(z)^(1-w) e^r is p(z|y) e^r times p(y|z)^(w-1), up to a factor: for w of at least 1 a
     draw of the labelled law has a weight of at most 1.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced, of_numpy, require_finite, require_label, require_real, require_shape, short_repr
from cfgjax.contracts import Contract, Finite, Key, RealArray, checked
from cfgjax.mixtures.components import Components, product, rotate, symmetric, transposed
from cfgjax.mixtures.labelled import LabelledMixture, parts_of
from cfgjax.mixtures.posteriors import LogEvidence
from cfgjax.mixtures.updates import Mixture, Update, log_mean_factor, roots_of, to_all, updated
from cfgjax.paths import as_float, linear
from cfgjax.types import Array, LogDensityOfData, LogLikelihoodOfData, Number


def _symmetric(name: str, value: Any) -> Array:
    value = of_numpy(value)
    require_real(name, value)
    require_finite(name, value)
    shape = np.shape(value)
    if len(shape) != 2 or shape[0] != shape[1] or 0 in shape:
        raise ValueError(f"{name} must be a square matrix [D, D], got the shape {shape}")
    if not is_traced(value) and not np.allclose(matrix := np.asarray(value, np.float64), matrix.T, rtol=1e-4):
        raise ValueError(f"{name} must be symmetric, got {short_repr(value)}")
    return as_float(value)


Symmetric = Annotated[Array, Contract(_symmetric)]
"""A symmetric matrix of finite real numbers [D, D]."""


def _rewarded(parts: Components, linear: Array, precision: Array) -> Update:
    """(Q1).

    Raises:
        ValueError: numbers that are not of the components' points; where concrete, a reward without a normaliser.
    """
    size = parts.means.shape[-1]
    require_shape("linear", linear, (size,))
    require_shape("precision", precision, (size, size))
    roots, matrix = roots_of(parts), to_all(parts, precision.astype(parts.means.dtype))
    bent, pull = rotate(matrix, parts.means), to_all(parts, as_float(linear).astype(parts.means.dtype))
    eye = to_all(parts, jnp.eye(size, dtype=roots.dtype))
    spectrum, vectors = jnp.linalg.eigh(eye + symmetric(product(product(transposed(roots), matrix), roots)))
    if not is_traced(spectrum) and not np.all(np.asarray(spectrum) > 0):
        words = "S^-1 + precision is positive definite for the covariance S of every component"
        raise ValueError(f"precision must be such that {words}, got {short_repr(precision)}")
    axes = product(roots, vectors)
    along = rotate(transposed(axes), pull - bent)
    at_mean = jnp.sum((pull - 0.5 * bent) * parts.means, axis=-1)
    log_factors = at_mean + 0.5 * jnp.sum(jnp.square(along) / spectrum - jnp.log(spectrum), axis=-1)
    means = parts.means + rotate(axes, along / spectrum)
    return Update(means, axes / jnp.expand_dims(jnp.sqrt(spectrum), -2), log_factors)


@checked
def rewarded(mixture: Mixture, linear: RealArray, precision: Symmetric) -> LabelledMixture:
    """The law p(z|y) exp(h.z - z.Q z / 2), normalised, for every label and the null, by (Q1).

    Where only a trace holds a Q that is too negative its numbers are NaN. Of a Q that is large in some directions
    alone the others keep few digits: a measurement is better given to ``posterior``.

    Args:
        mixture: of points [D].
        linear: h, [D].
        precision: Q, [D, D], symmetric; S^-1 + Q must be positive definite for every component.

    Raises:
        ValueError: numbers of another size than the mixture's points; a Q that is too negative.
    """
    parts = parts_of(mixture)
    return updated(parts, _rewarded(parts, linear, precision))


@checked
def log_normaliser(mixture: Mixture, linear: RealArray, precision: Symmetric) -> LogEvidence:
    """log of the mean of exp(h.z - z.Q z / 2) over p(z|y), as a function y -> [], by (Q1). Arguments as ``rewarded``.

    Raises:
        ValueError: as ``rewarded``.
    """
    parts = parts_of(mixture)
    update = _rewarded(parts, linear, precision)
    return lambda y: log_mean_factor(parts, update, y)


@checked
def guided_log_density(mixture: Mixture, log_likelihood: LogLikelihoodOfData, scale: Finite) -> LogDensityOfData:
    """w log p(z|y) + (1 - w) log p(z) + log p(m|z), as a function (z, y) -> []: the guided posterior of (Q3).

    Args:
        mixture: of points [D].
        log_likelihood: what is known of z, as ``steering.log_likelihood(measurement)``; or any reward of z.
        scale: [], the guidance scale w.
    """
    log_density = mixture.log_density(linear())

    def of(z: Array, y: Number) -> Array:
        labelled, null = (
            log_density(z, jnp.asarray(1.0), each) for each in (jnp.asarray(y), jnp.asarray(mixture.num_classes))
        )
        return null + scale * (labelled - null) + log_likelihood(z)

    return of


@checked
def guided_sample(mixture: Mixture, rewarded: Mixture, key: Key, y: Number, scale: Finite) -> tuple[Array, Array]:
    """A draw z of the labelled law with its log-weight (w - 1) log p(y|z) for the guided one, by (Q3): exact.

    Many of them, weighted, have the law p(z|y)^w p(z)^(1-w) e^r; ``solvers.effective_sample_size`` says what they are
    worth. Under w = 1 weights are unbounded.

    Args:
        mixture: p(z|y) and p(z).
        rewarded: p(z|y) e^r, as ``posterior`` and ``rewarded`` give it; the mixture itself for no reward.
        key: a key.
        y: [], the label in 0..K.
        scale: [], the guidance scale w.

    Returns:
        (z [D], log-weight []).

    Raises:
        ValueError: a label outside 0..K.
    """
    require_label("y", y, mixture.num_classes)
    z = rewarded.sample(key, y)
    log_probs = mixture.label_log_probs(linear())(z, jnp.asarray(1.0))
    return z, (scale - 1) * jnp.append(log_probs, 0)[y]

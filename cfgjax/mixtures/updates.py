"""Gaussian components that something told of their points, a measurement, a reward or a state, has changed."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jax.scipy.special import logsumexp

from cfgjax.checks import require_label
from cfgjax.contracts import instance
from cfgjax.mixtures.components import Components, given_label, product, transposed
from cfgjax.mixtures.labelled import LabelledMixture
from cfgjax.types import Array, Number

Mixture = Annotated[LabelledMixture, instance(LabelledMixture, "a LabelledMixture, as mixtures.ring() is")]
"""A mixture of Gaussians whose components have labels."""


class Update(NamedTuple):
    """Components after it: ``means`` [K, M, D], ``roots`` [K, M, D, D] of their covariances, S = R R^T.

    ``log_factors`` [K, M] are the logarithms of what their weights are multiplied by.
    """

    means: Array
    roots: Array
    log_factors: Array


def roots_of(parts: Components) -> Array:
    """R = V diag(spectrum)^(1/2) of S = R R^T, [K, M, D, D]."""
    return parts.vectors * jnp.expand_dims(jnp.sqrt(parts.spectrum), -2)


def to_all(parts: Components, value: Array) -> Array:
    """The value once for each component, [K, M, ...]."""
    return jnp.broadcast_to(value, (*parts.log_weights.shape, *value.shape))


def _covariances(roots: Array) -> Array:
    """R R^T, with 4 D eps times its largest eigenvalue as the least: a variance of 0 would not stay above 0."""
    covariances = product(roots, transposed(roots))
    spectrum = jnp.linalg.eigvalsh(covariances)
    dimension = roots.shape[-1]
    least = 4 * dimension * jnp.finfo(roots.dtype).eps * spectrum[..., -1]
    missing = jnp.maximum(least - spectrum[..., 0], 0)
    eye = jnp.broadcast_to(jnp.eye(dimension, dtype=roots.dtype), roots.shape)
    return covariances + jnp.expand_dims(missing, (-2, -1)) * eye


def updated(parts: Components, update: Update) -> LabelledMixture:
    """The mixture of the components after the update, with the labels that they had."""
    return LabelledMixture.of_log_weights(
        parts.log_weights + update.log_factors, update.means, _covariances(update.roots)
    )


def log_mean_factor(parts: Components, update: Update, y: Number) -> Array:
    """log of the mean of the update's factors over the components of label y, [].

    Raises:
        ValueError: a label outside 0..K.
    """
    require_label("y", y, parts.log_weights.shape[0])
    return logsumexp(given_label(parts, y).log_weights + update.log_factors)

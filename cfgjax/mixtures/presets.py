"""Mixtures by name, and of noisy measurements of another mixture's points."""

from __future__ import annotations

from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from cfgjax.checks import of_numpy, require_finite, require_real
from cfgjax.contracts import Contract, Finite, Positive, PositiveInt, checked, instance
from cfgjax.mixtures.components import product, rotate, symmetric, transposed
from cfgjax.mixtures.joint_mixture import JointMixture, Sizes
from cfgjax.mixtures.labelled import LabelledMixture
from cfgjax.types import Array


@checked
def ring(num_classes: PositiveInt = 8, radius: Finite = 2.0, std: Positive = 0.4) -> LabelledMixture:
    """K round Gaussians of standard deviation ``std`` at equal angles on a circle, one label each, in 2-D.

    >>> ring(num_classes=4).num_classes
    4
    """
    angles = 2 * jnp.pi * jnp.arange(num_classes) / num_classes
    means = radius * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    covariances = jnp.broadcast_to(jnp.square(std) * jnp.eye(2), (num_classes, 2, 2))
    return LabelledMixture(jnp.ones(num_classes), means, covariances)


@checked
def grid(side: PositiveInt = 3, spacing: Finite = 1.5, std: Positive = 0.4) -> LabelledMixture:
    """side x side round Gaussians on a square grid about the origin, one label each, in 2-D."""
    ticks = spacing * (jnp.arange(side) - (side - 1) / 2)
    means = jnp.stack(jnp.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    covariances = jnp.broadcast_to(jnp.square(std) * jnp.eye(2), (side * side, 2, 2))
    return LabelledMixture(jnp.ones(side * side), means, covariances)


def _matrix(name: str, value: Any) -> Array:
    value = of_numpy(value)
    require_real(name, value)
    require_finite(name, value)
    if np.ndim(value) != 2 or 0 in np.shape(value):
        raise ValueError(f"{name} must be a matrix [k, D], got the shape {np.shape(value)}")
    return jnp.asarray(value, jnp.result_type(float))


Matrix = Annotated[Array, Contract(_matrix)]
"""Finite real numbers [k, D], neither of them 0."""


@checked
def joint(
    mixture: Annotated[LabelledMixture, instance(LabelledMixture, "a LabelledMixture, as mixtures.ring() is")],
    matrix: Matrix,
    noise_std: Positive,
    sizes: Sizes | None = None,
) -> JointMixture:
    """The joint mixture of points z and noisy linear measurements of them, c = A z + noise_std * normal.

    Of ONE standard normal component it is the linear Gaussian problem of inference from simulations.

    Args:
        mixture: of z and the labels.
        matrix: A, [k, D].
        noise_std: [], the standard deviation of the measurements' noise.
        sizes: of the vectors that the measurements are, by their names; by default one, "vector".

    Raises:
        ValueError: a matrix for points of another size; sizes that do not sum to k.

    >>> joint(LabelledMixture(jnp.ones(1), jnp.zeros((1, 2)), jnp.eye(2)[None]), jnp.ones((1, 2)), 0.5).sizes
    {'vector': 1}
    """
    dimension, count = mixture.means.shape[-1], matrix.shape[0]
    if matrix.shape[1] != dimension:
        raise ValueError(f"matrix must be [k, {dimension}] for the mixture's points, got the shape {matrix.shape}")
    sizes = {"vector": count} if sizes is None else sizes
    if sum(sizes.values()) != count:
        raise ValueError(f"sizes must sum to the {count} rows of matrix, got {dict(sizes)}")
    stacked = jnp.broadcast_to(matrix, (*mixture.weights.shape, *matrix.shape))
    cross = product(mixture.covariances, transposed(stacked))
    noise = jnp.broadcast_to(jnp.square(noise_std) * jnp.eye(count), (*mixture.weights.shape, count, count))
    spread = symmetric(product(stacked, cross)) + noise
    means = jnp.concatenate([mixture.means, rotate(stacked, mixture.means)], axis=-1)
    rows = [
        jnp.concatenate([mixture.covariances, cross], axis=-1),
        jnp.concatenate([transposed(cross), spread], axis=-1),
    ]
    return JointMixture(mixture.with_components(means, jnp.concatenate(rows, axis=-2)), sizes)

"""A mixture of small pictures, for guiders whose rule is of pictures: pyramids, deviations over pixels, four axes."""

import jax.numpy as jnp
import numpy as np

from cfgjax.mixtures import LabelledMixture


def small_pictures(side: int = 8) -> LabelledMixture:
    """Three labels of one wide component each, in side^2 dimensions, [C, H, W] = [1, side, side] in a row."""
    size = side * side
    means = 0.7 * np.random.default_rng(0).normal(size=(3, size))
    covariances = np.stack([variance * np.eye(size) for variance in (0.3, 0.5, 0.4)])
    return LabelledMixture(jnp.asarray([0.5, 0.2, 0.3]), jnp.asarray(means), jnp.asarray(covariances))

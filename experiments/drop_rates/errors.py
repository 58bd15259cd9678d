"""How far two sides of a ring are from the exact ones, and what is between: |w err_y - (w - 1) err_null|^2."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfgjax import guidance, mixtures, paths
from cfgjax.types import Array, Pair

PATH, RING = paths.linear(), mixtures.ring()
NULL = RING.num_classes
EXACT = guidance.pair(RING.vector_field(PATH), NULL)


class Errors(NamedTuple):
    """Mean squares of errors, [] each; ``guided`` by scale, [W].

    Attributes:
        labelled: E |u_y - u_y*|^2.
        null: E |u_null - u_null*|^2.
        product: E of the inner product of both errors.
        guided: E |u_w - u_w*|^2.
    """

    labelled: Array
    null: Array
    product: Array
    guided: Array

    @property
    def correlation(self) -> Array:
        """Of both errors: 1 where they are the same but for a factor."""
        return self.product / jnp.sqrt(self.labelled * self.null)


def errors(learned: Pair, exact: Pair, x: Array, t: Array, y: Array, scales: Array) -> Errors:
    """The errors of a pair of fields over points x [n, *D], t [n], y [n]."""

    def one(x: Array, t: Array, y: Array) -> Errors:
        null, labelled = (ours - its for ours, its in zip(learned.both(x, t, y), exact.both(x, t, y), strict=True))

        def guided(scale: Array) -> Array:
            ours, its = (guidance.extrapolate(pair, scale)(x, t, y) for pair in (learned, exact))
            return jnp.sum(jnp.square(ours - its))

        return Errors(
            labelled=jnp.sum(jnp.square(labelled)),
            null=jnp.sum(jnp.square(null)),
            product=jnp.sum(labelled * null),
            guided=jax.vmap(guided)(scales),
        )

    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(one)(x, t, y))


def points(key: Array, num_points: int) -> tuple[Array, Array, Array]:
    """Draws of p_t of the ring with their labels, at times of equal distances: x [n, 2], t [n], y [n]."""

    def draw(key: Array, t: Array) -> tuple[Array, Array, Array]:
        label_key, sample_key = jax.random.split(key)
        y = RING.sample_label(label_key)
        return RING.sample(sample_key, y, PATH, t), t, y

    return jax.vmap(draw)(jax.random.split(key, num_points), (jnp.arange(num_points) + 0.5) / num_points)

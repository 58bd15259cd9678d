"""How far a learned field is from the exact one."""

import jax.numpy as jnp

from cfgjax.types import Array


def relative_error(learned: Array, exact: Array) -> Array:
    """The relative L2 error sqrt(E|u - u*|^2 / E|u*|^2) over the first axis, [].

    Args:
        learned: [n, *D], u at n states drawn from p_t.
        exact: [n, *D], u* at the same states.
    """
    return jnp.sqrt(jnp.sum(jnp.square(learned - exact)) / jnp.sum(jnp.square(exact)))

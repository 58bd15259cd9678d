"""Where a step evaluates its field beside the ends of time, so that an error of a prediction stays small.

(B1) A field that is made of a denoiser has its error times W / beta, one of a noise prediction times W / alpha, one of
     a score times beta W / alpha: without bound just below t = 1 and just above t = 0. Over steps of h these add up
     to log(1 / h) where no evaluation with a weight of h stands nearer to an end than a fixed part of h.
(B2) So a step that has t = 1 as one of its ends evaluates inside it, ``inside``, at t = 1 neither nor beside it.
     ONE such step may be of an order less than the rule has and leave the order of the solve as it is.
(B3) At t = 0 a step evaluates at t = 0 itself or not at all: ``from_score`` and ``from_noise`` divide by nothing there.
(B4) A solver that chooses its steps, ``adaptive``, resolves 1 / distance down to a few rounding errors of t, and holds
     the time there: an error of a denoiser comes to 1 + log(1 / held) of itself, 16 times in single precision.
A grid with two steps of very different lengths at its end is on its own: the error is times (length / distance).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from cfgjax.types import Array, Number


def inside(t: Array, other: Array, share: Number = 0.5) -> Array:
    """The time t, one end of a step whose other end is ``other``; of t = 1 the time ``share`` of the way to it (B2)."""
    return jnp.where(t >= 1, t + share * (other - t), t)


def held(t: Array) -> Array:
    """The time, held ``margin`` away from 0 and 1 (B4)."""
    least = margin(t.dtype)
    return jnp.clip(t, least, 1 - least)


def margin(dtype: np.dtype) -> float:
    """The least distance from 0 and 1 of (B4), four rounding errors: 4.8e-7 in single precision."""
    return 4 * float(jnp.finfo(dtype).eps)

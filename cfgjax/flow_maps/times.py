"""Densities of the two times t <= r of a flow map in training.

Papers in which time runs the other way draw (1 - t, 1 - r): their later time is our earlier one.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from cfgjax.checks import require_between, require_key
from cfgjax.contracts import Time, UnitInterval, checked, whole
from cfgjax.losses import uniform
from cfgjax.paths import as_float
from cfgjax.types import Array, Number, TimeDensity, TimesDensity

_UNIFORM = uniform()


def _drawn(density: TimeDensity, key: Array) -> Array:
    time = density(key)
    require_between("density(key)", time, 0, 1)
    return as_float(time)


@checked
def ordered_times(
    density: TimeDensity = _UNIFORM, equal_rate: UnitInterval = 0.5, whole_rate: UnitInterval = 0.0
) -> TimesDensity:
    """Two draws of a density in their order, with one probability r = t, the earlier one, with another (0, 1).

    A density never draws (0, 1), which is all that one evaluation is: of what is distilled for it 40 % drawn there
    made the difference (docs/one_evaluation.md).

    MeanFlow's law has ``losses.logit_normal(0.4, 1.0)``, whose sigmoid is 1 minus that of their -0.4, and the rate
    0.75; the improved one's rate is 0.5. There, too, the time that is doubled is the nearer to noise.

    Args:
        density: of one time.
        equal_rate: [], the probability of r = t, where the times are not (0, 1).
        whole_rate: [], the probability of (0, 1).
    """

    def draw(key: Array) -> tuple[Array, Array]:
        require_key("key", key)
        one_key, other_key, equal_key, whole_key = jax.random.split(key, 4)
        one, other = _drawn(density, one_key), _drawn(density, other_key)
        t, r = jnp.minimum(one, other), jnp.maximum(one, other)
        r = jnp.where(jax.random.uniform(equal_key) < equal_rate, t, r)
        is_whole = jax.random.uniform(whole_key) < whole_rate
        return jnp.where(is_whole, 0, t), jnp.where(is_whole, 1, r)

    return draw


@checked
def times_until(r: Time = 1.0, density: TimeDensity = _UNIFORM) -> TimesDensity:
    """One r for all, and t = r s with s of a density: at r = 1 the times of consistency models."""

    def draw(key: Array) -> tuple[Array, Array]:
        require_key("key", key)
        end = as_float(r)
        return end * _drawn(density, key), end

    return draw


@checked
def step_times(num_steps: Annotated[Number, whole(1)]) -> TimesDensity:
    """The two ends of one of n even steps, (i / n, (i + 1) / n): those of a student of progressive distillation.

    ``num_steps`` may be traced: halved from round to round, it compiles nothing anew.
    """

    def draw(key: Array) -> tuple[Array, Array]:
        require_key("key", key)
        count = as_float(num_steps)
        index = jnp.minimum(jnp.floor(jax.random.uniform(key) * count), count - 1)
        return index / count, (index + 1) / count

    return draw

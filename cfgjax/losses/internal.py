"""The loss of a network that predicts the field twice, in its middle and at its end: (L8) of the package."""

from __future__ import annotations

import jax.numpy as jnp

from cfgjax.checks import require_like, require_scalar
from cfgjax.contracts import AnyCondition, Key, NonNegative, checked
from cfgjax.losses.densities import flat, uniform
from cfgjax.losses.matching import DataPoint, draw
from cfgjax.types import Array, GaussianPath, Schedule, Sides, TimeDensity

_UNIFORM = uniform()


@checked
def internal_matching(
    path: GaussianPath,
    sides: Sides,
    key: Key,
    z: DataPoint,
    *y: AnyCondition,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
    share: NonNegative = 0.5,
) -> Array:
    """The loss (L8) of one example at one random time: flow matching of the internal and the final prediction, [].

    Both are matched to the same draw, so that with one key it is ``flow_matching`` of the final one plus ``share``
    times that of the internal one. Each has the field as its minimiser, whatever the other: they differ, and internal
    guidance does something, only as far as the blocks before the head can do less than all.

    Args:
        path: the path.
        sides: (x, t, y) -> the internal and the final prediction of the field, as ``models.DiT.sides``; with a
            condition or, for a Field, without one.
        key: a key for time and noise.
        z: [*D], the data point.
        y: the condition, already dropped where it is to be; leave it out for a Field.
        time_density: how the time is drawn.
        weight: a further factor, a function of t.
        share: [], the weight of the internal prediction's loss, the paper's lambda.

    Source: Zhou et al., arXiv 2512.24176; the distance of velocities, without a weight, as their code has it.

    Raises:
        TypeError, ValueError: sides that do not give two values like x; a time density or a weight that does not give
            one number.
    """
    t, at = draw(path, key, z, time_density)
    factor = weight(t)
    require_scalar("weight(t)", factor)
    internal, final = _both(sides(at.x, t, *y), at.x)
    return factor * (jnp.mean(jnp.square(final - at.field)) + share * jnp.mean(jnp.square(internal - at.field)))


def _both(values: object, like: Array) -> tuple[Array, Array]:
    if not isinstance(values, tuple | list) or len(values) != 2:
        raise TypeError(f"sides must give two predictions, the internal one first, got {type(values).__name__}")
    internal, final = (
        require_like(name, value, like) for name, value in zip(("sides[0]", "sides[1]"), values, strict=True)
    )
    return internal, final

"""The loss that makes the null field the mean of the labelled ones: (L11) of the package.

Derivation. Of z with its label y and x = alpha z + beta noise the label has the law p_t(y|x) given x. So the mean of
u(x, t, y) given x is sum over y of p_t(y|x) u(x, t, y), which for exact labelled fields is the null field, and the
least mean square is there: no classifier is asked, nor a sum over labels taken. The target of flow matching,
alpha' z + beta' noise, has the same mean and is noisier, by its variance given x and y.
"""

from __future__ import annotations

import jax

from cfgjax.conditions import as_condition, null_for
from cfgjax.contracts import AnyCondition, AnyNull, Key, LabelledStateField, checked
from cfgjax.losses.densities import flat, uniform
from cfgjax.losses.matching import DataPoint, draw, mean_square
from cfgjax.types import Array, GaussianPath, Schedule, TimeDensity

_UNIFORM = uniform()


@checked
def null_consistency(
    path: GaussianPath,
    field: LabelledStateField,
    key: Key,
    z: DataPoint,
    y: AnyCondition,
    null: AnyNull,
    *,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The loss (L11) of one example at one random time, []: the null field against the labelled one, which is held.

    It trains the null side alone, in the place of dropped conditions or beside them; the labelled side learns by a loss
    of its own. At a y that is the null it is 0.

    Args:
        path: the path.
        field: the learned field.
        key: a key for time and noise.
        z: [*D], the data point.
        y: its condition, not dropped.
        null: what takes y's place, as for ``guidance.pair``.
        time_density: how the time is drawn.
        weight: a further factor, a function of t.

    Raises:
        TypeError, ValueError: a null that is not like y; a time density or a weight that does not give one number.
    """
    y = as_condition(y)
    t, at = drawn = draw(path, key, z, time_density)
    target = jax.lax.stop_gradient(field(at.x, t, y))
    return mean_square(lambda value, at, t: value - target, field, drawn, (null_for(null, y),), weight)

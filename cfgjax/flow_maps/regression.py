"""What the losses of flow maps share: the draw, and the mean square of a residual with its weight.

(Q1) loss = sg[k(m)] m,   m = |residual|^2 / D,   k = 1 by default, and 1 / (m + c)^p with ``residual_power``.

sg is stop_gradient. Where the target is random given (x, t, r), as the conditional velocity is, k is as well, and with
it: large residuals count less, and the minimiser moves from the mean of the target towards its median or, at p = 1,
its mode. MeanFlow's p = 1 does so. It changes nothing where the target is one value, as a teacher's is.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cfgjax.checks import is_traced, require_between, require_scalar, require_shape, short_repr
from cfgjax.contracts import NonNegative, Positive, checked
from cfgjax.paths import as_time, sample
from cfgjax.types import (
    Array,
    Derivative,
    FlowMap,
    GaussianPath,
    PathSample,
    Point,
    ResidualWeight,
    TimesDensity,
    Velocity,
)


@checked
def residual_power(power: NonNegative = 1.0, least: Positive = 1e-3) -> ResidualWeight:
    """The weight 1 / (m + c)^p of a mean square m (Q1), which moves the minimiser of a random target.

    Args:
        power: p; 0 is no weight, 0.5 the pseudo-Huber loss, 1 MeanFlow's.
        least: c, of a mean over the coordinates: MeanFlow's, of a sum over D of them, is c / D here.

    Source: Geng et al., arXiv 2505.13447, section 4.3.
    """
    return lambda mean_square: (mean_square + least) ** -power


def draw(path: GaussianPath, key: Array, z: Array, times: TimesDensity) -> tuple[Array, Array, PathSample]:
    """The two times, and the draw at the first, of one example."""
    time_key, noise_key = jax.random.split(key)
    drawn = times(time_key)
    if not isinstance(drawn, tuple) or len(drawn) != 2:
        raise TypeError(f"times(key) must be two times, (t, r), got {short_repr(drawn)}")
    t, r = drawn
    require_between("times(key)[0]", t, 0, 1)
    require_between("times(key)[1]", r, 0, 1)
    if not is_traced((t, r)) and t > r:
        raise ValueError(f"times(key) must be t <= r, got {t:g} and {r:g}")
    return as_time(t), as_time(r), sample(path, noise_key, z, t)


def velocity_of(velocity: Velocity, t: Array, at: PathSample) -> Array:
    """The velocity at a draw, found to be like the state, [*D]."""
    value = velocity(at.x, t, at.field)
    require_shape("velocity", value, at.x.shape, "give")
    return value


def by_halves(flow_map: FlowMap, x: Array, t: Array, r: Array) -> Array:
    """The average velocity from t to r by two jumps of equal length, [*D]."""
    middle = 0.5 * (t + r)
    first = flow_map(x, t, middle)
    return 0.5 * (first + flow_map(x + (middle - t) * first, middle, r))


def along(derivative: Derivative, flow_map: FlowMap, point: Point, direction: Array) -> tuple[Array, Array]:
    """U at (x, t, r), and dU/dt where x moves in a direction and r stays, [*D] each."""
    _, t, r = point
    return derivative(flow_map, point, (direction, jnp.ones_like(t), jnp.zeros_like(r)))


def weighted(residual: Array, weight: ResidualWeight) -> Array:
    """The loss (Q1) of a residual, []."""
    mean_square = jnp.mean(jnp.square(residual))
    factor = weight(mean_square)
    require_scalar("weight(mean square)", factor)
    return jax.lax.stop_gradient(factor) * mean_square

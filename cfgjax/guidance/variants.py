"""Rules on the two sides of guidance, each in its paper's space.

A rule on a pair replaces the null side alone: the labelled side, and so w = 1, stays bitwise. The new null side is
made of both, so a known w = 0 costs two evaluations. Coefficients are those at ``paths.before_end(t)``.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from cfgjax.checks import HUGE, TINY, is_known_as, is_traced, require_like
from cfgjax.contracts import Finite, GuidanceScale, NonNegative, PositiveOrInf, UnitInterval, checked
from cfgjax.conversions import from_field
from cfgjax.guidance.pairs import alone, inside, interpolate
from cfgjax.guidance.projections import along, denoiser_slope, length, noise_slope, project, shorten
from cfgjax.guidance.schedules import scale_at
from cfgjax.piecewise import piecewise
from cfgjax.types import Array, Condition, GaussianPath, Interval, LabelledField, LinearOperator, Pair


@piecewise
@checked
def projected(path: GaussianPath, pair: Pair, eta: Finite = 0.0, max_norm: PositiveOrInf = jnp.inf) -> Pair:
    """The pair of projected guidance: its difference shortened, and its part along the labelled denoiser weakened.

    In denoiser space: d = D_y - D_null is shortened to the length ``max_norm``, its part along D_y multiplied by
    ``eta``; the null side becomes D_y - d. w keeps its meaning of (G1). eta = 1 with max_norm = infinity changes
    nothing, to rounding. ``adaptive_projected`` adds the paper's momentum.

    Args:
        path: the path of the pair's fields.
        pair: the two sides, vector fields.
        eta: [], the share kept of the part along D_y, which the paper finds to oversaturate.
        max_norm: [], the greatest length of d, in data units over the whole example.

    Source: Sadat et al., arXiv 2410.02416, algorithm 1.
    """

    def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        null, labelled = pair.both(x, t, y)
        denoiser = from_field(path, labelled, x, t).denoiser
        slope = denoiser_slope(path, t)
        change = project(shorten((labelled - null) * slope, max_norm), denoiser, eta) / slope
        return labelled - change, labelled

    return Pair(both, pair.labelled)


@piecewise
@checked
def cfg_zero_star(pair: Pair) -> Pair:
    """The pair of CFG-Zero*: the null field times s = <u_y, u_null> / |u_null|^2, its best fit to the labelled one.

    Acts on the vector field. w = 1 is the labelled field bitwise; w = 0 is s u_null. Where u_null = 0, s = 1.
    The paper's zero-init is ``zero_init``.

    Source: Fan et al., arXiv 2503.18886.
    """

    def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        null, labelled = pair.both(x, t, y)
        return along(labelled, null), labelled

    return Pair(both, pair.labelled)


@piecewise
@checked
def tangential_damping(path: GaussianPath, pair: Pair) -> Pair:
    """The pair of tangential damping: the null score is projected onto the first right singular vector of both scores.

    Acts in score space (or noise space: a factor of all scores changes nothing). With a = E_null, d = E_y - E_null and
    theta the angle of the first left singular vector of the rows (a, a + d), the projection of a is
    a + sin(theta) [(cos(theta) - sin(theta)) a + cos(theta) d]. Both terms are O(alpha), and are divided by alpha
    analytically, so that the field is regular at t = 0. w = 1 is the labelled field bitwise; where the two scores
    are parallel nothing changes.

    Args:
        path: the path of the pair's fields.
        pair: the two sides, vector fields.

    Source: Kwon et al., arXiv 2503.18137.
    """

    def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        null, labelled = pair.both(x, t, y)
        slope = noise_slope(path, t) + TINY
        noise, change = from_field(path, null, x, t).noise, labelled - null
        inner = jnp.sum(noise * change)
        growth = 2 * inner - slope * jnp.sum(jnp.square(change))
        product = jnp.sum(jnp.square(noise)) - slope * inner
        largest = lax.stop_gradient(jnp.maximum(jnp.abs(product), jnp.abs(slope * growth)))
        is_nothing = largest < TINY
        # Only ratios count: divided by the largest, the squares below cannot underflow.
        growth, product = (value / jnp.where(is_nothing, 1, largest) for value in (growth, product))
        product = jnp.where(is_nothing, 1, product)
        angle = 0.5 * jnp.arctan2(2 * product, slope * growth)
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        size = jnp.where(product > 0, (cosine + sine) * jnp.hypot(2 * product, slope * growth), 1)
        lean = jnp.where(product > 0, growth / size, (cosine - sine) / jnp.where(product > 0, 1, slope))
        return null + sine * (cosine * change - lean * noise), labelled

    return Pair(both, pair.labelled)


@piecewise
@checked
def magnitude_aware(pair: Pair, damping: NonNegative = 8.0) -> Pair:
    """The pair of magnitude-aware guidance: w - 1 times e^(-a r), with r = |u_y - u_null| / |u_null| and a the damping.

    Acts on the vector field, over the whole example; in other spaces r differs. The null side becomes
    u_y - e^(-a r) (u_y - u_null). w = 1 is the labelled field bitwise, and a damping known as 0 plain guidance. Where
    u_null = 0 the labelled field comes out.

    The paper's w(r) = 1 + (w - 1) e^(-a r) stands for u_null + w(r) d; of its port in diffusers that is
    ``use_original_formulation`` false, the other one is this at w + 1.

    Args:
        pair: the two sides, vector fields.
        damping: [], a, at least 0; the paper's is 8, with w = 10.

    Source: Zhu et al., arXiv 2508.03442 (MAMBO-G).
    """
    if is_known_as(damping, 0):
        return pair

    def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        null, labelled = pair.both(x, t, y)
        change = labelled - null
        size, gap = length(null), length(change)
        ratio = jnp.where(size > 0, gap / jnp.where(size > 0, size, 1), jnp.where(gap > 0, HUGE, 0))
        return labelled - jnp.exp(-damping * ratio) * change, labelled

    return Pair(both, pair.labelled)


@piecewise
@checked
def frequency_decoupled(pair: Pair, low_pass: LinearOperator, low_share: Finite = 4 / 9) -> Pair:
    """The pair of frequency-decoupled guidance: w for the high frequencies, 1 + r (w - 1) for the low, r the share.

    With d = u_y - u_null and a linear low pass L the null side becomes u_y - d + (1 - r) L d, so that the guided field
    is u_null + w (d - L d) + w_low L d. Acts in any space, as L does not depend on t. w = 1 is the labelled field
    bitwise, and a share known as 1 plain guidance.

    The paper's weights on the part along each level's D_y are left out: 1, as by its default; ``projected`` stacks.

    Args:
        pair: the two sides.
        low_pass: L, a linear function of a value like x that gives its low frequencies, as of ``filters``.
        low_share: [], r; the paper's w = 10 with w_low = 5 is 4 / 9.

    Raises:
        TypeError, ValueError: at a call, a low pass whose value is not like x.

    Source: Sadat et al., arXiv 2506.19713, algorithm 2.
    """
    if is_known_as(low_share, 1):
        return pair

    def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        null, labelled = pair.both(x, t, y)
        change = labelled - null
        low = require_like("low_pass", low_pass(change), change)
        return labelled - (change - (1 - low_share) * low), labelled

    return Pair(both, pair.labelled)


@piecewise
@checked
def rescaled(pair: Pair, scale: GuidanceScale, phi: UnitInterval = 0.7) -> LabelledField:
    """The guided field of (G1), brought back towards the labelled field's standard deviation.

    Acts on the vector field, as the paper does on a network's output of velocities: with g the guided and u_y the
    labelled value, g' = phi (std u_y / std g) g + (1 - phi) g, the standard deviations taken over one example.
    A larger w then changes the direction and, by phi = 1, no longer the size. w = 1 is bitwise the labelled field,
    and phi = 0 plain guidance.

    Args:
        pair: the two sides, vector fields.
        scale: w, as for ``extrapolate``.
        phi: [], in [0, 1]: the paper's phi.

    Source: Lin et al., arXiv 2305.08891, section 3.4.
    """
    if isinstance(scale, Interval) and not is_traced(scale[1:]):
        return inside(pair, scale, lambda pair, scale: rescaled(pair, scale, phi))
    side = alone(pair._replace(null=None), scale)
    if side is not None:
        return side

    def guided(x: Array, t: Array, y: Condition) -> Array:
        null, labelled = pair.both(x, t, y)
        value = interpolate(null, labelled, scale_at(scale, t, y, (x, null, labelled)))
        spread, wanted = length(value - jnp.mean(value)), length(labelled - jnp.mean(labelled))
        ratio = jnp.where(spread > 0, wanted / jnp.where(spread > 0, spread, 1), 1)
        return value * (1 + phi * (ratio - 1))

    return guided

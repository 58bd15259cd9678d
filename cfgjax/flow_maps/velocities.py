"""What stands in a loss in the place of the conditional velocity u(x|z) = alpha' z + beta' noise.

A ``Velocity`` is a function (x, t, u(x|z)) -> like x. A loss that regresses on it at r = t has as its minimiser the
mean given x: the field whose flow map is learned.

(V1) conditional:  u(x|z),                                                     whose mean is the path's field u_y.
(V2) guided:       omega u(x|z) + kappa U(x, t, t, y, w) + (1 - omega - kappa) U(x, t, t, null, 1).

(V2) is MeanFlow's guidance inside the target, so that sampling costs no second evaluation. At the fixed point
U = U(x, t, t, y, w) is the mean of its target. With u_null = U(x, t, t, null, 1), learned where the condition is
dropped,

    (1 - kappa) U = omega u_y + (1 - omega - kappa) u_null,   so   U = u_null + omega / (1 - kappa) (u_y - u_null),

classifier-free guidance with w = omega / (1 - kappa) exactly. We give w, so omega = w (1 - kappa). The distance from
the fixed point shrinks for every kappa under 1, at a rate in proportion to 1 - kappa; the noise of the target grows
with omega. kappa = 0 is the plain rule, omega = w. kappa = 1 - 1/w has omega = 1 and the target
u(x|z) + (1 - 1/w) (U(x, t, t, y, w) - U(x, t, t, null, 1)): model guidance, and the rule of improved MeanFlow.

What the published programs do (read on 2026-11-29), in our words:

- MeanFlow (Gsunshine/meanflow) has one w for the whole network. omega and kappa are numbers inside an interval of
  times that is closed at both ends, 1 and 0 outside. The null is label K at r = t, by the parameters that are trained,
  and the tangent is (V2) itself. Where the label is dropped, for one example in ten, target and tangent are u(x|z).
- Improved MeanFlow (Lyy-iiis/imeanflow) has w and the interval's ends as inputs, and kappa = 1 - 1/w. The null is fed
  w = 1 and the interval [0, 1]. The interval, closed at both ends, is the whole where r = t; outside it w is 1 in the
  target and the tangent. The tangent is the prediction at y, w and r = t by a second head, and stays so where the label
  is dropped: right on average, since the mean over y given x of u_null + w (u_y - u_null) is u_null.

Ours: the interval is that of ``guidance.interval``, open at its end unless that is 1. Outside w is 1, and the velocity
u(x|z) alone, bitwise. The flow map is given w whole, a number or an Interval, and at the null 1 or Interval(1, 0, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from cfgjax.checks import BELOW_ONE, is_known_as, require_between
from cfgjax.conditions import as_condition, null_for
from cfgjax.contracts import (
    AnyCondition,
    AnyNull,
    Contract,
    Finite,
    GuidanceScale,
    RealArray,
    StateField,
    StateFlowMap,
    Time,
    checked,
)
from cfgjax.guidance import scale_at
from cfgjax.paths import as_float
from cfgjax.types import Array, Interval, Number, Scale, Velocity


@checked
def conditional_velocity(x: RealArray, t: Time, conditional: RealArray) -> Array:
    """The conditional velocity itself (V1): the law of the data without guidance."""
    return jnp.asarray(conditional)


def _require_kappa(name: str, value: object) -> None:
    if not callable(value):
        require_between(name, value, 0, BELOW_ONE)


@checked
def model_guidance_kappa(scale: Finite) -> Array:
    """The kappa of model guidance, 1 - 1/w, []: omega is 1. Singular at w = 0, where it is minus infinity."""
    return 1 - 1 / as_float(scale)


def _null_scale(scale: Scale) -> Scale:
    """The scale 1 in the structure of another."""
    return Interval(1.0, 0.0, 1.0) if isinstance(scale, Interval) else 1.0


@checked
def guided_velocity(
    flow_map: StateFlowMap,
    y: AnyCondition,
    w: GuidanceScale,
    null: AnyNull,
    kappa: Annotated[Number | Callable[[Array], Array], Contract(_require_kappa)] = 0.0,
) -> Velocity:
    """The velocity with guidance inside (V2), omega = w (1 - kappa); no gradient passes the flow map.

    Where w is 1 it is the conditional velocity alone. An example whose condition is dropped has w = 1.

    Args:
        flow_map: the network that is trained, (x, t, r, y, w) -> like x; called at r = t, at y and null together.
        y: the condition.
        w: the guidance scale, a number or an Interval of one.
        null: what takes y's place on the null side, a condition or a function of y.
        kappa: the share of the network's own guided prediction, in [0, 1): a number, or a function w -> kappa, as
            ``model_guidance_kappa`` is.

    Source: Geng et al., arXiv 2505.13447, and 2512.02012; Tang et al., arXiv 2502.12154 (model guidance).
    """

    def null_side(x: Array, t: Array) -> Array:
        return flow_map(x, t, t, null_for(null, y), jax.tree.map(as_float, _null_scale(w)))

    def sides(x: Array, t: Array) -> tuple[Array, Array]:
        conditions = jax.tree.map(lambda *each: jnp.stack(each), null_for(null, y), as_condition(y))
        scales = jax.tree.map(lambda *each: jnp.stack([as_float(scale) for scale in each]), _null_scale(w), w)
        values = jax.vmap(lambda y, w: flow_map(x, t, t, y, w))(conditions, scales)
        return values[0], values[1]

    def velocity(x: Array, t: Array, conditional: Array) -> Array:
        scale = scale_at(w, t, y)
        if is_known_as(kappa, 0):
            unguided = jax.lax.stop_gradient(null_side(x, t))
            return jnp.where(scale == 1, conditional, unguided + scale * (conditional - unguided))
        unguided, own = jax.lax.stop_gradient(sides(x, t))
        part = kappa(scale) if callable(kappa) else kappa
        mixed = unguided + part * (own - unguided) + scale * (1 - part) * (conditional - unguided)
        return jnp.where(scale == 1, conditional, mixed)

    return velocity


@checked
def teacher_velocity(field: StateField) -> Velocity:
    """A teacher's field in the conditional velocity's place: no noise but the state's own, and no gradient passes."""
    return lambda x, t, conditional: jax.lax.stop_gradient(field(x, t))

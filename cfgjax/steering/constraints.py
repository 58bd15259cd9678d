"""Constraints by projection of the denoised estimate.

(C) D' = P(D) for a function P, so that u' = u + (W / beta) (D' - D): near t = 1 the ODE leads to a point of P's range.
    It is a constraint on the mean of z given x, not on the samples of a posterior: of the law of z where P(z) = z it
    keeps the place alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import jax.numpy as jnp

from cfgjax.checks import require_like
from cfgjax.contracts import AnyField, AnyMeasurement, FieldLikeX, checked
from cfgjax.conversions import from_field
from cfgjax.guidance.thresholding import with_denoiser
from cfgjax.paths import as_state
from cfgjax.piecewise import piecewise
from cfgjax.steering.linear_systems import solve_regularised
from cfgjax.steering.measurements import adjoint, residual
from cfgjax.types import Array, GaussianPath

Projection = Callable[[Array], Array]
"""``z [*D] -> [*D]``: the point of a set that is nearest to z, or any other."""


@piecewise
@checked
def projected_constraint(path: GaussianPath, field: FieldLikeX[AnyField], projection: Projection) -> AnyField:
    """The field whose denoiser is projection(D), of (C).

    Acts on the denoiser; one evaluation and no vector-Jacobian product a call. It changes nothing where
    projection(D) = D, bitwise: the identity is its neutral setting. ``guidance.static_threshold`` is that of a box,
    ``affine_projection`` that of a measurement without noise, and ``ascent`` moves D uphill. At t = 1 the correction is
    multiplied by W / beta at the largest float below 1.

    Args:
        path: the path of the field.
        field: a vector field, guided or not.
        projection: z [*D] -> [*D].

    Raises:
        TypeError, ValueError: at a call, a projection that gives nothing like z.

    Source: Bansal et al., arXiv 2302.07121, backward guidance, for projections that are steps; Wang et al., arXiv
    2212.00490 (null-space projection), for affine ones.
    """

    def steered(x: Array, t: Array, *y: Array) -> Array:
        value = field(x, t, *y)
        denoiser = from_field(path, value, x, t).denoiser
        wanted = require_like("projection", projection(denoiser), denoiser)
        return with_denoiser(path, value, t, denoiser, jnp.asarray(wanted))

    return cast(AnyField, steered)


@checked
def affine_projection(measurement: AnyMeasurement) -> Projection:
    """The function z [*D] -> z + A^T (A A^T)^+ (m - A z), the nearest point with A z = m, as near as there is one.

    The noise is not looked at.

    >>> from cfgjax.steering import operators
    >>> from cfgjax.types import Measurement
    >>> onto = affine_projection(Measurement(operators.matrix(jnp.ones((1, 2))), jnp.ones(1), 0.0))
    >>> onto(jnp.zeros(2)).tolist()
    [0.5, 0.5]
    """

    def projected(z: Array) -> Array:
        z = as_state(z, "z")
        error = adjoint(measurement, z)(residual(measurement, z).astype(z.dtype))
        return z + solve_regularised(measurement, error, 0.0, 1.0)

    return projected

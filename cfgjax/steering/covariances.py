"""Rules that take z given x for a Gaussian of mean D: each has a covariance V of its own for it.

(V1) log p(m|x) = log N(m; A D, s^2 I + A V A^T), so  G = J^T A^T (s^2 I + A V A^T)^-1 (m - A D),  V held.
(V2) ``pi_gdm``   V = r^2 I,  r^2 = beta^2 v / (alpha^2 v + beta^2) of a prior of covariance v I:   exact there.
(V3) ``tmpd``     s^2 I + A V A^T ~ s^2 + (beta^2 / alpha) A J^T A^T 1, a diagonal of row sums: exact on one Gaussian
     where A V A^T is diagonal, as for one measured number.
(V4) ``mmps``     V = (beta^2 / alpha) J^T, by conjugate gradients:   exact on one Gaussian.
(V5) ``diffpir``  D' = argmin_z |m - A z|^2 / (2 s^2) + |z - D|^2 / (2 r^2),  r^2 = beta^2 / (alpha^2 lambda): no
     Jacobian; exact on a prior v I for lambda = 1 + beta^2 / (alpha^2 v).

The exact posterior field of one Gaussian has the denoiser D + V A^T (s^2 I + A V A^T)^-1 (m - A D). With s = 0 the
rules stay finite, and near t = 1 lead to A z = m by W / beta, which is large at the last float below 1.
"""

from __future__ import annotations

from typing import cast

import jax.numpy as jnp

from cfgjax.checks import is_known_as
from cfgjax.contracts import (
    AnyField,
    AnyMeasurement,
    FieldLikeX,
    FiniteSchedule,
    InnerTime,
    Positive,
    PositiveInt,
    PositiveSchedule,
    checked,
)
from cfgjax.conversions import from_field
from cfgjax.guidance.thresholding import with_denoiser
from cfgjax.paths import as_float, as_state, before_end, coefficients
from cfgjax.piecewise import piecewise
from cfgjax.steering.denoised import START, Denoised, corrected, value_at
from cfgjax.steering.linear_systems import conjugate_gradients, solve_regularised
from cfgjax.steering.measurements import adjoint, apply, residual
from cfgjax.types import Array, GaussianPath, Measurement


def _noise(measurement: Measurement) -> Array:
    return jnp.square(as_float(measurement.noise_std))


def _error(measurement: Measurement, z: Array) -> Array:
    """A^T (m - A z), [*D]."""
    return adjoint(measurement, z)(residual(measurement, z).astype(z.dtype))


@piecewise
@checked
def pi_gdm(
    path: GaussianPath,
    field: FieldLikeX[AnyField],
    measurement: AnyMeasurement,
    scale: FiniteSchedule = 1.0,
    prior_variance: Positive = 1.0,
    start: InnerTime = START,
) -> AnyField:
    """The field u + scale b J^T A^T (s^2 I + r^2 A A^T)^-1 (m - A D) of (V2): pseudo-inverse guidance.

    Acts on the denoiser; one evaluation and one vector-Jacobian product a call. Neutral at scale 0, which where it is
    known gives ``field`` itself.

    Args:
        path: the path of the field.
        field: a vector field, guided or not.
        measurement: m, A and s; s may be 0.
        scale: a number, traced or not, or a function of t.
        prior_variance: [], v: of the data, in each direction.
        start: [], the time before which all is that at ``start`` (ends: ``steering.denoised``).

    Source: Song et al., ICLR 2023, Pseudoinverse-guided diffusion models; r^2 with its v = 1.
    """

    def correction(at: Denoised) -> Array:
        c = at.coefficients
        spread = c.beta**2 * prior_variance / (c.alpha**2 * prior_variance + c.beta**2)
        error = _error(measurement, at.denoiser)
        return at.pull_back(solve_regularised(measurement, error, _noise(measurement), spread))

    return corrected(path, field, correction, scale, start)


@piecewise
@checked
def tmpd(
    path: GaussianPath,
    field: FieldLikeX[AnyField],
    measurement: AnyMeasurement,
    scale: FiniteSchedule = 1.0,
    start: InnerTime = START,
) -> AnyField:
    """The field of (V3): Tweedie moment projected diffusion, with its diagonal by row sums.

    Acts on the denoiser; one evaluation and two vector-Jacobian products a call. Row sums under 0, which a covariance
    may have but no variance, are taken for 0; where s = 0, too, nothing is corrected. Arguments and neutral setting:
    ``dps``, but s may be 0.

    Source: Boys et al., arXiv 2310.06721, with their diagonal approximation.
    """

    def correction(at: Denoised) -> Array:
        error = residual(measurement, at.denoiser).astype(at.denoiser.dtype)
        transpose = adjoint(measurement, at.denoiser)
        row_sums = at.variance * apply(measurement, at.pull_back(transpose(jnp.ones_like(error))))
        variances = _noise(measurement) + jnp.maximum(row_sums, 0)
        is_zero = variances == 0
        weighted = jnp.where(is_zero, 0, error / jnp.where(is_zero, 1, variances))
        return at.pull_back(transpose(weighted.astype(error.dtype)))

    return corrected(path, field, correction, scale, start)


@piecewise
@checked
def mmps(
    path: GaussianPath,
    field: FieldLikeX[AnyField],
    measurement: AnyMeasurement,
    scale: FiniteSchedule = 1.0,
    num_iterations: PositiveInt = 3,
    start: InnerTime = START,
) -> AnyField:
    """The field of (V4): moment matching posterior sampling, (s^2 I + A V A^T) solved by conjugate gradients.

    Acts on the denoiser; one evaluation and ``num_iterations`` + 1 vector-Jacobian products a call, one in each
    iteration and one at the end. V is applied by J^T: for an exact D it is J, symmetric; for a learned one it nearly
    is. With as many iterations as there are measured numbers the system is solved, in exact arithmetic. Other
    arguments and the neutral setting: ``dps``, but s may be 0.

    Source: Rozet et al., arXiv 2405.13712.
    """

    def correction(at: Denoised) -> Array:
        error = residual(measurement, at.denoiser).astype(at.denoiser.dtype)
        transpose = adjoint(measurement, at.denoiser)

        def covariance(value: Array) -> Array:
            seen = apply(measurement, at.pull_back(transpose(value)))
            return _noise(measurement) * value + at.variance * seen

        return at.pull_back(transpose(conjugate_gradients(covariance, error, num_iterations)))

    return corrected(path, field, correction, scale, start)


@piecewise
@checked
def diffpir(
    path: GaussianPath, field: FieldLikeX[AnyField], measurement: AnyMeasurement, strength: PositiveSchedule = 1.0
) -> AnyField:
    """The field whose denoiser is D' = D + A^T (s^2 I + r^2 A A^T)^-1 r^2 (m - A D) of (V5).

    Acts on the denoiser; one evaluation and no vector-Jacobian product a call. Neutral at infinity, which where it is
    known gives ``field`` itself. Regular at t = 0, where D' satisfies the measurement as well as it can be.

    Args:
        path: the path of the field.
        field: a vector field, guided or not.
        measurement: m, A and s; s may be 0.
        strength: lambda, of the prior against the measurement: a number, traced or not, or a function of t. The paper
            takes 1 to 25.

    Source: Zhu et al., arXiv 2305.08995: their data subproblem; what noise is added is the solver's.
    """
    if is_known_as(strength, float("inf")):
        return field

    def steered(x: Array, t: Array, *y: Array) -> Array:
        x, t = as_state(x), before_end(t)
        value = field(x, t, *y)
        denoiser = from_field(path, value, x, t).denoiser
        c = coefficients(path, t)
        kept, open_part = c.alpha**2 * value_at(strength, t, "strength"), c.beta**2
        noise, signal = (part / (kept + open_part) for part in (kept * _noise(measurement), open_part))
        moved = solve_regularised(measurement, signal * _error(measurement, denoiser), noise, signal)
        return with_denoiser(path, value, t, denoiser, denoiser + moved)

    return cast(AnyField, steered)

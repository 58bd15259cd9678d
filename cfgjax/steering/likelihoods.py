"""Rules that take the denoised estimate for the data point itself: any differentiable log-likelihood of clean data.

(U1) grad_x log p_t(m|x) ~ G = J^T grad_z log p(m|z) at z = D.
(U2) For m = A z + s n:  G = J^T A^T (m - A D) / s^2, which leaves out that z is not D: the exact covariance of m given
     x on one Gaussian is s^2 I + A V A^T with V = Cov[z|x].
(U3) Hence exact for a log-likelihood that is linear in z on one Gaussian; and for A A^T = a I on the covariance v I
     with the scale s^2 / (s^2 + r^2 a),  r^2 = beta^2 v / (alpha^2 v + beta^2), for all else biased. On N(0, v) with
     m = z + s n the ODE of the scale w ends, whatever the path, with the variance v exp(-w v / s^2), not
     v / (1 + v / s^2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from cfgjax.checks import require_label, require_like, require_number, require_rank, require_scalar
from cfgjax.contracts import (
    AnyField,
    AnyMeasurement,
    FieldLikeX,
    FiniteSchedule,
    InnerTime,
    NoisyMeasurement,
    Positive,
    PositiveInt,
    RealArray,
    checked,
    whole,
)
from cfgjax.paths import as_state
from cfgjax.piecewise import piecewise
from cfgjax.steering.denoised import START, Denoised, corrected
from cfgjax.steering.measurements import log_likelihood, residual
from cfgjax.types import Array, GaussianPath, LogLikelihoodOfData, Number

Label = Annotated[Number, whole(0)]
"""A label, an integer of at least 0."""


def _gradient(log_likelihood: LogLikelihoodOfData, z: Array) -> Array:
    """grad log p(m|z), [*D], once the value is found to be one number, finite where concrete."""

    def of(z: Array) -> Array:
        value = log_likelihood(z)
        require_scalar("log_likelihood", value)
        return jnp.asarray(value, jnp.result_type(float, value))

    value, gradient = jax.value_and_grad(of)(z)
    require_number("log_likelihood", value)
    return gradient


@piecewise
@checked
def universal(
    path: GaussianPath,
    field: FieldLikeX[AnyField],
    log_likelihood: LogLikelihoodOfData,
    scale: FiniteSchedule = 1.0,
    start: InnerTime = START,
) -> AnyField:
    """The field u + scale b J^T grad_z log p(m|z) at z = D, of (U1): universal guidance, forward.

    Acts on the denoiser; one evaluation and one vector-Jacobian product a call. Neutral at scale 0, which where it is
    known gives ``field`` itself. Stacks on any field: guidance first.

    Args:
        path: the path of the field.
        field: a vector field, guided or not.
        log_likelihood: z [*D] -> [], differentiable: ``log_likelihood(measurement)``, ``classifier_likelihood``, or
            any reward of clean data.
        scale: a number, traced or not, or a function of t.
        start: [], the time before which all is that at ``start`` (ends: ``steering.denoised``).

    Raises:
        TypeError, ValueError: at a call, a log-likelihood that is not one number, or where concrete not finite.

    Source: Bansal et al., arXiv 2302.07121, forward guidance.
    """

    def correction(at: Denoised) -> Array:
        return at.pull_back(_gradient(log_likelihood, at.denoiser))

    return corrected(path, field, correction, scale, start)


@piecewise
@checked
def dps(
    path: GaussianPath,
    field: FieldLikeX[AnyField],
    measurement: NoisyMeasurement,
    scale: FiniteSchedule = 1.0,
    start: InnerTime = START,
) -> AnyField:
    """The field u + scale b J^T A^T (m - A D) / s^2 of (U2): diffusion posterior sampling by the likelihood of D.

    ``universal`` with the measurement's ``log_likelihood``; where it is exact, and its bias elsewhere, says (U3).
    The noise s must be positive: ``dps_normalized`` and the rules with a covariance need none.

    Source: Chung et al., arXiv 2209.14687, theorem 1, for Gaussian noise.
    """
    return universal(path, field, log_likelihood(measurement), scale, start)


@piecewise
@checked
def dps_normalized(
    path: GaussianPath,
    field: FieldLikeX[AnyField],
    measurement: AnyMeasurement,
    scale: FiniteSchedule = 1.0,
    start: InnerTime = START,
) -> AnyField:
    """The field u - scale b grad_x |m - A D|^2 / |m - A D|: ``dps`` with the step that its paper recommends.

    ``universal`` with the log-likelihood -2 |m - A z|; 0 where m = A D. It knows no noise, and its length does not
    fall as A D comes nearer to m: biased on every law. The paper's scale is one of steps, this one of b.

    Source: Chung et al., arXiv 2209.14687, algorithm 1 with the step zeta / |m - A D|.
    """

    def negative_distance(z: Array) -> Array:
        square = jnp.sum(jnp.square(residual(measurement, z)))
        is_zero = square == 0
        return jnp.where(is_zero, 0, -2 * jnp.sqrt(jnp.where(is_zero, 1, square)))

    return universal(path, field, negative_distance, scale, start)


@checked
def classifier_likelihood(log_probs: Callable[[Array], Array], y: Label) -> LogLikelihoodOfData:
    """z [*D] -> log p(y|z) of a classifier of clean data, for ``universal``.

    Args:
        log_probs: z [*D] -> [K], the log-probabilities of the labels, as ``jax.nn.log_softmax`` makes them.
        y: a label; of the null label K nothing is known, and the log-likelihood 0.

    Raises:
        TypeError, ValueError: at a call, log-probabilities that are not [K], or a y outside 0..K.

    >>> float(classifier_likelihood(lambda z: jnp.stack([z, -z]), 1)(jnp.asarray(0.5)))
    -0.5
    """

    def of(z: Array) -> Array:
        value = log_probs(z)
        require_rank("log_probs", value, 1)
        require_label("y", y, value.shape[0])
        return jnp.asarray(value).at[y].get(mode="fill", fill_value=0.0)

    return of


@checked
def ascent(
    log_likelihood: LogLikelihoodOfData, rate: Positive, num_steps: PositiveInt = 1
) -> Callable[[RealArray], Array]:
    """The function z [*D] -> z after so many steps z + rate grad log p(m|z), for ``projected_constraint``.

    The denoised estimate is moved itself: no product with the network's Jacobian.

    Source: Bansal et al., arXiv 2302.07121, backward guidance.

    >>> ascent(lambda z: -0.5 * jnp.sum(z**2), 0.5)(jnp.ones(1)).tolist()
    [0.5]
    """

    def moved(z: Array) -> Array:
        z = as_state(z, "z")

        def step(_: Array, z: Array) -> Array:
            return (z + rate * require_like("log_likelihood", _gradient(log_likelihood, z), z)).astype(z.dtype)

        return jax.lax.fori_loop(0, num_steps, step, z)

    return moved

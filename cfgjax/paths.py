"""Gaussian probability paths from noise (t = 0) to data (t = 1).

(P1) x = alpha_t z + beta_t noise, so p_t(x|z) = N(alpha_t z, beta_t^2 I);   alpha_0 = beta_1 = 0, alpha_1 = beta_0 = 1.
(P2) d/dt of (P1) with z and noise held:   u(x|z) = alpha' z + beta' noise.
(P3) the score of (P1):   grad_x log p_t(x|z) = -noise / beta_t.
(P4) W = alpha' beta - alpha beta' > 0 inside (0, 1): linear 1, cosine pi/2, polynomial n t^(n-1).

Source: MIT 6.S184, lecture 4 and notes (Holderrieth & Erives, arXiv 2506.02070v3), sections 3 and 4.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import HUGE, require_real, require_scalar, require_shape, require_time
from cfgjax.contracts import Key, NonNegative, Positive, RealArray, Time, between, checked
from cfgjax.types import Array, Coefficients, GaussianPath, Number, PathSample


def linear() -> GaussianPath:
    """The straight path alpha = t, beta = 1 - t (conditional optimal transport); W = 1.

    >>> linear().alpha(0.25), linear().beta(0.25)
    (0.25, 0.75)
    """
    return GaussianPath(alpha=lambda t: t, beta=lambda t: 1.0 - t)


def cosine() -> GaussianPath:
    """The path alpha = sin(pi t / 2), beta = cos(pi t / 2) of constant alpha^2 + beta^2 = 1; W = pi / 2.

    beta is computed as sin(pi (1 - t) / 2), which is exactly 0 at t = 1.
    """
    quarter = jnp.pi / 2
    return GaussianPath(alpha=lambda t: jnp.sin(quarter * t), beta=lambda t: jnp.sin(quarter * (1.0 - t)))


@checked
def polynomial(power: Annotated[Number, between(1, HUGE)]) -> GaussianPath:
    """The path alpha = t^n, beta = 1 - t^n, with n = ``power``; W = n t^(n-1), which is 0 at t = 0 for n > 1.

    Under n = 1 alpha' would be infinite at t = 0.
    """

    def beta(t: Array) -> Array:
        late = jnp.where(t < 0.5, 1.0, t)
        return jnp.where(t < 0.5, 1.0 - t**power, -jnp.expm1(power * jnp.log(late)))

    return GaussianPath(alpha=lambda t: t**power, beta=beta)


@checked
def variance_preserving(
    rate_min: NonNegative = 0.1, rate_max: Positive = 20.0, zero_terminal: bool = True
) -> GaussianPath:
    """The path alpha^2 + beta^2 = 1 of the variance-preserving diffusion, its noise rate linear in time.

    With s = 1 - t the diffusion's own time, log alpha = -(rate_min s + (rate_max - rate_min) s^2 / 2) / 2. That leaves
    alpha(0) = 0.0066 for the usual rates, so that noise at t = 0 would still hold a trace of the data.
    ``zero_terminal`` shifts and scales alpha so that alpha(0) = 0 exactly, which a sampler started from pure noise
    needs; pass False for a network that was trained with the original schedule.

    Singular: beta' goes to -inf at t = 1. ``coefficients`` gives its value at the largest float below 1 there.
    Source: Song et al., arXiv 2011.13456, equation 32; Lin et al., arXiv 2305.08891, algorithm 1, for the shift.
    """
    slope = rate_max - rate_min

    def decay(s: Number) -> Number:
        return 0.5 * s * (rate_min + 0.5 * s * slope)

    def growth(t: Number) -> Number:
        return 0.5 * t * (rate_min + (1.0 - 0.5 * t) * slope)

    def shifted_alpha(t: Array) -> Array:
        return jnp.exp(-decay(1.0 - t)) * jnp.expm1(-growth(t)) / jnp.expm1(-growth(1.0))

    def shifted_beta(t: Array) -> Array:
        loss = jnp.expm1(-decay(1.0 - t)) / jnp.expm1(-decay(1.0))
        return jnp.sqrt(loss * (2.0 - loss))

    def alpha(t: Array) -> Array:
        return jnp.exp(-decay(1.0 - t))

    def beta(t: Array) -> Array:
        return jnp.sqrt(-jnp.expm1(-2.0 * decay(1.0 - t)))

    return GaussianPath(shifted_alpha, shifted_beta) if zero_terminal else GaussianPath(alpha, beta)


NUM_STEPS = 1000
"""Of ``ddpm``."""


def _log_signal() -> np.polynomial.Polynomial:
    """log alpha^2 of DDPM's steps as a polynomial of step / 999, to 1e-9 of its value at each of them."""
    at_steps = np.cumsum(np.log1p(-np.linspace(1e-4, 0.02, NUM_STEPS)))
    return np.polynomial.Polynomial.fit(np.linspace(0, 1, NUM_STEPS), at_steps, 8, domain=[0, 1], window=[0, 1])


def ddpm() -> GaussianPath:
    """The path alpha^2 + beta^2 = 1 through the 1,000 steps of DDPM: step i = 999 (1 - t), between them smooth.

    At step i, alpha^2 = (1 - b_0) (1 - b_1) ... (1 - b_i), the b_j rising evenly from 1e-4 to 0.02. It keeps neither
    convention of the ends: alpha(0) = 0.0064 and beta(1) = 0.01, the first and the last state that a network of these
    steps knows. Sample such a network on another path, ``conversions.change_path(ddpm(), linear(), field)``, which
    goes on beyond both.

    Source: Ho et al., arXiv 2006.11239, section 4.

    >>> round(float(ddpm().alpha(0.0)), 6), round(float(ddpm().beta(1.0)), 6)
    (0.006353, 0.01)
    """
    factors = [float(factor) for factor in _log_signal().coef]

    def log_signal(t: Array) -> Array:
        left = 1.0 - t
        total = jnp.zeros_like(left)
        for factor in reversed(factors):
            total = total * left + factor
        return total

    return GaussianPath(lambda t: jnp.exp(0.5 * log_signal(t)), lambda t: jnp.sqrt(-jnp.expm1(log_signal(t))))


def as_float(value: Number) -> Array:
    """The number or array in floating point of at least 32 bits.

    Raises:
        TypeError: what holds no real numbers.
    """
    require_real("value", value)
    value = jnp.asarray(value)
    dtype = value.dtype if jnp.issubdtype(value.dtype, jnp.floating) else jnp.result_type(float)
    return value.astype(jnp.promote_types(dtype, jnp.float32))


def as_state(x: Array, name: str = "x") -> Array:
    """The state in floating point, [*D]: half precision stays what it is.

    Raises:
        TypeError: what holds no real numbers.
    """
    require_real(name, x)
    x = jnp.asarray(x)
    return x.astype(jnp.result_type(float, x))


def as_time(t: Number) -> Array:
    """The time as a floating-point scalar of at least 32 bits.

    Raises:
        TypeError, ValueError: what is not one number, or where concrete not in [0, 1].
    """
    require_time("t", t)
    return as_float(t)


def before_end(t: Number) -> Array:
    """The time, or the largest float below 1 where t = 1: where products such as beta beta' still have their limit.

    Raises:
        TypeError, ValueError: as ``as_time``.
    """
    t = as_time(t)
    return jnp.minimum(t, jnp.asarray(1.0 - float(jnp.finfo(t.dtype).epsneg), t.dtype))


@checked
def coefficients(path: GaussianPath, t: Number) -> Coefficients:
    """alpha, beta and their derivatives at t, by forward-mode differentiation.

    Args:
        path: the path.
        t: [], the time in [0, 1].

    Returns:
        Coefficients of shape [] each. At t = 1 the derivatives are those at the largest float below 1, so that a
        path whose beta' diverges there gives a large negative number and no inf or NaN; alpha and beta are exact.

    Raises:
        TypeError, ValueError: a path whose schedules do not give one number.

    >>> [float(c) for c in coefficients(linear(), 0.25)]
    [0.25, 0.75, 1.0, -1.0]
    """
    t = as_time(t)
    inside, one = before_end(t), jnp.ones_like(t)
    alpha, beta = path.alpha(t), path.beta(t)
    require_scalar("path.alpha(t)", alpha)
    require_scalar("path.beta(t)", beta)
    alpha_dot = jax.jvp(path.alpha, (inside,), (one,))[1]
    beta_dot = jax.jvp(path.beta, (inside,), (one,))[1]
    return Coefficients(alpha, beta, alpha_dot, beta_dot)


@checked
def noise_like(key: Key, x: Array) -> Array:
    """A draw of N(0, I) in the shape and type of x, [*D]: drawn in 32 bits at least, then rounded to that type.

    JAX itself draws 128 different numbers in bfloat16, of which none is above 2.52.
    """
    x = as_state(x)
    return jax.random.normal(key, x.shape, jnp.promote_types(x.dtype, jnp.float32)).astype(x.dtype)


@checked
def sample(path: GaussianPath, key: Key, z: RealArray, t: Time) -> PathSample:
    """A draw x = alpha z + beta noise of p_t(x|z) (P1), with its noise and the field's target (P2).

    Nothing is divided, so that it is finite at both ends.

    Args:
        path: the path.
        key: a key for the noise.
        z: [*D], the data point.
        t: [], the time in [0, 1].

    Returns:
        PathSample of three arrays [*D].
    """
    c = coefficients(path, t)
    noise = noise_like(key, z)
    return PathSample(c.alpha * z + c.beta * noise, noise, c.alpha_dot * z + c.beta_dot * noise)


@checked
def conditional_field(path: GaussianPath, x: RealArray, z: RealArray, t: Time) -> Array:
    """The conditional vector field u(x|z) = alpha' z + beta' (x - alpha z) / beta of (P2), [*D].

    Singular at t = 1, where beta = 0: the value at the largest float below 1 comes out, finite, but with the rounding
    of x - alpha z magnified by 1/beta.

    Raises:
        ValueError: a z that is not like x.
    """
    require_shape("z", z, jnp.shape(x))
    c = coefficients(path, before_end(t))
    return c.alpha_dot * z + c.beta_dot * ((x - c.alpha * z) / c.beta)


@checked
def conditional_score(path: GaussianPath, x: RealArray, z: RealArray, t: Time) -> Array:
    """The conditional score grad_x log p_t(x|z) = (alpha z - x) / beta^2 of (P3), [*D].

    Singular at t = 1, as ``conditional_field`` is: the value at the largest float below 1 comes out.

    Raises:
        ValueError: a z that is not like x.
    """
    require_shape("z", z, jnp.shape(x))
    c = coefficients(path, before_end(t))
    return (c.alpha * z - x) / c.beta / c.beta

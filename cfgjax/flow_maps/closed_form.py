"""The flow map of guidance between two normal laws with one eigenbasis, in closed form.

(F5) With V_i = alpha^2 s_i^2 + beta^2 the variance of law i in a coordinate, labelled (1) or null (0), the guided ODE
     is affine:   x_r = m(r) + (x - m(t)) sqrt(V(r) / V(t)),   V = V_1^w V_0^(1-w).
(F6) m' = sum_i w_i [V_i' / (2 V_i) (m - alpha m_i) + alpha' m_i], w_1 = w, w_0 = 1 - w. In h = alpha / sqrt(V_0), in
     which the path drops out, V_1 / V_0 = 1 + c h^2 with c = s_1^2 - s_0^2, and
       m = alpha m_1 + (w - 1) (m_1 - m_0) sqrt(V) I(h),   I(h) = int_0^h (1 + c k^2)^(-w/2) dk.
     That is h F(1/2, w/2; 3/2; -c h^2) with Gauss' hypergeometric F, and elementary for integers w alone.
(F7) So I is taken by Gauss-Legendre, in a variable in which the power is one of cosh: its singularities then stand at
     pi / 2 from the real axis whatever the variances, and 64 nodes give 1e-12 for s_1^2 / s_0^2 from 1e-4 to 1e4.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced, require_finite, require_shape
from cfgjax.contracts import Contract, checked, record
from cfgjax.flow_maps.intervals import at_any_scale, instant_as
from cfgjax.guidance import interpolate
from cfgjax.paths import before_end, coefficients
from cfgjax.types import Array, FlowMap, GaussianPath

_SHORT = 1 / 16
"""Nearer than this to t an r gives U as the average of the field along the trajectory, farther off as a quotient."""


def _gauss_legendre(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return 0.5 * (nodes + 1), 0.5 * weights


_NODES, _FEW_NODES = _gauss_legendre(64), _gauss_legendre(8)


def _require_variances(name: str, value: Array) -> None:
    require_finite(name, value)
    if not is_traced(value) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{name} must be above 0, got {np.min(np.asarray(value)):g}")


class Gaussian(NamedTuple):
    """A normal law of independent coordinates: its mean and its variances, [*D] each."""

    mean: Annotated[Array, Contract(require_finite)]
    variance: Annotated[Array, Contract(_require_variances)]


Normal = Annotated[Gaussian, record(Gaussian, "a Gaussian, as flow_maps.Gaussian(mean, variance) is")]


def _integral(excess: Array, w: Array) -> Array:
    """I(h) / h of (F6) for c h^2 = ``excess``, by (F7)."""
    size = jnp.sqrt(jnp.abs(jax.lax.stop_gradient(excess)))
    nodes, weights = (jnp.asarray(each, size.dtype) for each in _NODES)
    grows = excess > 0
    reach = jnp.where(grows, jnp.arcsinh(size), jnp.arctanh(jnp.minimum(size, 1 - 1e-7)))
    reach = jnp.maximum(reach, 0.5)
    at, end = reach * nodes, reach
    place = jnp.where(grows, jnp.sinh(at) / jnp.sinh(end), jnp.tanh(at) / jnp.tanh(end))
    slope = reach * jnp.where(grows, jnp.cosh(at) / jnp.sinh(end), 1 / (jnp.cosh(at) ** 2 * jnp.tanh(end)))
    return jnp.sum(weights * slope * jnp.exp(-0.5 * w * jnp.log1p(excess * jnp.square(place))))


def _moments(path: GaussianPath, null: Gaussian, labelled: Gaussian, t: Array, w: Array) -> tuple[Array, Array]:
    """m(t) and log V(t) of (F5, F6) in one coordinate, [] each."""
    alpha, beta = path.alpha(t), path.beta(t)
    of_null, of_labelled = (jnp.square(alpha) * each.variance + jnp.square(beta) for each in (null, labelled))
    excess = (labelled.variance - null.variance) * jnp.square(alpha) / of_null
    log_variance = w * jnp.log(of_labelled) + (1 - w) * jnp.log(of_null)
    moved = jnp.exp(0.5 * log_variance) * alpha / jnp.sqrt(of_null) * _integral(excess, w)
    return alpha * labelled.mean + (w - 1) * (labelled.mean - null.mean) * moved, log_variance


def _field(path: GaussianPath, null: Gaussian, labelled: Gaussian, x: Array, t: Array, w: Array) -> Array:
    """The guided field in one coordinate, []."""
    c = coefficients(path, before_end(t))

    def of(law: Gaussian) -> Array:
        variance = jnp.square(c.alpha) * law.variance + jnp.square(c.beta)
        slope = (c.alpha * c.alpha_dot * law.variance + c.beta * c.beta_dot) / variance
        return c.alpha_dot * law.mean + slope * (x - c.alpha * law.mean)

    return interpolate(of(null), of(labelled), w)


def _average_velocity(
    path: GaussianPath, null: Gaussian, labelled: Gaussian, x: Array, t: Array, r: Array, w: Array
) -> Array:
    """U in one coordinate, []."""
    mean, log_variance = _moments(path, null, labelled, t, w)

    def flow(time: Array) -> Array:
        later, log_later = _moments(path, null, labelled, time, w)
        return later + (x - mean) * jnp.exp(0.5 * (log_later - log_variance))

    nodes, weights = (jnp.asarray(each, t.dtype) for each in _FEW_NODES)
    is_short = jnp.abs(r - t) < _SHORT
    times = t + jnp.where(is_short, r - t, 0) * nodes
    fields = jax.vmap(lambda time: _field(path, null, labelled, flow(time), time, w))(times)
    average = instant_as(jnp.sum(weights * fields), _field(path, null, labelled, x, t, w), r == t)
    return jnp.where(is_short, average, (flow(r) - x) / jnp.where(is_short, 1, r - t))


@checked
def gaussian(path: GaussianPath, null: Normal, labelled: Normal) -> FlowMap:
    """The average velocity of guidance between two normal laws in closed form (F5 to F7), as (x, t, r, w).

    At r = t it is the guided field itself, and next to it keeps its digits and derivatives. It goes both ways, from
    data to noise where r < t.

    Args:
        path: the path.
        null: the law at w = 0, a ``Gaussian``.
        labelled: the law at w = 1.

    Returns:
        A FlowMap of (x, t, r, w), w a number or an Interval of one.

    Raises:
        ValueError: at a call, laws that are not of the shape of x.

    >>> from cfgjax import paths
    >>> null, labelled = Gaussian(jnp.zeros(1), jnp.full(1, 2.0)), Gaussian(jnp.ones(1), jnp.ones(1))
    >>> round(float(gaussian(paths.linear(), null, labelled)(jnp.zeros(1), 0.0, 1.0, 3.0)[0]), 3)
    2.0
    """

    def average_velocity(x: Array, t: Array, r: Array, w: Array) -> Array:
        laws = [_like(name, law, x) for name, law in (("null", null), ("labelled", labelled))]
        of_coordinate = jax.vmap(partial(_average_velocity, path), in_axes=(0, 0, 0, None, None, None))
        flat_null, flat_labelled, flat_x = jax.tree.map(jnp.ravel, (*laws, x))
        return of_coordinate(flat_null, flat_labelled, flat_x, t, r, w).reshape(x.shape).astype(x.dtype)

    return at_any_scale(average_velocity)


def _like(name: str, law: Gaussian, x: Array) -> Gaussian:
    for part, value in law._asdict().items():
        require_shape(f"{name}.{part}", value, jnp.shape(x))
    return jax.tree.map(jnp.asarray, law)

"""Guidance among K = e^(a d) classes with standard normal centres, d -> infinity: two numbers of a trajectory.

With z|y of N(c_y, s^2 I), V_y = alpha^2 s^2 + beta^2 and V_0 = V_y + alpha^2:
(N4) While no class stands out the null law is that of all centres, N(0, V_0 I), as in a random energy model above its
     transition: guidance is that between two Gaussians. Of x = m c_y + sqrt(V) noise, k = (log V)' / 2 of either law,
        m' = w (alpha' + k_y (m - alpha)) + (1 - w) k_0 m,      V = V_y^w V_0^(1-w).
(N5) Class y stands out once its own term exceeds the mean of all,
        -a - log(V_y)/2 - ((m - alpha)^2 + V) / (2 V_y)  >=  -log(V_0)/2 - (m^2 + V) / (2 V_0);
     from then on the null field is the labelled one, and guidance does nothing.
(N6) So V(1) = s^2 V(t') / V_y(t') and m(1) = 1 + (m(t') - alpha(t')) s / sqrt(V_y(t')), with t' of (N5): for a -> 0,
     of fewer classes than exponentially many, t' -> 0 and both are the class's own, V = s^2 and m = 1.
(N7) At w = 1 (N5) is a = log(V_0 / V_y) / 2, and there d log V(1) / dw = -2 a.

Where a exceeds log(1 + 1/s^2) / 2 no class ever stands out, as with infinitely many.
Source: the regimes are those of Ventura et al., arXiv 2602.00716; (N4) to (N7) are derived here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.paths import coefficients
from cfgjax.types import GaussianPath


class Limit(NamedTuple):
    """At data: overlap m with the class's centre, variance over s^2, and the time at which the class stands out."""

    overlap: float
    variance_ratio: float
    time: float


def limit(path: GaussianPath, scale: float, exponent: float, std: float, num_steps: int = 4000) -> Limit:
    """(N4) to (N6) for a = ``exponent``, by Heun's rule on a uniform grid."""
    ts = np.linspace(0, 1, num_steps + 1)
    c = jax.vmap(lambda t: coefficients(path, t))(jnp.asarray(ts, jnp.float32))
    alpha, beta, alpha_dot, beta_dot = (np.asarray(each, np.float64) for each in c)
    of_class = alpha**2 * std**2 + beta**2
    of_all = of_class + alpha**2
    rate = (alpha * alpha_dot * std**2 + beta * beta_dot) / of_class
    rate_of_all = (alpha * alpha_dot * (1 + std**2) + beta * beta_dot) / of_all
    variance = of_class**scale * of_all ** (1 - scale)

    def slope(index: int, m: float) -> float:
        own = alpha_dot[index] + rate[index] * (m - alpha[index])
        return scale * own + (1 - scale) * rate_of_all[index] * m

    m = 0.0
    for index, step in enumerate(np.diff(ts)):
        own = np.log(of_class[index]) + ((m - alpha[index]) ** 2 + variance[index]) / of_class[index]
        every = np.log(of_all[index]) + (m**2 + variance[index]) / of_all[index]
        if own + 2 * exponent <= every:
            break
        first = slope(index, m)
        m += 0.5 * step * (first + slope(index + 1, m + step * first))
    else:
        index = num_steps
    ratio = variance[index] / of_class[index]
    return Limit(1 + (m - alpha[index]) * std / np.sqrt(of_class[index]), float(ratio), float(ts[index]))

"""The exact law of a later state given an earlier one, where the two share their data point.

For x = alpha z + beta noise at t and x' = alpha' z + beta' noise' at t' > t, normal noise of correlation rho:

(N1) Given a component N(mu, S), with C = alpha^2 S + beta^2 I, x' given x is normal of
     mean  alpha' mu + (alpha alpha' S + rho beta beta' I) C^-1 (x - alpha mu)  and
     covariance  (a S + (1 - rho^2) beta^2 beta'^2 I) C^-1,
     a = (alpha' beta - alpha beta')^2 + 2 (1 - rho) alpha alpha' beta beta':
     alpha'^2 S + beta'^2 I less what x tells, without a difference, positive at both ends and for rho = 1 too.
(N2) The components have the weights of their posterior at x (M4), so that x' given x and y is a labelled mixture. Its
     average over p_t(x|y) is p_t'(x'|y), for every rho.
(N3) rho = alpha beta' / (alpha' beta) makes x a noised x': then the transitions are those of ONE Markov process, from
     t over t' to t'' the same as from t to t''.

Source: Holderrieth et al., arXiv 2509.25170 (GLASS flows), for transitions of any correlation.
"""

from __future__ import annotations

import jax.numpy as jnp

from cfgjax.checks import is_traced, require_shape
from cfgjax.contracts import RealArray, Time, UnitInterval, checked
from cfgjax.mixtures.components import centred, component_log_ratios, rotate
from cfgjax.mixtures.labelled import LabelledMixture, parts_of
from cfgjax.mixtures.updates import Mixture, Update, updated
from cfgjax.paths import as_state, as_time, coefficients
from cfgjax.types import GaussianPath


@checked
def transition(
    path: GaussianPath, mixture: Mixture, x: RealArray, t: Time, t_next: Time, correlation: UnitInterval
) -> LabelledMixture:
    """The exact law of the state at ``t_next`` given the state x at t, for every label and the null, by (N1, N2).

    With t = 0 and the correlation 0 it is p_t'(x'|y); with t' = 1 it is p(z|x, y).

    Args:
        path: the path of both states.
        mixture: of the data points [D].
        x: [D], the state at t.
        t: [], the earlier time, under 1.
        t_next: [], the later time, at most 1.
        correlation: [], rho, of the two states' noise.

    Raises:
        ValueError: times that do not increase; an x that is not of the mixture's points.
    """
    if not is_traced((t, t_next)) and not t < t_next:
        raise ValueError(f"t must be under t_next, got {float(t)} and {float(t_next)}")
    require_shape("x", x, mixture.means.shape[-1:])
    parts, x, now, later = parts_of(mixture), as_state(x), coefficients(path, t), coefficients(path, t_next)
    variances, rotated = centred(parts, now, x)
    shared, noise = now.alpha * later.alpha, now.beta * later.beta
    means = later.alpha * parts.means + rotate(
        parts.vectors, (shared * parts.spectrum + correlation * noise) / variances * rotated
    )
    growth = jnp.square(later.alpha * now.beta - now.alpha * later.beta) + 2 * (1 - correlation) * shared * noise
    spectrum = (growth * parts.spectrum + (1 - correlation) * (1 + correlation) * jnp.square(noise)) / variances
    roots = parts.vectors * jnp.expand_dims(jnp.sqrt(spectrum), -2)
    alike = parts._replace(log_weights=jnp.zeros_like(parts.log_weights))
    return updated(parts, Update(means, roots, component_log_ratios(alike, path, x, as_time(t))))

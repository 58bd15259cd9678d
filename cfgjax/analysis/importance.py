"""Importance weights that make samples of the guided ODE samples of the tilted law.

(I1) The guided ODE at a scale w' gives a sample x and the log-density q(x) of all its samples (H2). With the log-weight
     (1 - w) log p(x) + w log p(x|y) - log q(x)  they have the law p(x)^(1-w) p(x|y)^w, normalised, for every w'.
(I2) At w' = 1 the weights are p(y|x)^(w-1) up to a factor: bounded for w of at least 1. At a larger w' samples lie
     nearer to that law, until they lie closer together than it, as at w' = w: then few weights have it all, and of a
     mixture their variance may be infinite from w' above 1 on. The effective sample size tells, of many draws.

Source: Kong, Liu & Wong, Journal of the American Statistical Association 89 (1994), for the effective sample size;
Bradley & Nakkiran, arXiv 2408.09000, for what the guided ODE samples instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.analysis.likelihood import Divergence, sample_log_density
from cfgjax.checks import is_traced, of_numpy, require_finite, require_real, short_repr
from cfgjax.contracts import AnyCondition, Contract, Finite, RealArray, TimeGrid, checked
from cfgjax.paths import as_float
from cfgjax.solvers import effective_sample_size
from cfgjax.types import Array, Field, LogDensityOfData, Number, Solver


def _numbers(name: str, value: Any) -> Array:
    value = of_numpy(value)
    require_real(name, value)
    require_finite(name, value)
    if np.ndim(value) != 1 or np.size(value) == 0:
        raise ValueError(f"{name} must be a row [m] with m at least 1, got the shape {np.shape(value)}")
    return as_float(value)


Scales = Annotated[Array, Contract(_numbers)]
"""Finite numbers, [m], at least one."""


def _times(factor: Number, log_value: Array) -> Array:
    """The product, 0 for the factor 0: log 0 to the power 0 is 0."""
    return jnp.where(jnp.asarray(factor) == 0, 0, factor * log_value)


@checked
def guided_log_weight(log_null: RealArray, log_labelled: RealArray, log_density: RealArray, scale: Finite) -> Array:
    """(1 - w) log p(x) + w log p(x|y) - log q(x) of (I1), [].

    Args:
        log_null: [], log p(x).
        log_labelled: [], log p(x|y).
        log_density: [], log q(x) of the law that x was drawn from.
        scale: [], the tilted law's w.

    >>> float(guided_log_weight(-1.0, -3.0, -4.0, 2.0))
    -1.0
    """
    null, labelled, own = (as_float(each) for each in (log_null, log_labelled, log_density))
    return _times(1 - scale, null) + _times(scale, labelled) - own


@checked
def weighted_sample(
    make_solver: Callable[[Field], Solver],
    divergence: Divergence,
    log_density: LogDensityOfData,
    noise: RealArray,
    ts: TimeGrid,
    y: AnyCondition,
    null: AnyCondition,
    scale: Finite,
) -> tuple[Array, Array]:
    """A sample of an ODE with its log-weight (I1) for the tilted law at w. Many of them, weighted, have that law.

    Exact up to the solver's error in the state, log q and log p. ``solvers.systematic_resampling`` draws plain samples.
    A network's own log-densities are those of two more solves, back to the noise:

        def log_density(x, y):
            own = likelihood.exact_divergence(guidance.given(field, y))
            return likelihood.log_density(solvers.heun, own, x, ts[::-1])[0]

    Args:
        make_solver: an ODE solver of a field, for example ``solvers.heun``.
        divergence: the guided field at any scale w' with its divergence, as ``likelihood.exact_divergence`` gives it;
            with an estimated one the weights have its noise, and the law a bias.
        log_density: log p(x|y), as a function (x, y) -> [].
        noise: [*D], a draw of N(0, I).
        ts: [n + 1], increasing from 0 to 1.
        y: the condition.
        null: the condition of the null side.
        scale: [], the tilted law's w.

    Returns:
        (x [*D], log-weight []).
    """
    own, x = sample_log_density(make_solver, divergence, noise, ts)
    return x, guided_log_weight(log_density(x, null), log_density(x, y), own, scale)


@checked
def scale_by_effective_size(log_weights: Callable[[Array], Array], candidates: Scales) -> tuple[Array, Array]:
    """The scale w' whose weighted samples have the largest effective sample size (I2), and the sizes of all.

    Args:
        log_weights: a function w' -> [n], the log-weights of samples drawn at w'; one trace serves all candidates.
        candidates: [m], values of w'.

    Returns:
        (w' [], sizes [m]); a size is 0 where all weights are, or where one is NaN or infinite.

    Raises:
        ValueError: where concrete, sizes that are all under 2: no candidate's weights are of use.

    >>> scale_by_effective_size(lambda scale: scale * jnp.arange(4.0), jnp.array([1.0, 0.0]))[0]
    Array(0., dtype=float32)
    """
    sizes = jax.lax.map(lambda scale: effective_sample_size(log_weights(scale)), candidates)
    sizes = jnp.where(jnp.isfinite(sizes), sizes, 0)
    if not is_traced(sizes) and float(jnp.max(sizes)) < 2:
        words = "the effective sample size of one of them must be at least 2"
        raise ValueError(f"candidates must have weights that are of use: {words}, got {short_repr(sizes)}")
    return candidates[jnp.argmax(sizes)], sizes

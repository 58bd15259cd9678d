"""Guidance between two normal laws in 1-D, null N(0, 2) and labelled N(1, 1): exact maps, and expectations of losses.

The closed form is sections 6 and 11 of the lecture's formulas: V = V_1^w V_0^(1-w), and with h = alpha / sqrt(V_0), of
which V_1 / V_0 = 1 - h^2, the mean is m = alpha + (w - 1) sqrt(V) h int_0^1 (1 - h^2 k^2)^(-w/2) dk.
"""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import paths

NULL, LABEL = 0, 1
MEANS, VARIANCES = np.array([0.0, 1.0]), np.array([2.0, 1.0])
KEY = jax.random.key(0)


def _legendre(number):
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return 0.5 * (nodes + 1), 0.5 * weights


def _moments(path, t, w):
    alpha, beta = path.alpha(t), path.beta(t)
    null, labelled = (alpha**2 * variance + beta**2 for variance in VARIANCES)
    nodes, weights = map(jnp.asarray, _legendre(24))
    ratio = alpha**2 / null
    integral = jnp.sum(weights * (1 - ratio * nodes**2) ** (-0.5 * w))
    variance = labelled**w * null ** (1 - w)
    return alpha + (w - 1) * jnp.sqrt(variance * ratio) * integral, variance


def field(path, x, t, w):
    """The guided field."""
    c = paths.coefficients(path, t)

    def of(mean, variance):
        slope = (c.alpha * c.alpha_dot * variance + c.beta * c.beta_dot) / (c.alpha**2 * variance + c.beta**2)
        return c.alpha_dot * mean + slope * (x - c.alpha * mean)

    null, labelled = (of(*law) for law in zip(MEANS, VARIANCES, strict=True))
    return null + w * (labelled - null)


def flow(path, x, t, r, w):
    """Where the trajectory through x at t is at r."""
    (mean, variance), (later, later_variance) = _moments(path, t, w), _moments(path, r, w)
    return later + (x - mean) * jnp.sqrt(later_variance / variance)


def exact(path, x, t, r, w):
    """The average velocity, as the average of the field along the trajectory: also at r = t."""
    nodes, weights = map(jnp.asarray, _legendre(20))
    times = t + (r - t) * nodes
    fields = jax.vmap(lambda time: field(path, flow(path, x, t, time, w), time, w))(times)
    return jnp.tensordot(weights, fields, 1, precision=jax.lax.Precision.HIGHEST)


class Nodes(NamedTuple):
    """Points of a quadrature, and their weights."""

    points: tuple
    weights: np.ndarray


def draws(y, number):
    """Gauss-Hermite over (z, noise) of one law: exact for polynomials of the degree 2 number - 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(number)
    z, noise = np.meshgrid(MEANS[y] + np.sqrt(VARIANCES[y]) * nodes, nodes, indexing="ij")
    both = np.outer(weights, weights) / weights.sum() ** 2
    return Nodes((z.ravel(), noise.ravel()), both.ravel())


def instants(number):
    """Gauss-Legendre over t = r in [0, 1]."""
    nodes, weights = _legendre(number)
    return Nodes((nodes, nodes), weights)


def until_data(number):
    """Gauss-Legendre over t in [0, 1], r = 1."""
    nodes, weights = _legendre(number)
    return Nodes((nodes, np.ones(number)), weights)


def spans(number):
    """Gauss-Legendre over t <= r in [0, 1]."""
    nodes, weights = _legendre(number)
    t, share = np.meshgrid(nodes, nodes, indexing="ij")
    both = np.outer(2 * weights * (1 - nodes), weights)
    return Nodes((t.ravel(), (t + (1 - t) * share).ravel()), both.ravel())


def mixed(*nodes):
    """Several quadratures in equal shares."""
    points = tuple(np.concatenate(each) for each in zip(*(each.points for each in nodes), strict=True))
    return Nodes(points, np.concatenate([each.weights for each in nodes]) / len(nodes))


@contextlib.contextmanager
def _noise(value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "noise_like", lambda key, x: jnp.full_like(x, value))
        yield


def expectation(gradient, drawn, times):
    """The mean of ``gradient(z, times density)`` over draws of data and noise, and over times."""

    def at(z, noise, t, r):
        with _noise(noise):
            return gradient(jnp.full(1, z), lambda key: (t, r))

    over_draws = jax.vmap(at, in_axes=(0, 0, None, None))
    values = jax.vmap(over_draws, in_axes=(None, None, 0, 0))(*map(jnp.asarray, (*drawn.points, *times.points)))
    weights = jnp.asarray(np.outer(times.weights, drawn.weights))
    return jax.tree.map(lambda each: jnp.tensordot(weights, each, 2, precision="highest"), values)

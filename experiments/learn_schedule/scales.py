"""Scales of guidance by their parameters, and the solvers that follow them, on a 3 x 3 grid of Gaussians."""

import jax
import jax.numpy as jnp

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.types import Array, Condition, Number, Policy, Scale, Solver, Tree

PATH, MIXTURE = paths.linear(), mixtures.grid(3)
NULL = MIXTURE.num_classes
FIELD = MIXTURE.vector_field(PATH)
PAIR = guidance.pair(FIELD, NULL)
WIDTH = 32
"""Units of each of the two hidden layers of ``network``."""


def schedule(knots: Array) -> Scale:
    """w(t, y): straight lines between the knots [K, n] at equal times."""
    times = jnp.linspace(0, 1, knots.shape[1])
    return lambda t, y: jnp.interp(t, times, knots[y])


def at_least_one(knots: Array) -> Scale:
    """w(t, y) = 1 + relu of the knots [K, n], as of learn-to-guide."""
    return schedule(1 + jax.nn.relu(knots))


def gap_of(t: Array, null: Array, labelled: Array) -> Array:
    """|E_y - E_null| of the sides of vector fields at t, []; at least the least number whose root has a slope."""
    c = paths.coefficients(PATH, t)
    square = jnp.sum(jnp.square(labelled - null))
    return c.alpha / c.wronskian * jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))


def gap_schedule(knots: Array) -> Policy:
    """w(t, y, gap): linear between the knots [K, n, m], at equal times and at equal gap / (1 + gap) in [0, 1]."""
    _, num_times, num_gaps = knots.shape
    times, places = jnp.linspace(0, 1, num_times), jnp.linspace(0, 1, num_gaps)

    def scale(x: Array, t: Array, y: Condition, null: Array, labelled: Array) -> Array:
        gap = gap_of(t, null, labelled)
        at_time = jax.vmap(lambda row: jnp.interp(t, times, row), in_axes=1)(knots[y])
        return jnp.interp(gap / (1 + gap), places, at_time)

    return guidance.policy(scale)


def network_start(key: Array) -> Tree:
    """Parameters at which ``network`` is 1 everywhere."""
    sizes = (12, WIDTH, WIDTH)
    keys = jax.random.split(key, len(sizes) - 1)
    layers = [
        (jnp.sqrt(2 / before) * jax.random.normal(key, (before, after)), jnp.zeros(after))
        for key, before, after in zip(keys, sizes, sizes[1:], strict=False)
    ]
    return [*layers, (jnp.zeros((WIDTH, 1)), jnp.ones(1))]


def network(params: Tree, t: Number, gap: Array, preference: Number) -> Array:
    """w(t, gap, preference) of CFG++, []: layers of relu on v, cos v, cos 2v and cos 3v of each input v.

    Source: the inputs of Yehezkel et al., arXiv 2506.24108, whose layers are wider.
    """
    inputs = jnp.stack([jnp.asarray(1 - t), gap / 5, jnp.asarray(preference)])
    row = jnp.concatenate([inputs, *(jnp.cos(turns * inputs) for turns in (1, 2, 3))])
    for matrix, offset in params[:-1]:
        row = jax.nn.relu(jnp.sum(row[:, None] * matrix, axis=0) + offset)
    matrix, offset = params[-1]
    return (jnp.sum(row[:, None] * matrix, axis=0) + offset)[0]


def gap_policy(params: Tree, preference: float) -> Policy:
    """The network's w(t, gap, preference) as a scale of plain guidance."""

    def scale(x: Array, t: Array, y: Condition, null: Array, labelled: Array) -> Array:
        return network(params, t, gap_of(t, null, labelled), preference)

    return guidance.policy(scale)


def guided_ode(scale: Scale, y: Array) -> Solver:
    """Heun's rule along the guided field."""
    return solvers.heun(guidance.given(guidance.extrapolate(PAIR, scale), y))


def annealed(params: Tree, preference: float, num_steps: int, y: Array) -> Solver:
    """CFG++ at the network's scale on the grid of n even steps, as DDIM at the scale w of (R3)."""

    def scale(x: Array, t: Array, y: Condition, null: Array, labelled: Array) -> Array:
        own = gap_policy(params, preference).scale_of(x, t, y, null, labelled)
        return solvers.effective_scale(PATH, own, t, jnp.minimum(t + 1 / num_steps, 1))

    guided = guidance.extrapolate(PAIR, guidance.policy(scale))
    return solvers.ddim(PATH, guidance.given(guided, y))

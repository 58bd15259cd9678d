"""The calls of libraries in JAX, traced: draw(field, key, x [D], n_steps) -> [D] of ONE example, under jit and vmap."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from cfgjax import verify
from cfgjax.guidance import given
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Field, Number
from experiments.conformance.bridge import law_of
from experiments.conformance.records import Record
from experiments.conformance.spaces import STRAIGHT

Draw = Callable[[Field, Array, Array, int], Array]


def denoiser_of(field: Field) -> Callable[[Array, Number, Number], Array]:
    """(x, alpha, sigma) -> E[z | x] of any Gaussian path, whose state is brought to the straight one."""

    def denoiser(x: Array, alpha: Number, sigma: Number) -> Array:
        scale = alpha + sigma
        time = alpha / scale
        return x / scale + (1 - time) * field(x / scale, jnp.asarray(time))

    return denoiser


def moved(field: Field, x: Array, t: Number, t_next: Number, steps: int = 32) -> Array:
    """The state brought along the flow by the classical rule of order 4, as of ``bridge``."""
    h = (t_next - t) / steps

    def step(x: Array, i: Array) -> tuple[Array, None]:
        a = t + h * i
        first = field(x, a)
        second = field(x + h / 2 * first, a + h / 2)
        third = field(x + h / 2 * second, a + h / 2)
        return x + h / 6 * (first + 2 * (second + third) + field(x + h * third, a + h)), None

    return jax.lax.scan(step, x, jnp.arange(steps))[0]


def sampler_of(draw: Draw, mixture: LabelledMixture, n_steps: int) -> Callable[[Array, Array], Array]:
    """The sampler (key, y [n]) -> [n, D] at w = 1."""
    field = mixture.vector_field(STRAIGHT)

    def one(key: Array, y: Array) -> Array:
        start, key = jax.random.split(key)
        return draw(given(field, y), key, jax.random.normal(start, mixture.means.shape[-1:]), n_steps)

    call = jax.jit(jax.vmap(one))
    return lambda key, y: call(jax.random.split(key, len(y)), y)


def solver(call: str, draw: Draw, order: float | None = None, fails: tuple[str, ...] = (), remark: str = "") -> Record:
    """The record of an ODE solver of a claimed order."""

    def make(field: Field) -> Callable[[Array, Array, Array], Array]:
        return lambda key, x, ts: draw(field, key, x, len(ts) - 1)

    return Record(call, "solver", lambda: verify.solver(make, order).checks, fails, remark)


law = partial(law_of, sampler_of)
"""(call, draw, steps, fails, remark) -> the record of a sampler by its samples' law."""

"""What guidance makes of the classes of a mixture: overlap with the centre, and spread about it."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance, paths, solvers
from cfgjax.types import Array
from experiments.many_classes.mixture import ManyClasses, centre_of, pair, within

PATH = paths.linear()


@dataclass(frozen=True)
class Found:
    """Means over samples, with their standard errors; 1 and 1 are the class's own law."""

    overlap: float
    overlap_error: float
    variance_ratio: float
    variance_error: float
    divergence: float
    """KL per direction from the class's own law of the Gaussian of this overlap and variance, in nats."""


def grid(num_steps: int) -> Array:
    """Times (i / n)^2: classes separate early, where directions are many."""
    return jnp.square(jnp.linspace(0, 1, num_steps + 1))


@partial(jax.jit, static_argnames=("num_steps", "num_samples"))
def _of_samples(
    mixture: ManyClasses, scale: Array, key: Array, num_steps: int, num_samples: int
) -> tuple[Array, Array]:
    """Overlap and variance ratio of each guided sample, of a class drawn for it, [n] each."""
    guided = guidance.extrapolate(pair(PATH, mixture), scale)
    dimension = mixture.centres.shape[2] if mixture.basis is None else mixture.basis.shape[0]
    ts = grid(num_steps)

    def one(key: Array) -> tuple[Array, Array]:
        class_key, noise_key = jax.random.split(key)
        y = jax.random.randint(class_key, (), 0, mixture.num_classes)
        solver = solvers.heun(guidance.given(guided, y))
        x = within(mixture, solvers.integrate(solver, noise_key, jax.random.normal(noise_key, (dimension,)), ts))
        centre = centre_of(mixture, y)
        overlap = jnp.sum(x * centre) / jnp.sum(jnp.square(centre))
        left = jnp.sum(jnp.square(x - overlap * centre))
        return overlap, left / (centre.size - 1) / mixture.std**2

    return jax.vmap(one)(jax.random.split(key, num_samples))


def measure(mixture: ManyClasses, scale: float, key: Array, num_steps: int, num_samples: int) -> Found:
    """What the guided ODE at w = ``scale`` draws, of random classes of the mixture."""
    found: list[float] = []
    for each in _of_samples(mixture, jnp.float32(scale), key, num_steps, num_samples):
        values = np.asarray(each, np.float64)
        found += [float(values.mean()), float(values.std(ddof=1) / np.sqrt(num_samples))]
    overlap, _, ratio, _ = found
    divergence = 0.5 * (ratio - 1 - np.log(ratio) + ((overlap - 1) / float(mixture.std)) ** 2)
    return Found(*found, divergence=float(divergence))

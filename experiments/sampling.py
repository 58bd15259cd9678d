"""Drawing samples of a field: one compiled call for all labels, scales and keys."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfgjax import guidance, solvers
from cfgjax.types import Array, Field, GaussianPath, LabelledField, Number, Solver

SOLVERS: dict[str, Callable[[GaussianPath, Field], Solver]] = {
    "heun": lambda path, field: solvers.heun(field),
    "euler": lambda path, field: solvers.euler(field),
    "euler_maruyama": lambda path, field: solvers.euler_maruyama(path, field, solvers.root_beta(path)),
}
ODE, SDE = "heun", "euler_maruyama"

Draw = Callable[[Array, Array, Number], Array]
"""(key, label [], guidance scale []) -> one sample [*D]."""


def make_draw(
    field: LabelledField, path: GaussianPath, shape: tuple[int, ...], null_label: int, solver: str, num_steps: int
) -> Draw:
    """The function that draws ONE sample of the classifier-free guided field."""

    def draw(key: Array, y: Array, scale: Number) -> Array:
        noise_key, solver_key = jax.random.split(key)
        guided = guidance.given(guidance.classifier_free(field, scale, null_label), y)
        noise = jax.random.normal(noise_key, shape)
        ts = jnp.linspace(0, 1, num_steps + 1)
        return solvers.integrate(SOLVERS[solver](path, guided), solver_key, noise, ts)

    return draw


def sample_keys(seed: int, num_samples: int) -> Array:
    """The keys of samples 0..n-1, [n]: sample i's is fold_in(seed's key, i), whatever the batch."""
    return jax.vmap(lambda index: jax.random.fold_in(jax.random.key(seed), index))(jnp.arange(num_samples))


def sweep(draw: Draw, keys: Array, labels: Array, scales: Array) -> Array:
    """Samples for every scale, with the same keys and labels at each: [scales, n, *D]."""
    batch = jax.vmap(draw, in_axes=(0, 0, None))
    return jax.vmap(batch, in_axes=(None, None, 0))(keys, labels, scales)

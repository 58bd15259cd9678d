"""The tilted law p(x)^(1-w) p(x|y)^w of a mixture in 2-D, drawn exactly on a fine grid."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import metrics, paths
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array


def _on_grid(mixture: LabelledMixture, label: int, scale: float) -> tuple[np.ndarray, np.ndarray, float]:
    """A fine grid of points [m, 2], log p(x)^(1-w) p(x|y)^w at them [m], and the side of a cell."""
    side = np.linspace(-6, 6, 801)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density, end = mixture.log_density(paths.linear()), jnp.ones(())

    @jax.jit
    def log_density(x: Array, label: Array, scale: Array) -> Array:
        null, labelled = (density(x, end, y) for y in (jnp.asarray(mixture.num_classes), label))
        return (1 - scale) * null + scale * labelled

    values = jax.vmap(log_density, in_axes=(0, None, None))(jnp.asarray(points), label, scale)
    return points, np.asarray(values, np.float64), side[1] - side[0]


def draw_tilted(mixture: LabelledMixture, label: int, scale: float, num_samples: int, num_sets: int) -> np.ndarray:
    """Exact draws [sets, n, 2] of p(x)^(1-w) p(x|y)^w for a mixture in 2-D: of a fine grid, uniform in its cells."""
    points, values, cell = _on_grid(mixture, label, scale)
    weights = np.exp(values - values.max())
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(points), (num_sets, num_samples), p=weights / weights.sum())
    return points[chosen] + rng.uniform(-0.5, 0.5, (num_sets, num_samples, 2)) * cell


def tilted_log_normaliser(mixture: LabelledMixture, label: int, scale: float) -> float:
    """log Z, the logarithm of the integral of p(x)^(1-w) p(x|y)^w, for a mixture in 2-D."""
    _, values, cell = _on_grid(mixture, label, scale)
    return float(values.max() + np.log(np.sum(np.exp(values - values.max())) * cell**2))


def sampling_floor(sets: np.ndarray) -> float:
    """The largest energy distance, in size, between two of several sets of exact draws."""
    pairs = combinations(sets, 2)
    return max(abs(metrics.energy_distance(one, other)) for one, other in pairs)

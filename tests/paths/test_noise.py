"""Noise is drawn in 32 bits at least and then rounded to the state's type, wherever the library draws it.

``jax.random.normal`` (0.10.2) takes 128 values in bfloat16, within [-2.89, 2.52] and of mean -0.012, and 1,024 in
float16; ``jax.random.uniform`` takes 128 in bfloat16.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import paths, solvers
from cfgjax.types import Pair
from tests.conftest import PATHS

KEY, SIZE = jax.random.key(3), 50_000
PATH = PATHS["linear"]


def _still(x, t):
    return jnp.zeros_like(x)


def _stepped(solver, x, t=0.25, t_next=0.5):
    return solver.step(KEY, solver.init(x), jnp.float32(t), jnp.float32(t_next)).x


def _population(x):
    pair = Pair(lambda x, t, y: (x, x), lambda x, t, y: x)
    return _stepped(solvers.feynman_kac(PATH, pair, 0, 1.0, solvers.constant(1.0)), x)


# With a field of 0 at (0, 1/4) of the straight path, E = 0: a step is its noise alone.
DRAWS = {
    "paths.noise_like": lambda x: paths.noise_like(KEY, x),
    "paths.sample": lambda x: paths.sample(PATH, KEY, x, 0.0).noise,
    "churn": lambda x: _stepped(solvers.churn(PATH, _still, 0.3), x),
    "euler_maruyama": lambda x: _stepped(solvers.euler_maruyama(PATH, _still, solvers.constant(1.0)), x),
    "stochastic_heun": lambda x: _stepped(solvers.stochastic_heun(PATH, _still, solvers.constant(1.0)), x),
    "langevin_corrected": lambda x: _stepped(
        solvers.langevin_corrected(solvers.euler(_still), _still, lambda t, t_next: jnp.float32(0.1)), x
    ),
    "tilted": _population,
}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", list(DRAWS))
def test_noise_in_half_precision_is_normal(name, dtype):
    """Its values are many, its mean within 4 standard errors, both tails reach 3.6, and its cdf is the normal one."""
    drawn = jax.jit(DRAWS[name])(jnp.zeros((SIZE, 1) if name == "tilted" else SIZE, dtype))
    assert drawn.dtype == dtype
    found = np.asarray(drawn, np.float64).ravel()
    found = found / found.std()
    assert len(np.unique(found)) > 2000
    assert abs(found.mean()) < 4 / np.sqrt(SIZE)
    assert found.min() < -3.6
    assert found.max() > 3.6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_of_full_precision_is_drawn_in_it(dtype, x64):
    """The bits are those of ``jax.random.normal``."""
    found = paths.noise_like(KEY, jnp.zeros((5, 3), dtype))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, jax.random.normal(KEY, (5, 3), dtype))


def test_resampling_by_weights_in_half_precision_is_unbiased():
    """Of 2,000 particles, half of them with no weight, each of the others is drawn twice."""
    weights = jnp.where(jnp.arange(2000) % 2 == 0, 0.0, -jnp.inf).astype(jnp.bfloat16)
    counts = np.bincount(solvers.systematic_resampling(KEY, weights), minlength=2000)
    np.testing.assert_array_equal(counts, np.where(np.arange(2000) % 2 == 0, 2, 0))

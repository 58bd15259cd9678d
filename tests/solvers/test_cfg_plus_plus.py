"""CFG++: (R1) to (R4) on the oracle, and the scale that it amounts to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, mixtures, paths, solvers
from cfgjax.types import Pair
from tests.conftest import EXACT_PATHS

KEY = jax.random.key(0)
X = np.array([0.6, -1.1])


def _fields(path):
    field = mixtures.ring(4).vector_field(path)
    return field, guidance.pair(field, 4)


def _ddim(path, field, x, t, t_next):
    """(R1)."""
    prediction = conversions.from_field(path, field(x, t, jnp.asarray(1)), x, t)
    return path.alpha(t_next) * prediction.denoiser + path.beta(t_next) * prediction.noise


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("path_name", ["linear", "variance_preserving", "polynomial_3"])
def test_a_step_is_ddim_at_the_effective_scale(path_name):
    """(R3), for lambda in and beyond [0, 1], forwards and backwards."""
    path = EXACT_PATHS[path_name]
    field, pair = _fields(path)

    def both(strength, t, t_next):
        solver = solvers.cfg_plus_plus(path, pair, 1, strength)
        scale = solvers.effective_scale(path, strength, t, t_next)
        guided = guidance.classifier_free(field, scale, 4)
        return solver.step(KEY, solver.init(X), t, t_next).x, _ddim(path, guided, X, t, t_next)

    settings = [(0.5, 0.3, 0.4), (1.0, 0.7, 1.0), (0.2, 0.1, 0.9), (1.7, 0.5, 0.51), (0.6, 0.8, 0.7)]
    found, expected = jax.jit(jax.vmap(both))(*map(jnp.asarray, zip(*settings, strict=True)))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_lambda_zero_is_the_null_fields_ddim_exactly(plain_or_steep_path):
    path = plain_or_steep_path
    pair = _fields(path)[1]
    x, t, t_next = jnp.asarray(X, jnp.float32), jnp.float32(0.3), jnp.float32(0.5)
    solver = solvers.cfg_plus_plus(path, pair, 1, 0.0)
    null = pair.both(x, t, jnp.asarray(1))[0]
    found = solver.step(KEY, solver.init(x), t, t_next).x
    np.testing.assert_array_equal(found, _ddim(path, lambda x, t, y: null, x, t, t_next))


def test_the_effective_scale_grows_with_the_number_of_steps(exact_path):
    """(R4): lambda itself at both ends, about lambda alpha beta / (W h) between: no limit."""
    assert float(solvers.effective_scale(exact_path, 0.7, 0.0, 0.1)) == pytest.approx(0.7)
    assert float(solvers.effective_scale(exact_path, 0.7, 0.9, 1.0)) == pytest.approx(0.7)
    c = paths.coefficients(exact_path, 0.5)
    for h in (1e-2, 5e-3):
        leading = 0.7 * c.alpha * c.beta / (c.wronskian * h)
        assert float(solvers.effective_scale(exact_path, 0.7, 0.5, 0.5 + h)) == pytest.approx(float(leading), rel=0.1)


def test_the_last_step_is_the_guided_denoiser(exact_path):
    """From t < 1 to 1, where beta' = 0: D_null + lambda (D_y - D_null)."""
    mixture = mixtures.ring(4)
    x, t, y = jnp.asarray(X, jnp.float32), jnp.float32(0.8), jnp.asarray(1)
    solver = solvers.cfg_plus_plus(exact_path, _fields(exact_path)[1], y, 0.6)
    null, labelled = (mixture.denoiser(exact_path)(x, t, label) for label in (jnp.asarray(4), y))
    found = solver.step(KEY, solver.init(x), t, jnp.float32(1.0)).x
    np.testing.assert_allclose(found, null + 0.6 * (labelled - null), rtol=1e-4, atol=1e-5)


def test_whole_solves_are_finite_and_end_at_the_label(path):
    """From t = 0 to 1, with a scale that is a function of time."""
    solver = solvers.cfg_plus_plus(path, _fields(path)[1], 1, lambda t: 0.6 * jnp.ones_like(t))
    starts = jax.random.normal(KEY, (16, 2))
    run = jax.jit(jax.vmap(lambda x: solvers.integrate(solver, KEY, x, jnp.linspace(0, 1, 33))))
    ends = np.asarray(run(starts))
    assert np.all(np.isfinite(ends))
    centres = 2 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    assert np.all(np.argmin(np.linalg.norm(ends[:, np.newaxis] - centres, axis=2), axis=1) == 1)


def test_both_sides_are_evaluated_once_and_never_at_the_end():
    times = []

    def both(x, t, y):
        jax.debug.callback(lambda t: times.append(float(t)), t)
        return x / (1 - t), 2 * x

    solver = solvers.cfg_plus_plus(paths.linear(), Pair(both, lambda x, t, y: 2 * x), 0, 0.5)
    solvers.integrate(solver, KEY, jnp.ones(2), jnp.array([0.0, 0.5, 0.75, 1.0])).block_until_ready()
    jax.effects_barrier()
    assert times == [0.0, 0.5, 0.75]


def test_a_bad_scale_is_refused():
    with pytest.raises(ValueError, match="scale must be finite"):
        solvers.cfg_plus_plus(paths.linear(), _fields(paths.linear())[1], 0, np.inf)

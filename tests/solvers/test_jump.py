"""(J1), (J2): jumps by an exact flow map end where its trajectory ends, and new noise keeps the law at every time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, paths, solvers
from cfgjax.paths import noise_like
from tests.conftest import EXACT_PATHS

KEY = jax.random.key(0)
MEAN, VARIANCE = np.array([1.0, -0.5]), np.array([0.3, 2.0])
LAW = flow_maps.Gaussian(MEAN, VARIANCE)
OTHER = flow_maps.Gaussian(np.zeros(2), np.ones(2))
X = np.array([0.7, -1.3])
GRID = np.array([0.1, 0.15, 0.6, 0.61, 1.0])


def _map(path, scale=2.5):
    return flow_maps.given(flow_maps.gaussian(path, OTHER, LAW), scale)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ts", [GRID, GRID[[0, 2, 4]], np.linspace(0.1, 1, 9)], ids=["uneven", "two", "even"])
def test_jumps_on_any_grid_end_where_one_ends(ts):
    flow_map = _map(paths.cosine())
    end = jax.jit(lambda x: solvers.integrate(solvers.jump(flow_map), KEY, x, ts))(X)
    np.testing.assert_allclose(end, flow_maps.flow_of(flow_map)(X, 0.1, 1.0), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_jump_is_one_evaluation_between_the_neighbours_of_the_grid():
    solver = solvers.jump(lambda x, t, r: jnp.stack([t, r]))
    end, seen = solvers.integrate(solver, KEY, np.zeros(2), GRID, lambda carry, t: carry.x)
    steps = np.diff(GRID)[:, None] * np.stack([GRID[:-1], GRID[1:]], axis=1)
    np.testing.assert_allclose(seen[1:], np.cumsum(steps, axis=0), rtol=1e-12)
    np.testing.assert_array_equal(end, seen[-1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["linear", "cosine", "variance_preserving", "polynomial_2"])
def test_new_noise_keeps_the_law_exactly(name):
    """Of an affine step x' = A x + b + S noise: A m + b and A^2 V + S^2 are mean and variance at the next time."""
    path = EXACT_PATHS[name]
    flow_map = _map(path, 1.0)

    @jax.jit
    def step(x, key, t, t_next, amount):
        solver = solvers.renoised_jump(path, flow_map, amount)
        return solver.step(key, solver.init(x), t, t_next).x

    def law(t):
        return path.alpha(t) * MEAN, path.alpha(t) ** 2 * VARIANCE + path.beta(t) ** 2

    keys = jax.random.key(1), jax.random.key(2)
    draws = [noise_like(key, X) for key in keys]
    for amount in (0.0, 0.3, 1.0):
        for t, t_next in ((0.0, 0.4), (0.4, 0.75), (0.4, 1.0)):
            states = ((0 * X, keys[0]), (0 * X + 1, keys[0]), (0 * X + 1, keys[1]))
            base, moved, other = (step(*each, t, t_next, amount) for each in states)
            slope, spread = moved - base, (other - moved) / (draws[1] - draws[0])
            (mean, variance), wanted = law(t), law(t_next)
            found = slope * mean + base - spread * draws[0], slope**2 * variance + spread**2
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)
            assert np.all(spread > 1e-3) == (amount > 0 and t_next < 1)


def test_an_amount_of_none_is_a_jump_bitwise():
    flow_map, x = _map(paths.linear()), jnp.asarray(X, jnp.float32)
    ts = jnp.asarray(GRID, jnp.float32)
    plain, renoised = (
        jax.jit(lambda x, solver=solver: solvers.integrate(solver, KEY, x, ts))(x)
        for solver in (solvers.jump(flow_map), solvers.renoised_jump(paths.linear(), flow_map, 0.0))
    )
    np.testing.assert_array_equal(plain, renoised)


@pytest.mark.usefixtures("x64")
def test_the_full_amount_makes_data_and_noises_them():
    """alpha' z + beta' noise, z where the trajectory ends."""
    path = paths.cosine()
    flow_map = _map(path)
    solver = solvers.renoised_jump(path, flow_map)
    found = jax.jit(solver.step)(KEY, solver.init(X), 0.2, 0.5).x
    z = flow_maps.flow_of(flow_map)(X, 0.2, 1.0)
    np.testing.assert_allclose(found, path.alpha(0.5) * z + path.beta(0.5) * noise_like(KEY, X), rtol=1e-12)


def test_gradients_pass_through_a_solve_and_through_the_amount():
    """To the data itself, too, where the noise's variance is 0; computed again in the backward pass they are alike."""
    path, x, ts = paths.linear(), jnp.asarray(X, jnp.float32), jnp.linspace(0, 1, 4)

    def end(rate, amount, change):
        flow_map = solvers.renoised_jump(path, lambda x, t, r: rate * (r - x), amount)
        return jnp.sum(solvers.integrate(change(flow_map), KEY, x, ts))

    slopes = [jax.grad(end, (0, 1))(0.7, 0.5, change) for change in (lambda solver: solver, solvers.remat)]
    assert np.all(np.isfinite(slopes[0])) and np.all(np.abs(slopes[0]) > 0.01)
    np.testing.assert_allclose(*slopes, rtol=1e-6)


@pytest.mark.parametrize("build", [solvers.jump, lambda flow_map: solvers.renoised_jump(paths.linear(), flow_map)])
def test_a_grid_towards_noise_is_refused(build):
    with pytest.raises(ValueError, match=r"ts must increase for a solver that runs forwards only"):
        solvers.integrate(build(lambda x, t, r: -x), KEY, jnp.ones(2), jnp.linspace(1, 0, 3))


def test_evaluations_of_a_flow_map_are_counted():
    def flow_map(x, t, r, y, w):
        return (w * y - x) * (r + t)

    def alone(flow_map):
        return solvers.jump(flow_maps.given(flow_map, jnp.asarray(1), 2.0))

    def of_two_labels(flow_map):
        both = jax.vmap(flow_map, in_axes=(None, None, None, 0, None))
        return solvers.renoised_jump(paths.linear(), lambda x, t, r: both(x, t, r, jnp.arange(2), 2.0).sum(axis=0))

    for build, number in ((alone, 1), (of_two_labels, 2)):
        found = solvers.num_function_evaluations(build, flow_map, jnp.ones(2), GRID)
        assert found.tolist() == [number] * 4

"""(G1) of a mixture: transitions have the exact kernel, which is a mixture, too, and many keep the marginals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers, steering
from cfgjax.metrics import energy_distance
from tests.conftest import EXACT_PATHS
from tests.steering.test_glass import KEY, PAIRS, THREE_PATHS, X, at, kernel


def _draw_kernel(rng, path, mixture, t, t_next, rho, number):
    """Draws of the kernel from X, [number, 2]: of components by their posterior weights, with their own kernels."""
    weights, means, covariances = (np.asarray(each, float) for each in vars(mixture).values())
    parts = [
        kernel(path, mean, covariance, X, t, t_next, rho)
        for mean, covariance in zip(means.reshape(-1, 2), covariances.reshape(-1, 2, 2), strict=True)
    ]
    logits = np.log(weights.reshape(-1)) + np.array([part[2] for part in parts])
    chosen = rng.choice(len(parts), number, p=np.exp(logits - np.logaddexp.reduce(logits)))
    factors = np.array([np.linalg.cholesky(part[1] + 1e-14 * np.eye(2)) for part in parts])
    noise = rng.normal(size=(number, 2))
    return np.array([part[0] for part in parts])[chosen] + np.sum(factors[chosen] * noise[:, None, :], axis=-1)


NUMBER = 2000


@pytest.mark.slow
@pytest.mark.parametrize("name", THREE_PATHS)
def test_transitions_of_a_mixture_are_those_of_its_exact_kernel(name, clustered):
    """The energy distance lies within the spread of that of two sets of exact draws, for five pairs of times."""
    path, rng = EXACT_PATHS[name], np.random.default_rng(0)
    field = guidance.given(clustered.vector_field(path), clustered.num_classes)

    @jax.jit
    def draw(key, t, t_next, rho):
        solver, x = steering.glass(path, field, steering.constant_correlation(rho), solvers.heun, 24), jnp.float32(X)
        step = jax.vmap(lambda key: solver.step(key, solver.init(x), t, t_next).x)
        return step(jax.random.split(key, NUMBER))

    for index, (t, t_next) in enumerate(PAIRS):
        markov = float(steering.markov_correlation(path)(t, t_next))
        rho = 0.5 if index % 2 else markov
        exact = partial(_draw_kernel, rng, path, clustered, t, t_next, rho, NUMBER)
        floor = np.array([energy_distance(exact(), exact()) for _ in range(8)])
        found = energy_distance(np.asarray(draw(jax.random.key(index), *np.float32([t, t_next, rho]))), exact())
        assert found < np.mean(floor) + 4 * np.std(floor)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["markov", "constant"])
def test_fifty_transitions_keep_the_marginals(kind, clustered):
    path, number, size = paths.cosine(), 20_000, 1500
    correlation = steering.markov_correlation(path) if kind == "markov" else steering.constant_correlation(0.6)
    solver = steering.glass(
        path, guidance.given(clustered.vector_field(path), clustered.num_classes), correlation, solvers.heun, 4
    )

    @jax.jit
    @jax.vmap
    def draw(key):
        state_key, solver_key, exact_key = jax.random.split(key, 3)
        x = jax.random.normal(state_key, (2,))
        end, seen = solvers.integrate(solver, solver_key, x, jnp.linspace(0, 1, 51), lambda carry, t: carry.x)
        middle, whole = jax.random.split(exact_key)
        null = clustered.num_classes
        return seen[25], end, clustered.sample(middle, null, path, 0.5), clustered.sample(whole, null)

    *found, middle, whole = (np.asarray(each, float) for each in draw(jax.random.split(KEY, number)))
    weights, means, covariances = (np.asarray(each, float) for each in vars(clustered).values())
    weights = (weights / weights.sum()).reshape(-1)
    means, covariances = means.reshape(-1, 2), covariances.reshape(-1, 2, 2)
    mean = np.einsum("k,ki->i", weights, means)
    square = np.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None, :])
    for samples, exact, (alpha, beta) in zip(found, (middle, whole), (at(path, 0.5), (1.0, 0.0)), strict=True):
        squares = samples[:, :, None] * samples[:, None, :]
        for values, wanted in ((samples, alpha * mean), (squares, alpha**2 * square + beta**2 * np.eye(2))):
            errors = (values.mean(axis=0) - wanted) / (values.std(axis=0) / np.sqrt(number))
            assert np.all(np.abs(errors) < 4)
        parts = exact[: 12 * size].reshape(-1, size, 2)
        floor = np.array([energy_distance(*parts[[i, i + 1]]) for i in range(0, 12, 2)])
        distance = energy_distance(samples[:size], exact[-size:])
        print(
            kind, f"energy distance {distance:.2e}, floor of half as many {np.mean(floor):.1e} +- {np.std(floor):.1e}"
        )
        assert distance < np.mean(floor) + 4 * np.std(floor)

"""Laws known exactly, by particles: posteriors of mixtures under measurements, and the tilted law by steering."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, metrics, mixtures, paths, solvers, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.steering import operators
from cfgjax.types import Measurement

pytestmark = pytest.mark.slow
KEY = jax.random.key(5)
PATH = paths.linear()
SIZE = 1_000


def _mixture(dimension):
    if dimension == 2:
        return mixtures.ring(8)
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(4, 16, 16)) / 4
    covariances = 0.5 * factors @ np.swapaxes(factors, 1, 2) + 0.05 * np.eye(16)
    return LabelledMixture(jnp.full(4, 0.25), jnp.asarray(rng.normal(size=(4, 16))), jnp.asarray(covariances))


def _times(num_steps):
    """Steps that shrink towards t = 1, where a sharp measurement makes the field stiff."""
    return 1 - (1 - jnp.linspace(0, 1, num_steps + 1)) ** 2


def _exact_reward(mixture, posterior):
    """log p_t(m|x) by Bayes' rule, log p_t(x|m) - log p_t(x) up to a constant."""
    after, before, null = posterior.log_density(PATH), mixture.log_density(PATH), jnp.asarray(mixture.num_classes)
    return lambda x, t: after(x, t, null) - before(x, t, null)


def _posterior_draws(dimension, num_steps):
    """A compiled function of a measurement's numbers: draws of particles, six exact sets, the least effective size."""
    mixture = _mixture(dimension)
    null = jnp.asarray(mixture.num_classes)
    field = guidance.given(mixture.vector_field(PATH), null)
    traces = []

    @jax.jit
    def draw(matrix, value, noise_std):
        traces.append(1)
        measurement = Measurement(operators.matrix(matrix), value, noise_std)
        posterior = mixtures.posterior(mixture, measurement)
        reward = _exact_reward(mixture, posterior)
        solver = steering.twisted(PATH, field, reward, solvers.memoryless(PATH, 0.02))
        noise = jax.random.normal(KEY, (SIZE, dimension))
        found, sizes = solvers.solve(
            solver, KEY, noise, _times(num_steps), observe=lambda carry, t: carry.effective_size
        )
        exact = jax.vmap(lambda key: posterior.sample(key, null))(jax.random.split(KEY, 6 * SIZE))
        return steering.draws(found, KEY), exact.reshape(6, SIZE, dimension), jnp.min(sizes)

    return mixture, draw, traces


def _measured(mixture, rank, rows, noise_std):
    """A matrix of so many rows, of which all but ``rank`` are 0, and a measurement of a draw."""
    dimension = mixture.means.shape[-1]
    matrix = np.zeros((rows, dimension))
    matrix[:rank] = np.random.default_rng(rank).normal(size=(rank, dimension))
    z = mixture.sample(jax.random.key(rank), jnp.asarray(mixture.num_classes))
    noise = np.random.default_rng(7).normal(size=rows)
    return jnp.asarray(matrix, jnp.float32), jnp.asarray(matrix @ z + noise_std * noise, jnp.float32)


CELLS = [(2, rank, noise_std) for rank in (1, 2) for noise_std in (0.05, 0.2, 1.0)]
CELLS_16 = [(16, rank, noise_std) for rank in (1, 4, 8) for noise_std in (0.05, 0.2, 1.0)]


@pytest.mark.parametrize(("cells", "rows", "num_steps"), [(CELLS, 2, 400), (CELLS_16, 8, 800)])
def test_the_exact_posterior(cells, rows, num_steps):
    """Twisted by the exact log p_t(m|x): energy distance to exact draws within the floor of 15 pairs of exact sets.

    One trace for every rank, matrix, measured value and noise.
    """
    mixture, draw, traces = _posterior_draws(cells[0][0], num_steps)
    table = []
    for dimension, rank, noise_std in cells:
        matrix, value = _measured(mixture, rank, rows, noise_std)
        drawn, exact, size = map(np.asarray, draw(matrix, value, noise_std))
        floor = max(abs(metrics.energy_distance(one, other)) for one, other in combinations(exact, 2))
        distance = np.mean([metrics.energy_distance(drawn, one) for one in exact])
        table.append((dimension, rank, noise_std, float(distance), float(floor), float(size / SIZE)))
    assert len(traces) == 1
    assert [row for row in table if row[3] > row[4]] == []


GUESSES = {
    "twisted, exact": lambda field, likelihood, exact: steering.twisted(PATH, field, exact, solvers.root_beta(PATH)),
    "tilted, exact": lambda field, likelihood, exact: steering.tilted(PATH, field, exact, solvers.constant(1.0)),
    "twisted, l(D)": lambda field, likelihood, exact: steering.twisted(
        PATH, field, steering.of_denoised(PATH, field, likelihood), solvers.root_beta(PATH)
    ),
    "tilted, l(D)": lambda field, likelihood, exact: steering.tilted(
        PATH, field, steering.of_denoised(PATH, field, likelihood), solvers.constant(1.0)
    ),
    "twisted, t l(x)": lambda field, likelihood, exact: steering.twisted(
        PATH, field, steering.annealed(likelihood), solvers.root_beta(PATH)
    ),
    "tilted, t l(x)": lambda field, likelihood, exact: steering.tilted(
        PATH, field, steering.annealed(likelihood), solvers.constant(1.0)
    ),
}


@pytest.mark.parametrize("name", GUESSES)
def test_any_guess_of_the_reward_reaches_the_posterior(name):
    """Mean and second moments, over 8 populations of 3,000: within 4 standard errors of their average, and O(h)."""
    mixture = LabelledMixture(
        jnp.array([0.6, 0.4]),
        jnp.array([[-1.0, 0.0], [1.0, 0.5]]),
        jnp.array([[[0.5, 0.2], [0.2, 0.4]], [[0.3, 0.0], [0.0, 0.6]]]),
    )
    null = jnp.asarray(2)
    field = guidance.given(mixture.vector_field(PATH), null)
    measurement = Measurement(operators.matrix(jnp.array([[1.0, 0.5]])), jnp.array([0.8]), 0.5)
    posterior = mixtures.posterior(mixture, measurement)
    solver = GUESSES[name](field, steering.log_likelihood(measurement), _exact_reward(mixture, posterior))

    def one(key):
        noise_key, key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (3_000, 2))
        found, _ = solvers.solve(solver, key, noise, jnp.linspace(0, 1, 301))
        values = jnp.stack([found.x[:, 0], found.x[:, 1], found.x[:, 0] ** 2, found.x[:, 0] * found.x[:, 1]])
        return jnp.sum(jax.nn.softmax(found.log_weights)[None] * values, axis=1)

    found = np.asarray(jax.jit(lambda: jax.lax.map(one, jax.random.split(KEY, 8)))())
    weights = np.asarray(posterior.weights, np.float64).ravel() / float(jnp.sum(posterior.weights))
    means, covariances = np.asarray(posterior.means)[:, 0], np.asarray(posterior.covariances)[:, 0]
    seconds = covariances + means[:, :, None] * means[:, None]
    exact = np.concatenate([weights @ means, weights @ seconds[:, 0]])
    error = found.std(axis=0, ddof=1) / np.sqrt(8)
    assert np.all(error < 0.02)
    assert np.all(np.abs(found.mean(axis=0) - exact) < 4 * error + 0.004), (found.mean(axis=0), exact, error)


NULL, LABELLED = (
    LabelledMixture(jnp.ones(1), jnp.array([[mean]]), jnp.array([[[variance]]]))
    for mean, variance in ((0.0, 2.0), (1.0, 1.0))
)


def _by_sde(field):
    return solvers.euler_maruyama(PATH, field, solvers.root_beta(PATH)), 400


def _by_glass(field):
    return steering.glass(PATH, field, steering.markov_correlation(PATH), num_steps=6), 20


@pytest.mark.parametrize(
    ("proposals", "potential", "every"),
    [(_by_sde, steering.difference, 20), (_by_sde, steering.maximum, 100), (_by_glass, steering.difference, 1)],
)
def test_steering_reaches_the_tilted_law(proposals, potential, every):
    """w = 2 and 3 at 20,000 particles, over 8 populations: the average within 3 standard errors of ONE of them."""
    y, size = jnp.asarray(0), 20_000
    field = guidance.given(NULL.vector_field(PATH), y)
    after, before = LABELLED.log_density(PATH), NULL.log_density(PATH)
    solver, num_steps = proposals(field)

    @jax.jit
    def populations(scale):
        steered = steering.fk_steering(
            solver, lambda x, t: scale * (after(x, t, y) - before(x, t, y)), potential, every
        )

        def one(key):
            found, sizes = solvers.solve(
                steered,
                key,
                jax.random.normal(key, (size, 1)),
                jnp.linspace(0, 1, num_steps + 1),
                lambda carry, t: carry.effective_size,
            )
            weights = jax.nn.softmax(found.log_weights)
            mean = jnp.sum(weights * found.x[:, 0])
            return jnp.stack([mean, jnp.sum(weights * (found.x[:, 0] - mean) ** 2)]), jnp.min(sizes)

        return jax.lax.map(one, jax.random.split(KEY, 8))

    for scale in (2.0, 3.0):
        moments, least = map(np.asarray, populations(scale))
        precision = scale + (1 - scale) / 2
        error = moments.std(axis=0, ddof=1)
        deviation = np.abs(moments.mean(axis=0) - [scale / precision, 1 / precision]) / error
        assert np.all(deviation < 3)
        assert least.min() > 2_000

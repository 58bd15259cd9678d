"""(P1), (P2), (F1), (F2) by hand and in closed form: the law p_t e^(r_t) of weighted particles."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.steering.fk_steering import RewardsSeen

KEY = jax.random.key(5)
PATH = paths.linear()
SLOPE = 1.5  # lambda of the reward -lambda t x^2 / 2


def _normal(mean, variance):
    return LabelledMixture(jnp.ones(1), jnp.array([[mean]]), jnp.array([[[variance]]]))


FIELD = guidance.given(_normal(1.0, 2.0).vector_field(PATH), 1)
DIFFUSION = solvers.root_beta(PATH)
PLAIN = solvers.euler_maruyama(PATH, FIELD, DIFFUSION)


def _rising(x, t):
    return -SLOPE * t * jnp.sum(x**2) / 2


def _constant(x, t):
    return -SLOPE * jnp.sum(x**2) / 2


BUILDERS = {
    "tilted": lambda reward, **settings: steering.tilted(PATH, FIELD, reward, DIFFUSION, **settings),
    "twisted": lambda reward, **settings: steering.twisted(PATH, FIELD, reward, DIFFUSION, **settings),
    "smc": lambda reward, **settings: steering.smc(PLAIN, reward, **settings),
}
POTENTIALS = steering.difference, steering.maximum, steering.total
EVERY = {
    **BUILDERS,
    **{
        f"{potential.__name__}, every {every}": lambda reward, potential=potential, every=every, **settings: (
            steering.fk_steering(PLAIN, reward, potential, every, **settings)
        )
        for potential, every in ((steering.difference, 3), (steering.maximum, 1), (steering.total, 3))
    },
}


def some(names, *fast):
    """The names, all but some of them slow."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def _noise(size):
    return jax.random.normal(KEY, (size, 1))


def _solved(solver, noise, num_steps):
    ts = jnp.linspace(0, 1, num_steps + 1)
    return solvers.solve(solver, KEY, noise, ts, observe=lambda carry, t: carry.effective_size)


def _moments(particles):
    weights = jax.nn.softmax(particles.log_weights)
    mean = jnp.sum(weights * particles.x[:, 0])
    return np.array([mean, jnp.sum(weights * (particles.x[:, 0] - mean) ** 2)])


def _plain(noise, num_steps):
    """Euler-Maruyama's states by the particles' own keys."""
    step, x = jax.jit(jax.vmap(lambda key, x, t, r: PLAIN.step(key, PLAIN.init(x), t, r).x, (0, 0, None, None))), noise
    ts = jnp.linspace(0, 1, num_steps + 1)
    for k in range(num_steps):
        keys = [jax.random.fold_in(jax.random.fold_in(KEY, k), i) for i in range(len(noise))]
        x = step(jnp.stack(keys), x, ts[k], ts[k + 1])
    return x


@pytest.mark.parametrize("name", some(EVERY, "tilted", "twisted"))
def test_without_a_reward_particles_are_the_plain_diffusion(name):
    noise = _noise(8)
    found, _ = _solved(EVERY[name](lambda x, t: 0.0 * t), noise, 6)
    np.testing.assert_allclose(found.x, _plain(noise, 6), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.log_weights, 0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("tilted", "twisted")])
def test_the_product_of_potentials_is_the_last_reward(name):
    """Without resampling each weight is exp(r_1) of its own plain path, for a reward without a derivative."""
    noise, count = _noise(8), []

    def reward(x, t):
        jax.debug.callback(lambda t: count.append(float(t)), t)
        return jnp.floor(3 * jnp.sum(x)) * (1 + t) / 2

    found, _ = _solved(EVERY[name](reward, threshold=0.0), noise, 7)
    exact = np.floor(3 * np.asarray(_plain(noise, 7))[:, 0])
    np.testing.assert_allclose(found.log_weights, exact - np.log(np.mean(np.exp(exact))), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.log_normaliser, np.log(np.mean(np.exp(exact))), rtol=1e-4)
    jax.effects_barrier()
    times = np.arange(1, 8) / 7 if name.endswith("1") or name == "smc" else np.array([3, 6, 7]) / 7
    np.testing.assert_allclose(np.unique(count), times.astype(np.float32), rtol=1e-6)


def test_potentials_by_hand():
    """After the rewards 1, 3, 2 the next is 2.5."""
    seen = RewardsSeen(jnp.float32(2), jnp.float32(3), jnp.float32(6))
    assert [float(each(seen, jnp.float32(2.5))) for each in POTENTIALS] == [0.5, 3.0, 8.5]


def _log_normal(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std)


def test_a_step_of_the_twisted_sampler_by_hand():
    """The state that the gradient leads to, and (P2) by the two normal densities themselves."""
    noise, t, h = np.array([[-1.0], [0.3], [2.0]], np.float32), jnp.float32(0.4), jnp.float32(0.1)
    solver = BUILDERS["twisted"](_constant, threshold=0.0)
    begun = solver.init(noise)
    after = solver.step(KEY, begun, t, t + h)
    keys = jnp.stack([jax.random.fold_in(KEY, i) for i in range(3)])
    plain = jax.vmap(lambda key, x: PLAIN.step(key, PLAIN.init(x), t, t + h).x)(keys, noise)
    std = float(DIFFUSION(t) * jnp.sqrt(h))
    lead = -(std**2) * SLOPE * noise
    np.testing.assert_allclose(after.x, plain + lead, rtol=1e-5)
    drift = solvers.sde.drift_of(PATH, FIELD, DIFFUSION)
    mean = noise + h * jax.vmap(drift, in_axes=(0, None))(noise, t)
    x, mean = np.asarray(after.x, np.float64), np.asarray(mean, np.float64)
    weight = _log_normal(x, mean, std) - _log_normal(x, mean + lead, std) - SLOPE * x**2 / 2
    weight = weight[:, 0]
    np.testing.assert_allclose(after.log_weights, weight - np.log(np.mean(np.exp(weight))), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after.log_normaliser, np.log(np.mean(np.exp(weight))), rtol=1e-4)


def test_a_step_of_the_tilted_law_by_hand():
    """The state of (P1), and A = d_t r + u grad r with r's derivatives written out."""
    noise, t, h = np.array([[-1.0], [0.3], [2.0]], np.float32), jnp.float32(0.4), jnp.float32(0.1)
    solver = BUILDERS["tilted"](_rising, threshold=0.0)
    after = solver.step(KEY, solver.init(noise), t, t + h)
    keys = jnp.stack([jax.random.fold_in(KEY, i) for i in range(3)])
    plain = jax.vmap(lambda key, x: PLAIN.step(key, PLAIN.init(x), t, t + h).x)(keys, noise)
    gradient = -SLOPE * t * noise
    np.testing.assert_allclose(after.x, plain + h * DIFFUSION(t) ** 2 / 2 * gradient, rtol=1e-5)
    speed = jax.vmap(FIELD, in_axes=(0, None))(noise, t)
    growth = np.asarray(h * (-SLOPE * noise**2 / 2 + speed * gradient))[:, 0]
    np.testing.assert_allclose(after.log_weights, growth - np.log(np.mean(np.exp(growth))), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("reward", [_rising, _constant])
def test_the_law_of_a_quadratic_reward(reward):
    """N(1, 2) with exp(-1.5 x^2 / 2): mean 1/4, variance 1/2, log normaliser -log 2 - 3/16, r_0 being 0 or not."""
    for name, builder in BUILDERS.items():
        found, sizes = jax.jit(lambda builder=builder: _solved(builder(reward), _noise(10_000), 200))()
        error = 4 * np.sqrt(np.array([0.5, 0.5]) / 10_000 / 0.4)
        assert np.all(np.abs(_moments(found) - [0.25, 0.5]) < error + 0.005), (name, _moments(found))
        np.testing.assert_allclose(found.log_normaliser, -np.log(2) - 3 / 16, atol=0.04)
        assert np.min(sizes) > 4_000, name


def test_the_effective_size_of_the_tilted_law():
    """64 % of the particles, for the reward that rises with t and sigma = 1, without resampling."""
    solver = steering.tilted(PATH, FIELD, _rising, solvers.constant(1.0), 0.0)
    found, _ = jax.jit(lambda: _solved(solver, _noise(10_000), 200))()
    assert abs(float(found.effective_size) / 10_000 - 0.64) < 0.02
    assert np.all(np.abs(_moments(found) - [0.25, 0.5]) < 0.04)


def _of_the_chain(num_steps):
    """(mean of exp(r_1), that of x exp(r_1)) over the law of Euler-Maruyama's chain, whose steps are affine."""
    drift, ts = solvers.sde.drift_of(PATH, FIELD, DIFFUSION), np.linspace(0, 1, num_steps + 1)
    mean, variance = 0.0, 1.0
    for t, t_next in pairwise(ts):
        at_0, at_1 = (float(drift(jnp.full(1, x), jnp.float32(t))[0]) for x in (0.0, 1.0))
        factor = 1 + (t_next - t) * (at_1 - at_0)
        mean = factor * mean + (t_next - t) * at_0
        variance = factor**2 * variance + float(DIFFUSION(t)) ** 2 * (t_next - t)
    precision = 1 / variance + SLOPE
    normaliser = np.exp(0.5 * mean**2 / variance * (1 / variance / precision - 1)) / np.sqrt(variance * precision)
    return np.array([normaliser, normaliser * mean / variance / precision])


@pytest.mark.parametrize("name", some([name for name in EVERY if name != "tilted"], "twisted", "maximum, every 1"))
def test_estimates_are_unbiased_with_few_particles_and_long_steps(name):
    """E [Z], E [Z mean of x] of 4 particles over 5 steps, resampled: the chain's own, over 20,000 populations."""

    def estimate(key):
        noise_key, key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (4, 1))
        found = solvers.solve(EVERY[name](_rising, threshold=0.9), key, noise, jnp.linspace(0, 1, 6))[0]
        mean = jnp.sum(jax.nn.softmax(found.log_weights) * found.x[:, 0])
        return jnp.exp(found.log_normaliser) * jnp.stack([jnp.ones(()), mean])

    found = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(KEY, 20_000)))
    error = found.std(axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - _of_the_chain(5)) < 4 * error)
    assert error[0] < 0.02


def _exact(x, t):
    """log p_t(m|x) of m = z + n / 4 = 2 with z ~ N(1, 2), up to a constant."""
    alpha, beta = PATH.alpha(t), PATH.beta(t)
    variance = 2 * alpha**2 + beta**2
    spread = 2 - 4 * alpha**2 / variance + 1 / 16
    error = 2 - (1 + 2 * alpha / variance * (x[0] - alpha))
    return -0.5 * error**2 / spread - 0.5 * jnp.log(spread)


@pytest.mark.slow
def test_the_exact_likelihood_leaves_the_weights_equal():
    """By the memoryless diffusion: log-weights spread by O(sqrt(h)), and the particles have the posterior."""

    def spread(num_steps):
        solver = steering.twisted(PATH, FIELD, _exact, solvers.memoryless(PATH, 0.05), 0.0)
        found, _ = jax.jit(lambda: _solved(solver, _noise(4_000), num_steps))()
        precision = 1 / 2 + 16
        assert np.all(np.abs(_moments(found) - [(0.5 + 32) / precision, 1 / precision]) < [0.02, 0.006])
        return float(np.std(found.log_weights))

    coarse, fine = spread(100), spread(400)
    assert fine < 0.16
    assert fine < 0.6 * coarse


@pytest.mark.slow
def test_classifier_free_is_a_reward():
    """w = 2 and 3 of N(0, 2) and N(1, 1): the tilted law by ``tilted`` with r = w log p_y / p_null, and by (T1, T2)."""
    null, labelled = _normal(0.0, 2.0), _normal(1.0, 1.0)
    fields = [each.vector_field(PATH) for each in (null, labelled)]
    densities = [each.log_density(PATH) for each in (null, labelled)]
    y = jnp.asarray(0)

    def field(x, t, y):
        return jnp.where(y == 1, fields[0](x, t, 0 * y), fields[1](x, t, 0 * y))

    @jax.jit
    def both(scale):
        reward = lambda x, t: scale * (densities[1](x, t, y) - densities[0](x, t, y))  # noqa: E731
        rewarded = steering.tilted(PATH, guidance.given(field, 1), reward, solvers.constant(1.0))
        guided = solvers.feynman_kac(PATH, guidance.pair(field, 1), 0, scale, solvers.constant(1.0))
        return [_solved(solver, _noise(20_000), 200)[0] for solver in (rewarded, guided)]

    for scale in (2.0, 3.0):
        precision = scale + (1 - scale) / 2
        for found in both(scale):
            error = np.sqrt([1 / precision, 2 / precision**2]) / np.sqrt(20_000 * 0.4)
            assert np.all(np.abs(_moments(found) - [scale / precision, 1 / precision]) < 4 * error + 0.004)


def _sharded(builder, num_devices):
    noise = _noise(64).reshape(num_devices, 64 // num_devices, 1)

    def run(noise):
        return _solved(builder(_rising, threshold=0.97, axis_name="devices"), noise, 16)

    found, sizes = jax.pmap(run, axis_name="devices", devices=jax.devices()[:num_devices])(noise)
    return found.x.reshape(64, 1), found.log_weights.reshape(64), found.log_normaliser[-1], sizes[-1]


@pytest.mark.parametrize("name", some([*BUILDERS, "total, every 3"], "twisted"))
def test_particles_do_not_depend_on_the_number_of_devices(name):
    one = _sharded(EVERY[name], 1)
    assert np.sum(np.asarray(one[-1]) < 0.97 * 64) > 1
    for num_devices in (2, 8):
        for found, expected in zip(_sharded(EVERY[name], num_devices), one, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", some([*BUILDERS, "total, every 3"], "twisted", "total, every 3"))
def test_numbers_are_traced(name):
    traces = []

    @jax.jit
    def run(slope, threshold):
        traces.append(1)
        return _solved(EVERY[name](lambda x, t: -slope * t * jnp.sum(x**2), threshold=threshold), _noise(8), 3)[0].x

    assert not np.array_equal(run(1.0, 0.5), run(2.0, 1.0))
    assert len(traces) == 1


@pytest.mark.slow
def test_an_interval_leads_in_pieces():
    """Of a piecewise field the particles are piecewise, and a reward of the whole time has the same law."""
    field = guidance.given(
        guidance.classifier_free(lambda x, t, y: FIELD(x, t), guidance.interval(2.0, 0.25, 0.75), 1), 0
    )
    noise = _noise(32)
    for build in (steering.tilted, steering.twisted):
        whole, _ = _solved(build(PATH, FIELD, _rising, DIFFUSION), noise, 8)
        pieces, _ = _solved(build(PATH, field, _rising, DIFFUSION), noise, 8)
        np.testing.assert_allclose(pieces.x, whole.x, rtol=1e-4, atol=1e-5)
    steered = steering.smc(solvers.euler_maruyama(PATH, field, DIFFUSION), _rising)
    np.testing.assert_allclose(_solved(steered, noise, 8)[0].x, _solved(BUILDERS["smc"](_rising), noise, 8)[0].x)
    with pytest.raises(TypeError, match=r"take solvers\.solve"):
        solvers.integrate(steered, KEY, noise, jnp.linspace(0, 1, 3))

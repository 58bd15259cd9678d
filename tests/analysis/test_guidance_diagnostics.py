"""Looking into a solve: diagnostics by hand, evaluations as they happen, and gradients through the scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, paths, solvers
from cfgjax.analysis import guidance_diagnostics, likelihood

NULL, Y = 3, 1
KEY = jax.random.key(0)
START = np.array([0.6, -1.1])


@pytest.mark.usefixtures("x64")
def test_every_number_by_hand(clustered):
    """(N1), (N2), (N4) at one state; (N3) is the exact divergence in the mean over probes."""
    path, field, scale, bound = paths.cosine(), clustered.vector_field(paths.cosine()), 3.0, 0.9
    pair, x, t = guidance.pair(field, NULL), jnp.asarray(START), jnp.asarray(0.6)
    keys = jax.random.split(KEY, 400)

    def at(key):
        return guidance_diagnostics.diagnostics(path, pair, key, scale, Y, bound)(
            solvers.euler(lambda x, t: x).init(x), t
        )

    seen = jax.jit(jax.vmap(at))(keys)
    null, labelled = (np.asarray(field(x, t, jnp.asarray(y))) for y in (NULL, Y))
    guided = guidance.given(guidance.classifier_free(field, scale, NULL), Y)
    denoiser = np.asarray(conversions.denoiser_of(path, guided)(x, t))
    np.testing.assert_allclose(seen.distance, np.linalg.norm(labelled - null), rtol=1e-9)
    cosine = labelled @ null / np.linalg.norm(labelled) / np.linalg.norm(null)
    np.testing.assert_allclose(seen.cosine, cosine, rtol=1e-9)
    np.testing.assert_allclose(seen.cfg_zero_star, labelled @ null / (null @ null), rtol=1e-9)
    np.testing.assert_allclose(seen.saturation, np.mean(np.abs(denoiser) > bound))
    exact = likelihood.exact_divergence(guided)(x, t)[1]
    error = np.std(seen.divergence) / np.sqrt(len(keys))
    assert abs(np.mean(seen.divergence) - exact) < 4 * error + 1e-9


def test_they_are_observed_in_the_scan_and_grouped_by_label(clustered):
    path, ts = paths.linear(), jnp.linspace(0, 1, 9)
    field = clustered.vector_field(path)
    pair, labels = guidance.pair(field, NULL), jnp.array([0, 0, 2])

    def draw(key, y):
        solver = solvers.heun(guidance.given(guidance.extrapolate(pair, 2.0), y))
        observe = guidance_diagnostics.diagnostics(path, pair, KEY, 2.0, y)
        return solvers.integrate(
            solver, key, jax.random.normal(key, (2,)), ts, lambda carry, t: (carry.x, observe(carry, t))
        )

    _, (states, seen) = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 3), labels)
    sides = jax.vmap(pair.both)(states[:, 5], jnp.full(3, ts[5]), labels)
    np.testing.assert_allclose(seen.distance[:, 5], jnp.linalg.norm(sides[1] - sides[0], axis=-1), rtol=1e-4)
    mean = guidance_diagnostics.by_label(seen, labels, NULL)
    np.testing.assert_allclose(mean.cosine[0], (seen.cosine[0] + seen.cosine[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(mean.divergence[2], seen.divergence[2], rtol=1e-5)
    assert np.all(np.isnan(mean.distance[1]))


def _free(scale):
    return lambda field: guidance.given(guidance.classifier_free(field, scale, NULL), Y)


BUILDS = {
    "labelled": lambda field: solvers.heun(guidance.given(field, Y)),
    "guided": lambda field: solvers.heun(_free(3.0)(field)),
    "interval": lambda field: solvers.heun(_free(guidance.interval(3.0, 0.3, 0.7))(field)),
    "three labels": lambda field: solvers.euler(guidance.compose(field, [0, 1, NULL], jnp.array([1.0, 1.0, -1.0]))),
    "zero before": lambda field: solvers.euler(guidance.zero_init(_free(3.0)(field), 0.4)),
    "memory": lambda field: solvers.with_field_state(
        solvers.euler, guidance.adaptive_projected(paths.linear(), guidance.pair(field, NULL), 3.0, Y)
    ),
    "diffusion": lambda field: solvers.euler_maruyama(paths.linear(), _free(3.0)(field), solvers.constant(1.0)),
}


@pytest.mark.parametrize("name", list(BUILDS))
def test_counted_evaluations_are_those_that_happen(name):
    calls, ts = [], np.linspace(0, 1, 11, dtype=np.float32)

    def field(x, t, y):
        jax.debug.callback(lambda x, y: calls.append(float(y)), x, y)
        return -x * y

    jax.jit(lambda x: solvers.integrate(BUILDS[name](field), KEY, x, ts))(START)
    jax.effects_barrier()
    each = solvers.num_function_evaluations(BUILDS[name], lambda x, t, y: -x * y, START, ts)
    assert each.shape == (10,)
    assert each.sum() == len(calls)


def test_a_branch_counts_with_its_dearest_side_and_a_scan_with_its_length():
    def branching(field):
        def once(x, t):
            return field(x, t, jnp.asarray(Y))

        return lambda x, t: jax.lax.cond(t < 0.5, once, lambda x, t: once(once(x, t), t), x, t)

    def scanning(field):
        return lambda x, t: jax.lax.scan(lambda x, _: (field(x, t, jnp.asarray(Y)), None), x, None, length=3)[0]

    for make, expected in ((branching, 2), (scanning, 3)):
        each = solvers.num_function_evaluations(
            lambda field, make=make: solvers.euler(make(field)), lambda x, t, y: -x * y, START, np.linspace(0, 1, 3)
        )
        assert each.tolist() == [expected, expected]


def test_a_population_counts_each_particle():
    def build(field):
        return solvers.feynman_kac(paths.linear(), guidance.pair(field, NULL), Y, 2.0, solvers.constant(1.0))

    each = solvers.num_function_evaluations(build, lambda x, t, y: -x * y, jnp.ones((5, 2)), jnp.linspace(0, 1, 4))
    assert each.tolist() == [10, 10, 10]


def test_a_traced_grid_cannot_be_counted():
    count = jax.jit(lambda ts: solvers.num_function_evaluations(BUILDS["guided"], lambda x, t, y: x, START, ts).sum())
    with pytest.raises(ValueError, match="ts must be a grid of numbers"):
        count(jnp.linspace(0, 1, 3))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_gradient_of_a_solve_in_its_schedule(clustered):
    """d end / d knots of w(t, y), with steps computed again, against central differences; the same without."""
    field, ts = clustered.vector_field(paths.linear()), jnp.linspace(0, 1, 17)
    knots = jnp.array([[1.0, 2.0, 1.5], [3.0, 0.5, 2.0], [1.0, 1.0, 1.0]])

    def end(knots, wrap):
        def scale(t, y):
            return jnp.interp(t, jnp.array([0.0, 0.5, 1.0]), knots[y])

        solver = wrap(solvers.heun(guidance.given(guidance.classifier_free(field, scale, NULL), Y)))
        return jnp.sum(solvers.integrate(solver, KEY, jnp.asarray(START), ts) * jnp.array([1.0, 0.3]))

    plain = jax.grad(lambda knots: end(knots, lambda solver: solver))(knots)
    again = jax.grad(lambda knots: end(knots, solvers.remat))(knots)
    np.testing.assert_allclose(again, plain, rtol=1e-10)
    assert not np.any(plain[jnp.array([0, 2])])
    call = jax.jit(lambda knots: end(knots, lambda solver: solver))
    for i in range(3):
        change = jnp.zeros_like(knots).at[Y, i].set(1e-5)
        expected = (call(knots + change) - call(knots - change)) / 2e-5
        np.testing.assert_allclose(plain[Y, i], expected, rtol=1e-5)


def test_steps_under_remat_take_less_memory():
    """64 steps of a wide field: the backward pass keeps the states, and not what is inside the steps."""
    weights = jnp.ones((2, 4096)) / 4096

    def temporary(wrap):
        def end(weights, x):
            solver = wrap(solvers.heun(lambda x, t: jnp.tanh(jnp.tanh(x @ weights + t) @ weights.T)))
            return jnp.sum(solvers.integrate(solver, KEY, x, jnp.linspace(0, 1, 65)))

        compiled = jax.jit(jax.grad(end)).lower(weights, jnp.ones((16, 2))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(solvers.remat) < temporary(lambda solver: solver) / 4

"""Langevin corrections and predictor-corrector guidance: (L1) to (L3) on two Gaussians, null N(0, 2), label N(1, 1)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, paths, solvers
from cfgjax.mixtures import LabelledMixture

KEY = jax.random.key(0)
NUM_SAMPLES = 20_000
NULL = 1


def _gaussian(path, mean, variance):
    return LabelledMixture(jnp.ones(1), jnp.array([[mean]]), jnp.array([[[variance]]])).vector_field(path)


def _labelled_and_guided(path, scale):
    null, labelled = _gaussian(path, 0.0, 2.0), _gaussian(path, 1.0, 1.0)

    def field(x, t, y):
        return jnp.where(y == NULL, null(x, t, jnp.asarray(0)), labelled(x, t, jnp.asarray(0)))

    return guidance.given(field, 0), guidance.given(guidance.classifier_free(field, scale, NULL), 0)


def _sampled(build, scales, num_steps):
    """Means and variances of the ends of build(scale) from N(0, 1), for each scale: [2, scales]."""

    def draw(scale, key):
        noise_key, solver_key = jax.random.split(key)
        x = jax.random.normal(noise_key, (1,))
        return solvers.integrate(build(scale), solver_key, x, jnp.linspace(0, 1, num_steps + 1))[0]

    sweep = jax.jit(jax.vmap(jax.vmap(draw, in_axes=(None, 0)), in_axes=(0, None)))
    ends = np.asarray(sweep(jnp.asarray(scales), jax.random.split(jax.random.key(7), NUM_SAMPLES)), np.float64)
    return np.stack([ends.mean(axis=1), ends.var(axis=1)])


def _assert_law(found, means, variances, bias=0.0):
    """Within 4 standard errors, and a relative bias of the discretisation."""
    means, variances = np.asarray(means), np.asarray(variances)
    assert np.all(np.abs(found[0] - means) < 4 * np.sqrt(variances / NUM_SAMPLES) + bias * means)
    assert np.all(np.abs(found[1] - variances) < 4 * np.sqrt(2 / NUM_SAMPLES) * variances + bias * variances)


def _fixed_step(t, t_next):
    return jnp.full_like(t_next, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("path_name", ["linear", "cosine"])
def test_many_corrections_sample_the_tilted_law(path_name):
    """w = 1 keeps the label's law; w = 2 and 3 give the tilted ones, of precision w + (1 - w) / 2 and mean w / that.

    Where the guided ODE ends with variance 0.5 and 0.25. The bias allowed is that of (L1), e / 4 variance <= 0.025,
    and of the last step, which no correction follows.
    """
    path, scales = getattr(paths, path_name)(), np.array([1.0, 2.0, 3.0])

    def build(scale):
        return solvers.predictor_corrector_guidance(path, *_labelled_and_guided(path, scale), _fixed_step, 16)

    precisions = scales + (1 - scales) / 2
    _assert_law(_sampled(build, scales, 32), scales / precisions, 1 / precisions, bias=0.025)


def test_more_corrections_come_nearer_to_the_tilted_law():
    """At w = 2, variance 2/3 and mean 4/3: none is the labelled law, and each four times as many are nearer."""
    path = paths.linear()

    def build(num_corrections):
        step_size = solvers.relative_step(path, 0.3)
        return solvers.predictor_corrector_guidance(
            path, *_labelled_and_guided(path, 2.0), step_size, num_corrections, solvers.euler
        )

    found = _sampled(build, np.array([0, 1, 4, 16]), 32)
    errors = np.linalg.norm(found.T - [4 / 3, 2 / 3], axis=1)
    assert np.all(errors[1:] < 0.75 * errors[:-1])
    assert errors[-1] < 0.04


def test_guidance_by_one_correction_is_the_guided_sde_at_another_scale():
    """(L3): w - 1 = (v - 1)(1 + 2 b / sigma^2); with the memoryless sigma, w = 2 v - 1.

    Both laws are sampled, and agree within 4 standard errors of their difference and the steps' own error.
    """
    path, scales, num_steps = paths.linear(), np.array([1.0, 2.0]), 200
    diffusion = solvers.memoryless(path, start=0.05)

    def corrected(scale):
        fields = _labelled_and_guided(path, 2 * scale - 1)
        return solvers.predictor_corrector_guidance(path, *fields, solvers.diffusion_step(diffusion))

    def plain(scale):
        return solvers.euler_maruyama(path, _labelled_and_guided(path, scale)[1], diffusion)

    one, other = _sampled(corrected, scales, num_steps), _sampled(plain, scales, num_steps)
    assert np.all(np.abs(one - other)[0] < 4 * np.sqrt(2 * other[1] / NUM_SAMPLES) + 0.01)
    assert np.all(np.abs(one - other)[1] < 4 * np.sqrt(4 / NUM_SAMPLES) * other[1] + 0.01)


def test_the_drifts_of_the_limit_agree():
    """(L3): u_y + sigma^2 s_w / 2 = u_v + sigma^2 s_v / 2, on a curved path, with sigma^2 / 2 = 0.35."""
    path, x, t, halved = paths.cosine(), jnp.array([0.3]), jnp.float32(0.4), 0.35
    c = paths.coefficients(path, t)
    b = c.beta * c.wronskian / c.alpha
    labelled, guided = _labelled_and_guided(path, 2.5)
    corrector = _labelled_and_guided(path, 1 + 1.5 * (1 + b / halved))[1]
    scores = [conversions.score_of(path, field)(x, t) for field in (corrector, guided)]
    np.testing.assert_allclose(labelled(x, t) + halved * scores[0], guided(x, t) + halved * scores[1], rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_a_correction_by_hand():
    """(L1) after an Euler step: x' + (e / 2) s(x', t') + sqrt(e) noise, K times with fresh noise."""
    score, step_size = (lambda x, t: -t * x), (lambda t, t_next: 0.3 * t_next)
    solver = solvers.langevin_corrected(solvers.euler(lambda x, t: jnp.sin(x)), score, step_size, 2)
    x, t, t_next = jnp.array([0.6, -1.1]), 0.25, 0.5
    step = jax.jit(jax.vmap(lambda key: solver.step(key, solver.init(x), jnp.asarray(t), jnp.asarray(t_next)).x))
    ends = step(jax.random.split(KEY, 2000))
    moved, size = x + 0.25 * jnp.sin(x), 0.3 * t_next
    shrink = 1 - 0.5 * size * t_next
    variance = size * (1 + shrink**2)
    np.testing.assert_array_less(np.abs(ends.mean(axis=0) - shrink**2 * moved), 4 * np.sqrt(variance / 2000))
    np.testing.assert_array_less(np.abs(ends.var(axis=0) - variance), 4 * variance * np.sqrt(2 / 2000))


@pytest.mark.usefixtures("x64")
def test_langevin_steps_alone_reach_the_law_with_the_documented_bias():
    """(L1) on N(0, V): the variance is V / (1 - e / 4V), from its own recursion's fixed point."""
    size, variance = 0.4, 0.5
    solver = solvers.langevin_corrected(
        solvers.euler(lambda x, t: 0 * x), lambda x, t: -x / variance, lambda t, t_next: size + 0 * t, 60
    )
    keys = jax.random.split(KEY, NUM_SAMPLES)
    step = jax.jit(jax.vmap(lambda key: solver.step(key, solver.init(jnp.zeros(())), 0.5, 0.6).x))
    expected = variance / (1 - size / (4 * variance))
    assert abs(float(np.var(step(keys))) - expected) < 4 * np.sqrt(2 / NUM_SAMPLES) * expected


def test_no_correction_is_the_predictor_alone(path):
    field = _gaussian(path, 1.0, 0.5)
    one, x = guidance.given(field, 0), jnp.array([0.6])
    solver = solvers.langevin_corrected(solvers.heun(one), one, _fixed_step, 0)
    times = jnp.float32(0.3), jnp.float32(0.4)
    np.testing.assert_array_equal(
        solver.step(KEY, solver.init(x), *times).x, solvers.heun(one).step(KEY, solver.init(x), *times).x
    )


def test_the_score_is_not_called_at_the_end():
    """A score that blows up as 1/(1 - t) leaves a finite end; the last step has no correction."""
    times = []

    def score(x, t):
        jax.debug.callback(lambda t: times.append(float(t)), t)
        return -x / (1 - t)

    solver = solvers.langevin_corrected(solvers.euler(lambda x, t: x), score, _fixed_step, 3)
    end = solvers.integrate(solver, KEY, jnp.ones(2), jnp.array([0.0, 0.25, 0.5, 1.0]))
    jax.effects_barrier()
    assert np.all(np.isfinite(end))
    assert sorted(times) == [0.25] * 3 + [0.5] * 3


def test_the_score_is_not_called_at_the_end_of_mapped_grids():
    """Under vmap over the grid both branches of a step are computed: of one that ends at t = 1, at the step's start."""
    times = []

    def score(x, t):
        jax.debug.callback(lambda t: times.append(float(t)), t)
        return -x

    solver = solvers.langevin_corrected(solvers.euler(lambda x, t: x), score, _fixed_step)
    step = jax.vmap(lambda t_next: solver.step(KEY, solver.init(jnp.ones(2)), jnp.float32(0.5), t_next).x)
    ends = step(jnp.float32([0.75, 1.0]))
    jax.effects_barrier()
    assert sorted(times) == [0.5, 0.75]
    np.testing.assert_array_equal(ends[1], 1.5)


@pytest.mark.slow
def test_whole_solves_are_finite_on_every_path(path):
    labelled, guided = _labelled_and_guided(path, 3.0)
    solver = solvers.predictor_corrector_guidance(path, labelled, guided, solvers.relative_step(path), 2)
    ends = jax.vmap(lambda key: solvers.integrate(solver, key, jax.random.normal(key, (1,)), jnp.linspace(0, 1, 9)))
    assert np.all(np.isfinite(jax.jit(ends)(jax.random.split(KEY, 8))))


def test_step_sizes_by_hand():
    """2 (r beta)^2 and h sigma^2, both at t_next."""
    t, t_next = jnp.float32(0.5), jnp.float32(0.75)
    np.testing.assert_allclose(solvers.relative_step(paths.linear(), 0.3)(t, t_next), 2 * (0.3 * 0.25) ** 2, rtol=1e-6)
    np.testing.assert_allclose(solvers.diffusion_step(solvers.root_linear(2.0))(t, t_next), 0.25 * 4 * 0.5, rtol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="num_corrections must be"):
        solvers.langevin_corrected(solvers.euler(lambda x, t: x), lambda x, t: x, _fixed_step, -1)
    with pytest.raises(ValueError, match="ratio must be"):
        solvers.relative_step(paths.linear(), -0.1)

"""Learned guidance scales: their parameters, densities by the map's determinant, fits, and the command."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfgjax import conversions, guidance, solvers
from experiments.evaluation import tilted_law
from experiments.learn_schedule import fitting, scales
from experiments.learn_schedule.__main__ import Options, learn
from experiments.learn_schedule.measures import divergences, log_density_of_map
from experiments.learn_schedule.scales import MIXTURE, NULL, PAIR, PATH

KEY = jax.random.key(0)
NOISE = jnp.array([0.3, -0.8])


def test_the_excess_is_the_divergence_at_scale_one():
    """At w = 1 the guided law is the tilted law, log Z is 0, and the excess is 0 for every sample."""
    ts, scale = np.linspace(0, 1, 65, dtype=np.float32), scales.schedule(jnp.ones((9, 3)))
    of = jax.jit(lambda noise: fitting.excess(scale, 1.0, jnp.asarray(4), noise, ts))
    for seed in range(3):
        assert abs(float(of(np.random.default_rng(seed).normal(size=2).astype(np.float32)))) < 0.02
    assert abs(tilted_law.tilted_log_normaliser(MIXTURE, 4, 1.0)) < 1e-4


@pytest.mark.parametrize(("rate", "is_turned"), [(-0.5, False), (-2.5, True)])
def test_the_density_of_a_linear_map(rate, is_turned):
    """Two Euler steps of u = diag(rate, 1) x: J = diag((1 + rate / 2)^2, 2.25); one step turns over where rate < -1."""
    field = lambda x, t: jnp.array([rate, 1.0]) * x  # noqa: E731
    steps = 1 if is_turned else 2
    log_p, x, turned = log_density_of_map(solvers.euler(field), NOISE, jnp.linspace(0, 1, steps + 1))
    factors = np.array([1 + rate / steps, 1 + 1 / steps]) ** steps
    log_normal = -0.5 * np.sum(np.square(NOISE)) - np.log(2 * np.pi)
    np.testing.assert_allclose(x, factors * NOISE, rtol=1e-6)
    np.testing.assert_allclose(log_p, log_normal - np.log(np.abs(factors)).sum(), rtol=1e-6)
    assert bool(turned) == is_turned


def test_the_gap_is_that_of_noise_predictions_and_equal_gaps_make_a_schedule():
    x, t, y = NOISE, jnp.float32(0.6), jnp.asarray(4)
    null, labelled = jax.jit(PAIR.both)(x, t, y)
    none, noise = (conversions.from_field(PATH, value, x, t).noise for value in (null, labelled))
    gap = scales.gap_of(t, null, labelled)
    np.testing.assert_allclose(gap, np.linalg.norm(noise - none), rtol=1e-5)
    knots = jax.random.normal(KEY, (NULL, 4))
    by_gap = scales.gap_schedule(jnp.stack([knots] * 3, axis=2))
    found = guidance.scale_at(by_gap, t, y, (x, null, labelled))
    np.testing.assert_allclose(found, scales.schedule(knots)(t, y), rtol=1e-6)
    share = gap / (1 + gap)
    rising = jnp.broadcast_to(jnp.array([1.0, 2.0]), (NULL, 4, 2))
    told = guidance.scale_at(scales.gap_schedule(rising), t, y, (x, null, labelled))
    np.testing.assert_allclose(told, 1 + share, rtol=1e-6)


def test_the_annealed_solver_is_that_of_cfg_plus_plus():
    """At the network's start, where it is 1 everywhere, it is CFG++ at 1 on the grid of n even steps."""
    params, ts, y = scales.network_start(KEY), jnp.linspace(0, 1, 9), jnp.asarray(4)
    assert scales.network(params, 0.3, jnp.float32(0.7), 0.2) == 1
    both = scales.annealed(params, 0.5, 8, y), solvers.cfg_plus_plus(PATH, PAIR, y, 1.0)
    ends = jax.jit(lambda noise: [solvers.integrate(solver, KEY, noise, ts) for solver in both])(NOISE)
    np.testing.assert_allclose(*ends, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_learned_schedule_comes_nearer_to_the_tilted_law():
    """Few updates, of one compiled function, already halve the divergence of the constant scale, on the average."""
    traces = []

    def traced(knots):
        traces.append(None)
        return scales.schedule(knots)

    loss = fitting.divergence(traced, 3.0, 36, 16)
    start = jnp.full((NULL, 9), 3.0, jnp.float32)
    knots, losses = fitting.fitter(loss, fitting.Fit(40, 36, 0.2))(start, KEY)
    assert len(traces) == 1
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    measure = divergences(lambda knots, y: scales.guided_ode(scales.schedule(knots), y), 3.0, 16, 200)
    before, after = (measure(each, KEY) for each in (start, knots))
    assert after.tilted.mean() < before.tilted.mean() / 2
    assert not before.turned.any()


@pytest.mark.slow
def test_losses_of_data_alone_lead_to_the_labelled_law():
    """Learn-to-guide without a reward, and the annealed scale without a preference, end beside w = 1."""
    loss = fitting.consistency(scales.at_least_one, 0.0, 72)
    knots, _ = fitting.fitter(loss, fitting.Fit(300, 72, 0.1))(jnp.full((NULL, 3), 1.0, jnp.float32), KEY)
    assert np.asarray(scales.at_least_one(knots)(0.4, 4)) < 1.15
    annealing = fitting.fitter(fitting.annealing(72, 32), fitting.Fit(300, 72, 0.003))
    params, _ = annealing(scales.network_start(KEY), KEY)
    at = lambda preference: scales.network(params, 0.5, jnp.float32(0.7), preference)  # noqa: E731
    assert abs(at(0.0) - 1) < 0.1 < at(1.0) - 1


@pytest.mark.slow
def test_the_command_compares_every_rule(tmp_path, capsys):
    """Of few updates: the table, the picture, and no gap for the best row alone."""
    out = tmp_path / "looks" / "learned.png"
    learn(Options(num_updates=2, num_loss_updates=2, num_steps=4, num_samples=20, num_seeds=2, out=out))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 14
    assert sum("| 0.0000 ± 0.0000 |" in line for line in lines) == 1
    with Image.open(out) as picture:
        assert picture.width > 800

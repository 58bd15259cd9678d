"""Value and gradient of each loss by hand, with what stands under a stop-gradient held at the parameter's value."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, paths, solvers

pytestmark = pytest.mark.usefixtures("x64")

PATH, KEY = paths.cosine(), jax.random.key(3)
Z = np.array([0.4, -1.3, 2.0])
PARAM, STEP = 0.7, 0.2


def _map(p, x, t, r):
    return jnp.sin(p * x) * (1 + p * t) - p * r * x**2


def _slope(p, x, t, r, direction):
    """dU/dt along a direction, written out."""
    by_x = p * jnp.cos(p * x) * (1 + p * t) - 2 * p * r * x
    return p * jnp.sin(p * x) + by_x * direction


def _slope_in_r(p, x):
    return -p * x**2


def _field(p, x, t):
    return jnp.cos(x) - t * p


def _state(t):
    """x, the conditional velocity and the noise of the losses' own draw, by trigonometry."""
    noise = np.asarray(jax.random.normal(jax.random.split(KEY)[1], (3,)))
    alpha, beta, rate = np.sin(np.pi * t / 2), np.cos(np.pi * t / 2), np.pi / 2
    return alpha * Z + beta * noise, rate * (beta * Z - alpha * noise), noise


def _halves(flow_map, x, t, r):
    first = flow_map(x, t, (t + r) / 2)
    return (first + flow_map(x + (r - t) / 2 * first, (t + r) / 2, r)) / 2


def _end(p, x, t, r):
    return x + (r - t) * _map(p, x, t, r)


def _mean_flow(p, held, x, v, noise, t, r):
    return _map(p, x, t, r) - v - (r - t) * _slope(held, x, t, r, v)


def _improved(p, held, x, v, noise, t, r):
    return _map(p, x, t, r) - (r - t) * _slope(held, x, t, r, _map(held, x, t, t)) - v


def _shortcut(p, held, x, v, noise, t, r):
    return _map(p, x, t, r) - (v if t == r else _halves(partial(_map, held), x, t, r))


def _consistency(p, held, x, v, noise, t, r):
    s = min(t + STEP, r)
    later = np.sin(np.pi * s / 2) * Z + np.cos(np.pi * s / 2) * noise
    return _end(p, x, t, r) - _end(held, later, s, r)


def _continuous(p, held, x, v, noise, t, r):
    return _map(p, x, t, r) - _map(held, x, t, r) - (v - _map(held, x, t, r) + 0.6 * (r - t) * _slope(held, x, t, r, v))


def _lagrangian(p, held, x, v, noise, t, r):
    return _map(p, x, t, r) + (r - t) * _slope_in_r(p, x) - _field(1.0, _end(held, x, t, r), r)


def _eulerian(p, held, x, v, noise, t, r):
    field = _field(1.0, x, t)
    return _map(p, x, t, r) - field - (r - t) * _slope(held, x, t, r, field)


def _progressive(p, held, x, v, noise, t, r):
    return _map(p, x, t, r) - _halves(partial(_map, 1.3), x, t, r)


def _through(by_hand):
    """The residual without its stop-gradient."""
    return lambda p, held, *rest: by_hand(p, p, *rest)


FIELD = partial(_field, 1.0)
LOSSES = {
    "mean_flow": (flow_maps.mean_flow, _mean_flow),
    "improved_mean_flow": (flow_maps.improved_mean_flow, _improved),
    "shortcut": (flow_maps.shortcut, _shortcut),
    "consistency": (partial(flow_maps.consistency, step=STEP), _consistency),
    "continuous_consistency": (partial(flow_maps.continuous_consistency, ramp=0.6), _continuous),
    "lagrangian": (flow_maps.lagrangian, _lagrangian, FIELD),
    "lagrangian, through": (
        partial(flow_maps.lagrangian, stop=flow_maps.pass_gradient),
        _through(_lagrangian),
        FIELD,
    ),
    "eulerian": (flow_maps.eulerian, _eulerian, FIELD),
    "eulerian, through": (partial(flow_maps.eulerian, stop=flow_maps.pass_gradient), _through(_eulerian), FIELD),
    "progressive": (flow_maps.progressive, _progressive, partial(_map, 1.3)),
}


@pytest.mark.parametrize(("t", "r"), [(0.3, 0.8), (0.5, 0.5), (0.1, 0.2)])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(name, t, r):
    loss, by_hand, *teacher = LOSSES[name]
    found = jax.value_and_grad(
        lambda p: loss(PATH, partial(_map, p), *teacher, KEY, jnp.asarray(Z), times=lambda key: (t, r))
    )(PARAM)
    expected = jax.value_and_grad(lambda p: jnp.mean(by_hand(p, PARAM, *_state(t), t, r) ** 2))(PARAM)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("t", "r"), [(0.3, 0.8), (0.7, 0.8)])
def test_a_step_of_a_solver_in_consistency_distillation(t, r):
    """Euler's step, no further than r; the state is that of the first half of the key."""
    draw_key = jax.random.split(KEY)[0]
    noise = np.asarray(jax.random.normal(jax.random.split(draw_key)[1], (3,)))
    x, s = np.sin(np.pi * t / 2) * Z + np.cos(np.pi * t / 2) * noise, min(t + STEP, r)
    later = x + (s - t) * FIELD(x, t)
    found = jax.value_and_grad(
        lambda p: flow_maps.consistency_distillation(
            PATH, partial(_map, p), solvers.euler(FIELD), KEY, jnp.asarray(Z), step=STEP, times=lambda key: (t, r)
        )
    )(PARAM)
    expected = jax.value_and_grad(lambda p: jnp.mean((_end(p, x, t, r) - _end(PARAM, later, s, r)) ** 2))(PARAM)
    np.testing.assert_allclose(found, expected, rtol=1e-9)

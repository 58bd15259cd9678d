"""The expected gradient of every loss is 0 at the exact map, in any direction, and not 0 where something is wrong."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, guidance, paths, solvers
from tests.support import guided_normal as normal

pytestmark = pytest.mark.usefixtures("x64")

PATH, W = paths.cosine(), 2.5


def _exact(x, t, r, y, w):
    """The exact map of both sides, whose network input w is not used at the null."""
    return normal.exact(PATH, x, t, r, jnp.where(y == normal.NULL, 0.0, w))


def _features(count=6):
    rng = np.random.default_rng(0)
    rates, shifts = rng.uniform(-1, 1, (3, count)), rng.uniform(0, 6, count)

    def of(x, t, r):
        return jnp.stack(
            [jnp.sin(a * x + 2 * b * t + 2 * c * r + s) for a, b, c, s in zip(*rates, shifts, strict=True)]
        )

    return count, of


COUNT, FEATURES = _features()


def _gradient(loss):
    """A function of the exact map's w and of what ``loss`` takes more: the expected gradient along the features."""

    def at(w, **parts):
        def learned(params, x, t, r):
            return normal.exact(PATH, x, t, r, w) + jnp.tensordot(params, FEATURES(x, t, r), 1)

        def of_draw(z, density):
            return jax.grad(lambda params: loss(partial(learned, params), z, density, **parts))(jnp.zeros(COUNT))

        times = normal.mixed(normal.spans(6), normal.instants(6))
        return jnp.max(jnp.abs(normal.expectation(of_draw, normal.draws(normal.LABEL, 14), times)))

    return jax.jit(at)


def _of_data(loss, **options):
    """A loss with the velocity that is guided by the exact map."""

    def made(flow_map, z, density, scale, label, null):
        velocity = flow_maps.guided_velocity(_exact, label, scale, null, 0.3)
        return loss(PATH, flow_map, normal.KEY, z, times=density, velocity=velocity, **options)

    return made


def _of_field(loss, **options):
    def made(flow_map, z, density, scale):
        field = partial(normal.field, PATH, w=scale)
        return loss(PATH, flow_map, field, normal.KEY, z, times=density, **options)

    return made


def _progressive(flow_map, z, density, scale):
    teacher = lambda x, t, r: normal.exact(PATH, x, t, r, scale)  # noqa: E731
    return flow_maps.progressive(PATH, flow_map, teacher, normal.KEY, z, times=density)


def _consistency_by_jumps(flow_map, z, density, scale):
    solver = solvers.jump(lambda x, t, r: normal.exact(PATH, x, t, r, scale))
    return flow_maps.consistency_distillation(PATH, flow_map, solver, normal.KEY, z, step=0.1, times=density)


FROM_DATA = {
    "mean_flow": _of_data(flow_maps.mean_flow),
    "improved_mean_flow": _of_data(flow_maps.improved_mean_flow),
    "shortcut": _of_data(flow_maps.shortcut),
    "mean_flow by differences": _of_data(flow_maps.mean_flow, derivative=flow_maps.central_difference(1e-4)),
}
FROM_TEACHER = {
    "lagrangian": _of_field(flow_maps.lagrangian),
    "lagrangian, weighted": _of_field(flow_maps.lagrangian, weight=flow_maps.residual_power(0.5)),
    "lagrangian through the teacher": _of_field(flow_maps.lagrangian, stop=flow_maps.pass_gradient),
    "eulerian through the target": _of_field(flow_maps.eulerian, stop=flow_maps.pass_gradient),
    "progressive": _progressive,
    "consistency_distillation": _consistency_by_jumps,
}
RIGHT = {"scale": W, "label": normal.LABEL, "null": normal.NULL}
MISTAKES = {
    "guided twice": {"scale": W**2},
    "not guided": {"scale": 1.0},
    "no null": {"null": normal.LABEL},
    "the null for the label": {"label": normal.NULL},
}


@pytest.mark.parametrize("name", FROM_DATA)
def test_a_loss_from_data_is_at_rest_at_the_exact_map_alone(name):
    """Not at the map of another w, and with wrong guidance inside not at the right one."""
    gradient = _gradient(FROM_DATA[name])
    assert gradient(W, **RIGHT) < 1e-6
    assert gradient(W + 0.3, **RIGHT) > 1e-3
    found = {mistake: gradient(W, **RIGHT | parts) for mistake, parts in MISTAKES.items()}
    assert min(found.values()) > 1e-3, found


@pytest.mark.parametrize("name", FROM_TEACHER)
def test_a_loss_of_a_teacher_is_at_rest_at_its_map_alone(name):
    gradient = _gradient(FROM_TEACHER[name])
    assert gradient(W, scale=W) < 1e-6
    assert gradient(W + 0.3, scale=W) > 1e-3


def _reversed(flow_map, point, tangents):
    value, slope = flow_maps.forward_derivative(flow_map, point, tangents)
    return value, -slope


def _without_direction(flow_map, point, tangents):
    return flow_maps.forward_derivative(flow_map, point, (jnp.zeros_like(tangents[0]), *tangents[1:]))


@pytest.mark.slow
@pytest.mark.parametrize("derivative", [_reversed, _without_direction])
@pytest.mark.parametrize("loss", [flow_maps.mean_flow, flow_maps.improved_mean_flow])
def test_a_wrong_derivative_moves_the_minimiser(loss, derivative):
    """The other direction of time, and the partial derivative in the place of that along the trajectory."""
    assert _gradient(_of_data(loss, derivative=derivative))(W, **RIGHT) > 1e-3


@pytest.mark.slow
def test_half_a_ramp_is_no_flow_map():
    loss = flow_maps.continuous_consistency
    gradients = [_gradient(_of_data(loss, ramp=ramp))(W, **RIGHT) for ramp in (0.5, 1.0)]
    assert gradients[0] > 1e-3
    assert gradients[1] < 1e-6


def test_the_eulerian_loss_is_mean_flow_of_the_teacher():
    """Value and gradient, for any flow map; and continuous consistency has the gradient of both."""
    field, z, times = partial(normal.field, PATH, w=W), jnp.array([0.3, -1.0]), flow_maps.ordered_times()
    velocity = flow_maps.teacher_velocity(field)

    def of(loss):
        def at(scale, key):
            return loss(lambda x, t, r: jnp.sin(scale * x) * (1 + t) - r, key)

        return jax.jit(jax.vmap(jax.value_and_grad(at), in_axes=(None, 0)))

    keys = jax.random.split(jax.random.key(1), 20)
    values, slopes = of(lambda u, key: flow_maps.eulerian(PATH, u, field, key, z, times=times))(0.7, keys)
    for loss in (flow_maps.mean_flow, flow_maps.continuous_consistency):
        others = of(lambda u, key, loss=loss: loss(PATH, u, key, z, velocity=velocity, times=times))(0.7, keys)
        np.testing.assert_allclose(others, (values, slopes), rtol=1e-12)


def _of_all_numbers(loss, with_teacher=False, with_step=False):
    """A loss of all its numbers, compiled, and a list with an item for each time that it was traced."""
    traces = []

    def at(key, z, w, kappa, start, stop, t, r, step):
        traces.append(loss)
        scale = guidance.interval(w, start, stop)
        network = lambda x, t, r, y, w: jnp.sin(x) * (w.scale + t - r) + y  # noqa: E731
        flow_map, options = flow_maps.given(network, 1, scale), {"times": lambda key: (t, r)}
        if with_teacher:
            return loss(PATH, flow_map, lambda x, t: -w * x, key, z, **options)
        options |= {"velocity": flow_maps.guided_velocity(network, 1, scale, 0, kappa)}
        return loss(PATH, flow_map, key, z, **options, **({"step": step} if with_step else {}))

    return jax.jit(jax.value_and_grad(at, argnums=1)), traces


@pytest.mark.parametrize(
    ("compiled", "traces"),
    [
        _of_all_numbers(flow_maps.mean_flow),
        _of_all_numbers(flow_maps.improved_mean_flow),
        _of_all_numbers(flow_maps.shortcut),
        _of_all_numbers(flow_maps.consistency, with_step=True),
        _of_all_numbers(flow_maps.continuous_consistency),
        _of_all_numbers(flow_maps.lagrangian, with_teacher=True),
        _of_all_numbers(flow_maps.eulerian, with_teacher=True),
    ],
)
def test_no_number_compiles_anything(compiled, traces):
    """Neither w, kappa, the interval, t, r nor the step; and all is finite at the ends."""
    numbers = [
        (2.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.1),
        (1.0, 0.5, 0.2, 0.8, 1.0, 1.0, 0.3),
        (5.0, 0.9, 0.1, 0.4, 0.0, 0.0, 1.0),
    ]
    found = [compiled(normal.KEY, jnp.ones(2), *map(jnp.float64, row)) for row in numbers]
    assert len(traces) == 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))

"""Every loss leaves a flow map at rest at the exact one: solved in a model, and as a zero of the expected gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, paths, solvers
from tests.support import guided_normal as normal
from tests.support.linear_flow_map import model, solved

pytestmark = pytest.mark.usefixtures("x64")

LINEAR, COSINE = paths.linear(), paths.cosine()
OF_STEPS = [(COSINE, 2.0), *(pytest.param(LINEAR, w, marks=pytest.mark.slow) for w in (1.0, 3.0))]
AT_EVERY_SCALE = [(LINEAR, 1.0), (COSINE, 2.0), (LINEAR, 3.0)]
FROM_DATA = {
    "mean_flow": flow_maps.mean_flow,
    "improved_mean_flow": flow_maps.improved_mean_flow,
    "shortcut": flow_maps.shortcut,
}
"""Losses with guidance inside the velocity; they see t < r and t = r."""


def _consistency(path, flow_map, field, key, z, **options):
    velocity = flow_maps.teacher_velocity(field)
    return flow_maps.continuous_consistency(path, flow_map, key, z, velocity=velocity, **options)


FROM_FIELD = {
    "lagrangian": flow_maps.lagrangian,
    "lagrangian through the teacher": partial(flow_maps.lagrangian, stop=flow_maps.pass_gradient),
    "eulerian": flow_maps.eulerian,
    "eulerian through the target": partial(flow_maps.eulerian, stop=flow_maps.pass_gradient),
    "continuous_consistency": _consistency,
}


def _largest_error(path, flow_map, w, ends):
    """Of U at states within 2 of 0 and times from 0 to 1, r among ``ends``."""
    x, grid = jnp.array([-2.0, 0.0, 2.0]), np.linspace(0, 1, 6)
    points = np.array([(t, r) for t in grid for r in ends if t <= r])
    both = jax.vmap(lambda t, r: flow_map(x, t, r) - normal.exact(path, x, t, r, w))
    return float(jnp.max(jnp.abs(jax.jit(both)(*points.T))))


def _resting(loss_of, law, degree, times, of_both_times=True):
    """The flow map that ``loss_of(flow map)(z, times density)`` leaves at rest on one law."""
    shape, of_params = model(degree, of_both_times)

    def gradient(params):
        def of_draw(z, density):
            return jax.grad(lambda each: loss_of(partial(of_params, each))(z, density))(params)

        return normal.expectation(of_draw, normal.draws(law, 2), times)

    return partial(of_params, solved(gradient, shape))


def _on_both(degree):
    return normal.mixed(normal.spans(degree + 2), normal.instants(degree + 2))


def _guided_by_itself(loss, path, degree, w, kappa):
    """What a loss leaves at rest that knows no teacher: first at the null, then at the label beside it."""
    on_null = lambda flow_map: lambda z, times: loss(path, flow_map, normal.KEY, z, times=times)  # noqa: E731
    null_map = _resting(on_null, normal.NULL, degree, _on_both(degree))

    def on_label(flow_map):
        def both(x, t, r, y, w):
            return jnp.where(y == normal.NULL, null_map(x, t, r), flow_map(x, t, r))

        velocity = flow_maps.guided_velocity(both, normal.LABEL, w, normal.NULL, kappa)
        return lambda z, times: loss(path, flow_map, normal.KEY, z, times=times, velocity=velocity)

    return null_map, _resting(on_label, normal.LABEL, degree, _on_both(degree))


def _check_guided_by_itself(name, path, degree, w, kappa):
    null_map, flow_map = _guided_by_itself(FROM_DATA[name], path, degree, w, kappa)
    grid = np.linspace(0, 1, 6)
    assert _largest_error(path, null_map, 0.0, grid) < 1e-3
    assert _largest_error(path, flow_map, w, grid) < 1e-3


def _check_of_field(name, path, degree, w):
    field, is_of_end = partial(normal.field, path, w=w), name == "continuous_consistency"
    loss_of = lambda flow_map: (  # noqa: E731
        lambda z, times: FROM_FIELD[name](path, flow_map, field, normal.KEY, z, times=times)
    )
    times = normal.until_data(degree + 4) if is_of_end else _on_both(degree)
    flow_map = _resting(loss_of, normal.LABEL, degree, times, of_both_times=not is_of_end)
    assert _largest_error(path, flow_map, w, [1.0] if is_of_end else np.linspace(0, 1, 6)) < 1e-3


def test_a_loss_from_data_rests_at_the_exact_map():
    """With guidance inside, w = 2, and the null side learned by the same loss."""
    _check_guided_by_itself("mean_flow", COSINE, 8, 2.0, 0.4)


@pytest.mark.parametrize("name", ["lagrangian", "continuous_consistency"])
def test_a_loss_of_a_field_rests_at_the_exact_map(name):
    _check_of_field(name, COSINE, 8, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "w"), AT_EVERY_SCALE)
@pytest.mark.parametrize("name", FROM_DATA)
def test_losses_from_data_rest_at_the_exact_map_at_every_scale(name, path, w):
    _check_guided_by_itself(name, path, 13 if path is LINEAR else 10, w, flow_maps.model_guidance_kappa)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "w"), AT_EVERY_SCALE)
@pytest.mark.parametrize("name", FROM_FIELD)
def test_losses_of_a_field_rest_at_the_exact_map_at_every_scale(name, path, w):
    _check_of_field(name, path, 14 if path is LINEAR else 10, w)


@pytest.mark.parametrize("w", [3.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_progressive_distillation_rests_at_the_teachers_map(w):
    teacher = lambda x, t, r: normal.exact(COSINE, x, t, r, w)  # noqa: E731
    loss_of = lambda flow_map: (  # noqa: E731
        lambda z, times: flow_maps.progressive(COSINE, flow_map, teacher, normal.KEY, z, times=times)
    )
    flow_map = _resting(loss_of, normal.LABEL, 10, _on_both(10))
    assert _largest_error(COSINE, flow_map, w, np.linspace(0, 1, 6)) < 1e-3


def _discrete(loss, path, w, step):
    """The errors at r = 1 of what a loss in steps leaves at rest, at five states and t = 0."""
    loss_of = lambda flow_map: lambda z, times: loss(flow_map, z, times=times, step=step)  # noqa: E731
    flow_map = _resting(loss_of, normal.LABEL, 20, normal.until_data(80), of_both_times=False)
    x, zero, one = jnp.linspace(-2, 2, 5), jnp.zeros(()), jnp.ones(())
    difference = jax.jit(lambda x: flow_map(x, zero, one) - normal.exact(path, x, zero, one, w))
    return np.asarray(difference(x))


def _derived_bias(path, w):
    """The error over the step that the head of ``consistency_models`` derives, at the same places; U is affine in x."""

    def integrand(x, t):
        def along(time):
            return normal.field(path, normal.flow(path, x, jnp.zeros(()), time, w), time, w)

        turned = jax.jvp(along, (t,), (jnp.ones_like(t),))[1]
        state, slope = normal.flow(path, x, jnp.zeros(()), t, w), jax.jacfwd(lambda x: normal.flow(path, x, t, 1.0, w))
        return slope(state) * (_curvature(path, state, t) - turned)

    nodes = normal.until_data(40)
    of_state = jax.vmap(lambda x: jax.vmap(lambda t: integrand(x, t))(nodes.points[0]))
    values = jax.jit(of_state)(jnp.linspace(-2, 2, 5))
    return 0.5 * np.asarray(values) @ nodes.weights


def _curvature(path, x, t):
    """E[alpha'' z + beta'' noise | x] of the labelled law N(1, 1)."""
    alpha, beta = path.alpha(t), path.beta(t)
    bends = (jax.grad(jax.grad(each))(t) for each in path)
    innovation = (x - alpha) / (alpha**2 + beta**2)
    return sum(bend * mean for bend, mean in zip(bends, (1 + alpha * innovation, beta * innovation), strict=True))


@pytest.mark.parametrize(
    ("path", "w"), [(COSINE, 2.0), (LINEAR, 3.0), pytest.param(LINEAR, 1.0, marks=pytest.mark.slow)]
)
def test_consistency_training_rests_at_its_derived_bias(path, w):
    """At t = 0 step / 2 times an integral over the trajectory, which halves with the step."""
    velocity = flow_maps.teacher_velocity(partial(normal.field, path, w=w))
    loss = lambda flow_map, z, **options: (  # noqa: E731
        flow_maps.consistency(path, flow_map, normal.KEY, z, velocity=velocity, **options)
    )
    coarse, fine = (_discrete(loss, path, w, step) / step for step in (1 / 64, 1 / 128))
    expected = _derived_bias(path, w)
    assert np.max(np.abs(expected)) > 0.1
    np.testing.assert_allclose(2 * fine - coarse, expected, atol=0.02 * np.max(np.abs(expected)))


@pytest.mark.parametrize("w", [2.0, *(pytest.param(w, marks=pytest.mark.slow) for w in (1.0, 3.0))])
def test_consistency_distillation_has_the_order_of_its_solver(w):
    solver = solvers.heun(partial(normal.field, COSINE, w=w))
    loss = lambda flow_map, z, **options: (  # noqa: E731
        flow_maps.consistency_distillation(COSINE, flow_map, solver, normal.KEY, z, **options)
    )
    coarse, fine = (np.max(np.abs(_discrete(loss, COSINE, w, step))) for step in (1 / 16, 1 / 32))
    assert fine < 2e-3
    assert 1.8 < np.log2(coarse / fine) < 2.3

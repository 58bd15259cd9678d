"""Guidance inside the target: its fixed point is classifier-free guidance exactly, and what the network is asked."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, guidance, paths
from cfgjax.types import Interval

NULL, LABEL = 3, 1
X, T = np.array([0.4, -1.0]), 0.5
UNGUIDED, LABELLED = np.array([0.7, -2.0]), np.array([-1.1, 0.9])
KAPPAS = [0.0, 0.3, 0.95, flow_maps.model_guidance_kappa]
SCALES = [0.25, 1.0, 1.5, 2.0, 5.0]


def _network(own):
    """A network that has learned the null side, and gives ``own`` at the label."""
    return lambda x, t, r, y, w: jnp.where(y == NULL, UNGUIDED, own)


def _share(kappa, w):
    return float(kappa(w)) if callable(kappa) else kappa


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("w", SCALES)
def test_the_fixed_point_is_classifier_free_guidance(w, kappa):
    """w = omega / (1 - kappa): in the mean over v it stays, and an error shrinks to kappa of it."""
    guided = guidance.interpolate(UNGUIDED, LABELLED, w)

    def mean_target(own):
        return flow_maps.guided_velocity(_network(own), LABEL, w, NULL, kappa)(X, T, LABELLED)

    np.testing.assert_allclose(mean_target(guided), guided, rtol=1e-14, atol=1e-14)
    left = 0.0 if w == 1 else _share(kappa, w)
    np.testing.assert_allclose(mean_target(guided + 1) - guided, jnp.full(2, left), rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("w", SCALES)
def test_model_guidance_is_one_kappa(w):
    """v + (1 - 1/w) (U(y) - U(null)), for any v and any network: omega is 1."""
    own, v = np.array([3.0, 0.1]), np.array([-0.6, 4.0])
    found = flow_maps.guided_velocity(_network(own), LABEL, w, NULL, flow_maps.model_guidance_kappa)(X, T, v)
    np.testing.assert_allclose(found, v + (1 - 1 / w) * (own - UNGUIDED), rtol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("omega", "kappa"), [(2.0, 0.0), (1.0, 0.5), (0.2, 0.92)])
def test_mean_flows_own_numbers(omega, kappa):
    """Their omega and kappa give w = omega / (1 - kappa), and the target that their program computes."""
    own, v = np.array([3.0, 0.1]), np.array([-0.6, 4.0])
    found = flow_maps.guided_velocity(_network(own), LABEL, omega / (1 - kappa), NULL, kappa)(X, T, v)
    np.testing.assert_allclose(found, omega * v + kappa * own + (1 - omega - kappa) * UNGUIDED, rtol=1e-12)


@pytest.mark.parametrize("kappa", KAPPAS)
def test_outside_the_interval_the_velocity_is_the_conditional_one_bitwise(kappa):
    velocity = flow_maps.guided_velocity(_network(UNGUIDED * 7), LABEL, guidance.interval(4.0, 0.2, 0.6), NULL, kappa)
    v = jnp.array([0.1, 1e-9])
    for t, is_outside in ((0.1, True), (0.2, False), (0.5, False), (0.6, True), (0.9, True)):
        assert np.array_equal(velocity(X, t, v), v) == is_outside


@pytest.mark.parametrize("w", [2.0, guidance.interval(2.0, 0.1, 0.9)])
def test_what_the_network_is_asked(w):
    """At r = t: at the label with the whole w, at the null with w = 1 and no interval; both in one call."""
    calls = []

    def network(x, t, r, y, w):
        jax.debug.callback(
            lambda *each: calls.append(tuple(float(number) for number in each)), t, r, y, *jax.tree.leaves(w)
        )
        return x

    flow_maps.guided_velocity(network, LABEL, w, NULL, 0.5)(X, T, LABELLED)
    jax.effects_barrier()
    at_null, at_label = ((1.0, 0.0, 1.0), (2.0, 0.1, 0.9)) if isinstance(w, Interval) else ((1.0,), (2.0,))
    expected = [(0.5, 0.5, NULL, *at_null), (0.5, 0.5, LABEL, *at_label)]
    np.testing.assert_allclose(sorted(calls), sorted(expected), rtol=1e-6)


def test_without_kappa_the_label_costs_no_evaluation():
    seen = []
    network = lambda x, t, r, y, w: seen.append(int(y)) or x  # noqa: E731
    flow_maps.guided_velocity(network, LABEL, 2.0, NULL)(X, T, LABELLED)
    assert seen == [NULL]


@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_no_gradient_passes_a_velocity(kappa):
    def total(scale):
        network = lambda x, t, r, y, w: scale * x + y  # noqa: E731
        guided = flow_maps.guided_velocity(network, LABEL, 2.0, NULL, kappa)(X, T, LABELLED)
        return jnp.sum(guided + flow_maps.teacher_velocity(lambda x, t: scale * x)(X, T, LABELLED))

    assert float(jax.grad(total)(1.5)) == 0.0


def test_a_teachers_velocity_is_its_field():
    velocity = flow_maps.teacher_velocity(lambda x, t: x * t)
    np.testing.assert_allclose(velocity(X, T, LABELLED), 0.5 * X, rtol=1e-6)
    np.testing.assert_allclose(flow_maps.conditional_velocity(X, T, LABELLED), LABELLED, rtol=1e-6)


@pytest.mark.parametrize("kappa", [1.0, -0.1, float("nan"), "half"])
def test_a_kappa_that_is_no_share_is_refused(kappa):
    with pytest.raises((ValueError, TypeError), match="kappa must be"):
        flow_maps.guided_velocity(_network(X), LABEL, 2.0, NULL, kappa)


@pytest.mark.parametrize(
    "loss",
    [
        flow_maps.mean_flow,
        flow_maps.improved_mean_flow,
        flow_maps.shortcut,
        flow_maps.continuous_consistency,
        partial(flow_maps.consistency, step=0.1),
    ],
)
def test_a_velocity_that_is_not_like_the_state_is_named(loss):
    with pytest.raises(ValueError, match=r"^velocity must give the shape \(2,\), got \(\)"):
        loss(paths.linear(), lambda x, t, r: x, jax.random.key(0), jnp.ones(2), velocity=lambda x, t, conditional: t)

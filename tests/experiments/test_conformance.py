"""The bridges to other libraries' calls, on calls of our own: right ones pass as directly, wrong ones are named."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import paths, solvers, verify
from cfgjax.paths import coefficients
from cfgjax.verify.reference import skewed_mixture
from experiments.conformance import bridge, figures, identities, jax_bridge, names
from experiments.conformance.records import findings_of
from experiments.conformance.spaces import SPACES, STRAIGHT

MIXTURE = skewed_mixture()
FIELD = MIXTURE.vector_field(STRAIGHT)
X = np.array([[0.3, -0.8], [1.4, 0.2]], np.float32)
Y = jnp.array([0, 2])


def _views(view, t, y):
    return np.asarray(jax.vmap(getattr(MIXTURE, view)(STRAIGHT), (0, None, 0))(jnp.asarray(X), t, y))


@pytest.mark.parametrize(("space", "view"), [("denoised", "denoiser"), ("noise", "noise"), ("score", "score")])
def test_spaces_are_the_oracles_views(space, view):
    u, value = _views("vector_field", 0.4, Y), _views(view, 0.4, Y)
    np.testing.assert_allclose(SPACES[space].view(u, X, 0.4), value, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(SPACES[space].back(value, X, 0.4), u, rtol=1e-4, atol=1e-5)


def test_the_field_of_a_prediction_at_the_start_is_finite():
    """There a noise prediction is the state itself, and tells nothing of the data."""
    for space in SPACES.values():
        assert np.isfinite(space.back(space.view(X, X, 0.0), X, 0.0)).all()


def _plain(sides, w, x, t):
    labelled, null = sides
    return null + w * (labelled - null)


def _zero_based(sides, w, x, t):
    return _plain(sides, 1 + w, x, t)


def _direct(field, scale, null):
    return lambda x, t, y: field(x, t, y) + scale * (field(x, t, y) - field(x, t, null))


@pytest.mark.parametrize("space", SPACES)
def test_plain_guidance_passes_in_every_space(space):
    found = findings_of(bridge.guider("plain", _plain, space))
    assert [finding.name for finding in found if not finding.is_passed] == []
    assert len(found) == 9


def test_a_convention_measures_as_it_does_directly():
    found = {finding.name: finding for finding in findings_of(bridge.guider("1 + w", _zero_based))}
    for check in verify.guidance(_direct).checks:
        assert found[check.name].measured == pytest.approx(check.measured, rel=1e-5)
        assert found[check.name].cause == check.cause
    assert all(found[name].is_passed for name in (identities.CONTINUOUS_AT_ONE, identities.ALONE, identities.ANY_SPACE))


def _jump_at(scale):
    def guide(sides, w, x, t):
        return sides[0] + (w - 1) * (w != scale) * np.tanh(sides[0] - sides[1]) + (w != scale)

    return guide


def _whole_batch(sides, w, x, t):
    labelled, null = sides
    return null + w * (labelled - null) / max(1.0, np.linalg.norm(labelled - null))


def _in_place(sides, w, x, t):
    out = _plain(sides, w, x, t)
    sides[1][:] = 0
    return out


def _one_space(sides, w, x, t):
    return sides[0] + (w - 1) * np.clip(sides[0] - sides[1], -0.1, 0.1)


def _with_memory():
    calls = []

    def guide(sides, w, x, t):
        calls.append(w)
        return _plain(sides, w, x, t) * (1 + 1e-4 * len(calls))

    return guide


WRONG = {
    "a jump at 1": (_jump_at(1.0), {identities.CONTINUOUS_AT_ONE, identities.ANY_SPACE}),
    "a jump at 0": (_jump_at(0.0), {identities.CONTINUOUS_AT_ZERO, identities.ANY_SPACE}),
    "the norm of the batch": (_whole_batch, {identities.ALONE, identities.ANY_SPACE}),
    "in place": (_in_place, {identities.IN_PLACE}),
    "one space": (_one_space, {identities.ANY_SPACE}),
    "memory": (_with_memory(), {identities.AGAIN, identities.ALONE, identities.ANY_SPACE}),
}


@pytest.mark.parametrize(("guide", "named"), WRONG.values(), ids=list(WRONG))
def test_each_identity_names_the_guider_that_breaks_it(guide, named):
    failed = {check.name for check in identities.checks(guide, "velocity") if not check.is_passed}
    assert failed == named


def test_nan_fails_every_identity_of_values():
    found = list(identities.checks(lambda sides, w, x, t: np.full_like(x, np.nan), "velocity"))
    assert [check.name for check in found if check.is_passed] == [identities.IN_PLACE]


def test_a_guider_that_raises_is_one_row():
    def guide(sides, w, x, t):
        raise RuntimeError("no such axis")

    (finding,) = findings_of(bridge.guider("raises", guide))
    assert (finding.name, finding.measured) == (names.CALL, None)
    assert "RuntimeError: no such axis" in finding.cause


def _euler(velocity, x, n_steps, seed):
    times = np.linspace(0, 1, n_steps + 1, dtype=np.float32)
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * velocity(x, float(t))
    return x


def _traced_euler(field, key, x, n_steps):
    return solvers.integrate(solvers.euler(field), key, x, jnp.linspace(0, 1, n_steps + 1))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "draw"), [(bridge, _euler), (jax_bridge, _traced_euler)], ids=["numpy", "traced"])
def test_a_solver_measures_as_it_does_directly(kind, draw):
    """Up to the states: what cannot be traced is called for fewer of them."""
    direct = {check.name: check.measured for check in verify.solver(solvers.euler, 1).checks}
    found = findings_of(kind.solver("Euler", draw, 1))
    assert {finding.name for finding in found} == direct.keys()
    assert all(finding.is_passed for finding in found)
    for finding in found:
        exact = 1e-6 if kind is jax_bridge else 0.6
        assert finding.measured == pytest.approx(direct[finding.name], rel=exact, abs=2e-4)


def test_samples_have_the_labels_law_and_a_start_that_is_too_wide_has_not():
    def wide(velocity, x, n_steps, seed):
        return _euler(velocity, 1.3 * x, n_steps, seed)

    for draw, is_right in ((_euler, True), (wide, False)):
        report = verify.samples(bridge.sampler_of(draw, MIXTURE, 32), MIXTURE, 0.1, 192)
        assert report.passed is is_right
    traced = jax_bridge.sampler_of(_traced_euler, MIXTURE, 32)
    verify.samples(traced, MIXTURE, 0.1, 192).require()


def test_a_state_of_another_path_is_brought_to_the_straight_one():
    path, t = paths.cosine(), jnp.float32(0.3)
    exact = jax.vmap(MIXTURE.denoiser(path), (0, None, 0))(jnp.asarray(X), t, Y)
    c = coefficients(path, t)
    for row, y, value in zip(X, Y, exact, strict=True):
        found = jax_bridge.denoiser_of(lambda x, t, y=y: FIELD(x, t, y))(jnp.asarray(row), c.alpha, c.beta)
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def _on_the_flow(t):
    """The flow of N(1, 0.3^2) from the starts."""
    return t * figures.MEAN + np.sqrt(t**2 * figures.STD**2 + (1 - t) ** 2) * figures.STARTS


@pytest.mark.parametrize(("t", "t_next"), [(0.0, 0.02), (0.3, 0.7), (0.999, 1.0)])
def test_a_state_is_moved_along_the_flow(t, t_next):
    found = bridge.moved(figures.velocity, _on_the_flow(t), t, t_next)
    np.testing.assert_allclose(found, _on_the_flow(t_next), atol=2e-6)

    def field(x, t):
        return figures.MEAN + (t * 0.09 - (1 - t)) / (t**2 * 0.09 + (1 - t) ** 2) * (x - t * figures.MEAN)

    traced = jax_bridge.moved(field, jnp.asarray(_on_the_flow(t), jnp.float32), t, t_next)
    np.testing.assert_allclose(traced, _on_the_flow(t_next), atol=2e-6)


def test_figures_of_an_exact_draw_are_exact_and_a_changed_one_differs():
    def exact(velocity, x, n_steps, seed):
        return (figures.MEAN + figures.STD * x).astype(x.dtype)

    assert figures.error(exact, 4) == 0
    mean, std = figures.law(exact, 4)
    assert (mean, std) == (pytest.approx(1.0, abs=0.01), pytest.approx(0.3, abs=0.005))
    record = figures.figures("exact", figures.laws(exact, {4: (mean, std)}) | figures.errors(exact, {4: 0.0}))
    assert all(finding.is_passed for finding in findings_of(record))
    changed = figures.figures("changed", figures.laws(exact, {4: (mean, 1.1 * std)}))
    assert [finding.is_passed for finding in findings_of(changed)] == [True, False]

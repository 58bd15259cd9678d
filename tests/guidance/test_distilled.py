"""Fields that were trained with guidance inside: fixed scales of every kind, and the trained range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.piecewise import Piecewise
from cfgjax.types import Interval

RING = mixtures.ring(3)
EXACT = RING.vector_field(paths.linear())
X, TIME = jnp.array([0.4, -1.1]), jnp.float32(0.3)
SCALES = {
    "number": 2.5,
    "zero": 0.0,
    "one": 1,
    "of t": lambda t: 1 + 2 * t,
    "of t and y": lambda t, y: y + t,
    "interval": guidance.interval(3.0, 0.25, 0.75),
    "interval of t": guidance.interval(lambda t: 4 * t, 0.3, 1.0),
}


def _guided(x, t, y, w):
    """The exact student: what a distilled one should be."""
    return guidance.classifier_free(EXACT, jnp.asarray(w, jnp.float32), 3)(x, t, y)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_a_student_at_a_scale_is_guidance_by_it(scale):
    """Of a number, a schedule or an interval, at times before, in and after it; at an edge the later piece."""
    found, expected = guidance.at_scale(_guided, scale), guidance.classifier_free(EXACT, scale, 3)
    for t in (0.0, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0):
        values = (jax.jit(each)(X, jnp.float32(t), 1) for each in (found, expected))
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)


def test_an_interval_between_numbers_is_split_at_its_edges():
    """As of ``extrapolate``: each step is inside or outside as a whole. The field is told numbers alone."""
    told = []

    def student(x, t, y, w):
        told.append(float(w))
        return _guided(x, t, y, w)

    field = guidance.at_scale(student, guidance.interval(3.0, 0.25, 0.75))
    assert isinstance(field, Piecewise) and field.edges == (0.25, 0.75)
    ts = np.linspace(0, 1, 9, dtype=np.float32)
    found, expected = (
        solvers.integrate(solvers.heun(guidance.given(each, 1)), jax.random.key(0), X, ts)
        for each in (field, guidance.classifier_free(EXACT, guidance.interval(3.0, 0.25, 0.75), 3))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert set(told) == {1.0, 3.0}


def test_a_traced_interval_is_told_as_the_number_of_its_time():
    @jax.jit
    def at(t, start):
        return guidance.at_scale(_guided, Interval(3.0, start, 0.75))(X, t, 1)

    for t, scale in ((0.2, 1.0), (0.5, 3.0), (0.8, 1.0)):
        np.testing.assert_allclose(at(t, 0.25), _guided(X, jnp.float32(t), 1, scale), rtol=1e-5)


def test_a_policy_asks_for_both_sides():
    scale = guidance.policy(lambda x, t, y, null, labelled: 2.0)
    with pytest.raises(ValueError, match=r"scale must be a number or a function of t or .* got a policy"):
        guidance.at_scale(_guided, scale)(X, TIME, 1)


def test_a_field_without_a_scale_is_refused():
    with pytest.raises(TypeError, match=r"guided_field must be a function of \(x, t, y, w\), got one of \(x, t, y\)"):
        guidance.at_scale(lambda x, t, y: x, 2.0)(X, TIME, 1)


# The trained range

WITHIN = guidance.within(_guided, 0.5, 5)


def _flow_map(x, t, r, y, w):
    return w.scale * x if isinstance(w, Interval) else w * x


@pytest.mark.parametrize("scale", [0.5, 2, jnp.float32(5.0)])
def test_a_scale_of_the_range_changes_nothing(scale):
    """Bitwise, concrete and traced, at both ends."""
    np.testing.assert_array_equal(WITHIN(X, TIME, 1, scale), _guided(X, TIME, 1, scale))
    found, expected = (jax.jit(each)(X, TIME, 1, scale) for each in (WITHIN, _guided))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scale", [0.0, 5.5, -1, jnp.float32(7.5)])
def test_a_scale_outside_is_told_with_the_range(scale):
    """Concrete one error, traced NaN; of a flow map and of an interval, too."""
    message = rf"^scale must be in \[0\.5, 5\], the range that was trained, got {float(scale):g}$"
    flow_map = guidance.within(_flow_map, 0.5, 5)
    for call in (
        lambda w: WITHIN(X, TIME, 1, w),
        lambda w: guidance.at_scale(WITHIN, w)(X, TIME, 1),
        lambda w: flow_map(X, TIME, 1.0, 1, w),
        lambda w: flow_map(X, TIME, 1.0, 1, Interval(w, 0.25, 0.75)),
    ):
        with pytest.raises(ValueError, match=message):
            call(scale)
        assert np.all(np.isnan(jax.jit(call)(scale)))
        assert np.all(np.isfinite(jax.jit(call)(2.0)))


def test_a_concrete_scale_is_told_in_a_trace_too():
    """As sampling does it: the scale is closed over, as a number or as an array."""
    for scale in (7.5, jnp.float32(7.5)):
        field = guidance.at_scale(WITHIN, scale)
        with pytest.raises(ValueError, match=r"scale must be in \[0\.5, 5\], the range that was trained, got 7\.5"):
            jax.jit(field)(X, TIME, 1)


def test_outside_an_interval_the_scale_is_one_and_within_the_range_or_not():
    scale = guidance.interval(3.0, 0.25, 0.75)
    assert np.all(np.isfinite(guidance.at_scale(WITHIN, scale)(X, TIME, 1)))
    with pytest.raises(ValueError, match=r"scale must be in \[2, 5\], the range that was trained, got 1"):
        guidance.at_scale(guidance.within(_guided, 2.0, 5.0), scale)(X, TIME, 1)


def test_a_schedule_that_leaves_the_range_is_nan_where_it_does():
    values = jax.vmap(lambda t: guidance.at_scale(WITHIN, lambda t: 10 * t)(X, t, 1))(jnp.array([0.0, 0.25, 0.5, 0.75]))
    np.testing.assert_array_equal(np.isnan(values).all(axis=1), [True, False, False, True])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: guidance.within(_guided, 3.0, 2.0), ValueError, r"low must be at most high, got 3\.0 and 2\.0"),
        (lambda: guidance.within("student", 1.0, 2.0), TypeError, "guided must be a function"),
        (lambda: WITHIN(X, TIME, 1, jnp.ones(2)), ValueError, "scale must be one number"),
        (lambda: WITHIN(X, TIME, 1, lambda t: t), TypeError, "scale must be one real number"),
    ],
)
def test_mistakes_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()

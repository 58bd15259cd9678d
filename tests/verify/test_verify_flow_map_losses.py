"""Verification of losses of flow maps: the library's own pass, and each planted mistake is named."""

import jax
import jax.numpy as jnp
import pytest

from cfgjax import flow_maps, guidance, verify
from cfgjax.flow_maps import given, guided_velocity

K = 3


def _cases(table, fast):
    """The rows of a table as cases by their names, all but some of them slow."""
    return [
        pytest.param(*values, id=name, marks=[] if name in fast else [pytest.mark.slow])
        for name, values in table.items()
    ]


def _from_data(loss, kappa=0.0, **settings):
    """A loss of the library with guidance inside."""

    def guided(path, flow_map, key, z, y, w):
        velocity = guided_velocity(flow_map, y, w, K, kappa)
        return loss(path, given(flow_map, y, w), key, z, velocity=velocity, **settings)

    return guided


def _from_field(loss, **settings):
    """A loss of the library from a teacher's field."""

    def taught(path, flow_map, teacher, key, z, y, w):
        return loss(path, given(flow_map, y, w), lambda x, t: teacher(x, t, y, w), key, z, **settings)

    return taught


def _progressive(path, flow_map, teacher, key, z, y, w):
    return flow_maps.progressive(path, given(flow_map, y, w), given(teacher, y, w), key, z)


RIGHT = {
    "mean flow": (_from_data(flow_maps.mean_flow, kappa=0.5), None),
    "improved mean flow": (_from_data(flow_maps.improved_mean_flow), None),
    "shortcut": (_from_data(flow_maps.shortcut), None),
    "lagrangian": (_from_field(flow_maps.lagrangian), "field"),
    "eulerian": (_from_field(flow_maps.eulerian, derivative=flow_maps.central_difference(0.01)), "field"),
    "progressive": (_progressive, "flow_map"),
}


@pytest.mark.parametrize(("loss", "teacher"), _cases(RIGHT, {"progressive"}))
def test_the_librarys_losses_pass(loss, teacher):
    verify.flow_map_loss(loss, teacher=teacher).require()


def _same(value):
    return value


def _own(target, stop=jax.lax.stop_gradient, stop_value=_same):
    """MeanFlow on the straight path as users write it, with its parts to be spoiled."""

    def loss(path, flow_map, key, z, y, w):
        time_key, noise_key = jax.random.split(key)
        t, r = flow_maps.ordered_times()(time_key)
        noise = jax.random.normal(noise_key, z.shape)
        x = t * z + (1 - t) * noise
        instant = guided_velocity(flow_map, y, w, K)(x, t, z - noise)
        directions = instant, jnp.ones_like(t), jnp.zeros_like(r)
        value, slope = jax.jvp(given(flow_map, y, w), (x, t, r), directions)
        return jnp.mean((stop_value(value) - stop(target(instant, t, r, slope))) ** 2)

    return loss


def _right(instant, t, r, slope):
    return instant + (r - t) * slope


def _with_omega(path, flow_map, key, z, y, w):
    """MeanFlow's omega is given as w, and kappa is not divided out."""
    kappa = 0.5

    def velocity(x, t, conditional):
        null = flow_map(x, t, t, jnp.asarray(K), 1.0)
        own = flow_map(x, t, t, y, w)
        return jax.lax.stop_gradient(null + kappa * (own - null) + w * (conditional - null))

    return flow_maps.mean_flow(path, given(flow_map, y, w), key, z, velocity=velocity)


def _teacher_guided_twice(path, flow_map, teacher, key, z, y, w):
    again = guidance.classifier_free(lambda x, t, y: teacher(x, t, y, w), w, K)
    return flow_maps.lagrangian(path, given(flow_map, y, w), guidance.given(again, y), key, z)


def _null_is_the_label(path, flow_map, key, z, y, w):
    velocity = guided_velocity(flow_map, y, w, y)
    return flow_maps.mean_flow(path, given(flow_map, y, w), key, z, velocity=velocity)


def _reversed(path, flow_map, key, z, y, w):
    return _from_data(flow_maps.mean_flow)(path, lambda x, t, r, y, w: flow_map(x, 1 - t, 1 - r, y, w), key, z, y, w)


def _of_label(changed):
    def loss(path, flow_map, key, z, y, w):
        return _from_data(flow_maps.mean_flow)(path, flow_map, key, z, changed(y), w)

    return loss


WRONG = {
    "target not stopped": (
        _own(_right, stop=_same),
        None,
        "a stop_gradient is missing: the gradient passes the derivative dU/dt in the target",
    ),
    "prediction stopped": (
        _own(_right, stop=_same, stop_value=jax.lax.stop_gradient),
        None,
        "the prediction is under stop_gradient in the place of the target",
    ),
    "all stopped": (
        lambda *given: jax.lax.stop_gradient(_progressive(*given)),
        "flow_map",
        "the loss has no gradient in the flow map",
    ),
    "no (r - t)": (_own(lambda v, t, r, slope: v + slope), None, "(r - t) is missing before dU/dt"),
    "t - r": (_own(lambda v, t, r, slope: v + (t - r) * slope), None, "the sign of (r - t) dU/dt is wrong"),
    "no dU/dt": (_own(lambda v, t, r, slope: v), None, "(r - t) dU/dt is missing: it is least for the field at t"),
    "omega for kappa": (_with_omega, None, "the map at scale 2 w: w / (1 - kappa) has kappa = 0.5"),
    "guided twice": (_teacher_guided_twice, "field", "the map at w^2: guidance is applied twice"),
    "null is the label": (_null_is_the_label, None, "w is ignored, or the null is fed with the label"),
    "teacher moves": (
        _from_field(flow_maps.lagrangian, stop=flow_maps.pass_gradient),
        "field",
        "the teacher moves: the loss has a gradient in it",
    ),
    "time reversed": (_reversed, None, "the map at 1 - t and 1 - r: time runs backwards"),
    "labels not passed": (_of_label(lambda y: jnp.full_like(y, K)), None, "labels are not passed to the flow map"),
    "no known kind": (
        lambda path, flow_map, teacher, key, z, y, w: _progressive(
            path, flow_map, lambda *given: teacher(*given) + 0.3, key, z, y, w
        ),
        "flow_map",
        "no known cause fits",
    ),
}


@pytest.mark.parametrize(("loss", "teacher", "words"), _cases(WRONG, {"all stopped"}))
def test_mistakes_in_losses_are_named(loss, teacher, words):
    report = verify.flow_map_loss(loss, teacher=teacher)
    assert any(words in cause for cause in report.causes)


BROKEN = {
    "raises": (lambda *given: 1 / 0, "raised ZeroDivisionError: division by zero"),
    "shape": (lambda path, flow_map, key, z, y, w: flow_map(z, 0.5, 0.5, y, w), "not a number"),
    "NaN": (lambda path, flow_map, key, z, y, w: jnp.nan * jnp.sum(z), "NaN or inf"),
    "not traced": (lambda path, flow_map, key, z, y, w: float(flow_map(z, 0.5, 0.5, y, w)[0]), "cannot be traced"),
}


@pytest.mark.parametrize(("loss", "words"), _cases(BROKEN, {"raises", "NaN"}))
def test_a_loss_that_cannot_be_called_gets_one_row(loss, words):
    report = verify.flow_map_loss(loss)
    assert len(report.checks) == 1
    assert words in report.causes[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scales": (3.0, 1.0)}, "scales must be two finite numbers, the lower first"),
        ({"scales": 2.0}, "scales must be two finite numbers"),
        ({"teacher": "network"}, "teacher must be"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises((TypeError, ValueError), match=words):
        verify.flow_map_loss(_progressive, **settings)

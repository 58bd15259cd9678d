"""Verification of flow maps: exact ones pass, and each planted mistake is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, guidance, mixtures, paths, solvers, verify
from cfgjax.types import Interval
from cfgjax.verify.reference import skewed_mixture

PATH, K = paths.cosine(), 3
NULL = jnp.asarray(K)
FIELD = skewed_mixture().vector_field(PATH)
INTERVAL = guidance.interval(2.0, 0.3, 0.6)


def _guided(x, t, y, w, null=K):
    return guidance.classifier_free(FIELD, w, null)(x, t, y)


def _map_of(field):
    return flow_maps.of_field(solvers.rk4, field, 24)


U = _map_of(_guided)
EXACT = flow_maps.exact(PATH, skewed_mixture())


def _causes(flow_map, **settings):
    report = verify.flow_map(flow_map, PATH, **settings)
    assert not report.passed
    return report.causes


def _cases(table, fast):
    """The rows of a table as cases by their names, all but some of them slow."""
    return [
        pytest.param(*values, id=name, marks=[] if name in fast else [pytest.mark.slow])
        for name, values in table.items()
    ]


def test_the_exact_map_passes_with_an_interval():
    """diffrax's adaptive solve against the referee's fixed steps: errors are rounding."""
    report = verify.flow_map(EXACT, PATH, interval=INTERVAL)
    report.require()
    assert max(check.measured for check in report.checks) < 1e-5


@pytest.mark.slow
def test_exact_maps_pass_on_the_steepest_path(plain_or_steep_path):
    verify.flow_map(flow_maps.exact(plain_or_steep_path, skewed_mixture()), plain_or_steep_path, seed=1).require()


@pytest.mark.slow
def test_the_exact_map_passes_in_double_precision():
    with jax.enable_x64(True):
        mixture = skewed_mixture()
        report = verify.flow_map(flow_maps.exact(PATH, mixture), PATH, mixture)
        assert max(check.measured for check in report.checks) < 1e-5


@pytest.mark.slow
def test_a_map_of_another_mixture_that_cannot_be_traced_passes():
    mixture = mixtures.ring(2)
    field = mixture.vector_field(PATH)
    compiled = jax.jit(_map_of(lambda x, t, y, w: guidance.classifier_free(field, w, 2)(x, t, y)))
    own = lambda x, t, r, y, w: np.asarray(compiled(x, t, r, y, w)) + 0 * float(w)  # noqa: E731
    verify.flow_map(own, PATH, mixture, scales=(1.5,)).require()


def _learned(x, t, r, y, w):
    """An error of about 1 %, of no known kind."""
    return U(x, t, r, y, w) * (1 + 0.014 * jnp.sin(3 * x + 5 * t))


def test_a_learned_map_passes_with_its_tolerance():
    assert _causes(_learned) == ("no known cause fits",)
    verify.flow_map(_learned, PATH, tolerance=0.03).require()


@pytest.mark.slow
@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_a_map_that_is_5_percent_off_somewhere_fails(time):
    """In one fifth of t, for one label, in one coordinate."""

    def off(x, t, r, y, w):
        is_there = (jnp.abs(t - time) <= 0.1) & (y == 1)
        return U(x, t, r, y, w) * (1 + 0.05 * is_there * jnp.array([0.0, 1.0]))

    report = verify.flow_map(off, PATH)
    assert report.checks[0].measured > 2 * report.checks[0].allowed


# Planted mistakes


def _of_maps(x, t, r, y, w):
    null = U(x, t, r, NULL, 1.0)
    return null + w * (U(x, t, r, y, 1.0) - null)


def _guided_again(x, t, r, y, w):
    null = U(x, t, r, NULL, 1.0)
    return null + w * (U(x, t, r, y, w) - null)


def _at_scale(used):
    return lambda x, t, r, y, w: U(x, t, r, y, used(w))


def _end(x, t, r, y, w):
    return x + (r - t) * U(x, t, r, y, w)


def _one_step(x, t, r, y, w):
    """A step of Heun's rule, which is no mistake that is known."""
    first = _guided(x, t, y, w)
    return (first + _guided(x + (r - t) * first, r, y, w)) / 2


def _with_null(label):
    return _map_of(lambda x, t, y, w: _guided(x, t, y, w, label))


def _scaled_null_row(x, t, r, y, w):
    return jnp.where(y == K, 0 * x, U(x, t, r, y, w))


WRONG = {
    "guided twice": (_at_scale(lambda w: w**2), "guidance is applied twice: w^2 is used for w"),
    "guided map guided again": (_guided_again, "guidance applied twice: a guided map is guided again, U_null + w (U_w"),
    "maps extrapolated": (_of_maps, "maps are extrapolated, not fields: U_null + w (U_y - U_null)"),
    "1 + w": (_at_scale(lambda w: 1 + w), "looks like 1 + w"),
    "omega for w": (_at_scale(lambda w: 0.7 * w), "looks like scale 0.7 w: omega = w (1 - kappa) has kappa = 0.3"),
    "kappa not divided out": (_at_scale(lambda w: w / 0.6), "scale 1.67 w: w / (1 - kappa) has kappa = 0.4"),
    "another scale": (_at_scale(lambda w: w**1.5), "another scale acts: "),
    "w ignored": (_at_scale(lambda w: 1.0), "w is ignored: it is the labelled field"),
    "displacement": (lambda x, t, r, y, w: (r - t) * U(x, t, r, y, w), "looks like (r - t) U: the displacement"),
    "end": (_end, "looks like the end x_r, not the average velocity"),
    "field at t": (lambda x, t, r, y, w: _guided(x, t, y, w), "looks like the field at t: no map at all"),
    "field at r": (lambda x, t, r, y, w: _guided(x, r, y, w), "looks like the field at r: u(x, r)"),
    "field at the end": (
        lambda x, t, r, y, w: _guided(_end(x, t, r, y, w), r, y, w),
        "looks like the field at r: u(x_r, r)",
    ),
    "exchanged": (lambda x, t, r, y, w: U(x, r, t, y, w), "r and t are exchanged: it is U(x, r, t)"),
    "time reversed": (lambda x, t, r, y, w: U(x, 1 - t, 1 - r, y, w), "time runs backwards: it is U(x, 1 - t, 1 - r)"),
    "papers' time": (lambda x, t, r, y, w: -U(x, 1 - t, 1 - r, y, w), "in the sign, too: it is -U(x, 1 - t, 1 - r)"),
    "papers' order": (lambda x, t, r, y, w: -U(x, 1 - r, 1 - t, y, w), "in the sign, too: it is -U(x, 1 - r, 1 - t)"),
    "sign": (lambda x, t, r, y, w: -U(x, t, r, y, w), "the sign is wrong: it is -U"),
    "null is K - 1": (_with_null(K - 1), "the null label's row is that of label 2, not of 3"),
    "null is 0": (_with_null(0), "the null label's row is that of label 0, not of 3"),
    "null is zero": (_map_of(lambda x, t, y, w: w * FIELD(x, t, y)), "the null side of guidance is zero"),
    "null label gives zero": (_scaled_null_row, "it is zero"),
    "labels shifted": (
        lambda x, t, r, y, w: U(x, t, r, jnp.where(y == K, y, (y + 1) % K), w),
        "labels are shifted by one: y + 1 for y",
    ),
    "labels ignored": (lambda x, t, r, y, w: U(x, t, r, NULL, w), "labels are ignored: it is the null label's map"),
    "a factor": (lambda x, t, r, y, w: 0.8 * U(x, t, r, y, w), "a factor 0.8 too many"),
    "no known kind": (_one_step, "no known cause fits"),
    "0/0": (lambda x, t, r, y, w: (_end(x, t, r, y, w) - x) / (r - t), "divided by r - t, 0 there"),
}
FAST = {"maps extrapolated", "omega for w", "null is K - 1"}


@pytest.mark.parametrize(("flow_map", "words"), _cases(WRONG, FAST))
def test_mistakes_in_flow_maps_are_named(flow_map, words):
    assert any(words in cause for cause in _causes(flow_map))


def test_maps_and_fields_agree_but_on_the_way():
    """Extrapolated maps are right at r = t, at w = 0 and at w = 1: the other rows alone fail."""
    report = verify.flow_map(_of_maps, PATH)
    names = [check.name for check in report.checks if not check.is_passed]
    assert names == ["average velocity, w = 0.6, 1.7, 3", "semigroup: by way of a third time"]


def _of_interval(changed):
    """The exact map, but for an interval's scale."""
    return lambda x, t, r, y, w: EXACT(x, t, r, y, changed(w, t) if isinstance(w, Interval) else w)


WRONG_INTERVALS = {
    "ignored": (_of_interval(lambda w, t: w.scale), "the interval of guidance is ignored"),
    "at t alone": (_of_interval(guidance.scale_at), "the interval of guidance is asked at t alone"),
    "backwards": (_of_interval(lambda w, t: Interval(w.scale, 1 - w.stop, 1 - w.start)), "runs backwards in time"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("flow_map", "words"), WRONG_INTERVALS.values(), ids=list(WRONG_INTERVALS))
def test_mistakes_with_intervals_are_named(flow_map, words):
    assert any(words in cause for cause in _causes(flow_map, interval=INTERVAL))


BROKEN = {
    "raises": (lambda x, t, r, y, w: 1 / 0, "raised ZeroDivisionError: division by zero"),
    "shape": (lambda x, t, r, y, w: jnp.append(x, t), "gives the shape (3,) for ONE example of shape (2,)"),
    "NaN": (lambda x, t, r, y, w: jnp.where(r > 0.9, jnp.nan, x), "gives NaN or inf for"),
}


@pytest.mark.parametrize(("flow_map", "words"), BROKEN.values(), ids=list(BROKEN))
def test_a_map_that_cannot_be_called_gets_one_row(flow_map, words):
    report = verify.flow_map(flow_map, PATH)
    assert len(report.checks) == 1
    assert words in report.causes[0]


def test_no_map_is_asked_to_go_backwards():
    """A map that is NaN for r < t has no row of it."""
    report = verify.flow_map(lambda x, t, r, y, w: jnp.where(r < t, jnp.nan, 0 * x), PATH)
    assert report.causes == ("it is zero",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scales": ()}, "scales must be a tuple of finite numbers"),
        ({"scales": (np.nan,)}, "scales must be a tuple of finite numbers"),
        ({"scales": "many"}, "scales must be a tuple of numbers"),
        ({"interval": 2.0}, "interval must be an Interval"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises((TypeError, ValueError), match=words):
        verify.flow_map(U, PATH, **settings)

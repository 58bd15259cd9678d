"""Calls of paths, conversions, change of path and mixtures: the right answer or one clear error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conditions, conversions, mixtures, paths
from cfgjax.conversions import change_path
from tests.support.calls import (
    ANY_STATE,
    FIELD,
    INF,
    INNER,
    KEYS,
    LIKE,
    MIXTURE,
    NAN,
    NULL_OR_LABEL,
    PATH,
    PATHS,
    POSITIVE,
    STATE,
    TIME,
    Case,
    Choices,
    fuzz,
    numbers,
    plain,
)


def _coefficients(path, t):
    return jax.tree.map(float, paths.coefficients(path, float(t)))


def _from_field(path, value, x, t):
    """(C2) of ``conversions`` in double precision."""
    c, x = paths.coefficients(path, float(t)), plain(x)
    alpha, beta, alpha_dot, beta_dot = map(plain, c)
    value, wronskian = plain(value(x)), alpha_dot * beta - alpha * beta_dot
    noise = (alpha_dot * x - alpha * value) / wronskian
    return value, -noise / beta, noise, (beta * value - beta_dot * x) / wronskian


CONVERSION = {"path": PATHS, "value": LIKE, "x": ANY_STATE, "t": INNER.but(allowed=(0, 1))}
CYCLES = {
    "score": (conversions.from_score, lambda found: found.score),
    "noise": (conversions.from_noise, lambda found: found.noise),
    "denoiser": (conversions.from_denoiser, lambda found: found.denoiser),
}


def _there_and_back(name):
    """The field of a view of a field, which is the field."""
    of, back = getattr(conversions, f"{name}_of"), getattr(conversions, f"field_of_{name}")
    return lambda path, field, x, t: back(path, of(path, field))(x, t)


def _value(path, field, x, t):
    return field(plain(x).astype(np.float32), t)


def _sampled(path, key, z, t):
    drawn = paths.sample(path, key, z, t)
    c = paths.coefficients(path, t)
    noise = plain(drawn.noise)
    x, target = (plain(a) * plain(z) + plain(b) * noise for a, b in ((c.alpha, c.beta), (c.alpha_dot, c.beta_dot)))
    return x, noise, target


def _state_at(maker):
    return lambda path, x, t, y: getattr(MIXTURE, maker)(path)(x, t, y)


def _by_identity(path, x, t, y):
    """x = alpha D + beta E of (C1), from the denoiser and the noise prediction."""
    c = paths.coefficients(path, t)
    return c.alpha * MIXTURE.denoiser(path)(x, t, y) + c.beta * MIXTURE.noise(path)(x, t, y)


MIXED = {"path": PATHS, "x": STATE, "t": TIME, "y": NULL_OR_LABEL}
POWER = numbers(2.0, 1, 3, refused=(0.5, 0, -1, INF), low=1, high=4)
RATE = numbers(1.0, 0.5, 3.0, refused=(-1.0, INF), low=0.0625, high=8)
CASES = [
    Case("paths.coefficients", lambda path, t: paths.coefficients(path, t), {"path": PATHS, "t": TIME}, _coefficients),
    Case("paths.before_end", paths.before_end, {"t": TIME}, lambda t: min(float(t), 1 - 2**-24)),
    Case(
        "paths.polynomial",
        lambda power, t: paths.polynomial(power).alpha(jnp.float32(t)),
        {"power": POWER, "t": INNER._replace(refused=())},
        lambda power, t: float(t) ** float(power),
    ),
    Case(
        "paths.variance_preserving",
        lambda rate_min, rate_max: paths.variance_preserving(rate_min, rate_max).alpha(jnp.ones(())),
        {"rate_min": RATE.but(allowed=(0,)), "rate_max": RATE.but(refused=(0,))},
        lambda rate_min, rate_max: 1.0,
    ),
    Case("paths.as_float", paths.as_float, {"value": ANY_STATE.but(allowed=(0.5, 3))}, plain),
    Case("paths.as_state", paths.as_state, {"x": ANY_STATE}, lambda x: plain(x)),
    Case(
        "paths.noise_like",
        lambda key, x: (paths.noise_like(key, x) - jax.random.normal(key, jnp.shape(x))).mean() if jnp.size(x) else 0,
        {"key": KEYS, "x": ANY_STATE},
        lambda key, x: 0.0,
    ),
    Case("paths.as_time", paths.as_time, {"t": TIME}, lambda t: plain(t)),
    Case(
        "paths.ddpm",
        lambda t: paths.ddpm().alpha(jnp.float32(t)) ** 2 + paths.ddpm().beta(jnp.float32(t)) ** 2,
        {"t": TIME._replace(refused=())},
        lambda t: 1.0,
    ),
    Case("paths.sample", paths.sample, {"path": PATHS, "key": KEYS, "z": ANY_STATE, "t": TIME}, _sampled),
    Case(
        "paths.conditional_score",
        lambda path, x, z, t: paths.conditional_score(path, x, z(x), t),
        {"path": PATHS, "x": ANY_STATE, "z": LIKE, "t": INNER},
        lambda path, x, z, t: (plain(path.alpha(t)) * plain(z(x)) - plain(x)) / plain(path.beta(t)) ** 2,
        tolerance=1e-3,
    ),
    Case(
        "conversions.from_field",
        lambda path, value, x, t: conversions.from_field(path, value(x), x, t),
        CONVERSION | {"t": INNER},
        _from_field,
        tolerance=1e-3,
    ),
    *(
        Case(
            f"conversions.from_{name}",
            lambda path, value, x, t, convert=convert, view=view: view(convert(path, value(x), x, t)),
            CONVERSION,
            lambda path, value, x, t: plain(value(x)),
        )
        for name, (convert, view) in CYCLES.items()
    ),
    *(
        Case(
            f"conversions.{name}_of, field_of_{name}",
            _there_and_back(name),
            {"path": PATHS, "field": FIELD, "x": ANY_STATE, "t": INNER},
            _value,
            tolerance=2e-2,
        )
        for name in CYCLES
    ),
    *(
        Case(
            f"conversions.field_of_{name}",
            lambda path, given, x, t, name=name: getattr(conversions, f"field_of_{name}")(path, given)(x, t),
            {"path": PATHS, "given": FIELD, "x": ANY_STATE, "t": INNER},
            named={"given": name},
        )
        for name in CYCLES
    ),
    Case(
        "conversions.change_path",
        lambda field, old, new, x, t: change_path(old, new, field)(x, t),
        {"field": FIELD, "old": PATHS, "new": PATHS, "x": ANY_STATE, "t": TIME},
    ),
    *(
        Case(f"mixtures.LabelledMixture.{maker}", _state_at(maker), MIXED)
        for maker in ("vector_field", "score", "noise", "denoiser", "log_density")
    ),
    Case("mixtures: x = alpha D + beta E", _by_identity, MIXED, lambda path, x, t, y: plain(x), tolerance=1e-3),
    Case(
        "mixtures.LabelledMixture.label_log_probs",
        lambda path, x, t: jnp.sum(jnp.exp(MIXTURE.label_log_probs(path)(x, t))),
        {"path": PATHS, "x": STATE, "t": TIME},
        lambda path, x, t: 1.0,
    ),
    Case(
        "mixtures.LabelledMixture.sample",
        lambda key, y, t: MIXTURE.sample(key, y, PATH, t),
        {"key": KEYS, "y": NULL_OR_LABEL, "t": TIME},
    ),
    Case(
        "mixtures.joint, JointMixture",
        lambda matrix, noise_std, x, t, y: mixtures.joint(MIXTURE, matrix, noise_std).score(PATH)(x, t, y),
        {
            "matrix": Choices(
                (np.eye(2), [[1, 2], [0, 1]], jnp.ones((2, 2))),
                (np.ones(2), np.ones((2, 3)), np.full((2, 2), NAN), "matrix", None, np.eye(2) * 1j),
            ),
            "noise_std": POSITIVE,
            "x": STATE,
            "t": TIME,
            "y": Choices(
                ({}, {"label": 1}, {"label": 3, "vector": jnp.ones(2)}, {"vector": conditions.unknown(jnp.ones(2))}),
                (1, None, {"text": 1}, {"label": 4}, {"label": 0.5}, {"vector": jnp.ones(3)}, {"vector": "v"}, "y"),
            ),
        },
    ),
    Case("mixtures.LabelledMixture.sample_label", MIXTURE.sample_label, {"key": KEYS}),
    Case(
        "mixtures.LabelledMixture",
        lambda weights, means, covariances: mixtures.LabelledMixture(weights, means, covariances).weights,
        {
            "weights": Choices(
                (jnp.ones(2), [1, 2], np.array([0.5, 0.5])),
                ([1.0, -1.0], [0, 1], [INF, 1], jnp.ones((2, 1, 1)), ["a", "b"], [1j, 1], jnp.zeros(0), None, 1.0),
            ),
            "means": Choices((np.zeros((2, 1)), [[0], [1]]), (np.full((2, 1), np.nan), np.zeros((2, 0)), "means", 1j)),
            "covariances": Choices(
                (np.ones((2, 1, 1)), [[[1.0]], [[2.0]]]),
                (-np.ones((2, 1, 1)), np.ones((2, 1)), np.full((2, 1, 1), np.inf), "c", np.ones((2, 1, 1), complex)),
            ),
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)


@pytest.mark.parametrize("maker", ["vector_field", "score", "noise", "denoiser"])
def test_a_label_that_is_none_gives_nan_where_only_a_trace_knows_it(maker):
    field = getattr(MIXTURE, maker)(PATH)
    found = jax.vmap(field, in_axes=(None, None, 0))(jnp.ones(2), 0.5, jnp.array([-1, 0, 3, 4]))
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), [True, False, False, True])


@pytest.mark.parametrize("t", [-0.5, 1.5])
def test_a_traced_time_passes_whatever_it_is(t):
    """Numbers are checked where they are concrete; a trace knows none."""
    found = jax.jit(lambda t: paths.coefficients(PATH, t))(t)
    np.testing.assert_allclose(found.alpha, t)
    with pytest.raises(ValueError, match=r"t must be in \[0, 1\]"):
        paths.coefficients(PATH, t)


@pytest.mark.parametrize("t", [jnp.ones(1), jnp.full(2, 0.5), np.array(["a"])])
def test_shapes_and_types_are_checked_while_jax_traces(t):
    traced = [t] if t.dtype.kind != "U" else []
    with pytest.raises((ValueError, TypeError), match="t must be one"):
        jax.jit(lambda *given: paths.coefficients(PATH, *(given or (t,))))(*traced)


def test_checks_pass_under_every_transformation():
    """jit, vmap, grad and scan of a converted, guided sum of calls give what plain calls give."""
    field = MIXTURE.vector_field(PATH)

    def score(x, t, y):
        return jnp.sum(conversions.score_of(PATH, field)(x, t, y))

    x, ts, labels = jnp.ones((3, 2)), jnp.array([0.2, 0.5, 0.9]), jnp.array([0, 2, 3])
    slope = jax.grad(score)
    single = [slope(*each) for each in zip(x, ts, labels, strict=True)]
    mapped = jax.jit(jax.vmap(slope))(x, ts, labels)
    scanned = jax.lax.scan(lambda carry, each: (carry, slope(*each)), 0, (x, ts, labels))[1]
    np.testing.assert_allclose(mapped, jnp.stack(single), rtol=1e-4)
    np.testing.assert_allclose(scanned, jnp.stack(single), rtol=1e-4)
    assert np.all(np.isfinite(jax.grad(score, argnums=1)(x[0], 0.5, 1)))

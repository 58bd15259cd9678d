"""A scale of the state and of both sides: against the formula by hand, wherever a scale may stand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.analysis.sweep import sweep
from tests.support import normals

NULL, Y = 3, 1
PATH = paths.linear()
RING = mixtures.ring(NULL)
FIELD, LOG_PROBS = RING.vector_field(PATH), RING.label_log_probs(PATH)
X, T = jnp.array([[0.4, -0.7], [1.5, 0.2], [-0.3, 0.1]]), jnp.float32(0.3)
SHARE = 0.9


def _by_posterior(x, t, y, null, labelled):
    """w = p / (p - (1 - share)) of the posterior p of the label, held where it would be infinite or negative."""
    probability = jnp.exp(LOG_PROBS(x, t)[y])
    return jnp.clip(probability / jnp.maximum(probability - (1 - SHARE), 1e-3), 1, 8)


def _by_sides(x, t, y, null, labelled):
    """The share of the difference in the labelled side."""
    return 1 + t * jnp.linalg.norm(labelled - null) / jnp.linalg.norm(labelled)


POLICIES = {"x": _by_posterior, "sides": _by_sides, "y": lambda x, t, y, null, labelled: 2.0 + y * t}
RULES = {
    "classifier_free": lambda scale, edge: guidance.classifier_free(FIELD, scale, NULL),
    "rescaled": lambda scale, edge: guidance.rescaled(guidance.pair(FIELD, NULL), scale, phi=0.0),
    "autoguidance": lambda scale, edge: guidance.autoguidance(
        FIELD, lambda x, t, y: FIELD(x, t, jnp.asarray(NULL)), scale
    ),
    "interval": lambda scale, edge: guidance.classifier_free(FIELD, guidance.interval(scale, 0.1, 0.9), NULL),
    "traced edge": lambda scale, edge: guidance.classifier_free(FIELD, guidance.interval(scale, edge, 0.9), NULL),
    "adaptive_projected": lambda scale, edge: (
        lambda x, t, y: guidance.adaptive_projected(
            PATH, guidance.pair(FIELD, NULL), scale, y, momentum=0.0, eta=1.0
        ).apply(x, t, jnp.zeros(2))[0]
    ),
}


def _plain(x, t, y):
    return jnp.sin(3 * x + t) * (y + 1.0)


def _by_hand(scale_of, x):
    y = jnp.asarray(Y)
    null, labelled = (FIELD(x, T, jnp.asarray(label)) for label in (NULL, Y))
    return null + scale_of(x, T, y, null, labelled) * (labelled - null)


def test_a_policy_is_its_formula_for_every_rule():
    """Each example has its own w: mapped and compiled, of x, of both sides, and of (t, y) alone."""

    def found(x, edge):
        fields = [rule(guidance.policy(each), edge) for rule in RULES.values() for each in POLICIES.values()]
        return jnp.stack([field(x, T, jnp.asarray(Y)) for field in fields])

    def by_hand(x, edge):
        return jnp.stack([_by_hand(each, x) for each in POLICIES.values()] * len(RULES))

    each, expected = (jax.jit(jax.vmap(call, in_axes=(0, None)))(X, 0.1) for call in (found, by_hand))
    np.testing.assert_allclose(each, expected, rtol=2e-5, atol=1e-6)
    scales = jax.vmap(lambda x: _by_posterior(x, T, jnp.asarray(Y), x, x))(X)
    assert len(np.unique(np.asarray(scales).round(3))) > 1


def test_outside_its_interval_a_policy_is_not_asked():
    asked = []

    def scale_of(x, t, y, null, labelled):
        asked.append(float(t))
        return jnp.float32(3.0)

    guided = guidance.classifier_free(_plain, guidance.interval(guidance.policy(scale_of), 0.5, 0.75), NULL)
    assert guided.edges == (0.5, 0.75)
    np.testing.assert_array_equal(guided.pieces[0](X[0], T, jnp.asarray(Y)), _plain(X[0], T, jnp.asarray(Y)))
    assert not asked
    guided.pieces[1](X[0], jnp.float32(0.6), jnp.asarray(Y))
    assert asked == [np.float32(0.6)]


def test_a_policy_of_one_is_the_labelled_field_to_the_bit_and_costs_one_call_on_both_labels():
    one = guidance.policy(lambda *point: jnp.float32(1))
    _, labelled = guidance.pair(_plain, NULL).both(X[0], T, jnp.asarray(Y))
    np.testing.assert_array_equal(guidance.classifier_free(_plain, one, NULL)(X[0], T, jnp.asarray(Y)), labelled)
    build = lambda field: solvers.euler(  # noqa: E731
        guidance.given(guidance.classifier_free(field, guidance.policy(_by_sides), NULL), Y)
    )
    assert solvers.num_function_evaluations(build, _plain, X[0], np.linspace(0, 1, 3)).tolist() == [2, 2]


def test_gradients_pass_through_a_policy_and_its_numbers_are_traced():
    """d/da of w = a |u_y|^2 through the guided field, by hand; a sweep over a is one trace."""
    traces = []

    def guided(a):
        traces.append(1)
        scale = guidance.policy(lambda x, t, y, null, labelled: a * jnp.sum(labelled**2))
        return guidance.classifier_free(FIELD, scale, NULL)(X[1], T, jnp.asarray(Y))

    null, labelled = (FIELD(X[1], T, jnp.asarray(label)) for label in (NULL, Y))
    slope = jnp.sum(labelled**2) * (labelled - null)
    np.testing.assert_allclose(jax.jacfwd(guided)(0.7), slope, rtol=1e-4)
    traces.clear()
    swept = jax.jit(lambda each: sweep(guided, each))(jnp.array([0.0, 0.5, 2.0]))
    assert len(traces) == 1
    np.testing.assert_allclose(swept[2] - swept[0], 2 * slope, rtol=1e-4)


def test_a_policy_is_solved_with_and_may_be_shifted():
    """The ODE at w(x, t) is that of a field written by hand; ``from_zero_based_scale`` adds 1."""
    ts, key = np.linspace(0, 1, 5), jax.random.key(0)

    def end(field):
        return jax.jit(lambda x: solvers.integrate(solvers.heun(field), key, x, ts))(X[2])

    guided = guidance.classifier_free(FIELD, guidance.policy(_by_posterior), NULL)

    def by_hand(x, t):
        null, labelled = (FIELD(x, t, jnp.asarray(label)) for label in (NULL, Y))
        return null + _by_posterior(x, t, Y, null, labelled) * (labelled - null)

    np.testing.assert_allclose(end(guidance.given(guided, Y)), end(by_hand), rtol=1e-4, atol=1e-5)
    shifted = guidance.from_zero_based_scale(guidance.policy(_by_sides))
    sides = X[0], X[1], X[2]
    expected = 1 + _by_sides(X[0], T, Y, X[1], X[2])
    np.testing.assert_allclose(guidance.scale_at(shifted, T, Y, sides), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: guidance.policy(3.0), TypeError, "scale_of must be a function, got float"),
        (
            lambda: guidance.classifier_free(FIELD, lambda x, t, y: 1.0, NULL),
            TypeError,
            r"scale must be a function of t or of \(t, y\), got one of \(x, t, y\): guidance\.policy makes",
        ),
        (
            lambda: guidance.scale_at(guidance.policy(_by_sides), 0.5, 1),
            ValueError,
            "scale must be a number or a function of t .* got a policy",
        ),
        (
            lambda: guidance.classifier_free(FIELD, guidance.policy(lambda *point: jnp.ones(2)), NULL)(X[0], T, Y),
            ValueError,
            r"scale must be one number for one example, got the shape \(2,\)",
        ),
        (
            lambda: solvers.feynman_kac(
                PATH, guidance.pair(FIELD, NULL), Y, guidance.policy(_by_sides), lambda t: 1.0 + t
            ),
            ValueError,
            "scale of the tilted law must be one number",
        ),
        (
            lambda: solvers.cfg_plus_plus(PATH, guidance.pair(FIELD, NULL), Y, guidance.interval(2.0, 0.1, 0.9)),
            ValueError,
            "scale must be a number, a function of t or a policy here, got an interval",
        ),
        (
            lambda: solvers.rectified_cfg_plus_plus(guidance.pair(FIELD, NULL), Y, guidance.policy(_by_sides)),
            ValueError,
            "scale must be a number or a function of t here, got a policy",
        ),
        (
            lambda: solvers.manifold_projected(guidance.pair(FIELD, NULL), Y, lambda t, y: t),
            TypeError,
            r"scale must be a function of t here, got one of \(t, y\)",
        ),
    ],
)
def test_a_scale_that_cannot_stand_there_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.usefixtures("x64")
def test_a_gap_policy_has_the_distance_of_the_noise_predictions(exact_path):
    """Of two normal laws by hand: E = beta (x - alpha m) / V, so |E_y - E_null| is known; at t = 0 it is 0."""
    pair, x = normals.pair(exact_path), jnp.array([0.4, -1.3])
    policy = guidance.gap_policy(exact_path, lambda t, y, gap: 1 + t + y * gap)
    for t in (0.0, 0.2, 0.7):
        sides = pair.both(x, jnp.asarray(t), normals.LABEL)
        alpha, beta = exact_path.alpha(t), exact_path.beta(t)
        null, labelled = (beta * (x - alpha * mean) / (alpha**2 * v + beta**2) for mean, v in normals.LAWS)
        expected = 1 + t + normals.LABEL * np.linalg.norm(labelled - null)
        np.testing.assert_allclose(guidance.scale_at(policy, t, normals.LABEL, (x, *sides)), expected, rtol=1e-6)


def test_a_gap_policy_of_one_is_the_labelled_field_bitwise():
    policy = guidance.gap_policy(PATH, lambda t, y, gap: 1.0 + 0.0 * gap)
    found = guidance.classifier_free(_plain, policy, NULL)(X[0], T, jnp.asarray(Y))
    np.testing.assert_array_equal(found, _plain(X[0], T, jnp.asarray(Y)))

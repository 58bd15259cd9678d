"""What all rules on the denoised estimate have in common: neutral settings, stacking, ends, traced arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, mixtures, paths, solvers, steering
from cfgjax.piecewise import Piecewise
from cfgjax.steering import METHODS, Measurement, operators

NULL = 3
PATH, MIXTURE = paths.linear(), mixtures.ring(NULL)
ORACLE = MIXTURE.vector_field(PATH)
X = jnp.array([0.7, -0.4])
RULES = {name: method for name, method in METHODS.items() if method.rule is not None}
MEASUREMENT = Measurement(operators.matrix(np.array([[1.0, 2.0]])), jnp.array([0.5]), 0.3)


def _bitwise(found, wanted):
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


@pytest.mark.parametrize("name", RULES)
def test_a_scale_known_as_0_is_the_field_itself(name):
    """Bitwise and at its own cost, before ``start``, too; a traced 0 is that from ``start`` on."""
    rule, y = RULES[name].rule, 1
    at = jax.jit(rule(PATH, ORACLE, MEASUREMENT, 0)), jax.jit(ORACLE)
    for t in (0.0, 0.005, 0.4, 1.0):
        _bitwise(*(field(X, t, y) for field in at))

    def build(field):
        return solvers.euler(guidance.given(rule(PATH, field, MEASUREMENT, 0.0), y))

    assert solvers.num_vector_jacobian_products(build, ORACLE, X, np.linspace(0, 1, 3)).tolist() == [0, 0]
    at_scale = jax.jit(lambda scale, t: (rule(PATH, ORACLE, MEASUREMENT, scale)(X, t, y), ORACLE(X, t, y)))
    for t in (0.25, 0.5, 0.75):
        steered, plain = at_scale(0.0, t)
        np.testing.assert_allclose(steered, plain, rtol=1e-6)
    assert float(jnp.max(jnp.abs(jnp.subtract(*at_scale(1.0, 0.5))))) > 0.01


def test_infinite_strength_is_the_field_itself():
    steered = steering.diffpir(PATH, ORACLE, MEASUREMENT, float("inf"))
    _bitwise(steered(X, 0.4, 1), ORACLE(X, 0.4, 1))


@pytest.mark.parametrize("name", RULES)
def test_on_guidance_of_0_and_1_it_is_that_of_the_side(name):
    """Guidance acts first: at w = 1 the rule on the field at y, at w = 0 on that at the null, bitwise."""
    rule = RULES[name].rule
    for scale, y in [(1, 2), (0, NULL)]:
        guided = guidance.classifier_free(ORACLE, scale, NULL)
        found = jax.jit(rule(PATH, guided, MEASUREMENT, 1.0))(X, 0.4, 2)
        _bitwise(found, jax.jit(rule(PATH, ORACLE, MEASUREMENT, 1.0))(X, 0.4, y))


def test_correction_of_a_guided_field_is_that_of_its_own_denoiser():
    """By automatic differentiation of log p(m|D_w(x)), D_w the guided denoiser; not the guidance of corrections."""
    t = 0.4
    guided = guidance.given(guidance.classifier_free(ORACLE, 2.5, NULL), 1)
    of_clean = steering.log_likelihood(MEASUREMENT)

    @jax.jit
    def values(x):
        gradient = jax.grad(lambda x: of_clean(conversions.denoiser_of(PATH, guided)(x, t)))(x)
        by_hand = guided(x, t) + (1 - t) / t * gradient
        corrections_first = guidance.classifier_free(steering.dps(PATH, ORACLE, MEASUREMENT), 2.5, NULL)(x, t, 1)
        return by_hand, steering.dps(PATH, guided, MEASUREMENT)(x, t), corrections_first

    by_hand, found, other = values(X)
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    assert float(jnp.max(jnp.abs(other - by_hand))) > 0.01


@pytest.mark.parametrize("name", RULES)
def test_on_an_interval_it_is_piecewise(name):
    """Each piece is corrected; a solver then knows what each of its steps costs."""
    rule, method = RULES[name].rule, RULES[name]
    guided = guidance.classifier_free(ORACLE, guidance.interval(3.0, 0.3, 0.7), NULL)
    steered = rule(PATH, guided, MEASUREMENT, 1.0)
    assert isinstance(steered, Piecewise) and steered.edges == guided.edges
    for index, t in enumerate((0.2, 0.5, 0.8)):
        alone = rule(PATH, guided.pieces[index], MEASUREMENT, 1.0)
        _bitwise(*(jax.jit(field)(X, t, 1) for field in (steered.pieces[index], alone)))

    def build(field):
        within = guidance.classifier_free(field, guidance.interval(3.0, 0.5, 1.0), NULL)
        return method.make_solver(PATH, guidance.given(within, 1), MEASUREMENT, solvers.heun, 1.0)

    ts = np.linspace(0, 1, 3)
    evaluations = solvers.num_function_evaluations(build, ORACLE, X, ts)
    products = solvers.num_vector_jacobian_products(build, ORACLE, X, ts)
    np.testing.assert_array_equal(evaluations, method.evaluations * np.array([2, 4]))
    np.testing.assert_array_equal(products, method.products * np.array([2, 4]))


def test_a_projection_on_a_box_is_the_static_threshold():
    found = steering.projected_constraint(PATH, ORACLE, lambda z: jnp.clip(z, -0.3, 0.3))
    wanted = guidance.static_threshold(PATH, ORACLE, 0.3)
    for t in (0.0, 0.5, 1.0):
        _bitwise(found(X, t, 1), wanted(X, t, 1))
    _bitwise(steering.projected_constraint(PATH, ORACLE, lambda z: z)(X, 0.5, 1), ORACLE(X, 0.5, 1))


def test_a_threshold_of_a_steered_field_bounds_its_denoiser():
    steered = steering.dps(PATH, ORACLE, MEASUREMENT, 5.0)
    fields = steered, guidance.static_threshold(PATH, steered, 1.0)
    largest = jax.jit(
        lambda x: [jnp.max(jnp.abs(conversions.denoiser_of(PATH, field)(x, 0.4, 1))) for field in fields]
    )(X)
    assert largest[0] > 2
    np.testing.assert_allclose(largest[1], 1, rtol=1e-4)


def _at_times(path, measurement, ts, x=X):
    """[methods, times, D]: all rules at the labelled field, and the field itself."""
    field = guidance.given(MIXTURE.vector_field(path), 1)
    rules = [method.rule(path, field, measurement, 1.0) for method in RULES.values()]
    return jax.jit(lambda ts: jnp.stack([jax.vmap(rule, in_axes=(None, 0))(x, ts) for rule in (*rules, field)]))(ts)


def test_finite_on_the_closed_interval(any_path):
    """Without noise, too; at t = 1 the field itself where b is 0 there, which it is where beta' is finite."""
    ts = jnp.array([0.0, 1e-6, 1e-3, 0.01, 0.5, 0.999, 1 - 6e-8, 1.0])
    path, values = any_path, _at_times(any_path, MEASUREMENT, ts)
    assert bool(jnp.all(jnp.isfinite(values)))
    c = paths.coefficients(path, paths.before_end(1.0))
    if c.beta * c.wronskian < 1e-5:
        np.testing.assert_allclose(values[:-1, -1], np.broadcast_to(values[-1, -1], values[:-1, -1].shape), 1e-4, 1e-4)


@pytest.mark.parametrize("name", [name for name, method in RULES.items() if not method.needs_noise])
def test_finite_without_noise(name, any_path):
    """Of dependent rows, too."""
    path, matrix = any_path, np.array([[1.0, 2.0], [0.5, 1.0], [1.0, 0.0]])
    exact = Measurement(operators.matrix(matrix), jnp.asarray(matrix @ np.array([0.3, 0.1]), jnp.float32), 0.0)
    field = guidance.given(MIXTURE.vector_field(path), 1)
    steered = RULES[name].rule(path, field, exact, 1.0)
    ts = jnp.array([0.0, 0.01, 0.5, 0.999, 1.0])
    assert bool(jnp.all(jnp.isfinite(jax.jit(jax.vmap(steered, in_axes=(None, 0)))(X, ts))))


@pytest.mark.parametrize("name", RULES)
def test_one_trace_for_every_measurement_and_scale_and_a_map_is_a_loop(name):
    rng, count, traces = np.random.default_rng(2), 4, []

    def steered(matrix, value, noise_std, scale, x, t):
        traces.append(name)
        known = Measurement(operators.matrix(matrix), value, noise_std)
        return RULES[name].rule(PATH, ORACLE, known, scale)(x, t, 1)

    each = [
        jnp.asarray(values, jnp.float32)
        for values in (
            rng.normal(size=(count, 2, 2)),
            rng.normal(size=(count, 2)),
            rng.uniform(0.1, 1, count),
            rng.uniform(0.5, 2, count),
            rng.normal(size=(count, 2)),
            rng.uniform(0.1, 0.9, count),
        )
    ]
    one = jax.jit(steered)
    loop = jnp.stack([one(*row) for row in zip(*each, strict=True)])
    assert len(traces) == 1
    np.testing.assert_allclose(jax.jit(jax.vmap(steered))(*each), loop, rtol=2e-3, atol=1e-3)


def test_a_measurement_is_one_argument():
    """The record of an operator and numbers passes into a compiled function, and is mapped over as it is."""
    rng = np.random.default_rng(3)
    matrices, values = rng.normal(size=(3, 1, 2)), jnp.asarray(rng.normal(size=(3, 1)))
    each = [Measurement(operators.matrix(one), value, 0.5) for one, value in zip(matrices, values, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *each)
    steered = jax.jit(lambda measurement: steering.mmps(PATH, ORACLE, measurement)(X, 0.5, 1))
    found = jax.vmap(steered)(stacked)
    np.testing.assert_allclose(found, jnp.stack([steered(one) for one in each]), rtol=1e-5)


def test_float32_is_near_float64():
    ts = jnp.array([0.01, 0.1, 0.5, 0.9])
    single = _at_times(PATH, MEASUREMENT, ts)
    with jax.enable_x64(True):
        double = _at_times(PATH, MEASUREMENT, ts.astype(jnp.float64), X.astype(jnp.float64))
        assert double.dtype == jnp.float64
    np.testing.assert_allclose(single, double, rtol=2e-3, atol=1e-3)


def test_before_start_all_is_that_at_start():
    steered = steering.dps(PATH, ORACLE, MEASUREMENT, 1.0, start=0.2)
    _bitwise(steered(X, 0.0, 1), steered(X, 0.2, 1))
    assert not bool(jnp.all(steered(X, 0.3, 1) == steered(X, 0.2, 1)))


def _with(**changes):
    return MEASUREMENT._replace(**changes)


BAD = {
    "A of another shape": (
        lambda: steering.dps(PATH, ORACLE, _with(operator=operators.matrix(np.ones((1, 3)))))(X, 0.5, 1),
        r"z, flattened, must have the shape \(3,\), got \(2,\)",
    ),
    "a value of another shape": (
        lambda: steering.pi_gdm(PATH, ORACLE, _with(value=jnp.ones(2)))(X, 0.5, 1),
        r"measurement\.value must have the shape \(1,\), got \(2,\)",
    ),
    "no noise to divide by": (lambda: steering.dps(PATH, ORACLE, _with(noise_std=0.0)), r"noise_std must be above 0"),
    "an operator of sines": (
        lambda: steering.mmps(PATH, ORACLE, _with(operator=lambda z: jnp.sin(z[:1])))(X, 0.5, 1),
        "operator must be linear",
    ),
    "an operator of squares": (
        lambda: steering.diffpir(PATH, ORACLE, _with(operator=lambda z: z[:1] * z[:1]))(X, 0.5, 1),
        "operator must be linear",
    ),
    "an operator of quotients": (
        lambda: steering.tmpd(PATH, ORACLE, _with(operator=lambda z: z[:1] / z[1:]))(X, 0.5, 1),
        "operator must be linear",
    ),
    "an operator with an offset": (
        lambda: jax.jit(steering.pi_gdm(PATH, ORACLE, _with(operator=lambda z: z[:1] + 1)))(X, 0.5, 1),
        r"measurement\.operator must be linear, got one that is \[1\.\] at 0",
    ),
    "a projection by an operator with an offset": (
        lambda: steering.affine_projection(_with(operator=lambda z: z[:1] + 1))(X),
        r"measurement\.operator must be linear, got one that is \[1\.\] at 0",
    ),
    "a value that is NaN": (
        lambda: steering.pi_gdm(PATH, ORACLE, _with(value=jnp.array([jnp.nan]))),
        r"measurement\.value must be finite, got \[nan\]",
    ),
    "a mask that is NaN": (lambda: operators.mask(jnp.array([jnp.nan, 1.0])), "mask must be finite"),
    "a blur of a row": (
        lambda: operators.blurred(np.ones((3, 3)))(X),
        r"z must be a picture \[H, W, \.\.\.\], got the shape \(2,\)",
    ),
    "a log-likelihood of several": (
        lambda: steering.universal(PATH, ORACLE, lambda z: z)(X, 0.5, 1),
        "log_likelihood must be one number",
    ),
    "a log-likelihood that is not finite": (
        lambda: steering.universal(PATH, ORACLE, lambda z: jnp.log(-jnp.sum(z**2)))(X, 0.5, 1),
        "log_likelihood must be finite",
    ),
    "a scale of (t, y)": (
        lambda: steering.dps(PATH, ORACLE, MEASUREMENT, lambda t, y: t),
        "scale must be a number or a function of t",
    ),
    "a policy": (
        lambda: steering.dps(PATH, ORACLE, MEASUREMENT, guidance.interval(1.0, 0.2, 0.8)),
        "scale must be one real number",
    ),
    "a schedule of several": (
        lambda: steering.dps(PATH, ORACLE, MEASUREMENT, lambda t: jnp.ones(2))(X, 0.5, 1),
        "scale must be one number",
    ),
    "a projection of another shape": (
        lambda: steering.projected_constraint(PATH, ORACLE, lambda z: z[:1])(X, 0.5, 1),
        r"projection must give the shape \(2,\)",
    ),
    "a label beyond the last": (
        lambda: steering.classifier_likelihood(lambda z: jax.nn.log_softmax(z), 3)(X),
        r"y must be in \[0, 2\], got 3",
    ),
    "a strength of 0": (lambda: steering.diffpir(PATH, ORACLE, MEASUREMENT, 0.0), "strength must be above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line(case):
    call, message = BAD[case]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)

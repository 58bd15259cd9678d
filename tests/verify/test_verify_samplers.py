"""Verification of solvers, samplers and whole batches: the library's own pass, and each planted mistake is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, paths, solvers, verify
from cfgjax.verify.reference import skewed_mixture

PATH, NULL = paths.linear(), 3
MIXTURE = skewed_mixture()
FIELD = MIXTURE.vector_field(PATH)
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]


def _planted(mistakes, slow=()):
    """A test's parameters of the mistakes; those named last take long and are like others."""
    assert set(slow) <= set(mistakes)
    return [
        pytest.param(*values, id=name, marks=[pytest.mark.slow] if name in slow else [])
        for name, values in mistakes.items()
    ]


def _only_cause(report):
    assert not report.passed
    assert len(report.causes) == 1, report
    return report.causes[0]


# Solvers of the ODE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("make_solver", "order"), [(solvers.euler, 1), (solvers.heun, 2)])
def test_the_librarys_solvers_pass(make_solver, order, seed):
    verify.solver(make_solver, order, seed=seed).require()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cosine", "variance_preserving"])
def test_a_solver_passes_on_other_paths(name):
    verify.solver(solvers.heun, 2, getattr(paths, name)()).require()


def _classical(field):
    """The classical rule of order 4 as a function of all its steps, in a loop of Python."""

    def solve(key, x, ts):
        for i in range(len(ts) - 1):
            t, h = ts[i], ts[i + 1] - ts[i]
            first = field(x, t)
            second = field(x + h / 2 * first, t + h / 2)
            third = field(x + h / 2 * second, t + h / 2)
            x = x + h / 6 * (first + 2 * second + 2 * third + field(x + h * third, t + h))
        return x

    return solve


@pytest.mark.slow
def test_a_function_of_order_four_passes():
    verify.solver(_classical, 4).require()


def _of_steps(change):
    """Heun's rule as a function of all its steps, with changed arguments."""

    def make_solver(field):
        return lambda key, x, ts: solvers.integrate(solvers.heun(field), key, *change(x, ts))

    return make_solver


def _own_steps(factor):
    """Forty steps, whatever is asked for, of the field times a factor."""

    def make_solver(field):
        heun = solvers.heun(lambda x, t: factor * field(x, t))
        return lambda key, x, ts: solvers.integrate(heun, key, x, jnp.linspace(0.0, 1.0, 41))

    return make_solver


def test_a_solver_that_chooses_its_steps_is_asked_for_no_order():
    report = verify.solver(_own_steps(1.0), None)
    report.require()
    assert [check.name for check in report.checks] == ["end of the flow, w = 1", "difference by another key"]
    assert not verify.solver(_own_steps(1.0), 2).passed
    assert "a factor 1/2 too many" in _only_cause(verify.solver(_own_steps(0.5), None))


WRONG_SOLVERS = {
    "sign": (lambda field: solvers.heun(lambda x, t: -field(x, t)), "the sign is wrong"),
    "swapped time": (lambda field: solvers.heun(lambda x, t: field(x, 1 - t)), "the field is called at 1 - t"),
    "from data to noise": (_of_steps(lambda x, ts: (x, ts[::-1])), "from data to noise"),
    "no motion": (lambda field: lambda key, x, ts: x, "the state does not move"),
    "half": (lambda field: solvers.heun(lambda x, t: field(x, t) / 2), "a factor 1/2 too many"),
    "n points for n steps": (_of_steps(lambda x, ts: (x, ts[:-1])), "the last step is missing"),
    "Euler for Heun": (solvers.euler, "the order of Euler's rule"),
    "no known kind": (lambda field: solvers.heun(lambda x, t: field(x, 0.8 * t)), "no known cause fits"),
    "no solver": (lambda field: 3.0, "makes float, neither a Solver nor a function"),
}


@pytest.mark.parametrize(
    ("make_solver", "words"),
    _planted(WRONG_SOLVERS, {"half", "no motion", "sign", "no known kind", "from data to noise"}),
)
def test_mistakes_in_solvers_are_named(make_solver, words):
    assert words in _only_cause(verify.solver(make_solver, 2))


def _off_at(field, time):
    """The field, 5 % too large in one fifth of t."""
    return lambda x, t: field(x, t) * (1 + 0.05 * (jnp.abs(t - time) <= 0.1))


@pytest.mark.parametrize("rule", [solvers.euler, pytest.param(solvers.heun, marks=pytest.mark.slow)])
@pytest.mark.parametrize("time", [0.1, *(pytest.param(time, marks=pytest.mark.slow) for time in (0.3, 0.5, 0.7, 0.9))])
def test_a_solver_that_is_5_percent_off_somewhere_fails(rule, time):
    """Euler's own error of 0.02 hides it at the end and in the order: the limit of small steps shows it."""
    report = verify.solver(lambda field: rule(_off_at(field, time)), 1)
    assert "it tends to another end" in _only_cause(report)


@pytest.mark.slow
def test_a_stage_that_is_5_percent_off_fails():
    def lopsided_heun(field):
        def solve(key, x, ts):
            def step(x, times):
                h, first = times[1] - times[0], field(x, times[0])
                return x + h * (0.525 * first + 0.475 * field(x + h * first, times[1])), None

            return jax.lax.scan(step, x, (ts[:-1], ts[1:]))[0]

        return solve

    assert "the order of Euler's rule" in _only_cause(verify.solver(lopsided_heun, 2))


def test_noise_in_a_solver_of_the_ode_is_found():
    def make_solver(field):
        heun = solvers.heun(field)
        return lambda key, x, ts: solvers.integrate(heun, key, x, ts) + 0.01 * jax.random.normal(key, x.shape)

    assert "noise is added" in _only_cause(verify.solver(make_solver, 2))


# Samplers that guide by themselves


def _library(field, key, x, ts, y, scale, null_label):
    guided = guidance.given(guidance.classifier_free(field, scale, null_label), y)
    return solvers.integrate(solvers.heun(guided), key, x, ts)


def _by_hand(second_stage, first_stage=lambda null, labelled, w: null + w * (labelled - null)):
    """Heun's rule with guidance inside, as users write it; ``second_stage(null, labelled, difference, w)``."""

    def draw(field, key, x, ts, y, scale, null_label):
        def step(x, times):
            t, t_next = times
            null, labelled = field(x, t, jnp.asarray(null_label)), field(x, t, y)
            first = first_stage(null, labelled, scale)
            moved = x + (t_next - t) * first
            ends = field(moved, t_next, jnp.asarray(null_label)), field(moved, t_next, y)
            return x + (t_next - t) / 2 * (first + second_stage(*ends, labelled - null, scale)), None

        return jax.lax.scan(step, x, (ts[:-1], ts[1:]))[0]

    return draw


def _guided(null, labelled, difference, w):
    return null + w * (labelled - null)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_librarys_sampler_passes(seed):
    verify.sampler(_library, 2, seed=seed).require()


def test_a_sampler_in_numpy_passes():
    """A loop of Euler steps that no transformation can take."""

    def draw(field, key, x, ts, y, scale, null_label):
        x = np.asarray(x)
        for t, t_next in zip(np.asarray(ts)[:-1], np.asarray(ts)[1:], strict=True):
            null, labelled = (np.asarray(field(x, t, jnp.asarray(label))) for label in (null_label, int(y)))
            x = x + (t_next - t) * (null + float(scale) * (labelled - null))
        return x

    verify.sampler(draw, 1).require()


def _other_convention(null, labelled, w):
    return labelled + w * (labelled - null)


def _whole(null, labelled, w):
    return null + int(w) * (labelled - null)


WRONG_SAMPLERS = {
    "stage one alone, then labelled": (_by_hand(lambda null, labelled, _, w: labelled), "guidance acts at stage one"),
    "stage one alone, then null": (_by_hand(lambda null, labelled, _, w: null), "guidance acts at stage one alone"),
    "stage one's difference on labelled": (
        _by_hand(lambda null, labelled, difference, w: labelled + (w - 1) * difference),
        "guidance acts at stage one alone, the second stage takes its difference",
    ),
    "stage one's difference on null": (
        _by_hand(lambda null, labelled, difference, w: null + w * difference),
        "guidance acts at stage one alone, the second stage takes its difference",
    ),
    "1 + w": (
        _by_hand(lambda null, labelled, _, w: _other_convention(null, labelled, w), _other_convention),
        "looks like 1 + w",
    ),
    "int(w)": (_by_hand(lambda null, labelled, _, w: _whole(null, labelled, w), _whole), "w is cut to an int"),
    "swapped time": (lambda field, *rest: _library(lambda x, t, y: field(x, 1 - t, y), *rest), "called at 1 - t"),
    "5 % of w": (lambda *rest: _library(*rest[:-2], 1.05 * rest[-2], rest[-1]), "it tends to another end"),
    "5 % for one label, in one fifth of t": (
        lambda field, *rest: _library(
            lambda x, t, y: field(x, t, y) * (1 + 0.05 * ((y == 1) & (jnp.abs(t - 0.5) <= 0.1))), *rest
        ),
        "it tends to another end",
    ),
    "wrong null row": (lambda *rest: _library(*rest[:-1], rest[-1] - 1), "the null label's row is that of label 2"),
    "no known kind": (
        lambda field, *rest: _library(lambda x, t, y: field(x, t, y) + 0.5 * jnp.sin(x), *rest),
        "no known cause fits",
    ),
}


@pytest.mark.parametrize(
    ("draw", "words"),
    _planted(
        WRONG_SAMPLERS,
        {"stage one alone, then null", "stage one's difference on null", "1 + w", "int(w)", "swapped time", "5 % of w"},
    ),
)
def test_mistakes_in_samplers_are_named(draw, words):
    assert words in _only_cause(verify.sampler(draw, 2))


# Solvers of the SDE


@pytest.mark.parametrize("seed", SEEDS)
def test_the_librarys_stochastic_solver_passes(seed):
    verify.diffusion(solvers.euler_maruyama, seed=seed).require()


@pytest.mark.slow
def test_the_librarys_stochastic_solver_passes_on_every_path(exact_path):
    verify.diffusion(solvers.euler_maruyama, exact_path).require()


def _euler_maruyama(
    drift=lambda u, s, diffusion, beta: u + diffusion**2 / 2 * s,
    noise=lambda diffusion, beta, h: diffusion * jnp.sqrt(h),
    key_of=jax.random.fold_in,
):
    """The rule as users write it, with its parts to be spoiled."""

    def make_solver(path, field, diffusion):
        def solve(key, x, ts):
            def step(x, now):
                i, t, t_next = now
                h, size, beta = t_next - t, diffusion(t), path.beta(t)
                view = conversions.from_field(path, field(x, t), x, t)
                z = jax.random.normal(key_of(key, i), x.shape)
                return x + h * drift(view.field, view.score, size, beta) + noise(size, beta, h) * z, None

            return jax.lax.scan(step, x, (jnp.arange(len(ts) - 1), ts[:-1], ts[1:]))[0]

        return solve

    return make_solver


def _turned_score(path, field, diffusion):
    """The rule with (-t u - x) / (1 - t) for the straight path's score (t u - x) / (1 - t)."""

    def solve(key, x, ts):
        def step(x, now):
            i, t, t_next = now
            u, h = field(x, t), t_next - t
            z = jax.random.normal(jax.random.fold_in(key, i), x.shape)
            drift = u + diffusion(t) ** 2 / 2 * (-t * u - x) / (1 - t)
            return x + h * drift + diffusion(t) * jnp.sqrt(h) * z, None

        return jax.lax.scan(step, x, (jnp.arange(len(ts) - 1), ts[:-1], ts[1:]))[0]

    return solve


WRONG_DIFFUSIONS = {
    "sign of the field in the score": (
        _turned_score,
        "the field's sign in s = (alpha u - alpha' x) / (beta W) is wrong",
    ),
    "missing 1/2": (_euler_maruyama(lambda u, s, size, beta: u + size**2 * s), "1/2 is missing: the drift is u + sigm"),
    "no score": (_euler_maruyama(lambda u, s, size, beta: u), "the score is missing"),
    "sign of the score": (_euler_maruyama(lambda u, s, size, beta: u - size**2 / 2 * s), "the score's sign is wrong"),
    "beta for sigma in the noise": (
        _euler_maruyama(noise=lambda size, beta, h: beta * jnp.sqrt(h)),
        "beta is used for sigma: the noise is beta sqrt(h)",
    ),
    "beta for sigma in both": (
        lambda path, field, diffusion: solvers.euler_maruyama(path, field, path.beta),
        "beta is used for sigma: the drift is u + beta^2 s / 2",
    ),
    "h for sqrt(h)": (_euler_maruyama(noise=lambda size, beta, h: size * h), "h is used for sqrt(h)"),
    "fixed key": (_euler_maruyama(key_of=lambda key, i: jax.random.key(0)), "the key is not used: one noise is shared"),
    "one key for all steps": (_euler_maruyama(key_of=lambda key, i: key), "one key for all steps"),
    "no noise": (lambda path, field, diffusion: solvers.heun(field), "no noise is added"),
    "no known kind": (_euler_maruyama(lambda u, s, size, beta: 0.7 * u + size**2 * 0.8 * s), "no known cause fits"),
    "needs numbers": (
        lambda path, field, diffusion: lambda key, x, ts: np.asarray(x),
        "cannot be traced by jax.jit and jax.vmap",
    ),
}


@pytest.mark.parametrize(
    ("make_solver", "words"),
    _planted(
        WRONG_DIFFUSIONS,
        {"no score", "sign of the score", "h for sqrt(h)", "no noise", "beta for sigma in both", "no known kind"},
    ),
)
def test_mistakes_in_stochastic_solvers_are_named(make_solver, words):
    report = verify.diffusion(make_solver)
    assert not report.passed
    assert words in report.causes[0] or words in report.causes[1]


def _near(t, time):
    """1.05 in one fifth of t, 1 at others."""
    return 1 + 0.05 * (jnp.abs(t - time) <= 0.1)


def _off_diffusion(drift=None, noise=None):
    """Euler-Maruyama with factors (t) of u, of sigma^2 s / 2 and of the noise."""
    field_factor, score_factor = drift or (lambda t: 1.0, lambda t: 1.0)
    noise_factor = noise or (lambda t: 1.0)

    def make_solver(path, field, diffusion):
        def solve(key, x, ts):
            def step(x, now):
                i, t, t_next = now
                h, size = t_next - t, diffusion(t)
                view = conversions.from_field(path, field(x, t), x, t)
                z = jax.random.normal(jax.random.fold_in(key, i), x.shape)
                drift = field_factor(t) * view.field + score_factor(t) * size**2 / 2 * view.score
                return x + h * drift + noise_factor(t) * size * jnp.sqrt(h) * z, None

            return jax.lax.scan(step, x, (jnp.arange(len(ts) - 1), ts[:-1], ts[1:]))[0]

        return solve

    return make_solver


OFF_DIFFUSIONS = {
    "score at 0.9": (_off_diffusion((lambda t: 1.0, lambda t: _near(t, 0.9))), 0),
    "field at 0.1": (_off_diffusion((lambda t: _near(t, 0.1), lambda t: 1.0)), 0),
    "drift at 0.5": (_off_diffusion((lambda t: _near(t, 0.5), lambda t: _near(t, 0.5))), 0),
    "noise at 0.3": (_off_diffusion(noise=lambda t: _near(t, 0.3)), 1),
    "noise at 0.7": (_off_diffusion(noise=lambda t: 2 - _near(t, 0.7)), 1),
}


@pytest.mark.parametrize(
    ("make_solver", "row"),
    [
        pytest.param(*values, id=name, marks=[] if name == "score at 0.9" else [pytest.mark.slow])
        for name, values in OFF_DIFFUSIONS.items()
    ],
)
def test_a_stochastic_solver_that_is_5_percent_off_somewhere_fails(make_solver, row):
    report = verify.diffusion(make_solver)
    assert [check.is_passed for check in report.checks[:2]] == [row != 0, row != 1]


@pytest.mark.slow
def test_a_law_that_holds_for_every_sigma_does_not_hide_the_wrong_sigma():
    """With beta for sigma in drift and noise alike the end has the right law (V8): only the steps show it."""
    report = verify.diffusion(WRONG_DIFFUSIONS["beta for sigma in both"][0])
    assert [check.is_passed for check in report.checks] == [False, False, True, True, True, True]


# Whole batches


def _one(key, y):
    noise_key, solver_key = jax.random.split(key)
    x = jax.random.normal(noise_key, (2,))
    return solvers.integrate(solvers.heun(guidance.given(FIELD, y)), solver_key, x, jnp.linspace(0, 1, 17))


_ends = jax.jit(jax.vmap(_one))


def _batch(key, y):
    return _ends(jax.random.split(key, len(y)), y)


def _without_variance(key, y, variance):
    """The labels' own laws with a variance less in every direction."""
    means, covariances = MIXTURE.means.reshape(3, 2), MIXTURE.covariances.reshape(3, 2, 2)
    roots = jnp.linalg.cholesky(covariances - variance * jnp.eye(2)[None])
    noise = jax.random.normal(key, (len(y), 2))
    return means[y] + jnp.sum(roots[y] * noise[:, None, :], axis=2)


def _one_noise(key, y):
    """The starts differ, and every step adds one noise to the whole batch."""
    solver = solvers.euler_maruyama
    starts = jax.random.normal(key, (len(y), 2))

    def end(x, y):
        rule = solver(PATH, guidance.given(FIELD, y), solvers.root_beta(PATH))
        return solvers.integrate(rule, key, x, jnp.linspace(0, 1, 17))

    return jax.vmap(end)(starts, y)


@pytest.mark.parametrize("seed", range(5))
def test_a_right_batch_passes(seed):
    verify.samples(_batch, MIXTURE, seed=seed).require()


WRONG_BATCHES = {
    "one key for the batch": (lambda key, y: _ends(jnp.broadcast_to(key, y.shape), y), "one key for the batch"),
    "one noise for the batch": (jax.jit(_one_noise), "samples of a call share their noise"),
    "fixed key": (lambda key, y: _batch(jax.random.key(3), y), "the key is not used"),
    "labels ignored": (lambda key, y: _batch(key, jnp.full_like(y, NULL)), "labels are ignored"),
    "labels shifted": (lambda key, y: _batch(key, (y + 1) % 3), "labels are shifted by one: y + 1 for y"),
    "sign": (lambda key, y: -_batch(key, y), "the sign is wrong"),
    "noise": (lambda key, y: jax.random.normal(key, (len(y), 2)), "the samples are still noise"),
    "no known kind": (lambda key, y: 1.5 * _batch(key, y), "no known cause fits"),
    "noise too many": (
        lambda key, y: _batch(key, y) + 0.5 * jax.random.normal(jax.random.fold_in(key, 1), (len(y), 2)),
        "there is a variance of 0.25 too many in every direction",
    ),
    "noise missing": (lambda key, y: _without_variance(key, y, 0.1), "a variance of 0.1 is missing in every direction"),
    "5 % too wide": (lambda key, y: 1.05 * _batch(key, y), "no known cause fits"),
    "too few": (lambda key, y: _batch(key, y)[:5], "gives the shape (5, 2) for 4096 labels"),
    "raises": (lambda key, y: 1 / 0, "raised ZeroDivisionError"),
}


@pytest.mark.parametrize(("draw", "words"), _planted(WRONG_BATCHES))
def test_mistakes_in_batches_are_named(draw, words):
    report = verify.samples(draw, MIXTURE)
    assert not report.passed
    assert words in report.causes[0]


@pytest.mark.parametrize("num_samples", [0, 1, 5, 2.5])
def test_too_few_samples_to_judge_are_refused(num_samples):
    with pytest.raises((TypeError, ValueError), match="num_samples must be"):
        verify.samples(_batch, MIXTURE, num_samples=num_samples)

"""Verification of steering by measurements: exact methods pass, and each planted mistake is named."""

import jax
import jax.numpy as jnp
import pytest

from cfgjax import conversions, guidance, mixtures, paths, solvers, steering, verify
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Pair
from cfgjax.verify.posteriors import NOISES
from cfgjax.verify.reference import skewed_mixture

PRIOR_VARIANCE = 0.64
"""Of the Gaussian that ``verify.posterior`` takes by default."""


def steered(change=lambda correction, c: correction, **parts):
    """A correction by second moments as a user writes it, whose parts may be replaced by wrong ones.

    ``parts`` are functions of the record of what is known at one state: x, z (denoised), A, m, s, c, jacobian.
    """

    def method(path, field, measurement):
        denoiser = conversions.denoiser_of(path, field)

        def corrected(x, t):
            c = paths.coefficients(path, t)
            z, pull = jax.vjp(lambda x: denoiser(x, t), x)
            matrix = jax.jacfwd(measurement.operator)(x)
            jacobian = jax.jacrev(lambda x: denoiser(x, t))(x)
            known = {
                "x": x,
                "z": z,
                "A": matrix,
                "m": measurement.value,
                "s": measurement.noise_std,
                "c": c,
                "J": jacobian,
            }
            known["V"] = c.beta**2 / c.alpha * jacobian
            residual = parts.get("residual", lambda k: k["m"] - jnp.dot(k["A"], k["z"]))(known)
            covariance = parts.get("covariance", _covariance)(known)
            back = jnp.dot(parts.get("adjoint", lambda k: k["A"].T)(known), jnp.linalg.solve(covariance, residual))
            correction = change(parts.get("pull", lambda k, back: pull(back)[0])(known, back), c)
            return field(x, t) + c.beta * c.wronskian / c.alpha * correction

        return corrected

    return method


def _covariance(known, variance=None):
    variance = known["V"] if variance is None else variance
    return known["s"] ** 2 * jnp.eye(len(known["m"])) + known["A"] @ variance @ known["A"].T


def _unit_prior(known):
    c = known["c"]
    return _covariance(known, c.beta**2 / (c.alpha**2 + c.beta**2) * jnp.eye(len(known["x"])))


def _guided_after(path, field, measurement):
    """The labelled side alone is corrected, and guidance at w = 3 comes after: the correction counts three times."""
    own = steered()(path, field, measurement)
    null, labelled = (lambda x, t, y, field=field: field(x, t) for field in (field, own))
    pair = Pair(lambda x, t, y: (null(x, t, y), labelled(x, t, y)), labelled, null)
    return guidance.given(guidance.extrapolate(pair, 3.0), 0)


MISTAKES = {
    "no Jacobian": (steered(pull=lambda k, back: back), "the Jacobian dD/dx is missing"),
    "1 / alpha for the Jacobian": (steered(pull=lambda k, back: back / k["c"].alpha), "1 / alpha stands in its place"),
    "sigma": (
        steered(covariance=lambda k: k["s"] * jnp.eye(3) + k["A"] @ k["V"] @ k["A"].T),
        "sigma is used for sigma^2",
    ),
    "noisy x": (steered(residual=lambda k: k["m"] - k["A"] @ k["x"]), "the residual is that of the noisy x"),
    "x / alpha": (steered(residual=lambda k: k["m"] - k["A"] @ k["x"] / k["c"].alpha), "that of x / alpha"),
    "no A V A^T": (steered(covariance=lambda k: k["s"] ** 2 * jnp.eye(3)), "as in DPS"),
    "the prior's covariance": (
        steered(covariance=lambda k: _covariance(k, PRIOR_VARIANCE * jnp.eye(3))),
        "V is the prior's covariance",
    ),
    "a prior of variance 1": (steered(covariance=_unit_prior), "right for a prior of variance 1 alone"),
    "no alpha": (steered(lambda g, c: c.alpha * g), "alpha is missing"),
    "no beta": (steered(lambda g, c: g / c.beta), "beta is missing"),
    "no b": (steered(lambda g, c: c.alpha / (c.beta * c.wronskian) * g), "b_t is missing"),
    "sign": (steered(lambda g, c: -g), "the sign of the correction"),
    "A for its transpose": (steered(adjoint=lambda k: k["A"]), "A is not transposed"),
    "exchanged": (steered(adjoint=lambda k: (jnp.eye(3) - k["A"]).T), "what is measured and what is missing"),
    "twice": (steered(lambda g, c: 2 * g), "a factor 2 too many"),
    "half": (steered(lambda g, c: g / 2), "a factor 1/2 too many"),
    "guided after": (_guided_after, "the correction acts 3 times: its scale is another, or one side alone"),
    "ignored": (lambda path, field, measurement: field, "the measurement is ignored"),
    "as a solver": (
        lambda *given: solvers.heun(steered(lambda g, c: 2 * g)(*given)),
        "a factor 2 too many",
    ),
    "no known kind": (steered(lambda g, c: g * (1 + c.alpha)), "no known cause fits"),
    "no field": (lambda path, field, measurement: 3.0, "makes float, neither a field"),
    "raises": (lambda path, field: field, "raised TypeError"),
    "not finite": (lambda path, field, m: lambda x, t: x * jnp.nan, "gives NaN or inf for all examples"),
}


FAST = {"guided after", "no field", "raises", "not finite"}


@pytest.mark.parametrize(
    ("method", "words"),
    [pytest.param(*row, id=name, marks=[] if name in FAST else [pytest.mark.slow]) for name, row in MISTAKES.items()],
)
def test_mistakes_in_corrections_are_named(method, words):
    report = verify.posterior(method)
    assert not report.passed
    assert len(report.causes) == 1, report
    assert words in report.causes[0], report


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_a_correction_by_second_moments_is_exact_on_one_gaussian(seed):
    """Mean and covariance of an affine field are exact by few draws: far under what is allowed."""
    report = verify.posterior(steered(), seed=seed)
    report.require()
    assert max(check.measured for check in report.checks if check.name.startswith("bias")) < 1e-4


@pytest.mark.slow
def test_a_correction_by_second_moments_is_exact_on_another_path_and_gaussian():
    skewed = LabelledMixture(jnp.ones(1), jnp.ones((1, 2)), jnp.asarray([[[0.5, 0.3], [0.3, 0.4]]]))
    verify.posterior(steered(), paths.cosine(), skewed).require()


def _exact(path, field, measurement):
    return guidance.given(mixtures.posterior(skewed_mixture(), measurement).vector_field(path), 3)


def _exact_by_noise(path, field, measurement):
    return solvers.euler_maruyama(path, _exact(path, field, measurement), solvers.root_beta(path))


@pytest.mark.slow
@pytest.mark.parametrize("method", [_exact, _exact_by_noise])
def test_the_exact_posterior_passes_on_a_mixture(method):
    report = verify.posterior(method, mixture=skewed_mixture())
    report.require()
    assert sum("modes" in check.name for check in report.checks) == len(NOISES)


@pytest.mark.slow
def test_second_moments_are_biased_on_a_mixture_and_the_report_says_why():
    report = verify.posterior(steered(), mixture=mixtures.ring(8))
    assert report.causes == ("p(z|x) is taken for a Gaussian, which is exact on one Gaussian alone",)
    assert sum(not check.is_passed for check in report.checks) >= 5


@pytest.mark.slow
def test_a_mistake_is_named_on_a_mixture_too():
    assert verify.posterior(MISTAKES["twice"][0], mixture=skewed_mixture()).causes == ("a factor 2 too many",)


def _pi_gdm(path, field, measurement):
    return steering.pi_gdm(path, field, measurement, prior_variance=PRIOR_VARIANCE)


@pytest.mark.slow
@pytest.mark.parametrize("method", [steering.mmps, _pi_gdm])
def test_the_librarys_methods_of_second_moments_pass_on_one_gaussian(method):
    verify.posterior(method).require()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "words"),
    [
        (steering.dps, "as in DPS"),
        (steering.pi_gdm, "right for a prior of variance 1 alone"),
        (steering.tmpd, "its row sums, as in TMPD"),
        (steering.dps_normalized, "no known cause fits"),
    ],
)
def test_the_librarys_other_methods_are_said_to_be_what_they_are(method, words):
    (cause,) = verify.posterior(method).causes
    assert words in cause

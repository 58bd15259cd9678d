"""The tables of docs/conventions.md, row by row: each codebase's own formulas, written by hand, give our guided field.

The oracle here is NumPy's own, so that nothing of the library stands on both sides.
"""

import itertools
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers
from cfgjax.conversions import time_at
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import GaussianPath

PAGE = (Path(__file__).parent.parent.parent / "docs" / "conventions.md").read_text()
Y, NULL = 1, 3
LINEAR, COSINE, SQUARE = paths.linear(), paths.cosine(), paths.polynomial(2)
ORIGINAL = paths.variance_preserving(zero_terminal=False)
ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))

pytestmark = pytest.mark.usefixtures("x64")


class Ours(NamedTuple):
    """What a row says: the path, its t and x, the guided field there, and the scale w."""

    path: GaussianPath
    t: float
    x: np.ndarray
    field: np.ndarray
    scale: float


@pytest.fixture
def expected(skewed_arrays):
    """(x, a, b, label) -> E[z|x], E[noise|x], grad log p(x) for x = a z + b noise; label 3 for all components."""
    weights, means, covariances = skewed_arrays

    def at(x, a, b, label):
        chosen = range(3) if label == NULL else [label]
        precisions = [np.linalg.inv(a**2 * covariances[k] + b**2 * np.eye(2)) for k in chosen]
        residuals = [x - a * means[k] for k in chosen]
        exponents = [
            -0.5 * r @ p @ r + 0.5 * np.linalg.slogdet(p)[1] for r, p in zip(residuals, precisions, strict=True)
        ]
        posterior = np.array([weights[k] for k in chosen]) * np.exp(exponents)
        score = -sum(w * p @ r for w, p, r in zip(posterior, precisions, residuals, strict=True)) / posterior.sum()
        noise = -b * score
        return (x - b * noise) / a, noise, score

    return at


def _both(expected, x, a, b):
    return expected(x, a, b, Y), expected(x, a, b, NULL)


def lecture(expected, x, s):
    t, a, b = 0.3, 0.3**2, 1 - 0.3**2
    (z, noise, _), (z_null, noise_null, _) = _both(expected, x, a, b)
    labelled, null = 2 * t * (z - noise), 2 * t * (z_null - noise_null)
    return Ours(SQUARE, t, x, (1 - s) * null + s * labelled, s)


def flow_matching(expected, x, s):
    t = 0.3
    (z, noise, _), (z_null, noise_null, _) = _both(expected, x, t, 1 - t)
    return Ours(LINEAR, t, x, (1 + s) * (z - noise) - s * (z_null - noise_null), 1 + s)


def torchcfm(expected, x, s):
    t, quarter = 0.3, np.pi / 2
    a, b = np.sin(quarter * t), np.cos(quarter * t)
    z, noise, _ = expected(x, a, b, Y)
    return Ours(COSINE, t, x, quarter * (b * z - a * noise), 1.0)


def sit(expected, x, s):
    t, quarter = 0.3, np.pi / 2
    a, b = np.sin(quarter * t), np.cos(quarter * t)
    (z, noise, score), (z_null, noise_null, _) = _both(expected, x, a, b)
    labelled, null = quarter * (b * z - a * noise), quarter * (b * z_null - a * noise_null)
    ratio = a / (quarter * b)
    by_sit = (ratio * labelled - x) / (b**2 + ratio * quarter * a * b)
    np.testing.assert_allclose(by_sit, score, rtol=1e-9)
    return Ours(COSINE, t, x, null + s * (labelled - null), s)


def _of_step(step):
    """a, b, and on the straight path t, of one of DDPM's 1,000 steps."""
    a, b = np.sqrt(ALPHA_BAR[step]), np.sqrt(1 - ALPHA_BAR[step])
    return a, b, 1 / (1 + b / a)


def diffusers_epsilon(expected, x, s):
    a, b, t = _of_step(600)
    (_, labelled, _), (_, null, _) = _both(expected, x, a, b)
    noise, ours = null + s * (labelled - null), t / a * x
    return Ours(LINEAR, t, ours, (ours - noise) / t, s)


def diffusers_v_prediction(expected, x, s):
    a, b, t = _of_step(300)
    (z, noise, _), (z_null, noise_null, _) = _both(expected, x, a, b)
    labelled, null = a * noise - b * z, a * noise_null - b * z_null
    guided = null + s * (labelled - null)
    return Ours(LINEAR, t, t / a * x, (a * x - b * guided) - (a * guided + b * x), s)


def diffusers_flow(expected, x, s):
    level = 0.7
    (z, noise, _), (z_null, noise_null, _) = _both(expected, x, 1 - level, level)
    labelled, null = noise - z, noise_null - z_null
    return Ours(LINEAR, 1 - level, x, -(null + s * (labelled - null)), s)


def edm(expected, x, s):
    level = 1.7
    (labelled, _, _), (null, _, _) = _both(expected, x, 1.0, level)
    guided, t = null + s * (labelled - null), 1 / (1 + level)
    slope = (x - guided) / level
    by_chain_rule = x + t * slope * (-1 / t**2)
    field = (guided - t * x) / (1 - t)
    np.testing.assert_allclose(field, by_chain_rule, rtol=1e-9)
    return Ours(LINEAR, t, t * x, field, s)


def hackable_diffusion(expected, x, s):
    theirs, quarter = 0.6, np.pi / 2
    a, b = np.cos(quarter * theirs), np.sin(quarter * theirs)
    (z, noise, _), (z_null, noise_null, _) = _both(expected, x, a, b)
    labelled, null = quarter * (-b * z + a * noise), quarter * (-b * z_null + a * noise_null)
    return Ours(COSINE, 1 - theirs, x, -((1 + s) * labelled - s * null), 1 + s)


def azula(expected, x, s):
    theirs = 0.6
    a, b = theirs * 1e-3 + (1 - theirs), theirs + (1 - theirs) * 1e-3
    (labelled, _, _), (null, _, _) = _both(expected, x, a, b)
    t = 1 / (1 + b / a)
    ours = t / a * x
    return Ours(LINEAR, t, ours, (labelled + s * (labelled - null) - ours) / (1 - t), 1 + s)


def flaxdiff(expected, x, s):
    a, b, t = _of_step(300)
    (_, labelled, _), (_, null, _) = _both(expected, x, a, b)
    noise, ours = null + s * (labelled - null) if s > 0 else labelled, t / a * x
    return Ours(LINEAR, t, ours, (ours - noise) / t, s if s > 0 else 1.0)


def sbi(expected, x, s):
    level = 1.7
    (_, _, posterior), (_, _, prior) = _both(expected, x, 1.0, level)
    score, t = (posterior - prior) * s + prior, 1 / (1 + level)
    return Ours(LINEAR, t, t * x, (t * x + level * score) / t, s)


def gensbi(expected, x, s):
    t = 0.3
    z, noise, score = expected(x, t, 1 - t, Y)
    np.testing.assert_allclose((t * (z - noise) - x) / (1 - t), score, rtol=1e-9)
    assert np.abs((-t * (z - noise) - x) / (1 - t) - score).max() > 0.1
    return Ours(LINEAR, t, x, z - noise, 1.0)


def _rate(time):
    return 0.1 + 19.9 * time


def score_sde(expected, x, s):
    theirs = 0.4
    mean = np.exp(-0.25 * theirs**2 * 19.9 - 0.5 * theirs * 0.1)
    (_, _, labelled), (_, _, null) = _both(expected, x, mean, np.sqrt(1 - mean**2))
    score = null + s * (labelled - null)
    drift = -0.5 * _rate(theirs) * x - 0.5 * _rate(theirs) * score
    return Ours(ORIGINAL, 1 - theirs, x, -drift, s)


def guided_diffusion(expected, x, s):
    a, b, t = _of_step(600)
    (_, labelled, score), (_, _, score_null) = _both(expected, x, a, b)
    gradient = score - score_null
    noise, ours = labelled - b * s * gradient, t / a * x
    return Ours(LINEAR, t, ours, (ours - noise) / t, 1 + s)


def ho_and_salimans(expected, x, s):
    level = -1.3
    a, b = np.sqrt(1 / (1 + np.exp(-level))), np.sqrt(1 / (1 + np.exp(level)))
    (_, labelled, _), (_, null, _) = _both(expected, x, a, b)
    noise, quarter = (1 + s) * labelled - s * null, np.pi / 2
    field = quarter * (b * (x - b * noise) / a - a * noise)
    return Ours(COSINE, np.arctan2(a, b) / quarter, x, field, 1 + s)


ROWS = {
    "MIT 6.S184": lecture,
    "flow_matching": flow_matching,
    "torchcfm": torchcfm,
    "SiT": sit,
    "diffusers, `epsilon`": diffusers_epsilon,
    "diffusers, `v_prediction`": diffusers_v_prediction,
    "diffusers, flow matching": diffusers_flow,
    "EDM, EDM2": edm,
    "hackable_diffusion": hackable_diffusion,
    "azula": azula,
    "flaxdiff": flaxdiff,
    "sbi, NPSE": sbi,
    "gensbi": gensbi,
    "score_sde": score_sde,
    "guided-diffusion (ADM)": guided_diffusion,
    "Ho & Salimans": ho_and_salimans,
}


def _table(heading):
    """The rows of cells of the first table under a heading of the page."""
    table = PAGE.split(f"## {heading}")[1].split("\n|", 1)[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()[2:]]


def _first_column(heading):
    return [row[0] for row in _table(heading)]


def test_every_row_of_the_page_has_its_test():
    assert _first_column("From theirs to ours") == list(ROWS)
    assert _first_column("Schedules") == list(SCHEDULES)


@cache
def _guided(path):
    """The library's guided field of the exact mixture, compiled once for each path."""

    def at(mixture, x, t, scale):
        return guidance.classifier_free(mixture.vector_field(path), scale, NULL)(x, t, jnp.asarray(Y))

    return jax.jit(at)


@pytest.mark.parametrize("row", list(ROWS))
def test_their_guided_prediction_is_our_guided_field(row, expected, skewed_arrays):
    mixture = LabelledMixture(*map(jnp.asarray, skewed_arrays))
    for x, scale in itertools.product(np.array([[0.3, -1.0], [1.5, 0.4]]), (0.0, 0.4, 2.5)):
        ours = ROWS[row](expected, x, scale)
        found = _guided(ours.path)(mixture, ours.x, ours.t, ours.scale)
        np.testing.assert_allclose(found, ours.field, rtol=1e-8, atol=1e-9)


SCHEDULES = {
    "flow_matching `CondOTScheduler`": (LINEAR, lambda t: (t, 1 - t)),
    "flow_matching `PolynomialConvexScheduler(n)`": (paths.polynomial(3), lambda t: (t**3, 1 - t**3)),
    "flow_matching `CosineScheduler`": (COSINE, lambda t: (np.sin(np.pi / 2 * t), np.cos(np.pi / 2 * t))),
    "flow_matching `VPScheduler`": (ORIGINAL, lambda t: _by_exponent(0.5 * (1 - t) ** 2 * 19.9 + (1 - t) * 0.1)),
    "flow_matching `LinearVPScheduler`": (
        GaussianPath(lambda t: t, lambda t: jnp.sqrt(1 - t**2)),
        lambda t: (t, np.sqrt(1 - t**2)),
    ),
    "torchcfm `ConditionalFlowMatcher(sigma=0)`": (LINEAR, lambda t: (t, 1 - t)),
    "torchcfm `VariancePreservingConditionalFlowMatcher(sigma=0)`": (
        COSINE,
        lambda t: (np.sin(np.pi / 2 * t), np.cos(np.pi / 2 * t)),
    ),
    "SiT `Linear`": (LINEAR, lambda t: (t, 1 - t)),
    "SiT `GVP`": (COSINE, lambda t: (np.sin(t * np.pi / 2), np.cos(t * np.pi / 2))),
    "SiT `VP`": (ORIGINAL, lambda t: _by_exponent(0.5 * ((1 - t) ** 2) * 19.9 + (1 - t) * 0.1)),
    "hackable_diffusion `RFSchedule`": (LINEAR, lambda t: (1 - (1 - t), 1 - t)),
    "hackable_diffusion `CosineSchedule`": (
        COSINE,
        lambda t: (np.cos(0.5 * np.pi * (1 - t)), np.sin(0.5 * np.pi * (1 - t))),
    ),
    "hackable_diffusion `LinearDiffusionSchedule`": (
        ORIGINAL,
        lambda t: _by_exponent(0.1 * (1 - t) + 0.5 * np.square(1 - t) * 19.9),
    ),
    "score_sde `VPSDE`": (ORIGINAL, lambda t: _by_exponent(0.5 * (1 - t) ** 2 * 19.9 + (1 - t) * 0.1)),
    "DDPM, ADM, DiT: 1,000 steps of `linear` betas": (paths.ddpm(), lambda t: _of_step(round(999 * (1 - t)))[:2]),
}


def _by_exponent(exponent):
    return np.exp(-0.5 * exponent), np.sqrt(1 - np.exp(-exponent))


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_their_schedule_is_our_path(name):
    path, theirs = SCHEDULES[name]
    for t in 1 - np.array([949, 600, 70]) / 999:
        found = paths.coefficients(path, t)
        np.testing.assert_allclose((found.alpha, found.beta), theirs(t), rtol=1e-9)


def test_one_rule_serves_any_path(expected, skewed):
    """Their a and b find t, x = x' alpha / a, and the denoiser is the same function: DDPM's step 420, cosine path."""
    x, (a, b, _) = np.array([0.3, -1.0]), _of_step(420)

    def found(x, a, b):
        t = time_at(COSINE, a, b)
        return skewed.denoiser(COSINE)(x * COSINE.alpha(t) / a, t, jnp.asarray(Y))

    np.testing.assert_allclose(jax.jit(found)(x, a, b), expected(x, a, b, Y)[0], rtol=1e-9)


def test_an_interval_of_noise_levels_or_of_their_times_is_one_of_ours():
    low, high = 0.3, 2.5
    scale = guidance.interval(3.0, 1 / (1 + high), 1 / (1 + low))
    for level in (0.1, 0.29, 0.31, 1.0, 2.49, 2.51, 40.0):
        wanted = 3.0 if low < level <= high else 1.0
        assert float(guidance.scale_at(scale, 1 / (1 + level))) == wanted
    scale = guidance.interval(3.0, 1 - 0.8, 1 - 0.1)
    for theirs in (0.05, 0.11, 0.5, 0.79, 0.81):
        assert float(guidance.scale_at(scale, 1 - theirs)) == (3.0 if 0.1 <= theirs <= 0.8 else 1.0)


def test_score_sdes_reverse_diffusion_is_memoryless():
    """Its g(t')^2 is the rate of the noise, and our sigma_t^2 = 2 b_t that of the same path."""
    for t in (0.1, 0.5, 0.9):
        sigma = solvers.memoryless(ORIGINAL, start=0.02)(jnp.asarray(t))
        np.testing.assert_allclose(sigma**2, _rate(1 - t), rtol=1e-9)


def _levels(name, n):
    """The levels of diffusers 0.42.1 for n steps, by its formulas; run there by findings/diffusers_flow_grids.sh."""
    lowest = _shift(0.001) if name == "the same with `shift=3.0`" else 0.001
    euler = np.append(np.linspace(1, lowest, n), 0)
    return {
        "FlowMatchEuler, FlowMatchHeun": euler,
        "the same after `set_shift(3.0)`": _shift(euler),
        "the same with `shift=3.0`": _shift(euler),
        "DPM++": 0.999 * np.linspace(1, 0, n + 1),
        "UniPC": np.array([1 - 1e-6, *np.linspace(1, 0.001, n + 1)[1:-1], 0]),
        "DEIS": np.append(0.999 * np.linspace(1, 0, n + 1)[:-1], 0.999 / n),
    }[name]


def _shift(level):
    return 3 * level / (1 + 2 * level)


def test_the_grids_of_diffusers_are_the_pages_numbers_and_its_expressions():
    names = {"jnp": jnp, "time_grids": solvers.time_grids}
    for name, levels, times in _table("diffusers: steps and guiders"):
        np.testing.assert_allclose([float(level) for level in levels.split(",")], _levels(name, 4), atol=5.1e-7)
        for n in (4, 7):
            if name != "DEIS":
                found = eval(times.strip("`"), {**names, "n": n})
                np.testing.assert_allclose(1 - found, _levels(name, n), atol=1.1e-6)


def test_the_time_steps_of_diffusers_are_cut_off():
    cut_off = (("DPM++", "999, 749, 499, 249"), ("DEIS", "999, 749, 499, 249"), ("UniPC", "999, 750, 500, 250"))
    for name, page in cut_off:
        cut = np.floor(1000 * _levels(name, 4)[:4]).astype(int)
        assert ", ".join(map(str, cut)) == page and page in PAGE


@pytest.mark.parametrize(("n", "page"), [(10, "2 to 6 of 10"), (7, "1 to 4 of 7")])
def test_guiders_start_and_stop_at_shares_of_the_steps(n, page):
    start, stop, ts = 0.25, 0.75, solvers.time_grids.shifted(jnp.linspace(0, 1, n + 1), 3.0)
    scale = guidance.interval(3.0, ts[int(start * n)], ts[int(stop * n)])
    guided = [i for i in range(n) if float(guidance.scale_at(scale, ts[i])) == 3.0]
    assert guided == [i for i in range(n) if int(start * n) <= i < int(stop * n)]
    assert f"{guided[0]} to {guided[-1]} of {n}" == page and page in PAGE


def _by_rule(rule, skewed, x, t, w):
    """The field of a rule on the straight path, guided with w."""

    def field(x, t):
        pair = rule(guidance.pair(skewed.vector_field(LINEAR), NULL))
        return guidance.extrapolate(pair, w)(x, t, jnp.asarray(Y))

    return np.asarray(jax.jit(field)(x, t))


def _apg(labelled, null, s, original, eta=0.2, threshold=0.1):
    """diffusers 0.42.1: findings/diffusers_apg.sh."""
    change = labelled - null
    change = change * min(1, threshold / np.linalg.norm(change))
    unit = labelled / np.linalg.norm(labelled)
    parallel = (change @ unit) * unit
    update = change - parallel + eta * parallel
    return (labelled if original else null) + s * update


def test_projected_guidance_of_diffusers_is_ours_in_one_setting_only(expected, skewed):
    x, t, w = np.array([0.3, -1.0]), 0.6, 3.0
    found = _by_rule(lambda pair: guidance.projected(LINEAR, pair, eta=0.2, max_norm=0.1), skewed, x, t, w)
    (z, noise, _), (z_null, noise_null, _) = _both(expected, x, t, 1 - t)
    np.testing.assert_allclose((_apg(z, z_null, w - 1, original=True) - x) / (1 - t), found, rtol=1e-9)
    assert np.linalg.norm(z - z_null) > 0.2
    for other in (w, w - 1):
        assert np.abs((_apg(z, z_null, other, original=False) - x) / (1 - t) - found).max() > 0.1
    assert np.abs(_apg(z - noise, z_null - noise_null, w - 1, original=True) - found).max() > 0.1
    jump = _apg(z, z_null, 1.0, original=False, eta=0.0) - z
    assert np.abs(jump).max() > 0.1


def _tcfg(labelled, null, s):
    """diffusers 0.42.1: the null prediction's part along the first right singular vector of the two."""
    first = np.linalg.svd(np.stack([labelled, null]))[2][0]
    null = (null @ first) * first
    return null + s * (labelled - null)


def test_tangential_guidance_of_diffusers_is_ours_on_noise_predictions(expected, skewed):
    x, t, w = np.array([0.3, -1.0]), 0.6, 3.0
    found = _by_rule(lambda pair: guidance.tangential_damping(LINEAR, pair), skewed, x, t, w)
    (z, noise, _), (z_null, noise_null, _) = _both(expected, x, t, 1 - t)
    np.testing.assert_allclose((x - _tcfg(noise, noise_null, w)) / t, found, rtol=1e-9)
    assert np.abs(_tcfg(z - noise, z_null - noise_null, w) - found).max() > 0.1


def test_cfg_zero_star_of_diffusers_is_ours_with_a_zero_first_step(expected, skewed):
    x, w, ts = np.array([0.3, -1.0]), 3.0, (0.0, 0.25, 0.5)
    field = guidance.extrapolate(guidance.cfg_zero_star(guidance.pair(skewed.vector_field(LINEAR), NULL)), w)
    field = guidance.given(guidance.zero_init(field, ts[1]), jnp.asarray(Y))
    found = solvers.integrate(solvers.euler(field), jax.random.key(0), jnp.asarray(x), jnp.asarray(ts))
    (z, noise, _), (z_null, noise_null, _) = _both(expected, x, ts[1], 1 - ts[1])
    labelled, null = z - noise, z_null - noise_null
    null = (labelled @ null) / (null @ null) * null
    np.testing.assert_allclose(found, x + 0.25 * (null + w * (labelled - null)), rtol=1e-9)


def test_optimal_pairs_leave_a_label_half_of_the_noise():
    """In one dimension the optimal plan keeps the order: the label at -2 gets the lower half of N(0, 1)."""
    mean, deviation = np.sqrt(2 / np.pi), np.sqrt(1 - 2 / np.pi)
    lower, upper = np.split(np.sort(np.random.default_rng(0).standard_normal(400_000)), 2)
    np.testing.assert_allclose((lower.mean(), upper.mean()), (-mean, mean), atol=0.005)
    np.testing.assert_allclose((lower.std(), upper.std()), deviation, atol=0.005)
    assert f"mean $\\mp {mean:.2f}$ and deviation {deviation:.2f}".replace("0.", ".") in PAGE


def test_the_adjusted_step_of_hackable_diffusion_tends_to_another_law():
    """Its formula on data N(1, .3^2): it keeps the old alpha for the data; run there by its script in findings."""
    x = np.array([-1.0, 1.0])  # linear in x: the first two moments of N(0, 1) are enough
    times = np.linspace(1 - 1e-6, 1e-6, 401)
    for time, later in itertools.pairwise(times):
        a, b = 1 - time, time
        noise = b * (x - a) / (a**2 * 0.09 + b**2)
        variance = ((1 - later) - a * later / b) ** 2 * 0.1 / (2 + (a / b) ** 2)
        x = a * (x - b * noise) / a + np.sqrt(later**2 + variance / np.mean(noise**2)) * noise
    assert f"mean {x.mean():.2f}, deviation {x.std():.2f} for $N(1, .3^2)$".replace("0.", ".") in PAGE

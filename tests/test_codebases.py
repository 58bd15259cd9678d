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
from cfgjax.mixtures import LabelledMixture
from cfgjax.path_change import time_at
from cfgjax.types import GaussianPath

PAGE = (Path(__file__).parent.parent / "docs" / "conventions.md").read_text()
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
    "score_sde": score_sde,
    "guided-diffusion (ADM)": guided_diffusion,
    "Ho & Salimans": ho_and_salimans,
}


def _first_column(heading):
    """The first cells of the first table under a heading of the page."""
    table = PAGE.split(f"## {heading}")[1].split("\n|", 1)[1].split("\n\n")[0]
    return [row.strip("|").split(" | ")[0].strip() for row in table.splitlines()[2:]]


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

"""Every rule's formula by hand in NumPy, on a denoiser whose Jacobian is not symmetric."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, paths, steering
from tests.steering.conftest import measured

PATH, T, SCALE, NOISE = paths.cosine(), 0.6, 1.7, 0.4
RNG = np.random.default_rng(8)
MATRIX, WEIGHTS = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 3))
VALUE, X = RNG.normal(size=2), RNG.normal(size=3)

ALPHA, BETA = np.sin(np.pi * T / 2), np.cos(np.pi * T / 2)
B = BETA * (np.pi / 2) / ALPHA
DENOISER = np.tanh(WEIGHTS @ X)
JACOBIAN = (1 - DENOISER**2)[:, None] * WEIGHTS
FIELD = np.pi / 2 * (BETA * DENOISER - ALPHA * (X - ALPHA * DENOISER) / BETA)
ERROR = VALUE - MATRIX @ DENOISER


@pytest.fixture
def field(x64):
    """The field of the denoiser tanh(W x)."""
    return conversions.field_of_denoiser(PATH, lambda x, t: jnp.tanh(jnp.sum(WEIGHTS * x[None], axis=-1)))


def _by_hand(system):
    """G = J^T A^T system^-1 (m - A D)."""
    return JACOBIAN.T @ MATRIX.T @ np.linalg.solve(system, ERROR)


def _pi_gdm():
    spread = BETA**2 * 0.7 / (ALPHA**2 * 0.7 + BETA**2)
    return _by_hand(NOISE**2 * np.eye(2) + spread * MATRIX @ MATRIX.T)


def _tmpd():
    row_sums = MATRIX @ JACOBIAN.T @ MATRIX.T @ np.ones(2)
    return _by_hand(np.diag(NOISE**2 + BETA**2 / ALPHA * row_sums))


def _mmps():
    """One iteration of conjugate gradients: the residual times |residual|^2 / (residual, C residual)."""
    system = NOISE**2 * np.eye(2) + BETA**2 / ALPHA * MATRIX @ JACOBIAN.T @ MATRIX.T
    return JACOBIAN.T @ MATRIX.T @ (ERROR * (ERROR @ ERROR) / (ERROR @ system @ ERROR))


CORRECTIONS = {
    "dps": (steering.dps, {}, lambda: JACOBIAN.T @ MATRIX.T @ ERROR / NOISE**2),
    "dps_normalized": (
        steering.dps_normalized,
        {},
        lambda: 2 * JACOBIAN.T @ MATRIX.T @ ERROR / np.linalg.norm(ERROR),
    ),
    "pi_gdm": (steering.pi_gdm, {"prior_variance": 0.7}, _pi_gdm),
    "tmpd": (steering.tmpd, {}, _tmpd),
    "mmps": (steering.mmps, {"num_iterations": 1}, _mmps),
}


@pytest.mark.parametrize("rule", CORRECTIONS)
@pytest.mark.parametrize("is_schedule", [False, True])
def test_a_correction(field, rule, is_schedule):
    build, settings, by_hand = CORRECTIONS[rule]
    scale = (lambda t: SCALE * t / T) if is_schedule else SCALE
    found = build(PATH, field, measured(MATRIX, VALUE, NOISE), scale, **settings)(jnp.asarray(X), T)
    np.testing.assert_allclose(found, FIELD + SCALE * B * by_hand(), rtol=1e-9)


def test_row_sums_under_zero_are_taken_for_zero(field):
    """A row of A whose row sum is negative has the noise alone as its variance."""
    row_sum = MATRIX @ JACOBIAN.T @ MATRIX.T @ np.ones(2)
    matrix = MATRIX if row_sum.min() < 0 else MATRIX * np.array([[1.0], [-6.0]])
    row_sums = matrix @ JACOBIAN.T @ matrix.T @ np.ones(2)
    assert row_sums.min() < 0
    variances = NOISE**2 + BETA**2 / ALPHA * np.maximum(row_sums, 0)
    by_hand = JACOBIAN.T @ matrix.T @ ((VALUE - matrix @ DENOISER) / variances)
    found = steering.tmpd(PATH, field, measured(matrix, VALUE, NOISE))(jnp.asarray(X), T)
    np.testing.assert_allclose(found, FIELD + B * by_hand, rtol=1e-9)


def test_the_proximal_step_of_diffpir(field):
    """argmin |m - A z|^2 / (2 s^2) + |z - D|^2 / (2 r^2), by its normal equations."""
    spread = BETA**2 / (ALPHA**2 * SCALE)
    matrix = MATRIX.T @ MATRIX / NOISE**2 + np.eye(3) / spread
    wanted = np.linalg.solve(matrix, MATRIX.T @ VALUE / NOISE**2 + DENOISER / spread)
    by_hand = FIELD + np.pi / 2 / BETA * (wanted - DENOISER)
    for strength in (SCALE, lambda t: SCALE * t / T):
        found = steering.diffpir(PATH, field, measured(MATRIX, VALUE, NOISE), strength)(jnp.asarray(X), T)
        np.testing.assert_allclose(found, by_hand, rtol=1e-9)


def test_a_log_likelihood_that_is_not_quadratic(field):
    """log p = sum sin(z): G = J^T cos(D)."""
    found = steering.universal(PATH, field, lambda z: jnp.sum(jnp.sin(z)), SCALE)(jnp.asarray(X), T)
    np.testing.assert_allclose(found, FIELD + SCALE * B * JACOBIAN.T @ np.cos(DENOISER), rtol=1e-9)


def test_a_classifier_of_clean_data(field):
    """G = J^T (L_y - sum_k p_k L_k) for the logits L z; 0 for the null label."""
    logits = RNG.normal(size=(4, 3))
    probs = np.exp(logits @ DENOISER) / np.sum(np.exp(logits @ DENOISER))

    def log_probs(z):
        values = jnp.sum(logits * z[None], axis=-1)
        return values - jnp.log(jnp.sum(jnp.exp(values)))

    for y, gradient in [(2, logits[2] - probs @ logits), (4, np.zeros(3))]:
        likelihood = steering.classifier_likelihood(log_probs, y)
        found = steering.universal(PATH, field, likelihood)(jnp.asarray(X), T)
        np.testing.assert_allclose(found, FIELD + B * JACOBIAN.T @ gradient, rtol=1e-9)


def test_the_projections(field):
    """Onto A z = m, onto a sphere, and two steps uphill."""
    onto = DENOISER + np.linalg.pinv(MATRIX) @ ERROR
    step = DENOISER - 0.3 * 2 * DENOISER
    wanted = {
        "affine": (steering.affine_projection(measured(MATRIX, VALUE, NOISE)), onto),
        "sphere": (lambda z: z / jnp.linalg.norm(z), DENOISER / np.linalg.norm(DENOISER)),
        "ascent": (steering.ascent(lambda z: -jnp.sum(z**2), 0.3, 2), step - 0.3 * 2 * step),
    }
    for projection, point in wanted.values():
        found = steering.projected_constraint(PATH, field, projection)(jnp.asarray(X), T)
        np.testing.assert_allclose(found, FIELD + np.pi / 2 / BETA * (point - DENOISER), rtol=1e-9)

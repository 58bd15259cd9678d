"""Drift and variance of a step of the SDE dX = [u + sigma^2 s / 2] dt + sigma dW, and those of known mistakes."""

from __future__ import annotations

import numpy as np

from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, GaussianPath
from cfgjax.verify.field_bugs import turned_score
from cfgjax.verify.reference import Views

STRENGTHS = (0.5, 1.0, 1.5)
"""The c of sigma_t = c sqrt(2 beta_t)."""

LENGTH = 5e-4
"""The length h of a step."""


class StepLaw:
    """Drift and variance of (S2), and those of known mistakes, at every strength and condition: [strengths, C, D]."""

    def __init__(self, path: GaussianPath, mixture: LabelledMixture, x: Array, t: Array, y: Array) -> None:
        views = Views(mixture, path)
        self.parts = {view: views.values(view, x, t, y) for view in ("field", "score", "noise")}
        self.turned_score = turned_score(self.parts["score"], path, x, t)
        self.mirrored = {view: views.values(view, x, 1 - t, y) for view in ("field", "score")}
        self.beta, self.diffusion = self._coefficients(path, t)
        self.mirrored_diffusion = self._coefficients(path, 1 - t)[1]
        self.drift = self.parts["field"] + self.diffusion**2 / 2 * self.parts["score"]
        self.variance = self.diffusion**2

    def _coefficients(self, path: GaussianPath, t: Array) -> tuple[np.ndarray, np.ndarray]:
        """beta and sigma, as [strengths, C, D]."""
        strengths = np.asarray(STRENGTHS).reshape(-1, 1, 1)
        row = np.expand_dims(np.asarray(path.beta(t), np.float64), (0, 2))
        like = np.ones((len(STRENGTHS), *self.parts["field"].shape))
        return row * like, strengths * np.sqrt(2 * row) * like

    def drifts(self) -> dict[str, np.ndarray]:
        """What known mistakes give for the drift."""
        u, s, noise = self.parts["field"], self.parts["score"], self.parts["noise"]
        diffusion, beta = self.diffusion, self.beta
        return {
            "1/2 is missing: the drift is u + sigma^2 s": u + diffusion**2 * s,
            "1/2 comes twice: the drift is u + sigma^2 s / 4": u + diffusion**2 / 4 * s,
            "the score is missing: the drift is u": u + 0 * diffusion,
            "the score's sign is wrong: the drift is u - sigma^2 s / 2": u - diffusion**2 / 2 * s,
            "sigma is used for sigma^2: the drift is u + sigma s / 2": u + diffusion / 2 * s,
            "beta is used for sigma: the drift is u + beta^2 s / 2": u + beta**2 / 2 * s,
            "beta is used for sigma, and 1/2 is missing: the drift is u + beta^2 s": u + beta**2 * s,
            "1/beta is missing: the drift is u - sigma^2 E / 2, with -E for s": u - diffusion**2 / 2 * noise,
            "E is used for s: the drift is u + sigma^2 E / 2": u + diffusion**2 / 2 * noise,
            "the field's sign in s = (alpha u - alpha' x) / (beta W) is wrong": u
            + diffusion**2 / 2 * self.turned_score,
            "the field is missing: the drift is sigma^2 s / 2": diffusion**2 / 2 * s,
            "the field's sign is wrong: the drift is -u + sigma^2 s / 2": -u + diffusion**2 / 2 * s,
            "the sign is wrong: the drift is -(u + sigma^2 s / 2)": -self.drift,
            "time runs backwards: the drift is that at 1 - t": self.mirrored["field"]
            + self.mirrored_diffusion**2 / 2 * self.mirrored["score"],
        }

    def variances(self) -> dict[str, np.ndarray]:
        """What known mistakes give for the variance over h."""
        diffusion, beta = self.diffusion, self.beta
        return {
            "beta is used for sigma: the noise is beta sqrt(h)": beta**2,
            "sqrt(beta) is used for sigma: the noise is sqrt(beta h)": beta,
            "sqrt(2 beta) is used for sigma, whatever sigma is": 2 * beta,
            "sigma^2 is used for sigma: the noise is sigma^2 sqrt(h)": diffusion**4,
            "sqrt(sigma) is used for sigma: the noise is sqrt(sigma h)": diffusion,
            "sqrt(h) is missing: the noise is sigma": diffusion**2 / LENGTH,
            "h is used for sqrt(h): the noise is sigma h": diffusion**2 * LENGTH,
            "sqrt(2) too many: the noise is sigma sqrt(2 h)": 2 * diffusion**2,
            "sqrt(2) is missing: the noise is sigma sqrt(h / 2)": diffusion**2 / 2,
            "2 is missing: the noise is sigma sqrt(h) / 2": diffusion**2 / 4,
            "2 too many: the noise is 2 sigma sqrt(h)": 4 * diffusion**2,
            "sigma is missing: the noise is sqrt(h)": np.ones_like(diffusion),
            "time runs backwards: the noise is that at 1 - t": self.mirrored_diffusion**2,
        }

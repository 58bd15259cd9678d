"""Mixtures of which every law of guidance is known exactly, in any dimension: their means lie in one plane.

In the plane there is a mixture of three labels with three components each; the other D - 2 coordinates are independent
of it and of the label, normal with one standard deviation. So the tilted law p(x)^(1-w) p(x|y)^w is that of the plane
times the same normal, whatever D; a rule that measures lengths over the whole example sees D.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from cfgjax.mixtures import LabelledMixture
from cfgjax.paths import before_end, coefficients
from cfgjax.types import Array, Condition, GaussianPath, LabelledField, LogClassifier

DIMENSIONS = (2, 16, 256)
LABEL, NEIGHBOUR = 0, 1
"""The label that is requested, and one beside it."""
RADIUS, STD, OTHER_STD = 0.8, 0.16, 0.25
"""Of the components' circle, of a component, and of every coordinate outside the plane: data about within [-1, 1]."""
_SHIFTS = np.asarray([[0.0, -0.18, 0.12], [0.05, 0.0, -0.05], [-0.1, 0.08, 0.0]])
_WEIGHTS = np.asarray([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.3, 0.3, 0.4]])


def _plane(radius: float, std: float) -> LabelledMixture:
    """Nine components on a circle, of three labels in turn, at unequal angles and with unequal weights."""
    angles = 2 * np.pi * np.arange(9).reshape(3, 3).T / 9 + _SHIFTS
    means = radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    covariances = np.broadcast_to(std**2 * np.eye(2), (3, 3, 2, 2))
    return LabelledMixture(*(jnp.asarray(np.float32(each)) for each in (_WEIGHTS, means, covariances)))


def field_of(plane: LabelledMixture, other_std: float, path: GaussianPath) -> LabelledField:
    """The exact field of a mixture in the first two coordinates and N(0, other_std^2) in every other."""
    in_plane = plane.vector_field(path)

    def field(x: Array, t: Array, y: Condition) -> Array:
        c = coefficients(path, before_end(t))
        variance = other_std**2
        slope = (c.alpha * c.alpha_dot * variance + c.beta * c.beta_dot) / (c.alpha**2 * variance + c.beta**2)
        return jnp.concatenate([in_plane(x[:2], t, y), slope * x[2:]])

    return field


@dataclass(frozen=True)
class Problem:
    """The mixture in ``dimension`` coordinates, by its exact field, a weaker one, and its classifier."""

    dimension: int

    @property
    def plane(self) -> LabelledMixture:
        """The mixture of the first two coordinates."""
        return _plane(RADIUS, STD)

    @property
    def null(self) -> int:
        """The null label."""
        return self.plane.num_classes

    def field(self, path: GaussianPath) -> LabelledField:
        """The exact field."""
        return field_of(self.plane, OTHER_STD, path)

    def weak_field(self, path: GaussianPath) -> LabelledField:
        """The exact field of a wider and smaller mixture, in the place of a weaker network."""
        return field_of(_plane(0.9 * RADIUS, 1.5 * STD), 1.2 * OTHER_STD, path)

    def label_log_probs(self, path: GaussianPath) -> LogClassifier:
        """log p_t(y|x), which the plane alone tells."""
        of_plane = self.plane.label_log_probs(path)
        return lambda x, t: of_plane(x[:2], t)

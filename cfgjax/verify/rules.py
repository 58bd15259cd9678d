"""Guidance rules against (G1) of ``guidance``: u_w = u_null + w (u_y - u_null), on the oracle's field.

(V2) The error at a scale is |found - u_w| / |u_w| over states, times and labels, so that a right rule's error is its
     rounding. A cause fits where its formula does at EVERY scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.contracts import Positive, checked
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, GaussianPath, LabelledField, Number
from cfgjax.verify.call_user import require_finite, require_shape, swept
from cfgjax.verify.reference import STRAIGHT, Oracle, Seed, Views, skewed_mixture, states
from cfgjax.verify.report import UNKNOWN, Check, Report, at_most, collected, likely_cause, relative_error
from cfgjax.verify.scales import SCALE_MISTAKES, SCALES, scale_cause

Rule = Callable[[LabelledField, Number, Number], LabelledField]
"""``(field, scale, null_label) -> field``, as ``guidance.classifier_free``."""

_ROWS, _COORDINATES = 24, 16
"""Rows; and coordinates up to which guidance on the first ones alone is looked for."""


@checked
def guidance(
    rule: Rule,
    path: GaussianPath | None = None,
    mixture: Oracle | None = None,
    tolerance: Positive = 1e-4,
    seed: Seed = 0,
) -> Report:
    """The report on a rule (field, scale, null_label) -> field that claims to be classifier-free guidance (G1).

    Checked: w = 0 is the null field, w = 1 the labelled one, and (G1) at five other scales, not whole ones among them.
    Causes told apart: 1 + w, w - 1, 2 w, w / 2, (1 + w) / 2, sqrt(w); guidance applied twice, w^2; any other factor of
    w, such as MeanFlow's 1 / (1 - kappa); the sign of the difference; null and labelled swapped; w cut or rounded to an
    int, ignored, clipped, kept from the first call; a branch at w = 0 or w <= 1; another label's row for the null
    label's; the difference alone; guidance on the first coordinates alone; else the scale that acts at each w, where
    there is one. The scale is traced, or given as a Python scalar to a rule that cannot be traced.

    Rules that are meant to differ from (G1) fail: ``rule`` is for rescaled, thresholded, projected ones, or an
    interval. A pass shows (G1) at 24 states between t = 0.05 and 0.95 and seven scales from 0 to 7.5, to the tolerance:
    nothing of other scales, of t nearer to the ends, or of the field that you will guide.

    Args:
        rule: builds a guided field of one example, as ``guidance.classifier_free`` does.
        path: the path of the oracle's field; None for the straight one.
        mixture: the oracle; None for one of three labels in 2-D.
        tolerance: [], the relative error allowed (V2).
        seed: chooses the states.
    """
    sides = oracle_sides(path or STRAIGHT, mixture or skewed_mixture(), seed)
    limits = f"scales outside [0, {max(SCALES):g}], t outside [0.05, 0.95], or that your field's null label is learned"
    return collected("verify.guidance", plain_checks(rule, sides, float(tolerance)), limits)


class Sides(NamedTuple):
    """Rows (x [n, D], t [n], y [n]) of the oracle's field, with its values for the labels and for some others."""

    field: LabelledField
    x: Array
    t: Array
    y: Array
    num_classes: int
    labelled: np.ndarray
    rows: dict[int, np.ndarray]

    @property
    def null(self) -> np.ndarray:
        """The values for the null label, [n, D]."""
        return self.rows[self.num_classes]

    def values(self, rule: Rule, scales: Sequence[float]) -> np.ndarray:
        """The rule's values at each scale, [scales, n, D].

        Raises:
            CallError: a value that has not the shape of x.
        """

        def guided(scale: Number, x: Array, t: Array, y: Array) -> Array:
            return rule(self.field, scale, self.num_classes)(x, t, y)

        found = swept(guided, scales, self.x, self.t, self.y)
        for values in found:
            require_shape(values, self.x.shape[1:])
        return found

    def run(self, rule: Rule, scales: Sequence[float]) -> np.ndarray:
        """``values``, once all are finite.

        Raises:
            CallError: a value that has not the shape of x, or is not finite.
        """
        found = self.values(rule, scales)
        for values in found:
            require_finite(values)
        return found

    def guided(self, used: Callable = np.asarray, label: int | None = None) -> np.ndarray:
        """(G1) at every one of ``SCALES``, with what is used for w and for the null label: [scales, n, D]."""
        null = self.null if label is None else self.rows[label]
        return np.stack([null + float(used(np.asarray(scale))) * (self.labelled - null) for scale in SCALES])


def oracle_sides(path: GaussianPath, mixture: LabelledMixture, seed: int) -> Sides:
    """States of the oracle at 24 times, of each label in turn."""
    null, views = mixture.num_classes, Views(mixture, path)
    t = np.linspace(0.05, 0.95, _ROWS)
    y = jnp.arange(_ROWS) % null
    x = states(mixture, path, t, seed)
    t = jnp.asarray(t, x.dtype)
    rows = {label: views.values("field", x, t, jnp.full_like(y, label)) for label in {0, null - 1, null}}
    return Sides(jax.jit(mixture.vector_field(path)), x, t, y, null, views.values("field", x, t, y), rows)


def error_at_most(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest error (V2) over the scales."""
    return max(relative_error(*pair) for pair in zip(found, expected, strict=True))


def plain_checks(rule: Rule, sides: Sides, tolerance: float, prefix: str = "") -> Iterator[Check]:
    """The rows of (G1), their names after a prefix."""
    found, exact = sides.run(rule, SCALES), sides.guided()

    def error(part: Callable, expected: np.ndarray) -> float:
        chosen = [part(scale) for scale in SCALES]
        return error_at_most(found[chosen], expected[chosen])

    def cause() -> str:
        words = likely_cause(partial(error_at_most, found), exact, _mistakes(sides), tolerance)
        return scale_cause(found, sides.null, sides.labelled, tolerance) if words == UNKNOWN else words

    names = {
        "w = 0: the null field": lambda scale: scale == 0,
        "w = 1: the labelled field": lambda scale: scale == 1,
        "w = 0.3 to 7.5: u_null + w (u_y - u_null)": lambda scale: scale not in (0, 1),
    }
    for name, part in names.items():
        yield at_most(prefix + name, error(part, exact), tolerance, cause)


def _mistakes(sides: Sides) -> dict[str, np.ndarray]:
    exact, null = sides.guided(), sides.num_classes
    known = {words: sides.guided(used) for words, used in SCALE_MISTAKES.items()}
    for label in {0, null - 1}:
        known[f"the null label's row is that of label {label}, not of {null}"] = sides.guided(label=label)
    known["the null field is missing: w (u_y - u_null) alone"] = exact - sides.null
    dimension = exact.shape[-1]
    for first in range(1, dimension if dimension <= _COORDINATES else 1):
        for name, value in (("labelled", sides.labelled), ("null", sides.null)):
            words = f"guidance acts on the first {first} of {dimension} coordinates alone, the rest is the {name} field"
            known[words] = np.where(np.arange(dimension) < first, exact, value)
    return known

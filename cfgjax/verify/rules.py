"""Guidance rules against (G1) of ``guidance``: u_w = u_null + w (u_y - u_null), on the oracle's field.

(V2) The error at a scale is |found - u_w| / |u_w| over states, times and labels, so that a right rule's error is its
     rounding. A cause fits where its formula does at EVERY scale.
"""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_function, require_positive
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, GaussianPath, LabelledField, Number
from cfgjax.verify.calling import require_finite, require_shape, swept
from cfgjax.verify.problem import STRAIGHT, Views, require_problem, skewed_mixture, states
from cfgjax.verify.report import Check, Report, at_most, collected, likely_cause, relative_error

Rule = Callable[[LabelledField, Number, Number], LabelledField]
"""``(field, scale, null_label) -> field``, as ``guidance.classifier_free``."""

SCALES = (0.0, 1.0, 0.3, 0.7, 1.7, 3.0, 7.5)
_ROWS = 24

SCALE_MISTAKES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "looks like 1 + w: u_y + w (u_y - u_null)": lambda w: 1 + w,
    "looks like w - 1: u_null + (w - 1) (u_y - u_null)": lambda w: w - 1,
    "the sign of the difference is wrong: u_null - w (u_y - u_null)": lambda w: -w,
    "the sign of the difference is wrong: u_y - (w - 1) (u_y - u_null)": lambda w: 2 - w,
    "null and labelled are swapped: u_y + w (u_null - u_y)": lambda w: 1 - w,
    "2 w is used for w": lambda w: 2 * w,
    "w / 2 is used for w": lambda w: w / 2,
    "w is cut to an int": np.trunc,
    "w is rounded to an int": np.round,
    "w is ignored: it is the labelled field": np.ones_like,
    "w is ignored: it is the null field": np.zeros_like,
    "a branch gives the labelled field for w <= 1": lambda w: np.maximum(w, 1),
    "a branch gives the labelled field for w = 0": lambda w: np.where(w == 0, 1, w),
    "a branch gives the null field for w <= 1": lambda w: np.where(w <= 1, 0, w),
    "w is clipped to [0, 1]": lambda w: np.clip(w, 0, 1),
}
"""What is used in the place of w, by the mistake's words."""


def guidance(
    rule: Rule,
    path: GaussianPath | None = None,
    mixture: LabelledMixture | None = None,
    tolerance: Number = 1e-4,
    seed: int = 0,
) -> Report:
    """The report on a rule (field, scale, null_label) -> field that claims to be classifier-free guidance (G1).

    Checked: w = 0 is the null field, w = 1 the labelled one, and (G1) at five other scales, not whole ones among them.
    Causes told apart: 1 + w, w - 1, 2 w, w / 2; the sign of the difference; null and labelled swapped; w cut or rounded
    to an int, ignored, clipped; a branch at w = 0 or w <= 1; another label's row for the null label's; the difference
    alone. The scale is traced, or given as a number of Python to a rule that cannot be traced.

    Rules that are meant to differ from (G1) fail: rescaled, thresholded, projected ones, or an interval.

    Args:
        rule: builds a guided field of one example, as ``guidance.classifier_free`` does.
        path: the path of the oracle's field; None for the straight one.
        mixture: the oracle; None for one of three labels in 2-D.
        tolerance: [], the relative error allowed (V2).
        seed: chooses the states.

    Raises:
        TypeError, ValueError: no function, path or mixture, a tolerance that is not positive, no seed.
    """
    require_function("rule", rule)
    require_problem(path, mixture, seed)
    require_positive("tolerance", tolerance)
    checks = _checks(rule, path or STRAIGHT, mixture or skewed_mixture(), float(tolerance), seed)
    return collected("verify.guidance", checks)


def _checks(rule: Rule, path: GaussianPath, mixture: LabelledMixture, tolerance: float, seed: int) -> Iterator[Check]:
    null, views = mixture.num_labels, Views(mixture, path)
    t = np.linspace(0.05, 0.95, _ROWS)
    y = jnp.arange(_ROWS) % null
    x = states(mixture, path, t, seed)
    t = jnp.asarray(t, x.dtype)
    field = jax.jit(mixture.vector_field(path))

    def guided(scale: Number, x: Array, t: Array, y: Array) -> Array:
        return rule(field, scale, null)(x, t, y)

    found = swept(guided, SCALES, x, t, y)
    for values in found:
        require_finite(require_shape(values, x.shape[1:]))
    rows = {label: views.values("field", x, t, jnp.full_like(y, label)) for label in {0, null - 1, null}}
    labelled = views.values("field", x, t, y)
    exact = _guided(rows[null], labelled)

    def error(part: slice, expected: np.ndarray) -> float:
        return max(relative_error(*pair) for pair in zip(found[part], expected[part], strict=True))

    def cause() -> str:
        return likely_cause(partial(error, slice(None)), exact, _mistakes(rows, labelled, null), tolerance)

    yield at_most("w = 0: the null field", error(slice(0, 1), exact), tolerance, cause)
    yield at_most("w = 1: the labelled field", error(slice(1, 2), exact), tolerance, cause)
    yield at_most("w = 0.3 to 7.5: u_null + w (u_y - u_null)", error(slice(2, None), exact), tolerance, cause)


def _guided(null: np.ndarray, labelled: np.ndarray, used: Callable = np.asarray) -> np.ndarray:
    """(G1) at every scale, with what is used for w: [scales, n, D]."""
    return np.stack([null + float(used(np.asarray(scale))) * (labelled - null) for scale in SCALES])


def _mistakes(rows: dict[int, np.ndarray], labelled: np.ndarray, null: int) -> dict[str, np.ndarray]:
    known = {words: _guided(rows[null], labelled, used) for words, used in SCALE_MISTAKES.items()}
    for label in {0, null - 1}:
        known[f"the null label's row is that of label {label}, not of {null}"] = _guided(rows[label], labelled)
    known["the null field is missing: w (u_y - u_null) alone"] = _guided(rows[null], labelled) - rows[null]
    return known

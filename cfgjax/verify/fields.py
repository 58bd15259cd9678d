"""Fields against the oracle: every view, labelled and null.

(V1) The error at a time is |found - exact| / |exact| over states drawn from p_t(x) and over the labels; that of a
     coordinate is the same over all times, relative to a quarter of all coordinates' size at least. A row holds the
     largest. Nothing is random but the states, so an exact field's error is its rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cfgjax.contracts import Positive, checked
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, GaussianPath, LabelledField
from cfgjax.verify.call_user import mapped, require_finite, require_shape
from cfgjax.verify.field_bugs import NAMES, Mistakes, field_mistakes, null_mistakes
from cfgjax.verify.reference import Oracle, Seed, View, Views, states
from cfgjax.verify.report import UNKNOWN, Check, Report, at_most, collected, likely_cause, relative_error

TIMES = tuple(np.linspace(0.05, 0.95, 19))
_ROWS, _LABELS, _LEAST = 152, 8, 0.25


@checked
def field(
    field: LabelledField,
    path: GaussianPath,
    mixture: Oracle,
    view: View = "field",
    tolerance: Positive = 3e-3,
    seed: Seed = 0,
) -> Report:
    """The report on a field (x [D], t [], y []) -> [D] that claims to be a view of the mixture on the path.

    Checked: the values for labels 0..K-1 (eight of them at most), those for the null label K, and that they are finite
    at t = 0, where samplers start. Causes told apart: the sign; 1 - t for t; another view; a constant factor, or a
    factor alpha, beta or W; a wrong sign inside a conversion; the straight path's field on another path; labels ignored
    or shifted; a null label that gives another label's row, the labels' average or zero.

    A pass shows 19 times from 0.05 to 0.95 and two states or more of each label, to the tolerance: an error of 5 % in a
    fifth of t, for one label or in one coordinate fails. It does not show states that are rare under p_t(x).

    Args:
        field: the claimed view, for ONE example.
        path: the path of the claim.
        mixture: the data of the claim.
        view: what the field claims to be.
        tolerance: [], the relative error allowed at any time (V1): rounding for a formula, more for a network.
        seed: chooses the states.
    """
    limits = (
        f"errors under {float(tolerance):g}, t outside [0.05, 0.95] but that values are finite at 0, or rare states"
    )
    checks = _checks(field, path, mixture, view, float(tolerance), seed)
    return collected(f"verify.field ({NAMES[view]})", checks, limits)


class _Rows(NamedTuple):
    """Inputs (x, t, y) of a field with x of p_t(x), and what it gave."""

    x: Array
    t: Array
    y: Array
    found: np.ndarray

    def error(self, expected: np.ndarray) -> float:
        """The error (V1)."""
        rows = [np.asarray(self.t) == t for t in np.unique(self.t)]
        by_time = max(relative_error(self.found[row], expected[row]) for row in rows)
        sizes = np.linalg.norm(expected, axis=0)
        least = _LEAST * np.sqrt(np.mean(sizes**2))
        by_coordinate = np.linalg.norm(self.found - expected, axis=0) / np.maximum(sizes, max(least, 1e-30))
        return max(by_time, float(np.max(by_coordinate)))


def _called(
    field: LabelledField, path: GaussianPath, mixture: LabelledMixture, seed: int
) -> tuple[_Rows, _Rows, np.ndarray]:
    """Rows for the labels, rows for the null label, and values at t = 0; all of ONE mapped call."""
    null = mixture.num_classes
    labels = np.unique(np.linspace(0, null - 1, min(null, _LABELS)).astype(int))
    index = np.arange(_ROWS)
    times, ys = np.asarray(TIMES)[index % len(TIMES)], labels[index // len(TIMES) % len(labels)]
    t = jnp.asarray(np.concatenate([times, times, np.zeros(len(labels))]), jnp.result_type(float))
    y = jnp.asarray(np.concatenate([ys, np.full(_ROWS, null), labels]))
    x = states(mixture, path, np.asarray(t), seed)
    found = require_shape(mapped(field, x, t, y, most=len(x)), x.shape[1:])
    parts = (slice(_ROWS), slice(_ROWS, 2 * _ROWS))
    require_finite(found[: 2 * _ROWS])
    first, second = (_Rows(x[part], t[part], y[part], found[part]) for part in parts)
    return first, second, found[2 * _ROWS :]


def _cause(rows: _Rows, exact: np.ndarray, mistakes: dict[str, np.ndarray], tolerance: float) -> str:
    words = likely_cause(rows.error, exact, mistakes, tolerance)
    if words != UNKNOWN:
        return words
    factor = np.vdot(exact, rows.found) / np.vdot(exact, exact)
    return likely_cause(rows.error, exact, {f"a factor {factor:.3g} too many": factor * exact}, tolerance)


def _checks(
    field: LabelledField, path: GaussianPath, mixture: LabelledMixture, view: View, tolerance: float, seed: int
) -> Iterator[Check]:
    views = Views(mixture, path)
    labelled, null, start = _called(field, path, mixture, seed)

    def row(name: str, rows: _Rows, mistakes: Mistakes) -> Check:
        exact = views.values(view, *rows[:3])
        known = partial(mistakes, views, path, mixture, view, *rows[:3])
        return at_most(name, rows.error(exact), tolerance, lambda: _cause(rows, exact, known(), tolerance))

    yield row("values for labels", labelled, field_mistakes)
    yield row("values for the null label", null, null_mistakes)
    yield at_most(
        "share not finite at t = 0", float(np.mean(~np.isfinite(start))), 0.0, lambda: "divided by alpha, 0 there"
    )

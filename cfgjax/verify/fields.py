"""Fields against the oracle: every view, labelled and null.

(V1) The error at a time is |found - exact| / |exact| over states drawn from p_t(x) and over the labels; that of a
     coordinate is the same over all times, relative to a quarter of all coordinates' size at least. A row holds the
     largest. Nothing is random but the states, so an exact field's error is its rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.contracts import Positive, checked
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Condition, GaussianPath, LabelledField
from cfgjax.verify.call_user import mapped, require_finite, require_shape
from cfgjax.verify.field_bugs import NAMES, Mistakes, field_mistakes, null_mistakes
from cfgjax.verify.reference import Oracle, Seed, View, Views, states
from cfgjax.verify.report import UNKNOWN, Check, Report, at_most, collected, likely_cause, relative_error

TIMES = tuple(np.linspace(0.05, 0.95, 19))
ROWS = 152
_LABELS, _LEAST = 8, 0.25


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


class Rows(NamedTuple):
    """Inputs (x, t, y) of a field with x of p_t(x), and what it gave."""

    x: Array
    t: Array
    y: Condition
    found: np.ndarray

    def error(self, expected: np.ndarray) -> float:
        """The error (V1)."""
        rows = [np.asarray(self.t) == t for t in np.unique(self.t)]
        by_time = max(relative_error(self.found[row], expected[row]) for row in rows)
        sizes = np.linalg.norm(expected, axis=0)
        least = _LEAST * np.sqrt(np.mean(sizes**2))
        by_coordinate = np.linalg.norm(self.found - expected, axis=0) / np.maximum(sizes, max(least, 1e-30))
        return max(by_time, float(np.max(by_coordinate)))


def rows_of(null: int, num_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The times of ``num_groups`` groups of rows and of some at t = 0 after them, [n]; the labels of one group and of
    those at 0.
    """
    labels = np.unique(np.linspace(0, null - 1, min(null, _LABELS)).astype(int))
    index = np.arange(ROWS)
    times = [np.asarray(TIMES)[index % len(TIMES)]] * num_groups
    return np.concatenate([*times, np.zeros(len(labels))]), labels[index // len(TIMES) % len(labels)], labels


def called(field: LabelledField, x: Array, t: Array, y: Condition) -> tuple[list[Rows], np.ndarray]:
    """What the field gives for each group of rows, and at t = 0; all of ONE mapped call."""
    found = require_shape(mapped(field, x, t, y, most=len(x)), x.shape[1:])
    num_groups = len(x) // ROWS
    require_finite(found[: num_groups * ROWS])
    parts = [slice(group * ROWS, (group + 1) * ROWS) for group in range(num_groups)]
    groups = [Rows(x[part], t[part], jax.tree.map(lambda y, part=part: y[part], y), found[part]) for part in parts]
    return groups, found[num_groups * ROWS :]


def _called(
    field: LabelledField, path: GaussianPath, mixture: LabelledMixture, seed: int
) -> tuple[list[Rows], np.ndarray]:
    """Rows for the labels and rows for the null label, and values at t = 0."""
    null = mixture.num_classes
    times, ys, labels = rows_of(null, 2)
    y = jnp.asarray(np.concatenate([ys, np.full(ROWS, null), labels]))
    t = jnp.asarray(times, jnp.result_type(float))
    return called(field, states(mixture, path, np.asarray(t), seed), t, y)


def _cause(rows: Rows, exact: np.ndarray, mistakes: dict[str, np.ndarray], tolerance: float) -> str:
    words = likely_cause(rows.error, exact, mistakes, tolerance)
    if words != UNKNOWN:
        return words
    factor = np.vdot(exact, rows.found) / np.vdot(exact, exact)
    return likely_cause(rows.error, exact, {f"a factor {factor:.3g} too many": factor * exact}, tolerance)


def _checks(
    field: LabelledField, path: GaussianPath, mixture: LabelledMixture, view: View, tolerance: float, seed: int
) -> Iterator[Check]:
    views = Views(mixture, path)
    (labelled, null), start = _called(field, path, mixture, seed)

    def row(name: str, rows: Rows, mistakes: Mistakes) -> Check:
        known = partial(mistakes, views, path, mixture, view, *rows[:3])
        return row_check(name, rows, views.values(view, *rows[:3]), known, tolerance)

    yield row("values for labels", labelled, field_mistakes)
    yield row("values for the null label", null, null_mistakes)
    yield start_check(start)


def row_check(
    name: str, rows: Rows, exact: np.ndarray, mistakes: Callable[[], dict[str, np.ndarray]], tolerance: float
) -> Check:
    """The check of a group of rows against the exact values, with a cause of the mistakes' where it fails."""
    return at_most(name, rows.error(exact), tolerance, lambda: _cause(rows, exact, mistakes(), tolerance))


def start_check(start: np.ndarray) -> Check:
    """The check that values at t = 0 are finite."""
    return at_most(
        "share not finite at t = 0", float(np.mean(~np.isfinite(start))), 0.0, lambda: "divided by alpha, 0 there"
    )

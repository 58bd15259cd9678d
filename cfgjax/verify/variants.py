"""Guidance rules that differ from (G1) on purpose, held where they are known: at a scale, at a setting.

(V17) A rule that changes the null side, or the size of what comes out, is the labelled field at w = 1. One that bounds
      or cuts the guided field is plain guidance at the setting where it does nothing. Errors are those of (V2).
(V35) The slope at w = 1 is |guided(1 +- h) - guided(1)| / h, h = 0.001, over the larger one of |u_y - u_null| and
      |guided(2) - guided(1)|, the norms over all states: 1 for plain guidance, 1/h times its share of them for a jump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from cfgjax.checks import of_numpy, require_finite, require_scalar
from cfgjax.contracts import Contract, Positive, checked
from cfgjax.types import GaussianPath, Number
from cfgjax.verify.reference import STRAIGHT, Oracle, Seed, skewed_mixture
from cfgjax.verify.report import UNKNOWN, Check, Report, at_least, at_most, collected, likely_cause
from cfgjax.verify.rules import Rule, Sides, error_at_most, oracle_sides, plain_checks
from cfgjax.verify.scales import SCALES

_STEP, _STEEPEST = 1e-3, 10.0
"""h of (V35), and the slope allowed."""
_NEAR_ONE = (1 - _STEP, 1.0, 1 + _STEP, 2.0)

Neutral = Number | Rule
"""A scale at which the rule is the labelled field; or the rule with the setting at which it is plain guidance."""


def _require_neutral(name: str, neutral: Any) -> None:
    known = neutral if isinstance(neutral, tuple) else (neutral,)
    if not known:
        raise ValueError(f"{name} must hold a scale or a rule, got ()")
    for each in known:
        _require_known(name, each)


def _require_known(name: str, neutral: Any) -> None:
    if callable(neutral):
        return
    try:
        require_scalar(name, of_numpy(neutral))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a scale or a rule, or a tuple of them, got {type(neutral).__name__}") from None
    require_finite(name, neutral)


@checked
def rule(
    rule: Rule,
    neutral: Annotated[Neutral | tuple[Neutral, ...], Contract(_require_neutral)] = 1.0,
    path: GaussianPath | None = None,
    mixture: Oracle | None = None,
    tolerance: Positive = 1e-4,
    seed: Seed = 0,
) -> Report:
    """The report on a rule (field, scale, null_label) -> field that differs from (G1) on purpose.

    ``neutral`` says where the rule is known. A number is a scale at which it is the labelled field: 1 for every rule on
    pairs. A function is the same rule with the setting at which it does nothing, and is held against (G1) at every
    scale, with the causes of ``guidance``. Both in a tuple check both:

        def shortened(bound):
            return lambda field, scale, null: guidance.static_threshold(
                path, guidance.classifier_free(field, scale, null), bound
            )
        verify.rule(shortened(1.0), neutral=shortened(jnp.inf))

    Checked, too: the rule differs from (G1) somewhere, has no jump at w = 1 (V35), is finite at all seven scales and at
    t = 0, and keeps the shape of x. A pass does not show that the rule is the one that is meant: where it is not
    neutral nothing is known of its values. With a scale alone for ``neutral`` nothing is known of the null side: give
    the setting where there is one. A rule with a memory (``guidance.adaptive_projected``) is no function of (x, t, y),
    and fails.

    Args:
        rule: builds the guided field of one example; its setting is closed over.
        neutral: a scale, a rule as ``rule``, or a tuple of them.
        path: the path of the oracle's field; None for the straight one. A rule of a space must be given the same.
        mixture: the oracle; None for one of three labels in 2-D.
        tolerance: [], the relative error allowed (V2).
        seed: chooses the states.
    """
    known = neutral if isinstance(neutral, tuple) else (neutral,)
    sides = oracle_sides(path or STRAIGHT, mixture or skewed_mixture(), seed)
    limits = "that the rule is the one that is meant: where it is not neutral its values are not known"
    return collected("verify.rule", _checks(rule, known, sides, float(tolerance)), limits)


def _checks(rule: Rule, known: tuple[Neutral, ...], sides: Sides, tolerance: float) -> Iterator[Check]:
    scales = [float(each) for each in known if not callable(each)]
    found = sides.run(rule, (*SCALES, *scales, *_NEAR_ONE))
    for scale, values in zip(scales, found[len(SCALES) : -len(_NEAR_ONE)], strict=True):
        yield _labelled_check(scale, values, sides, tolerance)
    for each in known:
        if callable(each):
            yield from plain_checks(each, sides, tolerance, "neutral setting, ")
    yield at_least(
        "differs from plain guidance",
        error_at_most(found[: len(SCALES)], sides.guided()),
        tolerance,
        lambda: "it is plain guidance at every state: its setting does nothing here",
    )
    yield _continuity_check(found[-len(_NEAR_ONE) :], sides)
    start = sides._replace(t=jnp.zeros_like(sides.t))
    share = float(np.mean(~np.isfinite(start.values(rule, SCALES))))
    yield at_most("share not finite at t = 0", share, 0.0, lambda: "divided by alpha, 0 there")


def _continuity_check(found: np.ndarray, sides: Sides) -> Check:
    below, here, above, beyond = found
    change = max(float(np.linalg.norm(each)) for each in (sides.labelled - sides.null, beyond - here))
    slope = max(float(np.linalg.norm(values - here)) for values in (below, above)) / (_STEP * max(change, 1e-30))
    words = f"a jump at w = 1: the rule there is not the one at w = {1 - _STEP:g} or {1 + _STEP:g}"
    return at_most("slope at w = 1, over that of plain guidance", slope, _STEEPEST, lambda: words)


def _labelled_check(scale: float, values: np.ndarray, sides: Sides, tolerance: float) -> Check:
    def error_of(expected: np.ndarray) -> float:
        return error_at_most(values[np.newaxis], expected[np.newaxis])

    def cause() -> str:
        known = {
            "it is the null field": sides.null,
            "it is minus the labelled field": -sides.labelled,
            "the null field is missing: it is u_y - u_null": sides.labelled - sides.null,
        }
        words = likely_cause(error_of, sides.labelled, known, tolerance)
        return words if words != UNKNOWN else _factor_cause(error_of, sides, values, tolerance)

    return at_most(f"w = {scale:g}: the labelled field", error_of(sides.labelled), tolerance, cause)


def _factor_cause(error_of: Callable[[np.ndarray], float], sides: Sides, values: np.ndarray, tolerance: float) -> str:
    """A factor of the labelled field, or plain guidance at another scale, where one of them fits."""
    size = np.vdot(sides.labelled, values) / np.vdot(sides.labelled, sides.labelled)
    change = sides.labelled - sides.null
    scale = np.vdot(change, values - sides.null) / np.vdot(change, change)
    known = {
        f"a factor {size:.3g} too many": size * sides.labelled,
        f"it is plain guidance at w = {scale:.3g}": sides.null + scale * change,
    }
    return likely_cause(error_of, sides.labelled, known, tolerance)

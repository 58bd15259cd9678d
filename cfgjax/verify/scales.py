"""Known mistakes in the scale of guidance, and the scale that acts where none of them fits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cfgjax.verify.report import UNKNOWN, relative_error

SCALES = (0.3, 0.0, 1.0, 0.7, 1.7, 3.0, 7.5)
"""What the checks are run at; a scale that is kept from the first call is none of the special ones."""

SCALE_MISTAKES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "looks like 1 + w: u_y + w (u_y - u_null)": lambda w: 1 + w,
    "looks like w - 1: u_null + (w - 1) (u_y - u_null)": lambda w: w - 1,
    "the sign of the difference is wrong: u_null - w (u_y - u_null)": lambda w: -w,
    "the sign of the difference is wrong: u_y - (w - 1) (u_y - u_null)": lambda w: 2 - w,
    "null and labelled are swapped: u_y + w (u_null - u_y)": lambda w: 1 - w,
    "guidance is applied twice: w^2 is used for w": lambda w: w**2,
    "guidance is applied twice, from the labelled field: 1 + w^2 is used for w": lambda w: 1 + w**2,
    "1 + w is applied twice: (1 + w)^2 is used for w": lambda w: (1 + w) ** 2,
    "(1 + w) / 2 is used for w: an average with the labelled field": lambda w: (1 + w) / 2,
    "sqrt(w) is used for w": lambda w: np.sqrt(np.maximum(w, 0)),
    "2 w is used for w": lambda w: 2 * w,
    "w / 2 is used for w": lambda w: w / 2,
    "w is cut to an int": np.trunc,
    "w is rounded to an int": np.round,
    "w is ignored: it is the labelled field": np.ones_like,
    "w is ignored: it is the null field": np.zeros_like,
    "a branch gives the labelled field for w <= 1": lambda w: np.maximum(w, 1),
    "a branch gives the labelled field for w = 0, which is taken for none": lambda w: np.where(w == 0, 1, w),
    "a branch gives the null field for w <= 1": lambda w: np.where(w <= 1, 0, w),
    "w is clipped to [0, 1]": lambda w: np.clip(w, 0, 1),
    "one scale for all: that of the first call": lambda w: np.full_like(w, SCALES[0]),
}
"""What is used in the place of w, by the mistake's words."""


def scale_cause(found: np.ndarray, null: np.ndarray, labelled: np.ndarray, tolerance: float) -> str:
    """The scale that acts in values [scales, n, D] of the form u_null + a (u_y - u_null), in words.

    A constant factor is written as w / (1 - kappa), too: MeanFlow's target with omega and kappa has that scale
    (Geng et al., arXiv 2505.13447).
    """
    change, wanted = labelled - null, np.asarray(SCALES)
    used = np.asarray([np.vdot(change, values - null) for values in found]) / np.vdot(change, change)
    lines = [null + scale * change for scale in used]
    if max(relative_error(*pair) for pair in zip(found, lines, strict=True)) > tolerance:
        return UNKNOWN
    factor = float(np.vdot(wanted, used) / np.vdot(wanted, wanted))
    if np.max(np.abs(used - factor * wanted)) <= 10 * tolerance:
        fitting = f"; w / (1 - kappa) has kappa = {1 - 1 / factor:.3g}" if factor > 1 else ""
        return f"a factor {factor:.4g} of w too many{fitting}"
    acting = ", ".join(
        f"{scale:.3g} for w = {w:g}" for scale, w in zip(used, wanted, strict=True) if w not in (0.3, 0.7)
    )
    return f"another scale acts: {acting}"

"""Known mistakes in losses of flow maps, found by their gradients.

(V28) A stop-gradient that is missing leaves a gradient that passes several calls of the map, or its derivatives: where
      what passes ONE value alone has the mean 0, the rest should have been stopped.
(V29) A wrong target is named by the map at which the gradients are 0: one of the known guesses; the map at another
      factor of w, found from two scales, as the mean gradients are linear in it at r = t; or the exact map with, in the
      one call that is trained, the value that a wrong (r - t) dU/dt would give it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.types import Array
from cfgjax.verify.flow_map_gradients import SIZE, Guess, LossProblem, Offset, Sums, gradients
from cfgjax.verify.report import UNKNOWN

ALLOWED = 5.5
"""Standard errors that a mean gradient may be from 0."""
_CHANCE, _FITTING, _FEW = 1.3, 2.0, 2
"""Mean squares of slopes: what chance gives at most, and what a guess that fits may have; and batches for (V28)."""

_OFFSETS = {
    "(r - t) is missing before dU/dt": Offset(by_t=-1, by_x=-1, whole=1),
    "the sign of (r - t) dU/dt is wrong, as with t - r or in the other direction of time": Offset(by_t=-2, by_x=-2),
    "(r - t) dU/dt is missing: it is least for the field at t": Offset(by_t=-1, by_x=-1),
    "the tangent of t is 0, not 1, in dU/dt": Offset(by_t=-1),
    "the tangent of x is 0, not the velocity, in dU/dt": Offset(by_x=-1),
    "the tangent of r is 1, not 0, in dU/dt": Offset(by_r=1),
    "time runs backwards in dU/dt: the tangent of t is -1, not 1": Offset(by_t=-2),
    "the sign of the velocity is wrong in dU/dt: the tangent of x is -v": Offset(by_x=-2),
    "the derivative is by r, not by t": Offset(by_t=-1, by_r=1),
}
"""By the mistake's words, what the target has for its mean, less the exact map."""


def _guesses(num_classes: int) -> dict[str, Guess]:
    known = {
        "the labelled field's map: w is ignored, or the null is fed with the label": Guess(constant=1, factor=0),
        "the null field's map: labels are ignored": Guess(is_unlabelled=True),
        "the map at w^2: guidance is applied twice, as with a teacher that is guided already": Guess(
            factor=0, square=1
        ),
        "the map at 1 + w": Guess(constant=1),
        "the map at w - 1": Guess(constant=-1),
        "the map at 1 + w^2: guidance is applied twice": Guess(constant=1, factor=0, square=1),
        "the map at -w: the sign of the difference is wrong": Guess(factor=-1),
        "the map at 1 - w: null and labelled are swapped": Guess(constant=1, factor=-1),
        "the label y - 1: labels are shifted by one": Guess(shift=-1),
        "the label y + 1: labels are shifted by one": Guess(shift=1),
        "minus the map: the sign is wrong": Guess(sign=-1),
        "the map at 1 - t and 1 - r: time runs backwards": Guess(is_mirrored=True),
        "minus the map at 1 - t and 1 - r: time runs backwards": Guess(is_mirrored=True, sign=-1),
        "the map from r to t: r and t are exchanged": Guess(is_exchanged=True),
        "minus the map from r to t: r and t are exchanged": Guess(is_exchanged=True, sign=-1),
        "the displacement (r - t) U": Guess(is_displacement=True),
    }
    for label in {0, num_classes - 1}:
        words = f"a map whose null side is that of label {label}: the null, {num_classes}, is fed with a label"
        known[words] = Guess(null=label)
    return known


def loss_cause(problem: LossProblem, run: Callable[..., Sums], size: np.ndarray) -> str:
    """What the gradients say of a loss that is not least for the exact map, in words."""
    num_calls = _count_calls(problem)
    parts = gradients(problem, num_calls)
    found, moved = parts(num_batches=_FEW), parts(shift=SIZE)
    words = _stop_cause(found, moved)
    if words:
        return words
    least = _misfit(run(), size)[1] / 4
    words = _guess_cause(problem, run, size, least) or _factor_cause(run, size, least)
    if words:
        return words
    sizes = moved.square[0::2].max(axis=1)
    trained = int(np.argmax(sizes > 1e-6 * sizes.max()))
    return _offset_cause(problem, trained, size, least) or UNKNOWN


def _count_calls(problem: LossProblem) -> int:
    """How many calls of the map the loss writes."""
    calls = []
    exact = problem.map_of(Guess())

    def counted(x: Array, t: Array, r: Array, y: Array, w: Array) -> Array:
        calls.append(0)
        return exact(x, jnp.asarray(t), jnp.asarray(r), jnp.asarray(y), w)

    example = [each[0] for each in problem.examples(1)]
    jax.eval_shape(lambda *example: problem.number(counted, jnp.zeros_like(example[1]), *example), *example)
    return len(calls)


def _misfit(sums: Sums, size: np.ndarray) -> tuple[float, float]:
    """The largest slope, and the mean square of the slopes."""
    slopes = sums.slopes(size)[0]
    drawn = slopes[sums.share[0] > 1e-3]
    return float(np.max(slopes)), float(np.mean(drawn**2)) if drawn.size else np.inf


def _is_fitting(misfit: tuple[float, float], least: float) -> bool:
    return misfit[0] <= ALLOWED and misfit[1] <= min(_FITTING, max(least, _CHANCE))


def _stop_cause(found: Sums, moved: Sums) -> str:
    """The words for gradients that pass what should be stopped; empty where one value alone has a gradient."""
    sizes = moved.square.max(axis=1)
    active = np.flatnonzero(sizes > 1e-6 * max(sizes.max(), 1e-30))
    if len(active) and all(active % 2):
        return "the prediction is under stop_gradient in the place of the target: the gradient passes dU/dt alone"
    if len(active) < 2:
        return ""
    slopes = found.slopes(moved.square).max(axis=1)
    good = [part for part in active if part % 2 == 0 and slopes[part] <= ALLOWED]
    own = [part for part in good if any(found.square[part] > 0)]
    if not own:
        return ""
    rest = [part for part in active if part != own[0]]
    passed = ["the derivative dU/dt"] if any(part % 2 for part in rest) else []
    passed += ["another call of the flow map"] if any(part % 2 == 0 for part in rest) else []
    return f"a stop_gradient is missing: the gradient passes {' and '.join(passed)} in the target"


def _guess_cause(problem: LossProblem, run: Callable[..., Sums], size: np.ndarray, least: float) -> str:
    misfits = {words: _misfit(run(guess), size) for words, guess in _guesses(problem.mixture.num_classes).items()}
    words = min(misfits, key=lambda words: misfits[words][1])
    return f"it is least for {words}" if _is_fitting(misfits[words], least) else ""


def _factor_cause(run: Callable[..., Sums], size: np.ndarray, least: float) -> str:
    """The words for the map at another factor of w."""
    factors = [1.0, 0.5]
    tried = [run(Guess(factor=factor)) for factor in factors]
    scale = np.sqrt(np.maximum(tried[0].square, 1e-30))
    for _ in range(3):
        (first, second), (before, after) = factors[-2:], tried[-2:]
        rise = (after.gradient - before.gradient) / scale / (second - first)
        if not np.any(rise):
            return ""
        step = float(np.vdot(after.gradient / scale, rise) / np.vdot(rise, rise))
        factors.append(float(np.clip(second - step, -10, 10)))
        tried.append(run(Guess(factor=factors[-1])))
        if abs(factors[-1] - factors[-2]) < 0.01:
            break
    if not _is_fitting(_misfit(tried[-1], size), least):
        return ""
    factor = factors[-1]
    kappa = f"omega = w (1 - kappa) has kappa = {1 - factor:.2g}" if factor < 1 else ""
    kappa = kappa or f"w / (1 - kappa) has kappa = {1 - 1 / factor:.2g}"
    return f"it is least for the map at scale {factor:.2g} w: {kappa}"


def _offset_cause(problem: LossProblem, trained: int, size: np.ndarray, least: float) -> str:
    run = gradients(problem, offset_call=trained)
    misfits = {words: _misfit(run(offset=offset), size) for words, offset in _OFFSETS.items()}
    words = min(misfits, key=lambda words: misfits[words][1])
    return words if _is_fitting(misfits[words], least) else ""

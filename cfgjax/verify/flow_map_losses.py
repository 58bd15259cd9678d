"""Losses of flow maps against their minimiser, the exact map of the guided oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from cfgjax.contracts import Contract, checked, one_of
from cfgjax.types import Array, GaussianPath
from cfgjax.verify.call_user import mapped, require_finite, require_shape
from cfgjax.verify.flow_map_gradients import (
    BATCH,
    SIZE,
    Guess,
    LossProblem,
    Sums,
    Teacher,
    cells_of,
    gradients,
    num_constants,
)
from cfgjax.verify.flow_map_loss_bugs import ALLOWED, loss_cause
from cfgjax.verify.reference import STRAIGHT, Oracle, Seed, skewed_mixture
from cfgjax.verify.report import CallError, Check, Report, at_least, at_most, collected

FlowMapLoss = Callable[..., Array]
"""``(path, flow_map, key, z [D], y [], w []) -> []``, with a teacher after the flow map where there is one."""

_BATCHES, _TRIED, _BACKWARDS = 4, 8, 0.1


def _require_teacher(name: str, value: Any) -> None:
    if value is not None:
        one_of("field", "flow_map").check(name, value)


def _require_range(name: str, value: Any) -> None:
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be two numbers, got {type(value).__name__}") from None
    if numbers.shape != (2,) or not np.isfinite(numbers).all() or not numbers[0] < numbers[1]:
        raise ValueError(f"{name} must be two finite numbers, the lower first, got {value!r}")


@checked
def flow_map_loss(
    loss: FlowMapLoss,
    path: GaussianPath | None = None,
    mixture: Oracle | None = None,
    teacher: Annotated[Teacher | None, Contract(_require_teacher)] = None,
    scales: Annotated[tuple[float, float], Contract(_require_range)] = (0.5, 3.0),
    seed: Seed = 0,
) -> Report:
    """The report on a loss (path, flow_map, key, z [D], y [], w []) -> [] that claims to be least for the guided map.

    With ``teacher`` it is given the exact guided field (x, t, y, w), or the exact flow map, after the flow map. In a
    fifth of the examples y is the null label: a loss that drops labels itself is given without that.

    Checked: the mean gradients at the exact map are 0 (V26), at r = t, for t < r and for the null label; the map is not
    called backwards; the loss bends upwards for every label, seen from a map that is off by a constant; no gradient in
    the teacher. A weight of t, r, y or w changes no minimiser, and passes.

    Causes told apart: a stop-gradient that is missing before the target, or before dU/dt, or that is before the
    prediction in the place of the target; in (r - t) dU/dt the factor missing, its sign wrong, a tangent of t, x or r
    wrong; guidance applied twice, as with a teacher that is guided already; w ignored; the null fed with a label; omega
    for kappa, or any factor of w; time backwards, r and t exchanged; labels shifted or not passed; the sign; a teacher
    that moves, which a loss without a stop-gradient does on purpose: it does no harm where the teacher is not trained.

    A pass does not show what the loss rarely draws, nor that a network learns the minimiser. A loss on data has the
    noise of its target: by 32,768 examples an error of w of 10 % is found. Without noise, as with a teacher, an error
    of 0.005 in U is. A weight that depends on the residual, as MeanFlow's, moves the minimiser and may fail.

    Args:
        loss: (path, flow_map, key, z [D], y [], w []) -> [], or with a teacher (path, flow_map, teacher, key, z, y, w)
            -> []; flow_map is (x, t, r, y, w) -> like x. It is differentiated by the map's values and derivatives.
        path: the path; None for the straight one.
        mixture: the data; None for one of three labels in 2-D.
        teacher: "field", "flow_map", or None for a loss without a teacher.
        scales: the least and the largest w, between which the examples have theirs.
        seed: draws the examples.

    Mean gradients are allowed five and a half standard errors each; false alarms are under 1e-4 a report.
    """
    low, high = (float(scale) for scale in scales)
    problem = LossProblem(loss, path or STRAIGHT, mixture or skewed_mixture(), teacher, (low, high), seed)
    limits = "times, ways and labels that the loss rarely draws, nor that a network learns the minimiser"
    return collected("verify.flow_map_loss", _checks(problem), limits)


def _try_once(problem: LossProblem) -> None:
    """Calls the loss for some examples at the exact map.

    Raises:
        CallError: what is wrong with it.
    """

    exact = problem.map_of(Guess())

    def one(*example: Array) -> Array:
        return problem.number(exact, jnp.zeros_like(example[1]), *example)

    found = mapped(one, *problem.examples(_TRIED), most=0)
    if found.shape[1:]:
        raise CallError(f"gives the shape {found.shape[1:]} for ONE example, not a number")
    require_finite(require_shape(found, ()))


def _checks(problem: LossProblem) -> Iterator[Check]:
    run = gradients(problem)
    try:
        sums = run(num_batches=_BATCHES)
    except CallError:
        _try_once(problem)
        raise
    up, down = run(shift=SIZE), run(shift=-SIZE)
    size = (up.square + down.square) / 2
    cells, together = cells_of(problem, sums.slopes(size)[0])
    groups = problem.num_groups
    cause = cache(lambda: loss_cause(problem, run, size))
    rows = {
        "slope at the exact map, r = t": (cells[0, :, :groups], together[0]),
        "slope at the exact map, t < r": (cells[1:3, :, :groups], together[1:3]),
        "slope at the exact map of the null label": (cells[:3, :, groups], 0 * together[0]),
    }
    drawn, _ = cells_of(problem, up.share[0])
    for name, values in rows.items():
        yield at_most(name, max(float(np.max(value)) for value in values), ALLOWED, cause)
    share = float(drawn[3].sum() / max(drawn.sum(), 1e-30))
    yield at_most("share of calls with r < t", share, _BACKWARDS, cause)
    yield _bend_check(problem, up, down, cause)
    if problem.teacher is not None:
        moves = float(np.sqrt(up.teacher / max(up.square.max(), 1e-30)))
        words = "the teacher moves: the loss has a gradient in it, where a stop_gradient belongs"
        yield at_most("gradient in the teacher", moves, 0.0, lambda: words)


def _bend_check(problem: LossProblem, up: Sums, down: Sums, cause: Callable[[], str]) -> Check:
    """The check that the loss bends upwards along a constant, for every label."""
    first = num_constants(problem)
    bends, _ = cells_of(problem, (up.gradient - down.gradient)[0])
    share, _ = cells_of(problem, up.share[0])
    by_label = bends[..., :first].sum(axis=(0, 1, 3))[: problem.num_groups]
    drawn = share[..., :first].max(axis=-1).sum(axis=(0, 1))[: problem.num_groups]
    by_label = by_label / np.maximum(drawn, 1 / BATCH)

    def words() -> str:
        if not np.any(up.square > 0):
            return "the loss has no gradient in the flow map: all of it is under stop_gradient"
        if not drawn.all():
            return "labels are not passed to the flow map"
        return "the sign is wrong: it is largest there" if np.max(by_label) < 0 else cause()

    least = float(np.min(by_label) / max(np.max(np.abs(by_label)), 1e-30)) if drawn.all() else 0.0
    return at_least("least curvature over the largest", least, 1e-3, words)

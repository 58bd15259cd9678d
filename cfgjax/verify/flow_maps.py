"""Flow maps against the average velocities of the oracle's guided ODE.

(V23) The error of a group of rows is |found - U| / |U|, the largest of those for each label in each fifth of t, scale
      and coordinate, and for the whole way from 0 to 1; of a part whose U is small it is relative to a quarter of the
      group's size. Nothing is random but states and times: the error of an exact map is its rounding.
(V25) What a mistake would give is compared on all groups together, then on each that fails. Where none fits, the scale
      at work is read off the rows at r = t, where U is linear in it, and must fit the others by its ODE.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cfgjax.contracts import Contract, Positive, checked
from cfgjax.types import Array, FlowMap, GaussianPath, Interval
from cfgjax.verify.call_user import require_finite
from cfgjax.verify.flow_map_bugs import Jump, mistaken_velocities, velocities, with_scale
from cfgjax.verify.flow_map_rows import ROWS, Problem, caller, groups_of, joined, listed
from cfgjax.verify.reference import STRAIGHT, Oracle, Seed, skewed_mixture
from cfgjax.verify.report import UNKNOWN, Check, Report, at_most, collected, likely_cause

SCALES = (0.6, 0.0, 1.0, 1.7, 3.0)
_LEAST = 0.25
"""The share of a group's size to which an error is relative at least."""
_JUMPS = 3
"""Jumps whose errors add up in a row of the semigroup."""


def _require_scales(name: str, scales: Any) -> None:
    try:
        values = np.asarray(scales, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a tuple of numbers, got {type(scales).__name__}") from None
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"{name} must be a tuple of finite numbers, one at least, got {scales!r}")


def _require_interval(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, Interval):
        raise TypeError(f"{name} must be an Interval, as guidance.interval(2.0, 0.2, 0.8) is, or None")


@checked
def flow_map(
    flow_map: FlowMap,
    path: GaussianPath | None = None,
    mixture: Oracle | None = None,
    scales: Annotated[tuple[float, ...], Contract(_require_scales)] = SCALES,
    interval: Annotated[Interval | None, Contract(_require_interval)] = None,
    tolerance: Positive = 3e-3,
    seed: Seed = 0,
) -> Report:
    """The report on a flow map (x [D], t [], r [], y [], w []) -> [D]: the average velocity of dx = u_w dt from t to r.

    Checked against the solved trajectories, for t <= r alone: values for labels at every w; w = 0 and w = 1, the null
    field's map and the labelled one's; the guided field at r = t; the null field's map for the null label, whatever w;
    that a jump by way of a third time ends at the same place; finite values at r = t = 0 and 1.

    Causes told apart: guidance applied twice, to fields (w^2) or to a map that is guided; maps extrapolated in the
    place of fields, U_null + w (U_y - U_null); the conventions of w of ``guidance``; any factor of w, as MeanFlow's
    omega = w (1 - kappa) given for w; the displacement, its end, the field at t or at r in the place of the average
    velocity; r and t exchanged, time backwards, the sign; another label's row or zero for the null side; labels shifted
    or ignored; of an interval: ignored, turned, backwards in time, asked at t alone; 0/0 at r = t.

    A pass shows 90 draws of t <= r from the whole of [0, 1] for each row, the way from 0 to 1 among them, to the
    tolerance: an error of 5 % in one fifth of t, for one label or in one coordinate fails. It shows nothing of other
    scales, nor of states that are rare under p_t(x).

    Args:
        flow_map: the claimed map, for ONE example, as ``flow_maps.exact`` gives.
        path: the path of the claim; None for the straight one.
        mixture: the data of the claim; None for one of three labels in 2-D.
        scales: the guidance scales w at which it is checked, those that it was trained for.
        interval: an Interval, for a map that takes one for w: it is checked with each of the scales in it, too. None
            for a map that takes numbers alone.
        tolerance: [], the relative error allowed (V23): rounding for a solver, more for a network.
        seed: chooses the states and times.

    >>> from cfgjax import flow_maps, solvers, verify
    >>> from cfgjax.guidance import classifier_free
    >>> from cfgjax.mixtures import ring
    >>> from cfgjax.paths import linear
    >>> path, mixture = linear(), ring(3)
    >>> field = mixture.vector_field(path)
    >>> def of_fields(x, t, y, w):
    ...     return classifier_free(field, w, 3)(x, t, y)
    >>> verify.flow_map(flow_maps.of_field(solvers.rk4, of_fields, 32), path, mixture).passed
    True
    >>> unguided = flow_maps.of_field(solvers.rk4, field, 32)
    >>> def of_maps(x, t, r, y, w):  # guidance of maps, which is not the map of guidance
    ...     null = unguided(x, t, r, jnp.asarray(3))
    ...     return null + w * (unguided(x, t, r, y) - null)
    >>> verify.flow_map(of_maps, path, mixture).causes[0]
    'maps are extrapolated, not fields: U_null + w (U_y - U_null), which is no map of the guided field'
    """
    own, of = tuple(map(float, scales)), (path or STRAIGHT, mixture or skewed_mixture())
    problem = Problem(flow_map, *of, own, interval, float(tolerance), seed)
    limits = f"errors under {float(tolerance):g}, scales other than {listed(problem.scales)}, or rare states"
    return collected("verify.flow_map", _checks(problem), limits)


class _Found(NamedTuple):
    """Rows of the groups: the jumps, what the map gave, and what is exact."""

    jump: Jump
    found: np.ndarray
    exact: np.ndarray

    def error(self, expected: np.ndarray, rows: np.ndarray) -> float:
        """The error (V23) of some of the rows, [n] booleans, as one group."""
        wrong, right = ((self.found - expected) ** 2)[rows], (expected**2)[rows]
        least = max(_LEAST**2 * float(right.mean()), 1e-30)
        fifth = np.minimum(np.floor(5 * np.asarray(self.jump.t)), 4)
        parts = (5 * np.asarray(self.jump.y) + fifth, np.asarray(self.jump.scale), self.jump.span[:, 0] > 0.99)
        cells = [part[rows] == value for part in parts for value in np.unique(part[rows])]
        errors = [wrong[cell].mean() / max(right[cell].mean(), least) for cell in cells]
        errors += list(wrong.mean(axis=0) / np.maximum(right.mean(axis=0), least))
        error = float(np.sqrt(max(errors)))
        return error if np.isfinite(error) else np.inf


def _checks(problem: Problem) -> Iterator[Check]:
    groups, call = groups_of(problem), caller(problem.flow_map)
    uncut = [jump for jump in groups.values() if not jump.is_cut.any()]
    jump, ends = joined(groups.values()), _ends(uncut[0])
    way = uncut[0]._replace(r=_middle(uncut[0]))
    found = call(joined([*uncut, way, ends]))
    found, first, at_ends = np.split(found, [len(uncut) * ROWS, len(found) - ROWS])
    if len(uncut) < len(groups):
        found = np.concatenate([found, call(list(groups.values())[-1])])
    is_finite = np.all(np.isfinite(found), axis=1)
    group = np.arange(len(found)) // ROWS
    require_finite(found[jump.span[:, 0] > 0])
    exact = velocities(jump, problem.path, problem.mixture)
    everything = _Found(jump, np.where(np.expand_dims(is_finite, 1), found, 0), exact)
    known = cache(partial(mistaken_velocities, jump, exact, problem.path, problem.mixture))
    joint = cache(lambda: _cause(problem, everything, is_finite, known()))
    for number, name in enumerate(groups):
        rows = group == number
        if not is_finite[rows].all():
            share = float(np.mean(~is_finite[rows]))
            yield at_most(f"{name}: share not finite", share, 0.0, lambda: "divided by r - t, 0 there")
            continue

        def cause(rows: np.ndarray = rows) -> str:
            return joint() if joint() != UNKNOWN else _cause(problem, everything, rows, known())

        yield at_most(name, everything.error(exact, rows), problem.tolerance, cause)
    x, span = np.asarray(way.x), way.span
    second = way._replace(x=jnp.asarray(x + span * require_finite(first), way.x.dtype), t=way.r, r=uncut[0].r)
    then = require_finite(call(second))
    apart = span * first + second.span * then - uncut[0].span * found[:ROWS]
    error = float(np.linalg.norm(apart) / np.linalg.norm(uncut[0].span * exact[:ROWS]))
    yield at_most("semigroup: by way of a third time", error, _JUMPS * problem.tolerance, joint)
    share = float(np.mean(~np.isfinite(at_ends)))
    yield at_most("share not finite at r = t = 0 and 1", share, 0.0, lambda: "divided by r - t, alpha or beta, 0 there")


def _middle(jump: Jump) -> Array:
    """A time between t and r, [n]."""
    return jump.t + 0.4 * (jump.r - jump.t)


def _ends(jump: Jump) -> Jump:
    """Rows at r = t = 0 and at r = t = 1."""
    time = jnp.asarray(np.arange(ROWS) % 2, jump.t.dtype)
    return jump._replace(t=time, r=time)


def _cause(problem: Problem, everything: _Found, rows: np.ndarray, known: dict[str, np.ndarray]) -> str:
    """The words of the mistake that fits some of the rows, [n] booleans."""
    exact, found = everything.exact, everything.found
    error = partial(everything.error, rows=rows)
    words = likely_cause(error, exact, known, problem.tolerance)
    if words != UNKNOWN:
        return words
    words = likely_cause(error, exact, _at_another_scale(problem, everything, rows), problem.tolerance)
    if words != UNKNOWN:
        return words
    factor = float(np.vdot(exact[rows], found[rows]) / max(np.vdot(exact[rows], exact[rows]), 1e-30))
    return likely_cause(error, exact, {f"a factor {factor:.3g} too many": factor * exact}, problem.tolerance)


def _at_another_scale(problem: Problem, everything: _Found, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The map at the scales that act at r = t (V25), by its words; of no rows there none."""
    jump, found, _ = everything
    scale = np.asarray(jump.scale)
    instant = rows & (jump.span[:, 0] == 0) & (np.asarray(jump.y) < problem.mixture.num_classes)
    wanted = np.unique(scale[rows])
    if not np.isin(wanted, scale[instant]).all():
        return {}
    null, labelled = (velocities(with_scale(jump, value), problem.path, problem.mixture) for value in (0.0, 1.0))
    change, moved = labelled - null, found - null
    parts = [instant & (scale == value) for value in wanted]
    used = np.asarray([np.vdot(change[part], moved[part]) / np.vdot(change[part], change[part]) for part in parts])
    acting = with_scale(jump, used[np.clip(np.searchsorted(wanted, scale), 0, len(wanted) - 1)])
    return {_scale_words(wanted, used): velocities(acting, problem.path, problem.mixture)}


def _scale_words(wanted: np.ndarray, used: np.ndarray) -> str:
    """The words for the scales that act in the place of those that are wanted."""
    factor = float(np.vdot(wanted, used) / max(np.vdot(wanted, wanted), 1e-30))
    if np.max(np.abs(used - factor * wanted)) > 0.02 * np.max(np.abs(used)):
        acting = ", ".join(f"{scale:.3g} for w = {w:g}" for w, scale in zip(wanted, used, strict=True))
        return f"another scale acts: {acting}"
    if factor < 1:
        return f"looks like scale {factor:.3g} w: omega = w (1 - kappa) has kappa = {1 - factor:.3g}"
    return f"looks like scale {factor:.3g} w: w / (1 - kappa) has kappa = {1 - 1 / factor:.3g}"

"""The rows at which flow maps are checked: draws of t <= r, states of p_t(x), labels and scales; and calls of a map."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, FlowMap, GaussianPath, Interval
from cfgjax.verify.call_user import mapped, require_shape
from cfgjax.verify.flow_map_bugs import Jump
from cfgjax.verify.reference import states

ROWS = 90
"""Rows of a check."""
_LABELS, _SHORTEST = 8, 0.05
_GOLDEN, _PLASTIC = 0.6180339887, 0.7548776662


def listed(scales: tuple[float, ...]) -> str:
    """Scales in their order, in words."""
    return ", ".join(f"{scale:g}" for scale in sorted(scales))


class Problem(NamedTuple):
    """A claim and how it is checked; ``interval`` is None where w is a number alone."""

    flow_map: FlowMap
    path: GaussianPath
    mixture: LabelledMixture
    scales: tuple[float, ...]
    interval: Interval | None
    tolerance: float
    seed: int

    def jump(self, t: np.ndarray, r: np.ndarray, y: np.ndarray, w: np.ndarray, number: int) -> Jump:
        """The rows of given times, labels and scales, at states of p_t(x)."""
        x = states(self.mixture, self.path, t, self.seed + number)
        dtype = x.dtype
        zero, null = jnp.zeros(len(t), dtype), jnp.full(len(t), self.mixture.num_classes)
        start, end, scale = (jnp.asarray(column, dtype) for column in (t, r, w))
        return Jump(x, start, end, jnp.asarray(y), scale, null, zero, zero + 1, zero + 1, zero + 1)


def _spread(start: int, factor: float) -> np.ndarray:
    """Evenly spread numbers in [0, 1), [ROWS]."""
    return ((start + np.arange(ROWS)) * factor + 0.5) % 1


def _times(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Times t < r: every sixth row from 0, to 1, and from 0 to 1; the others between."""
    start = 1000 * seed % 99991 + ROWS * number
    first, share = _spread(start, _GOLDEN), _spread(start, _PLASTIC)
    t = (1 - _SHORTEST) * first
    index = np.arange(ROWS)
    t = np.where(index % 6 < 2, 0.0, t)
    r = t + _SHORTEST + (1 - _SHORTEST - t) * share
    return t, np.where(np.isin(index % 6, (0, 2)), 1.0, r)


def groups_of(problem: Problem) -> dict[str, Jump]:
    """The rows of each check by its name."""
    null = problem.mixture.num_classes
    labels = np.unique(np.linspace(0, null - 1, min(null, _LABELS)).astype(int))
    order = np.random.default_rng(problem.seed).permutation(ROWS)
    y = labels[order % len(labels)]
    found = {}

    def add(name: str, scales: tuple[float, ...], y: np.ndarray = y, is_instant: bool = False) -> None:
        if not scales:
            return
        t, r = _times(problem.seed, len(found))
        t = 0.05 + 0.9 * _spread(0, _GOLDEN) if is_instant else t
        w = np.asarray(scales)[order // len(labels) % len(scales)]
        found[name] = problem.jump(t, t if is_instant else r, y, w, len(found))

    others = tuple(scale for scale in problem.scales if scale not in (0, 1))
    add(f"average velocity, w = {listed(others)}", others)
    add("w = 0: the null field's map", tuple(scale for scale in problem.scales if scale == 0))
    add("w = 1: the labelled field's map", tuple(scale for scale in problem.scales if scale == 1))
    add("r = t: the guided field", problem.scales, is_instant=True)
    add("null label: the null field's map for every w", problem.scales, np.full(ROWS, null))
    if problem.interval is not None:
        start, stop = float(problem.interval.start), float(problem.interval.stop)
        name = f"guidance from {start:g} to {stop:g} alone"
        add(name, problem.scales)
        jump = found[name]
        found[name] = jump._replace(start=0 * jump.start + start, stop=0 * jump.stop + stop)
    return found


def joined(groups: Iterable[Jump]) -> Jump:
    """The rows of groups, one after the other."""
    return Jump(*(jnp.concatenate(columns) for columns in zip(*groups, strict=True)))


def caller(flow_map: FlowMap) -> Callable[[Jump], np.ndarray]:
    """What the map gives for rows, [n, D], compiled once: a later call of fewer rows repeats them."""

    def plain(x: Array, t: Array, r: Array, y: Array, w: Array, *_: Array) -> Array:
        return flow_map(x, t, r, y, w)

    def cut(x: Array, t: Array, r: Array, y: Array, w: Array, start: Array, stop: Array) -> Array:
        return flow_map(x, t, r, y, Interval(w, start, stop))

    compiled = {each: jax.jit(jax.vmap(each)) for each in (plain, cut)}
    sizes: dict[Callable, int] = {}

    def call(jump: Jump) -> np.ndarray:
        one = cut if jump.is_cut.any() else plain
        columns = jump.x, jump.t, jump.r, jump.y, jump.scale, jump.start, jump.stop
        size = sizes.setdefault(one, len(jump.t))
        repeated = np.resize(np.arange(len(jump.t)), max(size, len(jump.t)))
        try:
            values = compiled[one](*(column[repeated] for column in columns))
            found = np.asarray(values, np.float64)[: len(jump.t)]
        except Exception:
            found = mapped(one, *columns, most=len(jump.t))
        return require_shape(found, jump.x.shape[1:])

    return call

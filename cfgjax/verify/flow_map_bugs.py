"""The average velocities of the oracle's guided ODE, with those that known mistakes in flow maps would give.

(V24) A trajectory is solved for its average velocity itself, U = sum of the steps' slopes by their shares of r - t, by
      the classical rule of order 4 with 72 steps, shorter ones towards the ends and the edges of an interval: nothing
      is divided by r - t, and at r = t it is the field. Its error is under single precision's.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.guidance import interpolate
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Field, GaussianPath
from cfgjax.verify.field_bugs import shifted_labels
from cfgjax.verify.scales import SCALE_MISTAKES

_PARTS, _STEPS = 3, 24
_STAGES = ((0, 1 / 6), (1 / 2, 1 / 3), (1 / 2, 1 / 3), (1, 1 / 6))
"""By stage, how far into the step it is, and its weight."""
_HUGE = 1e6


class Jump(NamedTuple):
    """What a flow map is asked for, or gives instead: from t to r at x, the scale for start <= t < stop, and outside.

    The null side is ``null_factor`` times the field of label ``null``. Columns [n] of rows, or numbers.
    """

    x: Array
    t: Array
    r: Array
    y: Array
    scale: Array
    null: Array
    start: Array
    stop: Array
    outside: Array
    null_factor: Array

    @property
    def span(self) -> np.ndarray:
        """r - t, [n, 1]."""
        return np.expand_dims(np.asarray(self.r - self.t, np.float64), -1)

    @property
    def is_cut(self) -> np.ndarray:
        """Whether an interval bounds the guidance, [n]."""
        return np.asarray((self.start > 0) | (self.stop < 1))


def average_velocity(field: Field, x: Array, t: Array, r: Array, num_steps: int) -> Array:
    """U of (V24) by steps that are shorter towards t and r, [D]; differentiable, at r = t as well."""
    q = jnp.linspace(0.0, 1.0, num_steps + 1)
    marks = q * q * (3 - 2 * q)

    def step(moved: Array, ends: tuple[Array, Array]) -> tuple[Array, None]:
        start, stop = ends
        share = stop - start

        def stage(slopes: tuple[Array, Array], part: Array) -> tuple[tuple[Array, Array], None]:
            last, total = slopes
            offset, weight = part
            state = x + (r - t) * (moved + offset * share * last)
            slope = field(state, t + (r - t) * (start + offset * share))
            return (slope, total + weight * slope), None

        (_, total), _ = jax.lax.scan(stage, (jnp.zeros_like(x), jnp.zeros_like(x)), jnp.asarray(_STAGES, x.dtype))
        return moved + share * total, None

    return jax.lax.scan(step, jnp.zeros_like(x), (marks[:-1], marks[1:]))[0]


def _parts(jump: Jump) -> tuple[Array, Array, Array]:
    """The bounds of three parts, [4]; the share of r - t that each has, [3]; and its scale, [3]."""
    is_cut = (jump.start > 0) | (jump.stop < 1)
    low, high = jnp.minimum(jump.t, jump.r), jnp.maximum(jump.t, jump.r)
    edges = jnp.clip(jnp.stack([jump.start, jump.stop]), low, high)
    edges = jnp.where(jump.r < jump.t, edges[::-1], edges)
    thirds = jump.t + (jump.r - jump.t) * jnp.asarray([1 / 3, 2 / 3])
    first, second = jnp.where(is_cut, edges, thirds)
    bounds = jnp.stack([jump.t, first, second, jump.r])
    is_inside = (jump.t >= jump.start) & (jump.t < jump.stop)
    instant = jnp.where(is_inside, jnp.asarray([0.0, 1.0, 0.0]), jnp.asarray([1.0, 0.0, 0.0]))
    span = jump.r - jump.t
    shares = jnp.where(span == 0, instant, jnp.diff(bounds) / jnp.where(span == 0, 1, span))
    outside = jnp.where(is_cut, jump.outside, jump.scale)
    return bounds, shares, jnp.stack([outside, jump.scale, outside])


@partial(jax.jit, static_argnames="path")
def _velocities(jumps: Jump, path: GaussianPath, mixture: LabelledMixture) -> Array:
    field = mixture.vector_field(path)

    def velocity(jump: Jump) -> Array:
        def advance(x: Array, part: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            start, stop, scale = part

            def guided(x: Array, t: Array) -> Array:
                null, labelled = jax.vmap(field, in_axes=(None, None, 0))(x, t, jnp.stack([jump.null, jump.y]))
                return interpolate(jump.null_factor * null, labelled, scale)

            value = average_velocity(guided, x, start, stop, _STEPS)
            return x + (stop - start) * value, value

        bounds, shares, scales = _parts(jump)
        _, values = jax.lax.scan(advance, jump.x, (bounds[:-1], bounds[1:], scales))
        return jnp.sum(jnp.expand_dims(shares, 1) * values, axis=0)

    return jax.vmap(velocity)(jumps)


def velocities(jump: Jump, path: GaussianPath, mixture: LabelledMixture) -> np.ndarray:
    """The average velocities of the rows, [n, D]; what diverges is a large number."""
    found = np.asarray(_velocities(jump, path, mixture), np.float64)
    return np.clip(np.nan_to_num(found, nan=_HUGE), -_HUGE, _HUGE)


def with_scale(jump: Jump, scale: np.ndarray | float) -> Jump:
    """The rows at other scales, [n] or one for all."""
    return jump._replace(scale=jnp.broadcast_to(jnp.asarray(scale, jump.scale.dtype), jump.scale.shape))


def _other_odes(jump: Jump, num_classes: int) -> dict[str, Jump]:
    """By the mistake's words, the jump of another ODE, or between other times, that is given instead."""
    _, t, r, y, _, null, start, stop, outside, factor = jump
    left_out = "2 w is used", "w / 2 is used", "one scale for all"
    known = {
        words: with_scale(jump, used(np.asarray(jump.scale)))
        for words, used in SCALE_MISTAKES.items()
        if not words.startswith(left_out)
    }
    is_label = y < num_classes
    others = {"labels are ignored: it is the null label's map": null} | shifted_labels(y, num_classes)
    known |= {words: jump._replace(y=jnp.where(is_label, other, y)) for words, other in others.items()}
    for label in {0, num_classes - 1}:
        words = f"the null label's row is that of label {label}, not of {num_classes}"
        row = jnp.full_like(y, label)
        known[words] = jump._replace(null=row)
        alike = f"{words}, and so is the map at y = {num_classes}"
        known[alike] = jump._replace(null=row, y=jnp.where(is_label, y, row))
    known["the null side of guidance is zero: w u_y"] = jump._replace(null_factor=0 * factor)
    known["r and t are exchanged: it is U(x, r, t)"] = jump._replace(t=r, r=t)
    known["time runs backwards: it is U(x, 1 - t, 1 - r)"] = jump._replace(t=1 - t, r=1 - r)
    known["time runs backwards, and r and t are exchanged: it is U(x, 1 - r, 1 - t)"] = jump._replace(t=1 - r, r=1 - t)
    if jump.is_cut.any():
        is_in = (t >= start) & (t < stop)
        whole = jump._replace(start=0 * start, stop=0 * stop + 1)
        known |= {
            "the interval of guidance is ignored: w acts everywhere": whole,
            "outside the interval of guidance it is the null field, not the labelled one": jump._replace(
                outside=0 * outside
            ),
            "the interval of guidance is turned: w acts outside it": jump._replace(scale=outside, outside=jump.scale),
            "the interval of guidance runs backwards in time": jump._replace(start=1 - stop, stop=1 - start),
            "the interval of guidance is asked at t alone, not on the way to r": whole._replace(
                scale=jnp.where(is_in, jump.scale, outside)
            ),
        }
    return known


def _other_forms(jump: Jump, of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By the mistake's words, what is given in the place of U, made of exact velocities."""
    exact, null, labelled, w = of["exact"], of["null"], of["labelled"], np.expand_dims(np.asarray(jump.scale), -1)
    x, moved = np.asarray(jump.x, np.float64), jump.span * exact
    twice, shifted = "a guided map is guided again", "maps are extrapolated, not fields"
    return {
        "the sign is wrong: it is -U": -exact,
        "time runs backwards in the sign, too: it is -U(x, 1 - t, 1 - r)": -of["mirrored"],
        "time runs backwards in the sign, too: it is -U(x, 1 - r, 1 - t)": -of["turned"],
        "looks like (r - t) U: the displacement, not divided by r - t": moved,
        "looks like the end x_r, not the average velocity on the way there": x + moved,
        "looks like x - x_r: a displacement of the wrong sign": -moved,
        "looks like the field at t: no map at all, u(x, t) for U(x, t, r)": of["first"],
        "looks like the field at r: u(x_r, r) for U(x, t, r)": of["last"],
        "looks like the field at r: u(x, r) for U(x, t, r)": of["later"],
        "it is zero": np.zeros_like(exact),
        f"{shifted}: U_null + w (U_y - U_null), which is no map of the guided field": null + w * (labelled - null),
        f"{shifted}, with 1 + w for w: U_y + w (U_y - U_null)": labelled + w * (labelled - null),
        f"looks like guidance applied twice: {twice}, U_null + w (U_w - U_null)": null + w * (exact - null),
        f"looks like guidance applied twice: {twice}, U_y + w (U_w - U_y)": labelled + w * (exact - labelled),
        f"looks like guidance applied twice: {twice}, U_y + w (U_w - U_null)": labelled + w * (exact - null),
    }


def mistaken_velocities(
    jump: Jump, exact: np.ndarray, path: GaussianPath, mixture: LabelledMixture
) -> dict[str, np.ndarray]:
    """What known mistakes give for the rows, [n, D], by their words."""
    others = _other_odes(jump, mixture.num_classes)
    x_r = jnp.asarray(np.asarray(jump.x) + jump.span * exact, jump.x.dtype)
    unguided = jump._replace(start=0 * jump.start, stop=0 * jump.stop + 1)
    parts = {
        "null": with_scale(unguided, 0.0),
        "labelled": with_scale(unguided, 1.0),
        "first": jump._replace(r=jump.t),
        "last": jump._replace(x=x_r, t=jump.r),
        "later": jump._replace(t=jump.r),
    }
    known = {words: velocities(other, path, mixture) for words, other in others.items()}
    of = {"exact": exact} | {name: velocities(part, path, mixture) for name, part in parts.items()}
    of["mirrored"] = known["time runs backwards: it is U(x, 1 - t, 1 - r)"]
    of["turned"] = known["time runs backwards, and r and t are exchanged: it is U(x, 1 - r, 1 - t)"]
    return known | _other_forms(jump, of)

"""Gradients of losses of flow maps at the oracle's exact guided map, or at what a mistaken one is least for.

(V26) A loss that is least for a map has the mean gradient 0 there, along every change of it. The changes are local:
      each acts at r = t, for short or for long ways from t to r, in one half of t, and on one label; all halves and
      labels together are tried as well. Each has one of some ten shapes in x.
(V27) The maps are those of (V24) with 12 steps. What that leaves, which shows where a teacher leaves no noise, is
      allowed: a mean counts as no smaller than 0.2 % of the gradient of a map that is 0.25 off.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY
from cfgjax.guidance import interpolate
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Field, FlowMap, GaussianPath, GuidedField
from cfgjax.verify.call_user import format_error
from cfgjax.verify.flow_map_bugs import average_velocity
from cfgjax.verify.reference import labelled_data
from cfgjax.verify.report import CallError

Teacher = Literal["field", "flow_map"]

WAYS, HALVES, GROUPS = 4, 2, 8
"""Kinds of ways: r = t, short, long, r < t; halves of t; and groups of labels at most."""

BATCH = 8192
"""Examples at a time."""

SIZE, _FLOOR = 0.25, 2e-3
_STEPS, _LONG, _COORDINATES, _NULL_RATE = 12, 0.3, 3, 0.2


class Guess(NamedTuple):
    """The map that a loss might be least for: numbers, for one compilation.

    It has the scale ``constant + factor w + square w^2``, the label y + ``shift``, ``null`` for the null side, y itself
    replaced by the null where ``is_unlabelled``, and the value times ``sign``. ``is_mirrored`` is at 1 - t and 1 - r,
    ``is_exchanged`` from r to t; ``is_displacement`` has r - t times the value.
    """

    constant: float = 0.0
    factor: float = 1.0
    square: float = 0.0
    shift: int = 0
    null: int = -1
    is_unlabelled: bool = False
    sign: float = 1.0
    is_mirrored: bool = False
    is_exchanged: bool = False
    is_displacement: bool = False


class Offset(NamedTuple):
    """What is added to the value of one call, but not to its derivatives, as factors of four parts.

    (r - t) d_t U, (r - t) (d_x U) u, (r - t) d_r U, and dU/dt = d_t U + (d_x U) u.
    """

    by_t: float = 0.0
    by_x: float = 0.0
    by_r: float = 0.0
    whole: float = 0.0


class LossProblem(NamedTuple):
    """A loss and the law of its examples; w is drawn uniformly between the scales."""

    loss: Callable[..., Array]
    path: GaussianPath
    mixture: LabelledMixture
    teacher: Teacher | None
    scales: tuple[float, float]
    seed: int

    @property
    def num_groups(self) -> int:
        """Groups of labels that are told apart, without the null label's."""
        return min(self.mixture.num_classes, GROUPS)

    def examples(self, size: int) -> tuple[Array, Array, Array, Array]:
        """Keys for the loss, data points, labels, with a rate of 0.2 the null, and scales, [size, ...] each."""
        z, y = labelled_data(self.mixture, size, self.seed)
        rng = np.random.default_rng((self.seed, size))
        is_null = rng.uniform(size=size) < _NULL_RATE
        w = jnp.asarray(rng.uniform(*self.scales, size=size), z.dtype)
        keys = jax.random.split(jax.random.key(self.seed, impl=THREEFRY), size)
        return keys, z, jnp.where(is_null, self.mixture.num_classes, y), w

    def number(self, flow_map: FlowMap, teacher_change: Array, *example: Array) -> Array:
        """The loss of one example."""
        return self.loss(self.path, flow_map, *self.teacher_with(teacher_change), *example)

    def guided(self, x: Array, t: Array, y: Array, w: Array, null: Array | int) -> Array:
        """The guided field of the oracle."""
        field = self.mixture.vector_field(self.path)
        sides = jax.vmap(field, in_axes=(None, None, 0))(x, t, jnp.stack([jnp.asarray(null), y]))
        return interpolate(sides[0], sides[1], w)

    def map_of(self, guess: Guess) -> FlowMap:
        """The average velocity of a guess, as (x, t, r, y, w)."""
        num_classes = self.mixture.num_classes

        def velocity(x: Array, t: Array, r: Array, y: Array, w: Array) -> Array:
            null = jnp.where(guess.null < 0, num_classes, guess.null)
            label = jnp.where(y == num_classes, y, (y + guess.shift) % num_classes)
            label = jnp.where(guess.is_unlabelled, num_classes, label)
            scale = guess.constant + guess.factor * w + guess.square * w**2
            t, r = jnp.where(guess.is_mirrored, 1 - t, t), jnp.where(guess.is_mirrored, 1 - r, r)
            t, r = jnp.where(guess.is_exchanged, r, t), jnp.where(guess.is_exchanged, t, r)
            field: Field = lambda x, t: self.guided(x, t, label, scale, null)  # noqa: E731
            factor = guess.sign * jnp.where(guess.is_displacement, r - t, 1)
            return factor * average_velocity(field, x, t, r, _STEPS)

        return velocity

    def teacher_with(self, change: Array) -> tuple[GuidedField | FlowMap, ...]:
        """The exact teacher that the loss is given, moved by a change [D]; none where it takes none."""
        if self.teacher is None:
            return ()
        if self.teacher == "field":
            return (lambda x, t, y, w: self.guided(x, t, y, w, self.mixture.num_classes) + change,)
        exact = self.map_of(Guess())
        return (lambda x, t, r, y, w: exact(x, t, r, y, w) + change,)


def _shapes_at(value: Array, x: Array, t: Array, r: Array) -> Array:
    """Changes of a map in x, [S, D]: the first few are constants, each of one coordinate."""
    dimension = x.shape[-1]
    chosen = np.unique(np.linspace(0, dimension - 1, min(dimension, _COORDINATES)).astype(int))
    one = jnp.eye(dimension, dtype=x.dtype)[chosen]
    rows = [one, one * jnp.sin(jnp.sum(x) + t + r), one * jnp.cos(x[0] - 2 * x[-1])]
    return jnp.concatenate([*rows, jnp.stack([value, x, jnp.sin(3 * x + t)])])


def num_constants(problem: LossProblem) -> int:
    """How many of the shapes are constants."""
    return min(problem.mixture.means.shape[-1], _COORDINATES)


def _place(problem: LossProblem, t: Array, r: Array, y: Array) -> tuple[Array, Array, Array]:
    """The cell of (V26): the way, the half of t, the group of labels."""
    span, null = r - t, problem.mixture.num_classes
    way = jnp.where(span == 0, 0, jnp.where(span < 0, 3, jnp.where(span < _LONG, 1, 2)))
    return way, jnp.where(t < 0.5, 0, 1), jnp.where(y == null, problem.num_groups, y % problem.num_groups)


def _offset_at(problem: LossProblem, base: FlowMap, offset: Offset, *point: Array) -> Array:
    """The value of an ``Offset`` at (x, t, r, y, w), [D]."""
    x, t, r, y, w = jax.lax.stop_gradient(point)
    times, still = jnp.eye(2, dtype=x.dtype), jnp.zeros_like(x)
    field = problem.guided(x, t, y, w, problem.mixture.num_classes)
    directions = jnp.stack([still, field, still]), jnp.stack([times[0], 0 * times[0], times[1]])

    def along(x_dot: Array, times_dot: Array) -> Array:
        own: FlowMap = lambda x, t, r: base(x, t, r, y, w)  # noqa: E731
        return jax.jvp(own, (x, t, r), (x_dot, times_dot[0], times_dot[1]))[1]

    by_t, by_x, by_r = jax.vmap(along)(*directions)
    parts = (r - t) * (offset.by_t * by_t + offset.by_x * by_x + offset.by_r * by_r)
    return parts + offset.whole * (by_t + by_x)


class Sums(NamedTuple):
    """Means over examples by part of the gradient and place [parts, M]: of gradients, squares, and where not 0.

    M is the cells (V26) with their shapes, and then all halves and labels together. ``teacher`` is the mean square of
    the gradient in the teacher.
    """

    gradient: np.ndarray
    square: np.ndarray
    share: np.ndarray
    teacher: float
    num_examples: int

    def slopes(self, size: np.ndarray) -> np.ndarray:
        """The mean gradients in standard errors, of all parts together where these are one, [parts, M] (V27).

        Args:
            size: [parts, M] or [M], the mean squares of the gradient of a map that is ``SIZE`` off.
        """
        variance = np.maximum(self.square - self.gradient**2, 0) / self.num_examples
        least = _FLOOR * np.sqrt(size * self.share)
        error = np.maximum(np.sqrt(variance), np.maximum(least, 1e-30))
        return np.where(self.share > 0, np.abs(self.gradient) / error, 0)


def _traced(numbers: Any) -> Any:
    """A record's numbers as arrays of the types of its defaults, so that no value compiles anything."""
    types = [jnp.asarray(default).dtype for default in type(numbers)()]
    return type(numbers)(*(jnp.asarray(value, kind) for value, kind in zip(numbers, types, strict=True)))


class _Change(NamedTuple):
    """What is added to a map: parts [parts, ways, halves, groups + 1, S] for changes, a shift, an offset."""

    parts: Array
    shift: Array
    offset: Offset

    def at(self, place: tuple[Array, ...], shapes: Array, call: int, is_split: bool) -> Array:
        """The change, [D]: where it is split, by value and by derivatives apart."""
        along = partial(jnp.tensordot, axes=1, precision=jax.lax.Precision.HIGHEST)
        if not is_split:
            return along(self.parts[0][place], shapes)
        held = jax.lax.stop_gradient(shapes)
        return along(self.parts[2 * call][place], held) + along(self.parts[2 * call + 1][place], shapes - held)


def _changed(problem: LossProblem, base: FlowMap, change: _Change, is_split: bool, offset_call: int) -> FlowMap:
    """The map with its changes; ``offset_call`` is the number of the call that has the offset."""
    numbers = count()
    is_constant = jnp.where(jnp.arange(change.parts.shape[-1]) < num_constants(problem), 1.0, 0.0)

    def changed(x: Array, t: Array, r: Array, y: Array, w: Array) -> Array:
        t, r, y, w = (jnp.asarray(each) for each in (t, r, y, w))
        call, exact = next(numbers), base(x, t, r, y, w)
        shapes, place = _shapes_at(exact, x, t, r), _place(problem, *jax.lax.stop_gradient((t, r)), y)
        moved = change.at(place, shapes, call, is_split)
        moved += change.shift * jnp.sum(jnp.expand_dims(is_constant, 1) * shapes, axis=0)
        if call == offset_call:
            moved += jax.lax.stop_gradient(_offset_at(problem, base, change.offset, x, t, r, y, w))
        return exact + moved

    return changed


def gradients(problem: LossProblem, num_calls: int = 0, offset_call: int = -1) -> Callable[..., Sums]:
    """Of a guess, a shift, an ``Offset`` and a number of batches the ``Sums``, compiled once.

    Args:
        problem: the loss and its law.
        num_calls: 0 for the whole gradient as one part; else there are two parts for each of so many calls of the map,
            by its value and by its derivatives.
        offset_call: the call to which an ``Offset`` is added.
    """
    shape = WAYS, HALVES, problem.num_groups + 1, 3 * num_constants(problem) + 3
    blank = jnp.zeros((max(2 * num_calls, 1), *shape))
    teacher_blank = jnp.zeros(problem.mixture.means.shape[-1])

    def one(
        example: tuple[Array, ...], guess: Guess, shift: Array, offset: Offset
    ) -> tuple[Array, tuple[Array, Array]]:
        def value(parts: Array, teacher_change: Array) -> Array:
            change = _Change(parts, shift, offset)
            flow_map = _changed(problem, problem.map_of(guess), change, num_calls > 0, offset_call)
            return problem.number(flow_map, teacher_change, *example)

        return jax.value_and_grad(value, argnums=(0, 1))(blank, teacher_blank)

    @jax.jit
    def means(examples: tuple[Array, ...], guess: Guess, shift: Array, offset: Offset) -> tuple[Array, ...]:
        value, (found, teacher) = jax.vmap(one, in_axes=(0, None, None, None))(examples, guess, shift, offset)
        cells = found.reshape(*found.shape[:2], -1)
        together = found.sum(axis=(3, 4)).reshape(*found.shape[:2], -1)
        places = jnp.concatenate([cells, together], axis=-1)
        parts = places, places**2, jnp.where(places == 0, 0.0, 1.0)
        return *(jnp.mean(part, axis=0) for part in parts), jnp.mean(teacher**2), jnp.mean(value)

    def run(guess: Guess | None = None, shift: float = 0.0, offset: Offset | None = None, num_batches: int = 1) -> Sums:
        numbers = _traced(guess or Guess()), jnp.asarray(float(shift)), _traced(offset or Offset())
        examples = problem.examples(num_batches * BATCH)
        batches = [tuple(each[n * BATCH : (n + 1) * BATCH] for each in examples) for n in range(num_batches)]
        try:
            found = [jax.device_get(means(batch, *numbers)) for batch in batches]
        except Exception as error:
            raise CallError(f"cannot be traced by jax.jit, jax.vmap and jax.grad: {format_error(error)}") from None
        sums = [np.mean(np.asarray(each, np.float64), axis=0) for each in zip(*found, strict=True)]
        if not all(np.isfinite(each).all() for each in sums):
            raise CallError("gives NaN or inf, or its gradient in the flow map does")
        gradient, square, share, teacher, _ = sums
        return Sums(gradient, square, share, float(teacher), num_batches * BATCH)

    return run


def cells_of(problem: LossProblem, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of values [..., M] those of the cells [..., ways, halves, groups + 1, S], and of all together [..., ways, S]."""
    shape = (WAYS, HALVES, problem.num_groups + 1, 3 * num_constants(problem) + 3)
    size = int(np.prod(shape))
    front = values.shape[:-1]
    return values[..., :size].reshape(*front, *shape), values[..., size:].reshape(*front, WAYS, shape[-1])

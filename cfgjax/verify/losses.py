"""Losses against their minimiser, the oracle's view.

(V14) A loss that is least for a view has the mean gradient 0 there, along every change of the field. The changes are
     local: each acts in one fifth of t, on one label, and has one of some ten shapes in x. The means of n examples are
     allowed five and a half standard errors each (false alarms under 4e-5 a report). What a mean shares with that of
     the residual, exact view less target, which is 0, is taken off it by regression: a square leaves nothing.
(V15) A minimum bends upwards for every label; a label that is not passed does not bend.
(V16) A cause is named where the gradients at what it would be least for are 0 in the same sense, or where the gradient
     is a known function of the residual (``residuals``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY
from cfgjax.contracts import checked
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, GaussianPath, LabelledField
from cfgjax.verify.call_user import mapped, require_finite
from cfgjax.verify.field_bugs import NAMES
from cfgjax.verify.reference import STRAIGHT, Oracle, Seed, View, lopsided_mixture, oracle_views
from cfgjax.verify.report import UNKNOWN, CallError, Check, Report, at_least, at_most, collected
from cfgjax.verify.residuals import residual_cause
from cfgjax.verify.targets import mistaken_targets, target

Loss = Callable[[GaussianPath, LabelledField, Array, Array, Array], Array]
"""``(path, field, key, z [D], y []) -> []``, as ``losses.flow_matching``."""

_BATCH, _BATCHES, _FEW = 1024, 64, 8
"""Examples at a time; how many times; and how many times for causes, which are far from each other."""

_SIZE, _ALLOWED, _FLOOR = 0.25, 5.5, 0.05
"""The change for curvatures; the slope allowed, and the share of a standard error that (V14) leaves at least."""

_BINS, _GROUPS, _COORDINATES = 5, 8, 3


@checked
def loss(
    loss: Loss,
    view: View = "field",
    path: GaussianPath | None = None,
    mixture: Oracle | None = None,
    seed: Seed = 0,
) -> Report:
    """The report on a training loss of ONE example that claims to be least for a view of the oracle.

    Checked: its gradients at the view are 0 on average for each fifth of t and each label, and for the null label where
    the loss drops labels (V14), and it bends upwards (V15). A weight of t, y or x changes no minimiser, and passes.
    Causes told apart (V16): another view, or minus one, as the target; time backwards; labels shifted or not passed; a
    loss with its sign turned; L1, a norm that is not squared, Huber, pseudo-Huber, log-cosh and quantile losses, which
    are least for something else than a mean; a weight that depends on the residual, the noise or the data point.

    A pass does not show the null field of a loss that drops no labels, what is rarely drawn (a time, a label), or that
    a network learns the minimiser. With t uniform a square whose target is off by 5 % of the field, in any one fifth of
    t, is found: for one label of the three by 44 to 67 standard errors, for the null label, a tenth dropped, by 15 to
    33, where 5.5 are allowed. The oracle must be lopsided, as the usual one is, for a median to differ from a mean: on
    one Gaussian a label L1 is rightly passed.

    Args:
        loss: (path, field, key, z [D], y []) -> [], called with the key of one example; a label may be dropped inside.
            It is differentiated by the field's value.
        view: what the minimiser should be.
        path: the path; None for the straight one.
        mixture: the data; None for one of three labels of two components each, in 2-D.
        seed: draws the examples.
    """
    problem = _Problem(loss, view, path or STRAIGHT, mixture or lopsided_mixture(), seed)
    limits = "the null field of a loss that drops no labels, nor times and labels that it rarely draws"
    return collected(f"verify.loss ({NAMES[view]})", _checks(problem), limits)


class _Problem(NamedTuple):
    loss: Loss
    view: View
    path: GaussianPath
    mixture: LabelledMixture
    seed: int

    @property
    def num_groups(self) -> int:
        """Groups of labels that are told apart, without the null label's."""
        return min(self.mixture.num_classes, _GROUPS)

    @property
    def exact(self) -> LabelledField:
        """What the minimiser should be."""
        return oracle_views(self.mixture, self.path)[self.view]

    def example(self, key: Array) -> tuple[Array, Array, Array]:
        """A key for the loss, a data point and its label."""
        label_key, data_key, loss_key = jax.random.split(key, 3)
        y = self.mixture.sample_label(label_key)
        return loss_key, self.mixture.sample(data_key, y), y

    def example_like(self) -> Any:
        """The form of a data point."""
        return jax.eval_shape(lambda: self.mixture.means[0, 0])

    @property
    def num_constants(self) -> int:
        """How many of the shapes are constants."""
        return min(self.mixture.means.shape[-1], _COORDINATES)


def _shapes_at(exact: LabelledField, x: Array, t: Array, y: Array) -> Array:
    """Changes of a field in x, [S, D]: the first few are constants, each of one coordinate."""
    dimension = x.shape[-1]
    chosen = np.unique(np.linspace(0, dimension - 1, min(dimension, _COORDINATES)).astype(int))
    one = jnp.eye(dimension, dtype=x.dtype)[chosen]
    value = exact(x, t, y)
    waves = [jnp.sin(jnp.sum(x) + t), jnp.cos(x[0] - 2 * x[-1]), jnp.cos(2 * x[0] + x[-1])]
    rows = [
        one,
        one * jnp.expand_dims(value, 0),
        *(one * wave for wave in waves),
        jnp.stack([value, x, jnp.sin(3 * x + t), jnp.cos(2 * x)]),
    ]
    return jnp.concatenate(rows)


class _Sums(NamedTuple):
    """Means over examples by fifth of t, group of labels and shape, [..., 5, G + 1, S]: of gradients and residuals."""

    gradient: np.ndarray
    square: np.ndarray
    residual: np.ndarray
    residual_square: np.ndarray
    product: np.ndarray
    num_examples: int

    def slopes(self) -> np.ndarray:
        """The mean gradients in standard errors (V14); 0 where nothing was drawn."""
        size = self.num_examples
        spread = np.maximum(self.residual_square - self.residual**2, 1e-30)
        is_on_path = np.all(np.abs(self.residual) <= _ALLOWED * np.sqrt(spread / size))
        factor = np.where(is_on_path, (self.product - self.gradient * self.residual) / spread, 0)
        variance = np.maximum(self.square - self.gradient**2, 0)
        left = np.maximum(variance - factor**2 * spread, _FLOOR**2 * variance)
        mean = self.gradient - factor * self.residual
        return np.where(self.square > 0, np.abs(mean) / np.sqrt(np.maximum(left / size, 1e-60)), 0)


def _summed(problem: _Problem, fields: list[LabelledField], shifts: tuple[float, ...], num_batches: int) -> _Sums:
    """``_summed_with`` the residuals, which cannot leave a loss that calls the field inside a transformation of JAX."""
    try:
        return _summed_with(problem, fields, shifts, num_batches, _residual_by_shape)
    except CallError:
        return _summed_with(problem, fields, shifts, num_batches, None)


def _residual_by_shape(problem: _Problem, z: Array, value: Array, shapes: Array, x: Array, t: Array) -> Array:
    """The exact view less the target, times each shape, [S]: 0 on average if x is on the path."""
    residual = value - target(problem.view, problem.path, z, x, t)[0]
    return jnp.sum(shapes * jnp.expand_dims(residual, 0), axis=1)


def _summed_with(
    problem: _Problem,
    fields: list[LabelledField],
    shifts: tuple[float, ...],
    num_batches: int,
    residual_of: Callable[..., Array] | None,
) -> _Sums:
    """The sums at each of the fields, moved by each of the shifts along the constants: [fields, shifts, ...]."""
    exact, groups = problem.exact, problem.num_groups
    num_classes, num_constants = problem.mixture.num_classes, problem.num_constants
    like = jax.eval_shape(lambda z: _shapes_at(exact, z, jnp.asarray(0.5), jnp.asarray(0)), problem.example_like())
    blank = jnp.zeros((_BINS, groups + 1, like.shape[0]))
    constants = jnp.broadcast_to(jnp.arange(like.shape[0]) < num_constants, blank.shape)

    def gradient(key: Array, index: Array, shift: Array) -> tuple[Array, Array]:
        loss_key, z, y = problem.example(key)

        def value(changes: Array) -> tuple[Array, Array]:
            residuals = [blank]

            def changed(x: Array, t: Array, y: Array) -> Array:
                t, y = jnp.asarray(t), jnp.asarray(y)
                fifth = jnp.clip(jnp.floor(_BINS * t).astype(int), 0, _BINS - 1)
                place = fifth, jnp.where(y == num_classes, groups, y % groups)
                shapes = _shapes_at(exact, x, t, y)
                if residual_of is not None:
                    residuals.append(blank.at[place].set(residual_of(problem, z, exact(x, t, y), shapes, x, t)))
                change = jnp.tensordot(changes[place], shapes, axes=1, precision=jax.lax.Precision.HIGHEST)
                return jax.lax.switch(index, fields, x, t, y) + change

            number = _number(problem.loss(problem.path, changed, loss_key, z, y))
            return number, sum(residuals[1:], residuals[0])

        return jax.grad(value, has_aux=True)(shift * constants)

    def add_batch(sums: Array, keys: Array, index: Array, shift: Array) -> tuple[Array, None]:
        found, residual = jax.vmap(gradient, in_axes=(0, None, None))(keys, index, shift)
        terms = (found, found**2, residual, residual**2, found * residual)
        return sums + jnp.stack([term.mean(axis=0) for term in terms]) / num_batches, None

    def total(index: Array, shift: Array) -> Array:
        keys = jax.random.split(jax.random.key(problem.seed, impl=THREEFRY), (num_batches, _BATCH))
        start = jnp.zeros((5, *blank.shape))
        return jax.lax.scan(lambda sums, keys: add_batch(sums, keys, index, shift), start, keys)[0]

    pairs = [(index, shift) for index in range(len(fields)) for shift in shifts]
    index, shift = (jnp.asarray(part) for part in zip(*pairs, strict=True))
    found = _called(problem, total, index, shift).reshape(len(fields), len(shifts), 5, *blank.shape)
    return _Sums(*np.moveaxis(found, 2, 0), num_examples=num_batches * _BATCH)


def _number(value: Any) -> Array:
    if jnp.shape(value):
        raise CallError(f"gives the shape {jnp.shape(value)} for ONE example, not a number")
    return value


def _called(problem: _Problem, function: Callable[..., Array], *arrays: Array) -> np.ndarray:
    """The function's values; where it fails, the words of the loss called for one example."""
    try:
        return require_finite(mapped(function, *arrays, most=0))
    except CallError:
        exact = problem.exact

        def one(key: Array) -> Array:
            loss_key, z, y = problem.example(key)
            return _number(problem.loss(problem.path, exact, loss_key, z, y))

        require_finite(mapped(one, jax.random.split(jax.random.key(problem.seed, impl=THREEFRY), _BATCH), most=0))
        raise


def _checks(problem: _Problem) -> Iterator[Check]:
    exact, groups = problem.exact, problem.num_groups
    sums = _summed(problem, [exact], (0.0, _SIZE, -_SIZE), _BATCHES)
    slopes = sums.slopes()[0, 0]

    def cause() -> str:
        words = _target_cause(problem) or residual_cause(*problem)
        fifth, group, _ = np.unravel_index(np.argmax(slopes), slopes.shape)
        label = "the null label" if group == groups else f"label {group}"
        return words or f"{UNKNOWN}; most for {label} at t = {(fifth + 0.5) / _BINS:g}"

    has_null = bool(np.any(sums.square[0, 0, :, groups] > 0))
    yield at_most("slope at the exact view, in standard errors", np.max(slopes[:, :groups]), _ALLOWED, cause)
    name = "slope at the exact null view" + ("" if has_null else ": the null label is never passed")
    yield at_most(name, np.max(slopes[:, groups]), _ALLOWED, cause)
    bends = _bends(problem, sums.gradient[0, 1] - sums.gradient[0, 2])
    words = "the sign is wrong: it is largest there" if np.max(bends) < 0 else "labels are not passed to the field"
    share = float(np.min(bends) / max(np.max(np.abs(bends)), 1e-30))
    yield at_least("least curvature over the largest", share, 1e-3, lambda: words)


def _bends(problem: _Problem, differences: np.ndarray) -> np.ndarray:
    """The curvature along a constant, for each group of labels over its share of the data: [G]."""
    bends = differences[:, : problem.num_groups, : problem.num_constants].sum(axis=(0, 2))
    shares = np.asarray(problem.mixture.weights, np.float64).sum(axis=1)
    group_of = np.arange(len(shares)) % problem.num_groups
    return bends / np.bincount(group_of, shares / shares.sum())


def _target_cause(problem: _Problem) -> str:
    """The words of the fields at which the gradients are 0; empty for none."""
    candidates = mistaken_targets(problem.view, problem.path, problem.mixture)
    slopes = _summed_with(problem, list(candidates.values()), (0.0,), _FEW, None).slopes()[:, 0]
    fitting = [words for words, each in zip(candidates, slopes, strict=True) if np.max(each) <= _ALLOWED]
    return f"it is least for {' or '.join(fitting)}" if fitting else ""

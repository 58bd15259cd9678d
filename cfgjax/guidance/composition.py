"""Several conditions at once: weighted sums of their fields, and a guidance scale for each of y's own.

For y = (y_1, ..., y_n) and u_S the field that is given the conditions in S alone:

(S1) the chain rule with powers:  u_null + sum_i w_i (u_1..i - u_1..i-1),   the score of
     p_t(x) prod_i p_t(y_i | x, y_1..i-1)^w_i.   Equal scales are plain guidance: the sum telescopes.
(S2) the product of experts:      u_null + sum_i w_i (u_i - u_null),        the score of
     p_t(x) prod_i p_t(y_i | x)^w_i.   At w = 1 it is the labelled field where the y_i are independent given x.

As for all of guidance these are the scores of a law at each t, and not of what a solver with them draws.
Source: Brooks et al., arXiv 2211.09800, section 3.2 (S1 with two); Liu et al., arXiv 2206.01714 (S2).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import (
    condition_like,
    evaluated,
    is_traced,
    of_numpy,
    require_condition,
    require_entries,
    require_finite,
    require_like,
    require_point,
    require_real,
    require_scale,
)
from cfgjax.conditions import as_condition, null_for, without
from cfgjax.contracts import AnyCondition, AnyNull, Contract, LabelledStateField, UnitInterval, checked
from cfgjax.guidance.pairs import at_each
from cfgjax.guidance.schedules import scale_at
from cfgjax.paths import as_float
from cfgjax.piecewise import piecewise
from cfgjax.types import Array, Condition, Field, LabelledField, Scale, Tree


def _require_sum_of_one(weights: Array) -> None:
    if not is_traced(weights) and not abs(float(np.sum(np.asarray(weights, np.float64))) - 1) < 1e-4:
        raise ValueError(f"weights must sum to 1, got {weights}, which sum to {float(jnp.sum(weights)):g}")


def _stacked(name: str, conditions: Any) -> Tree:
    """Conditions as one tree whose leaves are [n, ...], n at least 1."""
    if isinstance(conditions, list):
        return _of_list(name, conditions)
    require_condition(name, conditions)
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(conditions)}
    if len(sizes) != 1 or 0 in sizes:
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(conditions)]
        raise ValueError(f"{name} must be a list, or have a common leading axis of at least 1, got the shapes {shapes}")
    if isinstance(conditions, jax.Array | np.ndarray) and not is_traced(conditions) and conditions.ndim == 1:
        for index, y in enumerate(np.asarray(conditions)):
            require_condition(f"{name}[{index}]", y)
    return as_condition(conditions)


def _of_list(name: str, conditions: list[Condition]) -> Tree:
    if not conditions:
        raise ValueError(f"{name} must be at least one condition, got an empty list")
    for index, y in enumerate(conditions):
        require_condition(f"{name}[{index}]", y)
    first = as_condition(conditions[0])
    alike = [condition_like(f"{name}[{index}]", y, first, f"{name}[0]") for index, y in enumerate(conditions)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *alike)


Conditions = Annotated[Tree, Contract(_stacked)]
"""A list of n conditions, or a tree of them whose leaves have a leading axis n; n at least 1."""


@piecewise
@checked
def compose(field: LabelledField, conditions: Conditions, weights: Array | Callable[[Array], Array]) -> Field:
    """The field sum_i w_i u(x, t, y_i) over a list of conditions, from ONE call of ``field`` on all of them.

    Weights that sum to 1 commute with the conversions between field, score, noise prediction and denoiser, so the
    space does not matter. Classifier-free guidance at w is conditions [y, null], weights [w, 1 - w]; several conditions
    at scales w_i are weights [w_1, ..., w_n, 1 - sum w_i]; one to avoid has a negative weight.

    Args:
        field: a vector field, score, noise prediction or denoiser.
        conditions: a list of them, the null included; or one tree with a leading axis n, as labels [n] are.
        weights: [n], one for each condition; or a function of t. Conditions whose weight is known as 0, because it is
            not traced, are not evaluated.

    Returns:
        A Field; with one weight 1 and the others 0 it is that condition's field, as it comes out of that one call.

    Source: Liu et al., arXiv 2206.01714.

    Raises:
        ValueError: another number of weights than of conditions; concrete weights that do not sum to 1.
    """

    def weights_at(t: Array) -> Array:
        values = of_numpy(weights(t) if callable(weights) else weights)
        require_real("weights", values)
        values, size = jnp.asarray(values), jax.tree.leaves(conditions)[0].shape[0]
        if values.shape != (size,):
            raise ValueError(f"weights must be [n] for n conditions, got the shape {values.shape} beside n = {size}")
        return values

    if not callable(weights):
        fixed = weights_at(jnp.zeros(()))
        require_finite("weights", fixed)
        _require_sum_of_one(fixed)
        if not is_traced(fixed):
            used = np.flatnonzero(np.asarray(fixed))
            conditions, weights = jax.tree.map(lambda leaf: leaf[used], conditions), fixed[used]

    def one(x: Array, t: Array, y: Condition) -> Array:
        return require_like("field", evaluated("field", field, x, t, y), x)

    def combined(x: Array, t: Array) -> Array:
        require_point(x, t)
        values = jax.vmap(one, in_axes=(None, None, 0))(x, t, conditions)
        return jnp.tensordot(weights_at(t), values, axes=1, precision=jax.lax.Precision.HIGHEST).astype(values.dtype)

    return combined


@checked
def interpolate_conditions(
    field: LabelledField, first: AnyCondition, second: AnyCondition, amount: UnitInterval
) -> Field:
    """The field (1 - a) u(., first) + a u(., second) with a = ``amount`` in [0, 1], from one call.

    It moves between two conditions' fields, not between their embeddings: a network is called on what it knows. An
    amount known as 0 or 1, because it is not traced, evaluates one of them.
    """
    with jax.ensure_compile_time_eval():
        amount = as_float(amount)
        weights = jnp.stack([1 - amount, amount])
    return compose(field, [first, condition_like("second", second, first, "first")], weights)


def _require_scales(name: str, scales: Any) -> None:
    if not isinstance(scales, Mapping) or not scales:
        raise TypeError(f"{name} must be a dict of guidance scales by the conditions' names, got {scales!r}")
    for entry, scale in scales.items():
        require_scale(f"{name}[{entry!r}]", scale)


Scales = Annotated[Mapping[Hashable, Scale], Contract(_require_scales)]
"""A guidance scale for each of some conditions of y, by their names."""


def _weights(scales: Mapping[Hashable, Scale], names: Sequence[Hashable], t: Array, y: Condition) -> Array:
    return jnp.stack([as_float(scale_at(scales[name], t, y)) for name in names])


def _weighted(weights: Array, values: Array) -> Array:
    total = jnp.tensordot(weights, values, axes=1, precision=jax.lax.Precision.HIGHEST)
    return total.astype(values.dtype)


def _without(null: AnyNull, y: Condition, names: Sequence[Hashable]) -> Condition:
    """y, of which the named conditions are dropped."""
    return null_for(without(null, *names), y) if names else as_condition(y)


@piecewise
@checked
def classifier_free_chain(
    field: LabelledStateField, scales: Scales, null: AnyNull, order: Sequence[Hashable]
) -> LabelledField:
    """The guided field u_null + sum_i w_i (u_1..i - u_1..i-1) of (S1), a scale for each of several conditions.

    ``order`` is that in which the conditions are added: the first is guided by what it says of x alone, the last by
    what it adds to all others. Conditions of y without a scale are kept on both sides. Equal scales are plain guidance
    to rounding; all 0 are the null field and all 1 the labelled field exactly.

    Args:
        field: a vector field, score, noise prediction or denoiser that knows each of the n + 1 conditions; it is
            called ONCE on all of them.
        scales: w_i by the conditions' names; each a number, a traced scalar, a function of t or (t, y), an interval.
        null: of all of y, as for ``pair``.
        order: the names of ``scales``.

    Raises:
        ValueError: an order that does not hold the names of ``scales``; at a call, a name that y does not have.
    """
    order = tuple(order)
    if len(order) != len(scales) or set(order) != set(scales):
        raise ValueError(f"order must hold the names of scales, {list(scales)}, each once, got {list(order)}")

    def guided(x: Array, t: Array, y: Condition) -> Array:
        require_point(x, t)
        y = as_condition(y)
        require_entries("scales", order, y)
        kept = [_without(null, y, order[count:]) for count in range(len(order) + 1)]
        values = at_each(field, x, t, kept)
        weights, steps = _weights(scales, order, t, y), jnp.diff(values, axis=0)
        is_near_null = jnp.max(weights) <= 0.5
        from_null = values[0] + _weighted(weights, steps)
        return jnp.where(is_near_null, from_null, values[-1] + _weighted(weights - 1, steps))

    return guided


@piecewise
@checked
def classifier_free_product(field: LabelledStateField, scales: Scales, null: AnyNull) -> LabelledField:
    """The guided field u_null + sum_i w_i (u_i - u_null) of (S2), a scale for each of several conditions.

    Each condition is guided by what it says of x alone, whatever the others say. Conditions of y without a scale are
    kept on both sides. All scales 0 are the null field exactly; with a scale for one condition it is plain guidance.

    Args:
        field: a vector field, score, noise prediction or denoiser that knows y with each one of the conditions alone;
            it is called ONCE on all of them.
        scales: w_i by the conditions' names; each a number, a traced scalar, a function of t or (t, y), an interval.
        null: of all of y, as for ``pair``.

    Raises:
        ValueError: at a call, a name that y does not have.
    """
    names = tuple(scales)

    def guided(x: Array, t: Array, y: Condition) -> Array:
        require_point(x, t)
        y = as_condition(y)
        require_entries("scales", names, y)
        alone = [_without(null, y, [other for other in names if other != name]) for name in names]
        values = at_each(field, x, t, [_without(null, y, names), *alone])
        return values[0] + _weighted(_weights(scales, names, t, y), values[1:] - values[:1])

    return guided

"""Labels: fixing one, dropping one, and weights over several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import (
    evaluated,
    is_traced,
    label_like,
    of_numpy,
    require_finite,
    require_like,
    require_point,
    require_real,
)
from cfgjax.contracts import Contract, Key, Label, UnitInterval, checked
from cfgjax.paths import as_float
from cfgjax.piecewise import piecewise
from cfgjax.types import Array, Field, LabelledField, Number


@piecewise
@checked
def given(field: LabelledField, y: Label) -> Field:
    """The field at a fixed label y, as a Field of (x, t)."""
    return lambda x, t: evaluated("field", field, x, t, jnp.asarray(y))


@checked
def drop_label(key: Key, y: Label, rate: UnitInterval, null_label: Number) -> Array:
    """The label y, or the null label with probability ``rate`` (eta): an independent Bernoulli draw for ONE example.

    At rate 0 a network never learns the null label, so that only w = 1 means anything; at rate 1 only w = 0.

    Raises:
        ValueError: a null label that y's type cannot hold.
    """
    y = jnp.asarray(y)
    return jnp.where(jax.random.bernoulli(key, as_float(rate)), label_like("null_label", null_label, y), y)


def _require_sum_of_one(weights: Array) -> None:
    if not is_traced(weights) and not abs(float(np.sum(np.asarray(weights, np.float64))) - 1) < 1e-4:
        raise ValueError(f"weights must sum to 1, got {weights}, which sum to {float(jnp.sum(weights)):g}")


def _row_of_labels(name: str, labels: Array) -> Array:
    labels = of_numpy(labels)
    require_real(name, labels)
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {labels.dtype}")
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(f"{name} must be [n] with n at least 1, got the shape {labels.shape}")
    if not is_traced(labels) and np.min(labels) < 0:
        raise ValueError(f"{name} must be in 0..K, got {labels}")
    return labels


Labels = Annotated[Array, Contract(_row_of_labels)]
"""Integers [n], n at least 1, where concrete none negative; a list is taken as an array."""


@piecewise
@checked
def compose(field: LabelledField, labels: Labels, weights: Array | Callable[[Array], Array]) -> Field:
    """The field sum_i w_i u(x, t, y_i) over a list of labels, from ONE call of ``field`` on all of them.

    Weights that sum to 1 commute with the conversions between field, score, noise prediction and denoiser, so the
    space does not matter. Classifier-free guidance at w is labels (y, null), weights (w, 1 - w); several labels at
    scales w_i are weights (w_1, ..., w_n, 1 - sum w_i); a label to avoid has a negative weight.

    Args:
        field: a vector field, score, noise prediction or denoiser.
        labels: [n], labels in 0..K, the null label included.
        weights: [n], one for each label; or a function of t. Labels whose weight is known as 0, because it is not
            traced, are not evaluated.

    Returns:
        A Field; with one weight 1 and the others 0 it is that label's field, as it comes out of that one call.

    Source: Liu et al., arXiv 2206.01714.

    Raises:
        ValueError: another number of weights than of labels; concrete weights that do not sum to 1.
    """

    def weights_at(t: Array) -> Array:
        values = of_numpy(weights(t) if callable(weights) else weights)
        require_real("weights", values)
        values = jnp.asarray(values)
        if values.shape != labels.shape:
            raise ValueError(f"weights must have the shape of labels, [n], got {values.shape} beside {labels.shape}")
        return values

    if not callable(weights):
        fixed = weights_at(jnp.zeros(()))
        require_finite("weights", fixed)
        _require_sum_of_one(fixed)
        if not is_traced(fixed):
            used = np.flatnonzero(np.asarray(fixed))
            labels, weights = labels[used], fixed[used]

    def one(x: Array, t: Array, y: Array) -> Array:
        return require_like("field", evaluated("field", field, x, t, y), x)

    def combined(x: Array, t: Array) -> Array:
        require_point(x, t)
        values = jax.vmap(one, in_axes=(None, None, 0))(x, t, labels)
        return jnp.tensordot(weights_at(t), values, axes=1, precision=jax.lax.Precision.HIGHEST).astype(values.dtype)

    return combined


@checked
def interpolate_labels(field: LabelledField, first: Label, second: Label, amount: UnitInterval) -> Field:
    """The field (1 - a) u(., first) + a u(., second) with a = ``amount`` in [0, 1], from one call.

    It moves between two labels' fields, not between their embeddings: a network is called on labels that it knows. An
    amount known as 0 or 1, because it is not traced, evaluates one of them.
    """
    labels = jnp.stack([jnp.asarray(first), jnp.asarray(second)])
    with jax.ensure_compile_time_eval():
        amount = as_float(amount)
        weights = jnp.stack([1 - amount, amount])
    return compose(field, labels, weights)

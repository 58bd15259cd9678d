"""What a loss is least for, seen from its gradient as a function of the residual r = field - target.

(V18) The gradient of a square is w r: its mean is 0 where the field is the target's mean, for any w that depends on
     (x, t, y) alone. Other functions of r have means that are 0 at other places: sign(r) at a median. A function
     is named where the gradient is it times a polynomial of t of degree 4, to 0.2 % of its square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, GaussianPath
from cfgjax.verify.call_user import mapped
from cfgjax.verify.reference import View, oracle_views
from cfgjax.verify.report import CallError
from cfgjax.verify.targets import target

_EXAMPLES, _DEGREE, _LATEST = 2048, 4, 0.98
_EXACT, _SMOOTH = 2e-3, 0.05
"""Shares of the gradient's square that may be left over: by a known function, by a weight whose form is not known."""

Shape = Callable[[np.ndarray, float], np.ndarray]
"""``(r [n, D], c) -> [n, D]``: the gradient, but for a factor."""


def _length(r: np.ndarray) -> np.ndarray:
    return np.linalg.norm(r, axis=1, keepdims=True)


_BETWEEN = "it is least for a value between median and mean: "

_FIXED: dict[str, Shape] = {
    "it is least for a median of each coordinate, not the mean: its gradient is the residual's sign (L1)": (
        lambda r, _: np.sign(r)
    ),
    "it is least for a geometric median, not the mean: the residual's norm is not squared": lambda r, _: r / _length(r),
    "its fourth power of the residual is not least for the mean": lambda r, _: r**3,
}

_SCALED: dict[str, Shape] = {
    _BETWEEN + "Huber, linear beyond c = {c:.2g}": lambda r, c: np.clip(r, -c, c),
    _BETWEEN + "pseudo-Huber of the norm, linear beyond c = {c:.2g}": lambda r, c: r / np.hypot(_length(r), c),
    _BETWEEN + "pseudo-Huber of each coordinate, linear beyond c = {c:.2g}": lambda r, c: r / np.hypot(r, c),
    _BETWEEN + "log-cosh of r / c, c = {c:.2g}": lambda r, c: np.tanh(r / c),
    "its weight depends on the residual: 1 / (|r|^2 + c^2), c = {c:.2g}": lambda r, c: r / (_length(r) ** 2 + c**2),
}


def residual_cause(
    loss: Callable[..., Array], view: View, path: GaussianPath, mixture: LabelledMixture, seed: int
) -> str:
    """What the gradient's form says, in words; empty where no known form fits, or the field is called several times."""
    try:
        found = mapped(
            _gradient(loss, view, path, mixture),
            jax.random.split(jax.random.key(seed, impl=THREEFRY), _EXAMPLES),
            most=0,
        )
    except CallError:
        return ""
    dimension = mixture.means.shape[-1]
    found = found[(found[:, -1] < _LATEST) & np.isfinite(found).all(axis=1)]
    gradient, residual, noise, z = (found[:, part * dimension : (part + 1) * dimension] for part in range(4))
    t = found[:, -1:]
    plain = _left_over(gradient, t, residual)
    shares = list(_shares(gradient, residual, t))
    share, words = min(shares)
    if share <= min(_EXACT, plain / 4):
        return words
    quantile = _quantile(gradient, residual, t)
    return quantile or _weight_cause(gradient, residual, t, {"noise": noise, "data point z": z}, plain)


def _gradient(
    loss: Callable[..., Array], view: View, path: GaussianPath, mixture: LabelledMixture
) -> Callable[[Array], Array]:
    """Of a key: the loss's gradient by the field's value, the residual, noise, z and t, in one row [4 D + 1]."""
    exact = oracle_views(mixture, path)[view]

    def row(key: Array) -> Array:
        label_key, data_key, loss_key = jax.random.split(key, 3)
        y = mixture.sample_label(label_key)
        z = mixture.sample(data_key, y)

        def value(change: Array) -> tuple[Array, Any]:
            calls: list[tuple[Array, Array, Array]] = []

            def changed(x: Array, t: Array, y: Array) -> Array:
                t = jnp.asarray(t)
                calls.append((x, t, exact(x, t, jnp.asarray(y))))
                return calls[-1][2] + change

            number = loss(path, changed, loss_key, z, y)
            (call,) = calls
            return number, call

        gradient, (x, t, at) = jax.grad(value, has_aux=True)(jnp.zeros_like(z))
        wanted, noise = target(view, path, z, x, t)
        return jnp.concatenate([gradient, at - wanted, noise, z, t[jnp.newaxis]])

    return row


def _left_over(gradient: np.ndarray, t: np.ndarray, *shapes: np.ndarray) -> float:
    """The share of the gradient's square that polynomials of t times the shapes leave over."""
    return _fitted(gradient, t, *shapes)[0]


def _fitted(gradient: np.ndarray, t: np.ndarray, *shapes: np.ndarray) -> tuple[float, np.ndarray]:
    columns = np.stack([(t**power * shape).ravel() for shape in shapes for power in range(_DEGREE + 1)], axis=1)
    fit, *_ = np.linalg.lstsq(columns, gradient.ravel(), rcond=None)
    rest = gradient.ravel() - columns @ fit
    return float(rest @ rest / max(np.sum(gradient**2), 1e-30)), fit


def _shares(gradient: np.ndarray, residual: np.ndarray, t: np.ndarray) -> Iterator[tuple[float, str]]:
    """For each known function what it leaves over, at the best c, and its words."""
    for words, shape in _FIXED.items():
        yield _left_over(gradient, t, shape(residual, 1.0)), words
    size = float(np.median(_length(residual)))
    for words, shape in _SCALED.items():

        def left(c: float, shape: Shape = shape) -> float:
            return _left_over(gradient, t, shape(residual, c))

        best = min(size * np.geomspace(0.01, 10, 31), key=left)
        best = min(best * np.geomspace(0.8, 1.25, 15), key=left)
        yield left(best), words.format(c=best)


def _quantile(gradient: np.ndarray, residual: np.ndarray, t: np.ndarray) -> str:
    """The words for a gradient of 1 - tau above the target and -tau under it."""
    share, fit = _fitted(gradient, t, np.sign(residual), np.ones_like(residual))
    if share > _EXACT:
        return ""
    powers = 0.5 ** np.arange(_DEGREE + 1)
    size, offset = (powers @ part for part in np.split(fit, 2))
    return f"it is least for the quantile {0.5 - offset / (2 * size):.2g} of each coordinate, not the mean"


def _weight_cause(
    gradient: np.ndarray, residual: np.ndarray, t: np.ndarray, sources: dict[str, np.ndarray], plain: float
) -> str:
    """The words for a weight that is a smooth function of one of the sources [n, D], and of t."""
    for name, source in sources.items():
        size = np.sum(source**2, axis=1, keepdims=True)
        parts = [np.ones_like(t), size, np.sqrt(size), 1 / (1 + size), source.mean(axis=1, keepdims=True)]
        parts += [source[:, :1], source[:, :1] ** 2, source[:, -1:]]
        if _left_over(gradient, t, *(part * residual for part in parts)) <= min(_SMOOTH, plain / 4):
            return f"its weight depends on the {name}: one of t, y and x alone leaves the minimum where it is"
    return ""

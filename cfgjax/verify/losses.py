"""Losses against their minimiser, the oracle's view.

(V14) A loss that is least for a view has the slope 0 there in every direction. Slopes along six directions, each a mean
     of n examples over its standard error, are allowed five and a half of these (false alarms under 1e-6).
(V15) At a minimum every curvature is positive; that along a change of one label's values is 0 if no label is passed.
(V16) A cause is named where the slopes at what it would be least for are 0 in the same sense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY, require_choice, require_function
from cfgjax.mixtures import LabelledMixture
from cfgjax.paths import coefficients
from cfgjax.types import Array, GaussianPath, LabelledField
from cfgjax.verify.calling import mapped, require_finite, require_shape
from cfgjax.verify.mistakes import NAMES
from cfgjax.verify.problem import STRAIGHT, VIEWS, View, require_problem, skewed_mixture
from cfgjax.verify.report import UNKNOWN, CallError, Check, Report, at_least, at_most, collected

Loss = Callable[[LabelledField, GaussianPath, Array, Array, Array], Array]
"""``(field, path, key, z [D], y []) -> []``, as ``losses.flow_matching``."""

_EXAMPLES, _SIZE, _ALLOWED = 4096, 0.25, 5.5
_DIRECTIONS = 6


def loss(
    loss: Loss,
    view: View = "field",
    path: GaussianPath | None = None,
    mixture: LabelledMixture | None = None,
    seed: int = 0,
) -> Report:
    """The report on a training loss of ONE example that claims to be least for a view of the oracle.

    Checked: its slopes at the view are 0 (V14) and its curvatures positive (V15). Causes told apart (V16): another
    view, or minus one, as the target; time backwards; labels that are not passed; a loss with its sign turned.

    Args:
        loss: (field, path, key, z [D], y []) -> [], called with the key of one example; a label may be dropped inside.
        view: what the minimiser should be.
        path: the path; None for the straight one.
        mixture: the data; None for one of three labels in 2-D.
        seed: draws the examples.

    Raises:
        TypeError, ValueError: no function, path or mixture, no view's name, no seed.
    """
    require_function("loss", loss)
    require_choice("view", view, VIEWS)
    require_problem(path, mixture, seed)
    problem = (loss, view, path or STRAIGHT, mixture or skewed_mixture(), seed)
    return collected(f"verify.loss ({NAMES[view]})", _checks(*problem))


def _directions(x: Array, t: Array, y: Array) -> Array:
    """Six changes of a field, [6, D]; the first is of label 0 alone."""
    one = jnp.ones_like(x)
    return jnp.stack([jnp.where(y == 0, one, 0), one, x, t * x, jnp.sin(3 * x + t), jnp.cos(2 * x) * (1 - t)])


def _candidates(view: View, path: GaussianPath, mixture: LabelledMixture) -> dict[str, LabelledField]:
    """By their words, the fields for which a mistaken loss is least; the exact one first."""
    views: dict[View, LabelledField] = {
        "field": mixture.vector_field(path),
        "score": mixture.score(path),
        "noise": mixture.noise(path),
        "denoiser": mixture.denoiser(path),
    }
    exact = views[view]
    known: dict[str, LabelledField] = {"": exact, f"minus the {NAMES[view]}": lambda x, t, y: -exact(x, t, y)}
    for other, value in views.items():
        if other != view:
            known[f"the {NAMES[other]}"] = value
            known[f"minus the {NAMES[other]}"] = lambda x, t, y, value=value: -value(x, t, y)
    known["the value at 1 - t: time runs backwards"] = lambda x, t, y: exact(x, 1 - t, y)
    known["minus the value at 1 - t: time runs backwards"] = lambda x, t, y: -exact(x, 1 - t, y)
    if view == "field":
        known["alpha' D - beta' E: the noise's sign is wrong"] = _with_minus_noise(path, views)
    known["2 times the value"] = lambda x, t, y: 2 * exact(x, t, y)
    known["half the value"] = lambda x, t, y: exact(x, t, y) / 2
    return known


def _with_minus_noise(path: GaussianPath, views: dict[View, LabelledField]) -> LabelledField:
    return lambda x, t, y: 2 * coefficients(path, t).alpha_dot * views["denoiser"](x, t, y) - views["field"](x, t, y)


def _values(
    loss: Loss, fields: list[LabelledField], path: GaussianPath, mixture: LabelledMixture, seed: int
) -> np.ndarray:
    """Losses [n, fields, 13] of each example: at the field, and at the field plus and minus each direction."""
    change = jnp.concatenate([jnp.zeros((1, _DIRECTIONS)), jnp.eye(_DIRECTIONS), -jnp.eye(_DIRECTIONS)]) * _SIZE

    def at(key: Array, z: Array, y: Array, index: Array, change: Array) -> Array:
        def changed(x: Array, t: Array, y: Array) -> Array:
            moved = jnp.tensordot(change, _directions(x, t, y), axes=1)
            return jax.lax.switch(index, fields, x, jnp.asarray(t), jnp.asarray(y)) + moved

        value = loss(changed, path, key, z, y)
        if jnp.shape(value):
            raise CallError(f"gives the shape {jnp.shape(value)} for ONE example, not a number")
        return value

    def every(key: Array) -> Array:
        label_key, data_key, loss_key = jax.random.split(key, 3)
        y = mixture.sample_label(label_key)
        z = mixture.sample(data_key, y)
        by_change = jax.vmap(partial(at, loss_key, z, y), in_axes=(None, 0))
        return jax.vmap(by_change, in_axes=(0, None))(jnp.arange(len(fields)), change)

    found = mapped(every, jax.random.split(jax.random.key(seed, impl=THREEFRY), _EXAMPLES), most=0)
    return require_finite(require_shape(found, (len(fields), 2 * _DIRECTIONS + 1)))


def _slopes(values: np.ndarray) -> np.ndarray:
    """The largest slope of each field in standard errors, [fields]."""
    slopes = values[..., 1 : _DIRECTIONS + 1] - values[..., _DIRECTIONS + 1 :]
    errors = slopes.std(axis=0) / np.sqrt(len(slopes))
    return np.max(np.abs(slopes.mean(axis=0)) / np.maximum(errors, 1e-12), axis=-1)


def _checks(loss: Loss, view: View, path: GaussianPath, mixture: LabelledMixture, seed: int) -> Iterator[Check]:
    candidates = _candidates(view, path, mixture)

    def cause() -> str:
        slopes = _slopes(_values(loss, list(candidates.values()), path, mixture, seed))
        fitting = [words for words, slope in zip(candidates, slopes, strict=True) if words and slope <= _ALLOWED]
        return f"it is least for {' or '.join(fitting)}" if fitting else UNKNOWN

    values = _values(loss, [candidates[""]], path, mixture, seed)
    yield at_most("slope at the exact view, in standard errors", _slopes(values)[0], _ALLOWED, cause)
    bends = (values[..., 1 : _DIRECTIONS + 1] + values[..., _DIRECTIONS + 1 :] - 2 * values[..., :1]).mean(axis=0)[0]
    share = float(np.min(bends) / np.max(np.abs(bends)))
    words = "the sign is wrong: it is largest there" if np.max(bends) < 0 else "labels are not passed to the field"
    yield at_least("least curvature over the largest", share, 1e-3, lambda: words)

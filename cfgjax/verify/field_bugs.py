"""Known mistakes in fields, and the values that they give.

The conventions are (C1) of ``conversions``; W = alpha' beta - alpha beta'.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.mixtures import LabelledMixture
from cfgjax.paths import coefficients
from cfgjax.types import Array, Condition, GaussianPath
from cfgjax.verify.reference import View, Views

NAMES: dict[View, str] = {
    "field": "vector field u",
    "score": "score s",
    "noise": "noise prediction E",
    "denoiser": "denoiser D",
}
Mistakes = Callable[[Views, GaussianPath, LabelledMixture, View, Array, Array, Array], dict[str, np.ndarray]]
"""``(views, path, mixture, claimed view, x, t, y) -> values [n, D] by the mistake's words``."""


def _columns(path: GaussianPath, t: Array) -> dict[str, np.ndarray]:
    """alpha, beta, their derivatives and W at each row's time, [n, 1]."""
    c = jax.vmap(lambda t: coefficients(path, t))(t)
    named = c._asdict() | {"W": c.wronskian}
    return {name: np.expand_dims(np.asarray(value), -1) for name, value in named.items()}


def _scalings(view: View, c: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Factors that a conversion may have too many; beta s is -E, which is named by itself."""
    factors = {"alpha": c["alpha"], "1/alpha": 1 / c["alpha"], "W": c["W"], "1/W": 1 / c["W"]}
    if view != "score":
        factors["beta"] = c["beta"]
    if view != "noise":
        factors["1/beta"] = 1 / c["beta"]
    return factors


def _other_views(view: View, all_views: dict[View, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for other, value in all_views.items():
        if other != view:
            beta = ", the score times beta: 1/beta is missing" if (view, other) == ("score", "noise") else ""
            found[f"it is the {NAMES[other]}"] = value
            found[f"it is minus the {NAMES[other]}{beta}"] = -value
    return found


def mistakes_with(
    views: Views, path: GaussianPath, view: View, x: Array, t: Array, y: Condition, others: dict[str, Condition]
) -> dict[str, np.ndarray]:
    """Mistakes of any field: signs, time, other conditions in the place of y, views, factors, conversions.

    Args:
        views: the oracle's.
        path: of the claim.
        view: of the claim.
        x: [n, D].
        t: [n].
        y: [n], or a tree of [n, ...].
        others: by the mistake's words, what is taken for y.
    """
    own = {name: views.values(name, x, t, y) for name in NAMES}
    value, mirrored, c = own[view], views.values(view, x, 1 - t, y), _columns(path, t)
    known = {
        "the sign is wrong": -value,
        "time runs backwards: it is the value at 1 - t": mirrored,
        "time runs backwards, and the sign is turned: it is minus the value at 1 - t": -mirrored,
    }
    known |= {words: views.values(view, x, t, other) for words, other in others.items()}
    known |= _other_views(view, own)
    known |= {f"a factor {name} too many": factor * value for name, factor in _scalings(view, c).items()}
    if view == "score":
        known["the field's sign in s = (alpha u - alpha' x) / (beta W) is wrong"] = turned_score(value, path, x, t)
    return known | (_conversion_mistakes(own, c, np.asarray(x)) if view == "field" else {})


def turned_score(score: np.ndarray, path: GaussianPath, x: Array, t: Array) -> np.ndarray:
    """(-alpha u - alpha' x) / (beta W) = -s - 2 alpha' x / (beta W): the score of u with u's sign turned, [n, D]."""
    c = _columns(path, t)
    return -score - 2 * c["alpha_dot"] * np.asarray(x) / (c["beta"] * c["W"])


def _conversion_mistakes(own: dict[View, np.ndarray], c: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """Mistakes on the way from another view to the field."""
    data, noise = c["alpha_dot"] * own["denoiser"], c["beta_dot"] * own["noise"]
    return {
        "the sign of beta' E in u = alpha' D + beta' E is wrong": data - noise,
        "beta' E is missing in u = alpha' D + beta' E": data,
        "it is D - E, the straight path's field": own["denoiser"] - own["noise"],
        "the score's sign in u = (alpha'/alpha) x + (beta W/alpha) s is wrong": 2 * c["alpha_dot"] / c["alpha"] * x
        - own["field"],
    }


def shifted_labels(y: Array, num_classes: int) -> dict[str, Array]:
    """By the mistake's words, the labels [n] that are taken for y's."""
    return {
        "labels are shifted by one: y - 1 for y": (y - 1) % num_classes,
        "labels are shifted by one: y + 1 for y": (y + 1) % num_classes,
    }


def field_mistakes(
    views: Views, path: GaussianPath, mixture: LabelledMixture, view: View, x: Array, t: Array, y: Array
) -> dict[str, np.ndarray]:
    """Mistakes of any field, and those with labels."""
    null = mixture.num_classes
    others = {"labels are ignored: it is the null label's value": jnp.full_like(y, null)} | shifted_labels(y, null)
    return mistakes_with(views, path, view, x, t, y, others)


def label_average(mixture: LabelledMixture, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The mistake in the null label's place: the average of the labels' values, [n, D] each."""
    shares = np.asarray(mixture.weights).sum(axis=1) / np.asarray(mixture.weights).sum()
    mean = np.tensordot(shares, np.stack(rows), axes=1)
    return {"it is the labels' average under their shares, not under p_t(y|x)": mean}


def null_mistakes(
    views: Views, path: GaussianPath, mixture: LabelledMixture, view: View, x: Array, t: Array, y: Array
) -> dict[str, np.ndarray]:
    """Mistakes of any field, and those of the null label's row: another label's, an average, none."""
    null = mixture.num_classes
    rows = {label: views.values(view, x, t, jnp.full_like(y, label)) for label in range(null)}
    known = {
        f"the null label gives the row of label {label} for that of {null}": rows[label] for label in {0, null - 1}
    }
    known |= label_average(mixture, list(rows.values()))
    known["the null label gives zero"] = np.zeros_like(rows[0])
    return known | mistakes_with(views, path, view, x, t, y, {})

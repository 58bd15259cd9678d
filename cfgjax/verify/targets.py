"""What a view is the mean of, and what a mistaken target has for its mean."""

from __future__ import annotations

import jax.numpy as jnp

from cfgjax.mixtures import LabelledMixture
from cfgjax.paths import before_end, coefficients
from cfgjax.types import Array, GaussianPath, LabelledField
from cfgjax.verify.field_bugs import NAMES
from cfgjax.verify.reference import View, oracle_views


def target(view: View, path: GaussianPath, z: Array, x: Array, t: Array) -> tuple[Array, Array]:
    """What a view is the mean of, and the noise, [D] each, for the state x of a data point z."""
    c = coefficients(path, before_end(t))
    noise = (x - c.alpha * z) / c.beta
    return {"field": c.alpha_dot * z + c.beta_dot * noise, "score": -noise / c.beta, "noise": noise, "denoiser": z}[
        view
    ], noise


def mistaken_targets(view: View, path: GaussianPath, mixture: LabelledMixture) -> dict[str, LabelledField]:
    """By their words, the fields for which a loss with a mistaken target is least."""
    views, num_classes = oracle_views(mixture, path), mixture.num_classes
    exact = views[view]

    def shifted(by: int) -> LabelledField:
        return lambda x, t, y: exact(x, t, jnp.where(y == num_classes, y, (y + by) % num_classes))

    known: dict[str, LabelledField] = {f"minus the {NAMES[view]}": lambda x, t, y: -exact(x, t, y)}
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
    known["the label y - 1: labels are shifted by one"] = shifted(-1)
    known["the label y + 1: labels are shifted by one"] = shifted(1)
    known["the null label, whatever y is"] = lambda x, t, y: exact(x, t, jnp.full_like(y, num_classes))
    return known


def _with_minus_noise(path: GaussianPath, views: dict[View, LabelledField]) -> LabelledField:
    return lambda x, t, y: 2 * coefficients(path, t).alpha_dot * views["denoiser"](x, t, y) - views["field"](x, t, y)

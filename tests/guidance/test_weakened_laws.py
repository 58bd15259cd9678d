"""Laws of guidance by a weakened self between normal laws: variance prod V_i^w_i, by the weight w_i of each field."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers
from tests.support import normals

PATH = paths.linear()
WEAK = ((-0.5, 1.6), (0.8, 1.3))
"""The laws of the weakened self at the null and at the label."""
SCALE, WEAK_SCALE = 2.5, 1.4


def _weak(x, t, y):
    return normals.labelled(PATH, WEAK)(x, t, y)


def _require_law(guided, weights, laws):
    mean, variance = normals.end_of(solvers.rk4(guidance.given(guided, normals.LABEL)), 100)
    np.testing.assert_allclose(
        variance, np.prod([law[1] ** w for w, law in zip(weights, laws, strict=True)]), rtol=1e-4
    )
    np.testing.assert_allclose(mean, normals.moments(lambda t: weights, laws)[0], rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_internal_guidance_inside_the_nulls_has_weights_that_multiply():
    """(1 - w)(1 - v), (1 - w) v of the null's two fields, and w (1 - v), w v of the label's."""
    inner = guidance.extrapolate(
        guidance.pair_of_sides(lambda x, t, y: (_weak(x, t, y), normals.labelled(PATH)(x, t, y))), WEAK_SCALE
    )
    guided = guidance.classifier_free(inner, SCALE, normals.NULL)
    weights = [w * v for w in (1 - SCALE, SCALE) for v in (1 - WEAK_SCALE, WEAK_SCALE)]
    _require_law(guided, weights, (WEAK[0], normals.LAWS[0], WEAK[1], normals.LAWS[1]))


@pytest.mark.usefixtures("x64")
def test_a_weakened_self_at_the_null_multiplies_what_is_guided():
    """The weights (1 + s)(1 - w), (1 + s) w and -s, of spatio-temporal skip guidance as one of its codes has it."""
    guided = guidance.extrapolate(normals.pair(PATH), SCALE)
    at_null = lambda x, t, y: _weak(x, t, normals.NULL)  # noqa: E731
    weights = WEAK_SCALE * (1 - SCALE), WEAK_SCALE * SCALE, 1 - WEAK_SCALE
    _require_law(guidance.autoguidance(guided, at_null, WEAK_SCALE), weights, (*normals.LAWS, WEAK[0]))


@pytest.mark.parametrize("scale", [-3.0, 0.3, 1.0, 40.0])
def test_an_internal_prediction_that_is_exact_guides_to_nothing_else(scale):
    """Both heads of (L8) at their minimisers are one field, and no scale moves it by a bit."""
    field = normals.labelled(PATH)
    guided = guidance.extrapolate(guidance.pair_of_sides(lambda x, t, y: (field(x, t, y),) * 2), scale)
    x, t = jnp.array([0.3, -2.0]), jnp.float32(0.6)
    np.testing.assert_array_equal(guided(x, t, 1), field(x, t, 1))

"""Solvers of the SDE dX = [u + sigma_t^2 s / 2] dt + sigma_t dW.

(D1) With s = -E / beta the drift is  u - (sigma^2 / 2 beta) E.  At w = 0 and w = 1 the SDE has the path's marginals for
     every sigma_t; a guided one has not.
"""

import jax
import jax.numpy as jnp

from cfgjax.conversions import from_field
from cfgjax.paths import before_end
from cfgjax.pieces import by_piece
from cfgjax.solvers.diffusions import require_admissible
from cfgjax.types import Array, Field, GaussianPath, Schedule, Solver, State


@by_piece
def euler_maruyama(path: GaussianPath, field: Field, diffusion: Schedule) -> Solver:
    """The Euler-Maruyama rule for (D1): x + h [u - (sigma^2 / 2 beta) E] + sigma sqrt(h) noise, weak order 1.

    One evaluation of the field a step, never at the end of a step; the noise prediction E follows from it. The noise
    is drawn in the scan, from the step's own key.

    Args:
        path: the path of the field.
        field: the vector field, guided or not.
        diffusion: sigma_t, a function of t; see ``diffusions`` for admissible ones. The grid must increase.

    Source: MIT 6.S184 notes (arXiv 2506.02070), theorem 17.

    Raises:
        ValueError: a diffusion that is negative, not finite on [0, 1), or divergent at an end, for example the
            memoryless one at t = 0.
    """
    require_admissible(diffusion)

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x, h, sigma = carry.x, t_next - t, diffusion(t)
        prediction = from_field(path, field(x, t), x, t)
        drift = prediction.field - sigma**2 / (2 * path.beta(before_end(t))) * prediction.noise
        noise = jax.random.normal(key, x.shape, x.dtype)
        return State((x + h * drift + sigma * jnp.sqrt(h) * noise).astype(x.dtype))

    return Solver(init=State, step=step, is_forward_only=True)

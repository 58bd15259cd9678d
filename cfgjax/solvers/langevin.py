"""Langevin corrections after a solver's step, and the guidance that is made of them.

(L1) x <- x + (e / 2) s(x, t) + sqrt(e) noise keeps the law whose score s(., t) is, up to O(e), and draws any other
     law towards it.
(L2) Predictor: a step of the LABELLED field, from p_t(x|y) to p_t'(x|y). Corrector: (L1) at t' with the guided score
     s_w = s_null + w (s_y - s_null), that of the tilted law p_t'(x)^(1-w) p_t'(x|y)^w.
(L3) With one correction of e = h sigma^2 a step, and h -> 0, (L2) is  dX = [u_y + sigma^2 s_w / 2] dt + sigma dW.
     By u_y - u_null = b (s_y - s_null) that is the guided SDE of ``euler_maruyama`` at another scale v, where
     w - 1 = (v - 1)(1 + 2 b / sigma^2);  for the memoryless sigma^2 = 2 b this is  w = 2 v - 1.
With many corrections a step the tilted law itself is followed, which neither the guided ODE nor the guided SDE does.

Source: Song et al., arXiv 2011.13456, algorithms 4 and 5; Bradley & Nakkiran, arXiv 2408.09000, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from cfgjax.checks import require_scalar
from cfgjax.contracts import NonNegative, StateField, checked, whole
from cfgjax.conversions import score_of
from cfgjax.paths import noise_like
from cfgjax.piecewise import piecewise
from cfgjax.solvers.ode import heun
from cfgjax.types import Array, Carry, Field, GaussianPath, Schedule, Solver

StepSize = Callable[[Array, Array], Array]
"""``(t [], t_next []) -> []``: the size e of the Langevin steps (L1) at t_next, after the solver's step from t."""

NumCorrections = Annotated[int, whole(0)]
"""An integer, at least 0 where concrete."""


@checked
def relative_step(path: GaussianPath, ratio: NonNegative = 0.16) -> StepSize:
    """The step size e = 2 (r beta)^2 with r = ``ratio``, the "signal-to-noise ratio" of Song et al.

    They take 2 (r |noise| / |s|)^2 of the state at hand; beta is what that quotient comes to in many dimensions, and
    without it the step depends on no state, as (L1) asks. Late steps are short: 0 at t = 1.

    Source: Song et al., arXiv 2011.13456, algorithm 4.
    """
    return lambda t, t_next: 2 * (ratio * path.beta(t_next)) ** 2


@checked
def diffusion_step(diffusion: Schedule) -> StepSize:
    """The step size e = h sigma^2 of (L3), with sigma at t_next: one correction is then an SDE's share of noise."""
    return lambda t, t_next: (t_next - t) * diffusion(t_next) ** 2


@piecewise
@checked
def langevin_corrected(
    solver: Solver, score: StateField, step_size: StepSize, num_corrections: NumCorrections = 1
) -> Solver:
    """The solver whose every step is followed by ``num_corrections`` Langevin steps (L1) at the step's end.

    A step that ends at t = 1 is not followed by any: a score is singular there, and is not called.

    Args:
        solver: the predictor, a rule of one step whose carry has its state in a field x. A multistep one, which would
            keep a history of the states before their correction, is refused.
        score: the score of the law to correct towards, for example ``conversions.score_of(path, field)``.
        step_size: e as a function of (t, t_next): ``relative_step``, ``diffusion_step``, or any other. (L1) is stable
            for e under four variances of the law; it leaves a relative error of the variance of e / (4 variance).
        num_corrections: how many, each of one evaluation of the score. The grid must increase.

    Source: Song et al., arXiv 2011.13456, algorithms 4 and 5.

    Raises:
        ValueError: a multistep solver.
        TypeError, ValueError: at a step, a step size that is not one number.
    """
    if solver.restart is not None:
        raise ValueError("solver must be a rule of one step, got a multistep one, whose history knows no correction")

    def corrected(key: Array, x: Array, t: Array, t_next: Array) -> Array:
        time = jnp.where(t_next >= 1, t, t_next)
        size = step_size(t, time)
        require_scalar("step_size(t, t_next)", size)

        def correct(index: Array, x: Array) -> Array:
            noise = noise_like(jax.random.fold_in(key, index), x)
            return (x + 0.5 * size * score(x, time) + jnp.sqrt(size) * noise).astype(x.dtype)

        return jax.lax.fori_loop(0, num_corrections, correct, x)

    def step(key: Array, carry: Any, t: Array, t_next: Array) -> Carry:
        solver_key, corrector_key = jax.random.split(key)
        moved: Any = solver.step(solver_key, carry, t, t_next)
        x = jax.lax.cond(t_next >= 1, lambda x: x, lambda x: corrected(corrector_key, x, t, t_next), moved.x)
        return moved._replace(x=x)

    return Solver(solver.init, step, is_forward_only=True)


@piecewise
@checked
def predictor_corrector_guidance(
    path: GaussianPath,
    labelled: Field,
    guided: Field,
    step_size: StepSize,
    num_corrections: NumCorrections = 1,
    make_solver: Callable[[Field], Solver] = heun,
) -> Solver:
    """Predictor-corrector guidance (L2): the labelled field's step, then Langevin steps with the guided score.

    At w = 1 the law stays the labelled one. With many corrections of small size a step it approaches the tilted law,
    but for what the last step, which none follows, leaves: O(h).

    Args:
        path: the path of both fields.
        labelled: the vector field at the label, for example ``guidance.given(field, y)``.
        guided: the vector field guided by w, for example of ``guidance.classifier_free``.
        step_size: e as a function of (t, t_next), as for ``langevin_corrected``.
        num_corrections: Langevin steps after each step of the predictor.
        make_solver: the predictor, a rule for one field.

    Source: Bradley & Nakkiran, arXiv 2408.09000, algorithm 1; there the predictor is DDIM, a first-order rule.

    Raises:
        ValueError: a ``make_solver`` that makes a multistep solver.
    """
    return langevin_corrected(make_solver(labelled), score_of(path, guided), step_size, num_corrections)

"""Solvers: a rule for one step, and the one scan that repeats it.

(S1) ODE  dx = u dt: ``euler`` (order 1), ``midpoint``, ``heun``, ``adams_bashforth`` (2), ``rk4`` (4); exponential, in
     denoiser space: ``ddim`` (1), ``dpm_solver``, ``unipc`` (2). With step control by diffrax: ``solvers.adaptive``.
(S2) SDE  dX = [u + sigma_t^2 s / 2] dt + sigma_t dW: ``euler_maruyama`` (weak order 1), ``stochastic_heun`` (2).
(S3) an ODE step from a state made noisier again: ``churn``.
(S4) a step followed by Langevin steps: ``langevin_corrected``, ``predictor_corrector_guidance``.
(S5) the last step of (S2) to (S4) without noise: ``with_final_step``.
(S6) guidance within the step: ``cfg_plus_plus``, ``with_field_state``.
(S7) from data to noise and exactly back: ``implicit_euler``, ``reversible``.
(S8) a population of particles with weights, for the law that guidance is often taken to sample: ``feynman_kac``, and
     ``systematic_resampling``, which draws of it by the weights.

(S9) No solver evaluates a field where an error of a prediction, be it denoiser, noise or score, is multiplied without
     bound: not at t = 1 nor just beside it, not just above t = 0. How, and at what price: ``solvers.ends``. An SDE
     whose sigma^2 is not O(beta) at t = 1 has such a drift itself, sigma^2 E / (2 beta), which no step avoids: there
     a denoiser's errors grow as 1 / h.

``grids`` holds the time grids, ``diffusions`` the coefficients sigma_t.
"""

from __future__ import annotations

from cfgjax.solvers import time_grids
from cfgjax.solvers.cfg_plus_plus import cfg_plus_plus, effective_scale
from cfgjax.solvers.churn import churn
from cfgjax.solvers.diffusions import constant, decreasing, increasing_decreasing, memoryless, root_beta, root_linear
from cfgjax.solvers.exponential import ddim, dpm_solver, unipc
from cfgjax.solvers.feynman_kac import feynman_kac, systematic_resampling
from cfgjax.solvers.final_step import euler_step, mean_step, tweedie_step, with_final_step
from cfgjax.solvers.integrate import integrate, remat, solve
from cfgjax.solvers.inversion import implicit_euler, reversible
from cfgjax.solvers.langevin import diffusion_step, langevin_corrected, predictor_corrector_guidance, relative_step
from cfgjax.solvers.nfe import num_function_evaluations
from cfgjax.solvers.ode import adams_bashforth, euler, heun, midpoint, rk4
from cfgjax.solvers.sde import euler_maruyama, stochastic_heun
from cfgjax.solvers.stateful import with_field_state

__all__ = [
    "adams_bashforth",
    "cfg_plus_plus",
    "churn",
    "constant",
    "ddim",
    "decreasing",
    "diffusion_step",
    "dpm_solver",
    "effective_scale",
    "euler",
    "euler_maruyama",
    "euler_step",
    "feynman_kac",
    "heun",
    "implicit_euler",
    "increasing_decreasing",
    "integrate",
    "langevin_corrected",
    "mean_step",
    "memoryless",
    "midpoint",
    "num_function_evaluations",
    "predictor_corrector_guidance",
    "relative_step",
    "remat",
    "reversible",
    "rk4",
    "root_beta",
    "root_linear",
    "solve",
    "stochastic_heun",
    "systematic_resampling",
    "time_grids",
    "tweedie_step",
    "unipc",
    "with_field_state",
    "with_final_step",
]

"""Solvers: a rule for one step, and the one scan that repeats it.

(S1) ODE  dx = u dt.                                        ``euler`` (order 1), ``heun`` (order 2)
(S2) SDE  dX = [u + sigma_t^2 s / 2] dt + sigma_t dW.       ``euler_maruyama`` (weak order 1), ``stochastic_heun`` (2)
(S3) an ODE step from a state made noisier again.           ``churn``
(S4) a step followed by Langevin steps.                     ``langevin_corrected``, ``predictor_corrector_guidance``
(S5) the last step of (S2) to (S4) without noise.           ``with_last_step``
(S6) guidance within the step.                              ``cfg_plus_plus``
(S7) from data to noise and exactly back.                   ``implicit_euler``, ``reversible``
"""

from cfgjax.solvers.churn import churn
from cfgjax.solvers.diffusions import (
    constant,
    decreasing,
    increasing_decreasing,
    memoryless,
    root_beta,
    root_linear,
)
from cfgjax.solvers.inversion import implicit_euler, reversible
from cfgjax.solvers.langevin import (
    diffusion_step,
    langevin_corrected,
    predictor_corrector_guidance,
    relative_step,
)
from cfgjax.solvers.last_step import euler_step, mean_step, tweedie_step, with_last_step
from cfgjax.solvers.memory import remembering
from cfgjax.solvers.ode import euler, heun
from cfgjax.solvers.renoising import cfg_plus_plus, effective_scale
from cfgjax.solvers.scan import integrate
from cfgjax.solvers.sde import euler_maruyama, stochastic_heun

__all__ = [
    "cfg_plus_plus",
    "churn",
    "constant",
    "decreasing",
    "diffusion_step",
    "effective_scale",
    "euler",
    "euler_maruyama",
    "euler_step",
    "heun",
    "implicit_euler",
    "increasing_decreasing",
    "integrate",
    "langevin_corrected",
    "mean_step",
    "memoryless",
    "predictor_corrector_guidance",
    "relative_step",
    "remembering",
    "reversible",
    "root_beta",
    "root_linear",
    "stochastic_heun",
    "tweedie_step",
    "with_last_step",
]

"""Solvers: a rule for one step, and the one scan that repeats it.

(S1) ODE  dx = u dt: ``euler`` (order 1), ``midpoint``, ``heun``, ``adams_bashforth`` (2), ``rk4`` (4); exponential, in
     denoiser space: ``ddim`` (1), ``dpm_solver``, ``unipc`` (2). With step control by diffrax: ``solvers.adaptive``.
(S2) SDE  dX = [u + sigma_t^2 s / 2] dt + sigma_t dW: ``euler_maruyama`` (weak order 1).
(S3) ``tilted``: a population of particles with weights, for the law that guidance is often taken to sample.

``grids`` holds the time grids, ``diffusions`` the coefficients sigma_t.
"""

from cfgjax.solvers import grids
from cfgjax.solvers.counting import evaluations
from cfgjax.solvers.diffusions import constant, memoryless, root_beta
from cfgjax.solvers.exponential import ddim, dpm_solver, unipc
from cfgjax.solvers.memory import remembering
from cfgjax.solvers.ode import adams_bashforth, euler, heun, midpoint, rk4
from cfgjax.solvers.scan import integrate, rematerialised, solve
from cfgjax.solvers.sde import euler_maruyama
from cfgjax.solvers.tilted import tilted

__all__ = [
    "adams_bashforth",
    "constant",
    "ddim",
    "dpm_solver",
    "euler",
    "euler_maruyama",
    "evaluations",
    "grids",
    "heun",
    "integrate",
    "memoryless",
    "midpoint",
    "rematerialised",
    "remembering",
    "rk4",
    "root_beta",
    "solve",
    "tilted",
    "unipc",
]

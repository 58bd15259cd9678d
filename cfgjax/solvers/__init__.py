"""Solvers: a rule for one step, and the one scan that repeats it.

(S1) ODE  dx = u dt.                                        ``euler`` (order 1), ``heun`` (order 2)
(S2) SDE  dX = [u + sigma_t^2 s / 2] dt + sigma_t dW.       ``euler_maruyama`` (weak order 1)
"""

from cfgjax.solvers.counting import evaluations
from cfgjax.solvers.diffusions import constant, memoryless, root_beta
from cfgjax.solvers.memory import remembering
from cfgjax.solvers.ode import euler, heun
from cfgjax.solvers.scan import integrate, rematerialised, solve
from cfgjax.solvers.sde import euler_maruyama
from cfgjax.solvers.tilted import tilted

__all__ = [
    "constant",
    "euler",
    "euler_maruyama",
    "evaluations",
    "heun",
    "integrate",
    "memoryless",
    "rematerialised",
    "remembering",
    "root_beta",
    "solve",
    "tilted",
]

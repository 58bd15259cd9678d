"""One table for what many tests go through: the solvers and the rules of guidance, each with what is known of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from cfgjax import guidance, paths, solvers
from cfgjax.types import StatefulField

PATH = paths.linear()
SMALL_STEP = lambda t, t_next: 0.1 * (t_next - t)  # noqa: E731
COUNTED = StatefulField(jnp.zeros_like, lambda x, t, memory: (-x, memory + 1))


class SolverRow(NamedTuple):
    """A solver by ``build: field -> solver``: its weak order, its evaluations a step, and whether it draws noise."""

    build: Callable[[Any], Any]
    order: int | None = None
    evaluations: int | None = None
    is_stochastic: bool = False


def _labelled(field):
    return guidance.pair(lambda x, t, y: field(x, t) * (y + 1), 2)


SOLVERS = {
    "euler": SolverRow(solvers.euler, 1, 1),
    "midpoint": SolverRow(solvers.midpoint, 2, 2),
    "heun": SolverRow(solvers.heun, 2, 2),
    "rk4": SolverRow(solvers.rk4, 4, 4),
    "adams_bashforth": SolverRow(solvers.adams_bashforth, 2, 1),
    "ddim": SolverRow(lambda field: solvers.ddim(PATH, field), 1, 1),
    "dpm_solver": SolverRow(lambda field: solvers.dpm_solver(PATH, field), 2, 1),
    "unipc": SolverRow(lambda field: solvers.unipc(PATH, field), 2, 1),
    "euler_maruyama": SolverRow(lambda field: solvers.euler_maruyama(PATH, field, solvers.constant(0.5)), 1, 1, True),
    "stochastic_heun": SolverRow(lambda field: solvers.stochastic_heun(PATH, field, solvers.constant(0.5)), 2, 2, True),
    "churn": SolverRow(lambda field: solvers.churn(PATH, field, 0.1), is_stochastic=True),
    "langevin_corrected": SolverRow(
        lambda field: solvers.langevin_corrected(solvers.euler(field), field, SMALL_STEP), is_stochastic=True
    ),
    "predictor_corrector_guidance": SolverRow(
        lambda field: solvers.predictor_corrector_guidance(PATH, field, field, SMALL_STEP), is_stochastic=True
    ),
    "with_final_step": SolverRow(
        lambda field: solvers.with_final_step(solvers.euler(field), solvers.euler_step(field))
    ),
    "cfg_plus_plus": SolverRow(lambda field: solvers.cfg_plus_plus(PATH, _labelled(field), 0, 0.5)),
    "implicit_euler": SolverRow(lambda field: solvers.implicit_euler(field, 3)),
    "reversible": SolverRow(lambda field: solvers.reversible(solvers.euler, field)),
    "with_field_state": SolverRow(lambda field: solvers.with_field_state(solvers.euler, COUNTED)),
    "remat": SolverRow(lambda field: solvers.remat(solvers.heun(field))),
    "feynman_kac": SolverRow(
        lambda field: solvers.feynman_kac(PATH, _labelled(field), 1, 3.0, solvers.constant(0.5)), is_stochastic=True
    ),
}
"""The name of every builder of a solver -> its row."""

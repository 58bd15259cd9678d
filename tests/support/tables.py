"""Tables of what many tests go through: the solvers and the rules of guidance, each with what is known of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from cfgjax import guidance, solvers, steering
from cfgjax.solvers.population import Particle
from cfgjax.types import Measurement, Pair, Solver, StatefulField


class SolverRow(NamedTuple):
    """A solver by ``build: (path, field) -> solver``, and what is known of it.

    ``order`` is fitted inside [0.1, 0.9] and ``evaluations`` counted in a step where they are told; ``is_two_way``
    takes falling grids, too; ``is_weighted`` takes a population.
    """

    build: Callable[[Any, Any], Any]
    order: int | None = None
    evaluations: int | None = None
    is_stochastic: bool = False
    is_two_way: bool = True
    is_weighted: bool = False


def pair_of(field):
    """The pair of a field at the label 0 and nearly the same at others: both sides are evaluated."""
    return Pair(lambda x, t, y: (field(x, t), field(x, t) * (1 + 0.01 * y)), lambda x, t, y: field(x, t))


def _stateful(field):
    return StatefulField(jnp.zeros_like, lambda x, t, count: (field(x, t), count + 1))


def _with_mean_step(path, field):
    diffusion = solvers.root_beta(path)
    stochastic = solvers.euler_maruyama(path, field, diffusion)
    return solvers.with_final_step(stochastic, solvers.mean_step(path, field, diffusion))


def as_flow_map(field):
    """The flow map of straight trajectories: a step by it is one of Euler's rule."""
    return lambda x, t, r: field(x, t)


def _small_step(t, t_next):
    return 0.1 * (t_next - t)


def weighing(path, field):
    """Euler-Maruyama's rule, its log-weight growing by the first coordinate."""
    one = solvers.euler_maruyama(path, field, solvers.constant(0.5))

    def step(key, carry, t, t_next):
        moved = one.step(key, carry.carry, t, t_next)
        return Particle(moved, (t_next - t) * moved.x.reshape(-1)[0])

    return Solver(lambda x: Particle(one.init(x), jnp.zeros(())), step, is_forward_only=True)


FIRST = Measurement(lambda z: z.reshape(-1)[:1], jnp.ones(1), 0.5)
"""A measurement of the first coordinate."""


def _daps(path, field):
    step = steering.relative_langevin_step(path, 0.5)
    return steering.daps(path, field, steering.log_likelihood(FIRST), step, num_inner_steps=4, num_langevin=3)


SOLVERS = {
    "euler": SolverRow(lambda path, field: solvers.euler(field), 1, 1),
    "midpoint": SolverRow(lambda path, field: solvers.midpoint(field), 2, 2),
    "heun": SolverRow(lambda path, field: solvers.heun(field), 2, 2),
    "rk4": SolverRow(lambda path, field: solvers.rk4(field), 4, 4),
    "adams_bashforth": SolverRow(lambda path, field: solvers.adams_bashforth(field), 2, 1),
    "ddim": SolverRow(solvers.ddim, 1, 1),
    "dpm_solver": SolverRow(solvers.dpm_solver, 2, 1, is_two_way=False),
    "unipc": SolverRow(solvers.unipc, 3, 1, is_two_way=False),
    "implicit_euler": SolverRow(lambda path, field: solvers.implicit_euler(field, 5)),
    "reversible": SolverRow(lambda path, field: solvers.reversible(solvers.heun, field)),
    "cfg_plus_plus": SolverRow(lambda path, field: solvers.cfg_plus_plus(path, pair_of(field), jnp.asarray(0), 0.5)),
    "rectified_cfg_plus_plus": SolverRow(
        lambda path, field: solvers.rectified_cfg_plus_plus(pair_of(field), jnp.asarray(0), 2.0), 1, 3
    ),
    "manifold_projected": SolverRow(
        lambda path, field: solvers.manifold_projected(pair_of(field), jnp.asarray(0), 2.0), is_two_way=False
    ),
    "with_field_state": SolverRow(lambda path, field: solvers.with_field_state(solvers.euler, _stateful(field))),
    "remat": SolverRow(lambda path, field: solvers.remat(solvers.rk4(field))),
    "churn": SolverRow(lambda path, field: solvers.churn(path, field, 0.3), is_stochastic=True, is_two_way=False),
    "euler_maruyama": SolverRow(
        lambda path, field: solvers.euler_maruyama(path, field, solvers.root_beta(path)), None, 1, True, False
    ),
    "stochastic_heun": SolverRow(
        lambda path, field: solvers.stochastic_heun(path, field, solvers.root_beta(path)), None, 2, True, False
    ),
    "with_final_step": SolverRow(_with_mean_step, is_stochastic=True, is_two_way=False),
    "langevin_corrected": SolverRow(
        lambda path, field: solvers.langevin_corrected(solvers.euler(field), field, _small_step),
        is_stochastic=True,
        is_two_way=False,
    ),
    "predictor_corrector_guidance": SolverRow(
        lambda path, field: solvers.predictor_corrector_guidance(
            path, field, field, solvers.diffusion_step(solvers.root_beta(path))
        ),
        is_stochastic=True,
        is_two_way=False,
    ),
    "jump": SolverRow(lambda path, field: solvers.jump(as_flow_map(field)), 1, 1, is_two_way=False),
    "renoised_jump": SolverRow(
        lambda path, field: solvers.renoised_jump(path, as_flow_map(field), 0.5), None, 1, True, False
    ),
    "population": SolverRow(
        lambda path, field: solvers.population(weighing(path, field)),
        is_stochastic=True,
        is_two_way=False,
        is_weighted=True,
    ),
    "feynman_kac": SolverRow(
        lambda path, field: solvers.feynman_kac(path, pair_of(field), 1, 3.0, solvers.constant(0.5)),
        is_stochastic=True,
        is_two_way=False,
        is_weighted=True,
    ),
    "glass": SolverRow(
        lambda path, field: steering.glass(path, field, steering.markov_correlation(path), num_steps=2),
        None,
        4,
        True,
        False,
    ),
    "replacement": SolverRow(
        lambda path, field: steering.replacement(path, solvers.heun(field), FIRST), None, 2, True, False
    ),
    "repaint": SolverRow(
        lambda path, field: steering.repaint(path, solvers.heun(field), FIRST, 3), None, 6, True, False
    ),
    "decoupled_annealing": SolverRow(
        lambda path, field: steering.decoupled_annealing(
            path, steering.ode_estimate(field, num_inner_steps=4), steering.gaussian_refinement(path, FIRST)
        ),
        None,
        4,
        True,
        False,
    ),
    "daps": SolverRow(_daps, None, 4, True, False),
}
"""The name of every builder of a solver -> its row."""


def solvers_that(**facts):
    """The names of the solvers with these facts; of an order or a count that is ``...``, those that have any."""
    rows = SOLVERS.items()
    return [name for name, row in rows if all(_fits(getattr(row, fact), value) for fact, value in facts.items())]


def _fits(found, wanted):
    return found is not None if wanted is ... else found == wanted


NULL = 3


class RuleRow(NamedTuple):
    """A rule of guidance by ``build: (path, field, scale) -> labelled field``, the null label NULL.

    ``neutral`` is the same rule by the numbers at which it is classifier-free guidance, to the ``tolerance``.
    """

    build: Callable[[Any, Any, Any], Any]
    neutral: Callable[[Any, Any, Any], Any] | None = None
    tolerance: float = 0.0


def weak(field):
    """A field with errors, to lead away from."""
    return lambda x, t, y: 0.8 * field(x, t, y) + 0.1 * jnp.sin(x)


def pairwise(change, **settings):
    """A rule on pairs as one on a field."""
    return lambda path, field, scale: guidance.extrapolate(change(path, guidance.pair(field, NULL), **settings), scale)


def _rescaled(phi):
    return lambda path, field, scale: guidance.rescaled(guidance.pair(field, NULL), scale, phi)


def _damped(damping):
    return pairwise(lambda path, pair: guidance.magnitude_aware(pair, damping))


def _decoupled(share):
    return pairwise(lambda path, pair: guidance.frequency_decoupled(pair, guidance.filters.mean_low, share))


RULES = {
    "classifier_free": RuleRow(lambda path, field, scale: guidance.classifier_free(field, scale, NULL)),
    "autoguidance": RuleRow(lambda path, field, scale: guidance.autoguidance(field, weak(field), scale)),
    "cfg_zero_star": RuleRow(pairwise(lambda path, pair: guidance.cfg_zero_star(pair))),
    "tangential_damping": RuleRow(pairwise(guidance.tangential_damping)),
    "projected": RuleRow(
        pairwise(guidance.projected, eta=0.2, max_norm=0.5), pairwise(guidance.projected, eta=1.0), 1e-12
    ),
    "rescaled": RuleRow(_rescaled(0.7), _rescaled(0.0)),
    "magnitude_aware": RuleRow(_damped(0.7), _damped(0.0)),
    "frequency_decoupled": RuleRow(_decoupled(0.4), _decoupled(1.0)),
    "weakened": RuleRow(
        lambda path, field, scale: guidance.weakened(guidance.pair(field, NULL), weak(field), scale, scale)
    ),
}
"""The name of every rule that has a scale -> its row."""

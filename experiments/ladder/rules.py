"""What is laddered: every rule of guidance as a solver for one label, one scale and one path.

``LADDER`` is the table: a name -> a ``Row``, whose ``build`` makes the solver of a ``Cell``; ``ALL`` has what goes back
in time as well. All numbers of a cell may be traced; its solver's name is one of the row's ``solvers``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from cfgjax import guidance, solvers
from cfgjax.guidance.projections import length
from cfgjax.piecewise import Piecewise
from cfgjax.types import (
    Array,
    Field,
    GaussianPath,
    LabelledField,
    Number,
    Pair,
    Policy,
    Scale,
    Solver,
    StatefulField,
    WeightedSolver,
)
from experiments.config.samplers import RULES
from experiments.ladder.problems import NEIGHBOUR, Problem

AnySolver = Solver | Piecewise[Solver]
NUM_STEPS = 32
"""Steps of equal length from noise to data."""
OWN = "own"
"""The solver's name of a rule that is a solver itself."""

SOLVERS: dict[str, Callable[[GaussianPath, Number], Callable[[Field], Solver]]] = {
    "euler": lambda path, sigma: solvers.euler,
    "heun": lambda path, sigma: solvers.heun,
    "unipc": lambda path, sigma: lambda field: solvers.unipc(path, field),
    "euler_maruyama": lambda path, sigma: (
        lambda field: solvers.euler_maruyama(path, field, solvers.root_beta(path, sigma))
    ),
}
"""(path, sigma) -> (field -> solver); sigma is the strength of ``solvers.root_beta``, which an ODE's solver ignores."""
STOCHASTIC = ("euler_maruyama",)
OF_ONE_STEP = ("euler", "heun", "euler_maruyama")
"""The solvers without a history of their own."""


class Cell(NamedTuple):
    """What a sampler is built of: ``scale`` is w, ``solver`` a name of the row's, ``sigma`` an SDE's strength."""

    problem: Problem
    path: GaussianPath
    label: Array | int
    scale: Number
    solver: str = "heun"
    sigma: Number = 1.0

    @property
    def pair(self) -> Pair:
        """The null side and the labelled side, exact."""
        return guidance.pair(self.problem.field(self.path), self.problem.null)

    @property
    def make_solver(self) -> Callable[[Field], Solver]:
        """The cell's solver, of a field yet to be given; of a piecewise one it makes a Piecewise."""
        return SOLVERS[self.solver](self.path, self.sigma)


class Row(NamedTuple):
    """A rule: the solver of a cell, and the names of the solvers that it goes with.

    The solver of a population is a WeightedSolver, whose particles are to be resampled by their weights. Where there is
    a ``refine``, ``build`` makes the solver of the first pass and ``refine`` that of the rounds after it.
    """

    build: Callable[[Cell], AnySolver | WeightedSolver]
    solvers: tuple[str, ...] = tuple(SOLVERS)
    is_population: bool = False
    refine: Callable[[Cell], AnySolver] | None = None


def of_field(field_of: Callable[[Cell], LabelledField]) -> Row:
    """The row of a rule that gives a guided field, for every solver."""
    return Row(lambda cell: cell.make_solver(guidance.given(field_of(cell), cell.label)))


def of_rule(rule: Callable[[GaussianPath, Pair, Scale], LabelledField]) -> Row:
    """The row of a rule (path, pair, scale) -> field, as those of ``experiments.config.samplers.RULES`` are."""
    return of_field(lambda cell: rule(cell.path, cell.pair, cell.scale))


def of_scale(scale_of: Callable[[Cell], Scale]) -> Row:
    """The row of plain guidance by a scale that depends on time or state."""
    return of_field(lambda cell: guidance.extrapolate(cell.pair, scale_of(cell)))


def of_memory(field_of: Callable[[Cell], StatefulField]) -> Row:
    """The row of a field with state."""
    return Row(lambda cell: solvers.with_field_state(cell.make_solver, field_of(cell)), OF_ONE_STEP)


def _policy(cell: Cell) -> Policy:
    """1 + (w - 1) |u_y| / (|u_y| + |u_y - u_null|): less where the two sides differ much."""

    def scale_of(x: Array, t: Array, y: Array, null: Array, labelled: Array) -> Array:
        size, gap = length(labelled), length(labelled - null)
        return 1 + (cell.scale - 1) * jnp.where(gap > 0, size / jnp.where(gap > 0, size + gap, 1), 1)

    return guidance.policy(scale_of)


def _annealed(cell: Cell) -> Policy:
    """1 + (w - 1) / (1 + |E_y - E_null|), in the place of a learned function of the gap."""
    return guidance.gap_policy(cell.path, lambda t, y, gap: 1 + (cell.scale - 1) / (1 + gap))


def _mixed(cell: Cell) -> StatefulField:
    """The early scale has the share of the late one that the pipeline's 3.5 has of its 10, both less 1."""
    early = 1 + 2.5 / 9 * (cell.scale - 1)
    return guidance.adaptive_projected_mix(cell.path, cell.pair, early, cell.scale, cell.label)


def _weakened(cell: Cell) -> LabelledField:
    weak = cell.problem.weak_field(cell.path)
    return guidance.weakened(cell.pair, weak, cell.scale, cell.scale)


def _classifier(cell: Cell) -> LabelledField:
    null = guidance.given(cell.problem.field(cell.path), cell.problem.null)
    return guidance.classifier(cell.path, null, cell.problem.label_log_probs(cell.path), cell.scale)


def _autoguidance(cell: Cell) -> LabelledField:
    return guidance.autoguidance(cell.problem.field(cell.path), cell.problem.weak_field(cell.path), cell.scale)


def _negative(cell: Cell) -> LabelledField:
    return guidance.classifier_free(cell.problem.field(cell.path), cell.scale, NEIGHBOUR)


def _cfg_plus_plus(cell: Cell) -> Solver:
    """CFG++ by the l at which its middle step has the classifier-free scale w."""
    middle, after = jnp.float32(0.5), jnp.float32(0.5 + 1 / NUM_STEPS)
    rate = cell.scale / solvers.effective_scale(cell.path, 1.0, middle, after)
    return solvers.cfg_plus_plus(cell.path, cell.pair, cell.label, rate)


def _manifold_projected(iterate: solvers.manifold.Iterate) -> Row:
    return Row(lambda cell: solvers.manifold_projected(cell.pair, cell.label, cell.scale, iterate), (OWN,))


def _predictor_corrector(cell: Cell) -> AnySolver:
    labelled = guidance.given(cell.pair.labelled, cell.label)
    guided = guidance.given(guidance.extrapolate(cell.pair, cell.scale), cell.label)
    size = solvers.relative_step(cell.path, 0.1)
    return solvers.predictor_corrector_guidance(cell.path, labelled, guided, size, num_corrections=5)


def _feynman_kac(cell: Cell) -> WeightedSolver:
    sigma = solvers.root_beta(cell.path, cell.sigma)
    return solvers.feynman_kac(cell.path, cell.pair, cell.label, cell.scale, sigma)


LADDER: dict[str, Row] = {name: of_rule(rule) for name, rule in RULES.items()} | {
    "classifier": of_field(_classifier),
    "autoguidance": of_field(_autoguidance),
    "weakened_self": of_field(_weakened),
    "negative_label": of_field(_negative),
    "interval": of_scale(lambda cell: guidance.interval(cell.scale, 0.375, 0.75)),
    "schedule": of_scale(lambda cell: lambda t: 1 + (cell.scale - 1) * t),
    "exponential_scale": of_scale(lambda cell: guidance.exponential_scale(1.0, jnp.log(cell.scale))),
    "beta_scale": of_scale(lambda cell: guidance.beta_scale(cell.path, cell.scale)),
    "policy": of_scale(_policy),
    "annealed": of_scale(_annealed),
    "negative_window": of_field(lambda cell: guidance.stages(cell.pair, (0.625,), (cell.scale, 0.0))),
    "zero_init": of_field(lambda cell: guidance.zero_init(guidance.extrapolate(cell.pair, cell.scale), 0.125)),
    "adaptive_projected": of_memory(
        lambda cell: guidance.adaptive_projected(cell.path, cell.pair, cell.scale, cell.label)
    ),
    "adaptive_projected_mix": of_memory(_mixed),
    "cfg_plus_plus": Row(_cfg_plus_plus, (OWN,)),
    "rectified_cfg_plus_plus": Row(
        lambda cell: solvers.rectified_cfg_plus_plus(cell.pair, cell.label, cell.scale), (OWN,)
    ),
    "manifold_projected": _manifold_projected(solvers.picard(2)),
    "manifold_projected_anderson": _manifold_projected(solvers.anderson(2)),
    "predictor_corrector": Row(_predictor_corrector, (OWN,)),
    "feynman_kac": Row(_feynman_kac, STOCHASTIC, is_population=True),
}
"""The name of every rule that is a solver of one grid -> its row."""

FIRST_STEPS, ROUND_STEPS, NUM_ROUNDS, NOISE_LEVEL = 12, 10, 2, 1.0
"""Of Gibbs-like guidance, as in its paper: steps at first and in a round, rounds, beta / alpha where they start."""

IN_ROUNDS: dict[str, Row] = {
    "gibbs_like": Row(
        lambda cell: solvers.heun(guidance.given(cell.pair.labelled, cell.label)),
        (OWN,),
        refine=lambda cell: solvers.heun(guidance.given(guidance.extrapolate(cell.pair, cell.scale), cell.label)),
    )
}
"""Rules that are no solver of one grid, as they go back in time: by ``solvers.gibbs_like``."""
ALL = LADDER | IN_ROUNDS
"""Every rule that is laddered."""

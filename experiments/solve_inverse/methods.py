"""The methods of ``cfgjax.steering`` on a run's guided field: how one sample is drawn, and what it costs."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance, paths, solvers
from cfgjax.piecewise import Piecewise
from cfgjax.steering.methods import METHODS
from cfgjax.types import Array, Field, GaussianPath, LabelledField, Measurement, Number, Solver, Tree
from experiments.cli.main import UserError
from experiments.config.samplers import SOLVERS, Draw, Rule, RuleOf, classifier_free
from experiments.run.restore import Run
from experiments.solve_inverse.problems import Problems
from experiments.tasks.task import TaskFacts

Steer = Callable[[Field, Measurement], Solver | Piecewise[Solver]]
"""(guided field (x, t), measurement) -> the solver that draws of the posterior."""


class Cost(NamedTuple):
    """What one sample takes: evaluations of the network, and vector-Jacobian products through it."""

    evaluations: int
    products: int


def rule_of(run: Run[TaskFacts]) -> RuleOf:
    """The guidance of the run: classifier-free, or what is inside its network."""
    if run.task.objective.is_guided:
        return lambda placed: lambda scale: placed(run.rule(scale))
    return lambda placed: classifier_free(placed(run.field), run.task.conditions.null)


def make_draw(rule: Rule, steer: Steer, problems: Problems, ts: np.ndarray) -> Draw:
    """The function that draws ONE sample: (key, (label, measured value), guidance scale) -> [H, W, C]."""

    def draw(key: Array, asked: Tree, scale: Number) -> Array:
        y, value = asked
        noise_key, solver_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, problems.truth.shape[1:])
        solver = steer(guidance.given(rule(scale), y), problems.of(value))
        return solvers.integrate(solver, solver_key, noise, ts)

    return draw


def steer_of(name: str, path: GaussianPath, solver: str, strength: float | None) -> Steer:
    """The method of a name, with the solver of a name for the fields that it solves; by default as published."""
    method, build = METHODS[name], partial(SOLVERS[solver], path)
    amount = 1.0 if strength is None else strength
    return lambda field, measurement: method.make_solver(path, field, measurement, build, amount)


def require_fitting(name: str, strength: float | None, noise_std: float, solver: str) -> None:
    """Finds out whether a method takes a strength, a measurement with so much noise, and a solver.

    Raises:
        UserError: it does not.
    """
    method = METHODS[name]
    if method.needs_noise and noise_std == 0:
        others = ", ".join(other for other, its in METHODS.items() if not its.needs_noise)
        raise UserError(f"noise_std must be positive for the rule {name}, got 0; those that need none: {others}")
    if strength is not None and not 0 <= strength < np.inf:
        raise UserError(f"strength must be finite, from 0, got {strength:g}")
    if not method.is_graded and strength not in (None, 0, 1):
        raise UserError(f"strength must be 0 or 1 for the rule {name}, got {strength:g}")
    try:
        steer_of(name, paths.linear(), solver, strength)(
            lambda x, t: x, Measurement(lambda z: z, jnp.ones(()), noise_std)
        )
    except ValueError as error:
        raise UserError(f"{error}: rule {name}, solver {solver}") from None


def cost_of(run: Run[TaskFacts], steer: Steer, problems: Problems, ts: np.ndarray, scale: float) -> Cost:
    """What one sample takes, at one scale alone: at 0 and at 1 one side of guidance is evaluated."""
    y, measurement = int(problems.label[0]), problems.of(problems.value[0])

    def build(field: LabelledField) -> Solver | Piecewise[Solver]:
        return steer(guidance.given(rule_of(run)(lambda _: field)(scale), y), measurement)

    x = jnp.zeros(problems.truth.shape[1:])
    counts = solvers.num_function_evaluations, solvers.num_vector_jacobian_products
    return Cost(*(int(count(build, run.field, x, ts).sum()) for count in counts))

"""Print how far solvers end from a fine reference: by evaluations of the field, of a run or of the exact mixture.

The error is the root mean square over samples of the distance to the end of 1,000 steps of Heun's rule, by pixel or
coordinate. For example: python -m experiments.solver_error runs/digits --scales 1 2 4 --evaluations 8 16
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.piecewise import Piecewise
from cfgjax.types import Array, Condition, GaussianPath, LabelledField, Solver
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.samplers import GRIDS, ODE_SOLVERS, SOLVERS, GridName, Rule, classifier_free
from experiments.run.batch_sampling import sample_keys
from experiments.run.require_trained import require_scales
from experiments.run.restore import restore_field
from experiments.runtime import progress
from experiments.runtime.batching import plan_batching
from experiments.tasks import texts
from experiments.tasks.conditions import Conditions, in_turn, of_labels, unasked
from experiments.tasks.label_names import numbers_of

REFERENCE_STEPS = 1000


@dataclass(frozen=True)
class Options:
    """What to compare."""

    run_dir: Annotated[Path | None, tyro.conf.Positional, optional("RUN_DIR", "the exact field of a ring")] = None
    """Folder of the run."""
    scales: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Guidance scales w."""
    evaluations: tuple[int, ...] = (8, 16, 32)
    """Evaluations of the guided field, the same for every solver."""
    grids: tuple[GridName, ...] = ("uniform", "sigmoid", "karras")
    """Time grids."""
    num_samples: int = 200
    """Samples, over all labels, or other conditions of the run's report, in turn."""
    data_dir: Annotated[Path | None, optional("FOLDER", "the run's own")] = None
    """Folder of prepared data sets; needed only for runs whose config lacks the data's shape."""
    tokenizer: Annotated[str | None, optional("MODULE:FUNCTION", "none")] = None
    """What reads texts, of a run that was trained with one: text -> integers [n] or numbers [n, d]."""


def _rule(options: Options) -> tuple[GaussianPath, Rule, Conditions, tuple[int, ...]]:
    """The path, the guidance, the conditions and the shape of a sample."""
    if options.run_dir is None:
        path, ring, told = paths.linear(), mixtures.ring(8), of_labels(8, np.arange(8), numbers_of(8))
        return path, classifier_free(ring.vector_field(path), told.null), told, (2,)
    run = restore_field(
        options.run_dir, options.data_dir, tokenizer_of=functools.partial(texts.loaded, name=options.tokenizer)
    )
    require_scales(run, options.scales)
    return run.path, run.rule, run.task.conditions, run.task.shape


@functools.cache
def _evaluations(name: str) -> int:
    """How often a solver evaluates its field in a step."""

    def build(field: LabelledField) -> Solver | Piecewise[Solver]:
        return SOLVERS[name](paths.linear(), guidance.given(field, 0))

    counts = solvers.num_function_evaluations(build, lambda x, t, y: -x, jnp.zeros(1), np.linspace(0, 1, 3))
    return int(np.sum(counts)) // 2


Solve = Callable[[str, Array, float], np.ndarray]
"""(solver's name, times, guidance scale) -> the ends of all samples."""


def _solve_of(options: Options) -> tuple[GaussianPath, Solve]:
    """The path, and the solve of the same noises by any solver, each compiled once for a grid's size."""
    path, rule, told, shape = _rule(options)
    ys = jax.tree.map(jnp.asarray, in_turn(unasked(told), options.num_samples))
    keys = sample_keys(0, options.num_samples)

    def compiled(name: str) -> Callable[[Array, Array], Array]:
        def draw(key: Array, y: Condition, scale: Array, ts: Array) -> Array:
            solver = SOLVERS[name](path, guidance.given(rule(scale), y))
            return solvers.integrate(solver, key, jax.random.normal(key, shape), ts)

        def run(scale: Array, ts: Array) -> Array:
            one = jax.tree.map(lambda leaf: leaf[0], ys)
            chunk = min(plan_batching(draw, keys[0], one, scale, ts).chunk, options.num_samples)
            return jax.lax.map(lambda one: draw(one[0], one[1], scale, ts), (keys, ys), batch_size=chunk)

        return jax.jit(run)

    by_name = {name: compiled(name) for name in ODE_SOLVERS}
    return path, lambda name, ts, scale: np.asarray(by_name[name](jnp.float32(scale), ts), np.float64)


def _row(path: GaussianPath, solve: Solve, reference: np.ndarray, scale: float, grid: str, count: int) -> list[float]:
    """The error of each solver; NaN where the evaluations make fewer than two steps."""

    def error(name: str) -> float:
        num_steps = count // _evaluations(name)
        if num_steps < 2:
            return np.nan
        return float(np.sqrt(np.mean((solve(name, GRIDS[grid](path, num_steps), scale) - reference) ** 2)))

    return [error(name) for name in ODE_SOLVERS]


def compare(options: Options) -> None:
    """Prints the table."""
    path, solve = _solve_of(options)
    print(f"{'w':>5} {'grid':>12} {'evaluations':>11}  " + "  ".join(f"{name:>15}" for name in ODE_SOLVERS))
    reference_at = functools.cache(lambda scale: solve("heun", solvers.time_grids.uniform(REFERENCE_STEPS), scale))
    rows = list(itertools.product(options.scales, options.grids, options.evaluations))
    for scale, grid, count in progress.each(rows, "rows", "solving"):
        errors = _row(path, solve, reference_at(scale), scale, grid, count)
        cli.print_result(f"{scale:5g} {grid:>12} {count:11d}  " + "  ".join(f"{each:15.4f}" for each in errors))


def _checked(options: Options) -> None:
    if options.num_samples < 1:
        raise UserError(f"num_samples must be at least 1, got {options.num_samples}")
    for count in options.evaluations:
        if count < 4:
            raise UserError(f"evaluations must be at least 4, got {count}")
    if not all(abs(scale) <= 1e4 for scale in options.scales):
        raise UserError(f"scales must be finite, in -10000..10000, got {options.scales}")
    compare(options)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(_checked, Options, "experiments.solver_error", __doc__, args)


if __name__ == "__main__":
    main()

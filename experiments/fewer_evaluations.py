"""Solve for the steps that spare the null side: what schedules cost, and how near they end.

Of the exact field of a ring the error is the divergence KL in nats from the law of full guidance by the same solver; of
a run, or a network with random parameters, the root mean square distance of the ends from those of full guidance, as a
share of the samples' standard deviation. Time is the median over rounds, in which the schedules take turns, as a share
of full guidance's.
For example: python -m experiments.fewer_evaluations runs/digits --scale 2 --tolerance 0.02
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.analysis import certificates, reuse
from cfgjax.types import Array, Condition, Pair, ReuseSchedule, Solver, Tree
from experiments.benchmark.workloads import WORKLOADS
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.run.batch_sampling import sample_keys
from experiments.run.require_trained import require_rows
from experiments.run.restore import restore_field
from experiments.tasks.conditions import in_turn, unasked

NETWORKS = {"DiT-Ti": "W2"}
NUM_STAGES = 2
"""Evaluations in a step of Heun's rule."""


@dataclass(frozen=True)
class Options:
    """What to solve for."""

    run_dir: Annotated[Path | None, tyro.conf.Positional, optional("RUN_DIR", "the exact field of a ring")] = None
    """Folder of the run."""
    network: Annotated[Literal["DiT-Ti"] | None, optional("NAME", "none")] = None
    """A network with random parameters, in a run's place: for its seconds."""
    scale: float = 2.0
    """Guidance scale w."""
    num_steps: int = 32
    """Steps of Heun's rule from noise to data."""
    order: int = 2
    """Degree of the extrapolation: 0 keeps the difference, 1 is a line through the last two, 2 a parabola."""
    tolerance: Annotated[float | None, optional("FLOAT", "regular schedules alone")] = None
    """The largest error of a schedule that is solved for."""
    num_samples: int = 512
    """Samples, over all labels or other conditions in turn."""
    num_rounds: int = 5
    """Rounds in which the seconds are taken; 0 for none."""
    seed: int = 0
    """Seed of the noise."""
    data_dir: Annotated[Path | None, optional("FOLDER", "the run's own")] = None
    """Folder of prepared data sets; needed only for runs whose config lacks the data's shape."""


class Problem(NamedTuple):
    """Two sides with their conditions, one a sample; on the oracle errors are in nats."""

    pair: Pair
    shape: tuple[int, ...]
    conditions: Tree
    is_exact: bool


def _problem(options: Options) -> Problem:
    labels = jnp.arange(options.num_samples)
    if options.network is not None:
        work = WORKLOADS[NETWORKS[options.network]]
        params = jax.jit(work.network.init)(jax.random.key(0), jnp.zeros(work.shape), jnp.float32(0.5), labels[0])
        keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
        params = jax.tree.map(lambda leaf: leaf + 0.02 * jax.random.normal(next(keys), leaf.shape), params)

        def field(x: Array, t: Array, y: Condition) -> Array:
            return cast(Array, work.network.apply(params, x, t, y))

        return Problem(guidance.pair(field, work.num_classes), work.shape, labels % work.num_classes, False)
    if options.run_dir is None:
        ring = mixtures.ring()
        pair = guidance.pair(ring.vector_field(paths.linear()), ring.num_classes)
        return Problem(pair, (2,), labels % ring.num_classes, True)
    run = restore_field(options.run_dir, options.data_dir)
    if run.task.objective.is_guided:
        raise UserError(f"fewer_evaluations needs two sides: guidance is inside {options.run_dir}'s network")
    require_rows(run, (*run.task.labels, run.task.num_classes), "fewer_evaluations")
    known = run.task.conditions
    conditions = jax.tree.map(jnp.asarray, in_turn(unasked(known), options.num_samples))
    return Problem(guidance.pair(run.field, known.null), run.task.shape, conditions, False)


class _Study:
    """The solves of one problem, each schedule's compiled once."""

    def __init__(self, options: Options) -> None:
        self.problem, self.scale, self.num_rounds = _problem(options), options.scale, options.num_rounds
        self.ts = np.linspace(0, 1, options.num_steps + 1, dtype=np.float32)
        self.key = jax.random.key(options.seed)
        self.noise = jax.vmap(lambda key: jax.random.normal(key, self.problem.shape))(
            sample_keys(options.seed, options.num_samples)
        )
        self.programs: dict[ReuseSchedule | None, Callable[[], Array]] = {}
        self.full = self.program(None)()

    def solver(self, schedule: ReuseSchedule | None, y: Condition) -> Solver:
        pair = self.problem.pair
        if schedule is None:
            return solvers.heun(guidance.given(guidance.extrapolate(pair, self.scale), y))
        return solvers.with_field_state(solvers.heun, guidance.reused(pair, self.scale, y, schedule))

    def flow(self, schedule: ReuseSchedule | None, y: Condition) -> Callable[[Array], Array]:
        solver = self.solver(schedule, y)
        return lambda x: solvers.integrate(solver, self.key, x, self.ts)

    def over_samples(self, one: Callable[[Array, Condition], Tree]) -> Callable[[], Tree]:
        each = jax.jit(lambda *rows: jax.lax.map(lambda row: one(*row), rows, batch_size=128))
        return lambda: jax.block_until_ready(each(self.noise, self.problem.conditions))

    def program(self, schedule: ReuseSchedule | None) -> Callable[[], Array]:
        if schedule not in self.programs:
            self.programs[schedule] = self.over_samples(lambda x, y: self.flow(schedule, y)(x))
        return self.programs[schedule]

    def error(self, schedule: ReuseSchedule) -> certificates.Estimate:
        if self.problem.is_exact:
            ratios = self.over_samples(
                lambda x, y: certificates.map_log_ratio(self.flow(schedule, y), self.flow(None, y), x)
            )()
            return certificates.kl_divergence_of_near(ratios)
        found = certificates.coupling_bound(self.program(schedule)(), self.full)
        spread = jnp.sqrt(jnp.sum(jnp.var(self.full, axis=0)))
        return certificates.Estimate(found.value / spread, found.standard_error / spread)

    def model(self) -> reuse.ErrorModel:
        pair = self.problem.pair
        return reuse.error_model(
            self.over_samples(lambda x, y: reuse.record(solvers.heun, pair, self.key, x, self.ts, self.scale, y))()
        )

    def num_evaluations(self, schedule: ReuseSchedule | None) -> int:
        def build(field: Callable[..., Array]) -> Solver:
            pair = guidance.pair(field, 1)
            if schedule is None:
                return solvers.heun(guidance.given(guidance.extrapolate(pair, self.scale), 0))
            return solvers.with_field_state(solvers.heun, guidance.reused(pair, self.scale, 0, schedule))

        return int(solvers.num_function_evaluations(build, lambda x, t, y: x * (t + y), jnp.ones(1), self.ts).sum())

    def seconds(self, schedules: list[ReuseSchedule | None]) -> np.ndarray:
        """Of each schedule in each round, after one run that does not count."""
        found = np.zeros((self.num_rounds + 1, len(schedules)))
        for row in found:
            for column, schedule in enumerate(schedules):
                start = time.perf_counter()
                self.program(schedule)()
                row[column] = time.perf_counter() - start
        return found[1:]


def _schedules(study: _Study, options: Options) -> list[tuple[str, ReuseSchedule]]:
    """The schedules by their names: regular ones, and the one within the tolerance."""
    order = options.order
    rows = [(f"each {period}. step", guidance.reuse_every(study.ts, period, order)) for period in (1, 2, 4)]
    if options.tolerance is not None:
        plan = reuse.solve_schedule(
            lambda schedule: float(study.error(schedule).value),
            study.model(),
            study.ts,
            options.tolerance,
            order,
            NUM_STAGES,
        )
        words = "".join(word[0] for word in plan.schedule.evaluated)
        rows.append((f"solved `{words}`", plan.schedule))
    return rows


def _check(options: Options) -> None:
    if options.run_dir is not None and options.network is not None:
        raise UserError("network must be left out where a run is given")
    if not abs(options.scale) <= 1e4:
        raise UserError(f"scale must be finite, in -10000..10000, got {options.scale}")
    if options.tolerance is not None and not 0 < options.tolerance < np.inf:
        raise UserError(f"tolerance must be positive and finite, got {options.tolerance}")
    for name, least in (("num_steps", 2), ("num_samples", 2), ("num_rounds", 0)):
        if getattr(options, name) < least:
            raise UserError(f"{name} must be at least {least}, got {getattr(options, name)}")
    if options.order not in (0, 1, 2):
        raise UserError(f"order must be 0, 1 or 2, got {options.order}")


def fewer_evaluations(options: Options) -> None:
    """Solves, measures and prints."""
    _check(options)
    study = _Study(options)
    rows: list[tuple[str, ReuseSchedule | None]] = [("full guidance", None), *_schedules(study, options)]
    seconds = study.seconds([schedule for _, schedule in rows])
    whole = study.num_evaluations(None)
    print("| the null side is evaluated in | evaluations | spared | error | time |\n|---|---|---|---|---|")
    for index, (name, schedule) in enumerate(rows):
        count, found, ratio = study.num_evaluations(schedule), "", ""
        if schedule is not None:
            value, error = study.error(schedule)
            found = f"{float(value):.1e} ± {float(error):.0e}"
        if options.num_rounds:
            ratio = f"{float(np.median(seconds[:, index] / seconds[:, 0])):.2f}"
        print(f"| {name} | {count} | {100 * (1 - count / whole):.1f} % | {found} | {ratio} |")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(fewer_evaluations, Options, "experiments.fewer_evaluations", __doc__, args)


if __name__ == "__main__":
    main()

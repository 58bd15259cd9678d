"""Measure methods of steering against the true posterior of a mixture.

Each method of steering, weighted particles and the exact posterior's own samplers draw under every noise and guidance
scale w; the truth is p(z|y)^w p(z)^(1-w) p(m|z), drawn exactly, at w = 0 without label. Written to OUT: posterior.json,
a row for each; posterior.md, the table; posterior.png, errors against cost.

For example: python -m experiments.ladder_posterior --out runs/ladder --mixture ring --noise 0.05 1 --num-steps 16 64
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from cfgjax.mixtures import LabelledMixture
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.ladder_posterior.figure import picture
from experiments.ladder_posterior.problems import MIXTURES, RANKS, Case, Errors, Truth, cases, operator, truth_of
from experiments.ladder_posterior.rows import Row, table
from experiments.ladder_posterior.samplers import SAMPLERS, Run, compiled, cost_of
from experiments.run import folder as run_folder
from experiments.runtime import progress


@dataclass(frozen=True)
class Options:
    """What to compare."""

    out: Path = Path("runs/ladder_posterior")
    """Folder to write to."""
    mixture: Literal["ring", "wide"] = "ring"
    """Eight components in 2-D, one number measured; or in 16-D, with 1, 4 and 8 numbers measured."""
    noise: tuple[float, ...] = (0.05, 0.2, 1.0)
    """Standard deviations of the measurement's noise."""
    scale: tuple[float, ...] = (0.0, 1.0, 2.0)
    """Guidance scales w: 0 is without label."""
    num_steps: tuple[int, ...] = (64,)
    """Solver steps from noise to data; several give a curve for each method."""
    num_samples: int = 1000
    """Samples for each measurement."""
    num_measurements: int = 2
    """Measurements of points of both labels in turn, over which errors are averaged."""
    only: Annotated[tuple[str, ...], optional("NAME [NAME ...]", "all")] = ()
    """Names of the methods to compare."""


def _require(options: Options) -> None:
    for name, least in (("num_samples", 2), ("num_measurements", 1)):
        if getattr(options, name) < least:
            raise UserError(f"{name} must be at least {least}, got {getattr(options, name)}")
    if min(options.num_steps, default=0) < 1:
        raise UserError(f"num_steps must be at least 1, got {options.num_steps}")
    if not options.noise or not all(0 < noise < np.inf for noise in options.noise):
        raise UserError(f"noise must be positive and finite, got {options.noise}")
    if not options.scale or not all(scale == 0 or 1 <= scale <= 5 for scale in options.scale):
        raise UserError(f"scale must be 0, or in 1..5, where the truth is drawn by rejection, got {options.scale}")
    for name in options.only:
        if name not in SAMPLERS:
            raise UserError(f"only must be of {', '.join(SAMPLERS)}, got {name}")


def _mean(found: list[Errors]) -> Errors:
    return Errors(*(float(value) for value in np.mean(found, axis=0)))


Cell = tuple[int, float, float]
"""Numbers measured, noise, guidance scale."""


def _problems(options: Options, mixture: LabelledMixture) -> dict[Cell, list[tuple[Case, Truth]]]:
    """Of each cell its cases, each with its truth."""
    cells = list(product(RANKS[options.mixture], options.noise, options.scale))
    found = {}
    for rank, noise, scale in progress.each(cells, "posteriors", "drawing the truth"):
        own = cases(mixture, operator(mixture, options.mixture, rank), noise, scale, options.num_measurements)
        found[rank, noise, scale] = [(case, truth_of(mixture, case, options.num_samples)) for case in own]
    return found


def _rows(options: Options) -> Iterator[Row]:
    mixture = MIXTURES[options.mixture]()
    problems = _problems(options, mixture)
    for cell, own in problems.items():
        yield Row("floor", *cell, 0, 0.0, 0.0, *_mean([truth.floor for _, truth in own]))
    case = next(iter(problems.values()))[0][0]
    rungs = list(product(options.only or SAMPLERS, options.num_steps))
    for name, num_steps in progress.each(rungs, "rungs", "sampling"):
        run: Run = compiled(mixture, SAMPLERS[name], num_steps, options.num_samples)
        cost = cost_of(mixture, SAMPLERS[name], case, num_steps)
        for index, (cell, own) in enumerate(problems.items()):
            seeds = range(len(own) * index, len(own) * (index + 1))
            errors = _mean([truth.errors(run(case, seed)) for seed, (case, truth) in zip(seeds, own, strict=True)])
            yield Row(name, *cell, num_steps, *cost, *errors)


def climb(options: Options) -> None:
    """Writes the rows, the table and the picture."""
    _require(options)
    folder = run_folder.make_folder("out", options.out)
    rows = list(_rows(options))
    text = json.dumps([{**asdict(row), **row.finite()} for row in rows], indent=1)
    run_folder.write_atomically(folder / "posterior.json", text + "\n")
    run_folder.write_atomically(folder / "posterior.md", table(rows))
    picture(rows).savefig(folder / "posterior.png", dpi=110)
    cli.print_result(table(rows))
    print(f"wrote posterior.json, posterior.md and posterior.png to {folder}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(climb, Options, "experiments.ladder_posterior", __doc__, args)


if __name__ == "__main__":
    main()

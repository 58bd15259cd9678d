"""Measure the errors of both sides by drop rate: E_y, E_null, and the guided field's at each w.

A small MLP is trained on a ring of Gaussians at each rate, and held against the exact fields over t and x of p_t; with
--weights also beside null_consistency of that weight. Of runs, whose exact fields are unknown, it prints the held-out
flow matching loss by side, the mean square of the error and a constant that runs on the same data share, and by how
much w^2 E_y + (w - 1)^2 E_null differs.
For example: python -m experiments.drop_rates --scales 2 4 --weights 0 1
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.drop_rates.held_out import runs_table
from experiments.drop_rates.tables import Found, errors_table, rates_table
from experiments.drop_rates.training import Training, study
from experiments.run.restore import restore_run
from experiments.runtime import progress


@dataclass(frozen=True)
class Options:
    """What to train, and what to measure."""

    run_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional, optional("[RUN_DIR ...]", "a ring")] = ()
    """Folders of runs on the same data, of which held-out losses are printed; nothing is trained then."""
    rates: tuple[float, ...] = (0.0, 0.02, 0.1, 0.2, 0.333, 0.5)
    """Shares of dropped labels; 0 is trained where null_consistency trains the null side."""
    weights: tuple[float, ...] = (0.0, 1.0)
    """Weights of null_consistency beside flow matching."""
    scales: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Guidance scales w of the guided error; of runs, of w^2 E_y + (w - 1)^2 E_null."""
    num_updates: int = 2_000
    """Updates of Adam."""
    batch_size: int = 256
    """Examples in an update."""
    width: int = 64
    """Width of the MLP's two blocks."""
    learning_rate: float = 3e-3
    """Adam's at first; it falls to 0 by a cosine."""
    num_seeds: int = 3
    """Trainings of each row, whose spread is printed."""
    num_points: int = 16_384
    """Draws of (t, x, y) at which both are measured; of a run, over its held-out examples in turn."""
    data_dir: Annotated[Path | None, optional("FOLDER", "the runs' own")] = None
    """Folder of prepared data sets, of the runs."""


def _rows(options: Options) -> list[tuple[float, float]]:
    """Rates with weights, those where both sides are trained."""
    return [(rate, weight) for weight in options.weights for rate in options.rates if rate or weight]


def measured(options: Options) -> Found:
    """The errors of each rate and weight, [seeds] and [seeds, W]."""
    program = study(
        Training(options.num_updates, options.batch_size, options.width, options.learning_rate),
        options.num_points,
        options.scales,
    )
    keys, found = jax.random.split(jax.random.key(0), options.num_seeds), {}
    for rate, weight in progress.each(_rows(options), "rows", "training"):
        traced = jnp.float32(weight) if weight else None
        found[rate, weight] = jax.block_until_ready(program(keys, jnp.float32(rate), traced))
    return found


def _check(options: Options) -> None:
    if not options.rates or not all(0 <= rate < 1 for rate in options.rates):
        raise UserError(f"rates must be in 0..1, without 1, which trains no label; got {options.rates}")
    if not options.weights or not all(0 <= weight < np.inf for weight in options.weights):
        raise UserError(f"weights must be finite and not negative, got {options.weights}")
    if not options.scales or not all(abs(scale) <= 1e4 for scale in options.scales):
        raise UserError(f"scales must be finite, in -10000..10000, got {options.scales}")
    if not any(options.rates) and not all(options.weights):
        raise UserError("rates of 0 alone train the null side by null_consistency alone: weights must not hold 0")
    if not 0 < options.learning_rate < np.inf:
        raise UserError(f"learning_rate must be positive and finite, got {options.learning_rate}")
    for name in ("num_updates", "batch_size", "width", "num_seeds", "num_points"):
        if getattr(options, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(options, name)}")


def drop_rates(options: Options) -> None:
    """Trains, measures and prints."""
    _check(options)
    if options.run_dirs:
        runs = (restore_run(folder, options.data_dir) for folder in options.run_dirs)
        cli.print_result(runs_table(runs, options.num_points, options.scales))
        return
    found = measured(options)
    cli.print_result(f"{errors_table(found, options.scales)}\n\n{rates_table(found, options.scales)}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(drop_rates, Options, "experiments.drop_rates", __doc__, args)


if __name__ == "__main__":
    main()

"""Compare learned guidance scales: how near each brings the guided to the tilted law, in the divergence.

On a 3 x 3 grid of Gaussians, by the exact field: the guided ODE of a constant w does not sample
p(x)^(1-w) p(x|y)^w. A number, w(t, y) and w(t, y, gap) are fitted to it by gradients through the solver, in
E[log p_w(x|y) - (1-w) log p(x) - w log p(x|y)] + log Z of samples that bring their own log-density; beside them
learn-to-guide's w(t, y) and the annealed w(t, gap) by their own losses, which have other aims. Gap is |E_y - E_null|.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from cfgjax.types import Tree
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.learn_schedule.figure import draw
from experiments.learn_schedule.fitting import Fit, fitter
from experiments.learn_schedule.measures import Measured, divergences, energy_in_floors
from experiments.learn_schedule.rules import Sizes, learned, rules
from experiments.learn_schedule.scales import NULL
from experiments.learn_schedule.table import Row, table
from experiments.run import folder as run_folder
from experiments.runtime import progress


@dataclass(frozen=True)
class Options:
    """What to fit, and how long."""

    scale: float = 3.0
    """The tilted law's w, and the constant w to start from."""
    num_knots: int = 9
    """Knots in time of each label's w(t), joined by straight lines."""
    num_updates: int = 200
    """Updates of Adam for what is fitted through the solver."""
    num_loss_updates: int = 1000
    """Updates of Adam for learn-to-guide and the annealed scale, whose losses need no solver."""
    batch_size: int = 144
    """Samples in an update, over all labels."""
    num_steps: int = 32
    """Steps of Heun's rule from noise to data; of CFG++, whose steps have one evaluation, twice as many."""
    learning_rate: float = 0.05
    """Adam's, for knots."""
    num_samples: int = 2_000
    """Samples of each label for the measured distances."""
    num_seeds: int = 5
    """Fits of each scale, and sets of samples: their spread gives the errors."""
    out: Path = Path("learned_guidance.png")
    """Picture to write."""


def _check(options: Options) -> None:
    least = {"num_knots": 2, "num_updates": 1, "num_loss_updates": 1, "batch_size": NULL, "num_steps": 1}
    for name, number in (least | {"num_samples": 2, "num_seeds": 2}).items():
        if getattr(options, name) < number:
            raise UserError(f"{name} must be at least {number}, got {getattr(options, name)}")
    if not abs(options.scale) <= 100:
        raise UserError(f"scale must be finite, in -100..100, got {options.scale}")
    if not 0 < options.learning_rate < np.inf:
        raise UserError(f"learning_rate must be positive and finite, got {options.learning_rate}")
    if options.out.suffix != ".png":
        raise UserError(f"out must end in .png, got {options.out}")


def sizes_of(options: Options) -> Sizes:
    """The sizes that the options ask for."""
    through = Fit(options.num_updates, options.batch_size, options.learning_rate)
    of_data = through._replace(num_updates=options.num_loss_updates)
    return Sizes(options.scale, options.num_knots, options.num_steps, through, of_data)


def fitted(options: Options) -> dict[str, list[Tree]]:
    """What is fitted, by name, one for each seed."""
    found = {}
    for name, row in learned(sizes_of(options)).items():
        starts, keys = (jax.random.split(jax.random.key(seed), options.num_seeds) for seed in (2, 0))
        run = None if row.loss is None else fitter(row.loss, row.fit)
        found[name] = [
            row.start(start) if run is None else run(row.start(start), key)[0]
            for start, key in progress.each(list(zip(starts, keys, strict=True)), "seeds", f"fitting {name}")
        ]
    return found


def measured(options: Options, params: dict[str, list[Tree]]) -> list[Row]:
    """A row for each rule."""
    keys, rows = jax.random.split(jax.random.key(1), options.num_seeds), []
    for name, rule in progress.each(rules(sizes_of(options)).items(), "rules", "measuring"):
        measure = divergences(rule.make_solver, options.scale, rule.num_steps, options.num_samples)
        seeds: list[Measured] = [measure(own, key) for own, key in zip(params[rule.learned], keys, strict=True)]
        tilted, labelled, turned = (
            np.stack([getattr(each, kind) for each in seeds]) for kind in ("tilted", "labelled", "turned")
        )
        rows.append(Row(name, tilted, labelled, turned, energy_in_floors(seeds[0].samples, options.scale)))
    return rows


def learn(options: Options) -> None:
    """Fits, measures, prints the table and draws."""
    _check(options)
    run_folder.make_folder("out", options.out.parent)
    params = fitted(options)
    rows = measured(options, params)
    cli.print_result(table(rows))
    draw(rows, {name: own[0] for name, own in params.items()}).savefig(options.out, dpi=100)
    print(f"wrote {options.out}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(learn, Options, "experiments.learn_schedule", __doc__, args)


if __name__ == "__main__":
    main()

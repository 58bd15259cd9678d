"""Measure how guidance distorts a class among very many.

Of mixtures of K round Gaussians with random centres in d dimensions, by their exact fields, classes in chunks: the
guided law of a class keeps its distortion where K = exp(a d) grows with the dimension, and loses it where K grows
more slowly, as found by Ventura et al., arXiv 2602.00716. Beside every number stands the limit of many dimensions.
Written to OUT: many_classes.json, many_classes.md and many_classes.png.

For example: python -m experiments.many_classes --scales 1 2 4 --max-classes 10000 --out runs/many_classes
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.many_classes.families import sizes
from experiments.many_classes.figure import draw
from experiments.many_classes.limit import limit
from experiments.many_classes.measures import PATH, measure
from experiments.many_classes.mixture import random_classes
from experiments.many_classes.table import Row, table
from experiments.run import folder as run_folder
from experiments.runtime import progress


@dataclass(frozen=True)
class Options:
    """Which classes to draw, and how."""

    out: Path = Path("runs/many_classes")
    """Folder to write to."""
    scales: tuple[float, ...] = (1.0, 3.0)
    """Guidance scales w; the picture is of the last one."""
    std: float = 0.5
    """Standard deviation s of a class; centres are standard normal in each direction."""
    max_classes: int = 100_000
    """Mixtures of more classes are left out."""
    max_dimension: int = 10_000
    """Mixtures in more dimensions are left out."""
    num_steps: int = 64
    """Steps of Heun's rule, at times (i / n)^2."""
    seed: int = 0
    """Of the centres and of the samples."""


def _require(options: Options) -> None:
    for name, least in (("max_classes", 10), ("max_dimension", 10), ("num_steps", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise UserError(f"{name} must be at least {least}, got {getattr(options, name)}")
    if not options.scales or not all(0 <= scale <= 100 for scale in options.scales):
        raise UserError(f"scales must be in 0..100, got {options.scales}")
    if not 0 < options.std < np.inf:
        raise UserError(f"std must be positive and finite, got {options.std}")


def rows_of(options: Options) -> Iterator[Row]:
    """The rows of all mixtures and scales that are asked for."""
    asked, every = sizes(options.max_classes, options.max_dimension), sizes(Options.max_classes, Options.max_dimension)
    for size in progress.each(asked, "mixtures", "sampling"):
        centre_key, key = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), every.index(size)))
        mixture = random_classes(centre_key, *size[1:], options.std)
        for scale in options.scales:
            found = measure(mixture, scale, key, options.num_steps, size.num_samples)
            yield Row(size, scale, found, limit(PATH, scale, size.exponent, options.std))


def study(options: Options) -> None:
    """Writes the rows, the table and the picture."""
    _require(options)
    folder = run_folder.make_folder("out", options.out)
    rows = list(rows_of(options))
    records = [
        {**row.size._asdict(), "scale": row.scale, **asdict(row.found)}
        | {f"limit_{name}": value for name, value in row.limit._asdict().items()}
        for row in rows
    ]
    run_folder.write_atomically(folder / "many_classes.json", json.dumps(records, indent=1) + "\n")
    run_folder.write_atomically(folder / "many_classes.md", table(rows) + "\n")
    last = options.scales[-1]
    draw([row for row in rows if row.scale == last], last, options.std).savefig(folder / "many_classes.png", dpi=100)
    cli.print_result(table(rows))
    print(f"wrote many_classes.json, many_classes.md and many_classes.png to {folder}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(study, Options, "experiments.many_classes", __doc__, args)


if __name__ == "__main__":
    main()

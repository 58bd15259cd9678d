"""Sample a finished (or running) run again and measure it: other scales, more samples, more steps.

Reads the run's last checkpoint; writes samples.png and metrics.json into --out, by default RUN/evaluation.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments import command, runs
from experiments.presets import Sampling
from experiments.report import report
from experiments.restored import restore_run


@dataclass(frozen=True)
class Options:
    """What to measure."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    scales: tuple[float, ...] | None = None
    """Guidance scales w; by default the run's own."""
    num_steps: int | None = None
    """Solver steps; by default the run's own."""
    num_per_class: int | None = None
    """Samples of each label, for each scale and solver; by default the run's own."""
    seed: int | None = None
    """Seed of the samples; by default the run's own."""
    out: Path | None = None
    """Folder for the results."""


def evaluate(options: Options) -> None:
    """Measures the run and writes the report."""
    run = restore_run(options.run_dir)
    wanted = {field.name: getattr(options, field.name) for field in dataclasses.fields(Sampling)}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    sampling = dataclasses.replace(run.experiment.sampling, **chosen)
    experiment = runs.validate(dataclasses.replace(run.experiment, sampling=sampling))
    out = options.out or options.run_dir / "evaluation"
    report(run._replace(experiment=experiment), runs.make_folder("out", out))


def main(args: list[str] | None = None) -> None:
    """The command line."""
    command.run(
        lambda: tyro.cli(Options, prog="python -m experiments.evaluate", description=__doc__, args=args), evaluate
    )


if __name__ == "__main__":
    main()

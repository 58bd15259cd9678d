"""The options of ``experiments.solve_inverse``, and the ranges in which they must lie."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from cfgjax.steering.methods import METHODS
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.samplers import ODE, SOLVERS

DEFAULT = "decoupled"
if TYPE_CHECKING:
    SolverName = MethodName = str
else:  # the command line's choices are the tables' names
    SolverName, MethodName = Literal[tuple(SOLVERS)], Literal[tuple(METHODS)]

LEAST_SAMPLES = 2
"""Of a picture, for their deviation."""


@dataclass(frozen=True)
class ProblemOptions:
    """What is measured, and of which pictures."""

    task: Annotated[str, tyro.conf.arg(metavar="TASK")] = "inpaint"
    """inpaint (the centre is missing), superresolve (squares of 2 x 2 pixels are pooled), blur (a Gaussian of 1 pixel),
    or a mask of the pictures' size in a .png or .npy: white, or 1, is known."""
    noise_std: float = 0.1
    """Standard deviation of the measurement's noise; pictures lie in -1..1."""
    num_images: int = 10
    """Held-out pictures, their labels in turn."""
    num_samples: int = 8
    """Samples for each of them."""


@dataclass(frozen=True)
class MethodOptions:
    """How the posterior is sampled."""

    rule: MethodName = DEFAULT
    """Method of cfgjax.steering; docs/steering.md compares them."""
    strength: Annotated[float | None, optional("FLOAT", "1, as published")] = None
    """How strongly the measurement acts; 0 draws without it."""
    scale: Annotated[tuple[float, ...], optional("FLOAT [FLOAT ...]", "1; 0 where label is none")] = ()
    """Guidance scales w, in one program: 0 null, 1 labelled, above 1 guided."""
    label: Literal["true", "none"] = "true"
    """Whether the field is told the label of the picture; none is w = 0."""
    solver: SolverName = ODE
    """Of the corrected field, by the methods that have one; the stochastic ones of the SDE, as experiments.sample."""
    num_steps: int = 32
    """Solver steps from noise to data."""
    seed: int = 0
    """Seed of the measurements' noise and of the samples', from 0."""
    chunk: Annotated[int | None, optional("INT", "as many as the device's memory is quick with")] = None
    """Samples computed together."""


@dataclass(frozen=True)
class Options:
    """What to solve."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of pictures."""
    problem: Annotated[ProblemOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ProblemOptions)
    method: Annotated[MethodOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=MethodOptions)
    ema_width: Annotated[float | None, optional("FLOAT", "the run's own average")] = None
    """Relative width of the moving average of the parameters, made of the run's snapshots."""
    data_dir: Annotated[Path | None, optional("FOLDER", "the run's own")] = None
    """Folder of prepared data sets; a feature classifier that is trained now is kept there only if it is named."""
    out: Annotated[Path | None, optional("FOLDER", "RUN/inverse")] = None
    """Folder for the results."""


def _require(is_right: bool, message: str) -> None:
    if not is_right:
        raise UserError(message)


def require_in_range(options: Options) -> None:
    """Looks at every number among the options.

    Raises:
        UserError: one out of its range, named.
    """
    problem, method = options.problem, options.method
    _require(0 <= problem.noise_std < np.inf, f"noise_std must be finite, from 0, got {problem.noise_std}")
    _require(problem.num_images >= 1, f"num_images must be at least 1, got {problem.num_images}")
    _require(
        problem.num_samples >= LEAST_SAMPLES, f"num_samples must be at least {LEAST_SAMPLES}, got {problem.num_samples}"
    )
    for name, count in (("num_steps", method.num_steps), ("chunk", method.chunk)):
        _require(count is None or count >= 1, f"{name} must be at least 1, got {count}")
    _require(0 <= method.seed < 2**32, f"seed must be in 0..{2**32 - 1}, got {method.seed}")
    for scale in method.scale:
        _require(abs(scale) <= 1e4, f"scale must be finite, in -10000..10000, got {scale}")
    _require(
        method.label == "true" or not method.scale,
        "scale must be left out where label is none: the null field is w = 0",
    )


def scales_of(method: MethodOptions) -> tuple[float, ...]:
    """The guidance scales of the samples."""
    return (0.0,) if method.label == "none" else method.scale or (1.0,)

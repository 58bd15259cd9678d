"""The options of ``experiments.sample``, and the ranges in which they must lie."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cfgjax import data
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.samplers import GridName, RuleName, SolverName

NUMBER_BYTES = 4


@dataclass(frozen=True)
class SampleOptions:
    """Which samples, and how many; of a run with several conditions what is not given is null."""

    labels: Annotated[tuple[str, ...], optional("LABEL [LABEL ...]", "each that was trained on, once")] = ()
    """Label of each sample in turn, repeated as needed, by number or by name; K, or null, is the null label."""
    prompt: Annotated[tuple[str, ...], optional("TEXT [TEXT ...]", "those of the run's report")] = ()
    """Of a run that learned from texts: what is asked of each sample in turn, repeated as needed."""
    properties: Annotated[tuple[str, ...], optional("NAME=VALUE,... [...]", "those of the run's report")] = ()
    """Of a run that learned from numbers: those of each sample in turn; what is not named is as on average."""
    num_samples: Annotated[int | None, optional("INT", "one for each label, prompt or properties")] = None
    """Number of samples."""
    seed: int = 0
    """Seed of the noise, from 0; sample i is the same in any number of samples."""
    chunk: Annotated[int | None, optional("INT", "as many as the device's memory is quick with")] = None
    """Samples computed together."""


@dataclass(frozen=True)
class GuidanceOptions:
    """How the labelled and the null field are put together; docs/guidance.md shows each rule."""

    scale: float = 2.0
    """Guidance scale w: 0 null, 1 labelled, above 1 guided; at 0 and at 1 one field is evaluated, else both, and with
    guidance inside always one."""
    rule: RuleName = "classifier_free"
    """What is done with the labelled and the null field."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times, from 0 noise to 1 data, between which guidance acts; outside the labelled field alone is evaluated."""
    negative: Annotated[str | None, optional("CONDITION", "the null", former="--negative-label")] = None
    """What to lead away from in the null's place: a prompt, else a label by number or by name, else properties."""
    worse: Annotated[Path | None, optional("FOLDER", "the run's own null field")] = None
    """Folder of a run of a worse network on the same data, to lead away from in the null's place."""
    weakened: Annotated[tuple[str, ...], optional("[KIND=BLOCKS ...]", "the run's own null field")] = ()
    """What of the run's own network to lead away from in the null's place: without blocks (skipped=2,3), with blocks
    whose tokens attend to themselves alone (alone=2) or with a mean query (blurred=2), or its middle (internal)."""
    weak_scale: Annotated[float | None, optional("FLOAT", "the weakened one alone, at --scale")] = None
    """Guidance scale of the weakened network beside --scale, that of the null: 1 for none of it."""
    classifier: Annotated[Path | None, optional("FOLDER", "classifier-free")] = None
    """Folder of a run of a noisy classifier, to guide the null field by its gradient."""

    reuse: Annotated[int | None, optional("INT", "every evaluation is made")] = None
    """Evaluate the null field at the start of each so many-th step alone, and extrapolate u_y - u_null in between: 2
    spares 3 of 8 evaluations."""

    @property
    def is_plain(self) -> bool:
        """Whether the two fields are put together as everywhere, at all times."""
        return self.rule == "classifier_free" and self.interval == (0.0, 1.0) and self.reuse is None


@dataclass(frozen=True)
class SolverOptions:
    """How noise becomes data."""

    solver: Annotated[SolverName | None, optional("NAME", "heun; jump of a flow map")] = None
    """Of the SDE with sigma_t^2 = 2 beta_t: euler_maruyama, stochastic_heun; of a flow map: jump, with noise
    renoised_jump; of the ODE: the others (adaptive: diffrax's)."""
    grid: GridName = "uniform"
    """How the times of the steps are spread over 0..1."""
    num_steps: Annotated[int | None, optional("INT", "32; 1 of a flow map")] = None
    """Solver steps from noise to data; adaptive chooses its own, a jump is one evaluation."""


@dataclass(frozen=True)
class LoadOptions:
    """What is read."""

    ema_width: Annotated[float | None, optional("FLOAT", "the run's own average")] = None
    """Relative width of the moving average of the parameters, made of the run's snapshots."""
    autoencoder: Annotated[Path | None, optional("PATH", "latents as they are")] = None
    """Of a run of latents: the autoencoder that makes pictures of them, weights in diffusers' layout or a run."""
    data_dir: Annotated[Path | None, optional("FOLDER", "the run's own")] = None
    """Folder of prepared data sets; needed only for runs whose config lacks the data's shape."""
    tokenizer: Annotated[str | None, optional("MODULE:FUNCTION", "none")] = None
    """What reads prompts, of a run that was trained with one or on stored embeddings: text -> [n] or [n, d]."""


@dataclass(frozen=True)
class OutputOptions:
    """What is written, whole or not at all. A file is overwritten, a folder must be new or empty."""

    out: Annotated[str, tyro.conf.arg(metavar="PATH")] = "samples.png"
    """File to write (.png, .npz; for a trajectory .gif, .apng, .npz), or a folder with a slash at its end."""
    trajectory: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show every sample at all times of its solve, noise first: num_steps + 1 frames."""
    show: Literal["state", "denoised"] = "state"
    """What a trajectory shows: x_t, or the data that the guided field expects at the end of it."""


@dataclass(frozen=True)
class Options:
    """What to draw."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    sample: Annotated[SampleOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=SampleOptions)
    guidance: Annotated[GuidanceOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=GuidanceOptions)
    solver: Annotated[SolverOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=SolverOptions)
    run: Annotated[LoadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=LoadOptions)
    output: Annotated[OutputOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=OutputOptions)


def _require(is_right: bool, message: str) -> None:
    if not is_right:
        raise UserError(message)


def require_in_range(options: Options) -> None:
    """Looks at every number among the options.

    Raises:
        UserError: one out of its range, named.
    """
    which, guided, solving = options.sample, options.guidance, options.solver
    _require(abs(guided.scale) <= 1e4, f"scale must be finite, in -10000..10000, got {guided.scale}")
    weak = guided.weak_scale
    _require(weak is None or abs(weak) <= 1e4, f"weak_scale must be finite, in -10000..10000, got {weak}")
    _require(0 <= which.seed < 2**32, f"seed must be in 0..{2**32 - 1}, got {which.seed}")
    counts = {"num_steps": solving.num_steps, "num_samples": which.num_samples, "chunk": which.chunk}
    counts["reuse"] = guided.reuse
    for name, count in counts.items():
        _require(count is None or count >= 1, f"{name} must be at least 1, got {count}")
    data.check_memory("num_steps", 2 * NUMBER_BYTES * (solving.num_steps or 1))
    start, stop = guided.interval
    _require(0 <= start < stop <= 1, f"interval must be 0 <= start < stop <= 1, got {start:g} {stop:g}")

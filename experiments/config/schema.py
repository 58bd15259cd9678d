"""The settings of an experiment: frozen dataclasses whose fields are the command line's options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field, TypeAdapter

from experiments.cli.options import optional
from experiments.config.distillation import Distillation
from experiments.config.history import STRICT, FormerLengths, StartedFrom
from experiments.config.kinds import (
    ConditionedData,
    DescribedDigits,
    ImageData,
    LatentData,
    MeasuredDigits,
    MixtureData,
)
from experiments.config.networks import AnyNetwork, MLPNetwork
from experiments.config.values import (
    AnyPath,
    Count,
    EmbeddingValue,
    Examples,
    Fraction,
    MatmulPrecision,
    NotNegative,
    PartName,
    Positive,
    Scale,
    Seed,
    StepsPerCall,
    Width,
)


@dataclass(frozen=True)
class Optimizer:
    """AdamW with warm-up, cosine decay and clipping, and the moving average of the parameters."""

    __pydantic_config__ = STRICT
    learning_rate: Positive = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = 500
    """Steps over which the learning rate rises from 0."""
    clip_norm: Positive = 1.0
    """Global norm to which gradients are clipped."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay, a share of the learning rate."""
    ema_decay: Fraction = 0.999
    """Decay of the moving average, reached as min(decay, (1 + step) / (10 + step))."""
    average_widths: Annotated[tuple[Width, ...], Field(max_length=8), optional("[FLOAT ...]", "none")] = ()
    """Relative widths, such as 0.05 0.1, of EMAs of which snapshots are kept, to make others of afterwards."""


@dataclass(frozen=True)
class Sampling:
    """How the finished run is sampled and measured."""

    __pydantic_config__ = STRICT
    scales: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=1000)] = (0.0, 1.0, 2.0, 4.0)
    """Guidance scales w: 0 null, 1 labelled, above 1 guided."""
    num_steps: Annotated[int, Field(ge=1, le=10**6)] = 64
    """Solver steps from noise to data."""
    num_per_class: Examples = 100
    """Samples of each label, for each scale and solver."""
    seed: Seed = 1
    """Seed of the samples."""
    chunk: Annotated[Examples | None, optional("INT", "as many as the device's memory is quick with")] = None
    """Samples computed together."""


@dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept; what one of these names stays."""

    __pydantic_config__ = STRICT
    last: Count = 2
    """The last so many; with 2 or more a corrupt one leaves another to go back to."""
    every: Annotated[Count | None, optional("STEPS", "none")] = None
    """Those of every so many-th step."""
    best: Annotated[int, Field(ge=0)] = 0
    """So many of the least held-out loss."""
    snapshot_saves: Count = 1
    """Saves from one snapshot of the further moving averages to the next; all snapshots are kept."""


@dataclass(frozen=True)
class Experiment:
    """One training run."""

    __pydantic_config__ = STRICT
    preset: Annotated[tyro.conf.Suppress[str], Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
    run_dir: AnyPath
    """Folder of the run: config, metrics, checkpoints, pictures. A run found there is resumed."""
    data: MixtureData | ImageData | LatentData | MeasuredDigits | DescribedDigits | ConditionedData
    data_dir: AnyPath = Path("data")
    """Folder of prepared data sets."""
    path: Literal["linear", "cosine", "variance_preserving", "polynomial", "ddpm"] = "linear"
    """Gaussian path from noise to data (polynomial: of power 2; ddpm: DDPM's 1,000 steps, then sampled on linear)."""
    objective: Literal["field", "data", "noise", "score", "guided_field", "flow_map", "classifier", "autoencoder"] = (
        "field"
    )
    """What is learned: flow, denoiser, noise or score matching; a field, or a flow map, with guidance inside; a noisy
    image's label; latents and their images."""
    kl_weight: NotNegative = 1e-3
    """Of an autoencoder: weight of the latents' divergence from N(0, I), the variance of what may be lost."""
    time_density: Literal["uniform", "logit_normal"] = "uniform"
    """Density from which training times are drawn."""
    time_logit: tuple[EmbeddingValue, Positive] = (0.0, 1.0)
    """Mean and standard deviation of the logit of logit_normal times (JiT's are -0.8 and 0.8)."""
    label_drop_rate: Fraction = 0.1
    """Probability, 0 to 1, with which an example's label, or other condition, is replaced by the null."""
    null_consistency: NotNegative = 0.0
    """Weight of a loss beside the field's own: the null side against the labelled one, which is held."""
    batch_size: Examples = 256
    """Examples in a step, over all devices."""
    matmul_precision: MatmulPrecision = "highest"
    """Of a float32 network's products on accelerators: float32, less (high), or the least and fastest (default)."""
    placement: Literal["replicated", "sharded"] = "replicated"
    """Every device holds the whole state (pmap), or each a part (jit over a mesh): the same results, to rounding."""
    num_microbatches: Examples = 1
    """In how many microbatches, one after another, each device takes its share of a step."""
    steps_per_dispatch: StepsPerCall = 1
    """Training steps in one call of the device: more for small networks, whose steps are shorter than a call."""
    num_steps: Count = 10_000
    """Training steps in all, those before a resume among them."""
    seed: Seed = 0
    """Seed of the parameters, of all noise, and of the order of the data."""
    save_every: Count = 1_000
    """Steps between checkpoints."""
    log_every: Count = 200
    """Steps between lines of metrics.jsonl."""
    max_consecutive_nonfinite: Count = 10
    """Steps in a row without a finite loss and gradient that end the run; until then their updates are left out."""
    freeze: Annotated[tuple[PartName, ...], Field(max_length=10_000), optional("[NAME ...]", "nothing")] = ()
    """Parameters that stay what they are, by their names, or those of parts of the network; * for any letters."""
    network: AnyNetwork = field(default_factory=MLPNetwork)
    optimizer: Optimizer = field(default_factory=Optimizer)
    distillation: Distillation = field(default_factory=Distillation)
    keep: Retention = field(default_factory=Retention)
    sampling: Sampling = field(default_factory=Sampling)
    started_from: Annotated[StartedFrom | None, tyro.conf.Suppress] = None
    """The run whose parameters this one began with."""
    former_num_steps: Annotated[FormerLengths, tyro.conf.Suppress] = ()
    """Up to which steps the run was to have other numbers of steps in all, and which."""


MUTABLE = frozenset(
    {
        *("run_dir", "data_dir", "save_every", "log_every", "max_consecutive_nonfinite", "keep", "sampling"),
        *("placement", "num_microbatches", "steps_per_dispatch", "network.rematerialise", "data.in_memory"),
    }
)
"""Settings that may change when a run is resumed: they change nothing of its parameters, the second row to rounding."""

ADAPTER = TypeAdapter(Experiment)
"""Reads, writes and validates an Experiment as JSON."""

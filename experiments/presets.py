"""The presets: frozen dataclasses whose fields are the command line's options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field, TypeAdapter

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class MixtureData:
    """A ring of round Gaussians in 2-D, one per label: the exact field is known."""

    __pydantic_config__ = STRICT
    num_classes: Count = 8
    """Number of labels."""
    radius: Positive = 2.0
    """Radius of the ring."""
    std: Positive = 0.4
    """Standard deviation of each Gaussian."""


@dataclass(frozen=True)
class ImageData:
    """A prepared tfds data set of labelled images."""

    __pydantic_config__ = STRICT
    name: str = "digits"
    """The data set's name."""
    train_split: str = "train"
    """The tfds split to learn from."""
    test_split: str = "test"
    """The tfds split held out: for the loss during training, the recogniser's accuracy, and distances to copies."""


@dataclass(frozen=True)
class Network:
    """The residual multilayer perceptron."""

    __pydantic_config__ = STRICT
    width: Count = 256
    """Units of every hidden layer."""
    embedding_width: Annotated[int, Field(ge=2)] = 64
    """Features of the embeddings of time and label."""
    depth: Count = 4
    """Number of residual blocks."""
    dropout: Fraction = 0.0
    """Rate at which hidden units are dropped in training."""
    max_frequency: Positive = 100.0
    """Highest angular frequency of the time embedding."""


@dataclass(frozen=True)
class Optimizer:
    """AdamW with warm-up, cosine decay and clipping, and the moving average of the parameters."""

    __pydantic_config__ = STRICT
    learning_rate: Positive = 1e-3
    """Peak learning rate."""
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Steps over which the learning rate rises from 0."""
    clip_norm: Positive = 1.0
    """Global norm to which gradients are clipped."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay."""
    ema_decay: Fraction = 0.999
    """Decay of the moving average, reached as min(decay, (1 + step) / (10 + step))."""


@dataclass(frozen=True)
class Sampling:
    """How the finished run is sampled and measured."""

    __pydantic_config__ = STRICT
    scales: tuple[Finite, ...] = (0.0, 1.0, 2.0, 4.0)
    """Guidance scales w: 0 null, 1 labelled, above 1 guided."""
    num_steps: Count = 64
    """Solver steps from noise to data."""
    num_per_class: Count = 100
    """Samples of each label, for each scale and solver."""
    seed: int = 1
    """Seed of the samples."""


@dataclass(frozen=True)
class Experiment:
    """One training run."""

    __pydantic_config__ = STRICT
    preset: tyro.conf.Suppress[str]
    run_dir: Path
    """Folder of the run: config, metrics, checkpoints, pictures. A run found there is resumed."""
    data: MixtureData | ImageData
    data_dir: Path = Path("data")
    """Folder of prepared data sets."""
    path: Literal["linear", "cosine", "variance_preserving", "polynomial"] = "linear"
    """Gaussian path from noise to data (polynomial: of power 2)."""
    objective: Literal["field", "noise", "score"] = "field"
    """What the network predicts: flow matching, noise matching, or denoising score matching."""
    time_density: Literal["uniform", "logit_normal"] = "uniform"
    """Density from which training times are drawn."""
    label_drop_rate: Fraction = 0.1
    """Probability with which an example's label is replaced by the null label."""
    batch_size: Count = 256
    """Examples in a step, over all devices."""
    num_steps: Count = 10_000
    """Training steps."""
    seed: int = 0
    """Seed of the parameters, of all noise, and of the order of the data."""
    save_every: Count = 1_000
    """Steps between checkpoints."""
    log_every: Count = 200
    """Steps between lines of metrics.jsonl."""
    network: Network = field(default_factory=Network)
    optimizer: Optimizer = field(default_factory=Optimizer)
    sampling: Sampling = field(default_factory=Sampling)


MUTABLE = frozenset({"run_dir", "data_dir", "save_every", "log_every", "sampling"})
"""Fields that may change when a run is resumed: they change nothing of its parameters."""

PRESETS: dict[str, tuple[str, Experiment]] = {
    "digits": (
        "8 x 8 handwritten digits, 10 labels, from scikit-learn (the default; 2 CPU cores)",
        Experiment(
            "digits",
            Path("runs/digits"),
            ImageData(),
            num_steps=2_500,
            save_every=500,
            network=Network(width=384, dropout=0.2),
            sampling=Sampling(num_steps=32),
        ),
    ),
    "mixture": (
        "8 Gaussians on a ring in 2-D, measured against the exact field (2 CPU cores)",
        Experiment(
            "mixture",
            Path("runs/mixture"),
            MixtureData(),
            label_drop_rate=0.4,
            batch_size=512,
            num_steps=7_000,
            network=Network(depth=2),
            optimizer=Optimizer(learning_rate=3e-3),
            sampling=Sampling(num_steps=32),
        ),
    ),
}

ADAPTER = TypeAdapter(Experiment)
"""Reads, writes and validates an Experiment as JSON."""

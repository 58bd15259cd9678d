"""The settings of an experiment: frozen dataclasses whose fields are the command line's options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import AfterValidator, Field, TypeAdapter

from experiments.cli.options import optional
from experiments.config.history import STRICT, FormerLengths, StartedFrom


def _plain_path(path: Path) -> Path:
    if "\0" in str(path) or len(str(path)) > 1024:
        raise ValueError("a path must have at most 1024 letters, and no NUL")
    return path


def _path_inside(path: Path) -> Path:
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("the folder must lie inside data_dir, without '..'")
    return _plain_path(path)


Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=-1e4, le=1e4)]
EmbeddingValue = Annotated[float, Field(ge=-1e6, le=1e6)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[float, Field(gt=0, lt=12**-0.5)]
Count = Annotated[int, Field(ge=1, le=10**9)]
"""Of steps."""
Examples = Annotated[int, Field(ge=1, le=2**20)]
"""Of data points computed together, or drawn."""
Labels = Annotated[int, Field(ge=1, le=10**6)]
MOST_NAMES, LONGEST_NAME = 1000, 100
"""Of the labels that a run's config tells by name, and of a name."""
LabelNames = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)], ...], Field(max_length=MOST_NAMES)
]
MOST_ABSENT = 10_000
"""Labels without a training example that a run's config tells."""
AbsentLabels = Annotated[tuple[Annotated[int, Field(ge=0, lt=10**6)], ...], Field(max_length=MOST_ABSENT)]
Size = Annotated[int, Field(ge=1, le=2**16)]
"""Of a side of a picture, or of channels."""
SmallInt = Annotated[int, Field(ge=1, le=2**10)]
"""Of layers, heads, and the like."""
StepsPerCall = Annotated[int, Field(ge=1, le=10**4)]
MatmulPrecision = Literal["default", "high", "highest"]
"""As JAX calls them."""
AnyPath = Annotated[Path, AfterValidator(_plain_path)]
InnerPath = Annotated[Path, AfterValidator(_path_inside)]
Digest = Annotated[str, Field(pattern=r"^[0-9]{1,18}(:[0-9a-f]{16}){1,2}$")]
"""Of a data set, as ``experiments.tasks.digests`` makes it."""
DataName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,100}(/[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99})?$")]
SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_%+:.\[\] -]{1,100}$")]


@dataclass(frozen=True)
class MixtureData:
    """A ring of round Gaussians in 2-D, one per label: the exact field is known."""

    __pydantic_config__ = STRICT
    num_classes: Annotated[int, Field(ge=1, le=10**4)] = 8
    """Number of labels."""
    radius: Positive = 2.0
    """Radius of the ring, in units of the plane."""
    std: Positive = 0.4
    """Standard deviation of each Gaussian, in units of the plane."""


@dataclass(frozen=True)
class ImageData:
    """A prepared tfds data set of labelled images."""

    __pydantic_config__ = STRICT
    name: DataName = "digits"
    """The data set's name, as prepared."""
    train_split: SplitName = "train"
    """The tfds split to learn from."""
    test_split: SplitName = "test"
    """The tfds split held out: for the loss in training, the feature classifier's accuracy, distances to copies."""
    shape: Annotated[tuple[Size, Size, Size] | None, optional("INT INT INT", "what it has")] = None
    """Height, width and channels, in pixels, which the data set must have."""
    num_classes: Annotated[Labels | None, optional("INT", "what it has")] = None
    """Number of labels, which the data set must have."""
    label_names: Annotated[LabelNames | None, tyro.conf.Suppress] = None
    """The labels' names in order, as the data set tells them; None where it tells none that a config can hold."""
    absent_labels: Annotated[AbsentLabels | None, tyro.conf.Suppress] = None
    """The labels without a training example, by the data set; None where that is not known."""
    flip: bool = False
    """Mirror half of the training images, drawn anew at each step."""
    dequantise: bool = False
    """Add uniform noise of one gray level in training, for likelihoods."""
    in_memory: bool = True
    """Keep the decoded training set on the device; otherwise batches are read ahead from disk (needs grain)."""
    train_digest: Annotated[Digest | None, tyro.conf.Suppress] = None
    """Of the training split that the run began on; None in a run of an early version."""
    test_digest: Annotated[Digest | None, tyro.conf.Suppress] = None
    """Of the held-out split."""


@dataclass(frozen=True)
class LatentData:
    """A folder of pre-computed latents: latents.npy [n, H, W, C] and labels.npy [n]."""

    __pydantic_config__ = STRICT
    folder: InnerPath
    """The folder, inside data_dir."""
    shape: tuple[Size, Size, Size] = (32, 32, 4)
    """Height, width and channels, which the latents must have."""
    num_classes: Labels = 1000
    """Number of labels."""
    factor: Positive = 0.18215
    """What latents are multiplied with, so that their variance is about 1."""
    num_held_out: Count = 1024
    """How many are held out, chosen at random once."""
    absent_labels: Annotated[AbsentLabels | None, tyro.conf.Suppress] = None
    """The labels without a training example, by the folder; None where that is not known."""
    train_digest: Annotated[Digest | None, tyro.conf.Suppress] = None
    """Of the folder's latents, those held out among them; None in a run of an early version."""


@dataclass(frozen=True)
class MLPNetwork:
    """The residual MLP."""

    __pydantic_config__ = STRICT
    width: Size = 256
    """Units of every hidden layer."""
    embedding_width: Annotated[int, Field(ge=2, le=2**16)] = 64
    """Features of each of the embeddings of time and label."""
    depth: SmallInt = 4
    """Number of residual blocks."""
    dropout: Fraction = 0.0
    """Share of the hidden units that are dropped in training, 0 to 1."""
    max_frequency: Positive = 100.0
    """Highest angular frequency of the time embedding, in radians per unit of time."""


@dataclass(frozen=True)
class UNetNetwork:
    """The U-Net; for the objective "classifier" its lower half."""

    __pydantic_config__ = STRICT
    width: Size = 64
    """Channels of the largest map."""
    multipliers: Annotated[tuple[SmallInt, ...], Field(min_length=1, max_length=16)] = (1, 2, 2)
    """Channels of each level, as multiples of width; the map is halved between levels."""
    blocks_per_level: SmallInt = 2
    """Residual blocks of a level on the way down; one more on the way up."""
    attention: Annotated[tuple[Size, ...], Field(max_length=64)] = (7, 8)
    """Heights of the maps that attend."""
    head_width: Size = 64
    """Channels of an attention head."""
    dropout: Fraction = 0.0
    """Share of the inner units that are dropped in training, 0 to 1."""
    patch: SmallInt = 1
    """Side of the squares of pixels that become one position of the largest map."""
    max_frequency: Positive = 100.0
    """Highest angular frequency of the time embedding, in radians per unit of time."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and outputs are float32 always."""
    rematerialise: bool = False
    """Compute inner values again in the backward pass, to save memory."""


@dataclass(frozen=True)
class DiTNetwork:
    """The diffusion transformer; for the objective "classifier" its trunk with a pooled head."""

    __pydantic_config__ = STRICT
    width: Size = 384
    """Width of a token (the paper's S 384, B 768, L 1024, XL 1152)."""
    depth: SmallInt = 12
    """Number of blocks (S 12, B 12, L 24, XL 28)."""
    num_heads: SmallInt = 6
    """Heads of attention (S 6, B 12, L 16, XL 16)."""
    patch: SmallInt = 2
    """Side of the squares of pixels that become one token."""
    norm: Literal["layer", "rms"] = "layer"
    """Norm of the tokens."""
    positions: Literal["sine", "learned"] = "sine"
    """Embedding of positions."""
    dropout: Fraction = 0.0
    """Share of the inner units that are dropped in training, 0 to 1."""
    max_frequency: Positive = 100.0
    """Highest angular frequency of the time embedding, in radians per unit of time."""
    time_range: tuple[EmbeddingValue, EmbeddingValue] = (0.0, 1.0)
    """Numbers that are embedded at t = 0 and t = 1 (the steps of DDPM: 999 and 0)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and outputs are float32 always."""
    rematerialise: bool = False
    """Compute inner values again in the backward pass, to save memory."""


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
    data: MixtureData | ImageData | LatentData
    data_dir: AnyPath = Path("data")
    """Folder of prepared data sets."""
    path: Literal["linear", "cosine", "variance_preserving", "polynomial", "ddpm"] = "linear"
    """Gaussian path from noise to data (polynomial: of power 2; ddpm: DDPM's 1,000 steps, then sampled on linear)."""
    objective: Literal["field", "noise", "score", "classifier"] = "field"
    """What the network predicts: flow, noise or denoising score matching; or the label of a noisy image."""
    time_density: Literal["uniform", "logit_normal"] = "uniform"
    """Density from which training times are drawn."""
    label_drop_rate: Fraction = 0.1
    """Probability, 0 to 1, with which an example's label is replaced by the null label."""
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
    network: MLPNetwork | UNetNetwork | DiTNetwork = field(default_factory=MLPNetwork)
    optimizer: Optimizer = field(default_factory=Optimizer)
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

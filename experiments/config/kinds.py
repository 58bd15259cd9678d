"""The kinds of data, as settings: frozen dataclasses whose fields are the command line's options."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from pydantic import Field

from experiments.cli.options import optional
from experiments.config.history import STRICT
from experiments.config.values import (
    AbsentLabels,
    Count,
    DataName,
    Digest,
    FourNumbers,
    FourPositive,
    Fraction,
    InnerPath,
    LabelNames,
    Labels,
    Positive,
    Size,
    SplitName,
)


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
class MeasuredDigits:
    """The handwritten digits, each told by its stroke weight, width, height and slant."""

    __pydantic_config__ = STRICT
    mean: FourNumbers = (1.146, 4.198, 7.867, -0.042)
    """What is taken from weight, width, height and slant: their means over the training images."""
    deviation: FourPositive = (0.182, 0.540, 0.716, 0.125)
    """What the differences are divided by: their standard deviations."""
    num_features: Annotated[int, Field(ge=0, le=2**10)] = 0
    """Cosines and sines, together, of each property, that are embedded beside it."""
    max_frequency: Positive = 100.0
    """The highest angular frequency of these."""
    train_digest: Annotated[Digest | None, tyro.conf.Suppress] = None
    """Of the training images that the run began on."""
    test_digest: Annotated[Digest | None, tyro.conf.Suppress] = None
    """Of the held-out images."""


@dataclass(frozen=True)
class DescribedDigits:
    """The handwritten digits, each told by a sentence about what is measured of it."""

    __pydantic_config__ = STRICT
    rate_of_words: Fraction = 0.8
    """Probability, 0 to 1, with which each word that can be said is said, drawn anew at each step."""
    rate_of_class: Fraction = 0.9
    """Probability, 0 to 1, with which the class is said."""
    encoder_depth: Annotated[int, Field(ge=0, le=2**10)] = 0
    """Blocks of the transformer that reads the sentence."""
    positions: Literal["sine", "learned", "none"] = "none"
    """Embedding of the words' places; none takes a sentence for the set of its words."""
    train_digest: Annotated[Digest | None, tyro.conf.Suppress] = None
    """Of the training images that the run began on."""
    test_digest: Annotated[Digest | None, tyro.conf.Suppress] = None
    """Of the held-out images."""

"""The kinds of data, as settings: frozen dataclasses whose fields are the command line's options."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from pydantic import Field

from experiments.cli.options import optional
from experiments.config.history import STRICT
from experiments.config.values import (
    LONGEST_SHOWN,
    MOST_SHOWN,
    AbsentLabels,
    Column,
    Columns,
    Count,
    DataName,
    Digest,
    EmbeddingValue,
    FourNumbers,
    FourPositive,
    Fraction,
    FunctionName,
    InnerPath,
    LabelNames,
    Labels,
    Numbers,
    Positive,
    Size,
    SplitName,
    Tokens,
    Vocabulary,
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
    factor: Annotated[Positive | None, optional("FLOAT", "1 over the standard deviation of the folder's")] = 0.18215
    """What latents are multiplied with, so that their variance is about 1; None: by the folder's statistics."""
    shift: Annotated[EmbeddingValue | None, optional("FLOAT", "the mean of the folder's")] = 0.0
    """What is taken from latents before that, so that their mean is about 0; None: by the folder's statistics."""
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


@dataclass(frozen=True)
class Said:
    """What is said of one picture: its class, numbers in their own units, and text, as far as these are asked for."""

    __pydantic_config__ = STRICT
    label: Annotated[int, Field(ge=0, lt=10**6)] | None
    numbers: Numbers
    text: Annotated[str, Field(max_length=LONGEST_SHOWN)] | None


@dataclass(frozen=True)
class ConditionedData:
    """A folder of pictures, each told by what its metadata.jsonl or metadata.csv says: a class, numbers, a text."""

    __pydantic_config__ = STRICT
    folder: InnerPath
    """The folder, inside data_dir, as experiments.prepare writes it."""
    label: Annotated[Column | None, optional("COLUMN", "none")] = None
    """The column of the classes: names, or integers."""
    numbers: Annotated[Columns, optional("[COLUMN ...]", "none")] = ()
    """Columns of numbers, which make one vector of mean 0 and standard deviation 1."""
    text: Annotated[Column | None, optional("COLUMN", "none")] = None
    """The column of the texts."""
    tokenizer: Annotated[FunctionName | None, optional("MODULE:FUNCTION", "the words of the training texts")] = None
    """How texts are read: a function of your own, text -> integers [n], or numbers [n, d]."""
    length: Annotated[Tokens | None, optional("INT", "what the training texts have")] = None
    """The most tokens of a text; what a longer one says after them is not read."""
    embeddings: Annotated[InnerPath | None, optional("FILE", "none")] = None
    """In the place of texts: a file in the folder, .npz or .safetensors, with embeddings [n, d] or [n, length, d]."""
    encoder_depth: Annotated[int, Field(ge=0, le=2**10)] = 1
    """Blocks of the transformer that reads the text."""
    positions: Literal["sine", "learned", "none"] = "sine"
    """Embedding of the tokens' places; none takes a text for the set of its words."""
    drop_each: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of several conditions: the probability with which each is dropped by itself, so that a part can be asked for."""
    shape: Annotated[tuple[Size, Size, Size] | None, optional("INT INT INT", "what it has")] = None
    """Height, width and channels, in pixels, which the pictures must have."""
    num_classes: Annotated[Labels | None, tyro.conf.Suppress] = None
    """Number of classes; 1 where there is no column of them."""
    label_names: Annotated[LabelNames | None, tyro.conf.Suppress] = None
    """The classes' names in order; None where they have none that a config can hold."""
    absent_labels: Annotated[AbsentLabels | None, tyro.conf.Suppress] = None
    """The classes without a training picture."""
    mean: Annotated[Numbers | None, tyro.conf.Suppress] = None
    """What is taken from the numbers: their means over the training pictures."""
    deviation: Annotated[Numbers | None, tyro.conf.Suppress] = None
    """What the differences are divided by: their standard deviations."""
    vocabulary: Annotated[Vocabulary | None, tyro.conf.Suppress] = None
    """The words of the training texts, whose places from 1 are their tokens."""
    num_tokens: Annotated[Labels | None, tyro.conf.Suppress] = None
    """Tokens that the tokenizer has."""
    token_width: Annotated[Size | None, tyro.conf.Suppress] = None
    """d of the embeddings, or of what the tokenizer gives."""
    examples: Annotated[
        Annotated[tuple[Said, ...], Field(min_length=1, max_length=MOST_SHOWN)] | None, tyro.conf.Suppress
    ] = None
    """What is said of the first pictures held out: the conditions of which samples are drawn where none are given."""
    train_digest: Annotated[Digest | None, tyro.conf.Suppress] = None
    """Of the training pictures, and what is said of them, that the run began on."""
    test_digest: Annotated[Digest | None, tyro.conf.Suppress] = None
    """Of the held-out ones."""


TOLD_BY = "folder", "label", "numbers", "text", "tokenizer", "embeddings"
"""Settings that say by what pictures of a folder are told."""
LEARNED = "length", "mean", "deviation", "vocabulary", "num_tokens", "token_width", "examples", "factor", "shift"
"""Settings that a run's first start finds in its data, and that stay what they are when the data change."""

"""The ranges of the settings' values, said once."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field


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
FourNumbers = tuple[EmbeddingValue, EmbeddingValue, EmbeddingValue, EmbeddingValue]
FourPositive = tuple[Positive, Positive, Positive, Positive]
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,199}:[A-Za-z_][A-Za-z0-9_]{0,99}$")]
"""MODULE:FUNCTION."""
PartName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./*-]{1,200}$")]
"""Of a network's parameters, with * for any letters."""
Column = Annotated[str, Field(pattern=r"^[^=,\x00-\x1f]{1,200}$")]
"""The name of a column of metadata; of numbers it stands before =, between commas."""
Columns = Annotated[tuple[Column, ...], Field(max_length=1000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Numbers = Annotated[tuple[Finite, ...], Field(max_length=1000)]
MOST_WORDS, LONGEST_WORD, MOST_TOKENS, MOST_SHOWN, LONGEST_SHOWN = 10_000, 50, 1024, 10, 1000
"""Of a vocabulary, of a word, of a text that is read, of the examples that a config tells, and of a text of these."""
Word = Annotated[str, Field(min_length=1, max_length=LONGEST_WORD)]
Vocabulary = Annotated[tuple[Word, ...], Field(max_length=MOST_WORDS)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
"""Of a text."""

"""What came before a run, as its config tells: another run whose parameters it began with, and its former lengths."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

STRICT = {"extra": "forbid"}
Which = Literal["ema", "params"]


@dataclass(frozen=True)
class StartedFrom:
    """The run whose parameters another one began with."""

    __pydantic_config__ = STRICT
    run_dir: Annotated[str, Field(max_length=1024)]
    """Its folder, as it was called."""
    which: Which
    """Its moving average, or its parameters."""
    step: Annotated[int, Field(ge=0, le=10**9)]
    """Of its checkpoint."""
    knows_null: bool
    """Whether it trained the null label."""
    knows_labels: bool
    """Whether it trained labels."""


FormerLength = tuple[Annotated[int, Field(ge=1, le=10**9)], Annotated[int, Field(ge=1, le=10**9)]]
"""Up to which step a run was to have how many steps in all."""
FormerLengths = Annotated[tuple[FormerLength, ...], Field(max_length=1000)]

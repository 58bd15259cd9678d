"""What came before a run, as its config tells: another run whose parameters it began with, and its former lengths."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

STRICT = {"extra": "forbid"}
Which = Literal["ema", "params"]


@dataclass(frozen=True)
class StartedFrom:
    """The run, or the file of weights, whose parameters a run began with."""

    __pydantic_config__ = STRICT
    run_dir: Annotated[str, Field(max_length=1024)]
    """Its folder, or the file, as it was called."""
    which: Which
    """Its moving average, or its parameters."""
    step: Annotated[int, Field(ge=0, le=10**9)]
    """Of its checkpoint."""
    knows_null: bool
    """Whether it trained the null label, and its row was taken."""
    knows_labels: bool
    """Whether it trained labels, and their rows were taken."""
    kind: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,50}$")] | None = None
    """Whose weights the file holds; None for a run."""


FormerLength = tuple[Annotated[int, Field(ge=1, le=10**9)], Annotated[int, Field(ge=1, le=10**9)]]
"""Up to which step a run was to have how many steps in all."""
FormerLengths = Annotated[tuple[FormerLength, ...], Field(max_length=1000)]

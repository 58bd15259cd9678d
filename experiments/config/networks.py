"""The networks, as settings: frozen dataclasses whose fields are the command line's options."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from experiments.config.history import STRICT
from experiments.config.values import EmbeddingValue, Fraction, Positive, Size, SmallInt


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
    norm_scale: bool = False
    """Learn a scale in every norm of the tokens."""
    feed_forward: Literal["gelu", "swiglu"] = "gelu"
    """Inner layer of a block's MLP: GELU, or SiLU times linear with two thirds of the units."""
    qk_norm: bool = False
    """Normalise the queries and keys of every head, by their root mean square, with a learned scale."""
    rotary: bool = False
    """Turn queries and keys by angles of their positions; width must be a multiple of 4 * num_heads."""
    bottleneck: Annotated[int, Field(ge=0, le=2**16)] = 0
    """Units to which a patch is brought before the width, by a layer without bias; 0 for no such layer."""
    in_context_tokens: Annotated[int, Field(ge=0, le=2**10)] = 0
    """Tokens of the label, or other vector of the condition, that join those of the image, in a field's network."""
    in_context_start: Annotated[int, Field(ge=0, le=2**10)] = 0
    """Number of the block, from 0, before which they join."""
    internal_block: Annotated[int, Field(ge=0, le=2**10)] = 0
    """Number of blocks after which the field is predicted a first time, to guide by; objective field; 0 for none."""


@dataclass(frozen=True)
class AutoencoderNetwork:
    """The autoencoder of latent diffusion, for the objective "autoencoder"."""

    __pydantic_config__ = STRICT
    widths: Annotated[tuple[Size, ...], Field(min_length=1, max_length=16)] = (32, 32, 64)
    """Channels of each level; the map is halved between levels, and the last one's map is the latent's."""
    blocks_per_level: SmallInt = 1
    """Residual blocks of a level on the way down; one more on the way up."""
    latent_channels: Size = 4
    """Channels of the latent."""
    num_groups: Size = 8
    """Groups of every norm, which must divide every width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and outputs are float32 always."""


AnyNetwork = MLPNetwork | UNetNetwork | DiTNetwork | AutoencoderNetwork

"""A network made worse on purpose, for guidance to lead away from: what some of its blocks leave out.

Source: skip-layer guidance, Stability AI's SD3.5 repository (no paper), and Hyung et al., arXiv 2411.18664 (skipped);
Ahn et al., arXiv 2403.17377 (alone); Hong, arXiv 2408.00760 (blurred).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfgjax.checks import require_between, require_count, require_kind
from cfgjax.types import Array, Number


class Weakening(NamedTuple):
    """Which blocks of a network do less than they learned, by their numbers from 0; by default none.

    It is structure, not traced: blocks that are skipped cost nothing. No weakening changes a parameter's name, so one
    set of parameters serves the network and its weakened selves. The field that comes out is the null side of
    ``guidance.autoguidance_pair``, whose w is 1 + s for the papers' scale s.

    Attributes:
        skipped: blocks passed over, whose output is their input (skip-layer guidance; spatio-temporal skip guidance's
            residual form).
        alone: blocks in whose self-attention every token attends to itself alone, so that softmax(QK')V is V
            (perturbed-attention guidance; spatio-temporal skip guidance's attention form).
        blurred: blocks in whose self-attention the queries are blurred over their positions by a Gaussian of
            ``blur_width`` positions (smoothed energy guidance); at infinity all of them are the mean query.
    """

    skipped: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    blurred: tuple[int, ...] = ()


UNWEAKENED = Weakening()
"""The weakening that leaves out nothing."""


class Site(NamedTuple):
    """What a weakening says of one block."""

    is_skipped: bool = False
    is_alone: bool = False
    is_blurred: bool = False


Blur = tuple[Array, Array]
"""Weights [rows, rows] and [columns, columns] by which what lies on a grid is averaged along either axis."""


def blurred(query: Array, blur: Blur) -> Array:
    """Queries [num_tokens, num_heads, width], those on the grid, which stand last, averaged by the weights.

    Since Q K' is linear in Q, that is the blur of every key's scores over the positions of the queries.
    """
    rows, columns = blur
    num_before = len(query) - len(rows) * len(columns)
    grid = query[num_before:].astype(jnp.float32).reshape(len(rows), len(columns), -1)
    grid = jnp.einsum("rs,scd->rcd", rows, grid, precision=jax.lax.Precision.HIGHEST)
    grid = jnp.einsum("cb,rbd->rcd", columns, grid, precision=jax.lax.Precision.HIGHEST)
    mixed = grid.reshape(-1, *query.shape[1:]).astype(query.dtype)
    return jnp.concatenate([query[:num_before], mixed])


def sites_of(weakening: Weakening, num_blocks: int) -> list[Site]:
    """What the weakening says of each of so many blocks.

    Raises:
        TypeError: what is no Weakening, or a block's number that is no integer.
        ValueError: a number of no block, or a block that is named for two things.
    """
    require_kind("weakening", weakening, Weakening, "Weakening(skipped=(3,))")
    for name, numbers in weakening._asdict().items():
        for number in numbers:
            require_count(f"weakening.{name}: a block", number, 0, num_blocks - 1)
    found = [Site(*(number in numbers for numbers in weakening)) for number in range(num_blocks)]
    twice = [number for number, site in enumerate(found) if sum(site) > 1]
    if twice:
        raise ValueError(f"weakening must name a block for one thing alone, got block {twice[0]} for several")
    return found


def _weights(num_positions: int, width: Number) -> Array:
    """Weights [n, n] of a Gaussian about each position, each row's sum 1."""
    positions = jnp.arange(num_positions, dtype=jnp.float32)
    distances = positions[:, None] - positions[None]
    gaussian = jnp.exp(-0.5 * jnp.square(distances / jnp.where(width == 0, 1, width)))
    weights = jnp.where(distances == 0, 1, jnp.where(width == 0, 0, gaussian))
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def blur_of(rows: int, columns: int, width: Number) -> Blur:
    """The weights of a Gaussian of a standard deviation in positions, which are renormalised at the borders.

    At ``width`` 0 they are identities, and at infinity means.
    """
    require_between("blur_width", width, 0, math.inf)
    return _weights(rows, width), _weights(columns, width)

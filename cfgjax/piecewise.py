"""Values that change at edges in time, of which only one is at work: fields of a guidance interval, and their solvers.

(I1) A ``Piecewise`` holds one value more than it has edges; piece i is at work between edge i-1 and edge i.
(I2) ``piecewise`` lets a function of a value act on every piece, so that rules and solvers stack on a piecewise field
     as they do on any other. A value that is several pieces is acted on once, and what comes out is one, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from itertools import pairwise
from typing import Any, Generic, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_time
from cfgjax.types import Array

Piece = TypeVar("Piece")
Args = ParamSpec("Args")
Built = TypeVar("Built")


@dataclass(frozen=True)
class Piecewise(Generic[Piece]):
    """Pieces that follow one another in time (I1): a field where its pieces are fields.

    Called as a field it runs the ONE piece in which t lies; at an edge the later one. Under ``vmap`` that holds while
    t is shared by all examples. ``solvers.integrate`` does better: a step is taken by one piece as a whole.

    Raises:
        ValueError: edges that do not increase, or not one piece more than edges.
    """

    edges: tuple[float, ...]
    pieces: tuple[Piece, ...]

    def __post_init__(self) -> None:
        if len(self.pieces) != len(self.edges) + 1:
            raise ValueError(f"pieces must be one more than edges, got {len(self.pieces)} and {len(self.edges)} edges")
        if not all(low < high for low, high in pairwise(self.edges)) or any(map(math.isnan, self.edges)):
            raise ValueError(f"edges must increase, got {self.edges}")

    def __call__(self, x: Array, t: Array, *rest: Any) -> Any:
        """The value of the piece at t; TypeError or ValueError where t is not one time in [0, 1]."""
        require_time("t", t)
        time = jnp.asarray(t)
        values = [partial(field, x, time, *rest) for field in cast(tuple[Callable[..., Any], ...], self.pieces)]
        common = jax.tree.map(lambda *leaves: jnp.result_type(*leaves), *map(jax.eval_shape, values))

        def of_one_type(value: Callable[[], Any]) -> Callable[[], Any]:
            return lambda: jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), value(), common)

        return jax.lax.switch(self.index(time), [of_one_type(value) for value in values])

    def index(self, t: Array) -> Array:
        """The number of the piece at t, []."""
        return jnp.searchsorted(jnp.asarray(self.edges, jnp.result_type(t)), t, side="right")


def _refined(value: Piecewise[Any], edges: Sequence[float]) -> list[Any]:
    """The pieces of a value over edges of which its own are some."""
    firsts = [-np.inf, *edges]
    return [value.pieces[int(np.searchsorted(value.edges, first, side="right"))] for first in firsts]


def _joined(edges: tuple[float, ...], built: Sequence[Any]) -> Piecewise[Any]:
    """The Piecewise of what was built for each piece; what is itself piecewise gives its pieces between the edges."""
    bounds = [-np.inf, *edges, np.inf]
    starts, pieces = [], []
    for low, high, value in zip(bounds[:-1], bounds[1:], built, strict=True):
        inner = value if isinstance(value, Piecewise) else Piecewise((), (value,))
        for start in [low, *(edge for edge in inner.edges if low < edge < high)]:
            starts.append(start)
            pieces.append(inner.pieces[int(np.searchsorted(inner.edges, start, side="right"))])
    return Piecewise(tuple(starts[1:]), tuple(pieces))


def piecewise(build: Callable[Args, Built]) -> Callable[Args, Built]:
    """The function, acting on each piece of its piecewise arguments (I2): then a Piecewise comes out."""

    @wraps(build)
    def built(*args: Args.args, **kwargs: Args.kwargs) -> Any:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Piecewise)]
        if not given:
            return build(*args, **kwargs)
        edges = tuple(sorted({edge for value in given for edge in value.edges}))

        refined = {id(value): _refined(value, edges) for value in given}
        known: dict[tuple[int, ...], Built] = {}

        def piece(index: int) -> Built:
            def of(value: Any) -> Any:
                return refined[id(value)][index] if isinstance(value, Piecewise) else value

            parts = tuple(id(of(value)) for value in given)
            if parts not in known:
                named = {name: of(value) for name, value in kwargs.items()}
                known[parts] = cast(Any, build)(*map(of, args), **named)
            return known[parts]

        return _joined(edges, [piece(index) for index in range(len(edges) + 1)])

    return built

"""Embeddings of conditions: what a network takes from a vector, an image, or several conditions at once.

The ``conditioning`` of a network is a Linen module y -> [width] or ``Embedded``; one of your own does as well.

(E1) Of what it gives, a vector is added to the embedding of the time, tokens are attended to (Rombach et al.,
     arXiv 2112.10752), and an image is joined to x by its channels.
(E2) Where a ``conditions.Known`` is not known its value is not looked at, be it NaN: what takes its place is learned.
(E3) Of several conditions the vectors add up, tokens stand one after another, and images are joined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen
from flax.core import FrozenDict

from cfgjax.checks import require_real, require_shape, short_repr
from cfgjax.conditions import Known, entries
from cfgjax.contracts import Contract, NonNegativeInt, PositiveFloat, PositiveInt, check_fields, instance
from cfgjax.models.blocks import Context, require_image, to_patches
from cfgjax.models.embeddings import LabelEmbedding
from cfgjax.types import Array, Condition

NULL_INIT = linen.initializers.normal(0.02)
"""Of what is learned in the place of a condition that is not known."""
Module = Annotated[linen.Module, instance(linen.Module, "a Linen module, as models.VectorEmbedding(64) is")]
"""A module of Linen."""


class Embedded(NamedTuple):
    """What a network takes from a condition (E1); None stands for nothing.

    Attributes:
        vector: [width].
        tokens: [n, d], of any width d.
        mask: [n] booleans, which tokens are there, at least one; None for all.
        image: [H, W, C'], of x's sides.
    """

    vector: Array | None = None
    tokens: Array | None = None
    mask: Array | None = None
    image: Array | None = None

    @property
    def context(self) -> Context | None:
        """The tokens and which of them are there."""
        if self.tokens is None:
            return None
        return self.tokens, jnp.ones(len(self.tokens), bool) if self.mask is None else self.mask

    def added_to(self, time: Array) -> Array:
        """The embedding of the time [width] plus the vector."""
        return time if self.vector is None else time + self.vector

    def joined_to(self, patches: Array, patch: int) -> Array:
        """The patches [rows, columns, size] of x, each with the image's after it.

        Raises:
            ValueError: an image of other sides than x's.
        """
        if self.image is None:
            return patches
        sides = patch * patches.shape[0], patch * patches.shape[1]
        if self.image.shape[:2] != sides:
            raise ValueError(f"y must hold an image of x's sides {sides}, got one of {self.image.shape[:2]}")
        return jnp.concatenate([patches, to_patches(self.image, patch)], axis=-1)


def _as_embedded(name: str, found: Any, width: int | None = None) -> Embedded:
    """What a module gives as an Embedded, found to be one whose vector has the width."""
    embedded = found if isinstance(found, Embedded) else Embedded(found)
    vector, context, image = embedded.vector, embedded.context, embedded.image
    if vector is not None:
        require_shape(f"{name}.vector", vector, np.shape(vector)[:1] if width is None else (width,))
    if context is not None and (np.ndim(context[0]) != 2 or np.shape(context[1]) != np.shape(context[0])[:1]):
        shapes = " and ".join(str(np.shape(each)) for each in context)
        raise ValueError(f"{name}.tokens must be [n, d] and the mask beside them [n], got the shapes {shapes}")
    if image is not None:
        require_image(image, 1, f"{name}.image")
    return embedded


def embed(conditioning: linen.Module | None, y: Condition, num_classes: int, width: int, std: float = 1.0) -> Embedded:
    """What a network's conditioning makes of y; without one y is a label, with a row of ``LabelEmbedding``.

    Raises:
        TypeError, ValueError: a y that the conditioning does not take, a vector of another width.
    """
    embedding: Any = LabelEmbedding(num_classes, width, std) if conditioning is None else conditioning
    return _as_embedded("conditioning", embedding(y), width)


def value_of(y: Condition) -> tuple[str, Any, Any]:
    """A condition that may be a ``Known``: what its value is called, the value, and whether it is known.

    Raises:
        ValueError: an ``is_known`` that is not one boolean.
    """
    if not isinstance(y, Known):
        return "y", y, np.True_
    is_boolean = isinstance(y.is_known, bool) or getattr(y.is_known, "dtype", None) == jnp.bool_
    if not is_boolean or np.shape(y.is_known) != ():
        raise ValueError(f"y.is_known must be ONE boolean, got {short_repr(y.is_known)}")
    return "y.value", y.value, y.is_known


class VectorEmbedding(linen.Module):
    """An embedding [width] of a vector [k], by two dense layers; float32.

    They see the coordinates, and of each c, with ``num_features``, cos(f c) and sin(f c): the angular frequencies f
    run from 1 to ``max_frequency`` in geometric steps. Coordinates are best of size 1. Where the vector is not known
    (E2) the embedding is a learned one, ``null``.

    Source: Tancik et al., arXiv 2006.10739 (Fourier features).

    Args:
        width: of both layers.
        num_features: of cosines and sines together, for each coordinate; 0 for the coordinates alone.
        max_frequency: the last angular frequency, the highest where it is above 1.
    """

    width: PositiveInt
    num_features: NonNegativeInt = 0
    max_frequency: PositiveFloat = 100.0

    @linen.compact
    def __call__(self, y: Condition) -> Array:
        """The embedding of a vector y [k], of one number [], or of a ``Known`` of them.

        Raises:
            TypeError, ValueError: a y that is neither; an odd ``num_features``.
        """
        check_fields(self)
        if self.num_features % 2:
            raise ValueError(f"num_features must be even, as many cosines as sines, got {self.num_features}")
        name, value, is_known = value_of(y)
        require_real(name, value)
        if np.ndim(value) > 1 or 0 in np.shape(value):
            raise ValueError(f"{name} must be ONE vector [k], or one number, got the shape {np.shape(value)}")
        vector = jnp.where(is_known, jnp.asarray(value, jnp.float32).reshape(-1), 0)
        hidden = linen.silu(linen.Dense(self.width, dtype=jnp.float32)(self._features(vector)))
        embedding = linen.Dense(self.width, dtype=jnp.float32)(hidden)
        return jnp.where(is_known, embedding, self.param("null", NULL_INIT, (self.width,)))

    def _features(self, vector: Array) -> Array:
        if not self.num_features:
            return vector
        frequencies = jnp.geomspace(1.0, self.max_frequency, self.num_features // 2, dtype=jnp.float32)
        angles = (vector[:, None] * frequencies[None]).reshape(-1)
        return jnp.concatenate([vector, jnp.cos(angles), jnp.sin(angles)])


class ImageEmbedding(linen.Module):
    """An image [H, W, C] of x's sides as channels beside x's, [H, W, C + 1]: the last is 1, or 0 if not known.

    There (E2) the others are 0, too. It has no parameters: what the network makes of them is learned by its first
    layer.
    """

    @linen.compact
    def __call__(self, y: Condition) -> Embedded:
        """The channels of an image y, or of a ``Known`` of one.

        Raises:
            TypeError, ValueError: a y that is not one.
        """
        name, value, is_known = value_of(y)
        require_image(value, 1, name)
        image = jnp.where(is_known, jnp.asarray(value, jnp.float32), 0)
        told = jnp.full((*image.shape[:2], 1), is_known, jnp.float32)
        return Embedded(image=jnp.concatenate([image, told], axis=-1))


def _require_parts(name: str, parts: Any) -> None:
    if not isinstance(parts, Mapping) or not parts:
        raise TypeError(f"{name} must be a dict of at least one Linen module, got {short_repr(parts)}")
    for key, part in parts.items():
        if not isinstance(part, linen.Module):
            raise TypeError(f"{name}[{key!r}] must be a Linen module, got {type(part).__name__} {short_repr(part)}")


Parts = Annotated[Mapping[str, linen.Module], Contract(_require_parts)]
"""Linen modules by names, at least one."""


@contextmanager
def _of_entry(name: str) -> Iterator[None]:
    """Errors that speak of y speak of y's entry of this name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) in (TypeError, ValueError) and re.match(r"y\b", str(error)):
            raise type(error)(f"y[{name!r}]{str(error)[1:]}") from None
        raise


def _joined(values: list[Array | None], join: Callable[[list[Array]], Array]) -> Array | None:
    """The values that are there, joined to one; None where none is."""
    found = [value for value in values if value is not None]
    return join(found) if found else None


def _sum(vectors: list[Array]) -> Array:
    return reduce(jnp.add, vectors)


class Conditioning(linen.Module):
    """Several conditions at once (E3): y is a dict, or a NamedTuple, with the names of the parts.

    The parameters of a part are called ``parts_NAME``.

    Args:
        parts: a module for each condition, by its name: y -> [width], as ``LabelEmbedding`` and ``VectorEmbedding``,
            or ``Embedded``, as ``SequenceEmbedding`` and ``ImageEmbedding``.

    >>> from cfgjax import models
    >>> parts = {"label": models.LabelEmbedding(10, 64), "size": models.VectorEmbedding(64)}
    >>> network = models.MLP(conditioning=models.Conditioning(parts), embedding_width=64)
    """

    parts: Parts

    def __post_init__(self) -> None:
        if isinstance(self.parts, Mapping):
            self.parts = FrozenDict(self.parts)  # of a hash, as all that modules are made of
        super().__post_init__()

    @linen.compact
    def __call__(self, y: Condition) -> Embedded:
        """What the parts make of y's conditions, as one.

        Raises:
            TypeError, ValueError: a y of other names, or of what a part does not take, by its name; parts whose
                vectors or tokens have several widths, or whose images have several sides.
        """
        check_fields(self)
        given = entries(y)
        if set(given) != set(self.parts):
            raise ValueError(f"y must have the names of parts, {sorted(self.parts)}, got {list(given)}")
        found = [self._part(name, given[name]) for name in sorted(self.parts)]
        _require_alike("vectors", [each.vector for each in found], slice(None))
        _require_alike("tokens", [each.tokens for each in found], slice(1, None))
        _require_alike("images", [each.image for each in found], slice(2))
        contexts = [each.context for each in found if each.context is not None]
        return Embedded(
            _joined([each.vector for each in found], _sum),
            _joined([tokens for tokens, _ in contexts], jnp.concatenate),
            _joined([mask for _, mask in contexts], jnp.concatenate),
            _joined([each.image for each in found], lambda images: jnp.concatenate(images, axis=-1)),
        )

    def _part(self, name: str, y: Condition) -> Embedded:
        part: Any = self.parts[name]
        with _of_entry(name):
            embedded = part(y)
        return _as_embedded(f"parts[{name!r}]", embedded)


def _require_alike(words: str, values: list[Array | None], axes: slice) -> None:
    """Raises ValueError for arrays of which some axes have not the same lengths."""
    shapes = {value.shape[axes] for value in values if value is not None}
    if len(shapes) > 1:
        raise ValueError(f"parts must give {words} of one width or size, got {sorted(shapes)}")

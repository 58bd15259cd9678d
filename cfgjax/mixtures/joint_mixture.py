"""The oracle of several conditions: Gaussian mixtures over a data point and vectors together, with labels.

For components N((z, c); (m, n), [[S, R], [R^T, Q]]) with labels and weights w, of y = (label, c):

(J1) p(z|y) is a mixture of weights w N(c; n, Q), means m + R Q^-1 (c - n) and covariances S - R Q^-1 R^T: (M1) to (M5).
(J2) A condition that is left out is marginalised: of c the rows and columns that are known count alone, and without any
     the weights, means and covariances are w, m and S; without a label (the label K) all components count.
(J3) log p_t(y|x) = log p_t(x|y) + log p(y) - log p_t(x), for alpha < beta of ratios as (M5).

So the field, the score, the posterior and the density of every subset of the conditions are exact on every path. What a
subset needs is computed once per closure, for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product as all_of
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from cfgjax.checks import (
    require_count,
    require_finite,
    require_label,
    require_shape,
    short_repr,
)
from cfgjax.conditions import Known, known, unknown
from cfgjax.contracts import Contract, Key, Time, check_fields, checked, instance
from cfgjax.mixtures import components
from cfgjax.mixtures.components import Components, View, masked, product, rotate, symmetric, transposed
from cfgjax.mixtures.labelled import LabelledDensity, LabelledMixture
from cfgjax.types import Array, Condition, GaussianPath, LabelledField, LogLikelihood


class _Subset(NamedTuple):
    """What (J1) needs of the components where some of c's coordinates are known, the others' rows and columns 0.

    ``gain`` is R Q^-1 [K, M, D, k], ``precision`` Q^-1 [K, M, k, k], ``log_factor`` [K, M] the logarithm of the normal
    density's factor; ``spectrum`` and ``vectors`` diagonalise the covariances of x.
    """

    gain: Array
    precision: Array
    log_factor: Array
    spectrum: Array
    vectors: Array


class _Parts(NamedTuple):
    """The components of x without c, the means of c [K, M, k], and for each subset of the vectors a row of numbers."""

    without: Components
    means: Array
    subsets: _Subset


def _require_sizes(name: str, sizes: Any) -> None:
    if not isinstance(sizes, Mapping) or not sizes or "label" in sizes:
        raise TypeError(f"{name} must be a dict of the vectors' sizes by names other than 'label', got {sizes!r}")
    for key, size in sizes.items():
        require_count(f"{name}[{key!r}]", size, 1)


Sizes = Annotated[Mapping[str, int], Contract(_require_sizes)]
"""The sizes of vectors by their names, at least one."""


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class JointMixture:
    """A Gaussian mixture over data points [D] and vectors together, whose components carry labels.

    A condition is y = {"label": [] in 0..K, "vector": [k]}, the vectors by the names of ``sizes``. Each may be missing:
    by its absence from the dict, or, where all examples have one structure, as the label K and as
    ``conditions.unknown``; ``null`` is without all. A vector is an array, or a ``conditions.Known``.

    Args:
        mixture: the mixture over (z, vectors) [D + k].
        sizes: of the vectors by their names, in the order of the last k coordinates.

    Every method takes the path and returns a function of ONE example, as those of ``LabelledMixture``.

    Raises:
        TypeError, ValueError: sizes that leave no coordinate to the data points.
    """

    mixture: Annotated[LabelledMixture, instance(LabelledMixture, "a LabelledMixture over points and vectors")]
    sizes: Sizes

    def __post_init__(self) -> None:
        check_fields(self)
        if self.dimension < 1:
            whole = self.mixture.means.shape[-1]
            raise ValueError(f"sizes must sum to less than the mixture's {whole} coordinates, got {dict(self.sizes)}")

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, LabelledMixture]], tuple[tuple[str, int], ...]]:
        """The mixture, and the sizes as structure, for JAX."""
        return [(jax.tree_util.GetAttrKey("mixture"), self.mixture)], tuple(self.sizes.items())

    @classmethod
    def tree_unflatten(cls, sizes: tuple[tuple[str, int], ...], leaves: Sequence[Any]) -> JointMixture:
        """A mixture of JAX's own leaves, unchecked."""
        made = object.__new__(cls)
        object.__setattr__(made, "mixture", leaves[0])
        object.__setattr__(made, "sizes", dict(sizes))
        return made

    @property
    def num_classes(self) -> int:
        """K, which is also the null label."""
        return self.mixture.num_classes

    @property
    def dimension(self) -> int:
        """D, of a data point."""
        return self.mixture.means.shape[-1] - sum(self.sizes.values())

    @property
    def null(self) -> dict[str, Any]:
        """The condition without label and vectors."""
        vectors = {name: unknown(jnp.zeros(size)) for name, size in self.sizes.items()}
        return {"label": jnp.asarray(self.num_classes), **vectors}

    def _subset(self, coordinates: np.ndarray) -> _Subset:
        """What is needed where these of c's coordinates are known."""
        covariances, dimension = self.mixture.covariances, self.dimension
        size, at = covariances.shape[-1] - dimension, dimension + coordinates
        cross, own = covariances[..., :dimension, at], covariances[..., at[:, None], at[None, :]]
        spectrum, vectors = jnp.linalg.eigh(own)
        precision = product(vectors / jnp.expand_dims(spectrum, -2), transposed(vectors))
        gain = product(cross, precision)
        left = covariances[..., :dimension, :dimension] - product(gain, transposed(cross))
        log_factor = -0.5 * (jnp.sum(jnp.log(spectrum), axis=-1) + len(coordinates) * jnp.log(2 * jnp.pi))
        shape = self.mixture.weights.shape
        whole = jnp.zeros((*shape, size, size)).at[..., coordinates[:, None], coordinates[None, :]].set(precision)
        spread = jnp.zeros((*shape, dimension, size)).at[..., coordinates].set(gain)
        return _Subset(spread, whole, log_factor, *jnp.linalg.eigh(symmetric(left)))

    def _parts(self) -> _Parts:
        means, covariances, dimension = self.mixture.means, self.mixture.covariances, self.dimension
        without = components.diagonalised(
            self.mixture.component_log_probs, means[..., :dimension], covariances[..., :dimension, :dimension]
        )
        sizes = tuple(self.sizes.values())
        subsets = [
            self._subset(np.flatnonzero(np.repeat(chosen, sizes)))
            for chosen in all_of((False, True), repeat=len(sizes))
        ]
        return _Parts(without, means[..., dimension:], jax.tree.map(lambda *rows: jnp.stack(rows), *subsets))

    def _require(self, y: Condition, x: Array | None = None) -> tuple[Array, tuple[Known, ...]]:
        """The label and the vectors of a condition.

        Raises:
            TypeError, ValueError: an x that is not [D]; a y of other names, a label outside 0..K, a vector not [k].
        """
        if x is not None:
            require_shape("x", x, (self.dimension,))
        names = ("label", *self.sizes)
        if not isinstance(y, dict) or not set(y) <= set(names):
            raise TypeError(f"y must be a dict of {', '.join(names)}, got {type(y).__name__} {short_repr(y)}")
        whole = self.null | y
        require_label("y['label']", whole["label"], self.num_classes)
        return jnp.asarray(whole["label"]), tuple(self._vector(name, whole[name]) for name in self.sizes)

    def _vector(self, name: str, vector: Any) -> Known:
        """A vector with whether it is known, its value 0 where not."""
        vector = vector if isinstance(vector, Known) else Known(vector, jnp.asarray(True))
        require_shape(f"y[{name!r}]", vector.value, (self.sizes[name],))
        require_finite(f"y[{name!r}]", vector.value)
        is_known = jnp.asarray(vector.is_known)
        return Known(jnp.where(is_known, jnp.asarray(vector.value), 0), is_known)

    def _given(self, parts: _Parts, vectors: tuple[Known, ...]) -> Components:
        """The components of x given the vectors that are known (J1, J2)."""
        number = sum(each.is_known.astype(int) << place for place, each in enumerate(reversed(vectors)))
        subset = jax.tree.map(lambda leaf: leaf[number], parts.subsets)
        apart = jnp.broadcast_to(jnp.concatenate([each.value for each in vectors]), parts.means.shape) - parts.means
        exponent = jnp.sum(apart * rotate(subset.precision, apart), axis=-1)
        return Components(
            parts.without.log_weights + subset.log_factor - 0.5 * exponent,
            parts.without.means + rotate(subset.gain, apart),
            subset.spectrum,
            subset.vectors,
        )

    def _view(self, view: View, path: GaussianPath) -> LabelledField:
        parts = self._parts()

        def at(x: Array, t: Array, y: Condition) -> Array:
            label, vectors = self._require(y, x)
            return view(self._given(parts, vectors), path, x, t, label)

        return at

    @checked
    def log_density(self, path: GaussianPath) -> LabelledDensity:
        """log p_t(x|y) of (J1, J2), as a function (x [D], t [], y) -> []."""
        return self._view(components.log_density, path)

    @checked
    def vector_field(self, path: GaussianPath) -> LabelledField:
        """The exact field u_t(x|y) of (J1, J2) by (M3, M4); at t = 1 its limit."""
        return self._view(components.vector_field, path)

    @checked
    def score(self, path: GaussianPath) -> LabelledField:
        """The exact score grad_x log p_t(x|y), finite on the closed interval."""
        return self._view(components.score, path)

    @checked
    def noise(self, path: GaussianPath) -> LabelledField:
        """The exact noise prediction E[noise|x, y]; 0 at t = 1."""
        return self._view(components.noise, path)

    @checked
    def denoiser(self, path: GaussianPath) -> LabelledField:
        """The exact denoiser E[z|x, y]; x at t = 1, the conditional mean at t = 0."""
        return self._view(components.denoiser, path)

    @checked
    def condition_log_prob(self, path: GaussianPath) -> LogLikelihood:
        """The exact log p_t(y|x) of (J3), as a function (x [D], t [], y) -> []; 0 for the null.

        Of a vector it is a density, of a label a probability, of both their product.
        """
        parts = self._parts()

        def log_prob(x: Array, t: Array, y: Condition) -> Array:
            label, vectors = self._require(y, x)
            given = self._given(parts, vectors)
            together = masked(given, components.component_log_ratios(given, path, x, t), label)
            return logsumexp(together) - logsumexp(components.component_log_ratios(parts.without, path, x, t))

        return log_prob

    @checked
    def sample(self, key: Key, y: Condition, path: GaussianPath | None = None, t: Time = 1.0) -> Array:
        """A draw of p(z|y), or of p_t(x|y) where a path is given, [D]; arguments as ``LabelledMixture.sample``."""
        label, vectors = self._require(y)
        return components.sample(self._given(self._parts(), vectors), path, key, label, t)

    @checked
    def sample_joint(self, key: Key) -> tuple[Array, dict[str, Any]]:
        """A draw of (z [D], y) together, of which all conditions are known."""
        label_key, point_key = jax.random.split(key)
        label = self.mixture.sample_label(label_key)
        both = self.mixture.sample(point_key, label)
        ends = np.cumsum((self.dimension, *self.sizes.values()))
        vectors = {
            name: known(both[end - size : end]) for (name, size), end in zip(self.sizes.items(), ends[1:], strict=True)
        }
        return both[: self.dimension], {"label": label, **vectors}

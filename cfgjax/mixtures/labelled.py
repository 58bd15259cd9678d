"""The oracle: labelled Gaussian mixtures, on which everything of guided modelling is closed form.

Formulas: (M1) to (M5) of ``mixtures.components``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from cfgjax.checks import is_traced, of_numpy, require_finite, require_label, require_real, require_shape, short_repr
from cfgjax.contracts import Key, Time, checked
from cfgjax.mixtures import components
from cfgjax.mixtures.components import Components, View
from cfgjax.paths import as_float
from cfgjax.types import Array, GaussianPath, LabelledField, LogClassifier, Number

LabelledDensity = Callable[[Array, Array, Array], Array]
"""``(x [D], t [], y []) -> []``: log p_t(x|y)."""


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class LabelledMixture:
    """A Gaussian mixture whose components carry labels (M1): the referee for every field, score and sign.

    Args:
        weights: [K] for one component per label, or [K, M] for M of them; positive, normalised by themselves.
        means: [K, D] or [K, M, D].
        covariances: [K, D, D] or [K, M, D, D], symmetric and positive definite.

    Every method takes the path and returns a function of ONE example; label K is the null label, the marginal. The
    function raises for an x that is not [D], a t not in [0, 1] and a y not in 0..K; where a label that only a trace
    holds is none of these, its value is NaN. The mixture is a pytree, so its numbers may be traced.

    Raises:
        ValueError: shapes that do not fit, weights that are negative, covariances not positive definite.
    """

    weights: Array
    means: Array
    covariances: Array
    log_weights: Array | None = field(default=None, init=False)
    """[K, M], normalised, of a mixture by ``of_log_weights``: they count, whatever became of ``weights``."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require_real(name, of_numpy(value))
        shape = np.shape(self.weights)
        dimension = np.shape(self.means)[-1:]
        if len(shape) not in (1, 2) or 0 in shape:
            raise ValueError(f"weights must be [K] or [K, M] with K and M at least 1, got shape {shape}")
        if dimension == (0,) or np.shape(self.means) != shape + dimension:
            raise ValueError(f"means must have shape weights.shape + (D,), got {np.shape(self.means)} beside {shape}")
        if np.shape(self.covariances) != shape + dimension + dimension:
            wanted = shape + dimension + dimension
            raise ValueError(f"covariances must have shape {wanted}, got {np.shape(self.covariances)}")
        if not is_traced((self.weights, self.means, self.covariances)):
            self._check_values()
        missing = (1,) if len(shape) == 1 else ()
        for name, rest in (("weights", ()), ("means", dimension), ("covariances", dimension + dimension)):
            array = jnp.asarray(getattr(self, name))
            array = array.astype(jnp.result_type(float, array))
            object.__setattr__(self, name, array.reshape(shape + missing + rest))

    def _check_values(self) -> None:
        weights, covariances = (np.asarray(leaf, np.float64) for leaf in (self.weights, self.covariances))
        by_label = weights.reshape(len(weights), -1).sum(axis=1)
        if not (np.all(weights >= 0) and np.all(np.isfinite(weights)) and np.all(by_label > 0)):
            words = "finite, not negative and not all zero for any label"
            raise ValueError(f"weights must be {words}, got {short_repr(weights)}")
        require_finite("means", self.means)
        require_finite("covariances", self.covariances)
        if not np.allclose(covariances, np.swapaxes(covariances, -1, -2), rtol=1e-4):
            raise ValueError("covariances must be symmetric")
        if not np.all(np.linalg.eigvalsh(covariances) > 0):
            raise ValueError("covariances must be positive definite")

    @classmethod
    def of_log_weights(cls, log_weights: Array, means: Array, covariances: Array) -> LabelledMixture:
        """A mixture by the logarithms of its weights, which need no floating-point numbers: posteriors have such.

        A label whose weights are all 0 in floating point keeps its law. Arguments as those of the mixture.

        Raises:
            ValueError: as for the mixture; log-weights that are NaN or inf, or all -inf for a label.

        >>> LabelledMixture.of_log_weights(jnp.array([0.0, -1e4]), jnp.zeros((2, 1)), jnp.ones((2, 1, 1))).weights
        Array([[1.],
               [0.]], dtype=float32)
        """
        require_real("log_weights", of_numpy(log_weights))
        mixture = cls(jnp.ones(np.shape(log_weights)), means, covariances)
        if not is_traced(log_weights):
            largest = np.max(np.asarray(log_weights, np.float64).reshape(mixture.num_classes, -1), axis=1)
            if not np.all(np.isfinite(largest)):
                words = "under inf, and not all -inf for any label"
                raise ValueError(f"log_weights must be {words}, got {short_repr(log_weights)}")
        normalised = jax.nn.log_softmax(as_float(log_weights).reshape(mixture.weights.shape), axis=(0, 1))
        object.__setattr__(mixture, "log_weights", normalised)
        object.__setattr__(mixture, "weights", jnp.exp(normalised))
        return mixture

    def with_components(self, means: Array, covariances: Array) -> LabelledMixture:
        """The mixture of the same labels and weights, of other Gaussians."""
        if self.log_weights is None:
            return LabelledMixture(self.weights, means, covariances)
        return LabelledMixture.of_log_weights(self.log_weights, means, covariances)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Array]], tuple[str, ...]]:
        """The arrays with their names, for JAX."""
        return [(jax.tree_util.GetAttrKey(name), value) for name, value in vars(self).items()], tuple(vars(self))

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], leaves: Sequence[Any]) -> LabelledMixture:
        """A mixture of JAX's own leaves, unchecked: cotangents and placeholders are no weights or covariances."""
        mixture = object.__new__(cls)
        for name, leaf in zip(names, leaves, strict=True):
            object.__setattr__(mixture, name, leaf)
        return mixture

    def _require(self, x: Array, y: Number = 0) -> None:
        """Raises for an x that is not [D] and a label that is not in 0..K: nothing is spread over components."""
        require_shape("x", x, self.means.shape[-1:])
        require_label("y", y, self.num_classes)

    def _view(self, view: View, path: GaussianPath) -> LabelledField:
        parts = parts_of(self)

        def at(x: Array, t: Array, y: Array) -> Array:
            self._require(x, y)
            return view(parts, path, x, t, y)

        return at

    @property
    def num_classes(self) -> int:
        """K, which is also the null label."""
        return self.weights.shape[0]

    @property
    def component_log_probs(self) -> Array:
        """The logarithms of the normalised weights, [K, M]."""
        return jnp.log(self.weights / jnp.sum(self.weights)) if self.log_weights is None else self.log_weights

    @property
    def num_labels(self) -> int:
        """``num_classes`` by its older name, on which code outside may rely."""
        return self.num_classes

    @checked
    def log_density(self, path: GaussianPath) -> LabelledDensity:
        """log p_t(x|y) of (M2), as a function (x [D], t [], y []) -> []; the null label gives log p_t(x)."""
        return self._view(components.log_density, path)

    @checked
    def label_log_probs(self, path: GaussianPath) -> LogClassifier:
        """The exact log p_t(y|x) of every label, as a function (x [D], t []) -> [K]."""
        parts = parts_of(self)

        def log_probs(x: Array, t: Array) -> Array:
            self._require(x)
            return jax.nn.log_softmax(logsumexp(components.component_log_ratios(parts, path, x, t), axis=-1))

        return log_probs

    @checked
    def vector_field(self, path: GaussianPath) -> LabelledField:
        """The exact field u_t(x|y) of (M3, M4); at t = 1 its limit, for a variance-preserving path too."""
        return self._view(components.vector_field, path)

    @checked
    def score(self, path: GaussianPath) -> LabelledField:
        """The exact score grad_x log p_t(x|y) of (M3, M4), finite on the closed interval."""
        return self._view(components.score, path)

    @checked
    def noise(self, path: GaussianPath) -> LabelledField:
        """The exact noise prediction E[noise|x, y] of (M3, M4); 0 at t = 1."""
        return self._view(components.noise, path)

    @checked
    def denoiser(self, path: GaussianPath) -> LabelledField:
        """The exact denoiser E[z|x, y] of (M3, M4); x at t = 1, the label's mean at t = 0."""
        return self._view(components.denoiser, path)

    @checked
    def sample(self, key: Key, y: Number, path: GaussianPath | None = None, t: Time = 1.0) -> Array:
        """A draw of p(z|y), or of p_t(x|y) where a path is given, [D]; the null label draws from the marginal.

        Args:
            key: a key.
            y: [], the label in 0..K.
            path: the path along which noise is added; None for a draw of the data.
            t: [], the time in [0, 1]; only read with a path.

        Raises:
            ValueError: a label outside 0..K.
        """
        require_label("y", y, self.num_classes)
        return components.sample(parts_of(self), path, key, y, t)

    @checked
    def sample_label(self, key: Key) -> Array:
        """A draw of the label y in 0..K-1, [], with the labels' own probabilities."""
        return jax.random.categorical(key, logsumexp(self.component_log_probs, axis=-1))


def parts_of(mixture: LabelledMixture) -> Components:
    """The mixture's components with their covariances diagonalised."""
    return components.diagonalised(mixture.component_log_probs, mixture.means, mixture.covariances)

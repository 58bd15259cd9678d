"""The oracle: labelled Gaussian mixtures, on which everything of guided modelling is closed form.

(M1) p(z|y) = sum_m w_ym N(z; mu_ym, S_ym) / sum_m w_ym, and the null label K stands for the marginal, all components.
(M2) On any Gaussian path  p_t(x) = sum w N(x; alpha mu, C),  C = alpha^2 S + beta^2 I, for every t.
(M3) Given a component, with r = x - alpha mu:  s = -C^-1 r,  E = beta C^-1 r,  D = mu + alpha S C^-1 r,
     u = alpha' mu + (alpha alpha' S + beta beta' I) C^-1 r.
(M4) Given a label, the average of (M3) under the posterior of the components.
(M5) For alpha < beta the posterior is taken of log N(x; alpha mu, C) - log N(x; 0, beta^2 I), in which the terms that
     all components share are cancelled by hand: its gradient is O(alpha), and keeps its relative precision there.

S is diagonalised once per closure. Sums of products are written as such: exact float32 on every device.
Source: MIT 6.S184 notes (arXiv 2506.02070v3), examples 10 and 15, applied to mixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from cfgjax.checks import is_traced, of_numpy, require_finite, require_label, require_real, require_shape, short_repr
from cfgjax.contracts import Finite, Key, Positive, PositiveInt, Time, checked
from cfgjax.paths import before_end, coefficients
from cfgjax.types import Array, Coefficients, GaussianPath, LabelledField, LogClassifier, Number

LabelledDensity = Callable[[Array, Array, Array], Array]
"""``(x [D], t [], y []) -> []``: log p_t(x|y)."""


class _Components(NamedTuple):
    """The mixture with its covariances diagonalised, S = V diag(spectrum) V^T."""

    log_weights: Array
    means: Array
    spectrum: Array
    vectors: Array


def _rotate(vectors: Array, values: Array) -> Array:
    """V v for stacks of matrices [..., D, D] and vectors [..., D]."""
    return jnp.sum(vectors * jnp.expand_dims(values, -2), axis=-1)


def _components(mixture: LabelledMixture) -> _Components:
    spectrum, vectors = jnp.linalg.eigh(mixture.covariances)
    weights = mixture.weights / jnp.sum(mixture.weights)
    return _Components(jnp.log(weights), mixture.means, spectrum, vectors)


def _masked(parts: _Components, values: Array, y: Number) -> Array:
    """Values [K, M] where the component belongs to label y (all of them for the null label K), -inf elsewhere."""
    num_classes = parts.log_weights.shape[0]
    belongs = (jnp.arange(num_classes) == y) | (jnp.asarray(y) == num_classes)
    return jnp.where(jnp.expand_dims(belongs, -1), values, -jnp.inf)


def _log_joint(parts: _Components, c: Coefficients, x: Array) -> tuple[Array, Array, Array]:
    """log w N(x; alpha mu, C) [K, M], with C's eigenvalues and V^T (x - alpha mu), each [K, M, D] (M2)."""
    variances = c.alpha**2 * parts.spectrum + c.beta**2
    rotated = _rotate(jnp.swapaxes(parts.vectors, -1, -2), jax.lax.sub(*_spread(x, c.alpha * parts.means)))
    exponent = jnp.sum(rotated**2 / variances + jnp.log(variances), axis=-1)
    return parts.log_weights - 0.5 * (exponent + x.size * jnp.log(2 * jnp.pi)), variances, rotated


def _log_ratio(parts: _Components, c: Coefficients, x: Array) -> Array:
    """log w N(x; alpha mu, C) / N(x; 0, beta^2 I), [K, M] (M5)."""
    ratio = c.alpha / c.beta
    inverse = jnp.swapaxes(parts.vectors, -1, -2)
    state, mean = _rotate(inverse, _spread(x, parts.means)[0]), _rotate(inverse, parts.means)
    variances = c.alpha**2 * parts.spectrum + c.beta**2
    squares = ratio**2 * parts.spectrum * state**2 + 2 * c.alpha * mean * state - c.alpha**2 * mean**2
    exponent = jnp.sum(squares / variances - jnp.log1p(ratio**2 * parts.spectrum), axis=-1)
    return parts.log_weights + 0.5 * exponent


def _spread(x: Array, means: Array) -> tuple[Array, Array]:
    dtype = jnp.result_type(x, means)
    return jnp.broadcast_to(x, means.shape).astype(dtype), means.astype(dtype)


def _average(
    parts: _Components, c: Coefficients, x: Array, y: Number, factor: Callable[[Array], Array], offset: Array
) -> Array:
    """The posterior average (M4) of offset * mu + V (factor(spectrum) / C) V^T r, [D]."""
    log_joint, variances, rotated = _log_joint(parts, c, x)
    posterior = jax.nn.softmax(_masked(parts, log_joint, y), axis=(-2, -1))
    local = offset * parts.means + _rotate(parts.vectors, factor(parts.spectrum) / variances * rotated)
    return jnp.sum(jnp.expand_dims(posterior, -1) * local, axis=(0, 1))


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

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Array]], None]:
        """The three arrays with their names, for JAX."""
        return [(jax.tree_util.GetAttrKey(name), value) for name, value in vars(self).items()], None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: Sequence[Any]) -> LabelledMixture:
        """A mixture of JAX's own leaves, unchecked: cotangents and placeholders are no weights or covariances."""
        mixture = object.__new__(cls)
        for name, leaf in zip(("weights", "means", "covariances"), leaves, strict=True):
            object.__setattr__(mixture, name, leaf)
        return mixture

    def _require(self, x: Array, y: Number = 0) -> None:
        """Raises for an x that is not [D] and a label that is not in 0..K: nothing is spread over components."""
        require_shape("x", x, self.means.shape[-1:])
        require_label("y", y, self.num_classes)

    @property
    def num_classes(self) -> int:
        """K, which is also the null label."""
        return self.weights.shape[0]

    @property
    def num_labels(self) -> int:
        """``num_classes`` by its older name, on which code outside may rely."""
        return self.num_classes

    @checked
    def log_density(self, path: GaussianPath) -> LabelledDensity:
        """log p_t(x|y) of (M2), as a function (x [D], t [], y []) -> []; the null label gives log p_t(x)."""
        parts = _components(self)

        def density(x: Array, t: Array, y: Array) -> Array:
            self._require(x, y)
            log_joint = _log_joint(parts, coefficients(path, t), x)[0]
            label_log_weight = logsumexp(_masked(parts, parts.log_weights, y))
            return logsumexp(_masked(parts, log_joint, y)) - label_log_weight

        return density

    @checked
    def label_log_probs(self, path: GaussianPath) -> LogClassifier:
        """The exact log p_t(y|x) of every label, as a function (x [D], t []) -> [K]."""
        parts = _components(self)

        def log_probs(x: Array, t: Array) -> Array:
            self._require(x)
            c = coefficients(path, t)
            is_early = c.alpha < c.beta
            early = c._replace(beta=jnp.where(is_early, c.beta, 1))
            log_joint = jnp.where(is_early, _log_ratio(parts, early, x), _log_joint(parts, c, x)[0])
            return jax.nn.log_softmax(logsumexp(log_joint, axis=-1))

        return log_probs

    @checked
    def vector_field(self, path: GaussianPath) -> LabelledField:
        """The exact field u_t(x|y) of (M3, M4); at t = 1 its limit, for a variance-preserving path too."""
        parts = _components(self)

        def field(x: Array, t: Array, y: Array) -> Array:
            self._require(x, y)
            c = coefficients(path, before_end(t))

            def factor(spectrum: Array) -> Array:
                return c.alpha * c.alpha_dot * spectrum + c.beta * c.beta_dot

            return _average(parts, c, x, y, factor, c.alpha_dot)

        return field

    @checked
    def score(self, path: GaussianPath) -> LabelledField:
        """The exact score grad_x log p_t(x|y) of (M3, M4), finite on the closed interval."""
        parts = _components(self)

        def score(x: Array, t: Array, y: Array) -> Array:
            self._require(x, y)
            c = coefficients(path, t)
            return _average(parts, c, x, y, lambda spectrum: -jnp.ones_like(spectrum), jnp.zeros_like(c.alpha))

        return score

    @checked
    def noise(self, path: GaussianPath) -> LabelledField:
        """The exact noise prediction E[noise|x, y] of (M3, M4); 0 at t = 1."""
        parts = _components(self)

        def noise(x: Array, t: Array, y: Array) -> Array:
            self._require(x, y)
            c = coefficients(path, t)
            return _average(parts, c, x, y, lambda spectrum: c.beta * jnp.ones_like(spectrum), jnp.zeros_like(c.alpha))

        return noise

    @checked
    def denoiser(self, path: GaussianPath) -> LabelledField:
        """The exact denoiser E[z|x, y] of (M3, M4); x at t = 1, the label's mean at t = 0."""
        parts = _components(self)

        def denoiser(x: Array, t: Array, y: Array) -> Array:
            self._require(x, y)
            c = coefficients(path, t)
            return _average(parts, c, x, y, lambda spectrum: c.alpha * spectrum, jnp.ones_like(c.alpha))

        return denoiser

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
        parts = _components(self)
        component_key, shape_key, noise_key = jax.random.split(key, 3)
        index = jax.random.categorical(component_key, _masked(parts, parts.log_weights, y).reshape(-1))
        mean, spectrum, vectors = (
            leaf.reshape((-1, *leaf.shape[2:]))[index] for leaf in (parts.means, parts.spectrum, parts.vectors)
        )
        z = mean + _rotate(vectors, jnp.sqrt(spectrum) * jax.random.normal(shape_key, mean.shape, mean.dtype))
        if path is None:
            return z
        c = coefficients(path, t)
        return c.alpha * z + c.beta * jax.random.normal(noise_key, z.shape, z.dtype)

    @checked
    def sample_label(self, key: Key) -> Array:
        """A draw of the label y in 0..K-1, [], with the labels' own probabilities."""
        return jax.random.categorical(key, jnp.log(jnp.sum(self.weights, axis=-1)))


@checked
def ring(num_classes: PositiveInt = 8, radius: Finite = 2.0, std: Positive = 0.4) -> LabelledMixture:
    """K round Gaussians of standard deviation ``std`` at equal angles on a circle, one label each, in 2-D.

    >>> ring(num_classes=4).num_classes
    4
    """
    angles = 2 * jnp.pi * jnp.arange(num_classes) / num_classes
    means = radius * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    covariances = jnp.broadcast_to(jnp.square(std) * jnp.eye(2), (num_classes, 2, 2))
    return LabelledMixture(jnp.ones(num_classes), means, covariances)


@checked
def grid(side: PositiveInt = 3, spacing: Finite = 1.5, std: Positive = 0.4) -> LabelledMixture:
    """side x side round Gaussians on a square grid about the origin, one label each, in 2-D."""
    ticks = spacing * (jnp.arange(side) - (side - 1) / 2)
    means = jnp.stack(jnp.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    covariances = jnp.broadcast_to(jnp.square(std) * jnp.eye(2), (side * side, 2, 2))
    return LabelledMixture(jnp.ones(side * side), means, covariances)

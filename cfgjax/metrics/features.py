"""How far two sets of features lie apart, and how far each covers the other; on the host, in float64.

Features are whatever ``features(images) -> [n, d]`` gives: name a number after its features, and compare only numbers
of the same features and the same counts of samples.
"""

from __future__ import annotations

import warnings
from typing import Annotated, NamedTuple

import numpy as np

from cfgjax.checks import as_float64_rows
from cfgjax.contracts import PositiveInt, checked, rows

_SAME = 1e-6
"""Rows nearer than this share of their length are one row, but for the rounding of float32 features."""
_ROUNDED = 1e-4
"""By how much of its largest number a covariance may miss what it is to be, but for the rounding of float32."""

Features = Annotated[np.ndarray, rows(least=2, ndim=2)]
"""[n, d], finite, n >= 2."""


def _require_same_width(samples: np.ndarray, reference: np.ndarray) -> None:
    if samples.shape[1] != reference.shape[1]:
        raise ValueError(f"samples and reference must have as many features, got {samples.shape} and {reference.shape}")


def _root(features: np.ndarray) -> np.ndarray:
    """R with R^T R the covariance, [min(n, d), d]: no product of covariances loses half of the digits."""
    return np.asarray(np.linalg.qr((features - features.mean(axis=0)) / np.sqrt(len(features) - 1), mode="r"))


def _distance(mean: np.ndarray, root: np.ndarray, other_mean: np.ndarray, other_root: np.ndarray) -> float:
    """That of ``frechet_distance``, of two laws with R^T R their covariances."""
    shared = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    spread = np.sum(root**2) + np.sum(other_root**2)
    return float(max(np.sum((mean - other_mean) ** 2) + spread - 2 * shared, 0.0))


@checked
def frechet_distance(samples: Features, reference: Features) -> float:
    """The squared 2-Wasserstein distance of the normal laws with the sets' means and covariances.

    |m - m'|^2 + tr C + tr C' - 2 tr (C C')^(1/2), the last trace as the nuclear norm of R R'^T with C = R^T R: exact
    for singular covariances, too (fewer samples than features). Biased upwards for few samples.

    Args:
        samples: [n, d] features.
        reference: [m, d] features.

    Raises:
        ValueError: unlike widths.

    Source: Dowson & Landau, J. Multivariate Analysis 12, 1982; Heusel et al., arXiv 1706.08500.

    >>> round(frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])), 6)
    9.0
    """
    _require_same_width(samples, reference)
    return _distance(samples.mean(axis=0), _root(samples), reference.mean(axis=0), _root(reference))


class FeatureStatistics(NamedTuple):
    """The mean [d] of features, and their covariance [d, d] with the divisor n - 1: mu and sigma of published files."""

    mean: np.ndarray
    covariance: np.ndarray


@checked
def feature_statistics(features: Features) -> FeatureStatistics:
    """Mean and covariance of features, in float64.

    Args:
        features: [n, d].
    """
    return FeatureStatistics(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def _root_of(covariance: np.ndarray) -> np.ndarray:
    """R with R^T R the covariance, [d, d], by its eigenvalues; those that rounding has left below 0 are 0."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if values[0] < -_ROUNDED * max(values[-1], 0):
        raise ValueError(f"covariance must have no eigenvalue below 0, got {values[0]:g}")
    return (np.sqrt(np.maximum(values, 0)) * vectors).T


@checked
def frechet_distance_to(
    samples: Features,
    mean: Annotated[np.ndarray, rows(ndim=1)],
    covariance: Annotated[np.ndarray, rows(ndim=2)],
) -> float:
    """``frechet_distance`` of samples from a law that is known by its mean and covariance, as ``feature_statistics``.

    Args:
        samples: [n, d] features.
        mean: [d].
        covariance: [d, d].

    Raises:
        ValueError: unlike widths, or a covariance that is not symmetric or has eigenvalues below 0, but for the
            rounding of float32.
    """
    width = samples.shape[1]
    if mean.shape != (width,) or covariance.shape != (width, width):
        shapes = f"{samples.shape}, {mean.shape} and {covariance.shape}"
        raise ValueError(f"samples, mean and covariance must be [n, d], [d] and [d, d], got {shapes}")
    if np.max(np.abs(covariance - covariance.T)) > _ROUNDED * np.max(np.abs(covariance)):
        raise ValueError("covariance must be symmetric")
    return _distance(samples.mean(axis=0), _root(samples), mean, _root_of(covariance))


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first @ second.T / first.shape[1] + 1) ** 3


@checked
def kernel_mmd(samples: Features, reference: Features) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy under the kernel (f . g / d + 1)^3.

    It is zero on average where both sets have one law, and may come out below zero.

    Args, errors: as ``frechet_distance``.
    Source: Binkowski et al., arXiv 1801.01401, section 4.
    """
    _require_same_width(samples, reference)
    n, m = len(samples), len(reference)
    own, other = _kernel(samples, samples), _kernel(reference, reference)
    within = (own.sum() - np.trace(own)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(within - 2 * _kernel(samples, reference).mean())


class PrecisionRecall(NamedTuple):
    """How samples and reference cover each other.

    ``precision``: share of samples inside a ball of the reference; ``recall``: share of the reference inside a ball of
    the samples; ``density``: mean number of the reference's balls around a sample, over k; ``coverage``: share of the
    reference's balls that hold a sample. A point's ball reaches to its k-th nearest neighbour in its own set.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def _radii(points: np.ndarray, neighbours: int) -> np.ndarray:
    """The distance of each point to its k-th nearest other point."""
    # Here, as it takes a second to import, and most commands do without.
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=neighbours + 1).fit(points).kneighbors(points)
    return distances[:, -1]


def _is_repeated(points: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Whether each point lies on its k-th nearest other one."""
    return radii <= _SAME * np.sqrt(np.mean(np.sum(points**2, axis=1)))


@checked
def num_repeated(points: np.ndarray, neighbours: PositiveInt = 5) -> int:
    """How many points lie on their k-th nearest other one: of each, the set holds k further copies.

    Their balls in ``precision_recall`` have radius 0 and hold nothing but copies.

    Args:
        points: [n, d] features.
        neighbours: k.

    Raises:
        TypeError, ValueError: no more than k rows, or numbers that are not real and finite.

    >>> num_repeated(np.array([[0.0], [0.0], [0.0], [1.0]]), neighbours=2)
    3
    """
    points = as_float64_rows("points", points, neighbours + 1, 2)
    return int(np.sum(_is_repeated(points, _radii(points, neighbours))))


def _warn_of_repeated(name: str, is_repeated: np.ndarray, lost: str) -> None:
    if np.any(is_repeated):
        count = f"{np.sum(is_repeated)} of {len(is_repeated)} rows"
        message = f"{name} repeats: {count} lie on their k nearest others, and {lost} count their balls for nothing"
        warnings.warn(message, stacklevel=3)


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squares = np.sum(first**2, axis=1, keepdims=True) - 2 * first @ second.T + np.sum(second**2, axis=1)
    return np.sqrt(np.maximum(squares, 0))


@checked
def precision_recall(samples: np.ndarray, reference: np.ndarray, neighbours: PositiveInt = 5) -> PrecisionRecall:
    """Precision, recall, density and coverage by k nearest neighbours.

    Two sets of one law have density 1 and, for k = 5, coverage about 0.97 at equal counts.

    Args:
        samples: [n, d] features.
        reference: [m, d] features.
        neighbours: k.

    A row that is repeated more than k times has a ball of radius 0, which holds its copies alone: a warning says how
    many of either set do. Repeated samples (a collapsed sampler) lower recall; a repeated reference (augmented or drawn
    with replacement) lowers precision, density and coverage, and says nothing of the samples: leave the copies out.

    Raises:
        TypeError, ValueError: no more than k rows, unlike widths, numbers that are not real and finite, or a reference
            all of whose balls have radius 0.

    Source: Kynkaanniemi et al., arXiv 1904.06991, equation 1; Naeem et al., arXiv 2002.09797, equations 3 and 4.
    """
    first = as_float64_rows("samples", samples, neighbours + 1, 2)
    second = as_float64_rows("reference", reference, neighbours + 1, 2)
    _require_same_width(first, second)
    radii, own_radii = _radii(second, neighbours), _radii(first, neighbours)
    is_repeated = _is_repeated(second, radii)
    if np.all(is_repeated):
        raise ValueError(
            f"reference must not repeat every row more than k = {neighbours} times, or no ball has a radius"
        )
    _warn_of_repeated("reference", is_repeated, "precision, density and coverage")
    _warn_of_repeated("samples", _is_repeated(first, own_radii), "recall")
    apart = _distances(first, second)
    in_reference = apart <= radii
    in_samples = own_radii >= apart.T
    return PrecisionRecall(
        precision=float(in_reference.any(axis=1).mean()),
        recall=float(in_samples.any(axis=1).mean()),
        density=float(in_reference.sum(axis=1).mean() / neighbours),
        coverage=float(in_reference.any(axis=0).mean()),
    )

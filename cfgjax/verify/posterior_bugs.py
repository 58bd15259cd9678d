"""Known mistakes of corrections by a measurement, and what they add to a field.

(V30) The right correction of p(z|x) = N(D, V), V = (beta^2 / alpha) J, J = dD/dx, is
          G = J^T A^T (s^2 I + A V A^T)^-1 (m - A D),   u' = u + (beta W / alpha) G.
      Each mistake changes one of its factors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import paths
from cfgjax.mixtures import LabelledMixture
from cfgjax.mixtures.components import product, rotate, transposed
from cfgjax.types import Array, Coefficients, GaussianPath


class Known(NamedTuple):
    """What a correction may be made of at one state: D, J, x, A, m, s, the prior's covariance, the coefficients."""

    denoised: Array
    jacobian: Array
    x: Array
    matrix: Array
    value: Array
    noise_std: Array
    prior: Array
    coefficients: Coefficients

    @property
    def variance(self) -> Array:
        """V = Cov[z|x], [D, D]."""
        c = self.coefficients
        return c.beta**2 / c.alpha * self.jacobian

    @property
    def residual(self) -> Array:
        """m - A D."""
        return self.value - rotate(self.matrix, self.denoised)

    def spread(self, variance: Array) -> Array:
        """A V A^T."""
        return product(product(self.matrix, variance), self.matrix.T)

    def noisy(self, spread: Array) -> Array:
        """s^2 I + A V A^T."""
        return jnp.square(self.noise_std) * jnp.eye(len(spread)) + spread

    def correction(
        self,
        *,
        covariance: Array | None = None,
        residual: Array | None = None,
        jacobian: Array | None = None,
        adjoint: Array | None = None,
    ) -> Array:
        """G of (V30), with other factors where they are given."""
        covariance = self.noisy(self.spread(self.variance)) if covariance is None else covariance
        solved = jnp.linalg.solve(covariance, self.residual if residual is None else residual)
        back = rotate(self.matrix.T if adjoint is None else adjoint, solved)
        return rotate(transposed(self.jacobian if jacobian is None else jacobian), back)


def _scaled(factor: Callable[[Coefficients], Array]) -> Callable[[Known], Array]:
    return lambda known: factor(known.coefficients) * known.correction()


def _identity(known: Known) -> Array:
    return jnp.eye(len(known.denoised))


def _swapped(known: Known) -> Array:
    return known.correction(adjoint=(_identity(known) - known.matrix).T)


def _of_std(known: Known) -> Array:
    return known.correction(covariance=known.noise_std * _identity(known) + known.spread(known.variance))


def _without_jacobian(known: Known) -> Array:
    return known.correction(jacobian=_identity(known) / known.coefficients.alpha)


def _of_unit_prior(known: Known) -> Array:
    c = known.coefficients
    return known.correction(
        covariance=known.noisy(known.spread(c.beta**2 / (c.alpha**2 + c.beta**2) * _identity(known)))
    )


def _row_sums(known: Known) -> Array:
    return known.correction(covariance=known.noisy(jnp.diag(jnp.sum(known.spread(known.variance), axis=1))))


RIGHT = "right"
DPS = "A V A^T is missing beside sigma^2, as in DPS: V, the uncertainty of z given x, is taken for 0"
MISTAKES: dict[str, Callable[[Known], Array]] = {
    RIGHT: lambda known: known.correction(),
    "the measurement is ignored: the field is not corrected": lambda known: jnp.zeros_like(known.denoised),
    "the sign of the correction, or of the residual m - A D, is wrong": _scaled(lambda c: -jnp.ones_like(c.alpha)),
    "a factor 2 too many": _scaled(lambda c: 2 * jnp.ones_like(c.alpha)),
    "a factor 1/2 too many": _scaled(lambda c: 0.5 * jnp.ones_like(c.alpha)),
    DPS: lambda known: known.correction(covariance=known.noisy(jnp.zeros_like(known.matrix))),
    "sigma is used for sigma^2 in sigma^2 I + A V A^T": _of_std,
    "V is the prior's covariance, not that of z given x": lambda known: known.correction(
        covariance=known.noisy(known.spread(known.prior))
    ),
    "V is beta^2 / (alpha^2 + beta^2), as PiGDM has it: right for a prior of variance 1 alone": _of_unit_prior,
    "A V A^T is replaced by its row sums, as in TMPD": _row_sums,
    "the Jacobian dD/dx is missing": lambda known: known.correction(jacobian=_identity(known)),
    "the Jacobian dD/dx is missing, and 1 / alpha stands in its place": _without_jacobian,
    "the residual is that of the noisy x, m - A x, not of the denoised estimate": lambda known: known.correction(
        residual=known.value - rotate(known.matrix, known.x)
    ),
    "the residual is that of x / alpha, not of the denoised estimate": lambda known: known.correction(
        residual=known.value - rotate(known.matrix, known.x / known.coefficients.alpha)
    ),
    "A is not transposed: A (...) stands for A^T (...)": lambda known: known.correction(adjoint=known.matrix),
    "what is measured and what is missing are exchanged: I - A for A in the correction": _swapped,
    "alpha is missing: beta W G for (beta W / alpha) G": _scaled(lambda c: c.alpha),
    "beta is missing: (W / alpha) G for (beta W / alpha) G": _scaled(lambda c: 1 / c.beta),
    "b_t is missing: the field is changed by G, not by (beta W / alpha) G": _scaled(
        lambda c: c.alpha / (c.beta * c.wronskian)
    ),
}
"""By the mistake's words, the correction in the place of (V30)'s G."""


class Problem(NamedTuple):
    """One measurement of a point: A [D, D], its value and its noise; rows of them for several."""

    matrix: Array
    value: Array
    noise_std: Array


@partial(jax.jit, static_argnames="path")
def _corrections(
    path: GaussianPath, mixture: LabelledMixture, prior: Array, problem: Problem, x: Array, t: Array
) -> Array:
    null, denoiser = mixture.num_classes, mixture.denoiser(path)

    def of(problem: Problem, x: Array, t: Array) -> Array:
        c = paths.coefficients(path, t)

        def denoised(x: Array) -> Array:
            return denoiser(x, t, null)

        known = Known(denoised(x), jax.jacfwd(denoised)(x), x, *problem, prior, c)
        return c.beta * c.wronskian / c.alpha * jnp.stack([mistake(known) for mistake in MISTAKES.values()])

    by_state = jax.vmap(of, in_axes=(None, 0, 0))
    return jax.vmap(by_state)(problem, x, t)


def corrections(
    path: GaussianPath, mixture: LabelledMixture, prior: np.ndarray, problem: Problem, x: Array, t: Array
) -> dict[str, np.ndarray]:
    """By the mistake's words, what it adds to the field at states x [problems, n, D] and times t [problems, n]."""
    found = _corrections(path, mixture, jnp.asarray(prior, x.dtype), problem, x, t)
    return dict(zip(MISTAKES, np.moveaxis(np.asarray(found, np.float64), 2, 0), strict=True))

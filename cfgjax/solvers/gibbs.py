"""Gibbs-like guidance: samples of the label, made noisier and solved again with guidance, several times.

(G1) x by the labelled field from noise to data; then each round x_t = alpha x + beta noise at the time t of a noise
     level, and from there to the data by the guided field.
(G2) At w = 1 a round keeps the labelled law. Of N(m, s^2) and a null of variance s_0^2, with r = beta / alpha at t,
     V <- F (V + r^2) in each round, F = (s^2 / (s^2 + r^2))^w (s_0^2 / (s_0^2 + r^2))^(1-w): V tends to
     F r^2 / (1 - F), and as r -> 0 to the tilted law's 1 / (w / s^2 + (1 - w) / s_0^2).
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced, require_kind
from cfgjax.contracts import Contract, Key, RealArray, TimeGrid, checked, whole
from cfgjax.paths import as_state, noise_like
from cfgjax.piecewise import Piecewise
from cfgjax.solvers.integrate import integrate
from cfgjax.types import Array, GaussianPath, Solver


def _require_solver(name: str, solver: object) -> None:
    for each in solver.pieces if isinstance(solver, Piecewise) else (solver,):
        require_kind(name, each, Solver, "a Solver, as solvers.heun(field) is")


PlainSolver = Annotated[Solver | Piecewise[Solver], Contract(_require_solver)]
"""A solver, or the Piecewise of solvers."""
NumRounds = Annotated[int, whole(0)]
"""An integer, at least 0 where concrete."""


@checked
def gibbs_like(
    path: GaussianPath,
    initial: PlainSolver,
    refining: PlainSolver,
    key: Key,
    x: RealArray,
    ts: TimeGrid,
    refining_ts: TimeGrid,
    num_rounds: NumRounds = 2,
) -> Array:
    """The state at data after (G1), [*D]: one solve by ``initial``, and ``num_rounds`` by ``refining``.

    No rounds are the first solve bitwise. It costs the evaluations of one solve over ``ts`` and of each round's over
    ``refining_ts``. The noise level r of the paper begins the second grid at ``conversions.time_at(path, 1, r)``.

    Args:
        path: the path of both solvers' fields.
        initial: the solver of the labelled field, as ``solvers.heun(guidance.given(field, y))``.
        refining: the solver of the guided field.
        key: the key of the noise and of both solvers'.
        x: [*D], the noise at ts[0].
        ts: [n + 1], the first grid, of times to 1.
        refining_ts: [m + 1], the grid of each round, from the time of the noise level to 1. The paper has 12 steps of
            Heun's rule first, then two rounds of 10 at w = 2, from r = 1 on data of standard deviation 1/2.
        num_rounds: how often; a traced one is not differentiated backwards.

    Raises:
        ValueError: a grid that does not end at 1.

    Source: Moufad et al., arXiv 2505.21101, without its Renyi correction.
    """
    for name, grid in (("ts", ts), ("refining_ts", refining_ts)):
        if not is_traced(grid) and not float(np.asarray(grid)[-1]) == 1:
            raise ValueError(f"{name} must end at 1, where the data are, got {float(grid[-1]):g}")
    first_key, key = jax.random.split(key)
    x = integrate(initial, first_key, as_state(x), ts)
    start = jnp.asarray(refining_ts)[0]

    def again(index: Array, x: Array) -> Array:
        noise_key, solver_key = jax.random.split(jax.random.fold_in(key, index))
        noisy = path.alpha(start) * x + path.beta(start) * noise_like(noise_key, x)
        return integrate(refining, solver_key, noisy.astype(x.dtype), refining_ts)

    return jax.lax.fori_loop(0, num_rounds, again, x)

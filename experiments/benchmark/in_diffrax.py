"""The hand-written network's guided field, solved by diffrax on the same grid."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np

from cfgjax.types import Array, Tree
from experiments.benchmark import reference
from experiments.benchmark.workloads import Workload

SOLVERS: dict[str, Callable[[], Any]] = {"euler": diffrax.Euler, "heun": diffrax.Heun, "euler_maruyama": diffrax.Euler}


def sampler_of(work: Workload, method: str, ts: np.ndarray) -> Callable[..., Array]:
    """(weights, key, noise [B, *D], labels [B], w) -> samples [B, *D], the batch as one state."""
    guided = reference.guided_of(work)

    def sample(weights: Tree, key: Array, noise: Array, labels: Array, scale: Array) -> Array:
        def field(t: Any, x: Any, args: Any) -> Array:
            return guided(weights, x, t, labels, scale)

        def drift(t: Any, x: Any, args: Any) -> Array:
            value = field(t, x, args)
            return value + (t * value - x)

        def diffusion(t: Any, x: Any, args: Any) -> Any:
            return lineax.DiagonalLinearOperator(jnp.full_like(x, jnp.sqrt(2 * (1 - t))))

        terms: Any = diffrax.ODETerm(field)
        if method == "euler_maruyama":
            motion = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(noise.shape, noise.dtype), key)
            terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, motion))
        solution = diffrax.diffeqsolve(
            terms,
            SOLVERS[method](),
            t0=ts[0],
            t1=ts[-1],
            dt0=None,
            y0=noise,
            stepsize_controller=diffrax.StepTo(jnp.asarray(ts)),
            adjoint=diffrax.DirectAdjoint() if method == "euler_maruyama" else diffrax.RecursiveCheckpointAdjoint(),
        )
        return solution.ys[0]

    return sample

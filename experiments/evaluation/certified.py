"""Bounds of the Wasserstein-2 distance between the law of guidance inside a network and its teacher's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import flow_maps, guidance, solvers
from cfgjax.analysis import certificates
from cfgjax.types import Array, Number, Tree
from experiments.config.samplers import Jumps, times
from experiments.evaluation.guided_samples import TEACHER, TEACHER_STEPS, Way, Ways, asked_in_turn
from experiments.tasks.task import Learned

NUM_CERTIFIED = 64
"""Noises of which the means are taken, with the task's conditions in turn."""
Bounds = dict[tuple[str, str, float], dict[str, float]]
"""By guidance, solver and scale."""


def _residuals(jumps: Jumps, teacher: Way, shape: tuple[int, ...], ts: Array) -> Any:
    """(key, condition, scale) -> the residuals of one jump from 0 to 1 along the teacher's trajectory."""

    def of_one(key: Array, y: Tree, scale: Number) -> Array:
        flow_map = flow_maps.given(jumps(scale), y)
        noise = jax.random.normal(jax.random.split(key)[0], shape)
        field = guidance.given(teacher.rule(scale), y)
        residuals, _ = certificates.residuals_along(
            solvers.heun, lambda x, t: x + (1 - t) * flow_map(x, t, jnp.ones_like(t)), field, noise, ts
        )
        return residuals

    return of_one


def bounds(run: Learned, ways: Ways) -> Bounds:
    """For each way without noise of its own, and each scale, upper bounds of the distance, over the root of D.

    coupling_bound is that of samples of the same noise, (C2) of ``certificates``; residual_bound, of one jump from
    noise to data, that of the residual along the teacher's trajectories (C3). Both are means of NUM_CERTIFIED noises.

    Args:
        run: what was trained.
        ways: to draw samples; without the teacher's there is nothing to compare with.
    """
    teacher = next((way for (guidance, _), way in ways.items() if guidance == TEACHER), None)
    if teacher is None:
        return {}
    scales, per_root = run.experiment.sampling.scales, 1 / np.sqrt(np.prod(run.task.shape))
    ts = jnp.asarray(times(run.path, TEACHER_STEPS))
    keys, conditions = asked_in_turn(run, NUM_CERTIFIED)

    def by_scale(function: Any) -> list[Array]:
        mapped = jax.jit(jax.vmap(function, (0, 0, None)))
        return [mapped(keys, conditions, jnp.float32(scale)) for scale in scales]

    own, found = by_scale(teacher.draw_of(run)), {}
    for name, way in ways.items():
        if not way.is_of_ode:
            continue
        rows = zip(scales, by_scale(way.draw_of(run)), own, strict=True)
        coupling = {scale: certificates.coupling_bound(*pair).value for scale, *pair in rows}
        found |= {(*name, scale): {"coupling_bound": float(its * per_root)} for scale, its in coupling.items()}
        if way.jumps is not None and way.num_steps == 1:
            of_jump = _residuals(way.jumps, teacher, run.task.shape, ts)
            for scale, residuals in zip(scales, by_scale(of_jump), strict=True):
                bound = float(certificates.residual_bound(residuals, ts) * per_root)
                found[(*name, scale)]["residual_bound"] = bound
    return found

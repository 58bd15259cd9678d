"""Steps by a flow map: one evaluation each, however long they are.

(J1) jump:          x_t' = x + (t' - t) U(x, t, t').
(J2) renoised:      a jump to s = t' + a (1 - t'), then noise: x_t' = k x_s + sqrt(beta'^2 - k^2 beta_s^2) noise,
                    k = alpha' / alpha_s. An x_s of the law at s becomes one of the law at t' exactly.
Both go forwards only, as a learned flow map does; from data to noise by one that goes both ways: ``flow_maps.flow_of``.
Evaluations are counted as those of a field, ``num_function_evaluations(lambda flow_map: jump(given(flow_map, y, w)),
flow_map, x, ts)``.
"""

from __future__ import annotations

import jax.numpy as jnp

from cfgjax.contracts import StateFlowMap, UnitInterval, checked
from cfgjax.paths import noise_like
from cfgjax.types import Array, GaussianPath, Solver, State


@checked
def jump(flow_map: StateFlowMap) -> Solver:
    """The step (J1) of a flow map (x, t, r) -> U: exact for an exact map, and for a learned one never two times."""

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x = carry.x
        return State((x + (t_next - t) * flow_map(x, t, t_next)).astype(x.dtype))

    return Solver(init=State, step=step, is_forward_only=True)


@checked
def renoised_jump(path: GaussianPath, flow_map: StateFlowMap, amount: UnitInterval = 1.0) -> Solver:
    """The step (J2) of a flow map (x, t, r) -> U: further than the next time, and back to it by new noise.

    Args:
        path: of the flow map.
        flow_map: the average velocity.
        amount: [], a of (J2): 0 is ``jump``; at 1 each step goes to the data and back, the sampler of consistency
            models.

    Source: Song et al., arXiv 2303.01469, algorithm 1; Kim et al., arXiv 2310.02279 (the amounts between).
    """

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x = carry.x
        further = t_next + amount * (1 - t_next)
        moved = x + (further - t) * flow_map(x, t, further)
        k = path.alpha(t_next) / path.alpha(further)
        variance = jnp.square(path.beta(t_next)) - jnp.square(k * path.beta(further))
        is_noisy = variance > 0
        std = jnp.where(is_noisy, jnp.sqrt(jnp.where(is_noisy, variance, 1)), 0)
        return State((k * moved + std * noise_like(key, x)).astype(x.dtype))

    return Solver(init=State, step=step, is_forward_only=True)
